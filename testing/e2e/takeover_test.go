package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minictl/minictl/testing/lab"
)

// addressOf is a running container's address on the overlay.
func addressOf(h *lab.Host, name string) string {
	return strings.TrimSpace(h.MustMinictl("inspect", "-f", "{{.NetworkSettings.Networks.ov_net1.IPAddress}}", name))
}

// reaches waits until a container reaches another by name; at rest it does so at once.
func reaches(t *testing.T, l *lab.Lab, h *lab.Host, from string, names ...string) {
	t.Helper()
	for _, to := range names {
		l.Eventually(soon, func() error {
			if out, errOut, code := h.Minictl("exec", from, "ping", "-c", "1", "-W", "1", to); code != 0 {
				return errf("%s on %s does not reach %s: %s%s", from, h.Name(), to, out, errOut)
			}
			return nil
		})
	}
}

// networkFacts are what network inspect tells of addresses.
type networkFacts struct {
	Containers map[string]struct{ Name, IPv4Address string }
	Status     struct {
		IPAM struct {
			Subnets map[string]struct{ IPsInUse, DynamicIPsAvailable int }
		}
	}
	Reserves map[string][]netip.Addr
}

func networkOf(t *testing.T, h *lab.Host) networkFacts {
	t.Helper()
	return inspect[networkFacts](t, h.MustMinictl("network", "inspect", "ov_net1"))
}

// inTheMiddle are the addresses of 10.0.0.0/24 that a side begins with while hosts are missing since a takeover.
const inTheMiddle = `^10\.0\.0\.(6[4-9]|[7-9][0-9]|1[0-8][0-9]|19[01])$`

// noTwins wants every address of the network to belong to one container, the same on all hosts.
func noTwins(t *testing.T, l *lab.Lab, want int, hosts ...*lab.Host) {
	t.Helper()
	for _, h := range hosts {
		l.Eventually(soon, func() error {
			by := map[string]string{}
			for _, c := range networkOf(t, h).Containers {
				if other, twice := by[c.IPv4Address]; twice {
					t.Fatalf("%s: %s and %s have the address %s", h.Name(), c.Name, other, c.IPv4Address)
				}
				by[c.IPv4Address] = c.Name
			}
			if len(by) != want {
				return errf("%s knows %d endpoints, want %d: %v", h.Name(), len(by), want, by)
			}
			return nil
		})
	}
}

// whole waits until every host has its reserve again, and everything used is decided.
func whole(t *testing.T, l *lab.Lab, size, used int, hosts ...*lab.Host) {
	t.Helper()
	for _, h := range hosts {
		l.Eventually(soon, func() error {
			n := networkOf(t, h)
			total := used
			for _, x := range hosts {
				if got := len(n.Reserves[x.Name()]); got != size {
					return errf("%s sees %d addresses in %s's reserve, want %d", h.Name(), got, x.Name(), size)
				}
				total += size
			}
			if got := n.Status.IPAM.Subnets["10.0.0.0/24"]; got.IPsInUse != total || got.IPsInUse+got.DynamicIPsAvailable != 253 {
				return errf("%s: %+v, want %d in use", h.Name(), got, total)
			}
			return nil
		})
	}
}

// TestVoterDies is failure mode 1: with the only host that decides switched off, the other goes on at once: run, create,
// start, stop, rm, names, packets. What it gave out is an address like any other when the host is back.
func TestVoterDies(t *testing.T) {
	t.Parallel()
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			h1, h2 := pair(t, l)
			h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
			h1.MustMinictl("run", "-d", "--name", "bbox1", "--network", "ov_net1", "busybox", "sleep", "600")
			h2.MustMinictl("run", "-d", "--name", "bbox2", "--network", "ov_net1", "busybox", "sleep", "600")
			h2.MustMinictl("create", "--name", "made", "--network", "ov_net1", "--ip", "10.0.0.77", "busybox", "sleep", "600")
			whole(t, l, 8, 3, h1, h2)
			h1.Halt()
			began := time.Now()
			c.must(h2, "run", "-d", "--name", "bbox3", "--network", "ov_net1", "busybox", "sleep", "600")
			t.Logf("run after %v", time.Since(began))
			began = time.Now()
			c.must(h2, "run", "-d", "--name", "bbox4", "--network", "ov_net1", "busybox", "sleep", "600")
			t.Logf("run again after %v", time.Since(began))
			wantMatch(t, "from the reserve", addressOf(h2, "bbox3"), `^10\.0\.0\.(239|24\d)$`)
			reaches(t, l, h2, "bbox3", "bbox2", "bbox4")
			reaches(t, l, h2, "bbox2", "bbox3")
			c.must(h2, "start", "made")
			wantMatch(t, "its own address", addressOf(h2, "made"), `^10\.0\.0\.77$`)
			c.must(h2, "stop", "-t", "0", "bbox2", "made")
			c.must(h2, "start", "bbox2", "made")
			reaches(t, l, h2, "bbox4", "bbox2", "made")
			for range 10 { // more often than there are addresses in reserve
				c.must(h2, "run", "--rm", "--network", "ov_net1", "busybox", "true")
			}
			h2.KillDaemon()
			h2.RestartDaemon()
			c.must(h2, "run", "--rm", "--network", "ov_net1", "busybox", "true")
			reaches(t, l, h2, "bbox4", "bbox2", "made")
			says(t, l, h2, "If it is gone for good: minictl cluster recover, here.") // not before it is known to be down
			began = time.Now()
			out, errOut, code := c.try(h2, "network", "create", "-d", "overlay", "ov_net2")
			t.Logf("refused after %v: %s", time.Since(began), errOut)
			if code != 1 {
				t.Errorf("network create: code %d, %s", code, out)
			}
			wantMatch(t, "who is missing and what to type", errOut, `create network ov_net2: host1 \(192\.168\.66\.11\), which decides.*not been heard.*minictl cluster recover`)
			c.must(h2, "rm", "-f", "bbox4")
			h1.Boot()
			h1.RestartDaemon()
			noTwins(t, l, 3, h1, h2) // bbox2, bbox3, made
			whole(t, l, 8, 3, h1, h2)
			h1.MustMinictl("start", "bbox1")
			reaches(t, l, h1, "bbox1", "bbox2", "bbox3", "made")
			reaches(t, l, h2, "bbox3", "bbox1")
			c.must(h2, "run", "-d", "--name", "bbox5", "--network", "ov_net1", "busybox", "sleep", "600")
			wantMatch(t, "in order again", addressOf(h2, "bbox5"), `^10\.0\.0\.[2-5]$`)
			h2.MustMinictl("network", "create", "-d", "overlay", "ov_net2")
		})
	}
}

// TestPowerCut is the other half of failure mode 1: both hosts lose power and come back, in either order. Whoever is first
// has its containers running before the other is there.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	for i, h := range []*lab.Host{h1, h2} {
		h.MustMinictl("run", "-d", "--restart", "always", "--name", fmt.Sprint("bbox", i+1), "--network", "ov_net1", "busybox", "sleep", "600")
	}
	whole(t, l, 8, 2, h1, h2)
	for _, first := range []*lab.Host{h2, h1} {
		second := map[*lab.Host]*lab.Host{h1: h2, h2: h1}[first]
		h1.Halt()
		h2.Halt()
		first.Boot()
		first.RestartDaemon()
		own := map[*lab.Host]string{h1: "bbox1", h2: "bbox2"}
		clients()[0].until(l, first, own[first], "{{.State.Status}}", "running")
		reaches(t, l, first, own[first], own[first])
		second.Boot()
		second.RestartDaemon()
		clients()[0].until(l, second, own[second], "{{.State.Status}}", "running")
		oneCluster(t, l, h1, h2)
		noTwins(t, l, 2, h1, h2)
		whole(t, l, 8, 2, h1, h2)
		reaches(t, l, first, own[first], own[second])
		reaches(t, l, second, own[second], own[first])
	}
}

// TestPartition is failure mode 2 with two hosts: both sides start containers, none share an address, and when the link
// is back each side knows the other's.
func TestPartition(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	for i, h := range []*lab.Host{h1, h2} {
		h.MustMinictl("run", "-d", "--name", fmt.Sprint("before", i+1), "--network", "ov_net1", "busybox", "sleep", "600")
	}
	reaches(t, l, h1, "before1", "before2")
	l.Partition(h1, h2)
	for i, h := range []*lab.Host{h1, h2} {
		for j := range 3 {
			h.MustMinictl("run", "-d", "--name", fmt.Sprintf("during%d%c", i+1, 'a'+j), "--network", "ov_net1", "busybox", "sleep", "600")
		}
		h.MustMinictl("rm", "-f", fmt.Sprintf("during%d%c", i+1, 'a'))
	}
	reaches(t, l, h2, "during2b", "before2", "during2c")
	reaches(t, l, h1, "during1b", "before1", "during1c")
	l.HealAll()
	noTwins(t, l, 6, h1, h2)
	whole(t, l, 8, 6, h1, h2)
	reaches(t, l, h1, "during1b", "before2", "during2b", "during2c")
	reaches(t, l, h2, "during2b", "before1", "during1b", "during1c")
}

// TestPartitionOfFour is failure mode 2 with four hosts, three of which decide, and two on each side: the side that has two of
// the three goes on deciding, the other gives from its reserves and says who is missing; then all are as one again.
func TestPartitionOfFour(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	hosts := []*lab.Host{h1, h2, start(t, l, "host3"), start(t, l, "host4")}
	for _, h := range hosts[2:] {
		h.MustMinictl("cluster", "join", "--token", strings.TrimSpace(h1.MustMinictl("cluster", "token", "-q")), h1.Addr().String())
	}
	var voters, learners []*lab.Host
	l.Eventually(3*soon, func() error {
		voters, learners = nil, nil
		for _, n := range statusOf(t, h1).Nodes {
			i := slices.IndexFunc(hosts, func(h *lab.Host) bool { return h.Name() == n.Name })
			if n.Role == "voter" {
				voters = append(voters, hosts[i])
			} else {
				learners = append(learners, hosts[i])
			}
		}
		if len(voters) != 3 || len(learners) != 1 {
			return errf("%d voters of %d", len(voters), len(voters)+len(learners))
		}
		return nil
	})
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	whole(t, l, 8, 0, hosts...)
	most, few := voters[:2], []*lab.Host{voters[2], learners[0]}
	for _, a := range most {
		for _, b := range few {
			l.Partition(a, b)
		}
	}
	run := func(h *lab.Host, name string) {
		t.Helper()
		h.MustMinictl("run", "-d", "--name", name, "--network", "ov_net1", "busybox", "sleep", "600")
	}
	for i, side := range [][]*lab.Host{most, few} {
		for j, h := range side {
			run(h, fmt.Sprintf("c%d%d", i, j))
			run(h, fmt.Sprintf("d%d%d", i, j))
		}
	}
	for _, h := range most {
		l.Eventually(soon, func() error {
			if out, errOut, code := h.Minictl("network", "create", "-d", "overlay", "by-"+h.Name()); code != 0 {
				return errf("%s decides nothing: %s%s", h.Name(), out, errOut)
			}
			return nil
		})
	}
	for _, h := range few {
		says(t, l, h, "minictl cluster recover, here.")
		fails(t, h, 1, `, which decides? for this cluster, ha(s|ve) not been heard .*minictl cluster recover`, "network", "create", "-d", "overlay", "nobody")
	}
	reaches(t, l, most[0], "c00", "c01", "d01")
	reaches(t, l, few[0], "c10", "c11", "d11")
	l.HealAll()
	oneCluster(t, l, hosts...)
	noTwins(t, l, 8, hosts...)
	whole(t, l, 8, 8, hosts...)
	reaches(t, l, most[0], "c00", "c10", "c11", "d11")
	reaches(t, l, few[1], "c11", "c00", "d01", "d10")
	for _, h := range few {
		for _, other := range most {
			l.Eventually(soon, func() error {
				if out, errOut, code := h.Minictl("network", "inspect", "by-"+other.Name()); code != 0 {
					return errf("%s: %s%s", h.Name(), out, errOut)
				}
				return nil
			})
		}
	}
}

// clusterFacts are what cluster status tells.
type clusterFacts struct {
	Epoch, State, Leader, Self string
	Summary                    []string
	Nodes                      []struct{ Name, Status, Role string }
}

func statusOf(t *testing.T, h *lab.Host) (s clusterFacts) {
	t.Helper()
	if err := json.Unmarshal([]byte(h.MustMinictl("cluster", "status", "-f", "json")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// says waits for a sentence in a host's cluster status.
func says(t *testing.T, l *lab.Lab, h *lab.Host, want string) {
	t.Helper()
	l.Eventually(2*soon, func() error {
		if got := strings.Join(statusOf(t, h).Summary, "\n"); !strings.Contains(got, want) {
			return errf("%s does not say %q: %s", h.Name(), want, got)
		}
		return nil
	})
}

// oneCluster waits until hosts are in one epoch and all up to each other.
func oneCluster(t *testing.T, l *lab.Lab, hosts ...*lab.Host) {
	t.Helper()
	l.Eventually(3*soon, func() error {
		first := statusOf(t, hosts[0])
		for _, h := range hosts {
			s := statusOf(t, h)
			if s.Epoch != first.Epoch || s.Leader == "" || s.Leader != first.Leader || len(s.Nodes) != len(hosts) {
				return errf("%s: %+v, %s: %+v", hosts[0].Name(), first, h.Name(), s)
			}
			for _, n := range s.Nodes {
				if n.Status != "Ready" {
					return errf("%s: %+v", h.Name(), s.Nodes)
				}
			}
		}
		return nil
	})
}

// takeOver takes the cluster over as soon as the others have been silent for long enough.
func takeOver(l *lab.Lab, c cli, h *lab.Host) {
	args := []string{"cluster", "recover", "-f"}
	if c.name == "docker" {
		args = []string{"swarm", "init", "--force-new-cluster"}
	}
	l.Eventually(3*soon, func() error {
		if out, errOut, code := c.try(h, args...); code != 0 {
			return errf("%s: %s%s", h.Name(), out, errOut)
		}
		return nil
	})
}

// TestTakeover is failure mode 4: the other host takes the cluster over while the one that decided goes on behind a
// partition. When the link is back, that one joins again by itself; its containers ran all the time, and nothing of what
// either side has told its users is lost.
func TestTakeover(t *testing.T) {
	t.Parallel()
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			h1, h2 := pair(t, l)
			h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
			h1.MustMinictl("run", "-d", "--name", "bbox1", "--network", "ov_net1", "busybox", "sleep", "600")
			h2.MustMinictl("run", "-d", "--name", "bbox2", "--network", "ov_net1", "busybox", "sleep", "600")
			fails(t, h2, 1, `host1 decides for the cluster and answers`, "cluster", "recover", "-f")
			fails(t, h1, 1, `this host decides for the cluster already`, "cluster", "recover", "-f")
			pid := strings.TrimSpace(h1.MustMinictl("inspect", "-f", "{{.State.Pid}}", "bbox1"))
			l.Partition(h1, h2)
			takeOver(l, c, h2)
			says(t, l, h2, "Not back yet: host1.")
			h1.MustMinictl("run", "-d", "--name", "old", "--network", "ov_net1", "busybox", "sleep", "600")
			h1.MustMinictl("network", "create", "-d", "overlay", "solo")
			h2.MustMinictl("network", "create", "-d", "overlay", "ov_net2")
			h2.MustMinictl("run", "-d", "--name", "new", "--network", "ov_net1", "busybox", "sleep", "600")
			wantMatch(t, "the missing host gives the lowest", addressOf(h1, "old"), `^10\.0\.0\.4$`)
			wantMatch(t, "so this one gives from the middle", addressOf(h2, "new"), inTheMiddle)
			l.HealAll()
			oneCluster(t, l, h1, h2)
			if s := statusOf(t, h1); !strings.HasPrefix(s.Epoch, "2.") || s.Leader == s.Self {
				t.Errorf("host1: %+v", s)
			}
			noTwins(t, l, 4, h1, h2)
			whole(t, l, 8, 4, h1, h2)
			reaches(t, l, h1, "old", "bbox1", "bbox2", "new")
			reaches(t, l, h2, "new", "bbox1", "bbox2", "old")
			if got := strings.TrimSpace(h1.MustMinictl("inspect", "-f", "{{.State.Pid}}", "bbox1")); got != pid {
				t.Errorf("bbox1 is process %s, was %s", got, pid)
			}
			for _, h := range []*lab.Host{h1, h2} {
				l.Eventually(soon, func() error {
					if got := strings.Join(lines(h.MustMinictl("network", "ls", "-q", "--filter", "driver=overlay", "--format", "{{.Name}}")), " "); got != "ov_net1 ov_net2 solo" {
						return errf("%s has the networks %s", h.Name(), got)
					}
					return nil
				})
				if got := strings.Join(statusOf(t, h).Summary, "\n"); strings.Contains(got, "Not back") {
					t.Errorf("%s: %s", h.Name(), got)
				}
			}
			h1.MustMinictl("run", "-d", "--name", "after", "--network", "ov_net1", "busybox", "sleep", "600")
			wantMatch(t, "in order again", addressOf(h1, "after"), `^10\.0\.0\.5$`)
			h1.KillDaemon()
			h1.RestartDaemon()
			oneCluster(t, l, h1, h2)
			reaches(t, l, h1, "after", "new")
		})
	}
}

// TestJoinedWhileAway is a takeover by a host that was away when another joined: that one is told what it waits for, its
// containers run, what they have is nobody else's, and it is in again as soon as one that knew it has come over.
func TestJoinedWhileAway(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	h1.MustMinictl("run", "-d", "--name", "bbox1", "--network", "ov_net1", "busybox", "sleep", "600")
	h2.MustMinictl("run", "-d", "--name", "bbox2", "--network", "ov_net1", "busybox", "sleep", "600")
	h3 := start(t, l, "host3")
	l.Isolate(h2)
	h3.MustMinictl(append(joinArgs(t, h1), "192.168.66.11")...)
	h3.MustMinictl("run", "-d", "--name", "bbox3", "--network", "ov_net1", "busybox", "sleep", "600")
	bbox3, pid := addressOf(h3, "bbox3"), h3.MustMinictl("inspect", "-f", "{{.State.Pid}}", "bbox3")
	takeOver(l, clients()[0], h2)
	l.Unplug(h1)
	l.HealAll()
	says(t, l, h3, "it is let in as soon as a host that knows it has joined again")
	l.Unplug(h3)
	l.Plug(h1)
	says(t, l, h2, "Not back yet: host3.")
	for i := range 3 {
		name := fmt.Sprint("new", i)
		h1.MustMinictl("run", "-d", "--name", name, "--network", "ov_net1", "busybox", "sleep", "600")
		if got := addressOf(h1, name); got == bbox3 {
			t.Errorf("%s has the address of bbox3, %s", name, got)
		}
	}
	l.Plug(h3)
	hosts := []*lab.Host{h1, h2, h3}
	oneCluster(t, l, hosts...)
	noTwins(t, l, 6, hosts...)
	whole(t, l, 8, 6, hosts...)
	reaches(t, l, h3, "bbox3", "bbox1", "bbox2", "new0")
	reaches(t, l, h1, "new0", "bbox3")
	if got := h3.MustMinictl("inspect", "-f", "{{.State.Pid}}", "bbox3"); got != pid || addressOf(h3, "bbox3") != bbox3 {
		t.Errorf("bbox3 is process %s at %s, was %s at %s", got, addressOf(h3, "bbox3"), pid, bbox3)
	}
	if got := strings.Join(statusOf(t, h2).Summary, "\n"); strings.Contains(got, "Not back") {
		t.Error(got)
	}
}

// TestBothRecovered is failure mode 5: two hosts take over without each other. Both say so, nothing passes between them,
// and one command ends it; containers run through all of it.
func TestBothRecovered(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	h3 := start(t, l, "host3")
	h3.MustMinictl(append(joinArgs(t, h1), "192.168.66.11")...)
	hosts := []*lab.Host{h1, h2, h3}
	l.Eventually(2*soon, func() error {
		for _, n := range statusOf(t, h1).Nodes {
			if n.Role != "voter" {
				return errf("%s does not vote yet", n.Name)
			}
		}
		return nil
	})
	h1.MustMinictl("network", "create", "-d", "overlay", "--subnet", "10.7.0.0/16", "ov_net1")
	runs := func(h *lab.Host, network, name string) {
		h.MustMinictl("run", "-d", "--name", name, "--network", network, "busybox", "sleep", "600")
	}
	for i, h := range hosts {
		runs(h, "ov_net1", fmt.Sprint("bbox", i+1))
	}
	for _, h := range hosts {
		l.Isolate(h)
	}
	for _, h := range []*lab.Host{h2, h3} { // what one side gives the other does not
		takeOver(l, clients()[0], h)
		runs(h, "ov_net1", "new-"+h.Name())
		h.MustMinictl("network", "create", "-d", "overlay", "net-"+h.Name())
		runs(h, "net-"+h.Name(), "own-"+h.Name())
	}
	h3.MustMinictl("network", "create", "-d", "overlay", "--subnet", "10.5.0.0/24", "solo")
	e2, e3 := statusOf(t, h2).Epoch, statusOf(t, h3).Epoch
	if e2[:2] != "2." || e3[:2] != "2." || e2 == e3 {
		t.Fatalf("epochs %s and %s", e2, e3)
	}
	l.Unplug(h1) // whom it would follow is not what this is about
	l.HealAll()
	says(t, l, h2, "This cluster has gone on apart: here, and on host3 (epoch "+e3+")")
	says(t, l, h3, "This cluster has gone on apart: here, and on host2 (epoch "+e2+")")
	if got := h2.MustMinictl("network", "ls", "--format", "{{.Name}}"); strings.Contains(got, "solo") {
		t.Error("merged in silence")
	}
	h3.MustMinictl("cluster", "rejoin", "-f")
	l.Plug(h1)
	oneCluster(t, l, hosts...)
	if got := statusOf(t, h1).Epoch; got != e2 {
		t.Errorf("epoch %s, want %s", got, e2)
	}
	noTwins(t, l, 5, hosts...)
	for i, h := range hosts {
		reaches(t, l, h, fmt.Sprint("bbox", i+1), "bbox1", "bbox2", "bbox3", "new-host2", "new-host3")
	}
	l.Eventually(soon, func() error {
		got := strings.Fields(h1.MustMinictl("network", "ls", "--format", "{{.Name}}"))
		for _, n := range []string{"solo", "net-host2", "net-host3"} {
			if !slices.Contains(got, n) {
				return errf("what was made on one side and clashes with nothing is lost: no %s in %s", n, got)
			}
		}
		return nil
	})
	for _, h := range []*lab.Host{h2, h3} {
		runs(h1, "net-"+h.Name(), "beside-"+h.Name())
		reaches(t, l, h1, "beside-"+h.Name(), "own-"+h.Name())
	}
}

// TestReserveLimits is failure mode 6: the reserve used up, and a network removed and made again while a host behind a
// partition used it.
func TestReserveLimits(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	l.Partition(h1, h2)
	for i := range 8 {
		h2.MustMinictl("run", "-d", "--name", fmt.Sprint("c", i), "--network", "ov_net1", "busybox", "sleep", "600")
	}
	says(t, l, h2, "minictl cluster recover, here.")
	fails(t, h2, 125, `ov_net1, of which this host has none left in reserve: host1 .*minictl cluster recover`, "run", "--rm", "--network", "ov_net1", "busybox", "true")
	says(t, l, h2, "in reserve: ov_net1 (0)")
	for i := range 7 {
		h2.MustMinictl("rm", "-f", fmt.Sprint("c", i))
	}
	h2.MustMinictl("run", "--rm", "--network", "ov_net1", "busybox", "true")
	h1.MustMinictl("network", "rm", "ov_net1")
	h1.MustMinictl("network", "create", "-d", "overlay", "--subnet", "10.0.0.0/24", "ov_net1")
	h1.MustMinictl("run", "-d", "--name", "bbox1", "--network", "ov_net1", "busybox", "sleep", "600")
	l.HealAll()
	says(t, l, h2, "c7 is on a network, ov_net1, that the cluster does not have: it was removed, or made, while this host was apart from the others. "+
		"There is another one named ov_net1 now: minictl restart c7 takes it there.")
	noTwins(t, l, 1, h1, h2)
	h2.MustMinictl("restart", "-t", "0", "c7")
	noTwins(t, l, 2, h1, h2)
	reaches(t, l, h2, "c7", "bbox1")
	whole(t, l, 8, 2, h1, h2)
	if got := strings.Join(statusOf(t, h2).Summary, "\n"); strings.Contains(got, "c7") {
		t.Error(got)
	}
}

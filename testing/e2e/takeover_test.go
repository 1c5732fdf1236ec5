package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
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

func decodeStatus(t *testing.T, h *lab.Host) (s struct {
	Epoch, State, Leader, Self string
	Summary                    []string
}) {
	t.Helper()
	if err := json.Unmarshal([]byte(h.MustMinictl("cluster", "status", "-f", "json")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

//go:build upgrade

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// oldEnv names the older release's binary.
const oldEnv = "MINICTL_OLD_BIN"

// TestUpgrade upgrades a cluster of three hosts one by one, as its users do: SIGTERM, another binary. With releases mixed,
// everything goes on and everything works from either side; nothing is started anew. At the end the older release meets
// what the newer one has written.
//
// It is behind a build tag, since a full run has no older release to begin with: make test-upgrade FROM=<commit> builds one.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		order func(leader int) []int
	}{
		{"leader last", func(leader int) []int { return []int{(leader + 1) % 3, (leader + 2) % 3, leader} }},
		{"leader first", func(leader int) []int { return []int{leader, (leader + 1) % 3, (leader + 2) % 3} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newUpgrade(t)
			order := c.order(w.leader(t))
			for i, n := range order {
				h := w.hosts[n]
				h.StopDaemon()
				h.Use(w.next)
				h.RestartDaemon()
				t.Logf("upgraded: %s", h.Name())
				w.all(t, i+1)
				if i+1 < len(order) {
					older := w.hosts[order[i+1]]
					w.works(t, older, h)
					w.works(t, h, older)
					w.joins(t, older, w.next)
					w.joins(t, h, w.old)
				}
			}
			w.works(t, w.hosts[0], w.hosts[1])
			versions := lines(w.hosts[0].MustMinictl("node", "ls", "--format", "{{.EngineVersion}}"))
			if len(versions) != 3 || len(slices.Compact(versions)) != 1 {
				t.Errorf("versions of three upgraded nodes: %v", versions)
			}
			w.back(t, w.hosts[order[0]])
			w.all(t, 3)
		})
	}
}

// upgrade is a cluster that the older release has made.
type upgrade struct {
	l         *lab.Lab
	old, next string
	hosts     []*lab.Host
	laptop    *lab.Host
	boxes     map[string]*lab.Host
	facts     map[string]string // what must stay as it is, by container
	older     string            // the daemon's program before
	runs      int
}

func newUpgrade(t *testing.T) *upgrade {
	t.Helper()
	was := os.Getenv(oldEnv)
	if was == "" {
		t.Fatalf("%s is not set: make test-upgrade FROM=<an older commit>", oldEnv)
	}
	is, err := lab.Binary()
	if err != nil {
		t.Fatal(err)
	}
	w := &upgrade{l: lab.New(t), boxes: map[string]*lab.Host{}, facts: map[string]string{}}
	// By names of their own, since the lab takes a daemon that lies unpacked beside a binary: a user's unpacks itself.
	dir := t.TempDir()
	w.old, w.next = filepath.Join(dir, "minictl-old"), filepath.Join(dir, "minictl-next")
	for to, from := range map[string]string{w.old: was, w.next: is} {
		if err := os.Symlink(from, to); err != nil {
			t.Fatal(err)
		}
	}
	w.l.Use(w.old)
	for _, name := range []string{"host1", "host2", "host3"} {
		w.hosts = append(w.hosts, start(t, w.l, name))
	}
	w.laptop = w.l.Client("laptop")
	h1 := w.hosts[0]
	line := joinLine(t, h1.MustMinictl("cluster", "init", "--advertise-addr", "eth0"))
	for _, h := range w.hosts[1:] {
		h.MustMinictl(line...)
	}
	oneCluster(t, w.l, w.hosts...)
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	for i, args := range [][]string{{"-p", "8080:80"}, {"--restart", "always"}, {"--ip", "10.0.0.77"}} {
		h := w.hosts[i]
		h.MustMinictl("network", "create", "local")
		h.MustMinictl("volume", "create", "kept")
		w.run(h, "web"+itoa(i+1), slices.Concat([]string{"--network", "ov_net1"}, args, []string{"httpd"}))
		w.run(h, "bbox"+itoa(i+1), []string{"--network", "ov_net1", "busybox", "sleep", "36000"})
		w.run(h, "near"+itoa(i+1), []string{"--network", "local", "-v", "kept:/kept", "busybox", "sh", "-c", "echo kept >/kept/it; exec sleep 36000"})
		w.run(h, "far"+itoa(i+1), []string{"--network", "local", "busybox", "sleep", "36000"})
	}
	w.older = program(t, h1)
	w.all(t, 0)
	return w
}

// kept is what no upgrade may change of a container.
const kept = "{{.State.Pid}} {{.State.StartedAt}} {{.RestartCount}} {{range .NetworkSettings.Networks}}{{.IPAddress}} {{.MacAddress}}{{end}}"

func (w *upgrade) run(h *lab.Host, name string, args []string) {
	h.MustMinictl(append([]string{"run", "-d", "--name", name}, args...)...)
	w.boxes[name] = h
	w.facts[name] = h.MustMinictl("inspect", "-f", kept, name)
}

// leader is the number of the host that leads.
func (w *upgrade) leader(t *testing.T) (n int) {
	t.Helper()
	w.l.Eventually(patient, func() error {
		n = slices.IndexFunc(w.hosts, func(h *lab.Host) bool { s := statusOf(t, h); return s.Self == s.Leader })
		if n < 0 {
			return errf("nobody leads")
		}
		return nil
	})
	return n
}

// all looks at what the older release has made, from every host.
func (w *upgrade) all(t *testing.T, upgraded int) {
	t.Helper()
	oneCluster(t, w.l, w.hosts...)
	programs := map[string]int{}
	for _, h := range w.hosts {
		programs[program(t, h)]++
	}
	if programs[w.older] != len(w.hosts)-upgraded || len(programs) > 2 {
		t.Errorf("%d upgraded, and daemons' programs are %v, the older one %s: is that commit this one?", upgraded, programs, w.older)
	}
	for i, h := range w.hosts {
		w.l.Eventually(patient, func() error {
			if s := statusOf(t, h); s.State != "cluster" || !strings.Contains(strings.Join(s.Summary, " "), "have all that was decided") {
				return errf("%d upgraded: %s is not well: %+v", upgraded, h.Name(), s)
			}
			return nil
		})
		n := itoa(i + 1)
		reaches(t, w.l, h, "bbox"+n, "bbox1", "bbox2", "bbox3", "web1", "web2", "web3")
		reaches(t, w.l, h, "near"+n, "far"+n)
		wantMatch(t, "the volume of "+h.Name(), h.MustMinictl("exec", "near"+n, "cat", "/kept/it"), `^kept\n$`)
	}
	fetch(t, w.laptop, "http://"+w.hosts[0].Addr().String()+":8080/")
	wantMatch(t, "--ip", addressOf(w.hosts[2], "web3"), `^10\.0\.0\.77$`)
	noTwins(t, w.l, 6, w.hosts...)
	for name, h := range w.boxes {
		if got := h.MustMinictl("inspect", "-f", kept, name); got != w.facts[name] {
			t.Errorf("%d upgraded: %s was %sand is %s", upgraded, name, w.facts[name], got)
		}
	}
}

// works makes networks and containers on one host and uses and removes them on another.
func (w *upgrade) works(t *testing.T, here, there *lab.Host) {
	t.Helper()
	w.runs++
	n := itoa(w.runs)
	here.MustMinictl("network", "create", "-d", "overlay", "both"+n)
	w.l.Eventually(patient, func() error {
		if _, errOut, code := there.Minictl("network", "inspect", "both"+n); code != 0 {
			return errf("%s: %s", there.Name(), errOut)
		}
		return nil
	})
	for _, h := range []*lab.Host{here, there} {
		h.MustMinictl("run", "-d", "--name", "on-"+h.Name(), "--network", "both"+n, "busybox", "sleep", "36000")
		h.MustMinictl("run", "-d", "--name", "too-"+h.Name(), "--network", "ov_net1", "busybox", "sleep", "36000")
	}
	reaches(t, w.l, here, "on-"+here.Name(), "on-"+there.Name())
	reaches(t, w.l, there, "on-"+there.Name(), "on-"+here.Name())
	for i, h := range w.hosts {
		reaches(t, w.l, h, "bbox"+itoa(i+1), "too-"+here.Name(), "too-"+there.Name())
	}
	noTwins(t, w.l, 8, w.hosts...)
	for _, h := range []*lab.Host{here, there} {
		h.MustMinictl("rm", "-f", "on-"+h.Name(), "too-"+h.Name())
	}
	w.l.Eventually(patient, func() error { // that the other host's container is gone may be a moment old
		if _, errOut, code := there.Minictl("network", "rm", "both"+n); code != 0 {
			return errf("%s: %s", there.Name(), errOut)
		}
		return nil
	})
	noTwins(t, w.l, 6, w.hosts...)
}

// joins has a host of either release come in, by the line that a member prints, and leave.
func (w *upgrade) joins(t *testing.T, by *lab.Host, bin string) {
	t.Helper()
	w.runs++
	h := w.l.Host("guest" + itoa(w.runs))
	h.Use(bin)
	h.Daemon()
	loadImages(t, h)
	h.MustMinictl(append(joinArgs(t, by), by.Addr().String())...)
	oneCluster(t, w.l, append(slices.Clone(w.hosts), h)...)
	h.MustMinictl("run", "-d", "--name", "guest", "--network", "ov_net1", "busybox", "sleep", "36000")
	reaches(t, w.l, h, "guest", "bbox1", "bbox2", "bbox3")
	for i, x := range w.hosts {
		reaches(t, w.l, x, "bbox"+itoa(i+1), "guest")
	}
	noTwins(t, w.l, 7, append(slices.Clone(w.hosts), h)...)
	h.MustMinictl("rm", "-f", "guest")
	h.MustMinictl("cluster", "leave")
	oneCluster(t, w.l, w.hosts...)
	h.Halt()
}

// program is the name of the folder into which the running daemon has unpacked itself, which no two releases share.
func program(t *testing.T, h *lab.Host) string {
	t.Helper()
	path, err := os.Readlink("/proc/" + itoa(h.Running().Pid()) + "/exe")
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Base(filepath.Dir(path))
}

// back starts the older release on what the newer one has written. Where the schemas are the same it runs; else it ends
// with a sentence, having changed nothing.
func (w *upgrade) back(t *testing.T, h *lab.Host) {
	t.Helper()
	h.StopDaemon()
	p := h.Start(w.old, "daemon")
	ended := false
	w.l.Eventually(patient, func() error {
		select {
		case <-p.Done():
			ended = true
			return nil
		default:
		}
		client := h.HTTP()
		defer client.CloseIdleConnections()
		resp, err := client.Get("http://minictl/_ping")
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	if ended {
		code, _ := p.Wait(0)
		out := lines(p.Output())
		last := out[len(out)-1]
		if code != 1 {
			t.Errorf("the older release on the newer one's state: code %d", code)
		}
		wantMatch(t, "the older release on the newer one's state", last, `schema version \d+ is newer than this minictl's \d+: install the newer minictl again`)
		t.Logf("the older release: %s", strings.TrimSpace(last))
	} else {
		t.Log("the older release runs on the newer one's state")
		if err := p.Signal(15); err != nil {
			t.Error(err)
		}
		if code, err := p.Wait(patient); code != 0 || err != nil {
			t.Errorf("the older release ends: code %d, %v", code, err)
		}
	}
	h.RestartDaemon()
}

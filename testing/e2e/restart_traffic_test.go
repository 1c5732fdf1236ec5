package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// TestRestartUnderTraffic restarts the daemon of one host, of the other, and of both at once, while packets flow: nothing of
// it is lost. Connections go on, through the overlay and through published ports, new ones come in while there is no daemon,
// questions wait in their socket until there is one, and nothing in the kernel is made anew.
func TestRestartUnderTraffic(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	w := &trafficWorld{l: l, hosts: []*lab.Host{h1, h2}, laptop: l.Client("laptop"), addrs: map[string]string{}, watched: map[*lab.Host]*watcher{}}
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	w.ns = "1-" + strings.TrimSpace(h1.MustMinictl("network", "inspect", "-f", "{{.Id}}", "ov_net1"))[:10]
	for _, h := range w.hosts {
		name := "server-" + h.Name()
		h.MustMinictl("run", "-d", "--name", name, "--network", "ov_net1", "-p", "8080:7000", "-v", self(t)+":/traffic:ro", "busybox", "/traffic", traffic, "serve", "7000")
		w.addrs[name] = addressOf(h, name)
		awaitListener(t, l, h, name, 7000)
		w.watched[h] = w.watch(h)
	}
	other := filepath.Join(t.TempDir(), "minictl-next")
	copyProgram(t, other)
	for _, who := range []struct {
		name  string
		hosts []*lab.Host
	}{{"host1", w.hosts[:1]}, {"host2", w.hosts[1:]}, {"both", w.hosts}} {
		t.Run("SIGTERM of "+who.name, func(t *testing.T) { w.restart(t, who.hosts, false, (*lab.Host).StopDaemon) })
		t.Run("SIGKILL of "+who.name, func(t *testing.T) { w.restart(t, who.hosts, true, (*lab.Host).KillDaemon) })
	}
	t.Run("away for long", func(t *testing.T) {
		w.restart(t, w.hosts[:1], false, func(h *lab.Host) {
			h.StopDaemon()
			l.Eventually(patient, func() error {
				if out := h2.MustMinictl("node", "ls"); !strings.Contains(out, "Down") {
					return errf("host2 has not noticed: %s", out)
				}
				return nil
			})
			wantResolve(t, h2, "server-host2", "server-host1", w.addrs["server-host1"])
		})
	})
	t.Run("upgrade", func(t *testing.T) {
		h1.Use(other)
		w.restart(t, w.hosts[:1], false, (*lab.Host).StopDaemon)
	})
}

// trafficWorld is two hosts with a server each, and who looks from outside.
type trafficWorld struct {
	l      *lab.Lab
	hosts  []*lab.Host
	laptop *lab.Host
	ns     string            // the overlay's namespace
	addrs  map[string]string // of the servers

	watched map[*lab.Host]*watcher
}

// restart ends the daemons of some hosts and starts them again, under traffic from and to all.
func (w *trafficWorld) restart(t *testing.T, hosts []*lab.Host, again bool, end func(*lab.Host)) {
	var boxes []func(t *testing.T)
	var sockets = map[*lab.Host]string{}
	for i, h := range w.hosts {
		far := w.hosts[1-i]
		run := func(name string, args ...string) {
			h.MustMinictl(append([]string{"run", "-d", "--name", name, "--network", "ov_net1", "-v", self(t) + ":/traffic:ro", "busybox", "/traffic", traffic}, args...)...)
			boxes = append(boxes, func(t *testing.T) {
				if code := strings.TrimSpace(h.MustMinictl("inspect", "-f", "{{.State.ExitCode}}", name)); code != "0" {
					t.Errorf("%s: code %s", name, code)
				}
				out, errOut, _ := h.Minictl("logs", name)
				t.Logf("%s: %s%s", name, out, errOut)
				h.MustMinictl("rm", "-f", name)
			})
		}
		ask := []string{"ask"}
		if again {
			ask = append(ask, "-again")
		}
		for name, addr := range w.addrs {
			ask = append(ask, name+"="+addr)
		}
		run("stream-"+h.Name(), "stream", w.addrs["server-"+far.Name()]+":7000")
		run("ask-"+h.Name(), ask...)
		sockets[h] = h.Path("/proc/" + strings.TrimSpace(h.MustMinictl("inspect", "-f", "{{.State.Pid}}", "ask-"+h.Name())) + "/net/udp")
	}
	var outside []*lab.Process
	for _, h := range w.hosts {
		for _, kind := range []string{"connect", "stream"} {
			outside = append(outside, w.laptop.Start(self(t), traffic, kind, h.Addr().String()+":8080"))
		}
	}
	before := map[*lab.Host]string{}
	for _, h := range w.hosts {
		before[h] = w.kernel(h)
		w.watched[h].gone()
	}

	for _, h := range hosts {
		end(h)
	}
	for _, h := range hosts {
		// The kernel's default room would hold fewer, so a smaller one never gets there.
		w.l.Eventually(patient, func() error {
			n, _, err := waiting(sockets[h])
			if err == nil && n < 600*768 {
				err = errf("%d bytes wait in the resolver's socket on %s", n, h.Name())
			}
			return err
		})
		conn, err := w.laptop.Dial(t.Context(), "tcp", h.Addr().String()+":8080")
		if err == nil {
			err = echoOnce(conn)
		}
		if err != nil {
			t.Errorf("connect while the daemon is away: %v", err)
		}
	}
	for _, h := range hosts {
		h.RestartDaemon()
	}
	for _, h := range w.hosts {
		w.l.Eventually(patient, func() error {
			n, dropped, err := waiting(sockets[h])
			if err == nil && n > 100*768 {
				err = errf("%d bytes still wait in the resolver's socket on %s", n, h.Name())
			}
			if dropped > 0 {
				t.Errorf("%s: %d questions found no room in the socket", h.Name(), dropped)
			}
			return err
		})
	}
	oneCluster(t, w.l, w.hosts...)
	for _, h := range w.hosts {
		after := w.kernel(h)
		if before[h] != after {
			t.Errorf("%s: the kernel held\n%s\nand holds\n%s", h.Name(), before[h], after)
		}
		for _, event := range w.watched[h].gone() {
			t.Errorf("%s: taken out of the kernel meanwhile: %s", h.Name(), event)
		}
	}

	for _, h := range w.hosts {
		h.MustMinictl("stop", "-t", "200", "stream-"+h.Name(), "ask-"+h.Name())
	}
	for _, p := range outside {
		_ = p.Signal(15)
	}
	for _, p := range outside {
		if code, err := p.Wait(patient); code != 0 || err != nil {
			t.Errorf("from outside: code %d, %v; all of this name have written: %s", code, err, p.Output())
		}
	}
	for _, look := range boxes {
		look(t)
	}
}

// kernel is what a host's kernel holds of links, rows and rules, with the links' numbers.
func (w *trafficWorld) kernel(h *lab.Host) string {
	var out []string
	s := h.Snapshot()
	for _, title := range []string{"links", "addresses", "routes", "neighbours", "fdb", "nft"} {
		for _, sec := range section(s, title) {
			out = append(out, sec.Title)
			out = append(out, sec.Lines...)
		}
	}
	for _, args := range [][]string{
		{"ip", "-n", w.ns, "-o", "link", "show"},
		{"ip", "-n", w.ns, "neigh", "show", "nud", "permanent"},
		{"bridge", "-n", w.ns, "fdb", "show"},
	} {
		out = append(out, strings.Join(args, " "), h.MustRun(args...))
	}
	return strings.Join(out, "\n")
}

// watcher has a host's kernel tell of links, rows and rules that come and go.
type watcher struct {
	w     *trafficWorld
	h     *lab.Host
	procs []*lab.Process
	marks int
	read  []int // how much of what each has written is from before
}

func (w *trafficWorld) watch(h *lab.Host) *watcher {
	k := &watcher{w: w, h: h}
	for _, args := range [][]string{ // each writes to a file of its first word's name
		{"ip", "monitor", "link"},
		{"nsenter", "--net=/run/netns/" + w.ns, "ip", "monitor", "link", "neigh"},
		{"sh", "-c", "exec bridge -n " + w.ns + " monitor fdb"},
		{"nft", "monitor"},
	} {
		k.procs = append(k.procs, h.Start(args...))
	}
	k.read = make([]int, len(k.procs))
	k.gone()
	return k
}

// gone gives what was taken out of the kernel since it was last called. All of it has been written when what is made and
// taken out here has.
func (k *watcher) gone() (events []string) {
	k.marks++
	name := "mark" + itoa(k.marks)
	ended := func(line string) bool {
		return strings.Contains(line, name) && (strings.HasPrefix(line, "Deleted") || strings.HasPrefix(line, "delete"))
	}
	k.w.l.Eventually(patient, func() error { // a monitor may not have begun yet
		for _, in := range []string{"-s", "-n " + k.w.ns} {
			k.h.MustRun("sh", "-ec", strings.NewReplacer("NAME", name, "IN", in).Replace(
				"ip IN link add NAME address 02:00:00:00:00:02 type bridge; bridge IN fdb add 02:00:00:00:00:01 dev NAME self permanent; ip IN link del NAME"))
		}
		k.h.MustRun("sh", "-ec", "nft add table inet "+name+"; nft delete table inet "+name)
		for _, p := range k.procs {
			if !slices.ContainsFunc(lines(p.Output()), ended) {
				return errf("%s: a monitor has not told of %s yet: %s", k.h.Name(), name, p.Output())
			}
		}
		return nil
	})
	for i, p := range k.procs {
		out := p.Output()
		for _, line := range lines(out[k.read[i]:]) {
			if strings.Contains(line, "mark") || strings.Contains(line, "02:00:00:00:00:0") { // the name may be gone already
				continue
			}
			if strings.HasSuffix(strings.TrimSpace(line), "NOARP") { // a multicast group's: the kernel makes it and collects it
				continue
			}
			if strings.HasPrefix(line, "Deleted") || strings.HasPrefix(line, "delete") {
				events = append(events, line)
			}
		}
		k.read[i] = len(out)
	}
	return events
}

// copyProgram puts the binary under test at another path.
func copyProgram(t *testing.T, to string) {
	t.Helper()
	bin, err := lab.Binary()
	if err != nil {
		t.Fatal(err)
	}
	if whole := bin + "-daemon"; fileExists(whole) {
		bin = whole
	}
	b, err := os.ReadFile(bin)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(fmt.Errorf("copy the program: %w", err))
	}
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

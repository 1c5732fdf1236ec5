package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minictl/minictl/testing/lab"
)

// deed is something a user types, in the middle of which the daemon is killed.
type deed struct {
	name    string
	prepare [][]string // typed before
	do      []string
	from    *regexp.Regexp // only steps that match; nil: all
	again   bool           // also at steps at which an earlier deed was killed
}

// matrix kills a host's daemon at every step that a deed reaches, once per step. The steps are those that the deed itself
// reports, and every step that the sources in dirs name has to be among them: a new one that nothing gets to is an error.
type matrix struct {
	l    *lab.Lab
	host *lab.Host // whose daemon is killed
	at   *lab.Host // where the user types
	// settle is what the user does after the crash; then everything has to be as before.
	settle func(t *testing.T)
	same   func() error
	done   map[string]bool
}

func (m *matrix) run(t *testing.T, d deed) {
	t.Run(d.name, func(t *testing.T) {
		for _, step := range m.steps(t, d) {
			if m.done[step] && !d.again {
				continue
			}
			m.done[step] = true
			t.Run(step, func(t *testing.T) { m.kill(t, d, step) })
		}
	})
}

// steps walks a deed without harm, and gives what it passed, in order.
func (m *matrix) steps(t *testing.T, d deed) []string {
	t.Helper()
	m.prepare(d)
	seen := m.host.Path(failpoint + ".seen")
	if err := os.RemoveAll(seen); err != nil {
		t.Fatal(err)
	}
	arm(t, m.host, "list")
	m.at.MustMinictl(d.do...)
	disarm(t, m.host)
	b, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	m.settled(t)
	var out []string
	for _, s := range lines(string(b)) {
		if !slices.Contains(out, s) && (d.from == nil || d.from.MatchString(s)) {
			out = append(out, s)
		}
	}
	return out
}

func (m *matrix) prepare(d deed) {
	for _, args := range d.prepare {
		m.at.MustMinictl(args...)
	}
}

func (m *matrix) kill(t *testing.T, d deed, step string) {
	m.prepare(d)
	arm(t, m.host, step+" kill")
	if out, errOut, code := m.at.Minictl(d.do...); code == 0 && m.at == m.host {
		t.Errorf("succeeded: %s%s", out, errOut)
	}
	if _, err := m.host.Running().Wait(soon); err != nil {
		t.Fatalf("the daemon was not killed: %v", err)
	}
	disarm(t, m.host)
	m.host.KillDaemon()
	m.host.RestartDaemon()
	m.settled(t)
}

func (m *matrix) settled(t *testing.T) {
	t.Helper()
	m.settle(t)
	m.l.Eventually(patient, m.same)
}

// steps finds the names of all failpoints in the sources of a folder.
func steps(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources in %s: %v", dir, err)
	}
	var out []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\b(?:step|Step|reach)\("([a-z-]+)"`).FindAllSubmatch(b, -1) {
			out = append(out, string(m[1]))
		}
	}
	return out
}

func (m *matrix) wantAll(t *testing.T, dir string) {
	t.Helper()
	for _, s := range steps(t, dir) {
		if !m.done[s] && !strings.HasPrefix(s, rejoinSteps) {
			t.Errorf("%s has the step %q, and nothing here gets there: add what does", dir, s)
		}
	}
}

// traces is what a container leaves on a host besides what the kernel lists: snapshots, folders, sockets.
func traces(h *lab.Host) []string {
	var out []string
	for _, pattern := range []string{
		filepath.Join(h.Dir(), "data/containers/*"), filepath.Join(h.Dir(), "data/volumes/*/_data"),
		filepath.Join(h.Dir(), "data/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/*"),
		h.Path("/run/minictl/s/*"), h.Path("/run/minictl/containerd/io.containerd.runtime.v2.task/minictl/*"),
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return []string{err.Error()}
		}
		out = append(out, found...)
	}
	return out
}

// state is all that has to be as before once what a deed made is removed.
type state struct {
	kernel []lab.Snapshot
	traces []string
	used   string // addresses of the overlays
}

func stateOf(h *lab.Host, all ...*lab.Host) state {
	var s state
	for _, o := range all {
		s.kernel = append(s.kernel, o.Snapshot())
		s.traces = append(s.traces, traces(o)...)
	}
	s.used = h.MustMinictl("network", "inspect", "-f", "{{.Name}} {{json .Status}}", "ov_net1", "ov_net2")
	return s
}

// unlike says what is not as before.
func (s state) unlike(now state) error {
	for i, k := range s.kernel {
		if diff := lab.Diff(k, now.kernel[i]); diff != "" {
			return errf("host %d: left behind:\n%s", i+1, diff)
		}
	}
	for _, path := range now.traces {
		if !slices.Contains(s.traces, path) {
			return errf("left behind: %s", path)
		}
	}
	if s.used != now.used {
		return errf("addresses: was\n%s\nis\n%s", s.used, now.used)
	}
	return nil
}

// TestKilledAtEachStep kills the daemon in the middle of what users do with containers and networks, at each step in
// turn. The next daemon adopts, repairs or removes: what says that it runs works, what is left can be removed, and then
// kernel, disk and cluster hold what they held before.
func TestKilledAtEachStep(t *testing.T) {
	t.Parallel()
	l := breakable(t)
	h1, h2 := pair(t, l)
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	h1.MustMinictl("network", "create", "-d", "overlay", "--subnet", "10.0.9.0/24", "ov_net2")
	h1.MustMinictl("network", "create", "--subnet", "172.30.0.0/16", "br_net")
	for _, n := range []string{"ov_net1", "ov_net2"} {
		h2.MustMinictl("run", "-d", "--name", "on-"+n, "--network", n, "busybox", "sleep", "6000")
	}
	used(l, h1, "ov_net1", "br_net")
	before := stateOf(h1, h1, h2)
	m := &matrix{l: l, host: h1, at: h1, done: map[string]bool{}, same: func() error { return before.unlike(stateOf(h1, h1, h2)) }}
	m.settle = func(t *testing.T) {
		t.Helper()
		for _, c := range lines(h1.MustMinictl("ps", "-a", "--format", "{{.Names}} {{.State}}")) {
			name, state, _ := strings.Cut(c, " ")
			wantMatch(t, "what is left", state, `^(created|running|exited)$`)
			if state == "running" && name == "victim" {
				wantWorking(t, l, h1, h2)
			}
			_, errOut, code := h1.Minictl("rm", "-f", "-v", name)
			if code != 0 && !strings.Contains(errOut, "No such container") { // --rm was faster
				t.Errorf("rm %s: %s", name, errOut)
			}
		}
		l.Eventually(soon, func() error { // a network is removed only while somebody decides
			for _, n := range lines(h1.MustMinictl("network", "ls", "-q", "-f", "name=fresh")) {
				if _, errOut, code := h1.Minictl("network", "rm", n); code != 0 {
					return errf("network rm: %s", errOut)
				}
			}
			return nil
		})
	}
	run := []string{"run", "-d", "--name", "victim", "-v", "/v", "-p", "8080:80", "--network", "ov_net1", "--network", "name=ov_net2,ip=10.0.9.77", "busybox", "sleep", "600"}
	onBridge := append([][]string{run}, []string{"network", "connect", "br_net", "victim"})
	for _, d := range []deed{
		{name: "run", do: run},
		{name: "rm", prepare: [][]string{run}, do: []string{"rm", "-f", "-v", "victim"}},
		{name: "stop", prepare: [][]string{run}, do: []string{"stop", "-t", "0", "victim"}},
		{name: "run --rm", do: []string{"run", "--rm", "-v", "/v", "busybox", "true"}, from: regexp.MustCompile("^(left|finished|remove.*)$"), again: true},
		{name: "connect", prepare: [][]string{run}, do: []string{"network", "connect", "--ip", "172.30.7.7", "br_net", "victim"}, again: true},
		{name: "disconnect", prepare: onBridge, do: []string{"network", "disconnect", "ov_net2", "victim"}, again: true},
		{name: "network create", do: []string{"network", "create", "fresh"}},
		{name: "network create -d overlay", do: []string{"network", "create", "-d", "overlay", "fresh"}},
		{name: "network rm", prepare: [][]string{{"network", "create", "fresh"}}, do: []string{"network", "rm", "fresh"}},
		{name: "network rm of an overlay", prepare: [][]string{{"network", "create", "-d", "overlay", "fresh"}}, do: []string{"network", "rm", "fresh"}},
	} {
		m.run(t, d)
	}
	m.wantAll(t, "cmd/internal/engine")
}

// wantWorking wants a container that says it runs to be whole: reached by name on each overlay from the other host, which
// it reaches too.
func wantWorking(t *testing.T, l *lab.Lab, h1, h2 *lab.Host) {
	t.Helper()
	for _, n := range lines(h1.MustMinictl("inspect", "-f", `{{range $k, $v := .NetworkSettings.Networks}}{{println $k}}{{end}}`, "victim")) {
		if !strings.HasPrefix(n, "ov_") {
			continue
		}
		l.Eventually(soon, func() error {
			if _, errOut, code := h1.Minictl("exec", "victim", "ping", "-c", "1", "-W", "1", "on-"+n); code != 0 {
				return errf("victim does not reach on-%s: %s", n, errOut)
			}
			if _, errOut, code := h2.Minictl("exec", "on-"+n, "ping", "-c", "1", "-W", "1", "victim"); code != 0 {
				return errf("on-%s does not reach victim: %s", n, errOut)
			}
			return nil
		})
	}
}

// TestKilledInCluster kills the daemon at each step of founding a cluster, joining, admitting and leaving. The user types
// the same again: it works, or it says that it is done; and who has left has left no trace.
func TestKilledInCluster(t *testing.T) {
	t.Parallel()
	l := breakable(t)
	h1, h2 := start(t, l, "host1"), start(t, l, "host2")
	alone := []lab.Snapshot{h1.Snapshot(), h2.Snapshot()}
	same := func(before []lab.Snapshot, nodes int) func() error {
		return func() error {
			for i, h := range []*lab.Host{h1, h2} {
				if diff := lab.Diff(before[i], h.Snapshot()); diff != "" {
					return errf("%s: left behind:\n%s", h.Name(), diff)
				}
			}
			if got := lines(h1.MustMinictl("node", "ls", "-q")); len(got) != nodes {
				return errf("%d nodes", len(got))
			}
			return nil
		}
	}
	// again types what may have been done before the crash, or not.
	again := func(t *testing.T, h *lab.Host, args ...string) {
		t.Helper()
		l.Eventually(soon, func() error {
			if _, errOut, code := h.Minictl(args...); code != 0 && !strings.Contains(errOut, "is a node of cluster") {
				return errf("%v: %s", args, errOut)
			}
			return nil
		})
	}
	joined := func(t *testing.T) {
		t.Helper()
		again(t, h2, append(joinArgs(t, h1), "192.168.66.11")...)
		l.Eventually(soon, func() error {
			for _, h := range []*lab.Host{h1, h2} {
				if got := h.MustMinictl("node", "ls", "--format", "{{.Hostname}} {{.Status}}"); got != "host1 Ready\nhost2 Ready\n" {
					return errf("%s lists %s", h.Name(), got)
				}
			}
			return nil
		})
		again(t, h2, "network", "create", "-d", "overlay", "fresh")
		h1.MustMinictl("run", "-d", "--name", "web", "--network", "fresh", "busybox", "sleep", "600")
		l.Eventually(patient, func() error { // a busy machine's members may lose sight of each other for a moment
			if _, errOut, code := h2.Minictl("run", "--rm", "--network", "fresh", "busybox", "ping", "-c", "1", "-w", "30", "web"); code != 0 {
				return errf("web: %s", errOut)
			}
			return nil
		})
		h1.MustMinictl("rm", "-f", "web")
		h1.MustMinictl("network", "rm", "fresh")
	}
	init := []string{"cluster", "init", "--advertise-addr", "eth0"}
	m := &matrix{l: l, host: h1, at: h1, done: map[string]bool{}, same: func() error { return same(alone, 1)() }}
	m.settle = func(t *testing.T) {
		t.Helper()
		again(t, h1, init...)
		joined(t)
		h2.MustMinictl("cluster", "leave")
		h1.MustMinictl("cluster", "leave")
	}
	m.run(t, deed{name: "init", do: init})
	h1.MustMinictl(init...)
	founded := []lab.Snapshot{h1.Snapshot(), h2.Snapshot()}
	m.same = func() error { return same(founded, 1)() }
	m.settle = func(t *testing.T) {
		t.Helper()
		joined(t)
		h2.MustMinictl("cluster", "leave")
	}
	join := append(joinArgs(t, h1), "192.168.66.11")
	m.at = h2
	m.run(t, deed{name: "admit", do: join})
	m.host = h2
	m.run(t, deed{name: "join", do: join})
	m.run(t, deed{name: "leave", prepare: [][]string{join}, do: []string{"cluster", "leave"}})
	m.wantAll(t, "cluster")
}

// rejoinSteps begin the names of the steps that no user's command gets to: TestKilledJoiningAgain does.
const rejoinSteps = "rejoin-"

// TestKilledJoiningAgain kills the daemon of a host at each step of giving its side up after a takeover. The next daemon
// goes on with it: the hosts are one cluster, containers run, and what was made on the side that is given up is there.
func TestKilledJoiningAgain(t *testing.T) {
	t.Parallel()
	l := breakable(t)
	taker, loser := pair(t, l)
	loser.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	for i, h := range []*lab.Host{taker, loser} {
		h.MustMinictl("run", "-d", "--name", fmt.Sprint("bbox", i+1), "--network", "ov_net1", "busybox", "sleep", "600")
	}
	taker, loser = loser, taker // the first that gives its side up is the one that decides
	for i, step := range steps(t, "cluster") {
		if !strings.HasPrefix(step, rejoinSteps) {
			continue
		}
		solo := fmt.Sprint("solo", i)
		l.Isolate(taker)
		takeOver(l, clients()[0], taker)
		loser.MustMinictl("network", "create", "-d", "overlay", solo)
		arm(t, loser, step+" kill")
		l.HealAll()
		if _, err := loser.Running().Wait(2 * soon); err != nil {
			t.Fatalf("%s: the daemon was not killed: %v", step, err)
		}
		disarm(t, loser)
		loser.KillDaemon()
		loser.RestartDaemon()
		oneCluster(t, l, taker, loser)
		l.Eventually(soon, func() error {
			if got := lines(taker.MustMinictl("network", "ls", "--format", "{{.Name}}")); !slices.Contains(got, solo) {
				return errf("%s: %s is lost: %v", step, solo, got)
			}
			return nil
		})
		noTwins(t, l, 2, taker, loser)
		for _, h := range []*lab.Host{taker, loser} {
			reaches(t, l, h, lines(h.MustMinictl("ps", "--format", "{{.Names}}"))[0], "bbox1", "bbox2")
		}
		taker, loser = loser, taker
	}
}

// TestSlowToClear: what a container used may take longer to be given back than its process may take to end, on an overloaded
// disk for one. That is waited for, and is no process that hangs.
func TestSlowToClear(t *testing.T) {
	t.Parallel()
	l := breakable(t)
	h := start(t, l, "host1")
	h.MustMinictl("run", "-d", "--name", "box", "busybox", "sleep", "600")
	arm(t, h, "left wait")
	type answer struct {
		errOut string
		code   int
	}
	done := make(chan answer, 1)
	go func() {
		_, errOut, code := h.Minictl("rm", "-f", "box")
		done <- answer{errOut, code}
	}()
	select {
	case a := <-done:
		t.Errorf("removed before all is given back: exit %d, %s", a.code, a.errOut)
	case <-time.After(11 * time.Second): // a process has ten seconds to end
	}
	disarm(t, h)
	if a := <-done; a.code != 0 {
		t.Errorf("rm -f: exit %d, %s", a.code, a.errOut)
	}
	fails(t, h, 1, "(?i)no such (object|container)", "inspect", "box")
}

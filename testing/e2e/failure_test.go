package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// TestBadInput gives one line that says what, why and what to type instead, docker's exit code, and leaves nothing behind.
func TestBadInput(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	h1.MustMinictl("run", "-d", "--name", "web1", "-p", "8080:80", "--network", "ov_net1", "httpd")
	before := h1.Snapshot()
	for _, c := range []struct {
		name    string
		code    int
		pattern string
		args    []string
	}{
		{"unknown network", 125, `network nope not found`, []string{"run", "--rm", "--network", "nope", "busybox", "true"}},
		{"unknown driver", 1, `plugin "nope" not found`, []string{"network", "create", "-d", "nope", "n"}},
		{"host bits in a subnet", 1, `10\.9\.0\.5/24.*10\.9\.0\.0/24`, []string{"network", "create", "-d", "overlay", "--subnet", "10.9.0.5/24", "n"}},
		{"overlapping subnet", 1, `Pool overlaps.*ov_net1 has 10\.0\.0\.0/24`, []string{"network", "create", "-d", "overlay", "--subnet", "10.0.0.0/16", "n"}},
		{"overlapping local subnet", 1, `Pool overlaps.*mini_gwbridge`, []string{"network", "create", "--subnet", "172.18.3.0/24", "n"}},
		{"gateway outside", 1, `gateway`, []string{"network", "create", "--subnet", "10.9.0.0/24", "--gateway", "10.8.0.1", "n"}},
		{"taken network name", 1, `network with name ov_net1 already exists`, []string{"network", "create", "-d", "overlay", "ov_net1"}},
		{"predefined network", 1, `pre-defined`, []string{"network", "rm", "bridge"}},
		{"network in use", 1, `ov_net1 has active endpoints \(name:"web1"`, []string{"network", "rm", "ov_net1"}},
		{"bad driver option", 1, `com\.docker\.network\.driver\.mtu.*"?x"?`, []string{"network", "create", "-d", "overlay", "-o", "com.docker.network.driver.mtu=x", "n"}},
		{"taken port", 125, `8080 failed: port is already allocated.*web1`, []string{"run", "--rm", "-p", "8080:80", "busybox", "true"}},
		{"taken name", 125, `The container name "/web1" is already in use by container`, []string{"run", "--name", "web1", "busybox", "true"}},
		{"bad name", 125, `Invalid container name \(a/b\)`, []string{"run", "--name", "a/b", "busybox", "true"}},
		{"no image", 125, `nope`, []string{"run", "--rm", "--pull", "never", "nope", "true"}},
		{"no command", 127, `nope.*executable file not found`, []string{"run", "--rm", "busybox", "nope"}},
		{"not executable", 126, `permission denied`, []string{"run", "--rm", "busybox", "/etc/passwd"}},
		{"unsupported flag", 125, `does not support --cpu-rt-runtime yet`, []string{"run", "-d", "--cpu-rt-runtime", "500", "busybox", "true"}},
		{"address taken", 125, `Address already in use: 10\.0\.0\.2.*web1 on host1`, []string{"run", "--rm", "--network", "ov_net1", "--ip", "10.0.0.2", "busybox", "true"}},
		{"address outside", 125, `10\.7\.7\.7`, []string{"run", "--rm", "--network", "ov_net1", "--ip", "10.7.7.7", "busybox", "true"}},
		{"unknown container", 1, `No such container: nope`, []string{"stop", "nope"}},
		{"exec in nothing", 1, `No such container: nope`, []string{"exec", "nope", "true"}},
		{"join twice", 1, `already`, append(joinArgs(t, h2), "192.168.66.12")},
	} {
		t.Run(c.name, func(t *testing.T) {
			fails(t, h1, c.code, c.pattern, c.args...)
			if got := lines(h1.MustMinictl("ps", "-aq")); len(got) != 1 {
				t.Errorf("containers left: %v", got)
			}
			if diff := lab.Diff(before, h1.Snapshot()); diff != "" {
				t.Errorf("left behind:\n%s", diff)
			}
		})
	}
}

func joinArgs(t *testing.T, h *lab.Host) []string {
	t.Helper()
	return []string{"cluster", "join", "--token", strings.TrimSpace(h.MustMinictl("cluster", "token", "-q"))}
}

// TestNoDaemon names the socket and the command that helps.
func TestNoDaemon(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := l.Host("host1")
	fails(t, h, 1, `unix:///run/minictl/minictl\.sock.*minictl daemon`, "ps")
	fails(t, h, 125, `unix:///run/minictl/minictl\.sock.*minictl daemon`, "run", "busybox")
}

// TestJoinRefused is what the cluster says to those it does not take.
func TestJoinRefused(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2, h3 := start(t, l, "host1"), start(t, l, "host2"), start(t, l, "host3", "--node-name", "host1")
	join(t, h1, h2)
	token := joinArgs(t, h1)
	fails(t, h3, 1, `token`, "cluster", "join", "--token", "nonsense", "192.168.66.11")
	h3.MustMinictl("network", "create", "-d", "overlay", "mine")
	fails(t, h3, 1, `mine`, append(token, "192.168.66.11")...)
	h3.MustMinictl("network", "rm", "mine")
	fails(t, h3, 1, `host1.*--node-name`, append(token, "192.168.66.11")...)
	h3.StopDaemon()
	h3.Daemon("--node-name", "host3")
	h1.MustMinictl("cluster", "token", "--rotate")
	fails(t, h3, 1, `token`, append(token, "192.168.66.11")...)
	// Through the member that is not the one that decides.
	h3.MustMinictl(append(joinArgs(t, h2), "192.168.66.12")...)
	for _, h := range []*lab.Host{h1, h2, h3} {
		l.Eventually(soon, func() error {
			if got := len(lines(h.MustMinictl("node", "ls"))); got != 4 {
				return errf("%s lists %d nodes", h.Name(), got-1)
			}
			return nil
		})
	}
}

// TestFailedSteps makes each step of run fail in turn: an error, docker's code for it, and nothing left.
func TestFailedSteps(t *testing.T) {
	t.Parallel()
	l := breakable(t)
	h1, h2 := pair(t, l)
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	h1.MustMinictl("run", "--rm", "--network", "ov_net1", "busybox", "true") // the gateway bridge's record stays
	before := []lab.Snapshot{h1.Snapshot(), h2.Snapshot()}
	for _, step := range []string{"create-snapshot", "create-volumes", "create-state", "sandbox", "task", "address", "join", "resolver", "publish", "start"} {
		t.Run(step, func(t *testing.T) {
			arm(t, h1, step)
			fails(t, h1, 125, `failpoint `+step, "run", "-d", "--name", "victim", "-v", "/v", "-p", "8080:80", "--network", "ov_net1", "busybox", "sleep", "60")
			disarm(t, h1)
			if got := h1.MustMinictl("ps", "-aq"); got != "" {
				t.Errorf("containers left: %s", got)
			}
			noVolumes(t, h1)
			for i, h := range []*lab.Host{h1, h2} {
				if diff := lab.Diff(before[i], h.Snapshot()); diff != "" {
					t.Errorf("%s: left behind:\n%s", h.Name(), diff)
				}
			}
			// Its name, its port and its address are free again.
			h1.MustMinictl("run", "-d", "--name", "victim", "-p", "8080:80", "--network", "ov_net1", "busybox", "sleep", "60")
			wantMatch(t, "the address is free again", h1.MustMinictl("exec", "victim", "ip", "r"), `src 10\.0\.0\.2`)
			h1.MustMinictl("rm", "-f", "victim")
		})
	}
}

// TestRestart ends the daemon every way there is: containers, names, ports and logs go on.
func TestRestart(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	laptop := l.Client("laptop")
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	h1.MustMinictl("run", "-d", "--name", "web1", "-p", "8080:80", "--network", "ov_net1", "httpd")
	awaitListener(t, l, h1, "web1", 80)
	h1.MustMinictl("run", "-d", "--name", "count", "--network", "ov_net1", "busybox", "sh", "-c", "i=0; while :; do i=$((i+1)); echo line $i; usleep 10000; done")
	h1.MustMinictl("run", "-d", "--name", "ends", "--network", "ov_net1", "busybox", "sh", "-c", "while [ ! -e /stop ]; do usleep 10000; done; exit 7")
	h2.MustMinictl("run", "-d", "--name", "bbox2", "--network", "ov_net1", "busybox", "sleep", "600")
	pid := strings.TrimSpace(h1.MustMinictl("inspect", "-f", "{{.State.Pid}}", "web1"))
	for _, end := range []struct {
		name string
		do   func()
	}{{"SIGTERM", h1.StopDaemon}, {"SIGKILL", h1.KillDaemon}} {
		t.Run(end.name, func(t *testing.T) {
			end.do()
			// Without a daemon: the page is there, and so is the packet to the container on the other host.
			wantMatch(t, "the page while the daemon is away", fetch(t, laptop, "http://192.168.66.11:8080/"), "It works!")
			h1.Daemon()
			if got := strings.TrimSpace(h1.MustMinictl("inspect", "-f", "{{.State.Pid}}", "web1")); got != pid {
				t.Errorf("web1 is process %s, was %s", got, pid)
			}
			wantMatch(t, "the page after", fetch(t, laptop, "http://192.168.66.11:8080/"), "It works!")
			l.Eventually(soon, func() error {
				_, errOut, code := h1.Minictl("exec", "web1", "ping", "-c", "1", "-W", "1", "bbox2")
				if code != 0 {
					return errf("web1 does not reach bbox2: %s", errOut)
				}
				return nil
			})
			l.Eventually(soon, func() error {
				_, errOut, code := h2.Minictl("exec", "bbox2", "ping", "-c", "1", "-W", "1", "web1")
				if code != 0 {
					return errf("bbox2 does not reach web1: %s", errOut)
				}
				return nil
			})
			wantMatch(t, "exec after", h1.MustMinictl("exec", "count", "echo", "hello"), "hello")
			fails(t, h1, 125, `port is already allocated`, "run", "--rm", "-p", "8080:80", "busybox", "true")
		})
	}
	t.Run("exit while away", func(t *testing.T) {
		rootfs := "/proc/" + strings.TrimSpace(h1.MustMinictl("inspect", "-f", "{{.State.Pid}}", "ends")) + "/root/stop"
		h1.KillDaemon()
		h1.MustRun("touch", rootfs)
		l.Eventually(soon, func() error {
			if _, _, code := h1.Run(t.Context(), "test", "-e", filepath.Dir(rootfs)); code == 0 {
				return errf("still there")
			}
			return nil
		})
		h1.Daemon()
		wantMatch(t, "ps", h1.MustMinictl("ps", "-a", "--filter", "name=ends"), `Exited \(7\)`)
	})
	t.Run("no line lost", func(t *testing.T) {
		h1.MustMinictl("kill", "count")
		for i, line := range lines(h1.MustMinictl("logs", "count")) {
			if want := "line " + itoa(i+1); line != want {
				t.Fatalf("line %d of the log is %q, want %q", i+1, line, want)
			}
		}
	})
}

// TestSecondDaemon is refused by a sentence that names the first.
func TestSecondDaemon(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := l.Host("host1")
	h.Daemon()
	pid, err := os.ReadFile(h.Path("/run/minictl/daemon.lock"))
	if err != nil {
		t.Fatal(err)
	}
	fails(t, h, 1, `pid `+strings.TrimSpace(string(pid))+`, owns /var/lib/minictl`, "daemon")
}

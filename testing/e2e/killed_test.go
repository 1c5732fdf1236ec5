package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// clean waits until kernel and disk hold what they held.
func clean(l *lab.Lab, h *lab.Host, before lab.Snapshot, was []string) {
	l.Eventually(patient, func() error {
		if diff := lab.Diff(before, h.Snapshot()); diff != "" {
			return errf("left behind:\n%s", diff)
		}
		for _, path := range traces(h) {
			if !slices.Contains(was, path) {
				return errf("left behind: %s", path)
			}
		}
		return nil
	})
}

// killShim ends a container's shim, and nothing else.
func killShim(t *testing.T, h *lab.Host, name string) {
	t.Helper()
	id := strings.TrimSpace(h.MustMinictl("inspect", "-f", "{{.Id}}", name))
	files, err := filepath.Glob(h.Path("/proc/[0-9]*/cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		args, err := os.ReadFile(f)
		if err == nil && strings.Contains(string(args), "/shims/") && strings.Contains(string(args), "\x00"+id) {
			h.MustRun("kill", "-9", filepath.Base(filepath.Dir(f)))
			return
		}
	}
	t.Fatalf("%s has no shim", name)
}

// TestShimKilled ends the process between the daemon and a container with SIGKILL. The container ends with it, says so,
// and comes back if its restart policy wants that; nothing of it stays.
func TestShimKilled(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	used(l, h, "bridge")
	before, was := h.Snapshot(), traces(h)
	await := func(name, format, pattern string) {
		t.Helper()
		l.Eventually(patient, func() error {
			got := strings.TrimSpace(h.MustMinictl("inspect", "-f", format, name))
			if !strings.HasPrefix(got, pattern) {
				return errf("%s is %s, want %s", name, got, pattern)
			}
			return nil
		})
	}
	run := func(name string, args ...string) (pid string) {
		t.Helper()
		h.MustMinictl(append(append([]string{"run", "-d", "--name", name, "-p", "8080:80"}, args...), "busybox", "sleep", "6000")...)
		return strings.TrimSpace(h.MustMinictl("inspect", "-f", "{{.State.Pid}}", name))
	}
	t.Run("daemon is there", func(t *testing.T) {
		pid := run("victim")
		killShim(t, h, "victim")
		await("victim", "{{.State.Status}} {{.State.ExitCode}}", "exited 137")
		if _, err := os.Stat(h.Path("/proc/" + pid)); err == nil {
			t.Errorf("process %s still runs", pid)
		}
		h.MustMinictl("start", "victim")
		h.MustMinictl("exec", "victim", "true")
		h.MustMinictl("rm", "-f", "victim")
		clean(l, h, before, was)
	})
	t.Run("daemon is away", func(t *testing.T) {
		run("victim")
		h.KillDaemon()
		shimOf(t, h)
		h.RestartDaemon()
		await("victim", "{{.State.Status}}", "exited")
		h.MustMinictl("start", "victim")
		h.MustMinictl("exec", "victim", "true")
		h.MustMinictl("rm", "-f", "victim")
		clean(l, h, before, was)
	})
	t.Run("restart policy", func(t *testing.T) {
		pid := run("again", "--restart", "on-failure")
		killShim(t, h, "again")
		await("again", "{{.State.Status}} {{.RestartCount}}", "running 1")
		if now := strings.TrimSpace(h.MustMinictl("inspect", "-f", "{{.State.Pid}}", "again")); now == pid {
			t.Errorf("still process %s", pid)
		}
		h.MustMinictl("exec", "again", "true")
		h.MustMinictl("rm", "-f", "again")
		clean(l, h, before, was)
	})
}

// shimOf ends the only shim of a host without a daemon that could name it.
func shimOf(t *testing.T, h *lab.Host) {
	t.Helper()
	files, err := filepath.Glob(h.Path("/proc/[0-9]*/cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if args, err := os.ReadFile(f); err == nil && strings.Contains(string(args), "/shims/") {
			h.MustRun("kill", "-9", filepath.Base(filepath.Dir(f)))
			return
		}
	}
	t.Fatal("no shim")
}

// TestShimSilent: a container's shim does not answer when the daemon starts. The container keeps its network, and is taken up
// when it does.
func TestShimSilent(t *testing.T) {
	t.Parallel()
	l := breakable(t)
	h := start(t, l, "host1")
	used(l, h, "bridge")
	before, was := h.Snapshot(), traces(h)
	h.MustMinictl("network", "create", "lan")
	h.MustMinictl("run", "-d", "--name", "victim", "--network", "lan", "-p", "8080:80", "busybox", "sleep", "6000")
	running := h.Snapshot()
	h.KillDaemon()
	arm(t, h, "load-task")
	h.RestartDaemon()
	if diff := lab.Diff(running, h.Snapshot()); diff != "" {
		t.Errorf("its network is not what it was:\n%s", diff)
	}
	if _, _, code := h.Minictl("exec", "victim", "true"); code == 0 {
		t.Error("the shim answers: nothing is tested here")
	}
	disarm(t, h)
	l.Eventually(patient, func() error {
		if _, errOut, code := h.Minictl("exec", "victim", "true"); code != 0 {
			return errf("it is not taken up: %s", errOut)
		}
		return nil
	})
	h.MustMinictl("stop", "-t", "0", "victim")
	if got := strings.TrimSpace(h.MustMinictl("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "victim")); got != "exited 137" {
		t.Errorf("it is %s", got)
	}
	h.MustMinictl("rm", "victim")
	h.MustMinictl("network", "rm", "lan")
	clean(l, h, before, was)
}

// TestRuncKilled has runc die in the middle of each of its commands, before and after it has done its work. What is
// typed fails or works; then the container can be removed, and nothing of it stays.
func TestRuncKilled(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	used(l, h, "bridge")
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Fatal(err)
	}
	// Over runc in this host's own mounts; the real one is beside it.
	wrapper := `#!/bin/sh
case " $* " in *" $(cat /run/runc-dies-before 2>/dev/null || echo /) "*) kill -9 $$;; esac
/run/runc-real "$@"
code=$?
case " $* " in *" $(cat /run/runc-dies-after 2>/dev/null || echo /) "*) kill -9 $$;; esac
exit $code
`
	if err := os.WriteFile(h.Path("/run/runc-wrapper"), []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	h.MustRun("cp", runc, "/run/runc-real")
	h.MustRun("mount", "--bind", "/run/runc-wrapper", runc)
	before, was := h.Snapshot(), traces(h)
	for _, verb := range []string{"create", "start", "kill", "delete"} {
		for _, when := range []string{"before", "after"} {
			t.Run(verb+" "+when, func(t *testing.T) {
				dies := h.Path("/run/runc-dies-" + when)
				if err := os.WriteFile(dies, []byte(verb), 0o600); err != nil {
					t.Fatal(err)
				}
				_, errOut, code := h.Minictl("run", "-d", "--name", "victim", "-p", "8080:80", "busybox", "sleep", "6000")
				if begins := verb == "create" || verb == "start"; begins && code == 0 {
					t.Error("run succeeded")
				} else if !begins && code != 0 {
					t.Errorf("run: %s", errOut)
				}
				_, _, code = h.Minictl("rm", "-f", "victim")
				if err := os.Remove(dies); err != nil {
					t.Fatal(err)
				}
				if code != 0 {
					h.MustMinictl("rm", "-f", "victim")
				}
				clean(l, h, before, was)
				h.MustMinictl("run", "--rm", "--name", "victim", "-p", "8080:80", "busybox", "true")
			})
		}
	}
}

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// TestKilledAtEachStep kills the daemon in the middle of run, at each step in turn. The next daemon adopts, repairs or
// removes: what is left can be removed, and then the kernel lists what it listed before.
func TestKilledAtEachStep(t *testing.T) {
	bin, err := filepath.Abs("../../bin/minictl-failpoint")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("no binary with failpoints: run make test: %v", err)
	}
	armed := filepath.Join(t.TempDir(), "armed")
	t.Setenv("MINICTL_BIN", bin)
	t.Setenv("MINICTL_FAILPOINT", armed)
	l := lab.New(t)
	h1, h2 := pair(t, l)
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	h1.MustMinictl("run", "--rm", "--network", "ov_net1", "busybox", "true")
	before := []lab.Snapshot{h1.Snapshot(), h2.Snapshot()}
	for _, step := range []string{"create-snapshot", "create-state", "sandbox", "task", "address", "join", "resolver", "publish", "start"} {
		t.Run(step, func(t *testing.T) {
			if err := os.WriteFile(armed, []byte(step+" kill"), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, errOut, code := h1.Minictl("run", "-d", "--name", "victim", "-p", "8080:80", "--network", "ov_net1", "busybox", "sleep", "60"); code != 125 {
				t.Errorf("code %d: %s", code, errOut)
			}
			if err := os.Remove(armed); err != nil {
				t.Fatal(err)
			}
			h1.KillDaemon()
			h1.Daemon()
			for _, id := range lines(h1.MustMinictl("ps", "-aq")) {
				wantMatch(t, "what is left", h1.MustMinictl("inspect", "-f", "{{.State.Status}}", id), `created|running`)
				h1.MustMinictl("rm", "-f", id)
			}
			// Its name and port are free at once, its address as soon as somebody can decide again.
			l.Eventually(soon, func() error {
				h1.MustMinictl("run", "-d", "--name", "victim", "-p", "8080:80", "--network", "ov_net1", "busybox", "sleep", "60")
				routes := h1.MustMinictl("exec", "victim", "ip", "r")
				h1.MustMinictl("rm", "-f", "victim")
				if !strings.Contains(routes, "src 10.0.0.2") {
					return errf("its address is not free yet:\n%s", routes)
				}
				return nil
			})
			l.Eventually(soon, func() error {
				for i, h := range []*lab.Host{h1, h2} {
					if diff := lab.Diff(before[i], h.Snapshot()); diff != "" {
						return errf("%s: left behind:\n%s", h.Name(), strings.TrimSpace(diff))
					}
				}
				return nil
			})
		})
	}
	t.Run("remove", func(t *testing.T) {
		if err := os.WriteFile(armed, []byte("remove kill"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, code := h1.Minictl("run", "--rm", "busybox", "true"); code == 0 {
			t.Error("the daemon was not killed")
		}
		if err := os.Remove(armed); err != nil {
			t.Fatal(err)
		}
		h1.KillDaemon()
		h1.Daemon()
		l.Eventually(soon, func() error {
			if left := h1.MustMinictl("ps", "-aq"); left != "" {
				return errf("run --rm left %s", left)
			}
			return nil
		})
	})
}

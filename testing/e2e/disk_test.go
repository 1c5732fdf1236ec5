package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// TestFullFileSystem: the disk under /var/lib/minictl is full, or has no room for one more file. What is asked of the host
// fails by a sentence that names the place and what to do, and leaves nothing; what runs goes on, names too; whatever is
// there can be removed, and when there is room all the rest works, without a restart.
func TestFullFileSystem(t *testing.T) {
	refused := []string{
		"run -d --name NAME --network none busybox sleep 1000000",
		"run -d --name NAME --network ov busybox sleep 1000000",
		"create --name NAME busybox true",
		"volume create NAME",
	}
	for name, c := range map[string]struct {
		options, fill string
		refused       []string // also
	}{
		"bytes": {"size=256m", "dd if=/dev/zero of=/var/lib/minictl/filler bs=4k 2>&1 | grep 'No space'", []string{"network create NAME", "network create -d overlay NAME"}},
		"files": {"size=256m,nr_inodes=2500", "mkdir /var/lib/minictl/filler; i=0; while touch /var/lib/minictl/filler/$((i+=1)); do :; done 2>&1 | grep 'No space'", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			h1, h2 := l.Host("host1"), start(t, l, "host2")
			h1.MustRun("sh", "-ec", "mkdir -p /var/lib/minictl && mount -t tmpfs -o "+c.options+" small /var/lib/minictl")
			h1.Daemon()
			loadImages(t, h1)
			join(t, h1, h2)
			h1.MustMinictl("network", "create", "-d", "overlay", "ov")
			h1.MustMinictl("run", "-d", "--name", "web", "--network", "ov", "busybox", "sleep", "1000000")
			h1.MustMinictl("run", "-d", "--name", "idle", "--network", "ov", "busybox", "sleep", "1000000")
			h1.MustMinictl("network", "create", "near")
			h1.MustMinictl("network", "create", "-d", "overlay", "unused")
			var old, volumes []string
			for i := range 16 {
				old, volumes = append(old, fmt.Sprint("old", i)), append(volumes, fmt.Sprint("oldvol", i))
				h1.MustMinictl("create", "--name", old[i], "--volume", volumes[i]+":/x", "--network", "near", "busybox", "true")
			}
			h2.MustMinictl("run", "-d", "--name", "peer", "--network", "ov", "busybox", "sleep", "1000000")
			before := held(h1)
			if out, errOut, code := h1.Run(context.Background(), "sh", "-c", c.fill); code != 0 {
				t.Fatal(out, errOut)
			}
			for _, make := range slices.Concat(refused, c.refused) {
				refusedWhenFull(t, h1, make)
			}
			if now := held(h1); !slices.Equal(now, before) {
				t.Errorf("there were\n%s\nnow there are\n%s", before, now)
			}
			h1.MustMinictl("exec", "web", "ping", "-c1", "peer")
			h2.MustMinictl("exec", "peer", "ping", "-c1", "web")
			h1.MustMinictl("rm", "-f", "idle")
			h1.MustMinictl(append([]string{"rm"}, old...)...)
			h1.MustMinictl(append([]string{"volume", "rm"}, volumes...)...)
			h1.MustMinictl("network", "rm", "near")
			// The cluster may have no room to decide on its networks: this keeps nothing else.
			if _, errOut, code := h1.Minictl("system", "prune", "-af", "--volumes"); code != 0 && (code != 1 || !strings.Contains(errOut, "remove network unused: ")) {
				t.Errorf("system prune: exit %d: %s", code, errOut)
			}
			if kept := strings.TrimSpace(h1.MustMinictl("images", "--format", "{{.Repository}}")); kept != "busybox" {
				t.Errorf("unused images are still there: %s", kept)
			}
			h1.MustRun("rm", "-r", "/var/lib/minictl/filler")
			loadImages(t, h1)
			l.Eventually(soon, func() error {
				if _, errOut, code := h1.Minictl("network", "create", "-d", "overlay", "extra"); code != 0 {
					return errf("%s", errOut)
				}
				return nil
			})
			h1.MustMinictl("run", "--rm", "--network", "extra", "--volume", "extra:/x", "busybox", "true")
			h1.MustMinictl("rm", "-f", "web")
			h2.MustMinictl("rm", "-f", "peer")
			h1.MustMinictl("network", "rm", "-f", "extra", "ov", "unused")
		})
	}
}

// refusedWhenFull makes things until there is no room for one more, since the databases use up what their files have,
// reads the refusal, and removes those that were made.
func refusedWhenFull(t *testing.T, h *lab.Host, make string) {
	t.Helper()
	remove := map[string][]string{"run": {"rm", "-f"}, "create": {"rm"}, "network": {"network", "rm"}, "volume": {"volume", "rm"}}
	noun, _, _ := strings.Cut(make, " ")
	var made []string
	for i := range 300 {
		name := fmt.Sprint("extra", i)
		_, errOut, code := h.Minictl(strings.Fields(strings.Replace(make, "NAME", name, 1))...)
		if code == 0 {
			made = append(made, name)
			continue
		}
		if !strings.Contains(errOut, "/var/lib/minictl is full") || !strings.Contains(errOut, "minictl system prune") {
			t.Errorf("%s: %s", make, errOut)
		}
		if len(made) > 0 {
			h.MustMinictl(append(remove[noun], made...)...)
		}
		return
	}
	t.Errorf("%s: never refused", make)
}

// held lists what a host's user has, and what the host keeps for it.
func held(h *lab.Host) []string {
	var all []string
	for _, args := range [][]string{
		{"ps", "-a", "--format", "{{.Names}} {{.State}}"}, {"network", "ls", "--format", "{{.Name}}"}, {"volume", "ls", "-q"},
	} {
		all = append(all, strings.Fields(h.MustMinictl(args...))...)
	}
	return append(all, strings.Fields(h.MustRun("ls", "/var/lib/minictl/containers"))...)
}

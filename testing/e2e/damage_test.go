package e2e

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// TestDamagedContainerd: a database of containerd's that a loss of power has torn, cut or taken away keeps the daemon from
// starting, by a sentence with the file's name, before containerd removes what it has no entry of. What runs goes on, and
// is taken up again once the file is back.
func TestDamagedContainerd(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	h.MustMinictl("run", "-d", "--name", "web", "busybox", "sh", "-c", "echo kept >/kept; exec sleep 1000000")
	pid := h.MustMinictl("inspect", "-f", "{{.State.Pid}}", "web")
	h.StopDaemon()
	root := "/var/lib/minictl/containerd"
	h.MustRun("cp", "-a", root, "/var/lib/minictl/whole")
	layers := h.MustRun("ls", root+"/io.containerd.snapshotter.v1.overlayfs/snapshots")
	for _, file := range []string{"io.containerd.metadata.v1.bolt/meta.db", "io.containerd.snapshotter.v1.overlayfs/metadata.db"} {
		for what, damage := range map[string]string{
			"torn":    "size=$(stat -c %s $f); dd if=/dev/urandom of=$f bs=4096 seek=2 count=$((size/4096-2)) conv=notrunc status=none",
			"cut":     "truncate -s 10000 $f",
			"empty":   "truncate -s 0 $f",
			"missing": "rm $f",
		} {
			h.MustRun("sh", "-ec", "f="+root+"/"+file+"; "+damage)
			ctx, cancel := context.WithTimeout(context.Background(), patient)
			_, errOut, code := h.Run(ctx, filepath.Join(imageDir(t), "..", "minictl"), "daemon")
			cancel()
			if code != 1 || !strings.Contains(errOut, root+"/"+file+" is damaged") || !strings.Contains(errOut, "mv "+root) || strings.Contains(errOut, "goroutine ") {
				t.Errorf("%s %s: %d %s", what, file, code, errOut)
			}
			h.MustRun("cp", "-a", "/var/lib/minictl/whole/"+file, root+"/"+file)
			if now := h.MustRun("ls", root+"/io.containerd.snapshotter.v1.overlayfs/snapshots"); now != layers {
				t.Fatalf("%s %s: layers were removed:\n%s", what, file, now)
			}
		}
	}
	h.Daemon()
	if got := h.MustMinictl("inspect", "-f", "{{.State.Pid}}", "web"); got != pid {
		t.Errorf("pid %s, then %s", pid, got)
	}
	h.MustMinictl("exec", "web", "cat", "/kept")
	// What the sentence says, done.
	h.StopDaemon()
	h.MustMinictl("daemon", "--cleanup", "--force")
	h.MustRun("mv", root, root+".damaged")
	h.Daemon()
	wantMatch(t, "what is left", h.MustMinictl("ps", "-a", "--format", "{{.Names}} {{.Status}}"), `^web Exited \(255\)`)
	if left := h.MustRun("ps", "ax"); strings.Contains(left, "sleep 1000000") {
		t.Errorf("it still runs, and nobody knows it:\n%s", left)
	}
	h.MustMinictl("rm", "web")
	loadImages(t, h)
	h.MustMinictl("run", "--rm", "--name", "web", "busybox", "true")
}

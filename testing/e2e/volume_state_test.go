package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// TestVolumeOptions are the volumes that are mounted while they are used: a tmpfs and a folder of the host's.
func TestVolumeOptions(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	volumeImage(t, h)
	h.MustMinictl("run", "--rm", "busybox", "true")
	folder := "/srv-of-the-host"
	h.MustRun("mkdir", folder)
	t.Cleanup(func() { _ = os.RemoveAll(h.Path(folder)) })
	before := h.Snapshot()
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			c.must(h, "volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,mode=1770,noexec", "mem")
			c.must(h, "volume", "create", "-o", "type=none", "-o", "device="+folder, "-o", "o=bind", "host")
			if o := inspect[inspectedVolume](t, c.must(h, "volume", "inspect", "mem")).Options; o["type"] != "tmpfs" || o["o"] != "size=1m,mode=1770,noexec" {
				t.Errorf("options: %v", o)
			}
			// The host's folder gets the image's content, as an empty volume does; the two share the tmpfs.
			c.must(h, "run", "-d", "--name", "box", "-v", "mem:/m", "-v", "host:/data", "wants", "sleep", "600")
			wantMatch(t, "the tmpfs", c.must(h, "exec", "box", "grep", " /m ", "/proc/mounts"), `^tmpfs /m tmpfs rw,.*noexec.*size=1024k,mode=1770`)
			c.must(h, "exec", "box", "touch", "/m/shared", "/data/new")
			c.must(h, "run", "--rm", "-v", "mem:/m", "busybox", "test", "-e", "/m/shared")
			h.MustRun("test", "-f", filepath.Join(folder, "sub/inner"))
			h.MustRun("test", "-f", filepath.Join(folder, "new"))
			// A daemon that ends and comes back leaves both mounted, and takes them back with the last container.
			h.StopDaemon()
			h.Daemon()
			c.must(h, "exec", "box", "test", "-e", "/m/shared")
			c.must(h, "run", "--rm", "-v", "mem:/m", "busybox", "test", "-e", "/m/shared")
			c.must(h, "kill", "box")
			wantNoVolumeMounts(t, h)
			c.must(h, "start", "box")
			refused(t, c, h, 1, ``, "exec", "box", "test", "-e", "/m/shared") // memory begins anew
			h.KillDaemon()
			h.Daemon()
			c.must(h, "rm", "-f", "box")
			wantNoVolumeMounts(t, h)
			c.must(h, "volume", "rm", "mem", "host")
			h.MustRun("test", "-f", filepath.Join(folder, "new")) // the host's own folder is not the volume's to remove
			h.MustRun("find", folder, "-mindepth", "1", "-delete")
			noVolumes(t, h)
		})
	}
	if diff := lab.Diff(before, h.Snapshot()); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
}

func wantNoVolumeMounts(t *testing.T, h *lab.Host) {
	t.Helper()
	for _, l := range lines(h.MustRun("cat", "/proc/mounts")) {
		if strings.Contains(l, "/volumes/") {
			t.Errorf("still mounted: %s", l)
		}
	}
}

// TestVolumeRestart ends the daemon both ways: data, records, who uses what, and a removal that was cut off.
func TestVolumeRestart(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	volumeImage(t, h)
	h.MustMinictl("run", "--rm", "busybox", "true")
	before := h.Snapshot()
	for _, end := range []struct {
		name string
		do   func()
	}{{"SIGTERM", h.StopDaemon}, {"SIGKILL", h.KillDaemon}} {
		t.Run(end.name, func(t *testing.T) {
			h.MustMinictl("volume", "create", "--label", "a=b", "idle")
			h.MustMinictl("run", "-d", "--name", "runs", "-v", "data:/d", "wants", "sh", "-c", "while :; do date +%s%N > /d/now; usleep 10000; done")
			h.MustMinictl("create", "--name", "waits", "-v", "later:/d", "busybox", "sh", "-c", "echo kept > /d/f")
			h.MustMinictl("run", "-d", "--rm", "--name", "gone", "wants", "sleep", "600")
			anonymous := mountsOf(t, clients()[0], h, "gone")["/data"].Name
			pid := strings.TrimSpace(h.MustMinictl("inspect", "-f", "{{.State.Pid}}", "gone"))
			end.do()
			h.MustRun("kill", "-9", pid) // a --rm container ends while nobody watches
			h.Daemon()
			fails(t, h, 1, `remove data: volume is in use`, "volume", "rm", "data")
			fails(t, h, 1, `remove later: volume is in use`, "volume", "rm", "later")
			if got := h.MustMinictl("volume", "ls", "-q", "--filter", "label=a=b", "--filter", "dangling=true"); got != "idle\n" {
				t.Errorf("the idle one: %q", got)
			}
			first := h.MustMinictl("exec", "runs", "cat", "/d/now")
			l.Eventually(soon, func() error {
				if h.MustMinictl("run", "--rm", "-v", "data:/d", "busybox", "cat", "/d/now") == first {
					return errf("the running container does not write any more")
				}
				return nil
			})
			h.MustMinictl("start", "-a", "waits")
			if got := h.MustMinictl("run", "--rm", "-v", "later:/d", "busybox", "cat", "/d/f"); got != "kept\n" {
				t.Errorf("written after the restart: %q", got)
			}
			l.Eventually(soon, func() error {
				if out := h.MustMinictl("volume", "ls", "-q"); strings.Contains(out, anonymous) {
					return errf("the anonymous volume of a --rm container is left: %s", out)
				}
				return nil
			})
			h.MustMinictl("rm", "-f", "-v", "runs", "waits")
			h.MustMinictl("volume", "prune", "-a", "-f")
			noVolumes(t, h)
			if diff := lab.Diff(before, h.Snapshot()); diff != "" {
				t.Errorf("left behind:\n%s", diff)
			}
		})
	}
}

// TestVolumeRefused gives one line that says what and why, and leaves neither container nor volume.
func TestVolumeRefused(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	h.MustMinictl("run", "--rm", "busybox", "true")
	before := h.Snapshot()
	for _, c := range []struct {
		name    string
		code    int
		pattern string
		args    []string
	}{
		{"name with a slash", 125, `create a/b: "a/b" includes invalid characters for a local volume name, only "\[a-zA-Z0-9\]\[a-zA-Z0-9_\.-\]" are allowed\. If you intended to pass a host directory, use absolute path`,
			[]string{"run", "--rm", "-v", "a/b:/d", "busybox", "true"}},
		{"short name", 1, `volume name is too short, names should be at least two alphanumeric characters`, []string{"volume", "create", "a"}},
		{"climbing name", 1, `includes invalid characters`, []string{"volume", "create", ".."}},
		{"long name", 1, `includes invalid characters`, []string{"volume", "create", strings.Repeat("a", 256)}},
		{"unknown driver", 1, `create data: error looking up volume plugin nfs: plugin "nfs" not found`, []string{"volume", "create", "-d", "nfs", "data"}},
		{"unknown option", 1, `create data: invalid option: "color"`, []string{"volume", "create", "-o", "color=red", "data"}},
		{"half an option", 1, `create data: missing required option: "device"`, []string{"volume", "create", "-o", "type=tmpfs", "data"}},
		{"kind of volume", 1, `does not support volumes of type nfs yet`, []string{"volume", "create", "-o", "type=nfs", "-o", "device=:/x", "-o", "o=addr=1.2.3.4", "data"}},
		{"quota", 1, `does not support the volume option size yet`, []string{"volume", "create", "-o", "size=1g", "data"}},
		{"driver of a container's", 125, `does not support --volume-driver nfs yet`, []string{"run", "--rm", "--volume-driver", "nfs", "-v", "data:/d", "busybox", "true"}},
		{"subpath", 125, `does not support --mount volume-subpath yet`, []string{"run", "--rm", "--mount", "type=volume,src=data,dst=/d,volume-subpath=x", "busybox", "true"}},
		{"relative target", 125, `invalid mount path: 'd' mount path must be absolute`, []string{"run", "--rm", "-v", "data:d", "busybox", "true"}},
		{"anonymous relative", 125, `invalid mount path: 'd' mount path must be absolute`, []string{"run", "--rm", "-v", "d", "busybox", "true"}},
		{"the root", 125, `destination can't be '/'`, []string{"run", "--rm", "-v", "data:/", "busybox", "true"}},
		{"twice", 125, `Duplicate mount point: /d`, []string{"run", "--rm", "-v", "data:/d", "-v", "data2:/d/", "busybox", "true"}},
		{"volume and tmpfs", 125, `Duplicate mount point: /d`, []string{"run", "--rm", "-v", "data:/d", "--tmpfs", "/d", "busybox", "true"}},
		{"mode", 125, `invalid mode: rx`, []string{"run", "--rm", "-v", "data:/d:rx", "busybox", "true"}},
		{"propagation", 125, `field BindOptions must not be specified`, []string{"run", "--rm", "-v", "data:/d:rshared", "busybox", "true"}},
		{"nocopy of a bind", 125, `field VolumeOptions must not be specified`, []string{"run", "--rm", "-v", "/tmp:/d:nocopy", "busybox", "true"}},
		{"over a file", 125, `cannot mount volume over existing file, file exists /etc/passwd`, []string{"run", "--rm", "-v", "data:/etc/passwd", "busybox", "true"}},
		{"no such command", 127, `executable file not found`, []string{"run", "--rm", "-v", "/d", "busybox", "nope"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fails(t, h, c.code, c.pattern, c.args...)
			if got := h.MustMinictl("ps", "-aq"); got != "" {
				t.Errorf("containers left: %s", got)
			}
			noVolumes(t, h)
		})
	}
	// A folder that is not there shows at the start; the volume was made by its own command and stays.
	h.MustMinictl("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/nope", "data")
	fails(t, h, 127, `error while mounting volume '/var/lib/minictl/volumes/data/_data': failed to mount local volume: mount /nope:/var/lib/minictl/volumes/data/_data, flags: 0x1000, data: : no such file or directory`,
		"run", "--rm", "-v", "data:/d", "busybox", "true")
	h.MustMinictl("volume", "rm", "data")
	noVolumes(t, h)
	if diff := lab.Diff(before, h.Snapshot()); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
}

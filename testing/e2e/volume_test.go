package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/minictl/minictl/testing/images/bake"
	"github.com/minictl/minictl/testing/lab"
)

// volumeRoot is where volumes lie on a host.
func volumeRoot(h *lab.Host) string { return h.Path("/var/lib/minictl/volumes") }

// noVolumes wants neither a record nor a byte of any volume.
func noVolumes(t *testing.T, h *lab.Host) {
	t.Helper()
	if out := h.MustMinictl("volume", "ls", "-q"); out != "" {
		t.Errorf("volumes left: %s", out)
	}
	entries, err := os.ReadDir(volumeRoot(h))
	if err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
	for _, e := range entries {
		t.Errorf("left on the disk: %s", e.Name())
	}
}

// refused wants a command of either client to fail with a code and one pattern.
func refused(t *testing.T, c cli, h *lab.Host, code int, pattern string, args ...string) {
	t.Helper()
	_, errOut, got := c.try(h, args...)
	if got != code {
		t.Errorf("%s %v: code %d, want %d: %s", c.name, args, got, code, errOut)
	}
	wantMatch(t, c.name+" "+strings.Join(args, " "), errOut, pattern)
}

// inspectedVolume is docker's JSON.
type inspectedVolume struct {
	CreatedAt, Driver, Mountpoint, Name, Scope string
	Labels, Options                            map[string]string
}

// inspectedMount is one of a container's.
type inspectedMount struct {
	Type, Name, Source, Destination, Driver, Mode, Propagation string
	RW                                                         bool
}

func mountsOf(t *testing.T, c cli, h *lab.Host, ref string) map[string]inspectedMount {
	t.Helper()
	out := map[string]inspectedMount{}
	for _, m := range inspect[struct{ Mounts []inspectedMount }](t, c.must(h, "inspect", ref)).Mounts {
		out[m.Destination] = m
	}
	return out
}

// TestVolumes walks a named volume's life with both clients: made, shared, listed, refused while used, removed with its
// bytes, and told about by events.
func TestVolumes(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	h.MustMinictl("run", "--rm", "busybox", "true")
	before := h.Snapshot()
	for _, c := range recentClients(t) {
		t.Run(c.name, func(t *testing.T) {
			began := strconv.FormatInt(time.Now().Unix(), 10)
			if got := strings.TrimSpace(c.must(h, "volume", "create", "--label", "tier=gold", "data")); got != "data" {
				t.Errorf("create printed %q", got)
			}
			c.must(h, "volume", "create", "data") // docker's rule: the one that is there
			v := inspect[inspectedVolume](t, c.must(h, "volume", "inspect", "data"))
			if v.Name != "data" || v.Driver != "local" || v.Scope != "local" || v.Mountpoint != "/var/lib/minictl/volumes/data/_data" ||
				v.Labels["tier"] != "gold" || v.Options != nil {
				t.Errorf("inspect: %+v", v)
			}
			if _, err := time.Parse(time.RFC3339, v.CreatedAt); err != nil {
				t.Error(err)
			}
			web := strings.TrimSpace(c.must(h, "run", "-d", "--name", "web", "-v", "data:/d", "busybox", "sh", "-c", "echo hello > /d/f; sleep 600"))
			l.Eventually(soon, func() error {
				out, _, code := c.try(h, "run", "--rm", "-v", "data:/other:ro", "busybox", "cat", "/other/f")
				if code != 0 || out != "hello\n" {
					return errf("code %d, %q", code, out)
				}
				return nil
			})
			refused(t, c, h, 1, `Read-only file system`, "run", "--rm", "-v", "data:/d:ro", "busybox", "touch", "/d/x")
			want := inspectedMount{Type: "volume", Name: "data", Source: v.Mountpoint, Destination: "/d", Driver: "local", Mode: "z", RW: true}
			if got := mountsOf(t, c, h, "web")["/d"]; got != want {
				t.Errorf("inspect's mount: %+v", got)
			}
			for _, filter := range []string{"volume=data", "volume=/d"} {
				if got := strings.TrimSpace(c.must(h, "ps", "--filter", filter, "--format", "{{.Names}} {{.Mounts}} {{.LocalVolumes}}")); got != "web data 1" {
					t.Errorf("ps --filter %s: %q", filter, got)
				}
			}
			if got := c.must(h, "ps", "-q", "--filter", "volume=nope"); got != "" {
				t.Errorf("ps by an unknown volume: %q", got)
			}
			listed(t, c, h)
			refused(t, c, h, 1, `remove data: volume is in use - \[`+web+`\]`, "volume", "rm", "data")
			c.must(h, "kill", "web")
			refused(t, c, h, 1, `volume is in use`, "volume", "rm", "data") // a container that ended still has it
			c.must(h, "rm", "-v", "web")                                    // named ones stay
			c.must(h, "volume", "rm", "data")
			refused(t, c, h, 1, `get data: no such volume`, "volume", "inspect", "data")
			refused(t, c, h, 1, `get data: no such volume`, "volume", "rm", "data")
			c.must(h, "volume", "rm", "-f", "data")
			noVolumes(t, h)
			told(t, c, h, began, web)
			if diff := lab.Diff(before, h.Snapshot()); diff != "" {
				t.Errorf("left behind:\n%s", diff)
			}
		})
	}
}

// listed is ls and its filters while container web uses data.
func listed(t *testing.T, c cli, h *lab.Host) {
	t.Helper()
	c.must(h, "volume", "create", "idle10")
	c.must(h, "volume", "create", "idle9")
	if got, want := c.must(h, "volume", "ls"), "DRIVER    VOLUME NAME\nlocal     data\nlocal     idle9\nlocal     idle10\n"; got != want {
		t.Errorf("volume ls:\n%s", got)
	}
	for filter, want := range map[string]string{
		"dangling=true": "idle9\nidle10\n", "dangling=false": "data\n", "name=idle": "idle9\nidle10\n", "name=^idle9$": "idle9\n",
		"label=tier": "data\n", "label=tier=gold": "data\n", "label=tier=tin": "", "driver=local": "data\nidle9\nidle10\n", "driver=nfs": "",
	} {
		if got := c.must(h, "volume", "ls", "-q", "--filter", filter); got != want {
			t.Errorf("volume ls --filter %s: %q, want %q", filter, got, want)
		}
	}
	refused(t, c, h, 1, `invalid filter 'color'`, "volume", "ls", "--filter", "color=red")
	refused(t, c, h, 1, `invalid filter 'dangling=maybe'`, "volume", "ls", "--filter", "dangling=maybe")
	if out := c.must(h, "volume", "prune", "-f"); out != "Total reclaimed space: 0B\n" {
		t.Errorf("prune takes named volumes: %s", out)
	}
	if err := os.WriteFile(filepath.Join(volumeRoot(h), "idle9/_data/f"), make([]byte, 1500), 0o600); err != nil {
		t.Fatal(err)
	}
	out := c.must(h, "volume", "prune", "-a", "-f")
	if got := lines(out); len(got) != 4 || got[0] != "Deleted Volumes:" || got[3] != "Total reclaimed space: 1.5kB" {
		t.Errorf("prune -a:\n%s", out)
	}
	if got := c.must(h, "volume", "ls", "-q"); got != "data\n" {
		t.Errorf("after prune -a: %q", got)
	}
}

// told is what events said, in docker's order.
func told(t *testing.T, c cli, h *lab.Host, since, web string) {
	t.Helper()
	out := c.must(h, "events", "--since", since, "--until", now(), "--filter", "volume=data",
		"--format", `{{.Type}} {{.Action}} {{.Actor.ID}} {{index .Actor.Attributes "driver"}} {{index .Actor.Attributes "container"}} {{index .Actor.Attributes "destination"}} {{index .Actor.Attributes "read/write"}}`)
	got := lines(out)
	for _, want := range []string{
		"volume create data local", "volume mount data local " + web + " /d true", "volume unmount data local " + web, "volume destroy data local",
	} {
		i := slices.IndexFunc(got, func(l string) bool { return strings.TrimRight(l, " ") == want })
		if i < 0 {
			t.Errorf("no event %q, in this order, in:\n%s", want, out)
			return
		}
		got = got[i+1:]
	}
}

// entry is one of an image's files, with what bake's own layers do not need.
type entry struct {
	name, link string
	kind       byte
	mode       int64
	uid        int
	body       string
}

// volumeImage is busybox with content where it wants volumes.
func volumeImage(t *testing.T, h *lab.Host) {
	t.Helper()
	busybox, err := bake.FindBusybox(t.Context(), filepath.Join(imageDir(t), "busybox-static"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := bake.Busybox(t.Context(), busybox)
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, e := range []entry{
		{name: "data/", kind: tar.TypeDir, mode: 0o1750, uid: 1000},
		{name: "data/secret", kind: tar.TypeReg, mode: 0o4640, uid: 1001, body: "content"},
		{name: "data/hard", kind: tar.TypeLink, link: "data/secret", mode: 0o4640, uid: 1001},
		{name: "data/pipe", kind: tar.TypeFifo, mode: 0o622, uid: 7},
		{name: "data/sub/", kind: tar.TypeDir, mode: 0o700, uid: 1002},
		{name: "data/sub/inner", kind: tar.TypeReg, mode: 0o600, body: "inner"},
		{name: "data/out", kind: tar.TypeSymlink, link: "/etc/passwd", uid: 1003},
		{name: "data/up", kind: tar.TypeSymlink, link: "../../../../../../etc"},
		{name: "linked", kind: tar.TypeSymlink, link: "/data/sub"},
		{name: "escape", kind: tar.TypeSymlink, link: "../../../../../../../../../../root"},
		{name: "root/inside", kind: tar.TypeReg, mode: 0o600, body: "the image's own"},
	} {
		hdr := &tar.Header{Name: e.name, Linkname: e.link, Typeflag: e.kind, Mode: e.mode, Uid: e.uid, Gid: e.uid, Size: int64(len(e.body)), ModTime: bake.Epoch()}
		if err := w.WriteHeader(hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img.Names = []string{"wants:latest"}
	img.Layers = append(slices.Clone(img.Layers), layer.Bytes())
	img.Config.Volumes = map[string]struct{}{"/data": {}}
	f, err := os.Create(filepath.Join(t.TempDir(), "wants.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := bake.Save(f, img); err != nil {
		t.Fatal(err)
	}
	h.MustMinictl("load", "-q", "-i", f.Name())
}

// TestVolumeContent is what a new volume begins with, and who gets an anonymous one and loses it.
func TestVolumeContent(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	volumeImage(t, h)
	h.MustMinictl("run", "--rm", "busybox", "true")
	before := h.Snapshot()
	const list = `cd /data; for f in . secret pipe sub sub/inner out up; do stat -c "%n %F %a %u:%g %h %Y" $f; done; readlink out; readlink up; cat sub/inner`
	image := func(mount ...string) string {
		return h.MustMinictl(slices.Concat([]string{"run", "--rm"}, mount, []string{"wants", "sh", "-c", list})...)
	}
	t.Run("copied", func(t *testing.T) {
		want := fmt.Sprintf(`. directory 1750 1000:1000 3 %[1]d
secret regular file 4640 1001:1001 2 %[1]d
pipe fifo 622 7:7 1 %[1]d
sub directory 700 1002:1002 2 %[1]d
sub/inner regular file 600 0:0 1 %[1]d
out symbolic link 777 1003:1003 1 %[1]d
up symbolic link 777 0:0 1 %[1]d
/etc/passwd
../../../../../../etc
inner`, bake.Epoch().Unix())
		for name, mount := range map[string][]string{
			"the image's volume": nil, "-v": {"-v", "full:/data"}, "again": {"-v", "full:/data"}, "--mount": {"--mount", "type=volume,src=full2,dst=/data"},
			"anonymous -v": {"-v", "/data"}, "anonymous --mount": {"--mount", "type=volume,dst=/data"},
		} {
			if got := image(mount...); got != want {
				t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
			}
		}
		if got := strings.TrimSpace(h.MustMinictl("volume", "ls", "-q")); got != "full\nfull2" {
			t.Errorf("--rm leaves %q", got)
		}
	})
	t.Run("not copied", func(t *testing.T) {
		for _, mount := range [][]string{{"-v", "none:/data:nocopy"}, {"--mount", "type=volume,src=none,dst=/data,volume-nocopy"}} {
			if got := h.MustMinictl(slices.Concat([]string{"run", "--rm"}, mount, []string{"wants", "ls", "-A", "/data"})...); got != "" {
				t.Errorf("%v: %q", mount, got)
			}
		}
		// Nor into one that holds something, nor from another place.
		h.MustMinictl("run", "--rm", "-v", "none:/d", "busybox", "touch", "/d/mine")
		if got := h.MustMinictl("run", "--rm", "-v", "none:/data", "wants", "ls", "-A", "/data"); got != "mine\n" {
			t.Errorf("content over content: %q", got)
		}
	})
	t.Run("links on the way stay inside", func(t *testing.T) {
		if got := h.MustMinictl("run", "--rm", "-v", "l1:/linked", "wants", "ls", "/linked"); got != "inner\n" {
			t.Errorf("through a link: %q", got)
		}
		if got := h.MustMinictl("run", "--rm", "-v", "l2:/escape", "-v", "l2:/see", "wants", "ls", "-A", "/see"); got != "inside\n" {
			t.Errorf("a link that climbs out gives: %q", got)
		}
	})
	h.MustMinictl("volume", "prune", "-a", "-f")
	noVolumes(t, h)
	for _, c := range recentClients(t) {
		t.Run("anonymous "+c.name, func(t *testing.T) { anonymous(t, c, h) })
		t.Run("volumes-from "+c.name, func(t *testing.T) { volumesFrom(t, c, h) })
	}
	if diff := lab.Diff(before, h.Snapshot()); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
}

func anonymous(t *testing.T, c cli, h *lab.Host) {
	c.must(h, "create", "--name", "box", "wants")
	m := mountsOf(t, c, h, "box")["/data"]
	if len(m.Name) != 64 || m.Type != "volume" || m.Mode != "" || !m.RW {
		t.Errorf("the image's volume: %+v", m)
	}
	if v := inspect[inspectedVolume](t, c.must(h, "volume", "inspect", m.Name)); len(v.Labels) != 1 || v.Labels["com.docker.volume.anonymous"] != "" {
		t.Errorf("labels: %v", v.Labels)
	}
	c.must(h, "rm", "box") // without -v it stays, and prune takes it
	wantMatch(t, "prune", c.must(h, "volume", "prune", "-f"), `Deleted Volumes:\n`+m.Name+`\n\nTotal reclaimed space: 44B`)
	c.must(h, "create", "--name", "box", "-v", "/more", "-v", "named:/n", "wants")
	if got := mountsOf(t, c, h, "box"); len(got) != 3 {
		t.Errorf("mounts: %+v", got)
	}
	c.must(h, "rm", "-f", "-v", "box")
	if got := c.must(h, "volume", "ls", "-q"); got != "named\n" {
		t.Errorf("after rm -v: %q", got)
	}
	// A tmpfs or a bind of the user's at the place leaves nothing to make.
	c.must(h, "run", "--rm", "--tmpfs", "/data", "wants", "test", "!", "-e", "/data/secret")
	c.must(h, "run", "--rm", "-v", "/tmp:/data", "wants", "test", "!", "-e", "/data/secret")
	c.must(h, "volume", "rm", "named")
	if got := len(strings.TrimSpace(c.must(h, "volume", "create"))); got != 64 {
		t.Errorf("a volume without a name has one of %d characters", got)
	}
	c.must(h, "volume", "prune", "-f")
	noVolumes(t, h)
}

func volumesFrom(t *testing.T, c cli, h *lab.Host) {
	c.must(h, "run", "-d", "--name", "first", "-v", "named:/n:ro", "wants", "sleep", "600")
	c.must(h, "exec", "first", "touch", "/data/written")
	c.must(h, "run", "-d", "--name", "second", "--volumes-from", "first", "busybox", "sleep", "600")
	c.must(h, "exec", "second", "test", "-e", "/data/written")
	refused(t, c, h, 1, `Read-only`, "exec", "second", "touch", "/n/x")
	refused(t, c, h, 1, `Read-only`, "run", "--rm", "--volumes-from", "first:ro", "busybox", "touch", "/data/x")
	// What is asked for as well counts more.
	if got := mountsOf(t, c, h, strings.TrimSpace(c.must(h, "create", "--name", "third", "--volumes-from", "second", "-v", "other:/data", "busybox"))); got["/data"].Name != "other" || len(got) != 2 {
		t.Errorf("over what is inherited: %+v", got)
	}
	c.must(h, "rm", "-v", "third")
	c.must(h, "rm", "-f", "-v", "first")
	c.must(h, "exec", "second", "test", "-e", "/data/written") // the volume goes with the last one
	c.must(h, "rm", "-f", "-v", "second")
	if got := c.must(h, "volume", "ls", "-q"); got != "named\nother\n" {
		t.Errorf("after the last: %q", got)
	}
	refused(t, c, h, 125, `No such container: nope`, "run", "--rm", "--volumes-from", "nope", "busybox", "true")
	refused(t, c, h, 125, `invalid mode for volumes-from: rx`, "run", "--rm", "--volumes-from", "box:rx", "busybox", "true")
	c.must(h, "volume", "rm", "named", "other")
	noVolumes(t, h)
}

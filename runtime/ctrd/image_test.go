package ctrd

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	rules "github.com/minictl/minictl/runtime/image"
	"github.com/minictl/minictl/testing/images/bake"
	"github.com/minictl/minictl/testing/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// lines writes progress down, one line per call as the docker CLI prints it without a terminal.
type lines []string

func (l *lines) Status(status, id string, _, _ int64) {
	if id != "" {
		status = id + ": " + status
	}
	*l = append(*l, status)
}
func (l *lines) Stream(text string) { *l = append(*l, strings.TrimRight(text, "\n")) }

// tiny is an image whose layers hold one file each.
func tiny(t testing.TB, arch string, names []string, bodies ...string) bake.Image {
	t.Helper()
	img := bake.Image{Names: names, Arch: arch, Config: ocispec.ImageConfig{Cmd: []string{"cmd"}, Labels: map[string]string{"a": "b"}}}
	for _, b := range bodies {
		l, err := bake.Layer([]bake.File{{Path: "f-" + b, Mode: 0o644, Body: []byte(b)}})
		if err != nil {
			t.Fatal(err)
		}
		img.Layers = append(img.Layers, l)
	}
	return img
}

func saved(t testing.TB, images ...bake.Image) *bytes.Buffer {
	t.Helper()
	b := new(bytes.Buffer)
	if err := bake.Save(b, images...); err != nil {
		t.Fatal(err)
	}
	return b
}

func blobs(t testing.TB, img bake.Image) bake.Blobs {
	t.Helper()
	b, err := img.Blobs()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func imageID(t testing.TB, img bake.Image) string {
	t.Helper()
	id, err := img.ID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// shown is the listing as "tags digests" by short ID.
func shown(t testing.TB, r *Runtime) map[string]string {
	t.Helper()
	all, err := r.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, i := range all {
		out[i.ID] = strings.Join(i.RepoTags, " ")
	}
	return out
}

// stored counts what lies on disk: blobs and layers.
func stored(t testing.TB, r *Runtime) (blobs, layers int) {
	t.Helper()
	ctx := r.ctx(t.Context())
	err := errors.Join(
		r.client.ContentStore().Walk(ctx, func(content.Info) error { blobs++; return nil }),
		r.client.SnapshotService(r.snapshotter).Walk(ctx, func(context.Context, snapshots.Info) error { layers++; return nil }))
	if err != nil {
		t.Fatal(err)
	}
	return blobs, layers
}

func nobody(string) []rules.User { return nil }

func TestLoadArchives(t *testing.T) {
	r := newHost(t).start(t)
	a, b := tiny(t, runtime.GOARCH, []string{"a:1", "b.example/x/a:2"}, "one", "two"), tiny(t, runtime.GOARCH, nil, "three")
	var z bytes.Buffer
	zw := gzip.NewWriter(&z)
	zw.Write(saved(t, a, b).Bytes())
	zw.Close()
	var out lines
	loaded, err := r.Load(t.Context(), &z, "", &out)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(loaded)
	if want := []string{"a:1", "b.example/x/a:2", imageID(t, b)}; !slices.Equal(loaded, want) {
		t.Errorf("loaded %v, want %v", loaded, want)
	}
	for _, want := range []string{"Loaded image: a:1", "Loaded image: b.example/x/a:2", "Loaded image ID: " + imageID(t, b)} {
		if !slices.Contains(out, want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
	want := map[string]string{imageID(t, a): "a:1 b.example/x/a:2", imageID(t, b): ""}
	if got := shown(t, r); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("listing %v, want %v", got, want)
	}
	img, err := r.Image(t.Context(), rules.ShortID(imageID(t, a)))
	if err != nil || img.Size == 0 || img.Labels["a"] != "b" || img.Config.Config.Cmd[0] != "cmd" || !img.Created.Equal(bake.Epoch()) {
		t.Errorf("image %+v, %v", img, err)
	}

	// The same image as an OCI layout takes the name over; the displaced one stays.
	c := tiny(t, runtime.GOARCH, nil, "four")
	var layout bytes.Buffer
	if err := bake.Layout(&layout, "docker.io/library/a:1", blobs(t, c)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Load(t.Context(), &layout, "", &out); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Load(t.Context(), saved(t, tiny(t, runtime.GOARCH, []string{"b.example/x/a:2"}, "five")), "", &out); err != nil {
		t.Fatal(err)
	}
	got := shown(t, r)
	if names, ok := got[imageID(t, a)]; !ok || names != "" || got[imageID(t, c)] != "a:1" {
		t.Errorf("after the name moved: %v", got)
	}
	if want := "The image b.example/x/a:2 already exists, renaming the old one with ID " + imageID(t, a) + " to empty string"; !slices.Contains(out, want) {
		t.Errorf("no %q in %q", want, out)
	}
}

// The size that a hostile archive gives a manifest is not taken as memory.
func TestReadJSONIsBounded(t *testing.T) {
	var v any
	err := readJSON(t.Context(), nil, ocispec.Descriptor{Size: 1 << 40}, &v)
	if !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
}

func TestLoadRefuses(t *testing.T) {
	r := newHost(t).start(t)
	for name, tc := range map[string]func(*tar.Writer){
		"leads out of the archive": func(w *tar.Writer) { w.WriteHeader(&tar.Header{Name: "../etc/passwd"}) },
		"link \"x\" to": func(w *tar.Writer) {
			w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "/etc"})
		},
		"neither file":       func(w *tar.Writer) { w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeChar}) },
		"unrecognized image": func(w *tar.Writer) { w.WriteHeader(&tar.Header{Name: "x"}) },
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		tc(w)
		w.Close()
		_, err := r.Load(t.Context(), &b, "", new(lines))
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, junk := range []string{"", "junk", strings.Repeat("x", 2000)} {
		if _, err := r.Load(t.Context(), strings.NewReader(junk), "", new(lines)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("junk of %d bytes: %v", len(junk), err)
		}
	}
}

func TestTagAndRemove(t *testing.T) {
	r := newHost(t).start(t)
	ctx := t.Context()
	img := tiny(t, runtime.GOARCH, []string{"a:1"}, "one")
	id := imageID(t, img)
	load := func() {
		t.Helper()
		if _, err := r.Load(ctx, saved(t, img), "", new(lines)); err != nil {
			t.Fatal(err)
		}
	}
	load()
	if err := r.Tag(ctx, "a:1", "b"); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Image(ctx, "b"); err != nil || time.Since(got.Tagged) > time.Hour {
		t.Errorf("tagged at %v, %v", got.Tagged, err)
	}
	if err := r.Tag(ctx, "nix", "b"); err == nil || err.Error() != "No such image: nix:latest" || !errdefs.IsNotFound(err) {
		t.Errorf("tag of nothing: %v", err)
	}
	if _, err := r.RemoveImage(ctx, id, false, nobody); !errdefs.IsConflict(err) {
		t.Errorf("remove by ID with two names: %v", err)
	}
	got, err := r.RemoveImage(ctx, "a:1", false, nobody)
	if err != nil || fmt.Sprint(got) != "[{a:1 }]" {
		t.Errorf("untag: %v, %v", got, err)
	}
	user := func(string) []rules.User { return []rules.User{{ID: "0123456789abcdef"}} }
	if _, err = r.RemoveImage(ctx, "b", false, user); err == nil || err.Error() != `conflict: unable to remove repository reference "b" (must force) - container 0123456789ab is using its referenced image `+rules.ShortID(id) {
		t.Errorf("in use: %v", err)
	}
	if got, err = r.RemoveImage(ctx, "b", true, user); err != nil || fmt.Sprint(got) != "[{b:latest }]" {
		t.Errorf("forced while in use: %v, %v", got, err)
	}
	if l := shown(t, r); len(l) != 1 || l[id] != "" {
		t.Errorf("the image in use does not stay: %v", l)
	}
	if got, err = r.RemoveImage(ctx, rules.ShortID(id), false, nobody); err != nil || fmt.Sprint(got) != "[{ "+id+"}]" {
		t.Errorf("remove dangling: %v, %v", got, err)
	}
	if b, l := stored(t, r); b != 0 || l != 0 {
		t.Errorf("%d blobs and %d layers stay after the last removal", b, l)
	}
	// Removing one image collects garbage: the layers of another are none, though no container holds them.
	load()
	if _, err := r.Load(ctx, saved(t, tiny(t, runtime.GOARCH, []string{"other:1"}, "two")), "", new(lines)); err != nil {
		t.Fatal(err)
	}
	if _, err = r.RemoveImage(ctx, "other:1", false, nobody); err != nil {
		t.Fatal(err)
	}
	if b, l := stored(t, r); b != 3 || l != 1 {
		t.Errorf("%d blobs and %d layers of the image that stays, want 3 and 1", b, l)
	}
}

func TestImport(t *testing.T) {
	r := newHost(t).start(t)
	layer := tiny(t, "", nil, "one").Layers[0]
	id, err := r.Import(t.Context(), bytes.NewReader(layer), "root:1", []string{`CMD ["/f"]`, "ENV A=1"}, "from a test", "", new(lines))
	if err != nil {
		t.Fatal(err)
	}
	img, err := r.Image(t.Context(), "root:1")
	if err != nil || img.ID != id || fmt.Sprint(img.Config.Config.Cmd, img.Config.Config.Env) != "[/f] [A=1]" || img.Config.History[0].Comment != "from a test" {
		t.Errorf("%+v, %v", img, err)
	}
	if _, err := r.Import(t.Context(), strings.NewReader("junk"), "", nil, "", "", new(lines)); !errdefs.IsInvalidArgument(err) {
		t.Errorf("junk: %v", err)
	}
	if _, err := r.Import(t.Context(), bytes.NewReader(layer), "", []string{"RUN x"}, "", "", new(lines)); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad change: %v", err)
	}
}

func TestPull(t *testing.T) {
	r := newHost(t).start(t)
	ctx := t.Context()
	reg := registry.Start(t, t.TempDir(), registry.Options{})
	img, newer := tiny(t, runtime.GOARCH, nil, "base", "one"), tiny(t, runtime.GOARCH, nil, "base", "two")
	other := "arm64"
	if runtime.GOARCH == other {
		other = "amd64"
	}
	foreign := tiny(t, other, nil, "foreign")
	idx, err := bake.Index(foreign, img)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(reg.Push(ctx, "team/app", "1", idx), reg.Push(ctx, "team/app", "2", blobs(t, newer)), reg.Push(ctx, "team/foreign", "latest", blobs(t, foreign)))
	if err != nil {
		t.Fatal(err)
	}
	name := reg.Addr + "/team/app"
	pull := func(ref, platform string) (lines, error) {
		var out lines
		err := r.Pull(ctx, ref, platform, nil, &out)
		return out, err
	}
	out, err := pull(name+":1", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1: Pulling from team/app", "Digest: " + idx.Manifest.Digest.String(), "Status: Downloaded newer image for " + name + ":1"} {
		if !slices.Contains(out, want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
	for _, word := range []string{"Pulling fs layer", "Downloading", "Download complete", "Extracting", "Pull complete"} {
		if n := len(slices.Collect(matching(out, ": "+word))); n != 2 {
			t.Errorf("%d layers say %q, want 2: %q", n, word, out)
		}
	}
	got, err := r.Image(ctx, name+":1")
	if err != nil || got.ID != imageID(t, img) || fmt.Sprint(got.RepoDigests) != "["+name+"@"+idx.Manifest.Digest.String()+"]" {
		t.Errorf("pulled %+v, %v", got, err)
	}
	if out, err = pull(name+":1", ""); err != nil || !slices.Contains(out, "Status: Image is up to date for "+name+":1") {
		t.Errorf("again: %q, %v", out, err)
	}
	if out, err = pull(name+":2", ""); err != nil || len(slices.Collect(matching(out, ": Already exists"))) != 1 {
		t.Errorf("a shared layer: %q, %v", out, err)
	}
	byDigest := name + "@" + blobs(t, newer).Manifest.Digest.String()
	if _, err = pull(byDigest, ""); err != nil {
		t.Error(err)
	}
	if got, err := r.Image(ctx, byDigest); err != nil || got.ID != imageID(t, newer) {
		t.Errorf("by digest: %v, %v", got.ID, err)
	}
	if _, err = pull(name+":1", "linux/"+other); err != nil {
		t.Errorf("other platform: %v", err)
	} else if got, _ := r.Image(ctx, name+":1"); got.ID != imageID(t, foreign) {
		t.Errorf("other platform: %v", got.ID)
	}

	for _, c := range []struct{ ref, platform, want string }{
		{name + ":9", "", "manifest for " + name + ":9 not found: manifest unknown: manifest unknown"},
		{name + ":1", "linux/s390x", "no matching manifest for linux/s390x in the manifest list entries"},
		{reg.Addr + "/team/foreign", "", "does not match the specified platform"},
		{"127.0.0.1:1/x", "", "connection refused"},
		{"Bad:Name", "", "invalid reference format"},
	} {
		if _, err := pull(c.ref, c.platform); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("pull %s %s: %v, want %q", c.ref, c.platform, err, c.want)
		}
	}
}

// matching gives the lines that hold a text, each once.
func matching(l lines, text string) func(func(string) bool) {
	seen := map[string]bool{}
	return func(yield func(string) bool) {
		for _, s := range l {
			if strings.HasSuffix(s, text) && !seen[s] {
				seen[s] = true
				if !yield(s) {
					return
				}
			}
		}
	}
}

func TestPullWithCredentials(t *testing.T) {
	r := newHost(t).start(t)
	img := blobs(t, tiny(t, runtime.GOARCH, nil, "one"))
	locked := registry.Start(t, t.TempDir(), registry.Options{TLS: true, User: "u", Password: "p"})
	open := registry.Start(t, t.TempDir(), registry.Options{})
	if err := errors.Join(locked.Push(t.Context(), "app", "latest", img), open.Push(t.Context(), "app", "latest", img)); err != nil {
		t.Fatal(err)
	}
	var gate *httptest.Server
	gate = httptest.NewServer(open.TokenGate(func() string { return strings.TrimPrefix(gate.URL, "http://") }, "u", "p"))
	t.Cleanup(gate.Close)
	for kind, addr := range map[string]string{"basic over TLS": locked.Addr, "token": strings.TrimPrefix(gate.URL, "http://")} {
		pull := func(a *rules.Auth) error { return r.Pull(t.Context(), addr+"/app", "", a, new(lines)) }
		denied := "pull access denied for " + addr + "/app, repository does not exist or may require 'docker login'"
		if err := pull(nil); err == nil || !strings.Contains(err.Error(), denied) && !strings.Contains(err.Error(), "no basic auth credentials") {
			t.Errorf("%s, no credentials: %v", kind, err)
		}
		if err := pull(&rules.Auth{Username: "u", Password: "wrong"}); err == nil || !strings.Contains(err.Error(), denied) {
			t.Errorf("%s, wrong credentials: %v", kind, err)
		}
		if err := pull(&rules.Auth{Username: "u", Password: "p"}); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestAuthorities(t *testing.T) {
	dir := t.TempDir()
	if pool, err := authorities([]string{dir}, "h:1"); pool != nil || err != nil {
		t.Errorf("nothing laid down: %v, %v", pool, err)
	}
	reg, err := registry.Prepare(t.Context(), t.TempDir(), registry.Options{TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	os.Mkdir(filepath.Join(dir, "h:1"), 0o755)
	file := filepath.Join(dir, "h:1", "ca.crt")
	os.WriteFile(file, reg.CA, 0o644)
	if pool, err := authorities([]string{dir}, "h:1"); pool == nil || err != nil {
		t.Errorf("one laid down: %v, %v", pool, err)
	}
	os.WriteFile(file, []byte("junk"), 0o644)
	if _, err := authorities([]string{dir}, "h:1"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("junk: %v", err)
	}
}

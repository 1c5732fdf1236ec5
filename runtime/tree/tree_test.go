package tree

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// world is a root with a secret beside it.
type world struct {
	t      testing.TB
	root   *Root
	dir    string // the root's
	secret string // must stay as it is
}

func newWorld(t testing.TB) *world {
	t.Helper()
	top := t.TempDir()
	w := &world{t: t, dir: filepath.Join(top, "root"), secret: filepath.Join(top, "secret")}
	if err := errors.Join(os.MkdirAll(filepath.Join(w.dir, "dir/sub"), 0o755), os.WriteFile(w.secret, []byte("secret"), 0o600),
		os.WriteFile(filepath.Join(w.dir, "dir/file"), []byte("hello"), 0o640), os.WriteFile(filepath.Join(w.dir, "secret"), []byte("inner"), 0o600)); err != nil {
		t.Fatal(err)
	}
	r, err := Open(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	w.root = r
	return w
}

func (w *world) link(target, name string) {
	w.t.Helper()
	if err := os.Symlink(target, filepath.Join(w.dir, name)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) unharmed() {
	w.t.Helper()
	b, err := os.ReadFile(w.secret)
	if err != nil || string(b) != "secret" {
		w.t.Fatalf("the file outside is %q, %v", b, err)
	}
	entries, err := os.ReadDir(filepath.Dir(w.dir))
	if err != nil || len(entries) != 2 {
		w.t.Fatalf("outside there is now %v, %v", entries, err)
	}
}

// packed gives the entries of an archive as "name type link content".
func packed(t testing.TB, r *Root, p string, o PackOptions) []string {
	t.Helper()
	var b bytes.Buffer
	if err := r.Pack(t.Context(), &b, p, o); err != nil {
		t.Fatal(err)
	}
	var out []string
	tr := tar.NewReader(&b)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %c %s %s", h.Name, h.Typeflag, h.Linkname, content)))
	}
}

func archive(t testing.TB, headers ...tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, h := range headers {
		body := ""
		if h.Typeflag == tar.TypeReg {
			body = "new"
		}
		h.Size = int64(len(body))
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		h.Uid, h.Gid = os.Getuid(), os.Getgid()
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestStatAndPackStayInside(t *testing.T) {
	w := newWorld(t)
	w.link("../../../secret", "up")
	w.link("/secret", "abs")
	w.link("dir", "folder")
	w.link("loop", "loop")
	w.link("/proc/self/root/"+w.secret, "magic")
	for _, c := range []struct{ path, name, target, err string }{
		{"up", "up", "/secret", ""},
		{"abs", "abs", "/secret", ""},
		{"folder", "folder", "/dir", ""},
		{"folder/", "folder", "", ""},
		{"/folder/.", ".", "", ""},
		{"../../..", "..", "", ""},
		{"/", "/", "", ""},
		{"", "/", "", ""},
		{"dir/../../../secret", "secret", "", ""},
		{"dir/file/", "", "", "not a directory"},
		{"nope", "", "", "no such file"},
		{"loop/", "", "", "too many levels"},
		{"x\x00y", "", "", "invalid argument"},
	} {
		s, err := w.root.Stat(c.path)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: %v", c.path, err)
			}
			continue
		}
		if err != nil || s.Name != c.name && c.name != ".." || s.LinkTarget != c.target {
			t.Errorf("%q: %+v, %v", c.path, s, err)
		}
	}
	var b bytes.Buffer
	if err := w.root.Pack(t.Context(), &b, "magic/", PackOptions{}); err == nil {
		t.Error("a magic link was followed")
	}
	got := packed(t, w.root, "../secret", PackOptions{Name: "secret"})
	if !slices.Equal(got, []string{"secret 0  inner"}) {
		t.Errorf("the root's own file is meant: %q", got)
	}
}

func TestPackForms(t *testing.T) {
	w := newWorld(t)
	w.link("file", "dir/link")
	if err := errors.Join(os.Link(filepath.Join(w.dir, "dir/file"), filepath.Join(w.dir, "dir/twin")), syscall.Mkfifo(filepath.Join(w.dir, "dir/pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, name string
		want       []string
	}{
		{"dir", "dir", []string{"dir/ 5", "dir/file 0  hello", "dir/link 2 file", "dir/pipe 6", "dir/sub/ 5", "dir/twin 1 dir/file"}},
		{"dir/.", ".", []string{"./ 5", "./file 0  hello", "./link 2 file", "./pipe 6", "./sub/ 5", "./twin 1 ./file"}},
		{"/dir/", "", []string{"file 0  hello", "link 2 file", "pipe 6", "sub/ 5", "twin 1 file"}},
		{"dir/file", "file", []string{"file 0  hello"}},
	} {
		if got := packed(t, w.root, c.path, PackOptions{Name: c.name}); !slices.Equal(got, c.want) {
			t.Errorf("%s as %q:\n got %q\nwant %q", c.path, c.name, got, c.want)
		}
	}
	if got := packed(t, w.root, "/", PackOptions{Name: "/"}); got[0] != "/ 5" || got[1] != "/dir/ 5" {
		t.Errorf("the root: %q", got)
	}
}

// There and back again: everything that a file has arrives.
func TestRoundTrip(t *testing.T) {
	w := newWorld(t)
	old := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
	w.link("file", "dir/link")
	if err := errors.Join(os.Link(filepath.Join(w.dir, "dir/file"), filepath.Join(w.dir, "dir/twin")), os.Chmod(filepath.Join(w.dir, "dir/sub"), 0o1711),
		os.Chtimes(filepath.Join(w.dir, "dir/file"), old, old), os.Chtimes(filepath.Join(w.dir, "dir"), old, old)); err != nil {
		t.Fatal(err)
	}
	for _, zip := range []bool{false, true} {
		var b bytes.Buffer
		out := io.WriteCloser(nopCloser{&b})
		if zip {
			out = gzip.NewWriter(&b)
		}
		if err := errors.Join(w.root.Pack(t.Context(), out, "dir", PackOptions{Name: "dir"}), out.Close()); err != nil {
			t.Fatal(err)
		}
		other := newWorld(t)
		if err := other.root.Unpack(t.Context(), &b, "/", UnpackOptions{KeepKind: true}); err != nil {
			t.Fatal(err)
		}
		want, got := packed(t, w.root, "dir", PackOptions{Name: "d"}), packed(t, other.root, "dir", PackOptions{Name: "d"})
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		for _, p := range []string{"dir", "dir/file", "dir/sub", "dir/link"} {
			a, err1 := w.root.Stat(p)
			b, err2 := other.root.Stat(p)
			if err := errors.Join(err1, err2); err != nil || a.Mode != b.Mode || !a.Mtime.Equal(b.Mtime) || a.Size != b.Size && !a.Mode.IsDir() {
				t.Errorf("%s: %+v became %+v, %v", p, a, b, err)
			}
		}
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// TestUnpackStaysInside lays hostile archives down on hostile trees.
func TestUnpackStaysInside(t *testing.T) {
	for _, c := range []struct {
		name, into string
		entries    []tar.Header
		refused    bool
	}{
		{"dot dot", "dir", []tar.Header{{Name: "../../secret", Typeflag: tar.TypeReg}}, true},
		{"hidden dot dot", "dir", []tar.Header{{Name: "a/../../x", Typeflag: tar.TypeReg}}, true},
		{"absolute", "dir", []tar.Header{{Name: "/../secret", Typeflag: tar.TypeReg}}, true},
		{"through a link of the archive", "dir", []tar.Header{{Name: "l", Linkname: "../..", Typeflag: tar.TypeSymlink}, {Name: "l/secret", Typeflag: tar.TypeReg}}, false},
		{"through an absolute link", "dir", []tar.Header{{Name: "l", Linkname: "@outside", Typeflag: tar.TypeSymlink}, {Name: "l/secret", Typeflag: tar.TypeReg}}, true},
		{"onto a link", "dir", []tar.Header{{Name: "l", Linkname: "@secret", Typeflag: tar.TypeSymlink}, {Name: "l", Typeflag: tar.TypeReg}}, false},
		{"hard link out", "dir", []tar.Header{{Name: "h", Linkname: "../../secret", Typeflag: tar.TypeLink}}, true},
		{"hard link to a link, then written", "dir", []tar.Header{{Name: "l", Linkname: "@secret", Typeflag: tar.TypeSymlink}, {Name: "h", Linkname: "l", Typeflag: tar.TypeLink}, {Name: "h", Typeflag: tar.TypeReg}}, false},
		{"hard link through a link", "dir", []tar.Header{{Name: "l", Linkname: "../../..", Typeflag: tar.TypeSymlink}, {Name: "h", Linkname: "l/secret", Typeflag: tar.TypeLink}}, false},
		{"into a link that leads out", "out", []tar.Header{{Name: "secret", Typeflag: tar.TypeReg}}, true},
		{"folder at a link", "dir", []tar.Header{{Name: "l", Linkname: "@outside", Typeflag: tar.TypeSymlink}, {Name: "l", Typeflag: tar.TypeDir, Mode: 0o777}, {Name: "l/secret", Typeflag: tar.TypeReg}}, false},
		{"unknown type", "dir", []tar.Header{{Name: "x", Typeflag: 'Z'}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.link(filepath.Dir(w.secret), "out") // absolute, so inside it leads to nothing
			for i := range c.entries {
				c.entries[i].Linkname = strings.NewReplacer("@secret", w.secret, "@outside", filepath.Dir(w.secret)).Replace(c.entries[i].Linkname)
			}
			err := w.root.Unpack(t.Context(), archive(t, c.entries...), c.into, UnpackOptions{})
			if (err != nil) != c.refused {
				t.Errorf("err %v, refused %v", err, c.refused)
			}
			w.unharmed()
		})
	}
}

func TestUnpackReplaces(t *testing.T) {
	w := newWorld(t)
	into := func(p string, o UnpackOptions, h ...tar.Header) error {
		return w.root.Unpack(t.Context(), archive(t, h...), p, o)
	}
	if err := into("dir", UnpackOptions{KeepKind: true}, tar.Header{Name: "sub", Typeflag: tar.TypeReg}); err == nil || !strings.Contains(err.Error(), `cannot overwrite directory "/dir/sub" with non-directory`) {
		t.Errorf("file over folder: %v", err)
	}
	if err := into("dir", UnpackOptions{KeepKind: true}, tar.Header{Name: "file", Typeflag: tar.TypeDir}); err == nil || !strings.Contains(err.Error(), `cannot overwrite non-directory "/dir/file" with directory`) {
		t.Errorf("folder over file: %v", err)
	}
	if err := into("dir/file", UnpackOptions{}, tar.Header{Name: "x", Typeflag: tar.TypeReg}); !errors.Is(err, ErrNotDirectory) {
		t.Errorf("into a file: %v", err)
	}
	if err := into("nope", UnpackOptions{}, tar.Header{Name: "x", Typeflag: tar.TypeReg}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("into nothing: %v", err)
	}
	if err := into("dir", UnpackOptions{Owner: &Owner{1234, 4321}}, tar.Header{Name: "sub/deep", Typeflag: tar.TypeReg}, tar.Header{Name: "sub", Typeflag: tar.TypeReg, Mode: 0o4755}, tar.Header{Name: "a/b/c", Typeflag: tar.TypeReg}); os.Getuid() == 0 && err != nil {
		t.Errorf("replace: %v", err)
	}
	if os.Getuid() == 0 {
		st, err := os.Lstat(filepath.Join(w.dir, "dir/sub"))
		if err != nil || st.Mode() != 0o755|fs.ModeSetuid || st.Sys().(*syscall.Stat_t).Uid != 1234 || st.Sys().(*syscall.Stat_t).Gid != 4321 {
			t.Errorf("owner and mode: %v, %v", st, err)
		}
		if b, err := os.ReadFile(filepath.Join(w.dir, "dir/a/b/c")); err != nil || string(b) != "new" {
			t.Errorf("folders that are not listed: %q, %v", b, err)
		}
	}
	if err := w.root.Unpack(t.Context(), strings.NewReader(strings.Repeat("junk", 300)), "dir", UnpackOptions{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("junk: %v", err)
	}
	cut := archive(t, tar.Header{Name: "cut", Typeflag: tar.TypeReg}).Bytes()[:514]
	if err := w.root.Unpack(t.Context(), bytes.NewReader(cut), "dir", UnpackOptions{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("cut short: %v", err)
	}
}

// A file that something is mounted on is written to: unlinking it would take the mount away from the container.
func TestUnpackOntoMountPoint(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	w := newWorld(t)
	source, target := filepath.Join(w.dir, "source"), filepath.Join(w.dir, "dir/file")
	if err := os.WriteFile(source, []byte("mounted"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(source, target, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(target, syscall.MNT_DETACH) })
	if err := w.root.Unpack(t.Context(), archive(t, tar.Header{Name: "file", Typeflag: tar.TypeReg}), "dir", UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(source); err != nil || string(b) != "new" {
		t.Errorf("the mounted file is %q, %v", b, err)
	}
	if err := w.root.Unpack(t.Context(), archive(t, tar.Header{Name: "dir", Typeflag: tar.TypeSymlink, Linkname: "x"}), "/", UnpackOptions{}); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("a folder with a mount below it was removed: %v", err)
	}
	if got := packed(t, w.root, "dir", PackOptions{Name: "dir"}); !slices.Contains(got, "dir/file 0  new") {
		t.Errorf("archive without the mount: %q", got)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"": "/", "/": "/", ".": "/.", "/.": "/.", "a": "/a", "a/": "/a/", "/a/.": "/a/.", "a/../..": "/", "../x/./y//": "/x/y/", "..": "/", "/a/b/..": "/a",
	} {
		if got := Clean(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestRename(t *testing.T) {
	for _, c := range []struct{ name, from, to, want string }{
		{"src/", "src", "dst", "dst/"},
		{"src/a/b", "src", "dst", "dst/a/b"},
		{"srcs/a", "src", "dst", "srcs/a"},
		{"./", ".", "dst", "dst/"},
		{"./a", ".", "dst", "dst/a"},
		{"/a/", "/", "dst", "dst/a/"},
		{"../a", "src", "dst", "../a"},
	} {
		if got := renamed(c.name, c.from, c.to); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	in := archive(t, tar.Header{Name: "src/a", Typeflag: tar.TypeReg}, tar.Header{Name: "src/b", Linkname: "src/a", Typeflag: tar.TypeLink})
	w := newWorld(t)
	r := Rename(in, "src", "dst")
	defer r.Close()
	if err := w.root.Unpack(t.Context(), r, "/", UnpackOptions{NoChown: true}); err != nil {
		t.Fatal(err)
	}
	if got := packed(t, w.root, "dst", PackOptions{Name: "dst"}); !slices.Equal(got, []string{"dst/ 5", "dst/a 0  new", "dst/b 1 dst/a"}) {
		t.Errorf("got %q", got)
	}
}

func TestMountpoint(t *testing.T) {
	w := newWorld(t)
	w.link("../../..", "up")
	for p, folder := range map[string]bool{"/a/b/c": true, "/a/file": false, "up/x/y": true, "/dir/file": false} {
		f, err := w.root.Mountpoint(p, folder)
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		st, err := f.Stat()
		if err != nil || st.IsDir() != folder {
			t.Errorf("%s: %v, %v", p, st, err)
		}
		f.Close()
	}
	w.unharmed()
}

// What is stopped halfway leaves no half a file.
func TestStoppedHalfway(t *testing.T) {
	dir := t.TempDir()
	root, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "large", Mode: 0o600, Size: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	in := io.MultiReader(&b, readerFunc(func(p []byte) (int, error) {
		if st, err := os.Stat(filepath.Join(dir, "large")); err == nil && st.Size() > 1<<20 {
			cancel()
		}
		clear(p)
		return len(p), nil
	}))
	if err := root.Unpack(ctx, in, "/", UnpackOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

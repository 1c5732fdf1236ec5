package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root")
	}
	t.Skip("needs root")
}

func TestCheckName(t *testing.T) {
	for _, ok := range []string{"ab", "a1", "0a", "a.b-c_d", strings.Repeat("a", 255)} {
		if err := CheckName(ok); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for _, bad := range []string{"", "a", ".", "..", "-a", "_a", "a/b", "a b", "a\n", "é1", "../../etc", "a:b", strings.Repeat("a", 256), strings.Repeat("/", 1<<20)} {
		err := CheckName(bad)
		if !errdefs.IsInvalidArgument(err) || len(err.Error()) > 1000 {
			t.Errorf("%.20q: %.200v", bad, err)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, tt := range []struct {
		options map[string]string
		want    string // the mount, or the error's text
	}{
		{nil, "<nil>"},
		{map[string]string{"type": "tmpfs", "device": "tmpfs"}, `&{tmpfs tmpfs  0}`},
		{map[string]string{"type": "tmpfs", "device": "x", "o": "size=1m,,noexec,nosuid,suid,uid=1000,ro"}, fmt.Sprintf(`&{x tmpfs size=1m,uid=1000 %d}`, unix.MS_NOEXEC|unix.MS_RDONLY)},
		{map[string]string{"type": "none", "device": "/srv", "o": "bind,ro"}, fmt.Sprintf(`&{/srv none  %d}`, unix.MS_BIND|unix.MS_RDONLY)},
		{map[string]string{"type": "", "device": "/srv", "o": "rbind"}, fmt.Sprintf(`&{/srv none  %d}`, unix.MS_BIND|unix.MS_REC)},
		{map[string]string{"type": "none", "device": "srv", "o": "bind"}, `"srv" is not an absolute path: invalid argument`},
		{map[string]string{"type": "none", "device": "/srv", "o": "bind,uid=1"}, `a bind takes no "uid=1": invalid argument`},
		{map[string]string{"type": "none", "device": "/srv"}, `needs o=bind: invalid argument`},
		{map[string]string{"type": "tmpfs"}, `missing required option: "device": invalid argument`},
		{map[string]string{"device": "/srv"}, `missing required option: "type": invalid argument`},
		{map[string]string{"o": "bind"}, `missing required option: "type": invalid argument`},
		{map[string]string{"colour": "red", "type": "tmpfs"}, `invalid option: "colour": invalid argument`},
		{map[string]string{"type": "nfs", "device": ":/x", "o": "addr=1.2.3.4"}, `does not support volumes of type nfs yet`},
		{map[string]string{"size": "1g"}, `does not support the volume option size yet`},
	} {
		w, err := parse(tt.options)
		got := fmt.Sprint(w)
		if err != nil {
			got = err.Error()
		}
		if err == nil && got != tt.want || err != nil && !strings.Contains(got, tt.want) {
			t.Errorf("%v: %s, want %s", tt.options, got, tt.want)
		}
	}
}

// A fuzzed o never becomes a mount that the driver does not want.
func FuzzOptions(f *testing.F) {
	f.Add("tmpfs", "tmpfs", "size=1m,noexec")
	f.Add("none", "/srv", "rbind,ro")
	f.Fuzz(func(t *testing.T, kind, device, o string) {
		w, err := parse(map[string]string{"type": kind, "device": device, "o": o})
		if err != nil {
			return
		}
		if bind := w.flags&unix.MS_BIND != 0; bind && (w.data != "" || !strings.HasPrefix(w.source, "/")) || !bind && w.kind != "tmpfs" {
			t.Errorf("%q %q %q: %+v", kind, device, o, w)
		}
	})
}

func TestLife(t *testing.T) {
	needRoot(t)
	l := NewLocal(filepath.Join(t.TempDir(), "volumes"))
	for i, want := range []bool{true, false} {
		if made, err := l.Ensure("data"); err != nil || made != want {
			t.Errorf("call %d: %v, %v", i+1, made, err)
		}
	}
	if empty, err := l.Empty("data"); err != nil || !empty {
		t.Error(empty, err)
	}
	at := l.Path("data")
	write(t, filepath.Join(at, "a"), "0123456789")
	if err := errors.Join(os.Link(filepath.Join(at, "a"), filepath.Join(at, "b")), os.Mkdir(filepath.Join(at, "d"), 0), os.Symlink("12345", filepath.Join(at, "l"))); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(at, "d/x"), "123")
	if n, err := l.Usage("data"); err != nil || n != 18 {
		t.Errorf("usage %d, %v", n, err)
	}
	if empty, err := l.Empty("data"); err != nil || empty {
		t.Error(empty, err)
	}
	v := &Volume{Name: "data"}
	for range 2 {
		if err := l.Remove(v); err != nil {
			t.Error(err)
		}
	}
	if left, _ := os.ReadDir(l.dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestMounts mounts, finds what is mounted already, unmounts, and removes nothing of what is mounted inside.
func TestMounts(t *testing.T) {
	needRoot(t)
	l := NewLocal(filepath.Join(t.TempDir(), "volumes"))
	host := t.TempDir()
	write(t, filepath.Join(host, "theirs"), "x")
	for _, v := range []*Volume{
		{Name: "mem", Options: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=64k"}},
		{Name: "bind", Options: map[string]string{"type": "none", "device": host, "o": "bind,ro"}},
	} {
		t.Run(v.Name, func(t *testing.T) {
			if _, err := l.Ensure(v.Name); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(l.Path(v.Name), unix.MNT_DETACH) })
			for range 2 {
				if err := l.Mount(v); err != nil {
					t.Fatal(err)
				}
			}
			if n := strings.Count(mounts(t), " "+l.Path(v.Name)+" "); n != 1 {
				t.Errorf("mounted %d times", n)
			}
			var st unix.Statfs_t
			if err := unix.Statfs(l.Path(v.Name), &st); err != nil || (st.Flags&unix.ST_RDONLY != 0) != (v.Name == "bind") {
				t.Errorf("flags 0x%x, %v", st.Flags, err)
			}
			for range 2 {
				if err := l.Unmount(v); err != nil {
					t.Error(err)
				}
			}
			if err := l.Mount(v); err != nil {
				t.Fatal(err)
			}
			if err := l.Remove(v); err != nil {
				t.Error(err)
			}
			if strings.Contains(mounts(t), l.dir) {
				t.Error("still mounted")
			}
		})
	}
	t.Run("somebody's mount inside", func(t *testing.T) {
		v := &Volume{Name: "data"}
		if _, err := l.Ensure(v.Name); err != nil {
			t.Fatal(err)
		}
		inside := filepath.Join(l.Path(v.Name), "in")
		if err := errors.Join(os.Mkdir(inside, 0o755), unix.Mount(host, inside, "", unix.MS_BIND, "")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(inside, unix.MNT_DETACH) })
		if err := l.Remove(v); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), inside) {
			t.Error(err)
		}
	})
	if b, err := os.ReadFile(filepath.Join(host, "theirs")); err != nil || string(b) != "x" {
		t.Errorf("the host's file: %q, %v", b, err)
	}
	bad := &Volume{Name: "bad", Options: map[string]string{"type": "none", "device": filepath.Join(host, "nope"), "o": "bind"}}
	if _, err := l.Ensure(bad.Name); err != nil {
		t.Fatal(err)
	}
	if err := l.Mount(bad); !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
}

func mounts(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tree makes a root with content of every kind.
const tree = `mkdir -p data/sub etc && cd data
echo -n body > file; chown 1001:1002 file; chmod 4751 file; ln file twin; ln file sub/twin
ln -s /etc/passwd abs; ln -s ../../../../../../etc rel; chown -h 1003:1003 abs
mkfifo pipe; chmod 622 pipe; mknod null c 1 3; chmod 666 null; chown 5:6 null
touch -d @1000000000 cap null rel; touch -h -d @1000000000 rel
chmod 2770 sub; chown 1000:1000 sub; touch -h -d @1000000000 file abs pipe sub
chmod 1711 .; chown 7:8 .; touch -d @1100000000 .
cd ..; ln -s /data/sub link; ln -s ../../../../../../../data/sub climb; echo root > etc/passwd`

// shape lists everything about a folder's content.
const shape = `find . -printf '%y %m %U:%G %n %T@ %s %p -> %l\n' | sort -k 7; stat -c '%t,%T' null; cmp file twin && stat -c %i file twin sub/twin | uniq | wc -l`

func sh(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return string(out)
}

// normal leaves out what a copy on another file system may not keep: the sizes of folders.
func normal(s string) string {
	var out []string
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) > 6 && f[0] == "d" {
			f[5] = "-"
		}
		out = append(out, strings.Join(f, " "))
	}
	return strings.Join(out, "\n")
}

func TestFill(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	sh(t, root, tree)
	capability := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // cap_net_bind_service+ep
	if err := unix.Setxattr(filepath.Join(root, "data/cap"), "security.capability", capability, 0); err != nil {
		t.Fatal(err)
	}
	l := NewLocal(filepath.Join(t.TempDir(), "volumes"))
	mem := &Volume{Name: "mem", Options: map[string]string{"type": "tmpfs", "device": "tmpfs"}}
	for _, v := range []*Volume{{Name: "plain"}, mem} {
		t.Run(v.Name, func(t *testing.T) {
			if _, err := l.Ensure(v.Name); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Unmount(v) })
			if err := errors.Join(l.Mount(v), l.Fill(t.Context(), v, root, "/data")); err != nil {
				t.Fatal(err)
			}
			want, got := normal(sh(t, filepath.Join(root, "data"), shape)), normal(sh(t, l.Path(v.Name), shape))
			if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			value := make([]byte, 64)
			if n, err := unix.Getxattr(filepath.Join(l.Path(v.Name), "cap"), "security.capability", value); err != nil || !bytes.Equal(value[:n], capability) {
				t.Errorf("capability %x, %v", value[:max(n, 0)], err)
			}
			if left, _ := filepath.Glob(filepath.Join(l.dir, v.Name, "*")); len(left) != 1 {
				t.Errorf("beside the content: %v", left)
			}
			write(t, filepath.Join(root, "data/later"), "x")
			if err := l.Fill(t.Context(), v, root, "/data"); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(filepath.Join(l.Path(v.Name), "later")); !os.IsNotExist(err) {
				t.Errorf("copied over content: %v", err)
			}
			if err := os.Remove(filepath.Join(root, "data/later")); err != nil {
				t.Fatal(err)
			}
			sh(t, root, "touch -d @1100000000 data")
		})
	}
}

// TestFillStaysInside leads the way to the content through links.
func TestFillStaysInside(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	sh(t, root, `mkdir -p data/sub; echo x > data/sub/inner; ln -s /data/sub abs; ln -s ../../../../../../../../data/sub climb; ln -s loop loop; ln -s /proc/self/root magic; touch file`)
	l := NewLocal(filepath.Join(t.TempDir(), "volumes"))
	for _, tt := range []struct{ target, want, err string }{
		{"/abs", "inner", ""}, {"/climb", "inner", ""}, {"/abs/../sub", "inner", ""}, {"/../../data/sub", "inner", ""},
		{"/nope", "", ""}, {"/magic", "", ""}, {"/loop", "", "too many levels"}, {"/file", "", "cannot mount volume over existing file, file exists /file"}, {"/file/x", "", "cannot mount"},
	} {
		v := &Volume{Name: "v" + strings.ReplaceAll(tt.target, "/", "_")}
		if _, err := l.Ensure(v.Name); err != nil {
			t.Fatal(err)
		}
		err := l.Fill(t.Context(), v, root, tt.target)
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v", tt.target, err)
		}
		if got := strings.TrimSpace(sh(t, l.Path(v.Name), "ls -A")); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.target, got, tt.want)
		}
	}
}

// tired is a context that ends after some questions.
type tired struct {
	context.Context
	left int
}

// Err counts the questions.
func (c *tired) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// TestFillCutOff leaves the volume empty, so that the next container fills it.
func TestFillCutOff(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	sh(t, root, "mkdir data; touch data/a data/b")
	l, v := NewLocal(filepath.Join(t.TempDir(), "volumes")), &Volume{Name: "data"}
	if _, err := l.Ensure(v.Name); err != nil {
		t.Fatal(err)
	}
	if err := l.Fill(&tired{t.Context(), 1}, v, root, "/data"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if left := sh(t, filepath.Join(l.dir, v.Name), "find . -mindepth 1"); left != "./_data\n" {
		t.Errorf("left: %s", left)
	}
	// What a daemon that died left behind is no content, and is tidied.
	sh(t, filepath.Join(l.dir, v.Name), "mkdir -p _fill/x")
	if err := errors.Join(l.Fill(t.Context(), v, root, "/data"), l.Tidy(v.Name)); err != nil {
		t.Error(err)
	}
	if got := sh(t, filepath.Join(l.dir, v.Name), "ls _data; ls -d _*"); got != "a\nb\n_data\n" {
		t.Errorf("after the second try: %s", got)
	}
}

package ctrd

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/runtime/tree"
)

// A container's process number that has gone to a process of the host must not open the host's root.
func TestProcessFilesAreTheContainers(t *testing.T) {
	id := strings.Repeat("ab", 32)
	for _, pid := range []int{os.Getpid(), 1, 0, -1, 1 << 30} {
		err := (&Runtime{}).ProcessFiles(id, pid, func(*tree.Root) error {
			t.Errorf("opened the root of process %d", pid)
			return nil
		})
		if err == nil {
			t.Errorf("process %d: no error", pid)
		}
	}
}

func TestUpperChanges(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	lower, upper := t.TempDir(), t.TempDir()
	write := func(dir string, paths ...string) {
		t.Helper()
		for _, p := range paths {
			full := filepath.Join(dir, p)
			if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(full, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(lower, "etc/passwd", "etc/group", "etc/conf.d/a", "var/log/x", "var/log/y", "home/u/z", "opt/kept", "tofile/x")
	write(upper, "etc/passwd", "etc/conf.d/b", "var/log/y", "srv/new/file", "home/u/z", "tofile")
	for _, w := range []string{"etc/group", "never"} {
		if err := unix.Mknod(filepath.Join(upper, w), unix.S_IFCHR, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Setxattr(filepath.Join(upper, "var/log"), "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		t.Skip("no trusted attributes here: ", err)
	}
	if err := os.Chmod(filepath.Join(upper, "home"), 0o700); err != nil {
		t.Fatal(err)
	}
	found := map[string]ChangeKind{}
	if err := upperChanges(t.Context(), lower, upper, func(p string, k ChangeKind) { found[p] = k }); err != nil {
		t.Fatal(err)
	}
	want := []Change{
		{"/etc", Changed}, {"/etc/conf.d", Changed}, {"/etc/conf.d/b", Added}, {"/etc/group", Deleted}, {"/etc/passwd", Changed},
		{"/home", Changed}, {"/home/u", Changed}, {"/home/u/z", Changed}, {"/srv", Added}, {"/srv/new", Added}, {"/srv/new/file", Added},
		{"/tofile", Changed}, {"/var", Changed}, {"/var/log", Changed}, {"/var/log/x", Deleted}, {"/var/log/y", Changed},
	}
	if got := withFolders(found); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func TestRegistryAddress(t *testing.T) {
	for in, want := range map[string]string{
		"": "docker.io", hub: "docker.io", "docker.io": "docker.io", "reg:5000": "reg:5000", "https://reg.example/v1/": "reg.example", "http://[::1]:5000": "[::1]:5000",
	} {
		if got := registryAddress(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

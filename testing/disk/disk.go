// Package disk gives tests file systems that fill up, and disks that lose what was written to them. It needs root.
package disk

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Small mounts a tmpfs with options such as "size=1m" or "nr_inodes=100" at dir, which is made.
func Small(t testing.TB, dir, options string) {
	t.Helper()
	needRoot(t)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("small", dir, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// Fill writes a file until there is no room left in dir, and gives the way to make room again.
func Fill(t testing.TB, dir string) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 16; size > 0; {
		if _, err = f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill %s: %v", dir, err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Error(err)
		}
	}
}

// Failing mounts a file system of the given size whose disk keeps nothing any more once fail was called: writes go to
// memory and succeed as before, and fsync is the one to fail. The disk is a file with holes on a tmpfs that is full.
func Failing(t testing.TB, dir, size string) (fail func()) {
	t.Helper()
	below := filepath.Join(t.TempDir(), "below")
	Small(t, below, "size="+size)
	image := filepath.Join(below, "image")
	for _, cmd := range [][]string{
		{"truncate", "-s", size, image},
		{"mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-E", "nodiscard", image},
		{"mkdir", "-p", dir},
		{"mount", "-o", "loop", image, dir},
	} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", cmd, err, out)
		}
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return func() { Fill(t, below) }
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root")
	}
	t.Skip("needs root")
}

package engine

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestUserFilesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "etc/passwd"), 0o644); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() { _, err := readUserFiles(dir); read <- err }()
	eventually(t, "a pipe is refused", func() bool { return len(read) == 1 })
	if err := <-read; !errdefs.IsInvalidArgument(err) {
		t.Errorf("err = %v", err)
	}
}

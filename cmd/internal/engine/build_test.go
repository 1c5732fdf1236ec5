package engine

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/cluster/store/memstore"
	"github.com/minictl/minictl/runtime/image"
	"github.com/minictl/minictl/runtime/room"
	"github.com/minictl/minictl/testing/disk"
)

// endless gives a page with each tick: what is written between two looks at the disk comes out of what stays free.
type endless struct {
	tick  <-chan time.Time
	given int
}

func (e *endless) Read(b []byte) (int, error) {
	<-e.tick
	n := min(len(b), 4096)
	clear(b[:n])
	e.given += n
	return n, nil
}

// TestBuildOfTooMuch: a context that does not fit leaves free what has to stay so, and then all it has taken.
func TestBuildOfTooMuch(t *testing.T) {
	e := newHost(t, memstore.New(), "a")
	e.cfg.Root = t.TempDir()
	disk.Failing(t, e.cfg.Root, "256m")
	free := func() uint64 {
		var st unix.Statfs_t
		if err := unix.Statfs(e.cfg.Root, &st); err != nil {
			t.Fatal(err)
		}
		return st.Bavail * uint64(st.Bsize)
	}
	const left = 6 << 20 // 1 MiB more than has to stay
	f, err := os.Create(filepath.Join(e.cfg.Root, "much"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, int64(free()-left)), f.Close()); err != nil {
		t.Fatal(err)
	}
	before := free()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	sent := &endless{tick: tick.C}
	if _, err := e.ImageBuild(t.Context(), image.Build{}, sent, nil); !errors.Is(err, room.ErrFull) {
		t.Errorf("build: %v", err)
	}
	if sent.given > left/2 {
		t.Errorf("%d bytes were taken where %d were free", sent.given, left)
	}
	if after := free(); after < before {
		t.Errorf("%d bytes are free, %d were before", after, before)
	}
}

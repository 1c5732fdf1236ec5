package room

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

const gib = 1 << 18 // blocks of 4 KiB

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		st   unix.Statfs_t
		want string
	}{
		"a large disk":            {unix.Statfs_t{Blocks: 1000 * gib, Bavail: gib, Files: 1e6, Ffree: 1e5}, ""},
		"a large disk, full":      {unix.Statfs_t{Blocks: 1000 * gib, Bavail: gib/4 - 1, Files: 1e6, Ffree: 1e5}, "256MiB are free, 256MiB have to stay so"},
		"a small disk":            {unix.Statfs_t{Blocks: gib, Bavail: gib/50 + 1}, ""},
		"a small disk, full":      {unix.Statfs_t{Blocks: gib, Bavail: gib/50 - 1}, "20.48MiB have to stay so"},
		"no more files":           {unix.Statfs_t{Blocks: gib, Bavail: gib, Files: 1e6, Ffree: 9999}, "9999 files more"},
		"memory, full":            {unix.Statfs_t{Type: unix.TMPFS_MAGIC, Blocks: gib}, ""},
		"no count of files, full": {unix.Statfs_t{Blocks: gib}, "0B are free"},
	} {
		c.st.Bsize = 4096
		switch err := check(c.st); {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (!errors.Is(err, ErrFull) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Uint64
		free.Store(gib)
		fs := func() (unix.Statfs_t, error) {
			return unix.Statfs_t{Bsize: 4096, Blocks: 1000 * gib, Bavail: free.Load()}, nil
		}
		write := func(ctx context.Context) error {
			for range 100 {
				free.Store(free.Load() - gib/1000)
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(time.Second):
				}
			}
			return nil
		}
		if err := Keep(t.Context(), fs, write); err != nil {
			t.Errorf("with room: %v", err)
		}
		free.Store(gib / 4)
		if err := Keep(t.Context(), fs, write); !errors.Is(err, ErrFull) {
			t.Errorf("without: %v", err)
		}
		// What was done in spite of it is done, and another failure is that failure.
		free.Store(gib)
		other := errors.New("other")
		if err := Keep(t.Context(), fs, func(context.Context) error { return other }); !errors.Is(err, other) {
			t.Error(err)
		}
		free.Store(0)
		if err := Keep(t.Context(), fs, func(ctx context.Context) error { <-ctx.Done(); return nil }); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		free.Store(gib)
		if err := Keep(ctx, fs, write); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		blind := func() (unix.Statfs_t, error) { return unix.Statfs_t{}, unix.EIO }
		if err := Keep(t.Context(), blind, write); err != nil {
			t.Errorf("cannot look: %v", err)
		}
	})
}

func TestFileSystems(t *testing.T) {
	for name, fs := range map[string]FileSystem{"at": At("/"), "of": Of(unix.AT_FDCWD)} {
		st, err := fs()
		if name == "of" { // no open file
			if err == nil {
				t.Error("a file system of nothing")
			}
			continue
		}
		if err != nil || st.Blocks == 0 {
			t.Errorf("%s: %+v, %v", name, st, err)
		}
	}
}

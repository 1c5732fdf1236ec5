// Package room keeps some of a file system free. An archive of a few kilobytes can unpack to terabytes, and what its
// headers say about that is the sender's word; so the file system itself is looked at while something is unpacked, and the
// unpacking stopped before the disk is full: that would stop everything else on the host.
package room

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"
)

// What stays free: a share of the file system, and no more than so many bytes and files.
const (
	share    = 50 // one 50th
	maxBytes = 256 << 20
	maxFiles = 10_000
)

// often is the time between two looks: what is written between them comes out of what stays free.
const often = 20 * time.Millisecond

// ErrFull is the refusal to fill a file system.
var ErrFull = errors.New("no space left on device but what is kept free")

// FileSystem tells how full a file system is.
type FileSystem func() (unix.Statfs_t, error)

// At is the file system of a path.
func At(path string) FileSystem {
	return func() (st unix.Statfs_t, err error) { return st, unix.Statfs(path, &st) }
}

// Of is the file system of an open file.
func Of(fd int) FileSystem {
	return func() (st unix.Statfs_t, err error) { return st, unix.Fstatfs(fd, &st) }
}

// Keep runs fn, which writes to the file system, with a context that ends when less than the reserve is left there; then
// the error is ErrFull and says how much that is. What fn has written until then is fn's to remove. A file system that
// cannot be looked at is written to without a bound.
func Keep(ctx context.Context, fs FileSystem, fn func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		watch(fs, cancel, ended)
	}()
	err := fn(ctx)
	close(ended)
	<-watched
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, ErrFull) {
		return cause
	}
	return err
}

// Copy is io.Copy to a file of the file system under Keep.
func Copy(ctx context.Context, fs FileSystem, to io.Writer, from io.Reader) (n int64, err error) {
	err = Keep(ctx, fs, func(ctx context.Context) error {
		n, err = io.Copy(to, until{ctx, from})
		return err
	})
	return n, err
}

// until is a reader that ends with its context.
type until struct {
	ctx context.Context
	io.Reader
}

// Read implements io.Reader.
func (u until) Read(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.Reader.Read(b)
}

// watch looks until ended is closed, or says once that there is no more room.
func watch(fs FileSystem, full context.CancelCauseFunc, ended <-chan struct{}) {
	tick := time.NewTicker(often)
	defer tick.Stop()
	for {
		if st, err := fs(); err == nil {
			if err := check(st); err != nil {
				full(err)
				return
			}
		}
		select {
		case <-ended:
			return
		case <-tick.C:
		}
	}
}

// check tells whether as much is free as has to stay so. What lives in memory needs no reserve: whoever fills it fills
// nothing else. File systems without a number of files have 0 of it.
func check(st unix.Statfs_t) error {
	if st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC {
		return nil
	}
	size := uint64(st.Bsize) //nolint:gosec // the kernel's own block size
	free, keep := st.Bavail*size, min(st.Blocks*size/share, maxBytes)
	if free < keep {
		return fmt.Errorf("%w: %s are free, %s have to stay so: prune what is not needed (system prune)", ErrFull, units.BytesSize(float64(free)), units.BytesSize(float64(keep)))
	}
	if keep := min(st.Files/share, maxFiles); st.Ffree < keep {
		return fmt.Errorf("%w: %d files more can be made, as many as %d have to stay so: prune what is not needed (system prune)", ErrFull, st.Ffree, keep)
	}
	return nil
}

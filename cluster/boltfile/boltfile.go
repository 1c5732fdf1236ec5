// Package boltfile is what a bbolt file needs on disks that break or fill up: a damaged page is an error rather than a
// panic, a file that the disk has lost a write of is written to no more, and what is in a file can be removed on a full disk.
package boltfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// Unbroken runs fn and makes an error, by damaged, of what bbolt does with a damaged file: it panics on pages that it
// cannot make sense of, and faults where the file is shorter than the memory it has mapped.
func Unbroken(damaged func(cause error) error, fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = damaged(fmt.Errorf("%v", r))
		}
	}()
	return fn()
}

// Check reads the file at path through and says what is wrong with it. Whoever else opens it with bbolt after that meets
// no panic, unless the file changes in between. It must not be open for writing.
func Check(path string) error {
	return Unbroken(func(cause error) error { return cause }, func() error {
		// The pages in use first: looking for the free ones, bbolt reads the others in a goroutine of its own, whose panic
		// ends the process.
		if err := check(path, false, walk); err != nil {
			return err
		}
		return check(path, true, func(*bolt.Tx) error { return nil })
	})
}

func check(path string, free bool, read func(*bolt.Tx) error) error {
	db, err := bolt.Open(path, 0, &bolt.Options{ReadOnly: true, PreLoadFreelist: free, Timeout: time.Second})
	if err != nil {
		return err
	}
	return errors.Join(db.View(read), db.Close())
}

func walk(tx *bolt.Tx) error {
	return tx.ForEach(func(_ []byte, b *bolt.Bucket) error { return walkBucket(b) })
}

// walkBucket reads all of a bucket. Keys ascend; those of a page that stands in another's place do not.
func walkBucket(b *bolt.Bucket) error {
	var last []byte
	return b.ForEach(func(k, v []byte) error {
		if last != nil && bytes.Compare(last, k) >= 0 {
			return fmt.Errorf("key %q follows key %q", k, last)
		}
		last = k
		if v != nil {
			return nil
		}
		return walkBucket(b.Bucket(k))
	})
}

// keep is how many bytes a file has beyond twice what it uses, each with its place on the disk: bbolt never writes over
// what it has, so that whatever removes something needs room first, and records grow by what happens to their containers.
const keep = 512 << 10

// DB is an open file.
type DB struct {
	*bolt.DB
	lost chan struct{} // closed when err is set

	mu  sync.Mutex
	err error

	placed atomic.Int64 // bytes of the file that have their place on the disk, as far as Reserve has seen to it
}

// New takes over db.
func New(db *bolt.DB) *DB { return &DB{DB: db, lost: make(chan struct{})} }

// Update is bbolt's. An error of fn is returned as it is. Want of room is ErrResourceExhausted: nothing was written, and
// the next attempt may succeed. Any other failure to write is the last (see Err): after a failed fsync the kernel takes
// the pages for clean, so that a second one succeeds without them, and bbolt may read its new root from memory although
// the disk has the old one (fsync(2), EIO).
func (d *DB) Update(fn func(*bolt.Tx) error) error {
	if err := d.Err(); err != nil {
		return err
	}
	var refused error
	err := d.DB.Update(func(tx *bolt.Tx) error {
		refused = fn(tx)
		return refused
	})
	switch {
	case err == nil || refused != nil || errors.Is(err, berrors.ErrDatabaseNotOpen) || errors.Is(err, berrors.ErrDatabaseReadOnly):
		return err
	case full(err):
		return fmt.Errorf("%w: %w", err, errdefs.ErrResourceExhausted) // it names the file
	}
	return d.lose(err)
}

// full tells whether bbolt's error says that there is no room, before any page of the old state was touched: bbolt writes
// to free pages first. The kernel's word about a write is one thing, about a sync another, also if it is the same word:
// then pages are lost.
func full(err error) bool {
	var at *fs.PathError
	if strings.HasPrefix(err.Error(), "file resize error") { // bbolt wraps nothing here
		return true
	}
	return errors.As(err, &at) && at.Op == "write" && noRoom(err)
}

func noRoom(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}

// Reserve gives what an Update is about to add, of size bytes, its place on the disk, and to what is kept free beside it.
// Without room for both it is ErrResourceExhausted, and the Update is to return that: then those that add nothing, but
// change what is there and remove it, have what is kept free to themselves. File systems that cannot do it (EOPNOTSUPP,
// fallocate(2)) are written to without.
func (d *DB) Reserve(tx *bolt.Tx, size int) error {
	want := wanted(tx, size)
	if want <= d.placed.Load() {
		return nil
	}
	err := fallocate(d.Path(), want)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
	case err != nil && noRoom(err):
		return fmt.Errorf("%w: %w", err, errdefs.ErrResourceExhausted)
	case err != nil:
		return err
	}
	d.placed.Store(want)
	return nil
}

// wanted is how long the file should be before size bytes more are written to it.
func wanted(tx *bolt.Tx, size int) int64 { return 2*tx.Size() + int64(size) + keep }

// Room is Reserve without an Update: what is to be added shall be let in by somebody else's.
func (d *DB) Room() error {
	enough := false
	err := d.View(func(tx *bolt.Tx) error {
		enough = wanted(tx, 0) <= d.placed.Load()
		return nil
	})
	if err != nil || enough {
		return err
	}
	tx, err := d.Begin(true) // nobody else changes the file's size
	if err != nil {
		return err
	}
	return errors.Join(d.Reserve(tx, 0), tx.Rollback())
}

func fallocate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return f.Sync() // the file's new size, as bbolt does when it makes it longer
}

func (d *DB) lose(cause error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = fmt.Errorf("write %s: the disk did not keep what was written (%w), so nothing more is written to it; see what the kernel says "+
			"of the disk (dmesg), put it right, and restart minictl's daemon, which reads the file anew: %w", d.Path(), cause, errdefs.ErrDataLoss)
		close(d.lost)
	}
	return d.err
}

// Err is why nothing is written any more; nil while all is well.
func (d *DB) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// Lost is closed when Err is no longer nil.
func (d *DB) Lost() <-chan struct{} { return d.lost }

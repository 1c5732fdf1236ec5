package raft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	hraft "github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/minictl/minictl/cluster/boltfile"
)

// The schema; doc.go draws it.
const (
	bucketVersion = "v1"
	bucketLog     = "log"
	bucketStable  = "stable"
	keyNode       = "node"
	keyApplied    = "applied"

	keyTerm = "CurrentTerm" // raft's name for its term
	keyRoom = "room"        // means nothing: see probe
)

// logStore is raft's LogStore and StableStore in one bbolt file. StoreLogs is
// the only write on a transaction's way.
type logStore struct {
	db      *boltfile.DB
	path    string
	applied func() uint64 // the index to be noted with the next entries

	mu   sync.Mutex
	owed *uint64 // raft's term, if it could not be written yet
	full error   // a write found the disk full, and no entry was written since
}

// openLog opens or makes the file at path and reads all of it once, so that
// damage is found now, as a sentence, and not later, as a crash of raft (which
// panics when an entry it wrote cannot be read).
//
// applied is asked with every write for the last entry this host has applied.
func openLog(path, node string, applied func() uint64) (*logStore, error) {
	l := &logStore{path: path, applied: applied}
	if err := boltfile.Unbroken(l.damaged, l.open); err != nil {
		return nil, err
	}
	prepare := func() error { return l.prepare(node) }
	if err := errors.Join(boltfile.Unbroken(l.damaged, prepare), boltfile.Unbroken(l.damaged, l.verify)); err != nil {
		_ = l.db.Close()
		return nil, err
	}
	return l, nil
}

func (l *logStore) open() error {
	db, err := bolt.Open(l.path, 0o600, &bolt.Options{
		Timeout:      2 * time.Second, // enough for a predecessor that is just exiting
		FreelistType: bolt.FreelistMapType,
		// NoFreelistSync stays off: with it, bbolt walks all pages in a
		// goroutine of its own at open and a damaged one kills the process.
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("open %s: another daemon has it open; stop that one first: %w", l.path, errdefs.ErrFailedPrecondition)
	case errors.As(err, new(*os.PathError)):
		return fmt.Errorf("open store: %w", err)
	case err != nil:
		return l.damaged(err)
	}
	l.db = boltfile.New(db)
	return nil
}

// damaged is the sentence for a file that cannot be trusted.
func (l *logStore) damaged(cause error) error {
	return fmt.Errorf("read %s: the file is damaged (%w); restore it from a backup, or move its directory away "+
		"and join the cluster again: %w", l.path, cause, errdefs.ErrDataLoss)
}

// prepare makes the buckets in a new file and checks that an old one is ours.
func (l *logStore) prepare(node string) error {
	return l.db.Update(func(tx *bolt.Tx) error {
		root := tx.Bucket([]byte(bucketVersion))
		if root == nil {
			if other, _ := tx.Cursor().First(); other != nil {
				return fmt.Errorf("open %s: it was written by another version (%q, this one knows %q); upgrade minictl on this host: %w",
					l.path, other, bucketVersion, errdefs.ErrFailedPrecondition)
			}
			return makeBuckets(tx, node)
		}
		if owner := root.Get([]byte(keyNode)); string(owner) != node {
			return fmt.Errorf("open %s: it belongs to node %q, not to %q: %w", l.path, owner, node, errdefs.ErrFailedPrecondition)
		}
		if root.Bucket([]byte(bucketLog)) == nil || root.Bucket([]byte(bucketStable)) == nil {
			return l.damaged(errors.New("a bucket is missing"))
		}
		return nil
	})
}

func makeBuckets(tx *bolt.Tx, node string) error {
	root, err := tx.CreateBucket([]byte(bucketVersion))
	if err != nil {
		return err
	}
	_, err1 := root.CreateBucket([]byte(bucketLog))
	_, err2 := root.CreateBucket([]byte(bucketStable))
	return errors.Join(err1, err2, root.Put([]byte(keyNode), []byte(node)))
}

// verify reads every record: checksums hold and the log has no hole.
func (l *logStore) verify() error {
	return l.db.View(func(tx *bolt.Tx) error {
		var last uint64
		err := bucket(tx, bucketLog).ForEach(func(k, v []byte) error {
			var entry hraft.Log
			if err := decodeEntry(k, v, &entry); err != nil {
				return l.damaged(err)
			}
			if last != 0 && entry.Index != last+1 {
				return l.damaged(fmt.Errorf("entry %d follows entry %d", entry.Index, last))
			}
			last = entry.Index
			return nil
		})
		if err != nil {
			return err
		}
		return bucket(tx, bucketStable).ForEach(func(k, v []byte) error {
			if _, err := unseal(k, v); err != nil {
				return l.damaged(err)
			}
			return nil
		})
	})
}

// Close closes the file.
func (l *logStore) Close() error { return l.db.Close() }

func bucket(tx *bolt.Tx, name string) *bolt.Bucket {
	return tx.Bucket([]byte(bucketVersion)).Bucket([]byte(name))
}

// FirstIndex implements raft.LogStore.
func (l *logStore) FirstIndex() (uint64, error) {
	return l.end((*bolt.Cursor).First)
}

// LastIndex implements raft.LogStore.
func (l *logStore) LastIndex() (uint64, error) {
	return l.end((*bolt.Cursor).Last)
}

func (l *logStore) end(seek func(*bolt.Cursor) (k, v []byte)) (index uint64, err error) {
	err = l.db.View(func(tx *bolt.Tx) error {
		if k, _ := seek(bucket(tx, bucketLog).Cursor()); k != nil {
			index = binary.BigEndian.Uint64(k)
		}
		return nil
	})
	return index, err
}

// GetLog implements raft.LogStore.
func (l *logStore) GetLog(index uint64, entry *hraft.Log) error {
	return l.db.View(func(tx *bolt.Tx) error {
		k := indexKey(index)
		v := bucket(tx, bucketLog).Get(k)
		if v == nil {
			return hraft.ErrLogNotFound
		}
		if err := decodeEntry(k, v, entry); err != nil {
			return l.damaged(err)
		}
		return nil
	})
}

// StoreLog implements raft.LogStore.
func (l *logStore) StoreLog(entry *hraft.Log) error { return l.StoreLogs([]*hraft.Log{entry}) }

// StoreLogs implements raft.LogStore: one bbolt commit whatever the number.
func (l *logStore) StoreLogs(entries []*hraft.Log) error {
	err := l.write(func(tx *bolt.Tx) error {
		b := bucket(tx, bucketLog)
		b.FillPercent = 0.9 // indices only grow: leave little room in full pages
		if err := closeHole(b, entries[0].Index); err != nil {
			return err
		}
		for _, e := range entries {
			if err := b.Put(indexKey(e.Index), encodeEntry(e)); err != nil {
				return fmt.Errorf("write entry %d: %w", e.Index, err)
			}
		}
		return putApplied(tx, l.applied())
	})
	if err == nil {
		l.mu.Lock()
		l.full = nil
		l.mu.Unlock()
	}
	return err
}

// closeHole removes what lies in front of a hole. Such a hole means that a
// snapshot was installed and the daemon stopped before raft removed the old
// entries; the snapshot covers them.
func closeHole(b *bolt.Bucket, next uint64) error {
	if k, _ := b.Cursor().Last(); k == nil || binary.BigEndian.Uint64(k)+1 >= next {
		return nil
	}
	return deleteTo(b, 0, next)
}

// IsMonotonic implements raft.MonotonicLogStore: raft removes the old entries
// when it installs a snapshot, so that a hole always means damage.
func (l *logStore) IsMonotonic() bool { return true }

// DeleteRange implements raft.LogStore.
func (l *logStore) DeleteRange(first, last uint64) error {
	return l.write(func(tx *bolt.Tx) error { return deleteTo(bucket(tx, bucketLog), first, last) })
}

func deleteTo(b *bolt.Bucket, first, last uint64) error {
	c := b.Cursor()
	// Seek again each time: a cursor is not valid after a deletion.
	for k, _ := c.Seek(indexKey(first)); k != nil && binary.BigEndian.Uint64(k) <= last; k, _ = c.Seek(indexKey(first)) {
		if err := b.Delete(k); err != nil {
			return fmt.Errorf("delete entry %d: %w", binary.BigEndian.Uint64(k), err)
		}
	}
	return nil
}

// SaveApplied notes by itself that entries up to index are agreed on; StoreLogs
// does so in passing. It matters to a follower that is restarted while its
// leader is away: raft would not know which of its entries count until a leader
// says so, and the host would come up without any of them. An index that was
// applied is safe to keep: its entries are in the file and are never replaced.
func (l *logStore) SaveApplied(index uint64) error {
	return l.db.Update(func(tx *bolt.Tx) error { return putApplied(tx, index) })
}

// Applied hands every command that is known to be agreed on, from index first
// on, to apply.
func (l *logStore) Applied(first uint64, apply func(*hraft.Log)) error {
	return l.db.View(func(tx *bolt.Tx) error {
		last := readApplied(tx)
		c := bucket(tx, bucketLog).Cursor()
		for k, v := c.Seek(indexKey(first)); k != nil; k, v = c.Next() {
			var entry hraft.Log
			if err := decodeEntry(k, v, &entry); err != nil {
				return l.damaged(err)
			}
			if entry.Index > last {
				break
			}
			if entry.Type == hraft.LogCommand {
				apply(&entry)
			}
		}
		return nil
	})
}

func readApplied(tx *bolt.Tx) uint64 {
	if v := tx.Bucket([]byte(bucketVersion)).Get([]byte(keyApplied)); len(v) == 8 {
		return binary.BigEndian.Uint64(v)
	}
	return 0 // then the leader has to say, as without it
}

// putApplied never goes back.
func putApplied(tx *bolt.Tx, index uint64) error {
	if index <= readApplied(tx) {
		return nil
	}
	return tx.Bucket([]byte(bucketVersion)).Put([]byte(keyApplied), indexKey(index))
}

// Set implements raft.StableStore.
func (l *logStore) Set(key, val []byte) error {
	return l.write(func(tx *bolt.Tx) error { return bucket(tx, bucketStable).Put(key, seal(key, val)) })
}

// write is one transaction. A term that is owed comes with it.
func (l *logStore) write(fn func(*bolt.Tx) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.db.Update(func(tx *bolt.Tx) error {
		if l.owed != nil {
			if err := bucket(tx, bucketStable).Put([]byte(keyTerm), seal([]byte(keyTerm), indexKey(*l.owed))); err != nil {
				return err
			}
		}
		return fn(tx)
	})
	if err == nil {
		l.owed = nil
	}
	if errdefs.IsResourceExhausted(err) {
		l.full = err
	}
	return err
}

// room tells that the disk is full, if it was when the last entry was to be
// written.
func (l *logStore) room() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.full
}

// probe fails if the disk is full now.
func (l *logStore) probe() error { return l.Set([]byte(keyRoom), nil) }

// Get implements raft.StableStore; an absent key is an empty value.
func (l *logStore) Get(key []byte) (val []byte, err error) {
	err = l.db.View(func(tx *bolt.Tx) error {
		if v := bucket(tx, bucketStable).Get(key); v != nil {
			val, err = unseal(key, v)
			val = slices.Clone(val) // bbolt's memory ends with the transaction
		}
		return err
	})
	return val, err
}

// SetUint64 implements raft.StableStore. Raft panics when its term cannot be
// kept, and a full disk must not end the daemon, so the term may stay owed: it
// is written together with the next vote or entry. Without these nothing
// depends on it. A host that forgets a term by dying has neither voted in it
// nor stored anything of it, and the majority that did remembers.
func (l *logStore) SetUint64(key []byte, val uint64) error {
	err := l.Set(key, indexKey(val))
	if err == nil || string(key) != keyTerm {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.owed = &val
	return nil
}

// GetUint64 implements raft.StableStore; an absent key is 0.
func (l *logStore) GetUint64(key []byte) (uint64, error) {
	l.mu.Lock()
	owed := l.owed
	l.mu.Unlock()
	if owed != nil && string(key) == keyTerm {
		return *owed, nil
	}
	v, err := l.Get(key)
	if err != nil || len(v) == 0 {
		return 0, err
	}
	if len(v) != 8 {
		return 0, l.damaged(fmt.Errorf("%q is %d bytes, not a number", key, len(v)))
	}
	return binary.BigEndian.Uint64(v), nil
}

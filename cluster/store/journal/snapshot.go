package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/identity"
	"github.com/minictl/minictl/cluster/store"
)

// saveAfter is how far the copy on disk may be behind: after a crash the rest
// is read from the journal.
const saveAfter = time.Second

// image is the replica as it is. Without the turn its state may be one entry
// ahead of its index; to apply that entry again changes nothing, by its ID.
func (s *Store) image() image {
	s.mu.Lock()
	defer s.mu.Unlock()
	return image{Format: format, Journal: s.journal, Index: s.applied, State: s.mem.Snapshot()}
}

// adopt makes the replica what an image says.
func (s *Store) adopt(i image) error {
	if err := s.mem.Restore(i.State); err != nil {
		return err
	}
	s.advance(i.Journal, i.Index)
	return nil
}

// readSnapshot brings a replica that is behind the oldest entry to the snapshot.
func (s *Store) readSnapshot(ctx context.Context, h head) error {
	b, err := s.readParts(ctx, prefixSnapshot, h.Snapshot.Index, h.Snapshot.Name, h.Snapshot.Parts)
	if err != nil {
		return err
	}
	i, err := decodeImage(b)
	if err == nil && (i.Index != h.Snapshot.Index || i.Journal != h.Journal) {
		err = fmt.Errorf("read the journal's snapshot: it is of another state: %w", errdefs.ErrDataLoss)
	}
	if err != nil {
		return err
	}
	return s.adopt(i)
}

// keepSnapshots writes one when this host's entry has made it due.
func (s *Store) keepSnapshots() {
	for {
		select {
		case <-s.due:
		case <-s.ctx.Done():
			return
		}
		if err := s.snapshot(s.ctx); err != nil && !errors.Is(err, errMoved) && s.ctx.Err() == nil {
			s.log.Warn("cannot shorten the journal yet", "store", s.cfg.Name, "err", err)
		}
	}
}

// snapshot writes the present state, makes head point to it, and deletes what
// it makes useless.
func (s *Store) snapshot(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	i, oldest := s.image(), s.head.oldest()
	s.end()
	if i.Index-oldest < uint64(s.cfg.SnapshotEvery) {
		return nil // another host was faster
	}
	body, err := json.Marshal(i)
	if err != nil {
		return err
	}
	ref := snapshotRef{Index: i.Index, Name: store.NewID()}
	if ref.Parts, err = s.writeParts(ctx, prefixSnapshot, ref.Index, ref.Name, body); err != nil {
		return err
	}
	if err := s.pointTo(ctx, ref); err != nil {
		return err
	}
	return s.tidy(ctx, ref)
}

// pointTo swaps the head until it names the snapshot. errMoved: it names a
// newer one.
func (s *Store) pointTo(ctx context.Context, ref snapshotRef) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	for {
		switch {
		case s.head.Snapshot != nil && s.head.Snapshot.Name == ref.Name:
			return nil // an answer got lost
		case s.head.oldest() >= ref.Index:
			return errMoved
		}
		next := s.head
		next.Snapshot = &ref
		version, err := s.swap(ctx, next, KV{})
		if err == nil {
			s.head, s.version = next, version
			return nil
		}
		if !errdefs.IsConflict(err) {
			return err
		}
		if err := s.catchUp(ctx); err != nil {
			return err
		}
	}
}

// tidy deletes the entries and snapshots that ref replaces, and what crashes
// have left of them.
func (s *Store) tidy(ctx context.Context, ref snapshotRef) error {
	for _, prefix := range []string{prefixLog, prefixSnapshot} {
		call, cancel := context.WithTimeout(ctx, s.cfg.CallTimeout)
		keys, err := s.cfg.Remote.Keys(call, prefix)
		cancel()
		if err != nil {
			return err
		}
		var old []string
		for _, key := range keys {
			n, ok := numberOf(key)
			mine := prefix == prefixSnapshot && slices.ContainsFunc(partsOf(ref), func(k string) bool { return k == key })
			if ok && n <= ref.Index && !mine {
				old = append(old, key)
			}
		}
		for batch := range slices.Chunk(old, 64) {
			call, cancel := context.WithTimeout(ctx, s.cfg.CallTimeout)
			err := s.cfg.Remote.Delete(call, batch...)
			cancel()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func partsOf(ref snapshotRef) []string {
	var keys []string
	for i := range ref.Parts {
		keys = append(keys, partKey(prefixSnapshot, ref.Index, ref.Name, i))
	}
	return keys
}

// keepCopy writes the replica to the disk, some time after it has changed.
func (s *Store) keepCopy() {
	for {
		select {
		case <-s.save:
		case <-s.ctx.Done():
			return
		}
		s.pause(saveAfter)
		if s.ctx.Err() != nil {
			return // Close saves
		}
		if err := s.saveCopy(); err != nil {
			s.log.Warn("cannot keep a copy of the cluster store", "err", err)
		}
	}
}

func (s *Store) saveCopy() error {
	if s.cfg.File == "" {
		return nil
	}
	i := s.image()
	if i.Index == 0 {
		return nil
	}
	b, err := json.Marshal(i)
	if err != nil {
		return fmt.Errorf("encode replica: %w", err)
	}
	return identity.WriteFile(s.cfg.File, b)
}

// loadCopy begins where an earlier run of this daemon was. A copy that cannot
// be read is none: the journal has it all.
func (s *Store) loadCopy() {
	if s.cfg.File == "" {
		return
	}
	b, err := os.ReadFile(s.cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var i image
	if err == nil {
		if i, err = decodeImage(b); err == nil {
			err = s.adopt(i)
		}
	}
	if err != nil {
		s.log.Warn("the copy of the cluster store cannot be read; it is fetched again", "file", s.cfg.File, "err", err)
	}
}

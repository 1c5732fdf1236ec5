package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store"
)

// stable is a Store whose backend may be replaced: Join and Leave put this host into another store, and whoever holds
// the Store or watches it must not have to know. To a watcher the replacement looks like any other change: what the new
// store does not have is deleted, what it has is put.
type stable struct {
	mu       sync.Mutex
	now      store.Store
	replaced chan struct{} // closed when now is no longer the one
	closed   bool

	// told is called with the revision of each transaction before its caller hears of it; nil: nothing is.
	told func(ctx context.Context, rev store.Revision)
}

var _ store.Store = (*stable)(nil)

func newStable(s store.Store) *stable { return &stable{now: s, replaced: make(chan struct{})} }

func (s *stable) current() (store.Store, <-chan struct{}, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now, s.replaced, !s.closed
}

// replace puts another backend in place.
func (s *stable) replace(next store.Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = next
	close(s.replaced)
	s.replaced = make(chan struct{})
}

// close ends the watches.
func (s *stable) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.replaced)
	}
}

// Range implements store.Store.
func (s *stable) Range(ctx context.Context, prefix string, fresh bool) ([]store.Pair, store.Revision, error) {
	now, _, _ := s.current()
	pairs, rev, err := now.Range(ctx, prefix, fresh)
	return pairs, rev, s.between(err)
}

// Txn implements store.Store.
func (s *stable) Txn(ctx context.Context, t store.Txn) (store.Revision, error) {
	now, _, _ := s.current()
	rev, err := now.Txn(ctx, t)
	if err == nil && s.told != nil && len(t.Then) > 0 {
		s.told(ctx, rev)
	}
	return rev, s.between(err)
}

// between makes of a backend's end, which another one follows, what it is to whoever asks: nobody decides now, as between
// two leaders. Whether a transaction has happened in the old one is as unknown as it is then.
func (s *stable) between(err error) error {
	if _, _, open := s.current(); open && errors.Is(err, store.ErrClosed) {
		return fmt.Errorf("%s, and another follows: try again: %w", err.Error(), errdefs.ErrUnavailable) // no precondition has failed
	}
	return err
}

// Watch implements store.Store.
func (s *stable) Watch(ctx context.Context, prefix string) (<-chan []store.Event, error) {
	now, replaced, open := s.current()
	if !open {
		return nil, fmt.Errorf("watch %q: the cluster is closed: %w", prefix, errdefs.ErrFailedPrecondition)
	}
	in, err := now.Watch(ctx, prefix)
	if errors.Is(err, store.ErrClosed) { // another follows, or the cluster's end: the watch begins with that
		ended := make(chan []store.Event)
		close(ended)
		in, err = ended, nil
	}
	if err != nil {
		return nil, err
	}
	out := make(chan []store.Event)
	go s.follow(ctx, prefix, in, replaced, out) // ends with ctx or close, as Watch promises
	return out, nil
}

func (s *stable) follow(ctx context.Context, prefix string, in <-chan []store.Event, replaced <-chan struct{}, out chan<- []store.Event) {
	defer close(out)
	known := map[string]bool{}
	var gone map[string]bool // known of the replaced backend; non-nil until the new one's first batch
	begun := false           // the first batch is due even if it is empty
	for {
		var batch []store.Event
		var ok bool
		select {
		case batch, ok = <-in:
		case <-ctx.Done():
			return
		}
		if ok {
			if gone != nil {
				batch = append(vanished(gone, batch), batch...)
				clear(known)
				if gone = nil; len(batch) == 0 && begun {
					continue // nothing here, nothing there
				}
			}
			note(known, batch)
			select {
			case out <- batch:
				begun = true
			case <-ctx.Done():
				return
			}
			continue
		}
		// The backend has closed; another follows unless the cluster closes too.
		select {
		case <-replaced:
		case <-ctx.Done():
			return
		}
		var now store.Store
		var open bool
		if now, replaced, open = s.current(); !open {
			return
		}
		next, err := now.Watch(ctx, prefix)
		if err != nil {
			continue // closed again already: in is closed still, wait for the next
		}
		in = next
		if gone == nil {
			gone = maps.Clone(known)
		}
	}
}

// vanished makes the deletions of what was known and is not in the new store's first batch.
func vanished(gone map[string]bool, first []store.Event) []store.Event {
	here := map[string]bool{}
	note(here, first)
	var events []store.Event
	for _, key := range slices.Sorted(maps.Keys(gone)) {
		if !here[key] {
			events = append(events, store.Event{Pair: store.Pair{Key: key}, Deleted: true})
		}
	}
	return events
}

func note(known map[string]bool, batch []store.Event) {
	for _, e := range batch {
		if e.Deleted {
			delete(known, e.Pair.Key)
		} else {
			known[e.Pair.Key] = true
		}
	}
}

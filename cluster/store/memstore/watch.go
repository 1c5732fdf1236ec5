package memstore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/minictl/minictl/cluster/store"
)

// maxPending is how many events may wait for one slow watcher before they are
// dropped in favour of a comparison with the present state.
const maxPending = 4096

// watcher is one Watch. Its fields are guarded by the store's mutex, except
// seen, which belongs to its goroutine.
type watcher struct {
	prefix  string
	pending []store.Event
	stale   bool          // pending was given up: compare instead
	wake    chan struct{} // holds one token when there is something to fetch
	stop    context.CancelFunc

	// seen is what the consumer has been told: the keys below the prefix and
	// their revisions. It bounds a watcher's memory by the size of the state
	// rather than by the number of changes its consumer slept through.
	seen map[string]store.Revision
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, prefix string) (<-chan []store.Event, error) {
	ctx, stop := context.WithCancel(ctx)
	w := &watcher{prefix: prefix, wake: make(chan struct{}, 1), stop: stop, seen: map[string]store.Revision{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		stop()
		return nil, fmt.Errorf("watch %q: %w", prefix, store.ErrClosed)
	}
	s.watchers[w] = struct{}{}
	// Taking the first batch under the same lock that registers the watcher is
	// what leaves no gap.
	first := s.compare(w)
	out := make(chan []store.Event)
	s.running.Go(func() {
		defer close(out)
		defer s.forget(w)
		s.feed(ctx, w, first, out)
	})
	return out, nil
}

// feed hands batches to the consumer until ctx ends.
func (s *Store) feed(ctx context.Context, w *watcher, batch []store.Event, out chan<- []store.Event) {
	for {
		select {
		case out <- batch:
			w.told(batch)
		case <-ctx.Done():
			return
		}
		for batch = nil; len(batch) == 0; {
			select {
			case <-w.wake:
				batch = s.take(w)
			case <-ctx.Done():
				return
			}
		}
	}
}

func (s *Store) forget(w *watcher) {
	w.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watchers, w)
}

// take removes what waits for the watcher.
func (s *Store) take(w *watcher) []store.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch := w.pending
	w.pending = nil
	if w.stale {
		w.stale = false
		return s.compare(w)
	}
	return batch
}

// compare lists what the consumer has to be told to know the present state.
// Changes come in the order of their revisions, deletions first: when they
// happened is not known any more, and a key that is free must not look taken.
func (s *Store) compare(w *watcher) []store.Event {
	from, to := s.span(w.prefix)
	events := []store.Event{}
	for key := range w.seen {
		if _, ok := s.find(key); !ok {
			events = append(events, store.Event{Pair: store.Pair{Key: key}, Deleted: true, Rev: s.rev})
		}
	}
	slices.SortFunc(events, func(a, b store.Event) int { return strings.Compare(a.Pair.Key, b.Pair.Key) })
	gone := len(events)
	for _, p := range s.pairs[from:to] {
		if w.seen[p.Key] != p.Rev {
			events = append(events, store.Event{Pair: p, Rev: p.Rev})
		}
	}
	slices.SortStableFunc(events[gone:], func(a, b store.Event) int { return int(int64(a.Rev) - int64(b.Rev)) })
	return events
}

// add queues a transaction's events; the store's lock is held.
func (w *watcher) add(events []store.Event) {
	if w.stale {
		return
	}
	for _, e := range events {
		if strings.HasPrefix(e.Pair.Key, w.prefix) {
			w.pending = append(w.pending, e)
		}
	}
	if len(w.pending) > maxPending {
		w.resync()
		return
	}
	if len(w.pending) > 0 {
		w.signal()
	}
}

// resync makes the watcher's next batch a comparison; the store's lock is held.
func (w *watcher) resync() {
	w.pending, w.stale = nil, true
	w.signal()
}

func (w *watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default: // a token lies there already
	}
}

// told updates what the consumer knows.
func (w *watcher) told(batch []store.Event) {
	for _, e := range batch {
		if e.Deleted {
			delete(w.seen, e.Pair.Key)
		} else {
			w.seen[e.Pair.Key] = e.Pair.Rev
		}
	}
}

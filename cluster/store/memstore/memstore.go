// Package memstore keeps a store in memory: the reference that says what the
// other backends must do, and the data structure underneath cluster/raft and cluster/store/journal.
package memstore

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/minictl/minictl/cluster/store"
)

// maxIDs is how many transaction IDs are remembered. At the hundred
// transactions a second of a very busy cluster that is forty seconds, several
// times longer than any caller keeps retrying.
const maxIDs = 4096

// Store is a store.Store in memory. Use New.
//
// The pairs lie in one sorted slice: ranges and snapshots are copies of a
// piece of it, and inserting into 10,000 pairs moves less memory than a tree
// would allocate.
type Store struct {
	mu       sync.RWMutex
	closed   bool
	rev      store.Revision
	pairs    []store.Pair // sorted by key; their Values are never changed
	ids      []Applied    // oldest first, at most maxIDs
	idRev    map[string]store.Revision
	watchers map[*watcher]struct{}
	running  sync.WaitGroup // the watchers' goroutines
}

// Applied is the memory of one transaction that carried an ID.
type Applied struct {
	ID  string
	Rev store.Revision // what it was answered
}

// State is all a Store holds, for a snapshot.
type State struct {
	Rev   store.Revision
	Pairs []store.Pair // sorted by key
	IDs   []Applied    // oldest first
}

// New returns an empty store. Close it to end its watches.
func New() *Store {
	return &Store{idRev: map[string]store.Revision{}, watchers: map[*watcher]struct{}{}}
}

// Range implements store.Store. There is one copy here, so fresh is always true.
func (s *Store) Range(_ context.Context, prefix string, _ bool) ([]store.Pair, store.Revision, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	from, to := s.span(prefix)
	return slices.Clone(s.pairs[from:to]), s.rev, nil
}

// Txn implements store.Store.
func (s *Store) Txn(_ context.Context, t store.Txn) (store.Revision, error) {
	if err := t.Validate(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, fmt.Errorf("apply transaction: %w", store.ErrClosed)
	}
	return s.apply(s.rev+1, t)
}

// Apply is Txn at a revision of the caller's choosing: a replicated log gives
// every host the same number. rev must be greater than every one before, and t
// valid. The result depends on nothing but the transactions applied so far.
func (s *Store) Apply(rev store.Revision, t store.Txn) (store.Revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.apply(rev, t)
}

// Check is what applying t would find, without applying it: the first answer
// and done for an ID that is remembered, a conflict, or else the revision of
// the present state.
func (s *Store) Check(t store.Txn) (rev store.Revision, done bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.check(t)
}

func (s *Store) check(t store.Txn) (rev store.Revision, done bool, err error) {
	if first, ok := s.idRev[t.ID]; ok && t.ID != "" {
		return first, true, nil
	}
	for _, c := range t.If {
		if have := s.revOf(c.Key); have != c.Rev {
			return 0, false, &store.ConflictError{Key: c.Key, Want: c.Rev, Have: have}
		}
	}
	return s.rev, false, nil
}

// Grows tells whether there would be more keys and values, in bytes, when t has been applied.
func (s *Store) Grows(t store.Txn) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	growth := 0
	for _, op := range t.Then {
		from, to := s.span(op.Key)
		for _, p := range s.pairs[from:to] {
			if op.Prefix || p.Key == op.Key {
				growth -= len(p.Key) + len(p.Value)
			}
		}
		if !op.Delete && !op.Prefix {
			growth += len(op.Key) + len(op.Value)
		}
	}
	return growth > 0
}

func (s *Store) apply(rev store.Revision, t store.Txn) (store.Revision, error) {
	if first, done, err := s.check(t); done || err != nil {
		return first, err
	}
	before := map[string]*store.Pair{} // nil: was absent
	for _, op := range t.Then {
		s.do(op, rev, before)
	}
	if events := s.changes(before, rev); len(events) > 0 {
		s.rev = rev
		for w := range s.watchers {
			w.add(events)
		}
	}
	s.remember(Applied{t.ID, s.rev})
	return s.rev, nil
}

// do carries out one change and notes what was there before it.
func (s *Store) do(op store.Op, rev store.Revision, before map[string]*store.Pair) {
	from, to := s.span(op.Key)
	if !op.Prefix {
		// A key sorts first among those it begins.
		found := from < to && s.pairs[from].Key == op.Key
		if to = from; found {
			to++
		}
	}
	for _, p := range s.pairs[from:to] {
		note(before, p.Key, &p)
	}
	if op.Delete || op.Prefix {
		s.pairs = slices.Delete(s.pairs, from, to)
		return
	}
	note(before, op.Key, nil)
	s.pairs = slices.Replace(s.pairs, from, to, store.Pair{Key: op.Key, Value: bytes.Clone(op.Value), Rev: rev})
}

// note keeps the first that was said about a key.
func note(before map[string]*store.Pair, key string, p *store.Pair) {
	if _, ok := before[key]; !ok {
		before[key] = p
	}
}

// changes gives the net effect of a transaction, one event per key in the
// order of the keys, so that a watcher never sees a step in between.
func (s *Store) changes(before map[string]*store.Pair, rev store.Revision) []store.Event {
	events := make([]store.Event, 0, len(before))
	for key, old := range before {
		if i, ok := s.find(key); ok {
			events = append(events, store.Event{Pair: s.pairs[i], Rev: rev})
		} else if old != nil {
			events = append(events, store.Event{Pair: *old, Deleted: true, Rev: rev})
		}
	}
	slices.SortFunc(events, func(a, b store.Event) int { return strings.Compare(a.Pair.Key, b.Pair.Key) })
	return events
}

func (s *Store) remember(a Applied) {
	if a.ID == "" {
		return
	}
	if len(s.ids) == maxIDs {
		delete(s.idRev, s.ids[0].ID)
		s.ids = s.ids[1:] // append moves the rest to a new array now and then
	}
	s.ids = append(s.ids, a)
	s.idRev[a.ID] = a.Rev
}

// Snapshot returns the whole state. It copies references, not values, and is
// quick enough to call between two transactions.
func (s *Store) Snapshot() State {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return State{Rev: s.rev, Pairs: slices.Clone(s.pairs), IDs: slices.Clone(s.ids)}
}

// Restore replaces everything. Watchers see the difference, without a gap. It
// refuses a state whose keys are not sorted and unique.
func (s *Store) Restore(st State) error {
	for i := 1; i < len(st.Pairs); i++ {
		if st.Pairs[i-1].Key >= st.Pairs[i].Key {
			return fmt.Errorf("restore state: key %q follows %q: %w", st.Pairs[i].Key, st.Pairs[i-1].Key, errdefs.ErrDataLoss)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rev, s.pairs, s.ids = st.Rev, slices.Clone(st.Pairs), nil
	clear(s.idRev)
	for _, a := range st.IDs {
		s.remember(a)
	}
	for w := range s.watchers {
		w.resync()
	}
	return nil
}

// Close ends every watch and waits for it. Reading stays possible.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	for w := range s.watchers {
		w.stop()
	}
	s.mu.Unlock()
	s.running.Wait()
	return nil
}

// span returns where the keys that begin with prefix lie.
func (s *Store) span(prefix string) (from, to int) {
	from = sort.Search(len(s.pairs), func(i int) bool { return s.pairs[i].Key >= prefix })
	rest := s.pairs[from:]
	return from, from + sort.Search(len(rest), func(i int) bool { return !strings.HasPrefix(rest[i].Key, prefix) })
}

func (s *Store) find(key string) (int, bool) {
	return slices.BinarySearchFunc(s.pairs, key, func(p store.Pair, key string) int { return strings.Compare(p.Key, key) })
}

func (s *Store) revOf(key string) store.Revision {
	if i, ok := s.find(key); ok {
		return s.pairs[i].Rev
	}
	return 0
}

package journal

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/store/memstore"
)

// KV is a key and what is written there.
type KV struct {
	Key   string
	Value []byte
}

// Remote is what an external store must be able to do. Keys are relative to
// its prefix; their characters are digits, letters, dots and slashes. An error
// means that the store did not answer as it should, and that what was asked
// for may have happened all the same.
type Remote interface {
	// Get reads a key as every write that was answered before has left it. A
	// version changes with every write; 0 says that the key does not exist.
	Get(ctx context.Context, key string) (value []byte, version uint64, err error)
	// Swap writes head, and with it entry unless its key is empty, if head's
	// key is at version; ErrConflict if it is not. It gives head's new version.
	Swap(ctx context.Context, version uint64, head, entry KV) (uint64, error)
	// Put writes one key.
	Put(ctx context.Context, kv KV) error
	// Keys lists those that begin with prefix, which ends with a slash.
	Keys(ctx context.Context, prefix string) ([]string, error)
	// Delete removes keys; absent ones are no error.
	Delete(ctx context.Context, keys ...string) error
	// Wait returns nil when key is, or may be, at another version.
	Wait(ctx context.Context, key string, version uint64) error
}

// Address says where an external store is, and how to be let in.
type Address struct {
	Hosts          []string // HOST:PORT each
	Prefix         string   // of all keys; no slash at either end
	User, Password string
	TLS            *tls.Config // nil: none
}

// Config is what Open needs.
type Config struct {
	Remote Remote
	Name   string       // of the external store, for people
	By     string       // this host, for entries
	File   string       // where the replica's copy is; empty: nowhere
	Log    *slog.Logger // nil: nothing is logged

	SnapshotEvery int           // entries; 0: 512
	CallTimeout   time.Duration // of one call to the store; 0: 3 s
	Heartbeat     time.Duration // the longest time between two calls; 0: 3 s
}

// retryPause is the time between two attempts to reach a store that is away.
const retryPause = 500 * time.Millisecond

// Store is this host's end of the journal. It is a store.Store.
type Store struct {
	cfg Config
	log *slog.Logger
	mem *memstore.Store

	ctx     context.Context // ends when the store closes
	cancel  context.CancelFunc
	running sync.WaitGroup
	close   func() error
	due     chan struct{} // holds one token when a snapshot should be written
	save    chan struct{} // the same for the copy on disk

	asked atomic.Uint64 // counts the wishes to be up to date

	// turn is a lock that gives up with a context: whoever receives its one
	// token may talk to the remote and touch what follows.
	turn    chan struct{}
	synced  uint64 // the wishes that the last sync has fulfilled
	head    head
	version uint64    // of the head; 0 while there is none
	read    bool      // the head has been read since Open
	rival   time.Time // when another host was last seen to have written
	yield   time.Time // until then the others go first

	mu      sync.Mutex
	journal string // the one that is followed; empty before the first entry
	applied uint64
	changed chan struct{} // closed when applied grows
	away    error         // why the store cannot be used now; nil when the last call went well
	since   time.Time     // of away
	wake    context.CancelFunc
}

var _ store.Store = (*Store)(nil)

// Open reads the copy on disk and begins to follow the journal. It does not
// wait for the external store. Close ends it, and leaves Remote to its owner.
func Open(cfg Config) *Store {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.SnapshotEvery == 0 {
		cfg.SnapshotEvery = 512
	}
	if cfg.CallTimeout == 0 {
		cfg.CallTimeout = 3 * time.Second
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = 3 * time.Second
	}
	s := &Store{
		cfg: cfg, log: cfg.Log, mem: memstore.New(),
		due: make(chan struct{}, 1), save: make(chan struct{}, 1),
		turn: make(chan struct{}, 1), changed: make(chan struct{}), wake: func() {},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.close = sync.OnceValue(s.shutdown)
	s.turn <- struct{}{}
	s.loadCopy()
	s.running.Go(s.follow)
	s.running.Go(s.keepSnapshots)
	s.running.Go(s.keepCopy)
	return s
}

// Close stops following, ends every watch and saves the replica. Reading stays
// possible.
func (s *Store) Close() error { return s.close() }

func (s *Store) shutdown() error {
	s.cancel()
	s.running.Wait()
	return errors.Join(s.mem.Close(), s.saveCopy())
}

// Range implements store.Store.
func (s *Store) Range(ctx context.Context, prefix string, fresh bool) ([]store.Pair, store.Revision, error) {
	if fresh {
		if err := s.Sync(ctx); err != nil {
			return nil, 0, fmt.Errorf("read %s: %w", prefix, err)
		}
	}
	return s.mem.Range(ctx, prefix, false)
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, prefix string) (<-chan []store.Event, error) {
	return s.mem.Watch(ctx, prefix)
}

// Txn implements store.Store.
func (s *Store) Txn(ctx context.Context, t store.Txn) (store.Revision, error) {
	if err := t.Validate(); err != nil {
		return 0, err
	}
	if t.ID == "" {
		t.ID = store.NewID() // makes the retries below harmless
	}
	rev, err := s.txn(ctx, t)
	if err != nil && !errdefs.IsConflict(err) {
		return 0, fmt.Errorf("apply transaction: %w", err)
	}
	return rev, err
}

func (s *Store) txn(ctx context.Context, t store.Txn) (store.Revision, error) {
	if err := s.begin(ctx); err != nil {
		return 0, err
	}
	defer s.end()
	// An answer without a write is about the present only if the journal was
	// read since the question came. A write needs no such proof: it happens
	// only where its writer stands.
	lost := uint64(0) // the version at which an append failed last
	for fresh, failures := false, 0; ; {
		stood := s.version
		rev, done, err := s.mem.Check(t)
		if done {
			return rev, nil
		}
		if s.read && err == nil && len(t.Then) > 0 {
			if rev, err = s.append(ctx, t); err == nil {
				return rev, nil
			}
			// Somebody was faster, or nobody knows whether it happened: the
			// journal does. A store may also be one that cannot be written to.
			if !errdefs.IsConflict(err) || stood == lost {
				failures++
			}
			if lost = stood; failures > 1 || ctx.Err() != nil {
				return 0, s.unreachable(ctx, err)
			}
		} else if fresh {
			return rev, err
		}
		if err := s.catchUp(ctx); err != nil {
			return 0, err
		}
		fresh = true
	}
}

// begin takes the turn, unless it is known already that there is no hope.
func (s *Store) begin(ctx context.Context) error {
	if err := s.Usable(); err != nil {
		return err
	}
	select {
	case <-s.turn:
	case <-ctx.Done():
		return fmt.Errorf("the cluster store %s did not answer in time: %s: %w", s.cfg.Name, context.Cause(ctx).Error(), errdefs.ErrUnavailable)
	case <-s.ctx.Done():
	}
	if err := s.Usable(); err != nil { // it may have gone while others had their turn
		if s.ctx.Err() == nil {
			s.end()
		}
		return err
	}
	return nil
}

func (s *Store) end() { s.turn <- struct{}{} }

// Sync brings the replica up to everything that was decided when it was called.
func (s *Store) Sync(ctx context.Context) error {
	wish := s.asked.Add(1)
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	if s.synced >= wish {
		return nil // another's began after this was asked
	}
	return s.catchUp(ctx)
}

// Usable says why nothing can be decided now; nil if the external store
// answered last time, or has not been asked yet.
func (s *Store) Usable() error {
	if s.ctx.Err() != nil {
		return store.ErrClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.away
}

// AppliedIndex is the number of the last entry that the replica holds.
func (s *Store) AppliedIndex() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applied
}

// WaitApplied returns when the replica holds entry index.
func (s *Store) WaitApplied(ctx context.Context, index uint64) error {
	for {
		s.mu.Lock()
		applied, changed := s.applied, s.changed
		s.mu.Unlock()
		if applied >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ctx.Done():
			return s.Usable()
		}
	}
}

// Journal is the name of the journal that is followed: two stores with the
// same name are the same store. Empty before the first entry.
func (s *Store) Journal() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.journal
}

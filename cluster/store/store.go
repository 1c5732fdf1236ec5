package store

import "context"

// Revision numbers the states of a store. Zero is the empty store in which
// nothing was ever written; as a condition it means "must not exist".
type Revision uint64

// Pair is one key with its value.
type Pair struct {
	Key   string
	Value []byte   // shared with the store: read it, never write into it
	Rev   Revision // of the transaction that wrote it last
}

// Cond is what must be true for a transaction to happen.
type Cond struct {
	Key string
	Rev Revision // the key's present revision; 0: the key must not exist
}

// Op is one change. The zero flags mean: put Value under Key.
type Op struct {
	Key    string
	Value  []byte
	Delete bool // delete Key; deleting what is not there is not an error
	Prefix bool // delete every key that begins with Key, whatever Delete says
}

// Txn is a set of changes that happens whole, if all conditions hold, or not
// at all. Then is applied in order; a later Op sees the earlier ones.
//
// A Txn without Then asks whether the conditions hold now.
type Txn struct {
	If   []Cond
	Then []Op

	// ID makes the transaction happen once however often it is sent: a store
	// that remembers the ID answers as it did the first time and changes
	// nothing. Only successes are remembered (a refused transaction left no
	// trace and may be tried again), and only recent ones, so an ID is for a
	// retry within minutes. Empty: the backend makes one up for its own
	// retries. Use a new one (see NewID) for every new intention.
	ID string
}

// Event is one change as a watcher sees it.
type Event struct {
	Pair    Pair // for a deleted key: the key, and the last value if it is known
	Deleted bool
	Rev     Revision // of the transaction that made the change
}

// Store is a map from keys to values that all hosts of a cluster share. All
// methods may be called from any number of goroutines.
//
// Errors are classes of github.com/containerd/errdefs:
//
//   - ErrInvalidArgument: the key or transaction can never be accepted (see
//     Txn.Validate).
//   - ErrConflict: a condition does not hold; errors.As finds a
//     *ConflictError that names the key.
//   - ErrUnavailable: no leader answered. The text says who was expected to.
//     The transaction may have happened (see Txn.ID).
//   - ErrFailedPrecondition: this host cannot take part any more (it was
//     closed, or met a command that its version does not know).
type Store interface {
	// Range returns the pairs whose keys begin with prefix, in the order of
	// their keys, and the revision of the state they were read from; all come
	// from the same state. An empty prefix means everything; no match is an
	// empty result, not an error.
	//
	// With fresh, the state is what the leader says now: it includes every
	// transaction that was answered before Range was called. Without, it is
	// this host's replica, at once, even when the host is alone, has no leader,
	// or has been closed.
	Range(ctx context.Context, prefix string, fresh bool) ([]Pair, Revision, error)

	// Txn checks t's conditions and applies its changes as one step in the
	// order of all transactions. It returns the revision at which t happened;
	// every pair it wrote carries that revision. When nothing was changed
	// (no Then, or only deletions of absent keys) it is the revision of the
	// state that was found.
	//
	// When Txn has returned, a fresh Range on any host sees the change, and so
	// does a Range that is not fresh on the host that called it.
	//
	// It returns at once when it is known that nobody can answer, and
	// otherwise no later than ctx ends.
	Txn(ctx context.Context, t Txn) (Revision, error)

	// Watch sends the present state below prefix as the first batch (one that
	// may be empty) and after it every change, in order, without a gap between
	// the two. A batch holds whole transactions. Events follow this host's
	// replica.
	//
	// A consumer may be as slow as it likes: its events wait. When too many
	// wait, they are replaced by the difference between what the consumer has
	// seen and the present state, so that a key changed twice shows once, and
	// the revision of a deletion may be later than the deletion itself; no
	// change is ever left out of that difference.
	//
	// The channel is closed when ctx ends or the store closes. Watch itself
	// fails only when the store is closed already.
	Watch(ctx context.Context, prefix string) (<-chan []Event, error)
}

// Get reads one key. ok is false when it does not exist.
func Get(ctx context.Context, s Store, key string, fresh bool) (p Pair, ok bool, err error) {
	pairs, _, err := s.Range(ctx, key, fresh)
	if err != nil || len(pairs) == 0 || pairs[0].Key != key {
		return Pair{}, false, err
	}
	// Keys are sorted, and a key sorts before every longer one it begins.
	return pairs[0], true, nil
}

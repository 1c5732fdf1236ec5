package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store"
)

// Politeness among hosts that write at once. Who has just won knows the
// journal's new end before anybody else and would win again and again.
const (
	rivalry  = 250 * time.Millisecond // how long another host's write counts as recent
	maxYield = 50 * time.Millisecond
)

// follow keeps the replica and the knowledge of whether the store is there up
// to date.
func (s *Store) follow() {
	for s.ctx.Err() == nil {
		if err := s.look(); err != nil {
			s.pause(retryPause)
			continue
		}
		s.await()
	}
}

// look is Sync that does not mind what is known to be away.
func (s *Store) look() error {
	select {
	case <-s.turn:
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
	defer s.end()
	return s.catchUp(s.ctx)
}

// await returns when there may be something to read, or after a heartbeat.
func (s *Store) await() {
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Heartbeat)
	defer cancel()
	s.mu.Lock()
	s.wake = cancel
	s.mu.Unlock()
	select {
	case <-s.turn:
	case <-s.ctx.Done():
		return
	}
	version := s.version
	s.end()
	if err := s.cfg.Remote.Wait(ctx, keyHead, version); err != nil && ctx.Err() == nil {
		s.pause(retryPause) // the next look tells what is wrong
	}
}

func (s *Store) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.ctx.Done():
	}
}

// errMoved says that what head spoke of has been deleted meanwhile.
var errMoved = errors.New("the journal moved on while it was read")

// catchUp reads the journal to its end; the caller has the turn.
func (s *Store) catchUp(ctx context.Context) error {
	for {
		covers := s.asked.Load()
		err := s.readOn(ctx)
		if errors.Is(err, errMoved) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return s.unreachable(ctx, err)
		}
		s.synced = covers
		s.reached()
		return nil
	}
}

func (s *Store) readOn(ctx context.Context) error {
	h, version, err := s.readHead(ctx)
	if err != nil {
		return err
	}
	if err := s.follows(h, version); err != nil {
		return err
	}
	if s.AppliedIndex() < h.oldest() {
		if err := s.readSnapshot(ctx, h); err != nil {
			return err
		}
	}
	for index := s.AppliedIndex() + 1; index <= h.Index; index++ {
		e, err := s.readEntry(ctx, index)
		if err != nil {
			return err
		}
		if e.By != s.cfg.By {
			s.rival = time.Now()
		}
		if _, err := s.apply(h.Journal, index, *e.Txn); err != nil {
			return err
		}
	}
	s.head, s.version, s.read = h, version, true
	return nil
}

func (s *Store) readHead(ctx context.Context) (h head, version uint64, err error) {
	b, version, err := s.get(ctx, keyHead)
	if err != nil || version == 0 {
		return h, 0, err
	}
	h, err = decodeHead(b)
	return h, version, err
}

// follows refuses a journal that is not the continuation of what the replica holds.
func (s *Store) follows(h head, version uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	const cure = "bring its content back, or begin anew: minictl cluster leave --force on every host, and restart their daemons"
	switch {
	case s.journal == "":
		return nil
	case version == 0:
		return fmt.Errorf("%s has lost this cluster's decisions: nothing is there, and this host knows %d of them: %s: %w", s.cfg.Name, s.applied, cure, errdefs.ErrFailedPrecondition)
	case h.Journal != s.journal:
		return fmt.Errorf("%s holds another cluster's decisions than this host's: %s: %w", s.cfg.Name, cure, errdefs.ErrFailedPrecondition)
	case h.Index < s.applied:
		return fmt.Errorf("%s was set back: it ends at decision %d, and this host knows %d: %s: %w", s.cfg.Name, h.Index, s.applied, cure, errdefs.ErrFailedPrecondition)
	}
	return nil
}

func (s *Store) get(ctx context.Context, key string) ([]byte, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.CallTimeout)
	defer cancel()
	return s.cfg.Remote.Get(ctx, key)
}

// readEntry reads an entry and, if it has any, its parts.
func (s *Store) readEntry(ctx context.Context, index uint64) (entry, error) {
	b, version, err := s.get(ctx, entryKey(index))
	if err != nil {
		return entry{}, err
	}
	if version == 0 {
		return entry{}, errMoved
	}
	e, err := decodeEntry(b)
	if err != nil || e.Txn != nil {
		return e, err
	}
	if b, err = s.readParts(ctx, prefixLog, index, e.Name, e.Parts); err != nil {
		return entry{}, err
	}
	t, err := decodeTxn(b)
	e.Txn = &t
	return e, err
}

func (s *Store) readParts(ctx context.Context, prefix string, index uint64, name string, parts int) ([]byte, error) {
	var all bytes.Buffer
	for i := range parts {
		b, version, err := s.get(ctx, partKey(prefix, index, name, i))
		if err != nil {
			return nil, err
		}
		if version == 0 {
			return nil, errMoved
		}
		all.Write(b)
	}
	return all.Bytes(), nil
}

// apply takes an entry into the replica.
func (s *Store) apply(journal string, index uint64, t store.Txn) (store.Revision, error) {
	// Its conditions held where it stands, or it would not stand there.
	rev, err := s.mem.Apply(store.Revision(index), store.Txn{ID: t.ID, Then: t.Then})
	if err != nil {
		return 0, err
	}
	s.advance(journal, index)
	return rev, nil
}

func (s *Store) advance(journal string, index uint64) {
	s.mu.Lock()
	s.journal, s.applied = journal, index
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	signal(s.save)
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default: // a token lies there already
	}
}

// append writes the next entry where the replica stands; ErrConflict if the
// journal has grown. The caller has the turn.
func (s *Store) append(ctx context.Context, t store.Txn) (store.Revision, error) {
	if wait := time.Until(s.yield); wait > 0 {
		s.pause(wait)
	}
	next := s.head
	if next.Index == 0 {
		next = head{Format: format, Journal: store.NewID()}
	}
	next.Index++
	value, err := s.encodeEntry(ctx, next.Index, t)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	version, err := s.swap(ctx, next, KV{entryKey(next.Index), value})
	if err != nil {
		return 0, err
	}
	s.head, s.version = next, version
	if now := time.Now(); now.Sub(s.rival) < rivalry {
		s.yield = now.Add(min(maxYield, time.Duration((1+2*rand.Float64())*float64(now.Sub(began)))))
	}
	if next.Index-next.oldest() >= uint64(s.cfg.SnapshotEvery) {
		signal(s.due)
	}
	return s.apply(next.Journal, next.Index, t)
}

// encodeEntry gives the entry's value; what does not fit into one is written
// beside it first, under a name that counts only if the entry does. If it does
// not, the next snapshot removes it.
func (s *Store) encodeEntry(ctx context.Context, index uint64, t store.Txn) ([]byte, error) {
	e := entry{Format: format, By: s.cfg.By, Txn: &store.Txn{ID: t.ID, Then: t.Then}}
	value, err := json.Marshal(e)
	if err != nil || len(value) <= partSize {
		return value, err
	}
	body, err := json.Marshal(e.Txn)
	if err != nil {
		return nil, err
	}
	e.Txn, e.Name = nil, store.NewID()
	if e.Parts, err = s.writeParts(ctx, prefixLog, index, e.Name, body); err != nil {
		return nil, err
	}
	return json.Marshal(e)
}

func (s *Store) writeParts(ctx context.Context, prefix string, index uint64, name string, body []byte) (int, error) {
	parts := cut(body)
	for i, part := range parts {
		call, cancel := context.WithTimeout(ctx, s.cfg.CallTimeout)
		err := s.cfg.Remote.Put(call, KV{partKey(prefix, index, name, i), part})
		cancel()
		if err != nil {
			return 0, err
		}
	}
	return len(parts), nil
}

func (s *Store) swap(ctx context.Context, h head, e KV) (uint64, error) {
	value, err := json.Marshal(h)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.CallTimeout)
	defer cancel()
	return s.cfg.Remote.Swap(ctx, s.version, KV{keyHead, value}, e)
}

// unreachable makes a failed call the store's state, unless it was the caller
// who gave up, and gives it its words and class.
func (s *Store) unreachable(ctx context.Context, err error) error {
	switch {
	case s.ctx.Err() != nil:
		return s.Usable()
	case errdefs.IsFailedPrecondition(err): // it answers, but not with what this host can follow
	case errdefs.IsDataLoss(err), errdefs.IsNotImplemented(err):
		err = fmt.Errorf("the cluster store %s: %w (%w)", s.cfg.Name, err, errdefs.ErrFailedPrecondition)
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		err = fmt.Errorf("the cluster store %s does not answer: nothing came within %v: %w", s.cfg.Name, s.cfg.CallTimeout, errdefs.ErrUnavailable)
	default: // of the cause only the text: its class is nobody's business
		err = fmt.Errorf("the cluster store %s does not answer: %s: %w", s.cfg.Name, err.Error(), errdefs.ErrUnavailable)
	}
	if ctx.Err() != nil {
		return err
	}
	s.mu.Lock()
	first := s.away == nil
	if s.away = err; first {
		s.since = time.Now()
	}
	wake := s.wake
	s.mu.Unlock()
	if first {
		s.log.Warn("the cluster store cannot be used; containers go on, decisions wait", "store", s.cfg.Name, "err", err)
	}
	wake() // the follower finds out when it is back
	return err
}

func (s *Store) reached() {
	s.mu.Lock()
	was, since := s.away, s.since
	s.away = nil
	s.mu.Unlock()
	if was != nil {
		s.log.Info("the cluster store answers again", "store", s.cfg.Name, "after", time.Since(since).Round(time.Millisecond))
	}
}

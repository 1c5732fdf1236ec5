package raft

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	hraft "github.com/hashicorp/raft"
	"github.com/minictl/minictl/cluster/store"
)

// Txn implements store.Store.
func (b *Backend) Txn(ctx context.Context, t store.Txn) (store.Revision, error) {
	if err := t.Validate(); err != nil {
		return 0, err
	}
	if t.ID == "" {
		t.ID = store.NewID() // makes the retries below harmless
	}
	var rev store.Revision
	err := b.ask(ctx, "apply transaction",
		func() (err error) {
			rev, err = b.LocalTxn(ctx, t)
			return err
		},
		func(leader string) (err error) {
			if rev, err = b.forward.Txn(ctx, leader, t); err == nil {
				// Whoever wrote may read it back here at once. When ctx ends
				// first, the transaction has happened all the same.
				_ = b.WaitApplied(ctx, uint64(rev))
			}
			return err
		})
	if err != nil {
		return 0, err
	}
	return rev, nil
}

// Range implements store.Store. One that is not fresh is answered after Close, too: with what the replica had at its end.
func (b *Backend) Range(ctx context.Context, prefix string, fresh bool) (pairs []store.Pair, rev store.Revision, err error) {
	if !fresh {
		return b.fsm.mem.Range(ctx, prefix, false)
	}
	err = b.ask(ctx, "read "+prefix,
		func() (err error) {
			pairs, rev, err = b.LocalRange(ctx, prefix)
			return err
		},
		func(leader string) (err error) {
			pairs, rev, err = b.forward.Range(ctx, leader, prefix)
			return err
		})
	return pairs, rev, err
}

// Watch implements store.Store.
func (b *Backend) Watch(ctx context.Context, prefix string) (<-chan []store.Event, error) {
	return b.fsm.mem.Watch(ctx, prefix)
}

// LocalTxn is Txn on the leader; ErrUnavailable on any other host. It is what
// a forwarded transaction ends in.
func (b *Backend) LocalTxn(ctx context.Context, t store.Txn) (store.Revision, error) {
	if err := t.Validate(); err != nil {
		return 0, err
	}
	if err := b.Usable(); err != nil {
		return 0, b.elsewhere("apply transaction", err)
	}
	if rev, decided, err := b.decided(ctx, t); decided {
		return rev, err
	}
	if err := b.makeRoom(t); err != nil {
		return 0, err
	}
	cmd, err := encodeCommand(t)
	if err != nil {
		return 0, fmt.Errorf("encode transaction: %w", err)
	}
	if ctx.Err() != nil {
		return 0, b.raftError("apply transaction", ctx.Err())
	}
	b.logged.begin(t.ID)
	answer, err := await(ctx, b, func() (any, error) {
		defer b.logged.end(t.ID)
		future := b.raft.Apply(cmd, 0)
		err := future.Error() // waits; there is no response before
		return future.Response(), err
	})
	if errdefs.IsResourceExhausted(err) && b.onlyVoter() {
		return 0, fmt.Errorf("apply transaction: %w", err) // another leader may have room, if there can be one
	}
	if err != nil {
		return 0, b.raftError("apply transaction", err)
	}
	b.nudges.tell()
	r, ok := answer.(result)
	if !ok {
		return 0, fmt.Errorf("apply transaction: raft answered %T: %w", answer, errdefs.ErrInternal)
	}
	return r.rev, r.err
}

// makeRoom refuses, on a host that alone decides, what would take the place on
// its full disk with which things can be removed there. Of several voters
// others may have room, and a leader cannot see it.
func (b *Backend) makeRoom(t store.Txn) error {
	if !b.onlyVoter() || !b.fsm.mem.Grows(t) {
		return nil
	}
	err := b.logs.db.Room()
	if !errdefs.IsResourceExhausted(err) {
		return nil // whatever else it is, the log will tell
	}
	return fmt.Errorf("apply transaction: %w", err)
}

// decided finds out whether a transaction has an answer already, without
// writing it to the log: when it was applied before, or conflicts with the
// present state. Hosts that race for the lowest address lose more often than
// they win, and an entry costs every voter a write to its disk.
func (b *Backend) decided(ctx context.Context, t store.Txn) (rev store.Revision, decided bool, err error) {
	if _, done, err := b.fsm.mem.Check(t); !done && err == nil {
		return 0, false, nil
	}
	if b.current(ctx, "apply transaction") != nil {
		return 0, false, nil // the log will tell
	}
	b.logged.mu.Lock() // so that none is applied between the two looks and has ended
	defer b.logged.mu.Unlock()
	if b.logged.ids[t.ID] > 0 {
		return 0, false, nil
	}
	rev, done, err := b.fsm.mem.Check(t)
	return rev, done || err != nil, err
}

// logged are the transactions with an ID that are in the leader's log, or on
// their way there, and not applied yet. Whoever asks again, for want of an
// answer, must not be told what is true before the first is applied.
type logged struct {
	mu  sync.Mutex
	ids map[string]int
}

func (l *logged) begin(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if id == "" {
		return
	}
	if l.ids == nil {
		l.ids = map[string]int{}
	}
	l.ids[id]++
}

func (l *logged) end(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ids[id] > 1 {
		l.ids[id]--
	} else {
		delete(l.ids, id)
	}
}

// LocalRange is a fresh Range on the leader; ErrUnavailable on any other host.
func (b *Backend) LocalRange(ctx context.Context, prefix string) ([]store.Pair, store.Revision, error) {
	if err := b.Usable(); err != nil {
		return nil, 0, b.elsewhere("read "+prefix, err)
	}
	if err := b.current(ctx, "read "+prefix); err != nil {
		return nil, 0, err
	}
	return b.fsm.mem.Range(ctx, prefix, true)
}

// current returns nil when the leader's replica holds all that had been
// answered when it was called.
//
// All it takes is a leader that has applied what its predecessors promised
// (b.leader.ready) and that is still the leader after the question was asked
// (confirmer): what it promised itself, it applied before it answered.
func (b *Backend) current(ctx context.Context, what string) error {
	if !b.IsLeader() {
		return b.raftError(what, hraft.ErrNotLeader)
	}
	b.leader.mu.Lock()
	ready, changed, term := b.leader.ready, b.leader.changed, b.leader.term
	b.leader.mu.Unlock()
	select {
	case <-ready:
	case <-changed:
		return b.raftError(what, hraft.ErrLeadershipLost)
	case <-ctx.Done():
		return b.raftError(what, ctx.Err())
	case <-b.ctx.Done(): // it leads, has not applied what was before it, and never will
		return b.Usable()
	}
	if err := b.confirms.confirm(ctx, changed); err != nil {
		return b.raftError(what, err)
	}
	if b.raft.CurrentTerm() != term {
		// It leads again, after somebody else: ready was about the first time.
		return b.raftError(what, hraft.ErrLeadershipLost)
	}
	return nil
}

// ask finds the leader and puts a question to it, here or elsewhere, until
// there is an answer, no hope for one, or no time. Both questions may be asked
// any number of times.
func (b *Backend) ask(ctx context.Context, what string, here func() error, there func(leader string) error) error {
	var last error
	for pause := retryPause; ; pause = min(2*pause, maxPause) {
		changed := b.LeaderChanged()
		leader, known := b.Leader()
		if err := b.Usable(); err != nil {
			return err
		}
		switch {
		case known && leader == b.node:
			last = here()
		case known && b.forward == nil:
			return fmt.Errorf("%s: host %s is the leader and there is no way to ask it: %w", what, leader, errdefs.ErrUnavailable)
		case known:
			last = there(leader)
		}
		if known && (last == nil || !errdefs.IsUnavailable(last) && ctx.Err() == nil) {
			return last
		}
		// Raft still believes in a leader that refused: it takes a heartbeat
		// time-out to learn of a death, and a broken connection need not be one.
		until := time.Now().Add(pause)
		if !known {
			if b.logs.room() != nil && b.onlyVoter() {
				if err := b.logs.probe(); err != nil {
					return fmt.Errorf("%s: %w", what, err) // and no leader until there is room
				}
			}
			var who string
			if until, who = b.expected(); !time.Now().Before(until) {
				return noLeader(what, who, last)
			}
		}
		if b.pause(ctx, until, changed); ctx.Err() != nil {
			return b.timeout(ctx, what, last)
		}
	}
}

// pause waits for a change that may bring a leader that answers.
func (b *Backend) pause(ctx context.Context, until time.Time, changed <-chan struct{}) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
	case <-b.ctx.Done():
	}
}

func noLeader(what, who string, last error) error {
	if last != nil {
		return fmt.Errorf("%s: no leader: %s: %w", what, who, last)
	}
	return fmt.Errorf("%s: no leader: %s: %w", what, who, errdefs.ErrUnavailable)
}

// timeout is Unavailable before it is anything else: ctx may have been ended
// because no leader can be heard, and not by whoever asked.
func (b *Backend) timeout(ctx context.Context, what string, last error) error {
	if last == nil {
		_, who := b.expected()
		last = errors.New(who)
	}
	return fmt.Errorf("%s: no leader answered in time: %s (%w, %w)", what, last.Error(), errdefs.ErrUnavailable, context.Cause(ctx))
}

// Usable says why this replica answers nothing any more: it follows the others no further (Err), or is closed.
func (b *Backend) Usable() error {
	if err := b.fsm.failed(); err != nil {
		return fmt.Errorf("the store stopped on this host: %w (%w)", err, errdefs.ErrFailedPrecondition)
	}
	if b.ctx.Err() != nil {
		return store.ErrClosed
	}
	return nil
}

// elsewhere answers for a host that takes no part any more: whoever asked from
// another host will find the next leader. Its own class would end that.
func (b *Backend) elsewhere(what string, err error) error {
	return fmt.Errorf("%s: host %s leads no more: %s: %w", what, b.node, err.Error(), errdefs.ErrUnavailable)
}

// raftError gives raft's errors a class. All of them mean: not here, not now.
func (b *Backend) raftError(what string, err error) error {
	if errdefs.IsResourceExhausted(err) { // here; the next leader may have room
		return fmt.Errorf("%s: host %s: %s: %w", what, b.node, err.Error(), errdefs.ErrUnavailable)
	}
	if errors.Is(err, hraft.ErrNotLeader) {
		if leader, ok := b.Leader(); ok {
			return fmt.Errorf("%s: host %s is the leader, not %s: %w", what, leader, b.node, errdefs.ErrUnavailable)
		}
		return fmt.Errorf("%s: host %s is not the leader: %w", what, b.node, errdefs.ErrUnavailable)
	}
	return fmt.Errorf("%s: %w (%w)", what, err, errdefs.ErrUnavailable)
}

// await waits for a raft future no longer than ctx. The future itself cannot
// be called off: raft answers it when it commits, loses its leadership or
// shuts down, and until then one goroutine waits for that.
func await[T any](ctx context.Context, b *Backend, future func() (T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	done := make(chan answer, 1)
	if !b.asked.begin() {
		var none T
		return none, hraft.ErrRaftShutdown
	}
	go func() {
		v, err := future()
		b.asked.end()
		done <- answer{v, err}
	}()
	select {
	case a := <-done:
		return a.v, a.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	case <-b.gone:
		select {
		case a := <-done:
			return a.v, a.err
		default:
			var none T
			return none, hraft.ErrRaftShutdown
		}
	}
}

// awaitFuture is await for a future that answers nothing but yes.
func awaitFuture[F hraft.Future](ctx context.Context, b *Backend, do func() F) error {
	_, err := await(ctx, b, func() (struct{}, error) { return struct{}{}, do().Error() })
	return err
}

// questions counts what raft was asked and has not answered.
type questions struct {
	mu     sync.Mutex
	open   int
	closed bool
}

// begin is false once no more may be asked.
func (q *questions) begin() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.open++
	}
	return !q.closed
}

func (q *questions) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open--
}

// close lets no more be asked, and tells how many wait.
func (q *questions) close() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	return q.open
}

// answered lets nothing more be asked, and waits a little until raft has
// answered all it was: what it has agreed on and has not applied yet when it
// shuts down is never answered, and whoever awaits that stays for ever.
func (b *Backend) answered() {
	late := time.After(answerGrace)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for b.asked.close() > 0 {
		select {
		case <-tick.C:
		case <-late:
			return
		}
	}
}

func list(ids []string) string { return strings.Join(ids, ", ") }

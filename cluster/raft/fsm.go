package raft

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/errdefs"
	hraft "github.com/hashicorp/raft"
	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/store/memstore"
)

// fsm is raft's state machine: commands in, a memstore out. It has no clock
// and no randomness; every host that applied the same entries is the same.
type fsm struct {
	mem  *memstore.Store
	dead chan struct{} // closed when this replica can follow no further

	mu      sync.Mutex
	applied uint64        // index of the last command applied
	changed chan struct{} // closed when applied grows
	err     error         // why nothing is applied any more; set before dead closes
}

// result is what applying a command answers to the one that proposed it.
type result struct {
	rev store.Revision
	err error
}

func newFSM() *fsm {
	return &fsm{mem: memstore.New(), dead: make(chan struct{}), changed: make(chan struct{})}
}

// Apply implements raft.FSM. A command that cannot be understood ends the
// replica: it keeps the state it has, and never reaches a later one that
// differs from everybody else's.
func (f *fsm) Apply(entry *hraft.Log) any {
	if err := f.failed(); err != nil {
		return result{err: err}
	}
	if entry.Index <= f.index() {
		return result{} // known from before a restart; nobody waits for it
	}
	t, err := decodeCommand(entry.Data)
	if err != nil {
		err = fmt.Errorf("apply entry %d: %w", entry.Index, err)
		f.fail(err)
		return result{err: err}
	}
	rev, err := f.mem.Apply(store.Revision(entry.Index), t)
	f.advance(entry.Index)
	return result{rev, err}
}

// Snapshot implements raft.FSM.
func (f *fsm) Snapshot() (hraft.FSMSnapshot, error) {
	if err := f.failed(); err != nil {
		// The entry that was not understood must stay in the log.
		return nil, err
	}
	return &snapshot{state: f.mem.Snapshot(), applied: f.index()}, nil
}

// Restore implements raft.FSM. A snapshot from before what the replica holds
// is read and dropped: a replica never goes back.
func (f *fsm) Restore(r io.ReadCloser) error {
	s, err := readSnapshot(r)
	if err == nil && s.applied <= f.index() {
		return nil
	}
	if err == nil {
		err = f.mem.Restore(s.state)
	}
	if err != nil {
		if errdefs.IsNotImplemented(err) {
			f.fail(err)
		}
		return err
	}
	f.advance(s.applied)
	return nil
}

func (f *fsm) advance(index uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = index
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fsm) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
		close(f.dead)
	}
}

func (f *fsm) failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *fsm) index() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.applied
}

// wait returns when the command at index has been applied.
func (f *fsm) wait(ctx context.Context, index uint64) error {
	for {
		f.mu.Lock()
		applied, changed, err := f.applied, f.changed, f.err
		f.mu.Unlock()
		switch {
		case applied >= index:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for entry %d: this host has applied %d: %w", index, applied, ctx.Err())
		}
	}
}

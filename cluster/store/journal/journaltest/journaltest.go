// Package journaltest is an external store in memory, for tests of what is
// built on a journal. It can be switched off, and lose what it would have
// answered.
package journaltest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store/journal"
)

// ErrDown is what a store says that is switched off.
var ErrDown = errors.New("connection refused")

// Remote is a journal.Remote. The zero value is empty and on.
type Remote struct {
	mu      sync.Mutex
	m       map[string]item
	version uint64
	down    bool
	lose    int           // answers of Swap to lose
	moved   chan struct{} // closed at the next change
}

type item struct {
	value   []byte
	version uint64
}

var _ journal.Remote = (*Remote)(nil)

// Down switches the store off, or on again.
func (r *Remote) Down(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
	r.tell()
}

// LoseAnswers makes the next n swaps happen, and fail.
func (r *Remote) LoseAnswers(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lose = n
}

// All copies what is there.
func (r *Remote) All() map[string][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string][]byte{}
	for k, i := range r.m {
		all[k] = i.value
	}
	return all
}

// Set replaces everything, as somebody with other tools might.
func (r *Remote) Set(all map[string][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.m = nil
	for k, v := range all {
		r.put(k, v)
	}
	r.tell()
}

func (r *Remote) put(key string, value []byte) {
	if r.m == nil {
		r.m = map[string]item{}
	}
	r.version++
	r.m[key] = item{slices.Clone(value), r.version}
}

func (r *Remote) tell() {
	if r.moved != nil {
		close(r.moved)
		r.moved = nil
	}
}

// do runs fn unless the store is off.
func (r *Remote) do(ctx context.Context, fn func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return ErrDown
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return fn()
}

// Get implements journal.Remote.
func (r *Remote) Get(ctx context.Context, key string) (value []byte, version uint64, err error) {
	err = r.do(ctx, func() error {
		i := r.m[key]
		value, version = i.value, i.version
		return nil
	})
	return value, version, err
}

// Swap implements journal.Remote.
func (r *Remote) Swap(ctx context.Context, version uint64, head, entry journal.KV) (now uint64, err error) {
	err = r.do(ctx, func() error {
		if r.m[head.Key].version != version {
			return errdefs.ErrConflict
		}
		if entry.Key != "" {
			r.put(entry.Key, entry.Value)
		}
		r.put(head.Key, head.Value)
		now = r.version
		r.tell()
		if r.lose > 0 {
			r.lose--
			return ErrDown
		}
		return nil
	})
	return now, err
}

// Put implements journal.Remote.
func (r *Remote) Put(ctx context.Context, kv journal.KV) error {
	return r.do(ctx, func() error { r.put(kv.Key, kv.Value); return nil })
}

// Keys implements journal.Remote.
func (r *Remote) Keys(ctx context.Context, prefix string) (keys []string, err error) {
	err = r.do(ctx, func() error {
		keys = slices.DeleteFunc(slices.Sorted(maps.Keys(r.m)), func(k string) bool { return !strings.HasPrefix(k, prefix) })
		return nil
	})
	return keys, err
}

// Delete implements journal.Remote.
func (r *Remote) Delete(ctx context.Context, keys ...string) error {
	return r.do(ctx, func() error {
		for _, k := range keys {
			delete(r.m, k)
		}
		r.tell()
		return nil
	})
}

// Wait implements journal.Remote.
func (r *Remote) Wait(ctx context.Context, key string, version uint64) error {
	var moved chan struct{}
	err := r.do(ctx, func() error {
		if r.m[key].version != version {
			return nil
		}
		if r.moved == nil {
			r.moved = make(chan struct{})
		}
		moved = r.moved
		return nil
	})
	if err != nil || moved == nil {
		return err
	}
	select {
	case <-moved:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

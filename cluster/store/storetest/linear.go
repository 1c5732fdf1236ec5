package storetest

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/minictl/minictl/cluster/store"
)

// checkAllocation is what the store is for: several hosts give out the lowest
// free address at the same time, by compare and swap. No address is ever given
// twice, none is left out.
func checkAllocation(t *testing.T, h *hosts) {
	const allocators, each = 5, 12
	var wg sync.WaitGroup
	var mu sync.Mutex
	holder := map[string]string{}
	for n := range allocators {
		s := h.stores[n%len(h.stores)]
		wg.Go(func() {
			for i := range each {
				me := fmt.Sprintf("host%d-%d", n, i)
				addr, err := allocate(h, s, me)
				if err != nil {
					t.Errorf("%s: %v", me, err)
					return
				}
				mu.Lock()
				if other, taken := holder[addr]; taken {
					t.Errorf("%s was given to %s and to %s", addr, other, me)
				}
				holder[addr] = me
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	pairs, _, err := h.next().Range(h.ctx, "address/", true)
	if err != nil || len(pairs) != allocators*each {
		t.Fatalf("%d addresses are taken, want %d: %v", len(pairs), allocators*each, err)
	}
	next := netip.MustParseAddr("10.0.0.2")
	for range pairs {
		if holder[next.String()] == "" {
			t.Errorf("%s is free below a taken one", next)
		}
		next = next.Next()
	}
}

func allocate(h *hosts, s store.Store, owner string) (string, error) {
	for {
		// A stale read only costs another round; the condition decides.
		pairs, _, err := s.Range(h.ctx, "address/", rand.IntN(2) == 0)
		if err != nil {
			return "", err
		}
		taken := map[string]bool{}
		for _, p := range pairs {
			taken[p.Key] = true
		}
		addr := netip.MustParseAddr("10.0.0.2")
		for taken["address/"+addr.String()] {
			addr = addr.Next()
		}
		key := "address/" + addr.String()
		_, err = s.Txn(h.ctx, store.Txn{If: []store.Cond{{Key: key}}, Then: puts(key + "=" + owner)})
		if !errdefs.IsConflict(err) {
			return addr.String(), err
		}
	}
}

// call is one call as its caller saw it.
type call struct {
	start, end time.Time
	txn        store.Txn // Then is nil for a fresh Range
	rev        store.Revision
	pairs      []store.Pair
	conflict   *store.ConflictError
}

// checkLinearizable runs random calls from all hosts at once and then looks
// for an order that explains them all. Revisions make that easy: they name the
// order. What is left to check is that the order agrees with the clock, and
// every answer with the order.
func checkLinearizable(t *testing.T, h *hosts) {
	const callers, each = 6, 40
	var mu sync.Mutex
	var calls []call
	var wg sync.WaitGroup
	for n := range callers {
		rng := rand.New(rand.NewPCG(uint64(n), 1))
		known := map[string]store.Revision{}
		wg.Go(func() {
			for range each {
				c, err := randomCall(h, h.stores[rng.IntN(len(h.stores))], rng, known)
				if err != nil {
					t.Errorf("caller %d: %v", n, err)
					return
				}
				mu.Lock()
				calls = append(calls, c)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if !t.Failed() {
		if err := explain(calls); err != nil {
			t.Fatal(err)
		}
	}
}

// randomCall compares and swaps, deletes, or reads. It compares with what the
// caller knows from a replica, now or from earlier, so that some swaps are
// bound to be refused.
func randomCall(h *hosts, s store.Store, rng *rand.Rand, known map[string]store.Revision) (c call, err error) {
	key := fmt.Sprintf("reg/%d", rng.IntN(4))
	if rng.IntN(3) > 0 {
		seen, _, err := store.Get(h.ctx, s, key, false)
		if err != nil {
			return c, err
		}
		known[key] = seen.Rev
	}
	c.start = time.Now()
	switch n := rng.IntN(10); {
	case n < 3:
		c.pairs, c.rev, err = s.Range(h.ctx, "reg/", true)
	case n < 5:
		c.txn = store.Txn{Then: []store.Op{{Key: key, Delete: true}}}
		c.rev, err = s.Txn(h.ctx, c.txn)
	default:
		c.txn = store.Txn{If: []store.Cond{{Key: key, Rev: known[key]}}, Then: puts(fmt.Sprintf("%s=%d", key, rng.Uint64()))}
		c.rev, err = s.Txn(h.ctx, c.txn)
	}
	c.end = time.Now()
	if errors.As(err, &c.conflict) {
		err = nil
	}
	return c, err
}

// explain returns nil if the calls are linearizable.
func explain(calls []call) error {
	states, err := replay(calls)
	if err != nil {
		return err
	}
	for _, c := range calls {
		// All that ended before c began is before it, all that began after c
		// ended is after it. (Refusals have no revision of their own.)
		low, high := store.Revision(0), states[len(states)-1].rev
		for _, o := range calls {
			if o.conflict == nil && o.end.Before(c.start) {
				low = max(low, o.rev)
			}
			if o.conflict == nil && c.end.Before(o.start) {
				high = min(high, o.rev)
			}
		}
		if low > high {
			return fmt.Errorf("call %+v: what ended before it is at revision %d, what began after it at %d", c, low, high)
		}
		if err := c.fits(states, low, high); err != nil {
			return err
		}
	}
	return nil
}

// state is the whole store at a revision.
type state struct {
	rev   store.Revision
	pairs map[string]store.Pair
}

// replay carries out the transactions in the order of their revisions.
func replay(calls []call) ([]state, error) {
	states := []state{{pairs: map[string]store.Pair{}}}
	calls = slices.Clone(calls)
	slices.SortStableFunc(calls, func(a, b call) int { return cmp.Compare(a.rev, b.rev) })
	for _, c := range calls {
		last := states[len(states)-1]
		if c.conflict != nil || len(c.txn.Then) == 0 {
			continue
		}
		op := c.txn.Then[0]
		_, had := last.pairs[op.Key]
		if op.Delete && (!had || c.rev == last.rev) {
			continue // it found nothing, and reports the state it saw; see fits
		}
		if c.rev <= last.rev {
			return nil, fmt.Errorf("two writes have revision %d", c.rev)
		}
		for _, cond := range c.txn.If {
			if have := last.pairs[cond.Key].Rev; have != cond.Rev {
				return nil, fmt.Errorf("revision %d was written over %q at %d, on condition that it be at %d", c.rev, cond.Key, have, cond.Rev)
			}
		}
		next := state{rev: c.rev, pairs: map[string]store.Pair{}}
		for k, p := range last.pairs {
			next.pairs[k] = p
		}
		if op.Delete {
			delete(next.pairs, op.Key)
		} else {
			next.pairs[op.Key] = store.Pair{Key: op.Key, Value: op.Value, Rev: c.rev}
		}
		states = append(states, next)
	}
	return states, nil
}

// fits checks a call's answer against the states it may have seen.
func (c call) fits(states []state, low, high store.Revision) error {
	for _, s := range states {
		if s.rev < low || s.rev > high {
			continue
		}
		switch {
		case c.conflict != nil:
			if s.pairs[c.conflict.Key].Rev == c.conflict.Have && c.conflict.Have != c.conflict.Want {
				return nil
			}
		case s.rev != c.rev:
		case c.txn.Then == nil:
			var want []store.Pair
			for _, p := range s.pairs {
				want = append(want, p)
			}
			slices.SortFunc(want, func(a, b store.Pair) int { return cmp.Compare(a.Key, b.Key) })
			if text(want) == text(c.pairs) {
				return nil
			}
		case c.txn.Then[0].Delete:
			if _, there := s.pairs[c.txn.Then[0].Key]; !there {
				return nil
			}
		default:
			return nil // replay has checked it
		}
	}
	return fmt.Errorf("no state between revisions %d and %d explains %+v", low, high, c)
}

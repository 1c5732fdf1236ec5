package storetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/minictl/minictl/cluster/store"
)

// view is what a watcher knows from its events alone.
type view struct {
	t     *testing.T
	ch    <-chan []store.Event
	pairs map[string]store.Pair
	rev   store.Revision // the highest seen
}

func (h *hosts) watch(s store.Store, prefix string) *view {
	h.t.Helper()
	ch, err := s.Watch(h.ctx, prefix)
	if err != nil {
		h.t.Fatalf("watch %q: %v", prefix, err)
	}
	return &view{t: h.t, ch: ch, pairs: map[string]store.Pair{}}
}

// batch waits for one batch and takes it in.
func (v *view) batch() []store.Event {
	v.t.Helper()
	select {
	case batch, ok := <-v.ch:
		if !ok {
			v.t.Fatal("the watch ended")
		}
		for _, e := range batch {
			v.take(e)
		}
		return batch
	case <-time.After(patience):
		v.t.Fatalf("no batch for %v; the watcher is at revision %d", patience, v.rev)
		return nil
	}
}

func (v *view) take(e store.Event) {
	v.t.Helper()
	old, known := v.pairs[e.Pair.Key]
	switch {
	case e.Rev == 0:
		v.t.Fatalf("event without a revision: %+v", e)
	case e.Deleted && !known:
		v.t.Fatalf("deletion of the unknown %q", e.Pair.Key)
	case e.Rev <= old.Rev:
		v.t.Fatalf("event %+v after revision %d of the key", e, old.Rev)
	}
	if e.Deleted {
		delete(v.pairs, e.Pair.Key)
	} else {
		if e.Pair.Rev != e.Rev {
			v.t.Fatalf("event %+v carries a pair of another revision", e)
		}
		v.pairs[e.Pair.Key] = e.Pair
	}
	v.rev = max(v.rev, e.Rev)
}

// until takes batches in until the watcher has seen rev.
func (v *view) until(rev store.Revision) {
	v.t.Helper()
	for v.rev < rev {
		v.batch()
	}
}

func (v *view) text() string {
	pairs := slices.Collect(maps.Values(v.pairs))
	slices.SortFunc(pairs, func(a, b store.Pair) int {
		if a.Key < b.Key {
			return -1
		}
		return 1
	})
	return text(pairs)
}

func (v *view) want(want string) {
	v.t.Helper()
	if got := v.text(); got != want {
		v.t.Fatalf("the watcher knows %q, want %q", got, want)
	}
}

func checkWatch(t *testing.T, h *hosts) {
	for i, s := range h.stores {
		prefix := fmt.Sprintf("w%d/", i)
		empty := h.watch(s, prefix)
		if first := empty.batch(); len(first) != 0 {
			t.Fatalf("the first batch of nothing is %v", first)
		}
		r1 := h.put(prefix+"a=1", "other=1")
		empty.until(r1)
		empty.want(prefix + "a=1")

		rev := h.put(prefix + "b=2")
		empty.until(rev)
		full := h.watch(s, prefix)
		if full.batch(); full.rev != rev {
			t.Fatalf("the first batch ends at revision %d, want %d", full.rev, rev)
		}
		full.want(prefix + "a=1 " + prefix + "b=2")

		gone := h.must(store.Txn{Then: []store.Op{{Key: prefix + "a", Delete: true}}})
		last := h.put(prefix + "b=3")
		for _, v := range []*view{empty, full} {
			v.until(gone)
			v.until(last)
			v.want(prefix + "b=3")
		}
	}
}

// checkWatchWhole: a batch never ends inside a transaction, and shows nothing
// but a transaction's net effect.
func checkWatchWhole(t *testing.T, h *hosts) {
	v := h.watch(h.stores[len(h.stores)-1], "")
	v.batch()
	for i := range 50 {
		n := fmt.Sprint(i)
		h.must(store.Txn{Then: append(puts("x=no", "x="+n, "y="+n, "z=no"), store.Op{Key: "z", Delete: true})})
	}
	for string(v.pairs["y"].Value) != "49" {
		v.batch()
		if x, y := v.pairs["x"], v.pairs["y"]; x.Rev != y.Rev || string(x.Value) != string(y.Value) {
			t.Fatalf("half a transaction: x=%s y=%s", x.Value, y.Value)
		}
		if z, ok := v.pairs["z"]; ok {
			t.Fatalf("z was never there, but %+v", z)
		}
	}
}

// checkWatchNoGap starts watchers in the middle of a stream of writes. Each
// must see every revision after its first batch.
func checkWatchNoGap(t *testing.T, h *hosts) {
	const writes = 200
	go func() {
		for i := range writes {
			if _, err := h.stores[0].Txn(h.ctx, store.Txn{Then: puts(fmt.Sprintf("k%03d=%d", i, i), "last="+fmt.Sprint(i))}); err != nil {
				t.Errorf("write %d: %v", i, err)
				return
			}
		}
	}()
	var views []*view
	for i := range 20 {
		v := h.watch(h.stores[i%len(h.stores)], "k")
		v.batch()
		views = append(views, v)
	}
	for _, v := range views {
		for len(v.pairs) < writes {
			before := len(v.pairs)
			for i, e := range v.batch() {
				if want := fmt.Sprintf("k%03d", before+i); e.Pair.Key != want {
					t.Fatalf("the watcher got %s, but %s comes next", e.Pair.Key, want)
				}
			}
		}
	}
}

// checkWatchSlow changes more than a watch may keep for a consumer that is
// not reading; it must still come to know the truth, deletions included.
func checkWatchSlow(t *testing.T, h *hosts) {
	s := h.stores[len(h.stores)-1]
	h.put("keep=0", "drop=0", "late=0")
	v := h.watch(s, "")
	// What a full buffer would lose first is what nothing later repeats.
	h.must(store.Txn{Then: append(puts("keep=1"), store.Op{Key: "drop", Delete: true})})
	const rounds, keys = 30, 253 // more events than any reasonable buffer
	for i := range rounds {
		var ops []store.Op
		for k := range keys {
			ops = append(ops, store.Op{Key: fmt.Sprintf("churn/%d/%d", i, k), Value: []byte("x")})
		}
		if i > 0 {
			ops = append(ops, store.Op{Key: fmt.Sprintf("churn/%d/", i-1), Prefix: true})
		}
		h.must(store.Txn{Then: ops})
	}
	h.must(store.Txn{Then: []store.Op{{Key: "churn/", Prefix: true}}})
	// What came and went while nobody looked leaves no difference, and no
	// batch, behind; only the next change must show.
	end := h.put("late=1")
	v.until(end)
	v.want("keep=1 late=1")
	if got := h.dump(""); got != v.text() {
		t.Fatalf("the store holds %q, the watcher knows %q", got, v.text())
	}
}

func checkWatchEnds(t *testing.T, h *hosts) {
	for _, reading := range []bool{true, false} {
		ctx, cancel := context.WithCancel(h.ctx)
		ch, err := h.next().Watch(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		if reading {
			<-ch
		}
		h.put("k=1") // a batch may wait when the end comes
		cancel()
		deadline := time.After(patience)
		for open := true; open; {
			select {
			case _, open = <-ch:
			case <-deadline:
				t.Fatalf("the channel is still open %v after the context ended", patience)
			}
		}
	}
}

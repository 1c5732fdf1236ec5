package cluster

import (
	"context"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/store/memstore"
)

// TestWatchOverAReplacedStore: to a watcher, another store in the place of the first is a change like any other.
func TestWatchOverAReplacedStore(t *testing.T) {
	t.Parallel()
	first, second := memstore.New(), memstore.New()
	fill := func(s store.Store, pairs ...string) {
		var ops []store.Op
		for _, k := range pairs {
			ops = append(ops, store.Op{Key: k, Value: []byte(k)})
		}
		if _, err := s.Txn(t.Context(), store.Txn{Then: ops}); err != nil {
			t.Fatal(err)
		}
	}
	fill(first, "n/gone", "n/both")
	fill(second, "n/both", "n/new")
	s := newStable(first)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, err := s.Watch(ctx, "n/")
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want string) {
		t.Helper()
		got := ""
		for _, e := range <-events {
			sign := "+"
			if e.Deleted {
				sign = "-"
			}
			got += sign + e.Pair.Key + " "
		}
		if got != want {
			t.Fatalf("watcher saw %q, want %q", got, want)
		}
	}
	expect("+n/both +n/gone ")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	s.replace(second)
	expect("-n/gone +n/both +n/new ")
	fill(second, "n/later")
	expect("+n/later ")
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	s.close()
	if batch, open := <-events; open {
		t.Fatalf("after close: %v", fmt.Sprint(batch))
	}
	if _, err := s.Watch(ctx, "n/"); err == nil {
		t.Error("a closed cluster can be watched")
	}
}

// TestBetweenTwoStores: what is asked of a store that has been closed, before another follows, nobody can decide now: whoever
// has another way may take it. After the last store's end there is no other.
func TestBetweenTwoStores(t *testing.T) {
	t.Parallel()
	first := memstore.New()
	s := newStable(first)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	ask := func() error {
		_, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{{Key: "k"}}})
		return err
	}
	if err := ask(); !errdefs.IsUnavailable(err) || errdefs.IsFailedPrecondition(err) {
		t.Errorf("between two stores: %v", err)
	}
	events, err := s.Watch(t.Context(), "k")
	if err != nil {
		t.Fatal("watch between two stores:", err)
	}
	s.replace(memstore.New())
	if batch := <-events; len(batch) != 0 {
		t.Errorf("first the watcher saw %v", batch)
	}
	if err := ask(); err != nil {
		t.Errorf("in the new one: %v", err)
	}
	if batch := <-events; len(batch) != 1 || batch[0].Pair.Key != "k" {
		t.Errorf("then the watcher saw %v", batch)
	}
	s.replace(first)
	s.close()
	if err := ask(); !errdefs.IsFailedPrecondition(err) || errdefs.IsUnavailable(err) {
		t.Errorf("after the end: %v", err)
	}
}

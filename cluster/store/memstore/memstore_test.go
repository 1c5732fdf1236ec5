package memstore

import (
	"context"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/store/storetest"
)

func open(t testing.TB) *Store {
	t.Helper()
	s := New()
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) []store.Store { return []store.Store{open(t)} })
}

func put(t testing.TB, s *Store, id, key, value string) store.Revision {
	t.Helper()
	rev, err := s.Txn(t.Context(), store.Txn{ID: id, Then: []store.Op{{Key: key, Value: []byte(value)}}})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// TestIDsAreBounded: the oldest IDs are forgotten, at the same moment in a
// store that was restored in between.
func TestIDsAreBounded(t *testing.T) {
	s, copied := open(t), open(t)
	for i := range maxIDs {
		put(t, s, fmt.Sprint("id", i), "k", "x")
	}
	if err := copied.Restore(s.Snapshot()); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*Store{"original": s, "restored": copied} {
		last := s.Snapshot().Rev
		if rev := put(t, s, "id0", "k", "again"); rev != 1 {
			t.Errorf("%s: the oldest ID was applied twice, at %d", name, rev)
		}
		put(t, s, "one more", "k", "x")
		if rev := put(t, s, "id0", "k", "again"); rev <= last {
			t.Errorf("%s: a forgotten ID was answered %d", name, rev)
		}
		if n := len(s.Snapshot().IDs); n != maxIDs || len(s.idRev) != maxIDs {
			t.Errorf("%s: remembers %d IDs, want %d", name, n, maxIDs)
		}
	}
}

// TestRestoreUnderWatch: a watcher sees the difference that a snapshot makes.
func TestRestoreUnderWatch(t *testing.T) {
	s, other := open(t), open(t)
	put(t, s, "", "same", "1")
	put(t, s, "", "gone", "1")
	put(t, s, "", "changed", "1")
	if err := other.Restore(s.Snapshot()); err != nil {
		t.Fatal(err)
	}
	ch, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if first := <-ch; len(first) != 3 {
		t.Fatalf("first batch: %+v", first)
	}
	if _, err := other.Txn(t.Context(), store.Txn{Then: []store.Op{{Key: "gone", Delete: true}}}); err != nil {
		t.Fatal(err)
	}
	put(t, other, "", "changed", "2")
	put(t, other, "", "new", "1")
	if err := s.Restore(other.Snapshot()); err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, e := range <-ch {
		got += fmt.Sprintf("%s=%s,%v,%d ", e.Pair.Key, e.Pair.Value, e.Deleted, e.Rev)
	}
	if want := "gone=,true,6 changed=2,false,5 new=1,false,6 "; got != want {
		t.Errorf("the watcher got %q, want %q", got, want)
	}
}

func TestRestoreRefusesDisorder(t *testing.T) {
	s := open(t)
	put(t, s, "", "kept", "1")
	for _, keys := range [][]string{{"b", "a"}, {"a", "a"}} {
		var st State
		for _, k := range keys {
			st.Pairs = append(st.Pairs, store.Pair{Key: k, Rev: 1})
		}
		if err := s.Restore(st); !errdefs.IsDataLoss(err) {
			t.Errorf("%v: %v", keys, err)
		}
	}
	if _, ok, _ := store.Get(t.Context(), s, "kept", false); !ok {
		t.Error("a refused state replaced the old one")
	}
}

// TestSnapshotIsACopy: a snapshot that is being written does not change.
func TestSnapshotIsACopy(t *testing.T) {
	s := open(t)
	put(t, s, "", "a", "1")
	put(t, s, "", "c", "1")
	snap := s.Snapshot()
	put(t, s, "", "a", "2")
	put(t, s, "", "b", "2")
	got := fmt.Sprint(snap.Rev)
	for _, p := range snap.Pairs {
		got += fmt.Sprintf(" %s=%s@%d", p.Key, p.Value, p.Rev)
	}
	if want := "2 a=1@1 c=1@2"; got != want {
		t.Errorf("snapshot is %s, want %s", got, want)
	}
}

func TestClosed(t *testing.T) {
	s := open(t)
	put(t, s, "", "a", "1")
	idle, err := s.Watch(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range idle { // ends although its context does not
	}
	if _, err := s.Watch(t.Context(), ""); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("watch: %v", err)
	}
	if _, err := s.Txn(t.Context(), store.Txn{}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("txn: %v", err)
	}
	if pairs, _, err := s.Range(t.Context(), "", false); err != nil || len(pairs) != 1 {
		t.Errorf("range: %v %v", pairs, err)
	}
}

// BenchmarkPut writes into a store of the size of a large cluster.
func BenchmarkPut(b *testing.B) {
	s := open(b)
	for i := range 10000 {
		put(b, s, "", fmt.Sprintf("address/%d", i), "x")
	}
	for i := 0; b.Loop(); i++ {
		put(b, s, "", fmt.Sprintf("address/%d", i%20000), "y")
	}
}

func TestGrows(t *testing.T) {
	s := open(t)
	put := func(key, value string) store.Op { return store.Op{Key: key, Value: []byte(value)} }
	if _, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{put("a/1", "1234"), put("a/2", "12"), put("a/1/x", "1")}}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		then []store.Op
		want bool
	}{
		"nothing":                        {nil, false},
		"new":                            {[]store.Op{put("b", "")}, true},
		"another value as long":          {[]store.Op{put("a/1", "5678")}, false},
		"a longer one":                   {[]store.Op{put("a/1", "56789")}, true},
		"gone":                           {[]store.Op{{Key: "a/2", Delete: true}}, false},
		"gone, and something new":        {[]store.Op{{Key: "a/2", Delete: true}, put("b", "1234")}, false},
		"gone, and something larger":     {[]store.Op{{Key: "a/2", Delete: true}, put("b", "12345")}, true},
		"all gone, and something new":    {[]store.Op{{Key: "a/", Prefix: true, Delete: true}, put("b", "0123456789abcdef")}, false},
		"all gone, and something larger": {[]store.Op{{Key: "a/", Prefix: true, Delete: true}, put("b", "0123456789abcdefghi")}, true},
		"none of a prefix":               {[]store.Op{{Key: "z/", Prefix: true}}, false},
		"absent":                         {[]store.Op{{Key: "c", Delete: true}, put("b", "")}, true},
	} {
		if got := s.Grows(store.Txn{Then: c.then}); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

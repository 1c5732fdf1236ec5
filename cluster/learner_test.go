package cluster

import (
	"fmt"
	"testing"
	"time"

	"github.com/minictl/minictl/cluster/raft"
	"github.com/minictl/minictl/cluster/store"
)

func TestTheLearner(t *testing.T) {
	t.Parallel()
	a, b := raft.Peer{ID: "a", Voter: true}, raft.Peer{ID: "b"}
	for _, c := range []struct {
		peers []raft.Peer
		want  string
	}{
		{[]raft.Peer{a, b}, "b"}, {[]raft.Peer{b, a}, "b"}, {[]raft.Peer{a}, ""}, {nil, ""},
		{[]raft.Peer{a, {ID: "b", Voter: true}}, ""}, {[]raft.Peer{a, b, {ID: "c"}}, ""},
	} {
		if got := theLearner(c.peers, "a"); got != c.want {
			t.Errorf("%v: %q, want %q", c.peers, got, c.want)
		}
	}
}

// TestLearnerHasIt: what the one host that decides has answered, the other's replica holds; when the other is gone, nobody
// waits for it.
func TestLearnerHasIt(t *testing.T) {
	t.Parallel()
	a, b := newHost(t, "a"), newHost(t, "b")
	a.init(t)
	b.join(t, a)
	const rounds = 200
	began := time.Now()
	for i := range rounds {
		key := fmt.Sprint("x/", i)
		if _, err := a.Store().Txn(t.Context(), store.Txn{Then: []store.Op{{Key: key, Value: []byte("1")}}}); err != nil {
			t.Fatal(err)
		}
		// On a starved machine it may have been too slow, and was not waited for.
		if _, ok, err := store.Get(t.Context(), b.Store(), key, false); err != nil || !ok && a.silent.Load() == 0 {
			t.Fatalf("b does not have %s: %v", key, err)
		}
	}
	t.Logf("a transaction in %v", time.Since(began)/rounds)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Store().Txn(t.Context(), store.Txn{Then: []store.Op{{Key: "x/alone", Value: []byte("1")}}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b is not waited for", func() bool { return a.alive() == "a" || a.silent.Load() > 0 })
}

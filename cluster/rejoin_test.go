package cluster

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store"
)

// estranged is a host a that decides alone in the epoch before the one that b, which is closed, has taken over.
func estranged(t *testing.T) (a, b *host) {
	t.Helper()
	a, b = pair(t)
	if err := a.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.close(t)
	b.recover(t)
	b.close(t)
	a.open(t)
	eventually(t, "a decides", func() bool {
		_, err := a.Store().Txn(t.Context(), store.Txn{Then: []store.Op{{Key: "alone", Value: []byte("1")}}})
		return err == nil
	})
	return a, b
}

// TestMadeWhileJoiningAgain: whoever was told that a network exists finds it, up to the moment in which the host that told
// it gives its side up.
func TestMadeWhileJoiningAgain(t *testing.T) {
	t.Parallel()
	a, b := estranged(t)
	before := a.Epoch()
	var made []string
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil && a.Epoch() == before; i++ {
			key := fmt.Sprintf("%s%d", prefixNetwork, i)
			if _, err := a.Store().Txn(ctx, store.Txn{Then: []store.Op{{Key: key, Value: []byte("{}")}}}); err == nil {
				made = append(made, key)
			}
		}
	}()
	b.open(t)
	agree(t, a, b)
	<-done
	if len(made) == 0 {
		t.Fatal("a has made nothing")
	}
	kept := map[string]bool{}
	pairs, err := a.Before(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pairs {
		kept[p.Key] = true
	}
	for _, key := range made {
		if !kept[key] && !has(t, b, key, true) { // the last may have been made on the other side
			t.Errorf("%s of %d is lost", key, len(made))
		}
	}
}

// TestJoiningAgainFails: a host that fails half way is on one side or the other, and gets on by itself.
func TestJoiningAgainFails(t *testing.T) {
	t.Parallel()
	for _, failing := range []string{"rejoin-keep", "rejoin-adopt", "rejoin-replica"} {
		t.Run(failing, func(t *testing.T) {
			t.Parallel()
			a, b := estranged(t)
			put(t, a, "network/solo", "{}")
			a.close(t)
			b.open(t)
			var failed atomic.Bool
			a.cfg.Step = func(step string) error {
				if step == failing && failed.CompareAndSwap(false, true) {
					return errdefs.ErrResourceExhausted
				}
				return nil
			}
			a.open(t)
			agree(t, a, b)
			if !failed.Load() {
				t.Error("nothing has failed")
			}
			pairs, err := a.Before(t.Context())
			if err != nil || len(pairs) != 1 || pairs[0].Key != "network/solo" {
				t.Errorf("before: %v, %v", pairs, err)
			}
			put(t, a, "x", "1")
		})
	}
}

// TestNoRoomToJoinAgain: a host that cannot write down what it has decided does not give it up.
func TestNoRoomToJoinAgain(t *testing.T) {
	t.Parallel()
	a, b := estranged(t)
	put(t, a, "network/solo", "{}")
	before := a.Epoch()
	if err := os.Mkdir(a.files.before(), 0o700); err != nil {
		t.Fatal(err)
	}
	b.open(t)
	eventually(t, "b hears of a", func() bool { return len(b.Estranged()) > 0 })
	for range 20 {
		put(t, a, "x", "1")
	}
	if a.Epoch() != before || !has(t, a, "network/solo", true) {
		t.Errorf("a is in epoch %s", a.Epoch())
	}
	if err := os.Remove(a.files.before()); err != nil {
		t.Fatal(err)
	}
	agree(t, a, b)
	pairs, err := a.Before(t.Context())
	if err != nil || len(pairs) != 1 || pairs[0].Key != "network/solo" {
		t.Errorf("before: %v, %v", pairs, err)
	}
}

// TestMadeWhileJoining: a network that is made while its host joins a cluster is not lost: the join fails, and says so.
func TestMadeWhileJoining(t *testing.T) {
	t.Parallel()
	a, b := newHost(t, "a"), newHost(t, "b")
	a.init(t)
	b.close(t)
	made := false
	b.cfg.Step = func(step string) error {
		if step == "join-credentials" && !made {
			made = true
			put(t, b, "network/mine", `{"Name":"mine"}`)
		}
		return nil
	}
	b.open(t)
	if err := b.Join(t.Context(), b.options(a.token(t), a)); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("join: %v", err)
	}
	if b.Clustered() || !has(t, b, "network/mine", true) {
		t.Errorf("a member %v, with its network %v", b.Clustered(), has(t, b, "network/mine", true))
	}
	if _, err := b.Store().Txn(t.Context(), store.Txn{Then: []store.Op{{Key: "network/mine", Delete: true}}}); err != nil {
		t.Fatal(err)
	}
	b.join(t, a)
	agree(t, a, b)
}

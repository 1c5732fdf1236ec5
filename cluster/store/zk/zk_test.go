package zk

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/minictl/minictl/cluster/store/journal"
	"github.com/minictl/minictl/cluster/store/journal/journaltest"
	"github.com/minictl/minictl/testing/extstore"
)

// TestConformance runs against a real ZooKeeper, in whose eyes every check is another cluster.
func TestConformance(t *testing.T) {
	addr := extstore.FreeAddr(t)
	args, err := extstore.ZooKeeper(t.TempDir(), addr)
	if err != nil {
		t.Fatal(err)
	}
	extstore.Start(t, addr, args...)
	t.Run("WatchIsReused", func(t *testing.T) { checkWatchIsReused(t, addr) })
	t.Run("Password", func(t *testing.T) { checkPassword(t, addr) })
	n := 0
	journaltest.Run(t, func(t *testing.T) func() journal.Remote {
		n++
		a := journal.Address{Hosts: []string{addr}, Prefix: fmt.Sprint("test/", n)}
		return func() journal.Remote {
			r := New(a)
			t.Cleanup(func() { _ = r.Close() })
			return r
		}
	})
}

// checkWatchIsReused: waiting in vain for days must not pile up watches.
func checkWatchIsReused(t *testing.T, addr string) {
	r := New(journal.Address{Hosts: []string{addr}, Prefix: "reused"})
	defer r.Close()
	var first <-chan zk.Event
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if _, err := r.session(ctx); err != nil {
			t.Fatal(err)
		}
		short, stop := context.WithCancel(ctx)
		done := make(chan error)
		go func() { done <- r.Wait(short, "head", 0) }()
		for r.set() == nil && ctx.Err() == nil {
			runtime.Gosched()
		}
		stop()
		<-done
		cancel()
		if first == nil {
			first = r.set()
		}
		if now := r.set(); now == nil || now != first {
			t.Fatal("another watch was set")
		}
	}
}

// set is the watch that has not fired yet.
func (r *Remote) set() <-chan zk.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pending.fired
}

// checkPassword: what a user has written, nobody else reads.
func checkPassword(t *testing.T, addr string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a := journal.Address{Hosts: []string{addr}, Prefix: "private", User: "me", Password: "secret"}
	mine := New(a)
	defer mine.Close()
	if _, err := mine.Swap(ctx, 0, journal.KV{Key: "head", Value: []byte("1")}, journal.KV{}); err != nil {
		t.Fatal(err)
	}
	if _, version, err := mine.Get(ctx, "head"); err != nil || version == 0 {
		t.Errorf("the writer reads version %d: %v", version, err)
	}
	a.Password = "wrong"
	for name, other := range map[string]journal.Address{"nobody": {Hosts: a.Hosts, Prefix: a.Prefix}, "another password": a} {
		r := New(other)
		if v, _, err := r.Get(ctx, "head"); !errors.Is(err, zk.ErrNoAuth) {
			t.Errorf("%s reads %q: %v", name, v, err)
		}
		_ = r.Close()
	}
}

package raft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	hraft "github.com/hashicorp/raft"
	"github.com/minictl/minictl/cluster/store"
)

func testLog(t testing.TB) *slog.Logger {
	t.Helper()
	if os.Getenv("RAFT_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("test", t.Name())
}

func openAlone(t testing.TB, dir string) *Backend {
	t.Helper()
	b, err := Open(t.Context(), Config{Dir: dir, NodeID: "n1", Log: testLog(t), Bootstrap: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func put(key, value string) store.Txn {
	return store.Txn{Then: []store.Op{{Key: key, Value: []byte(value)}}}
}

func TestAloneIsWritableAtOnce(t *testing.T) {
	dir := t.TempDir()
	for _, what := range []string{"new", "restarted"} {
		start := time.Now()
		b := openAlone(t, dir)
		opened := time.Since(start)
		if _, err := b.Txn(t.Context(), put("node/"+what, "x")); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: open %v, first transaction after %v", what, opened, time.Since(start))
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	b := openAlone(t, dir)
	pairs, _, err := b.Range(t.Context(), "", false)
	if err != nil || len(pairs) != 2 {
		t.Fatalf("replica after restart: %v %v", pairs, err)
	}
}

// TestCloseEndsReads: who asks a leader that has not applied yet what was before it, and is closed, is not left waiting.
func TestCloseEndsReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := openAlone(t, t.TempDir())
		synctest.Wait()
		b.leader.mu.Lock()
		b.leader.ready = make(chan struct{})
		b.leader.mu.Unlock()
		answered := make(chan error, 1)
		go func() {
			_, _, err := b.Range(t.Context(), "", true)
			answered <- err
		}()
		synctest.Wait() // it asks
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-answered; err == nil {
			t.Error("a closed backend answers a fresh read")
		}
	})
}

// TestReplay: entries that were recalled from the disk come again when a
// leader confirms them, and a snapshot may be older than what was recalled. A
// replica neither repeats nor goes back.
func TestReplay(t *testing.T) {
	f := newFSM()
	apply := func(index uint64, txn store.Txn) {
		t.Helper()
		cmd, err := encodeCommand(txn)
		if err != nil {
			t.Fatal(err)
		}
		if r := f.Apply(&hraft.Log{Index: index, Data: cmd}).(result); r.err != nil {
			t.Fatal(r.err)
		}
	}
	first := put("a", "1")
	apply(5, first)
	var old bytes.Buffer
	if snap, err := f.Snapshot(); err != nil {
		t.Fatal(err)
	} else if err := snap.(*snapshot).write(&old); err != nil {
		t.Fatal(err)
	}
	apply(6, store.Txn{Then: []store.Op{{Key: "a", Delete: true}}})
	apply(5, first)
	if err := f.Restore(io.NopCloser(&old)); err != nil {
		t.Fatal(err)
	}
	pairs, rev, _ := f.mem.Range(t.Context(), "", false)
	if len(pairs) != 0 || rev != 6 || f.index() != 6 {
		t.Errorf("after a replay: %v, revision %d, applied %d", pairs, rev, f.index())
	}
}

// TestFreshReadWaits: a leader that has not yet applied what its predecessors
// promised gives no fresh answers.
func TestFreshReadWaits(t *testing.T) {
	b := openAlone(t, t.TempDir())
	mustPut(t, b, "a", "1")
	if _, _, err := b.LocalRange(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	b.leader.mu.Lock()
	b.leader.ready, b.leader.isReady = make(chan struct{}), false
	ready := b.leader.ready
	b.leader.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := b.LocalRange(ctx, ""); !errdefs.IsUnavailable(err) {
		t.Errorf("fresh read of a leader that is not ready: %v", err)
	}
	b.prepareToLead(ready)
	if _, _, err := b.LocalRange(t.Context(), ""); err != nil {
		t.Errorf("fresh read of a leader that is ready: %v", err)
	}
	b.leader.mu.Lock()
	b.leader.term--
	b.leader.mu.Unlock()
	if _, _, err := b.LocalRange(t.Context(), ""); !errdefs.IsUnavailable(err) {
		t.Errorf("fresh read in another term: %v", err)
	}
}

// TestRefusedWithoutLog: a transaction that cannot be is refused, and one that has been is answered, without an entry in the log.
func TestRefusedWithoutLog(t *testing.T) {
	f := newCluster(t, 3, 3)
	b := f.leader()
	once := store.Txn{ID: "once", If: []store.Cond{{Key: "a"}}, Then: put("a", "1").Then}
	first, err := b.Txn(t.Context(), once)
	if err != nil {
		t.Fatal(err)
	}
	last := b.raft.LastIndex()
	if again, err := b.Txn(t.Context(), once); err != nil || again != first {
		t.Errorf("the same again: revision %d, was %d: %v", again, first, err)
	}
	for _, id := range f.ids() {
		if _, err := f.host(id).Txn(t.Context(), store.Txn{If: []store.Cond{{Key: "a"}}, Then: put("a", "2").Then}); !errdefs.IsConflict(err) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if now := b.raft.LastIndex(); now != last {
		t.Errorf("the log has grown from %d to %d", last, now)
	}
}

// TestUndecidedIsUnavailable: a question is called off because no leader can be heard, in the middle of a call. That is not
// its user's doing.
func TestUndecidedIsUnavailable(t *testing.T) {
	b := openAlone(t, t.TempDir())
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errdefs.ErrUnavailable)
	err := b.timeout(ctx, "read x", fmt.Errorf("call range: %w", ctx.Err()))
	if got := errdefs.Resolve(err); !errors.Is(got, errdefs.ErrUnavailable) {
		t.Errorf("%v is taken for %v", err, got)
	}
}

// TestNothingAskedOfWhatCloses: raft never answers what it agrees on while it shuts down, so nothing may be asked any more.
func TestNothingAskedOfWhatCloses(t *testing.T) {
	b := openAlone(t, t.TempDir())
	mustPut(t, b, "a", "0") // it leads
	b.answered()
	if _, err := b.LocalTxn(t.Context(), put("a", "1")); !errdefs.IsUnavailable(err) {
		t.Errorf("a transaction: %v", err)
	}
	if n := b.asked.close(); n != 0 {
		t.Errorf("%d questions are open", n)
	}
}

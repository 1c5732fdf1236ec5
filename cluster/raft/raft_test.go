package raft

import (
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/minictl/minictl/cluster/store"
)

func testLog(t testing.TB) *slog.Logger {
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

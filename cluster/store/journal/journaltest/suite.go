package journaltest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/store/journal"
	"github.com/minictl/minictl/cluster/store/storetest"
)

// patience is how long a check waits for what must come.
const patience = 20 * time.Second

// Run is what every journal.Remote must pass: its own promises, and the suite
// of every store with a journal of three hosts upon it. The factory makes a
// new, empty place; each call of what it returns is another host's way there.
// It cleans up after itself.
func Run(t *testing.T, factory func(t *testing.T) func() journal.Remote) {
	t.Run("Remote", func(t *testing.T) { checkRemote(t, factory(t)) })
	t.Run("Wait", func(t *testing.T) { checkWait(t, factory(t)) })
	t.Run("Store", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) []store.Store {
			dial := factory(t)
			var hosts []store.Store
			for _, by := range []string{"a", "b", "c"} {
				s := journal.Open(journal.Config{Remote: dial(), Name: "test", By: by, SnapshotEvery: 50, CallTimeout: patience})
				t.Cleanup(func() { _ = s.Close() })
				hosts = append(hosts, s)
			}
			return hosts
		})
	})
}

func checkRemote(t *testing.T, dial func() journal.Remote) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	a, b := dial(), dial()
	if v, version, err := a.Get(ctx, "head"); err != nil || version != 0 || len(v) != 0 {
		t.Fatalf("an absent key is %q at %d: %v", v, version, err)
	}
	if keys, err := a.Keys(ctx, "log/"); err != nil || len(keys) != 0 {
		t.Fatalf("keys of nothing: %v, %v", keys, err)
	}
	version := uint64(0)
	for i := range 3 { // each host in turn, and the other's view of the past is refused
		old := version
		head := journal.KV{Key: "head", Value: fmt.Append(nil, "head", i)}
		now, err := a.Swap(ctx, version, head, journal.KV{Key: fmt.Sprint("log/", i), Value: []byte("entry")})
		if err != nil || now == 0 || now == old {
			t.Fatalf("swap %d: version %d after %d: %v", i, now, old, err)
		}
		if _, err := b.Swap(ctx, old, head, journal.KV{Key: "log/stale", Value: []byte("no")}); !errdefs.IsConflict(err) {
			t.Fatalf("stale swap: %v, want a conflict", err)
		}
		v, found, err := b.Get(ctx, "head")
		if err != nil || found != now || string(v) != string(head.Value) {
			t.Fatalf("the other host reads %q at %d after %d was answered: %v", v, found, now, err)
		}
		version = now
		a, b = b, a
	}
	if _, err := a.Swap(ctx, version, journal.KV{Key: "head", Value: []byte("alone")}, journal.KV{}); err != nil {
		t.Fatalf("swap without an entry: %v", err)
	}
	big := slices.Repeat([]byte{0, 'x', 0xff, '"'}, 64<<10) // what a part may have
	for range 2 {
		if err := a.Put(ctx, journal.KV{Key: "snapshot/7.N.0", Value: big}); err != nil {
			t.Fatalf("put: %v", err)
		}
	}
	if v, _, err := b.Get(ctx, "snapshot/7.N.0"); err != nil || !slices.Equal(v, big) {
		t.Fatalf("%d bytes became %d: %v", len(big), len(v), err)
	}
	keys, err := b.Keys(ctx, "log/")
	slices.Sort(keys)
	if want := []string{"log/0", "log/1", "log/2"}; err != nil || !slices.Equal(keys, want) {
		t.Fatalf("keys are %v, want %v: %v", keys, want, err)
	}
	if err := a.Delete(ctx, "log/1", "log/absent", "log/2"); err != nil {
		t.Fatalf("delete: %v", err)
	}
	if keys, err := b.Keys(ctx, "log/"); err != nil || !slices.Equal(keys, []string{"log/0"}) {
		t.Fatalf("keys after deleting are %v: %v", keys, err)
	}
}

func checkWait(t *testing.T, dial func() journal.Remote) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	a, b := dial(), dial()
	version := uint64(0)
	for i := range 3 { // for a key that does not exist, and for one that does
		short, stop := context.WithTimeout(ctx, 50*time.Millisecond)
		_ = a.Wait(short, "head", version) // nothing happens meanwhile; what was waited for in vain must still be seen later
		stop()
		done := make(chan error, 1)
		go func() { done <- a.Wait(ctx, "head", version) }()
		now, err := b.Swap(ctx, version, journal.KV{Key: "head", Value: fmt.Append(nil, i)}, journal.KV{})
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("wait: %v", err)
			}
		case <-time.After(patience):
			t.Fatalf("a change of version %d to %d woke nobody", version, now)
		}
		if err := a.Wait(ctx, "head", version); err != nil { // it is past already
			t.Fatalf("wait for what has happened: %v", err)
		}
		version = now
	}
}

package journal_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/store/journal"
	"github.com/minictl/minictl/cluster/store/journal/journaltest"
	"github.com/minictl/minictl/cluster/store/storetest"
)

const name = "etcd://192.0.2.1:2379/minictl"

func open(t testing.TB, r *journaltest.Remote, by string, change ...func(*journal.Config)) *journal.Store {
	t.Helper()
	c := journal.Config{Remote: r, Name: name, By: by}
	for _, f := range change {
		f(&c)
	}
	s := journal.Open(c)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Snapshots every few entries, so that the suite runs over them as well.
func often(c *journal.Config) { c.SnapshotEvery = 5 }

func TestConformance(t *testing.T) {
	for name, change := range map[string]func(*journal.Config){"plain": func(*journal.Config) {}, "snapshots": often} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) []store.Store {
				r := &journaltest.Remote{}
				return []store.Store{open(t, r, "a", change), open(t, r, "b", change), open(t, r, "c", change)}
			})
		})
	}
}

func put(t testing.TB, s store.Store, key, value string) store.Revision {
	t.Helper()
	rev, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{{Key: key, Value: []byte(value)}}})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func want(t testing.TB, s store.Store, fresh bool, key, value string) {
	t.Helper()
	p, ok, err := store.Get(t.Context(), s, key, fresh)
	if err != nil || ok != (value != "") || string(p.Value) != value {
		t.Fatalf("%s is %q, %v, %v, want %q", key, p.Value, ok, err, value)
	}
}

// TestRemote: the fake is held to what the real ones are.
func TestRemote(t *testing.T) {
	journaltest.Run(t, func(*testing.T) func() journal.Remote {
		r := &journaltest.Remote{}
		return func() journal.Remote { return r }
	})
}

// TestAnswerLost: what happened although the answer got lost happens once, and is answered.
func TestAnswerLost(t *testing.T) {
	r := &journaltest.Remote{}
	s, other := open(t, r, "a"), open(t, r, "b")
	put(t, s, "n", "0")
	r.LoseAnswers(1)
	absent := store.Txn{If: []store.Cond{{Key: "mine"}}, Then: []store.Op{{Key: "mine", Value: []byte("1")}}}
	rev, err := s.Txn(t.Context(), absent)
	if err != nil {
		t.Fatalf("the condition was refused by its own success: %v", err)
	}
	if p, _, _ := store.Get(t.Context(), other, "mine", true); p.Rev != rev {
		t.Errorf("it was answered %d and stands at %d", rev, p.Rev)
	}
	if got := put(t, other, "n", "1"); got != rev+1 {
		t.Errorf("next revision is %d after %d: it happened twice", got, rev)
	}
}

// TestAway: the replica answers, all else is refused at once by name, and goes on when the store is back.
func TestAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &journaltest.Remote{}
		s := open(t, r, "a")
		put(t, s, "k", "1")
		synctest.Wait()
		r.Down(true)
		time.Sleep(4 * time.Second) //nolint:forbidigo // of the bubble
		began := time.Now()
		_, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{{Key: "k"}}})
		if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("txn: %v", err)
		}
		if _, _, err := s.Range(t.Context(), "", true); !errdefs.IsUnavailable(err) {
			t.Errorf("fresh range: %v", err)
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("refused after %v", d)
		}
		want(t, s, false, "k", "1")
		r.Down(false)
		time.Sleep(time.Second) //nolint:forbidigo // of the bubble
		put(t, s, "k", "2")
		want(t, s, true, "k", "2")
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestHangs: a store that swallows everything is given up after one call's time.
func TestHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := journal.Open(journal.Config{Remote: swallower{&journaltest.Remote{}}, Name: name, By: "a"})
		began := time.Now()
		_, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{{Key: "k"}}})
		if errdefs.Resolve(err) != errdefs.ErrUnavailable || !strings.Contains(err.Error(), "nothing came within 3s") { //nolint:errorlint // Resolve gives the class itself
			t.Errorf("txn: %v", err)
		}
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("took %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Sync(ctx); !errdefs.IsUnavailable(err) {
			t.Errorf("sync: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

type swallower struct{ *journaltest.Remote }

func (swallower) Get(ctx context.Context, _ string) ([]byte, uint64, error) {
	<-ctx.Done()
	return nil, 0, ctx.Err()
}

// TestNotWritable: a store that can be read and not written, or where a foreign key is in the way, is not asked for ever.
func TestNotWritable(t *testing.T) {
	for says, err := range map[string]error{"permission denied": errdefs.ErrPermissionDenied, "conflict": errdefs.ErrConflict} {
		s := journal.Open(journal.Config{Remote: notWritable{&journaltest.Remote{}, err}, Name: name, By: "a"})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		_, err := s.Txn(ctx, store.Txn{Then: []store.Op{{Key: "k"}}})
		if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), says) {
			t.Errorf("txn: %v, want %q", err, says)
		}
		if ctx.Err() != nil {
			t.Errorf("%s: asked until the caller gave up", says)
		}
		cancel()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

type notWritable struct {
	*journaltest.Remote
	err error
}

func (n notWritable) Swap(context.Context, uint64, journal.KV, journal.KV) (uint64, error) {
	return 0, n.err
}

// TestSnapshot: the journal stays short, and who was away meanwhile finds its way.
func TestSnapshot(t *testing.T) {
	r := &journaltest.Remote{}
	s := open(t, r, "a", often)
	sleeper := open(t, r, "b", often)
	put(t, s, "first", "1")
	want(t, sleeper, true, "first", "1")
	if err := sleeper.Close(); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("x", store.MaxTxn-64)
	for i := range 23 {
		put(t, s, fmt.Sprint("k", i), "v")
	}
	put(t, s, "big", big)
	deadline := time.Now().Add(20 * time.Second)
	for len(r.All()) > 2*5+12 {
		if time.Now().After(deadline) {
			t.Fatalf("the journal is not shortened: %d keys", len(r.All()))
		}
		put(t, s, "again", "v")
	}
	late := open(t, r, "c", often)
	want(t, late, true, "first", "1")
	want(t, late, true, "k22", "v")
	want(t, late, true, "big", big)
}

// TestStalePosition: a host that slept while the journal was shortened cannot write where entries have been.
func TestStalePosition(t *testing.T) {
	r := &journaltest.Remote{}
	asleep := sleepy{r}
	s := open(t, r, "a", often)
	put(t, s, "k", "0")
	old := journal.Open(journal.Config{Remote: asleep, Name: name, By: "b", Heartbeat: time.Hour})
	defer old.Close()
	want(t, old, true, "k", "0")
	for i := range 30 {
		put(t, s, "k", fmt.Sprint(i))
	}
	p, _, _ := store.Get(t.Context(), old, "k", false)
	_, err := old.Txn(t.Context(), store.Txn{If: []store.Cond{{Key: "k", Rev: p.Rev}}, Then: []store.Op{{Key: "k", Value: []byte("stale")}}})
	if !errdefs.IsConflict(err) {
		t.Fatalf("txn of a host that slept: %v", err)
	}
	want(t, s, true, "k", "29")
}

// sleepy is a host whose waits tell it nothing.
type sleepy struct{ *journaltest.Remote }

// Wait never returns before its context.
func (sleepy) Wait(ctx context.Context, _ string, _ uint64) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestCopy: after a restart without the store the replica is there.
func TestCopy(t *testing.T) {
	r := &journaltest.Remote{}
	file := filepath.Join(t.TempDir(), "store.json")
	kept := func(c *journal.Config) { c.File = file }
	s := open(t, r, "a", kept)
	rev := put(t, s, "k", "1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r.Down(true)
	s = open(t, r, "a", kept)
	want(t, s, false, "k", "1")
	if s.AppliedIndex() != uint64(rev) {
		t.Errorf("is at %d, was at %d", s.AppliedIndex(), rev)
	}
	r.Down(false)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(`{"v":1`), 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, r, "a", kept)
	want(t, s, true, "k", "1")
}

// TestNotOurs: a store that was emptied, filled by others, set back or written by a newer daemon is not followed, and
// nothing is written into it.
func TestNotOurs(t *testing.T) {
	for _, c := range []struct {
		name, want string
		change     func(old, other map[string][]byte) map[string][]byte
	}{
		{"emptied", "has lost this cluster's decisions", func(_, _ map[string][]byte) map[string][]byte { return nil }},
		{"another", "another cluster's decisions", func(_, other map[string][]byte) map[string][]byte { return other }},
		{"set back", "was set back: it ends at decision 2, and this host knows 3", func(old, _ map[string][]byte) map[string][]byte { return old }},
		{"newer", "upgrade this host", func(_, _ map[string][]byte) map[string][]byte {
			return map[string][]byte{"head": []byte(`{"v":2,"news":1}`)}
		}},
		{"damaged", "data loss", func(_, _ map[string][]byte) map[string][]byte {
			return map[string][]byte{"head": []byte(`{"v":1,`)}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, foreign := &journaltest.Remote{}, &journaltest.Remote{}
			put(t, open(t, foreign, "x"), "k", "foreign")
			s := open(t, r, "a")
			put(t, s, "k", "1")
			put(t, s, "k", "2")
			before := r.All()
			put(t, s, "k", "3")
			r.Set(c.change(before, foreign.All()))
			now := r.All()
			for range 2 {
				_, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{{Key: "k", Value: []byte("4")}}})
				if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("txn: %v, want %q", err, c.want)
				}
			}
			if !maps.EqualFunc(now, r.All(), func(a, b []byte) bool { return string(a) == string(b) }) {
				t.Error("it was written to")
			}
			want(t, s, false, "k", "3")
		})
	}
}

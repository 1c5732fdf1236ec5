package raft

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	hraft "github.com/hashicorp/raft"
	"github.com/minictl/minictl/cluster/store"
)

// value reads a key of a host's replica, without asking anybody.
func value(t testing.TB, b *Backend, key string) string {
	t.Helper()
	p, _, err := store.Get(t.Context(), b, key, false)
	if err != nil {
		t.Fatal(err)
	}
	return string(p.Value)
}

func mustPut(t testing.TB, b *Backend, key, val string) store.Revision {
	t.Helper()
	rev, err := b.Txn(t.Context(), put(key, val))
	if err != nil {
		t.Fatalf("put %s on %s: %v", key, b.node, err)
	}
	return rev
}

// leader waits until all running hosts agree on a running leader.
func (f *fabric) leader() *Backend {
	f.t.Helper()
	var leader *Backend
	eventually(f.t, "all hosts agree on a leader", func() bool {
		leader = nil
		for _, id := range f.ids() {
			l, ok := f.host(id).Leader()
			if !ok || f.host(l) == nil || leader != nil && leader.node != l {
				return false
			}
			leader = f.host(l)
		}
		return leader != nil && leader.IsLeader()
	})
	return leader
}

func TestLeaderDies(t *testing.T) {
	checkLeaks(t)
	f := newCluster(t, 3, 3)
	old := f.leader()
	rev := mustPut(t, old, "a", "1")
	f.stop(old.node)
	survivor := f.host(f.ids()[0])
	start := time.Now()
	// Asked at once, while the others still believe in the dead leader.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	next, err := survivor.Txn(ctx, put("b", "2"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("first transaction %v after the leader died", time.Since(start))
	if next <= rev {
		t.Errorf("revision %d after %d", next, rev)
	}
	// The dead host returns, learns what it missed, and takes part.
	back := f.start(old.node, false)
	if err := back.WaitApplied(ctx, uint64(next)); err != nil {
		t.Fatal(err)
	}
	if got := value(t, back, "b"); got != "2" {
		t.Errorf("the returned host has b=%q", got)
	}
	mustPut(t, back, "c", "3")
}

func TestPartitionedLeader(t *testing.T) {
	checkLeaks(t)
	f := newCluster(t, 3, 3)
	old := f.leader()
	mustPut(t, old, "a", "1")
	f.isolate(old.node, true)
	// Both while it still believes to be the leader. An answer that was on its way when the line was cut still counts, once.
	eventually(t, "no fresh read on the minority's side", func() bool {
		soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, _, err := old.Range(soon, "", true)
		return errdefs.IsUnavailable(err)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := old.Txn(ctx, put("a", "lost")); !errdefs.IsUnavailable(err) {
		t.Fatalf("transaction on the minority's side: %v", err)
	}
	if got := value(t, old, "a"); got != "1" {
		t.Errorf("replica on the minority's side: a=%q", got)
	}
	var other *Backend
	for _, id := range f.ids() {
		if id != old.node {
			other = f.host(id)
		}
	}
	rev := mustPut(t, other, "a", "2")
	f.isolate(old.node, false)
	for _, id := range f.ids() {
		if err := f.host(id).WaitApplied(t.Context(), uint64(rev)); err != nil {
			t.Fatal(err)
		}
		if got := value(t, f.host(id), "a"); got != "2" {
			t.Errorf("%s has a=%q", id, got)
		}
	}
}

func TestOnlyVoterDies(t *testing.T) {
	checkLeaks(t)
	f := newCluster(t, 2, 1)
	learner := f.host("n2")
	mustPut(t, learner, "a", "1")
	mustPut(t, learner, "a", "2")
	f.stop("n1")
	eventually(t, "the learner notices", func() bool { _, ok := learner.Leader(); return !ok })
	if since := time.Since(learner.opened); since < contactGrace {
		// It may still hope shortly after it was opened; the promise is about later.
		learner.opened = learner.opened.Add(-contactGrace)
	}
	unavailableAtOnce(t, learner, "host n1, the only voter, does not answer")

	// Restarted without anybody to ask, it knows what it had applied.
	f.stop("n2")
	learner = f.start("n2", false)
	if got := value(t, learner, "a"); got != "2" {
		t.Errorf("after a restart without a leader a=%q", got)
	}
	watch, err := learner.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if first := <-watch; len(first) != 1 || string(first[0].Pair.Value) != "2" {
		t.Errorf("first batch: %+v", first)
	}
	// The voter returns and both go on.
	f.start("n1", false)
	mustPut(t, learner, "a", "3")
	if got := value(t, learner, "a"); got != "3" {
		t.Errorf("after the voter returned a=%q", got)
	}
}

// TestRecover: the only voter is lost for good and an operator says so.
func TestRecover(t *testing.T) {
	checkLeaks(t)
	f := newCluster(t, 2, 1)
	mustPut(t, f.host("n2"), "a", "1")
	f.stop("n1")
	conf := Config{Dir: filepath.Join(f.dir, "n2"), NodeID: "n2", Log: testLog(t)}
	if err := Recover(t.Context(), conf); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("recover under a running daemon: %v", err)
	}
	f.stop("n2")
	if err := Recover(t.Context(), conf); err != nil {
		t.Fatal(err)
	}
	n2 := f.start("n2", false)
	mustPut(t, n2, "b", "2")
	if got := value(t, n2, "a") + value(t, n2, "b"); got != "12" {
		t.Errorf("a and b are %s", got)
	}
	if got, want := fmt.Sprint(n2.Configuration()), "[{n2 true}]"; got != want {
		t.Errorf("configuration %s, want %s", got, want)
	}
	// The cluster grows again from here.
	f.start("n3", false)
	if err := n2.AddLearner(t.Context(), "n3"); err != nil {
		t.Fatal(err)
	}
	mustPut(t, f.host("n3"), "c", "3")
	if err := Recover(t.Context(), Config{Dir: t.TempDir(), NodeID: "n9"}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("recover nothing: %v", err)
	}
}

func unavailableAtOnce(t *testing.T, b *Backend, sentence string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second) // far more than it needs, and an answer of its own
	defer cancel()
	_, err := b.Txn(ctx, put("x", "1"))
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), sentence) {
		t.Fatalf("transaction without a leader: %v", err)
	}
	if _, _, err := b.Range(ctx, "", true); !errdefs.IsUnavailable(err) {
		t.Fatalf("fresh read without a leader: %v", err)
	}
	if ctx.Err() != nil {
		t.Error("it waited for the context to say that there is no leader")
	}
}

func TestPromote(t *testing.T) {
	checkLeaks(t)
	f := newCluster(t, 3, 1)
	n1 := f.leader()
	if err := f.host("n2").Promote(t.Context(), "n3"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "host n1") {
		t.Errorf("promote on a learner: %v", err)
	}
	// An absent learner must not get a vote: with one of two voters gone
	// nothing could ever be decided again, not even to take the vote back.
	f.stop("n3")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := n1.Promote(ctx, "n3"); !errdefs.IsUnavailable(err) {
		t.Fatalf("promote an absent host: %v", err)
	}
	mustPut(t, n1, "a", "1")

	f.start("n3", false)
	eventually(t, "n3 is back", func() bool { _, ok := f.host("n3").Leader(); return ok })
	for _, id := range []string{"n2", "n3"} {
		if err := n1.Promote(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := fmt.Sprint(n1.Configuration()), "[{n1 true} {n2 true} {n3 true}]"; got != want {
		t.Errorf("configuration %s, want %s", got, want)
	}
	if err := n1.TransferLeadership(t.Context(), "n3"); err != nil {
		t.Fatal(err)
	}
	n3 := f.leader()
	if n3.node != "n3" || n1.IsLeader() {
		t.Fatalf("%s leads after the hand-over to n3", n3.node)
	}
	// What a host expects as a follower again must not stay a leader's.
	eventually(t, "the leader's pace is n3's alone", func() bool {
		for _, id := range f.ids() {
			if conf := f.host(id).raft.ReloadableConfig(); (conf.HeartbeatTimeout == leadingTimeout) != (id == "n3") {
				return false
			}
		}
		return true
	})
	// The old leader leaves by the new one's hand.
	if err := errors.Join(n3.Demote(t.Context(), "n2"), n3.RemoveNode(t.Context(), "n1")); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(n3.Configuration()), "[{n2 false} {n3 true}]"; got != want {
		t.Errorf("configuration %s, want %s", got, want)
	}
	f.stop("n1")
	mustPut(t, f.host("n2"), "a", "2")
}

func TestVotersStayPatientThenSayNo(t *testing.T) {
	checkLeaks(t)
	f := newCluster(t, 3, 3)
	old := f.leader()
	for _, id := range f.ids() {
		if id != old.node {
			f.stop(id)
			break
		}
	}
	f.stop(old.node)
	last := f.host(f.ids()[0])
	eventually(t, "the last host notices", func() bool { _, ok := last.Leader(); return !ok })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := last.Txn(ctx, put("a", "1")); !errdefs.IsUnavailable(err) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while a new leader may come: %v", err)
	}
	last.leader.mu.Lock()
	last.leader.since = last.leader.since.Add(-electionGrace)
	last.leader.mu.Unlock()
	unavailableAtOnce(t, last, "no majority of the voters")
}

// TestLostAnswers has every third answer of the leader get lost after the
// transaction was applied. Each must still happen exactly once.
func TestLostAnswers(t *testing.T) {
	checkLeaks(t)
	f := newCluster(t, 2, 1)
	f.loseAnswers.Store(3)
	learner := f.host("n2")
	const writers, each = 4, 15
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				key := fmt.Sprintf("%d/%d", w, i)
				// Applied twice, the second would find the key and conflict.
				if _, err := learner.Txn(t.Context(), store.Txn{If: []store.Cond{{Key: key}}, Then: put(key, "x").Then}); err != nil {
					t.Errorf("%s: %v", key, err)
				}
			}
		})
	}
	wg.Wait()
	pairs, _, err := learner.Range(t.Context(), "", true)
	if err != nil || len(pairs) != writers*each {
		t.Errorf("%d keys, want %d: %v", len(pairs), writers*each, err)
	}
}

// TestSnapshots compacts the log until a new host can only be told by
// snapshot, and restarts from one.
func TestSnapshots(t *testing.T) {
	checkLeaks(t)
	f := newCluster(t, 2, 1)
	n1 := f.leader()
	conf := n1.raft.ReloadableConfig()
	conf.TrailingLogs = 5
	if err := n1.raft.ReloadConfig(conf); err != nil {
		t.Fatal(err)
	}
	watch, err := f.host("n2").Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	<-watch
	id := store.NewID()
	once := store.Txn{ID: id, Then: put("once", "1").Then}
	rev, err := n1.Txn(t.Context(), once)
	if err != nil {
		t.Fatal(err)
	}
	// n2 misses a time in which the log is cut behind it.
	f.isolate("n2", true)
	for i := range 50 {
		mustPut(t, n1, fmt.Sprintf("k%02d", i), "x")
	}
	if err := n1.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	last := mustPut(t, n1, "last", "1")
	if first, _ := n1.logs.FirstIndex(); first < 20 {
		t.Fatalf("the log still begins at %d", first)
	}
	f.isolate("n2", false)
	f.start("n3", false)
	if err := n1.AddLearner(t.Context(), "n3"); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"n2", "n3"} {
		if err := f.host(host).WaitApplied(t.Context(), uint64(last)); err != nil {
			t.Fatal(err)
		}
	}
	for seen := 0; seen < 52; { // once, k00 to k49, last
		select {
		case batch := <-watch:
			seen += len(batch)
		case <-time.After(time.Minute):
			t.Fatalf("the watcher on n2 saw %d changes of 52", seen)
		}
	}
	// Everybody starts again from what lies on the disk.
	for _, host := range []string{"n3", "n2", "n1"} {
		f.stop(host)
	}
	for _, host := range []string{"n2", "n3"} {
		if b := f.start(host, false); value(t, b, "last") != "1" || value(t, b, "k49") != "x" {
			t.Errorf("%s came back with last=%q", host, value(t, b, "last"))
		}
	}
	f.start("n1", false)
	for _, host := range f.ids() {
		if again, err := f.host(host).Txn(t.Context(), once); err != nil || again != rev {
			t.Errorf("the same ID on %s after restoring: revision %d, want %d: %v", host, again, rev, err)
		}
	}
}

// TestUnknownCommand: a daemon that meets a command of a newer one stops where
// it is, keeps what it has, says why, and does so again after a restart.
func TestUnknownCommand(t *testing.T) {
	checkLeaks(t)
	newer := []byte(`{"v":2,"then":[{"k":"a","v":"Mg=="}]}`)
	t.Run("on the leader", func(t *testing.T) {
		dir := t.TempDir()
		b := openAlone(t, dir)
		mustPut(t, b, "a", "1")
		if err := b.raft.Apply(newer, 0).Error(); err != nil && !errors.Is(err, hraft.ErrRaftShutdown) {
			t.Fatal(err)
		}
		stopped(t, b)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		stopped(t, openAlone(t, dir))
	})
	t.Run("on a follower", func(t *testing.T) {
		f := newCluster(t, 2, 1)
		n1, n2 := f.leader(), f.host("n2")
		mustPut(t, n2, "a", "1")
		// The leader takes it, as a newer daemon would: it stays up and passes it on.
		n1.fsm.mu.Lock()
		n1.fsm.err = errors.New("not this host's concern")
		n1.fsm.mu.Unlock()
		if err := n1.raft.Apply(newer, 0).Error(); err != nil {
			t.Fatal(err)
		}
		stopped(t, n2)
		f.stop("n2")
		stopped(t, f.start("n2", false))
	})
}

// stopped waits until a host has met the unknown command and checks what is
// left of it.
func stopped(t *testing.T, b *Backend) {
	t.Helper()
	eventually(t, b.node+" stops", func() bool { return b.Err() != nil })
	if _, err := b.Txn(t.Context(), put("a", "3")); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "upgrade minictl") {
		t.Errorf("%s: transaction after the stop: %v", b.node, err)
	}
	if got := value(t, b, "a"); got != "1" {
		t.Errorf("%s: a=%q", b.node, got)
	}
	if err := b.WaitApplied(t.Context(), b.AppliedIndex()+1); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("%s: waiting for what will never come: %v", b.node, err)
	}
}

// TestFollowersLearnAtOnce measures how long after the leader's answer a
// follower has applied what was decided.
func TestFollowersLearnAtOnce(t *testing.T) {
	for _, voters := range []int{1, 3} {
		f := newCluster(t, 3, voters)
		leader := f.leader()
		var worst, sum time.Duration
		const rounds = 20
		for i := range rounds {
			rev := mustPut(t, leader, "k", fmt.Sprint(i))
			start := time.Now()
			for _, id := range f.ids() {
				if err := f.host(id).WaitApplied(t.Context(), uint64(rev)); err != nil {
					t.Fatal(err)
				}
			}
			took := time.Since(start)
			worst, sum = max(worst, took), sum+took
		}
		t.Logf("%d voters of 3: all have it %v after the answer, %v at worst", voters, sum/rounds, worst)
		if worst > commitTimeout/2 {
			t.Errorf("%d voters: a follower waited %v, as if for the next repetition", voters, worst)
		}
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	checkLeaks(t)
	b := openAlone(t, t.TempDir())
	mustPut(t, b, "a", "1")
	watch, err := b.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
	for range watch { // ends
	}
	if _, err := b.Txn(t.Context(), put("a", "2")); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("transaction after Close: %v", err)
	}
	if _, err := b.Watch(t.Context(), ""); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("watch after Close: %v", err)
	}
	if err := b.AddLearner(t.Context(), "n2"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("add learner after Close: %v", err)
	}
	if err := b.WaitApplied(context.Background(), b.AppliedIndex()+1); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("wait after Close: %v", err)
	}
	if got := value(t, b, "a"); got != "1" {
		t.Errorf("replica after Close: a=%q", got)
	}
}

func TestNotYetMember(t *testing.T) {
	checkLeaks(t)
	f := newFabric(t)
	b := f.start("n1", false)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := b.Txn(ctx, put("a", "1"))
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "not part of a cluster yet") {
		t.Errorf("transaction before joining: %v", err)
	}
}

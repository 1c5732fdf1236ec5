package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/raft"
	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/transport"
)

// recover waits out the calm that a takeover needs.
func (h *host) recover(t *testing.T) {
	t.Helper()
	eventually(t, h.cfg.Name+" takes over", func() bool {
		err := h.Recover(t.Context())
		if err != nil && !errdefs.IsFailedPrecondition(err) {
			t.Fatal(err)
		}
		return err == nil
	})
}

func (h *host) close(t *testing.T) {
	t.Helper()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
}

// agree waits until hosts are in one epoch, all alive to each other, under one leader.
func agree(t *testing.T, hosts ...*host) {
	t.Helper()
	var want []string
	for _, h := range hosts {
		want = append(want, h.cfg.Name)
	}
	slices.Sort(want)
	eventually(t, "all agree", func() bool {
		for _, h := range hosts {
			leader, ok := h.Leader()
			first, _ := hosts[0].Leader()
			if !ok || leader != first || h.Epoch() != hosts[0].Epoch() || h.alive() != strings.Join(want, " ") {
				return false
			}
		}
		return true
	})
}

func TestRecoverRefused(t *testing.T) {
	t.Parallel()
	a, b := newHost(t, "a"), newHost(t, "b")
	says := func(h *host, want string) {
		t.Helper()
		_, err := h.Recoverable(t.Context())
		if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", h.cfg.Name, err, want)
		}
		if err := h.Recover(t.Context()); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%s recovers: %v", h.cfg.Name, err)
		}
	}
	says(a, "a cluster of its own")
	a.init(t)
	b.join(t, a)
	epoch := a.Epoch()
	says(a, "decides for the cluster already")
	says(b, "a decides for the cluster and answers")
	a.close(t)
	says(b, "a") // it may be restarting
	if b.Epoch() != epoch {
		t.Errorf("epoch %s, was %s", b.Epoch(), epoch)
	}
	if err := b.Rejoin(t.Context(), ""); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("rejoin nothing: %v", err)
	}
}

// TestRecoverBesideALeader: a host that does not hear who decides, and hears others who do, takes nothing over.
func TestRecoverBesideALeader(t *testing.T) {
	t.Parallel()
	dir := memDir(t)
	synctest.Test(t, func(t *testing.T) {
		s := &simulation{t: t, net: newMemNet(), began: time.Now(), did: map[string]int{}}
		defer s.closeAll()
		s.addVoters(dir, 3)
		a, c := s.hosts[0], s.hosts[2]
		if !a.cluster.decider().IsLeader() {
			t.Fatal("the first host does not lead")
		}
		s.net.change(func(cuts map[link]bool) {
			cuts[link{a.addr.Addr(), c.addr.Addr()}], cuts[link{c.addr.Addr(), a.addr.Addr()}] = true, true
		})
		pass(time.Minute)
		_, err := c.cluster.Recoverable(t.Context())
		if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "host01 decides for the cluster, as host02 says, and this host does not hear it") {
			t.Errorf("one link is cut: %v", err)
		}
		s.cutOff(c, true)
		pass(time.Minute)
		if r, err := c.cluster.Recoverable(t.Context()); err != nil || len(r.Missing) != 2 {
			t.Errorf("nobody is heard: %+v, %v", r, err)
		}
		if err := c.cluster.decider().Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.cluster.Recoverable(t.Context()); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "cannot be used") {
			t.Errorf("without a store: %v", err)
		}
	})
}

// TestLeavingDuringATakeover: a host's daemon dies while it leaves, before anybody has heard of that, and another host takes
// over. It is let in again, and leaves: nobody waits for it.
func TestLeavingDuringATakeover(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	if err := a.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.setLeaving(true); err != nil {
		t.Fatal(err)
	}
	a.close(t)
	b.recover(t)
	a.open(t)
	if hasForgotten(fmt.Errorf("dial b: %w: %w", transport.ErrFenced, errdefs.ErrPermissionDenied)) || !hasForgotten(errdefs.ErrPermissionDenied) {
		t.Error("who waits for a after a takeover is taken for one that does not know it")
	}
	eventually(t, "a has left", func() bool { return !a.Clustered() })
	eventually(t, "b has heard of it", func() bool { return len(b.Members()) == 1 && len(b.Standing().Missing) == 0 })
}

// TestTakeover is failure mode 4: the learner takes over, the old leader comes back with what it decided alone. It is kept
// out, joins again by itself, with its records, and nothing of what it decided is merged unseen.
func TestTakeover(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	put(t, a, "network/known", "{}")
	put(t, a, "network/removed", "{}")
	put(t, a, "address/known/10.0.0.2", `{"node":"`+string(a.Self().ID)+`"}`)
	if err := a.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.close(t)
	put(t, a, "network/solo", `{"Name":"solo"}`)
	if _, err := a.Publish(t.Context(), []Record{record("e1", "known", 2)}, nil); err != nil {
		t.Fatal(err)
	}
	id, epoch := a.Self().ID, a.Epoch()
	a.close(t)
	b.open(t)
	b.recover(t)
	if got := b.Epoch(); !strings.HasPrefix(got, "2.") || !b.Cautious() {
		t.Errorf("epoch %s, cautious %v", got, b.Cautious())
	}
	put(t, b, "network/later", "{}")
	if _, err := b.Store().Txn(t.Context(), store.Txn{Then: []store.Op{{Key: "network/removed", Delete: true}}}); err != nil {
		t.Fatal(err)
	}
	if !has(t, b, "address/known/10.0.0.2", true) || len(b.Members()) != 2 {
		t.Error("what the missing host has must stay its own")
	}
	if st := b.Standing(); !slices.Equal(st.Missing, []NodeID{id}) {
		t.Errorf("missing %v", st.Missing)
	}
	a.open(t)
	agree(t, a, b)
	// A refusal that b hears of late says nothing of a any more.
	b.meet(t.Context(), meeting{node: id, fence: transport.Fence{Cluster: b.ID(), Epoch: epoch}, at: time.Now()})
	if e := b.Estranged(); len(e) > 0 {
		t.Errorf("a takes part, and b still says that it does not: %v", e)
	}
	if a.Epoch() == epoch || a.Self().ID != id {
		t.Errorf("a is %s in epoch %s", a.Self().ID, a.Epoch())
	}
	if leader, _ := a.Leader(); leader != b.Self().ID {
		t.Errorf("%s leads", leader)
	}
	eventually(t, "a follows", func() bool { return has(t, a, "network/later", false) && !has(t, a, "network/removed", false) })
	if has(t, b, "network/solo", true) {
		t.Error("what a decided alone was merged")
	}
	pairs, err := a.Before(t.Context())
	if err != nil || len(pairs) != 1 || pairs[0].Key != "network/solo" {
		t.Errorf("before: %v, %v", pairs, err)
	}
	eventually(t, "a's records are back", func() bool { r := b.Records("known"); return len(r) == 1 && r[0].Alive })
	if len(b.Standing().Missing) > 0 {
		t.Error("nobody is missing any more")
	}
	if !b.Cautious() {
		t.Error("what a was given by itself is not in the Store yet")
	}
	if err := errors.Join(a.Settled(t.Context(), a.Epoch()), b.Settled(t.Context(), b.Epoch())); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b hears that a has settled", func() bool { return !b.Cautious() })
	put(t, a, "x", "1")
	// The same again after restarts of both: it is one cluster.
	a.close(t)
	b.close(t)
	b.open(t)
	a.open(t)
	agree(t, a, b)
	later := BeforePair{Pair: store.Pair{Key: "network/again", Value: []byte("{}")}} // of another takeover, while the daemon looked at the first's
	if err := errors.Join(a.changeBefore(func(list []BeforePair) []BeforePair { return append(list, later) }), a.ForgetBefore(t.Context(), pairs)); err != nil {
		t.Fatal(err)
	}
	if pairs, err = a.Before(t.Context()); err != nil || len(pairs) != 1 || pairs[0].Key != later.Key {
		t.Errorf("one forgotten, one new: %v, %v", pairs, err)
	}
	if err := a.ForgetBefore(t.Context(), pairs); err != nil {
		t.Fatal(err)
	}
	if pairs, err := a.Before(t.Context()); err != nil || len(pairs) > 0 {
		t.Errorf("forgotten: %v, %v", pairs, err)
	}
}

// TestBothRecovered is failure mode 5: two hosts take over without each other. Neither gives way; both say so; the one on
// which an operator types rejoin joins the other, and so does who had followed it.
func TestBothRecovered(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	c := newHost(t, "c")
	c.join(t, a)
	eventually(t, "three vote", func() bool { return a.isVoter(b.Self().ID) && a.isVoter(c.Self().ID) })
	put(t, a, "network/known", "{}")
	if err := a.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*host{a, b, c} {
		h.close(t)
	}
	b.open(t)
	b.recover(t)
	put(t, b, "network/b", "{}")
	b.close(t)
	c.open(t)
	c.recover(t)
	put(t, c, "network/c", "{}")
	if b.Epoch() == c.Epoch() || b.Epoch()[:2] != c.Epoch()[:2] {
		t.Fatalf("epochs %s and %s", b.Epoch(), c.Epoch())
	}
	b.open(t)
	for _, h := range []*host{b, c} {
		eventually(t, h.cfg.Name+" sees the split", func() bool {
			e := h.Estranged()
			return len(e) == 1 && e[0].How == transport.Split
		})
		if h.alive() != h.cfg.Name {
			t.Errorf("%s sees %s", h.cfg.Name, h.alive())
		}
	}
	if has(t, b, "network/c", true) || has(t, c, "network/b", true) {
		t.Error("merged in silence")
	}
	a.open(t) // it follows whom it meets first
	eventually(t, "a follows one of them", func() bool { return a.Epoch() == b.Epoch() || a.Epoch() == c.Epoch() })
	if err := c.Rejoin(t.Context(), "nobody"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("rejoin nobody: %v", err)
	}
	if err := c.Rejoin(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	agree(t, a, b, c)
	eventually(t, "c follows b", func() bool { return has(t, c, "network/b", false) && !has(t, c, "network/c", false) })
	pairs, err := c.Before(t.Context())
	if err != nil || len(pairs) != 1 || pairs[0].Key != "network/c" {
		t.Errorf("before: %v, %v", pairs, err)
	}
}

// TestTakeoverCrash ends a takeover, and a rejoining, that a daemon did not live to finish.
func TestTakeoverCrash(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	put(t, a, "kept", "1")
	if err := a.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.close(t)
	b.close(t)
	st, err := b.files.load()
	if err != nil {
		t.Fatal(err)
	}
	st = st.nextEpoch()
	st.Recovering, st.Unnoted = true, true
	if err := b.files.save(st); err != nil {
		t.Fatal(err)
	}
	b.open(t)
	if !b.Cautious() {
		t.Error("b gives out what a may have given")
	}
	put(t, b, "x", "1")
	eventually(t, "the takeover is noted", func() bool { return slices.Equal(b.Standing().Missing, []NodeID{a.Self().ID}) })
	if !has(t, b, "kept", true) || b.Epoch() != st.Epoch {
		t.Errorf("epoch %s, want %s", b.Epoch(), st.Epoch)
	}
	a.open(t)
	agree(t, a, b)
	a.close(t)
	st, err = a.files.load()
	if err != nil {
		t.Fatal(err)
	}
	st.Rejoining = true // it has said so, and its replica is there still
	if err := a.files.save(st); err != nil {
		t.Fatal(err)
	}
	a.open(t)
	agree(t, a, b)
	eventually(t, "a has everything", func() bool { return has(t, a, "x", false) })
	// Nothing of it comes back with the next start.
	if st, err := b.files.load(); err != nil || st.Recovering || st.Rejoining || st.Unnoted {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := os.Stat(b.files.before()); err == nil {
		t.Error("b has decided nothing alone")
	}
	if peers := a.decider().Configuration(); !slices.Contains(peers, raft.Peer{ID: string(a.Self().ID)}) {
		t.Errorf("a is none of %v", peers)
	}
}

func TestAddEpochs(t *testing.T) {
	t.Parallel()
	past := addEpochs(nil, "1.a", "2.b", "1.a")
	if !slices.Equal(past, []string{"1.a", "2.b"}) {
		t.Errorf("%v", past)
	}
	for range 100 {
		past = addEpochs(past, "9."+randomHex(4))
	}
	if len(past) != maxPast || slices.Contains(past, "1.a") {
		t.Errorf("%d epochs: %v", len(past), past[:2])
	}
}

// TestDeciding: a question under way is called off when the host that decides falls silent, and a later one at once; as
// long as somebody decides, neither.
func TestDeciding(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	ctx, cancel := b.Deciding(t.Context(), 100*time.Millisecond)
	defer cancel()
	put(t, b, "x", "1")
	if ctx.Err() != nil || !b.Standing().Decides {
		t.Error("called off while a decides")
	}
	a.close(t)
	eventually(t, "called off", func() bool { return ctx.Err() != nil })
	if !errdefs.IsUnavailable(context.Cause(ctx)) {
		t.Errorf("cause %v", context.Cause(ctx))
	}
	eventually(t, "called off at once", func() bool {
		ctx, cancel := b.Deciding(t.Context(), 100*time.Millisecond)
		defer cancel()
		return ctx.Err() != nil
	})
	if b.Standing().Decides {
		t.Error("nobody decides")
	}
	a.open(t)
	eventually(t, "a decides again", func() bool { return b.Standing().Decides })
}

// TestRemoveAfterTakeover: what a host that never comes back had is free once it is removed.
func TestRemoveAfterTakeover(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	put(t, a, "address/n/10.0.0.2", `{"node":"`+string(a.Self().ID)+`"}`)
	if err := a.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.close(t)
	b.recover(t)
	if err := b.Remove(t.Context(), "a", false); err != nil {
		t.Fatal(err)
	}
	if has(t, b, "address/n/10.0.0.2", true) {
		t.Error("its address is not free")
	}
	if err := b.Settled(t.Context(), b.Epoch()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b has forgotten it", func() bool { return len(b.Members()) == 1 && !b.Cautious() })
	a.open(t) // it is told that it was removed, and changes nothing
	c := newHost(t, "c")
	c.join(t, b)
	agree(t, b, c)
	if a.Epoch() == b.Epoch() {
		t.Error("a removed host joined again")
	}
}

// TestTakeoverGoesForward: a takeover that fails after the others are fenced off is finished as soon as it can be. The replica
// may belong to this host alone already: to go back would make two leaders of one epoch.
func TestTakeoverGoesForward(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	put(t, a, "kept", "1")
	if err := a.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.close(t)
	eventually(t, "b may take over", func() bool {
		_, err := b.Recoverable(t.Context())
		return err == nil
	})
	snapshots := b.files.raft() + "/snapshots"
	if err := errors.Join(os.Rename(snapshots, snapshots+".away"), os.WriteFile(snapshots, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := b.Recover(t.Context()); err == nil {
		t.Error("taken over without a place for the replica")
	}
	if !strings.HasPrefix(b.Epoch(), "2.") || !b.Cautious() {
		t.Errorf("epoch %s, cautious %v", b.Epoch(), b.Cautious())
	}
	if err := errors.Join(os.Remove(snapshots), os.Rename(snapshots+".away", snapshots)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the takeover is finished and noted", func() bool {
		leader, led := b.Leader()
		return led && leader == b.Self().ID && slices.Equal(b.Standing().Missing, []NodeID{a.Self().ID})
	})
	if !has(t, b, "kept", true) {
		t.Error("b has lost what it had")
	}
	a.open(t)
	agree(t, a, b)
}

// TestLeaveOnAFullDisk: a host that cannot set up a store of its own after it has left does so when it can.
func TestLeaveOnAFullDisk(t *testing.T) {
	t.Parallel()
	a, b := newHost(t, "a"), newHost(t, "b")
	a.init(t)
	b.close(t)
	var raft string
	b.cfg.Step = func(step string) error {
		if step == "leave-afresh" && raft == "" {
			raft = b.files.raft()
			return os.WriteFile(raft, nil, 0o600)
		}
		return nil
	}
	b.open(t)
	b.join(t, a)
	if err := b.Leave(t.Context(), false); err == nil {
		t.Error("left without a place for the replica")
	}
	if err := os.Remove(raft); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b is alone and decides", func() bool {
		_, err := b.Store().Txn(t.Context(), store.Txn{Then: []store.Op{{Key: "x", Value: []byte("1")}}})
		return err == nil && !b.Clustered()
	})
	b.join(t, a)
	agree(t, a, b)
}

// TestJoinedWhileAway: hosts that joined while the one that takes over was away are nobody it knows, until one of those who
// knew them comes over. From then on they are missing like the others, come over in turn, and are told of no more once they
// were removed.
func TestJoinedWhileAway(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	b.close(t)
	c, d, e := newHost(t, "c"), newHost(t, "d"), newHost(t, "e")
	for _, h := range []*host{c, d, e} {
		h.join(t, a)
	}
	put(t, a, "network/made", `{"Name":"made"}`)
	eventually(t, "those who are there have all", func() bool { return a.Synced(t.Context()) == nil })
	for _, h := range []*host{a, c, d, e} {
		h.close(t)
	}
	gone := d.Self().ID
	b.open(t)
	b.recover(t)
	c.open(t)
	eventually(t, "c is told what it waits for", func() bool {
		return strings.Contains(c.Refused(), "let in as soon as a host that knows it has joined again; else this host is not a member")
	})
	c.close(t)
	a.open(t)
	agree(t, a, b)
	missing := []NodeID{c.Self().ID, d.Self().ID, e.Self().ID}
	slices.Sort(missing)
	if err := b.Settled(t.Context(), b.Epoch()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b hears of those who joined", func() bool {
		got := b.Standing().Missing
		slices.Sort(got)
		return slices.Equal(got, missing)
	})
	if err := a.Settled(t.Context(), a.Epoch()); err != nil || !b.Cautious() {
		t.Errorf("nobody has heard what these have decided: %v", err)
	}
	if err := a.Leave(t.Context(), false); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "of 1 networks") {
		t.Errorf("a leaves, and only it knows of a network: %v", err)
	}
	if err := a.Settled(t.Context(), "1.earlier"); !errdefs.IsUnavailable(err) {
		t.Errorf("what was looked at in another epoch settles: %v", err)
	}
	if st := a.snapshotState(); len(st.Given) != 1 || st.Given[0].Epoch == "" {
		t.Errorf("a has given up %v", st.Given)
	}
	pairs, err := a.Before(t.Context())
	if err != nil || len(pairs) != 1 || pairs[0].Key != "network/made" {
		t.Fatalf("before: %v, %v", pairs, err)
	}
	put(t, a, pairs[0].Key, string(pairs[0].Value))
	if err := a.ForgetBefore(t.Context(), pairs); err != nil {
		t.Fatal(err)
	}
	if err := a.Settled(t.Context(), a.Epoch()); err != nil || len(a.snapshotState().Given) > 0 {
		t.Errorf("a has not told of %v: %v", a.snapshotState().Given, err)
	}
	c.open(t)
	agree(t, a, b, c)
	if err := b.Remove(t.Context(), "d", false); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Store().Txn(t.Context(), store.Txn{Then: []store.Op{{Key: "network/made", Delete: true}}}); err != nil {
		t.Fatal(err)
	}
	e.open(t)
	agree(t, a, b, c, e)
	if err := errors.Join(c.Settled(t.Context(), c.Epoch()), e.Settled(t.Context(), e.Epoch())); err != nil {
		t.Fatal(err)
	}
	if pairs, err := e.Before(t.Context()); err != nil || len(pairs) > 0 {
		t.Errorf("what was removed comes again: %v, %v", pairs, err)
	}
	eventually(t, "all have settled", func() bool { return !b.Cautious() })
	if _, known := b.known()[gone]; known || len(b.Members()) != 4 {
		t.Errorf("members %v", b.Members())
	}
}

// TestRemovedWhileAway: what was removed before a takeover does not come again with a host that had not heard of it.
func TestRemovedWhileAway(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	c, d := newHost(t, "c"), newHost(t, "d")
	c.join(t, a)
	d.join(t, a)
	put(t, a, "network/removed", "{}")
	if err := a.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.close(t)
	if err := d.Leave(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Store().Txn(t.Context(), store.Txn{Then: []store.Op{{Key: "network/removed", Delete: true}}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b hears of it", func() bool { return !has(t, b, "network/removed", false) && len(b.Members()) == 3 })
	a.close(t)
	b.recover(t)
	c.open(t)
	agree(t, b, c)
	pairs, err := c.Before(t.Context())
	if err != nil || len(pairs) > 0 {
		t.Errorf("before: %v, %v", pairs, err)
	}
	if err := c.Settled(t.Context(), c.Epoch()); err != nil {
		t.Fatal(err)
	}
	if list, err := c.files.loadBefore(); err != nil || len(list) > 0 {
		t.Errorf("left: %v, %v", list, err)
	}
	if len(b.Members()) != 3 || len(b.Standing().Missing) != 1 {
		t.Errorf("members %v, missing %v", b.Members(), b.Standing().Missing)
	}
}

// TestRemovedOnTheOtherSide: what was removed on a side before it was given up does not come again with a host of that side
// that had not heard of it, once one that had has come over.
func TestRemovedOnTheOtherSide(t *testing.T) {
	t.Parallel()
	for name, leaves := range map[string]bool{"and settles": false, "and leaves": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			removedOnTheOtherSide(t, leaves)
		})
	}
}

func removedOnTheOtherSide(t *testing.T, leaves bool) {
	a, b := pair(t)
	b.close(t)
	c, d := newHost(t, "c"), newHost(t, "d")
	c.join(t, a)
	d.join(t, a)
	put(t, a, "network/removed", "{}")
	eventually(t, "those who are there have all", func() bool { return a.Synced(t.Context()) == nil })
	eventually(t, "three vote", func() bool { return a.isVoter(c.Self().ID) && a.isVoter(d.Self().ID) })
	c.close(t)
	if err := a.keepBefore(t.Context()); err != nil { // as a daemon does that dies before it has given its side up
		t.Fatal(err)
	}
	if err := d.Leave(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Store().Txn(t.Context(), store.Txn{Then: []store.Op{{Key: "network/removed", Delete: true}}}); err != nil {
		t.Fatal(err)
	}
	a.close(t)
	b.open(t)
	b.recover(t)
	a.open(t)
	agree(t, a, b)
	settle := func(h *host) {
		t.Helper()
		if pairs, err := h.Before(t.Context()); err != nil || len(pairs) > 0 {
			t.Errorf("%s: before: %v, %v", h.cfg.Name, pairs, err)
		}
		if err := h.Settled(t.Context(), "1.earlier"); !errdefs.IsUnavailable(err) {
			t.Errorf("%s settles what it had looked at in another epoch: %v", h.cfg.Name, err)
		}
		if err := h.Settled(t.Context(), h.Epoch()); err != nil {
			t.Fatal(err)
		}
	}
	settle(b)
	there := []*host{a, b, c}
	if leaves {
		there = []*host{b, c}
		if err := a.Leave(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	} else {
		settle(a)
	}
	eventually(t, "only c is missing", func() bool { return slices.Equal(b.Standing().Missing, []NodeID{c.Self().ID}) })
	c.open(t)
	agree(t, there...)
	settle(c)
	eventually(t, "all are back", func() bool { return len(b.Standing().Missing) == 0 && len(b.Members()) == len(there) })
	for _, h := range there {
		if st := h.snapshotState(); len(st.Given)+len(st.Taken) > 0 {
			t.Errorf("%s has not told of %v, %v", h.cfg.Name, st.Given, st.Taken)
		}
	}
}

package raft

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	hraft "github.com/hashicorp/raft"

	"github.com/minictl/minictl/cluster/store"
)

// TestStoppedLeader: a leader that was stopped finds, when it goes on, answers to what it had asked before; meanwhile there
// is another leader. It must not take them for answers to its reader.
func TestStoppedLeader(t *testing.T) {
	checkLeaks(t)
	f := newCluster(t, 3, 3)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const want = 5
	for seen, round := 0, 0; seen < want; round++ {
		if ctx.Err() != nil {
			t.Fatalf("a host was held in time to believe that it leads %d times, not %d", seen, want)
		}
		old, was, is := f.leader(), fmt.Sprint(round, " old"), fmt.Sprint(round, " new")
		mustPut(t, old, "a", was)
		mustPut(t, old, "b", was)
		var next, third *Backend
		for _, id := range f.ids() {
			switch {
			case id == old.node:
			case next == nil:
				next = f.host(id)
			default:
				third = f.host(id)
			}
		}
		release := f.hold(old.node)
		soon, cancel := context.WithTimeout(ctx, 10*time.Second)
		early := make(chan error, 1)
		go func() { // began before, and may be given what was true then
			_, _, err := old.LocalRange(soon, "a")
			early <- err
		}()
		eventually(t, "answers to a heartbeat and to a reader are on their way from both", func() bool {
			return f.arrived(old.node, next.node) > 1 && f.arrived(old.node, third.node) > 1
		})
		if takeOver(ctx, third, next, is) && old.IsLeader() {
			seen++
		}
		read := make(chan string, 1)
		go func() {
			pairs, _, err := old.LocalRange(soon, "a")
			if err != nil {
				read <- "" // what it should say
				return
			}
			read <- string(pairs[0].Value)
		}()
		refused := make(chan error, 1)
		go func() {
			_, err := old.LocalTxn(soon, store.Txn{If: []store.Cond{{Key: "b"}}, Then: put("c", was).Then})
			refused <- err
		}()
		eventually(t, "both wait, or were refused", func() bool {
			old.confirms.mu.Lock()
			defer old.confirms.mu.Unlock()
			return old.confirms.waiting > 2 || len(read) > 0 || len(early) > 0 || len(refused) > 0
		})
		release()
		if got := <-read; got == was {
			t.Errorf("round %d: a fresh read gives what was replaced before it began", round)
		}
		if err := <-refused; errdefs.IsConflict(err) {
			t.Errorf("round %d: a transaction is refused for what was gone before it began", round)
		}
		<-early
		cancel()
	}
}

// takeOver makes next the leader, by the voice of another voter, and has it decide something.
func takeOver(ctx context.Context, voter, next *Backend, value string) bool {
	self := []byte(voter.node)
	req := &hraft.TimeoutNowRequest{RPCHeader: hraft.RPCHeader{ProtocolVersion: hraft.ProtocolVersionMax, ID: self, Addr: self}}
	if voter.trans.TimeoutNow(hraft.ServerID(next.node), hraft.ServerAddress(next.node), req, new(hraft.TimeoutNowResponse)) != nil {
		return false
	}
	soon, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := next.Txn(soon, store.Txn{Then: append(put("a", value).Then, store.Op{Key: "b", Delete: true})})
	return err == nil
}

// TestLearnersConfirmNothing: a leader with all learners on its side of a partition and no other voter reads nothing.
func TestLearnersConfirmNothing(t *testing.T) {
	checkLeaks(t)
	f := newCluster(t, 5, 3)
	old := f.leader()
	mustPut(t, old, "a", "1")
	var voters []string
	for _, p := range old.Configuration() {
		if p.Voter && p.ID != old.node {
			voters = append(voters, p.ID)
		}
	}
	f.part(old.node, true, voters...)
	for old.IsLeader() {
		soon, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, _, err := old.LocalRange(soon, ""); err == nil {
			t.Error("learners are taken for a majority")
		}
		cancel()
	}
	f.part(old.node, false, voters...)
	f.leader()
}

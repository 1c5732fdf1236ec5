package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/raft"
	"github.com/minictl/minictl/cluster/records"
	"github.com/minictl/minictl/cluster/rpc"
	"github.com/minictl/minictl/cluster/store"
)

// The calls between members, and those of a host that joins (callAdmit), joins again (callRejoin) or
// whose certificate is good no more (callRenew).
const (
	callTxn       = "txn"
	callRange     = "range"
	callRecords   = "records"
	callSnapshots = "snapshots"
	callApplied   = "applied"
	callLearner   = "learner"
	callRemove    = "remove"
	callForget    = "forget"
	callAdmit     = "admit"
	callRejoin    = "rejoin"
	callRenew     = "renew"
	callMet       = "met"
	callTrust     = "trust"
	callMembers   = "members"
)

// txnReply carries a conflict beside the error classes: its key and revisions must survive the wire.
type txnReply struct {
	Rev      store.Revision       `json:"rev"`
	Conflict *store.ConflictError `json:"conflict,omitempty"`
}

type rangeRequest struct {
	Prefix string `json:"prefix"`
}

type rangeReply struct {
	Pairs []store.Pair   `json:"pairs"`
	Rev   store.Revision `json:"rev"`
}

type recordsReply struct {
	NeedFull bool            `json:"needFull,omitempty"`
	Have     records.Version `json:"have"`
}

type snapshotsRequest struct {
	Owners []string `json:"owners,omitempty"` // empty: all
}

type snapshotsReply struct {
	Updates []records.Update `json:"updates"`
}

type appliedBody struct {
	Index  uint64 `json:"index,omitempty"`  // in a request 0 means: only tell
	Leader string `json:"leader,omitempty"` // in an answer: who decides, and was heard there a moment ago
}

type memberRequest struct {
	ID        NodeID `json:"id"`
	Forwarded bool   `json:"forwarded,omitempty"` // at most once: two hosts may think each other the leader
}

func (c *Cluster) handleCalls(s *rpc.Server) {
	rpc.Handle(s, callTxn, c.serveTxn)
	rpc.Handle(s, callRange, func(ctx context.Context, r rangeRequest) (rangeReply, error) {
		pairs, rev, err := c.decider().LocalRange(ctx, r.Prefix)
		return rangeReply{Pairs: pairs, Rev: rev}, err
	})
	rpc.Handle(s, callRecords, c.serveRecords)
	rpc.Handle(s, callSnapshots, c.serveSnapshots)
	rpc.Handle(s, callApplied, func(ctx context.Context, r appliedBody) (appliedBody, error) {
		b := c.decider()
		if r.Index > 0 {
			if err := b.WaitApplied(ctx, r.Index); err != nil {
				return appliedBody{}, err
			}
		}
		reply := appliedBody{Index: b.AppliedIndex()}
		if leader, led := b.Leader(); led && b.Prospect() == raft.Answered {
			reply.Leader = leader
		}
		return reply, nil
	})
	rpc.Handle(s, callTrust, func(context.Context, struct{}) (trust, error) { return c.trusts() })
	rpc.Handle(s, callLearner, func(ctx context.Context, r memberRequest) (appliedBody, error) {
		return c.onLeader(ctx, callLearner, r, c.addLearner)
	})
	rpc.Handle(s, callMet, c.serveMet)
	rpc.Handle(s, callMembers, func(ctx context.Context, _ struct{}) (rangeReply, error) {
		pairs, rev, err := c.store.Range(ctx, prefixNode, false)
		return rangeReply{Pairs: pairs, Rev: rev}, err
	})
	rpc.Handle(s, callRemove, func(ctx context.Context, r memberRequest) (appliedBody, error) {
		return c.onLeader(ctx, callRemove, r, c.removePeer)
	})
	rpc.Handle(s, callForget, func(ctx context.Context, r memberRequest) (appliedBody, error) {
		return c.serveForget(ctx, r, rpc.Peer(ctx))
	})
}

// serveMet answers when this host counts the caller among the living: whatever it publishes from then on waits for the
// caller's acknowledgement.
func (c *Cluster) serveMet(ctx context.Context, _ struct{}) (struct{}, error) {
	s, id := c.session(), rpc.Peer(ctx)
	if s == nil {
		return struct{}{}, fmt.Errorf("meet node %s: this host is not listening: %w", id, errdefs.ErrUnavailable)
	}
	if err := (peers{c}).awaitNode(ctx, id); err != nil {
		return struct{}{}, err
	}
	return struct{}{}, s.gossip.Await(ctx, id)
}

// serveTxn decides on what another host asks for, as long as that host is a member: an address that a removed one took too
// late would be nobody's to give back.
func (c *Cluster) serveTxn(ctx context.Context, t store.Txn) (txnReply, error) {
	b, id, wish := c.decider(), NodeID(rpc.Peer(ctx)), slices.Clip(t.If)
	for fresh := false; ; fresh = true {
		member, err := memberNow(ctx, b, id, fresh)
		if err != nil {
			return txnReply{}, err
		}
		t.If = append(wish, member)
		rev, err := b.LocalTxn(ctx, t)
		var conflict *store.ConflictError
		if !errors.As(err, &conflict) {
			return txnReply{Rev: rev}, err
		}
		if conflict.Key != member.Key || conflict.Want != member.Rev { // else its record has changed, or is gone
			return txnReply{Conflict: conflict}, nil
		}
	}
}

// memberNow is true as long as a node's record is as it is now, on the leader.
func memberNow(ctx context.Context, b backend, id NodeID, fresh bool) (store.Cond, error) {
	key := nodeKey(id)
	if !fresh {
		if node, known, err := store.Get(ctx, b, key, false); known || err != nil {
			return store.Cond{Key: key, Rev: node.Rev}, err
		}
	}
	pairs, _, err := b.LocalRange(ctx, key) // a leader may not have applied all yet
	if err != nil {
		return store.Cond{}, err
	}
	if len(pairs) == 0 || pairs[0].Key != key {
		return store.Cond{}, fmt.Errorf("node %s is no member: %w", id, errdefs.ErrPermissionDenied)
	}
	return store.Cond{Key: key, Rev: pairs[0].Rev}, nil
}

// serveRecords takes over what a member says of its own endpoints; of others' it may only pass on what it is asked for.
func (c *Cluster) serveRecords(ctx context.Context, u records.Update) (recordsReply, error) {
	if peer := rpc.Peer(ctx); peer != u.Owner {
		return recordsReply{}, fmt.Errorf("node %s may not change the records of %s: %w", peer, u.Owner, errdefs.ErrPermissionDenied)
	}
	out, err := c.merge(ctx, u)
	return recordsReply{NeedFull: out.NeedFull, Have: out.Have}, err
}

func (c *Cluster) serveSnapshots(_ context.Context, r snapshotsRequest) (snapshotsReply, error) {
	owners := r.Owners
	if len(owners) == 0 {
		for owner := range c.pub.digest() {
			owners = append(owners, owner)
		}
	}
	var reply snapshotsReply
	for _, owner := range owners {
		if u, ok := c.pub.full(owner); ok {
			reply.Updates = append(reply.Updates, u)
		}
	}
	return reply, nil
}

// onLeader does what only raft's leader can, here or there.
func (c *Cluster) onLeader(ctx context.Context, name string, r memberRequest, do func(context.Context, NodeID) (appliedBody, error)) (appliedBody, error) {
	b := c.decider()
	if b.IsLeader() {
		reply, err := do(ctx, r.ID)
		if err != nil && !b.IsLeader() {
			err = fmt.Errorf("change the cluster's members: the leader changes: %w: %w", err, errdefs.ErrUnavailable)
		}
		return reply, err
	}
	leader, ok := b.Leader()
	s := c.session()
	if !ok || s == nil || r.Forwarded || NodeID(leader) == c.Self().ID {
		return appliedBody{}, fmt.Errorf("change the cluster's members: no leader answers: %w", errdefs.ErrUnavailable)
	}
	return rpc.Call[memberRequest, appliedBody](ctx, s.client, leader, name, memberRequest{ID: r.ID, Forwarded: true}, true)
}

// addLearner lets a node that has been admitted follow, and tells the index at which it has everything up to now.
func (c *Cluster) addLearner(ctx context.Context, id NodeID) (appliedBody, error) {
	b := c.decider()
	if _, ok, err := store.Get(ctx, b, nodeKey(id), false); err != nil {
		return appliedBody{}, err
	} else if !ok {
		return appliedBody{}, fmt.Errorf("node %s has not been admitted: %w", id, errdefs.ErrFailedPrecondition)
	}
	// Raft dials it at once, by what this host knows of its members.
	if err := (peers{c}).awaitNode(ctx, string(id)); err != nil {
		return appliedBody{}, err
	}
	if err := b.AddLearner(ctx, string(id)); err != nil {
		return appliedBody{}, err
	}
	return appliedBody{Index: b.AppliedIndex()}, nil
}

// removePeer lets a node follow no more. Those that are down lose their votes first, also if nobody has noticed it yet:
// without this one, they could be too many for a majority.
func (c *Cluster) removePeer(ctx context.Context, id NodeID) (appliedBody, error) {
	b, s, self := c.decider(), c.session(), string(c.Self().ID)
	for _, p := range b.Configuration() {
		if !p.Voter || p.ID == string(id) || p.ID == self || s == nil || s.gossip.Alive(p.ID) && c.answers(ctx, s.client, p.ID) {
			continue
		}
		if err := b.Demote(ctx, p.ID); err != nil {
			return appliedBody{}, err
		}
	}
	err := b.RemoveNode(ctx, string(id))
	return appliedBody{Index: b.AppliedIndex()}, err
}

// answers tells whether a member is there now.
func (c *Cluster) answers(ctx context.Context, client *rpc.Client, id string) bool {
	ctx, cancel := context.WithTimeout(ctx, voterPatience)
	defer cancel()
	_, err := rpc.Call[appliedBody, appliedBody](ctx, client, id, callApplied, appliedBody{}, true)
	return err == nil
}

// forwarder carries the Store's questions to the leader.
type forwarder struct{ c *Cluster }

// Txn implements raft.Forwarder.
func (f forwarder) Txn(ctx context.Context, leader string, t store.Txn) (store.Revision, error) {
	s := f.c.session()
	if s == nil {
		return 0, fmt.Errorf("ask node %s: this host is not listening: %w", leader, errdefs.ErrUnavailable)
	}
	reply, err := rpc.Call[store.Txn, txnReply](ctx, s.client, leader, callTxn, t, false)
	if err != nil {
		return 0, err
	}
	if reply.Conflict != nil {
		return 0, reply.Conflict
	}
	return reply.Rev, nil
}

// Range implements raft.Forwarder.
func (f forwarder) Range(ctx context.Context, leader, prefix string) ([]store.Pair, store.Revision, error) {
	s := f.c.session()
	if s == nil {
		return nil, 0, fmt.Errorf("ask node %s: this host is not listening: %w", leader, errdefs.ErrUnavailable)
	}
	reply, err := rpc.Call[rangeRequest, rangeReply](ctx, s.client, leader, callRange, rangeRequest{Prefix: prefix}, true)
	return reply.Pairs, reply.Rev, err
}

// Synced returns when every live member's replica holds all that the leader had decided when Synced was called, or when
// ctx ends.
func (c *Cluster) Synced(ctx context.Context) error {
	b, s := c.decider(), c.session()
	if s == nil {
		return nil
	}
	index := b.AppliedIndex()
	if !b.IsLeader() {
		leader, ok := b.Leader()
		if !ok {
			return fmt.Errorf("wait for all members: no leader answers: %w", errdefs.ErrUnavailable)
		}
		reply, err := rpc.Call[appliedBody, appliedBody](ctx, s.client, leader, callApplied, appliedBody{}, true)
		if err != nil {
			return fmt.Errorf("wait for all members: %w", err)
		}
		index = reply.Index
	}
	live := c.live()
	errs := make(chan error, len(live)+1)
	go func() { errs <- b.WaitApplied(ctx, index) }()
	for _, n := range live {
		go func() {
			_, err := rpc.Call[appliedBody, appliedBody](ctx, s.client, string(n.ID), callApplied, appliedBody{Index: index}, true)
			if err != nil {
				err = fmt.Errorf("node %s: %w", n.Name, err)
			}
			errs <- err
		}()
	}
	var all []error
	for range len(live) + 1 {
		all = append(all, <-errs)
	}
	if err := errors.Join(all...); err != nil {
		return fmt.Errorf("wait for all members: %w", err)
	}
	return nil
}

package cluster

import (
	"context"
	"slices"
	"time"

	"github.com/minictl/minictl/cluster/raft"
	"github.com/minictl/minictl/cluster/rpc"
	"github.com/minictl/minictl/cluster/store"
)

// How long the one host that decides waits for the other one to have a decision, and for how long it does not wait again
// when that has not come.
const (
	learnerWait  = 500 * time.Millisecond
	learnerPause = 2 * time.Second
)

// awaitLearner makes what was decided on one of two hosts safe from that host's end, as a majority would: it waits until the
// other has it, as long as that seems to be alive. So an operator's takeover loses only what was decided while the two
// did not hear each other. The other's own transactions wait for its replica anyhow.
func (c *Cluster) awaitLearner(ctx context.Context, rev store.Revision) {
	b, s := c.decider(), c.session()
	if s == nil || !b.IsLeader() || time.Now().UnixNano() < c.silent.Load() {
		return
	}
	other := theLearner(b.Configuration(), string(c.Self().ID))
	if other == "" || !s.gossip.Alive(other) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, learnerWait)
	defer cancel()
	if _, err := rpc.Call[appliedBody, appliedBody](ctx, s.client, other, callApplied, appliedBody{Index: uint64(rev)}, true); err != nil {
		c.silent.Store(time.Now().Add(learnerPause).UnixNano())
		c.log.Debug("the other host does not have a decision yet", "node", other, "err", err)
	}
}

// theLearner is the other one of two hosts of which this one decides; empty if it is another cluster than that.
func theLearner(peers []raft.Peer, self string) string {
	i := slices.IndexFunc(peers, func(p raft.Peer) bool { return p.ID != self && !p.Voter })
	if len(peers) != 2 || i < 0 {
		return ""
	}
	return peers[i].ID
}

package cluster

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/raft"
)

// votersFor is how many of n nodes vote: an odd number, and one of two. With two voters either host's death would stop
// all decisions; with one, only that host's does.
func votersFor(n int) int {
	switch {
	case n >= 5:
		return 5
	case n >= 3:
		return 3
	default:
		return 1
	}
}

// planVoters names one step towards the right number of voters: whom to promote or whom to demote. One step at a time
// keeps every configuration between two steps able to decide. A dead voter is replaced by a live learner before it is
// demoted. Both empty: all is as it should be, or as good as it can be.
func planVoters(self string, peers []raft.Peer, alive func(id string) bool) (promote, demote string) {
	var voters, dead, learners []string
	for _, p := range peers {
		switch {
		case p.Voter:
			voters = append(voters, p.ID)
			if !alive(p.ID) {
				dead = append(dead, p.ID)
			}
		case alive(p.ID):
			learners = append(learners, p.ID)
		}
	}
	want := votersFor(len(peers))
	switch {
	case len(voters) < want && len(learners) > 0:
		return learners[0], ""
	case len(voters) == want && len(dead) > 0 && len(learners) > 0:
		return learners[0], "" // one too many now; the dead one goes in the next step
	case len(voters) > want && len(dead) > 0:
		return "", dead[0]
	case len(voters) > want:
		i := slices.IndexFunc(voters, func(id string) bool { return id != self })
		if i >= 0 {
			return "", voters[i]
		}
	}
	return "", ""
}

// keepVoters lets the leader keep the number of voters right.
func (c *Cluster) keepVoters(ctx context.Context) {
	everySecond(ctx, func() (done bool) {
		b, s := c.decider(), c.session()
		if s == nil || c.leaving.Load() || !b.IsLeader() {
			return false
		}
		self := string(c.Self().ID)
		promote, demote := planVoters(self, c.witnessesFirst(b.Configuration()), s.gossip.Alive)
		if err := c.changeVoter(ctx, b, promote, demote); err != nil {
			c.log.Warn("cannot change who votes", "promote", promote, "demote", demote, "err", err)
		}
		return false
	})
}

// witnessesFirst puts the learners first that are there for nothing but their vote.
func (c *Cluster) witnessesFirst(peers []raft.Peer) []raft.Peer {
	nodes := c.known()
	waits := func(p raft.Peer) bool { return !p.Voter && nodes[NodeID(p.ID)].Witness }
	return slices.Concat(
		slices.DeleteFunc(slices.Clone(peers), func(p raft.Peer) bool { return !waits(p) }),
		slices.DeleteFunc(slices.Clone(peers), waits))
}

func (c *Cluster) changeVoter(ctx context.Context, b backend, promote, demote string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var err error
	switch {
	case promote != "":
		if err = b.Promote(ctx, promote); err == nil {
			c.log.Info("node votes now", "node", promote)
		}
	case demote != "":
		if err = b.Demote(ctx, demote); err == nil {
			c.log.Info("node votes no more", "node", demote)
		}
	}
	return err
}

// handOver gives the lead to another live voter, if there is one: the others then need not wait for a time-out.
func (c *Cluster) handOver(ctx context.Context) {
	b, s := c.decider(), c.session()
	if s == nil || !b.IsLeader() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for _, p := range b.Configuration() {
		if p.Voter && p.ID != string(c.Self().ID) && s.gossip.Alive(p.ID) {
			if err := b.TransferLeadership(ctx, p.ID); err != nil {
				c.log.Debug("lead not handed over", "node", p.ID, "err", err)
				continue
			}
			return
		}
	}
}

// yield makes another live member voter and leader, so that the others can decide without this host.
func (c *Cluster) yield(ctx context.Context) error {
	b, s := c.decider(), c.session()
	self := string(c.Self().ID)
	var heir raft.Peer
	for _, p := range b.Configuration() { // a live voter is the best heir, a live learner the second best
		if p.ID != self && s.gossip.Alive(p.ID) && (heir.ID == "" || p.Voter) {
			heir = p
		}
	}
	if heir.ID == "" {
		return fmt.Errorf("no live member can take over: %w", errdefs.ErrUnavailable)
	}
	if !heir.Voter {
		if err := b.Promote(ctx, heir.ID); err != nil {
			return err
		}
	}
	return b.TransferLeadership(ctx, heir.ID)
}

package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

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

// planVoters names one step towards the right number of voters: whom to promote, the first of several that can be, or whom to
// demote. One step at a time keeps every configuration between two steps able to decide. A dead voter is replaced by a live
// learner before it is demoted. Both empty: all is as it should be, or as good as it can be.
func planVoters(self string, peers []raft.Peer, alive func(id string) bool) (promote []string, demote string) {
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
		return learners, ""
	case len(voters) == want && len(dead) > 0 && len(learners) > 0:
		return learners, "" // one too many now; the dead one goes in the next step
	case len(voters) > want && len(dead) > 0:
		return nil, dead[0]
	case len(voters) > want:
		i := slices.IndexFunc(voters, func(id string) bool { return id != self })
		if i >= 0 {
			return nil, voters[i]
		}
	}
	return nil, ""
}

// planPeers names one step towards raft's peers being the members: whom to add, or whom to drop. A Leave or a Remove takes
// the vote first, and may end there; then the host is a member still. One that is down is added when it is up.
func planPeers(self string, nodes map[NodeID]Node, peers []raft.Peer, alive func(id string) bool) (add, drop string) {
	for _, p := range peers {
		if _, here := nodes[NodeID(p.ID)]; !here && p.ID != self {
			return "", p.ID
		}
	}
	for _, id := range slices.Sorted(maps.Keys(nodes)) {
		if !slices.ContainsFunc(peers, func(p raft.Peer) bool { return p.ID == string(id) }) && alive(string(id)) {
			return string(id), ""
		}
	}
	return "", ""
}

// keepVoters lets the leader keep raft's peers and the number of those that vote right.
func (c *Cluster) keepVoters(ctx context.Context) {
	everySecond(ctx, func() (done bool) {
		b, s := c.decider(), c.session()
		if s == nil || c.leaving.Load() || !b.IsLeader() {
			return false
		}
		self := string(c.Self().ID)
		if err := c.keepPeers(ctx, b, s.gossip.Alive); err != nil {
			c.log.Warn("cannot change who follows", "err", err)
		}
		promote, demote := planVoters(self, c.witnessesFirst(b.Configuration()), s.gossip.Alive)
		if err := c.changeVoter(ctx, b, promote, demote); err != nil {
			c.log.Warn("cannot change who votes", "promote", promote, "demote", demote, "err", err)
		}
		return false
	})
}

// watchRoles passes on that others vote than a second ago: nothing else may have changed.
func (c *Cluster) watchRoles(ctx context.Context) {
	was := c.decider().Configuration()
	everySecond(ctx, func() (done bool) {
		is := c.decider().Configuration()
		if !slices.Equal(was, is) {
			c.events.add(event{members: true})
		}
		was = is
		return false
	})
}

func (c *Cluster) keepPeers(ctx context.Context, b backend, alive func(id string) bool) error {
	pairs, _, err := b.Range(ctx, prefixNode, false)
	if err != nil {
		return err
	}
	nodes := c.decodeNodes(pairs)
	self := c.Self().ID
	if _, here := nodes[self]; !here {
		return nil // a leader that is being dropped, or that has not applied its table yet
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	switch add, drop := planPeers(string(self), nodes, b.Configuration(), alive); {
	case add != "":
		c.log.Info("a member follows again", "node", add, "name", nodes[NodeID(add)].Name)
		return b.AddLearner(ctx, add)
	case drop != "":
		c.log.Info("who is no member follows no more", "node", drop)
		return b.RemoveNode(ctx, drop)
	}
	return nil
}

// witnessesFirst puts the learners first that are there for nothing but their vote.
func (c *Cluster) witnessesFirst(peers []raft.Peer) []raft.Peer {
	nodes := c.known()
	waits := func(p raft.Peer) bool { return !p.Voter && nodes[NodeID(p.ID)].Witness }
	return slices.Concat(
		slices.DeleteFunc(slices.Clone(peers), func(p raft.Peer) bool { return !waits(p) }),
		slices.DeleteFunc(slices.Clone(peers), waits))
}

func (c *Cluster) changeVoter(ctx context.Context, b backend, promote []string, demote string) error {
	var errs []error
	for _, id := range promote { // one that does not follow must not keep others from voting
		call, cancel := context.WithTimeout(ctx, callTimeout)
		err := b.Promote(call, id)
		cancel()
		if err == nil {
			c.log.Info("node votes now", "node", id)
			return nil
		}
		errs = append(errs, err)
	}
	if demote != "" {
		c.log.Info("node votes no more", "node", demote)
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		return b.Demote(ctx, demote)
	}
	return errors.Join(errs...)
}

// handOver gives the lead to another live voter, if there is one: the others then need not wait for a time-out.
func (c *Cluster) handOver(ctx context.Context) {
	b := c.decider()
	if !b.IsLeader() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for _, p := range c.heirs(0) {
		if !p.Voter {
			return
		}
		err := b.TransferLeadership(ctx, p.ID)
		if err == nil {
			return
		}
		c.log.Debug("lead not handed over", "node", p.ID, "err", err)
	}
}

// heirPatience is what one heir is given: it may be too busy or too far behind just now, or have died unnoticed.
const heirPatience = 2 * time.Second

// voterPatience is what a voter is given to answer before another one goes. One that is only busy has its vote back soon.
const voterPatience = time.Second

// yield makes another live member voter and leader, so that the others can decide without this host. Heirs are tried one after
// another, each round another one first, until ctx ends. One that has become a voter for nothing is none again soon (keepVoters).
func (c *Cluster) yield(ctx context.Context) error {
	b := c.decider()
	for first := 0; ; first++ {
		heirs := c.heirs(first)
		if len(heirs) == 0 {
			return fmt.Errorf("no live member can take over: %w", errdefs.ErrUnavailable)
		}
		var err error
		for _, heir := range heirs {
			if ctx.Err() != nil {
				return errors.Join(err, ctx.Err())
			}
			if err = c.yieldTo(ctx, b, heir); err == nil || !b.IsLeader() {
				return nil
			}
			c.log.Debug("lead not handed over", "node", heir.ID, "err", err)
		}
		select {
		case <-time.After(joinPause):
		case <-ctx.Done():
			return err
		}
	}
}

func (c *Cluster) yieldTo(ctx context.Context, b backend, heir raft.Peer) error {
	ctx, cancel := context.WithTimeout(ctx, heirPatience)
	defer cancel()
	if !heir.Voter {
		if err := b.Promote(ctx, heir.ID); err != nil {
			return err
		}
	}
	return b.TransferLeadership(ctx, heir.ID)
}

// heirs are the live voters other than this host, beginning with the first-th, and then the live learners.
func (c *Cluster) heirs(first int) []raft.Peer {
	s, self := c.session(), string(c.Self().ID)
	var voters, learners []raft.Peer
	for _, p := range c.decider().Configuration() {
		switch {
		case s == nil || p.ID == self || !s.gossip.Alive(p.ID):
		case p.Voter:
			voters = append(voters, p)
		default:
			learners = append(learners, p)
		}
	}
	if len(voters) > 0 {
		first %= len(voters)
		voters = slices.Concat(voters[first:], voters[:first])
	}
	return append(voters, learners...)
}

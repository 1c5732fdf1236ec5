package raft

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	hraft "github.com/hashicorp/raft"
)

// Configuration lists the members as this host knows them, in the order in
// which they were added.
func (b *Backend) Configuration() []Peer {
	future := b.raft.GetConfiguration() // answered from memory
	if future.Error() != nil {
		return nil
	}
	var peers []Peer
	for _, s := range future.Configuration().Servers {
		peers = append(peers, Peer{ID: string(s.ID), Voter: s.Suffrage == hraft.Voter})
	}
	return peers
}

func (b *Backend) voters() []string {
	var ids []string
	for _, p := range b.Configuration() {
		if p.Voter {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

func (b *Backend) onlyVoter() bool {
	voters := b.voters()
	return len(voters) == 1 && voters[0] == b.node
}

// AddLearner makes the host with this ID a follower without a vote. Nothing
// changes for one that is a member already. Like the other methods that change
// members it works on the leader only and is ErrFailedPrecondition elsewhere.
func (b *Backend) AddLearner(ctx context.Context, id string) error {
	return b.change(ctx, "add learner "+id, func() hraft.Future {
		return b.raft.AddNonvoter(hraft.ServerID(id), hraft.ServerAddress(id), 0, 0)
	})
}

// Promote gives a learner a vote, once it has shown that it is there and has
// everything: a voter that cannot answer would count against the majority, and
// one of two voters would stop the cluster for good.
func (b *Backend) Promote(ctx context.Context, id string) error {
	what := "promote " + id
	if !b.IsLeader() {
		return b.notLeader(what)
	}
	if err := b.nudges.reach(ctx, id); err != nil {
		return fmt.Errorf("%s: it does not follow: %w", what, err)
	}
	return b.change(ctx, what, func() hraft.Future {
		return b.raft.AddVoter(hraft.ServerID(id), hraft.ServerAddress(id), 0, 0)
	})
}

// Demote makes a voter a learner.
func (b *Backend) Demote(ctx context.Context, id string) error {
	return b.change(ctx, "demote "+id, func() hraft.Future {
		return b.raft.DemoteVoter(hraft.ServerID(id), 0, 0)
	})
}

// RemoveNode drops a member. A leader may remove itself and is then a member
// of nothing; it should be closed.
func (b *Backend) RemoveNode(ctx context.Context, id string) error {
	return b.change(ctx, "remove "+id, func() hraft.Future {
		return b.raft.RemoveServer(hraft.ServerID(id), 0, 0)
	})
}

// TransferLeadership hands over to the voter with this ID and returns when
// this host leads no more.
func (b *Backend) TransferLeadership(ctx context.Context, id string) error {
	for {
		err := b.change(ctx, "hand over to "+id, func() hraft.Future {
			return b.raft.LeadershipTransferToServer(hraft.ServerID(id), hraft.ServerAddress(id))
		})
		if !errors.Is(err, hraft.ErrLeadershipTransferInProgress) {
			return err
		}
		select { // raft waits for another heir still, which does not answer
		case <-time.After(maxPause):
		case <-ctx.Done():
			return err
		}
	}
}

func (b *Backend) change(ctx context.Context, what string, do func() hraft.Future) error {
	if err := b.Usable(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if !b.IsLeader() {
		return b.notLeader(what)
	}
	if ctx.Err() != nil {
		return b.raftError(what, ctx.Err())
	}
	err := awaitFuture(ctx, b, do)
	if errors.Is(err, hraft.ErrNotLeader) {
		return b.notLeader(what)
	}
	if errdefs.IsResourceExhausted(err) && b.onlyVoter() {
		return fmt.Errorf("%s: %w", what, err) // as in LocalTxn
	}
	if err != nil {
		return b.raftError(what, err)
	}
	return nil
}

func (b *Backend) notLeader(what string) error {
	if leader, ok := b.Leader(); ok {
		return fmt.Errorf("%s: only the leader can, and that is host %s: %w", what, leader, errdefs.ErrFailedPrecondition)
	}
	return fmt.Errorf("%s: only the leader can, and there is none: %w", what, errdefs.ErrUnavailable)
}

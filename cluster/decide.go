package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/raft"
)

// decideCheck is how often a question under way is asked whether it still has a chance.
const decideCheck = 50 * time.Millisecond

// errUndecided is why a context of Deciding ended.
var errUndecided = fmt.Errorf("no leader can be heard: %w", errdefs.ErrUnavailable)

// Deciding gives a context for questions to the Store that ends as soon as it is clear that nobody answers them now: at
// once when there is no leader, and after doubt when the leader has been silent all along: it may be dead, or only busy. So
// whoever has another way than the Store's loses no time, and whoever has none can afford to be patient.
func (c *Cluster) Deciding(ctx context.Context, doubt time.Duration) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancelCause(ctx)
	done := func() { cancel(context.Canceled) }
	if c.decider().Prospect() == raft.Hopeless {
		cancel(errUndecided)
		return out, done
	}
	began := time.Now()
	go func() { // ends with the context
		tick := time.NewTicker(decideCheck)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-out.Done():
				return
			}
			p := c.decider().Prospect()
			if p == raft.Hopeless || p == raft.Doubtful && time.Since(began) > doubt {
				cancel(errUndecided)
				return
			}
		}
	}()
	return out, done
}

// Standing is how this host sees the cluster's ability to decide.
type Standing struct {
	Decides bool      // somebody can be expected to answer a question to the Store
	Heard   time.Time // when a leader other than this host was heard last, or this host ceased to lead; zero: not since Open
	Led     NodeID    // who led last, as far as this host knows; empty: nobody since Open
	Since   time.Time // Heard, or when its replica was opened
	// Shown are members that are not heard and whose containers' names stay for now: there is a host without a daemon, for
	// restartGrace at most, or it is not known yet whether there is one.
	Shown []NodeID
	// Missing are the hosts that have not come back since the last takeover. They keep their addresses until they are
	// removed.
	Missing   []NodeID
	Estranged []Estranged
}

// Standing tells how this host sees the cluster, without asking anybody.
func (c *Cluster) Standing() Standing {
	b := c.decider()
	st := Standing{Decides: b.Prospect() == raft.Answered, Heard: b.LastContact(), Led: NodeID(b.LastLeader()), Estranged: c.Estranged()}
	st.Since = later(st.Heard, c.openedAt())
	for _, m := range c.Members() {
		if !m.Alive && c.pub.shows(m.ID) {
			st.Shown = append(st.Shown, m.ID)
		}
	}
	if t, ok := c.lastTakeover(c.ctx); ok {
		st.Missing = c.members(t.Missing)
	}
	return st
}

package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/minictl/minictl/cluster/rpc"
)

// lagWait bounds how long the other hosts are asked what they have.
const lagWait = 300 * time.Millisecond

// Lags asks the hosts that are alive how many entries their replicas are behind the furthest. A host that does not answer
// is left out.
func (c *Cluster) Lags(ctx context.Context) map[NodeID]uint64 {
	most := c.decider().AppliedIndex()
	have := map[NodeID]uint64{c.Self().ID: most}
	for id, r := range c.askLive(ctx, lagWait) {
		have[id] = r.Index
		most = max(most, r.Index)
	}
	out := map[NodeID]uint64{}
	for id, index := range have {
		out[id] = most - index
	}
	return out
}

// askLive asks the other hosts that are alive, at once, what they have and who decides. A host that does not answer in time is
// left out.
func (c *Cluster) askLive(ctx context.Context, wait time.Duration) map[NodeID]appliedBody {
	out := map[NodeID]appliedBody{}
	s := c.session()
	if s == nil {
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, n := range c.live() {
		wg.Go(func() {
			r, err := rpc.Call[appliedBody, appliedBody](ctx, s.client, string(n.ID), callApplied, appliedBody{}, true)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out[n.ID] = r
		})
	}
	wg.Wait()
	return out
}

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
	ctx, cancel := context.WithTimeout(ctx, lagWait)
	defer cancel()
	self := c.Self().ID
	most := c.decider().AppliedIndex()
	have := map[NodeID]uint64{self: most}
	s := c.session()
	if s == nil {
		return map[NodeID]uint64{self: 0}
	}
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
			have[n.ID] = r.Index
			most = max(most, r.Index)
		})
	}
	wg.Wait()
	out := map[NodeID]uint64{}
	for id, index := range have {
		out[id] = most - index
	}
	return out
}

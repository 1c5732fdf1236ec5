package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/minictl/minictl/cluster/rpc"
	"github.com/minictl/minictl/cluster/store"
)

// Keys of the Store.
const (
	prefixNode    = "node/"
	prefixName    = "node-name/"
	prefixToken   = "token/"
	prefixNetwork = "network/"
	prefixAddress = "address/"
	keyCA         = "ca"
	keyGossip     = "gossip-keys"
)

// dropDelay is how long the connections of a node outlive its membership.
const dropDelay = time.Second

func nodeKey(id NodeID) string   { return prefixNode + string(id) }
func nameKey(name string) string { return prefixName + strings.ToLower(name) }

// watchNodes keeps the known members like the Store's node table.
func (c *Cluster) watchNodes(batches <-chan []store.Event) {
	for range batches {
		// The table is small, so it is read whole: what a batch of changes says depends on what was before it.
		pairs, _, err := c.store.Range(c.ctx, prefixNode, false)
		if err != nil {
			continue
		}
		c.setNodes(pairs)
	}
}

func (c *Cluster) decodeNodes(pairs []store.Pair) map[NodeID]Node {
	table := map[NodeID]Node{}
	for _, p := range pairs {
		n, err := decodeNode(p.Value)
		if err != nil || nodeKey(n.ID) != p.Key {
			c.log.Warn("ignored node record", "key", p.Key, "err", err)
			continue
		}
		table[n.ID] = n
	}
	return table
}

func (c *Cluster) setNodes(pairs []store.Pair) {
	table := c.decodeNodes(pairs)
	c.mu.Lock()
	old := c.nodes
	next := table
	if _, here := table[c.st.Self.ID]; c.st.Clustered && !here {
		// This host's replica is not there yet (it has just joined), so the table says nothing about who is gone.
		next = maps.Clone(old)
		maps.Copy(next, table)
	}
	if maps.EqualFunc(old, next, Node.equal) {
		c.mu.Unlock()
		return
	}
	c.nodes = next
	if c.st.Clustered {
		c.st.Nodes = slices.SortedFunc(maps.Values(next), func(a, b Node) int { return strings.Compare(string(a.ID), string(b.ID)) })
		if err := c.files.save(c.st); err != nil {
			c.log.Warn("cannot remember the members", "err", err)
		}
	}
	close(c.news)
	c.news = make(chan struct{})
	c.mu.Unlock()
	c.membersChanged(old, next)
}

// membersChanged forgets who is gone and passes on what has moved.
func (c *Cluster) membersChanged(old, next map[NodeID]Node) {
	networks := map[string]bool{}
	c.pub.mu.Lock()
	for id, was := range old {
		now, here := next[id]
		var nets []string
		if !here {
			nets = c.pub.table.Drop(string(id))
		} else if now.DataPath != was.DataPath {
			nets = c.pub.table.Networks(string(id)) // packets for its endpoints go elsewhere now
		}
		for _, n := range nets {
			networks[n] = true
		}
	}
	for id := range next { // its records may have come before its node record
		if _, here := old[id]; !here {
			for _, n := range c.pub.table.Networks(string(id)) {
				networks[n] = true
			}
		}
	}
	c.pub.mu.Unlock()
	for id := range old {
		if _, here := next[id]; !here {
			c.dropLater(id)
		}
	}
	c.applied(c.ctx, slices.Sorted(maps.Keys(networks)))
	came := maps.Clone(next)
	maps.DeleteFunc(came, func(id NodeID, _ Node) bool { _, known := old[id]; return known })
	c.doubtUnheard(came)
	c.events.add(event{members: true})
}

// dropLater closes the connections of a node that is no member any more, once it has had the answer to what may have
// been its own request to be dropped.
func (c *Cluster) dropLater(id NodeID) {
	c.wg.Go(func() {
		select {
		case <-time.After(dropDelay):
		case <-c.ctx.Done():
			return
		}
		if _, here := c.known()[id]; here {
			return // it came again
		}
		if s := c.session(); s != nil {
			s.tr.Drop(string(id))
		}
	})
}

// watchKeys follows the gossip keys.
func (c *Cluster) watchKeys(batches <-chan []store.Event) {
	for batch := range batches {
		for _, e := range batch {
			var keys [][]byte
			if e.Pair.Key != keyGossip || e.Deleted || json.Unmarshal(e.Pair.Value, &keys) != nil || len(keys) == 0 {
				continue
			}
			c.setKeys(keys)
		}
	}
}

func (c *Cluster) setKeys(keys [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.st.Clustered || slices.EqualFunc(keys, c.st.Keys, func(a, b []byte) bool { return string(a) == string(b) }) {
		return
	}
	if c.sess != nil {
		if err := c.sess.gossip.SetKeys(keys); err != nil {
			c.log.Warn("cannot change gossip keys", "err", err)
			return
		}
	}
	c.st.Keys = keys
	if err := c.files.save(c.st); err != nil {
		c.log.Warn("cannot remember gossip keys", "err", err)
	}
}

// ensureMember finishes a join that a crash interrupted: a host that has its certificate and is not among raft's peers
// asks to be, until it is.
func (c *Cluster) ensureMember(ctx context.Context) {
	self := c.Self().ID
	everySecond(ctx, func() (done bool) {
		if c.Self().ID != self || c.isPeer(self) {
			return true
		}
		s, live := c.session(), c.live()
		if s == nil || len(live) == 0 {
			return false
		}
		call, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		if _, err := rpc.Call[memberRequest, appliedBody](call, s.client, string(live[0].ID), callLearner, memberRequest{ID: self}, true); err != nil {
			c.log.Debug("not followed by the leader yet", "err", err)
		}
		return false
	})
}

// refreshSelf writes this host's node record again if the daemon or the machine has changed since it was written.
func (c *Cluster) refreshSelf(ctx context.Context) {
	c.mu.Lock()
	now := describe(c.st.Self)
	now.Version, now.Witness = c.cfg.Version, c.cfg.Witness
	same := now.equal(c.st.Self)
	c.st.Self = now
	c.mu.Unlock()
	if !same {
		c.writeSelf(ctx, now)
	}
}

// writeSelf replaces this host's node record, and tries until it has, or a newer one is to be written.
func (c *Cluster) writeSelf(ctx context.Context, now Node) {
	for ctx.Err() == nil && c.Self().equal(now) {
		p, ok, err := store.Get(ctx, c.store, nodeKey(now.ID), true)
		if err == nil && !ok {
			return // it was removed from the cluster
		}
		if err == nil {
			var b []byte
			if b, err = json.Marshal(now); err == nil && !bytes.Equal(b, p.Value) {
				_, err = c.store.Txn(ctx, store.Txn{
					If:   []store.Cond{{Key: p.Key, Rev: p.Rev}},
					Then: []store.Op{{Key: p.Key, Value: b}},
				})
			}
		}
		if err == nil {
			return
		}
		c.log.Debug("cannot tell the cluster what has changed here", "err", err)
		select {
		case <-time.After(callTimeout):
		case <-ctx.Done():
		}
	}
}

func (c *Cluster) isPeer(id NodeID) bool {
	for _, p := range c.decider().Configuration() {
		if p.ID == string(id) {
			return true
		}
	}
	return false
}

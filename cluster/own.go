package cluster

import (
	"net/netip"
	"slices"
)

// OwnRecords are the records that this host has published and not withdrawn. They outlive the daemon: whoever publishes
// compares them with what runs when it starts.
func (c *Cluster) OwnRecords() []Record {
	u, _ := c.pub.full(string(c.Self().ID))
	return u.Put
}

// SetMTU tells the other hosts how large a packet this one's data path carries, in bytes, outer headers included: no
// overlay's is larger than the smallest of them. It returns at once.
func (c *Cluster) SetMTU(mtu int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || !c.st.Clustered || c.st.Self.MTU == mtu {
		return
	}
	c.st.Self.MTU = mtu
	now := c.st.Self
	c.nodes[now.ID] = now
	if err := c.files.save(c.st); err != nil {
		c.log.Warn("cannot remember this host's MTU", "err", err)
	}
	c.wg.Go(func() { c.writeSelf(c.ctx, now) })
	c.events.add(event{members: true})
}

// SetRoutes tells the other hosts which prefixes this one routes elsewhere. It returns at once; the node record follows
// as soon as somebody decides. The same routes again cost nothing.
func (c *Cluster) SetRoutes(routes []netip.Prefix) {
	routes = slices.Clone(routes)
	slices.SortFunc(routes, netip.Prefix.Compare)
	routes = slices.Compact(routes)
	c.mu.Lock()
	defer c.mu.Unlock()
	// The first time of a daemon's life it is told whatever cluster.json says: the earlier one may have died on the way.
	if c.closed || c.toldRoutes && slices.Equal(routes, c.st.Self.Routes) {
		return
	}
	c.st.Self.Routes, c.toldRoutes = routes, true
	if now := c.st.Self; c.st.Clustered {
		c.wg.Go(func() { c.writeSelf(c.ctx, now) })
	}
}

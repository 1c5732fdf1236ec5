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

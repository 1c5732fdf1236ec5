package cluster

import (
	"context"
	"maps"
	"net/netip"
	"time"
)

// Addresses tells where this host's addresses are. A node is its key; its address is what its interface has.
type Addresses interface {
	// Interface names the interface that has an address.
	Interface(a netip.Addr) (name string, ok bool)
	// Address gives an address of an interface, of the same family as like.
	Address(iface string, like netip.Addr) (a netip.Addr, ok bool)
}

// addressCheck is how often it is looked whether this host's addresses are there still. One that is missing twice has
// gone: an address may be taken away for a moment while an interface is set up anew.
const addressCheck = 4 * time.Second

// keepAddress follows the interface that had this host's address to the one that it has now (DHCP has given another).
func (c *Cluster) keepAddress(ctx context.Context) {
	if c.cfg.Addresses == nil {
		return
	}
	tick := time.NewTicker(addressCheck)
	defer tick.Stop()
	missed := false
	for {
		moved := c.lookAround()
		if len(moved) > 0 && missed {
			missed = !c.move(ctx, moved)
		} else {
			missed = len(moved) > 0
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// lookAround notes which interfaces have this host's addresses, and tells what they have now instead of those that have gone.
func (c *Cluster) lookAround() map[netip.Addr]netip.Addr {
	st := c.snapshotState()
	if !st.Clustered {
		return nil
	}
	at, moved := maps.Clone(st.Interfaces), map[netip.Addr]netip.Addr{}
	if at == nil {
		at = map[netip.Addr]string{}
	}
	for _, a := range []netip.Addr{st.Self.Addr.Addr(), st.Self.DataPath} {
		if name, ok := c.cfg.Addresses.Interface(a); ok {
			at[a] = name
		} else if now, ok := c.cfg.Addresses.Address(at[a], a); ok && at[a] != "" {
			moved[a] = now
		}
	}
	maps.DeleteFunc(at, func(a netip.Addr, _ string) bool { return a != st.Self.Addr.Addr() && a != st.Self.DataPath })
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.st.Self.ID != st.Self.ID || maps.Equal(at, c.st.Interfaces) {
		return moved
	}
	c.st.Interfaces = at
	if err := c.files.save(c.st); err != nil {
		c.log.Warn("cannot remember where this host's addresses are", "err", err)
	}
	return moved
}

// move listens where this host is now, and tells the others. False: something else is under way.
func (c *Cluster) move(ctx context.Context, moved map[netip.Addr]netip.Addr) bool {
	if !c.op.TryLock() {
		return false
	}
	defer c.op.Unlock()
	if ctx.Err() != nil || !c.Clustered() {
		return true
	}
	if s := c.session(); s != nil {
		// The others need not find out that nobody answers where this host was.
		if err := s.gossip.Leave(leaveNotice); err != nil {
			c.log.Debug("leave gossip", "err", err)
		}
	}
	c.stopSession()
	c.suspendOthers(ctx)
	c.mu.Lock()
	was := c.st.Self
	now := was
	if a, ok := moved[was.Addr.Addr()]; ok {
		now.Addr = netip.AddrPortFrom(a, was.Addr.Port())
	}
	if a, ok := moved[was.DataPath]; ok {
		now.DataPath = a
	}
	c.st.Self, c.nodes[now.ID] = now, now
	at := map[netip.Addr]string{} // it may move again before the next look around
	for old, name := range c.st.Interfaces {
		if a, ok := moved[old]; ok {
			old = a
		}
		at[old] = name
	}
	c.st.Interfaces = at
	err := c.files.save(c.st)
	c.mu.Unlock()
	c.log.Warn("this host's address has changed", "was", was.Addr.String(), "addr", now.Addr.String(), "dataPath", now.DataPath.String(), "err", err)
	c.resume()
	c.wg.Go(func() { c.writeSelf(c.ctx, now) })
	c.events.add(event{members: true})
	return true
}

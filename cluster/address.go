package cluster

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/gossip"
)

// Addresses tells where this host's addresses are. A node is its key; its address is what its interface has.
type Addresses interface {
	// Interface names the interface that has an address.
	Interface(a netip.Addr) (name string, ok bool)
	// Address gives an address of an interface, of the same family as like.
	Address(iface string, like netip.Addr) (a netip.Addr, ok bool)
}

// addressCheck is how often it is looked whether this host's addresses are there still. One that is missing twice, with
// another in its place, has gone: an address may be taken away for a moment while an interface is set up anew.
const addressCheck = time.Second

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

// noteInterfaces is a first lookAround: the address that this host has just been given may change before the next.
func (c *Cluster) noteInterfaces() {
	if c.cfg.Addresses != nil {
		c.lookAround()
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

// findTimeout bounds the call of a member, the time until it has told who it is included.
const findTimeout = 10 * time.Second

// Find calls a member, by name or ID, where somebody says that it is now; addr may leave out the port. Members that have
// all moved at the same time cannot find each other by themselves. Those that meet tell each other of the others, and them.
func (c *Cluster) Find(ctx context.Context, node, addr string) error {
	s := c.session()
	if s == nil {
		return fmt.Errorf("find %s: this host is in no cluster with others: %w", node, errdefs.ErrFailedPrecondition)
	}
	var id NodeID
	var at netip.AddrPort
	for known, n := range c.known() {
		if node == n.Name || node == string(known) {
			id, at = known, n.Addr
		}
	}
	if id == "" || id == c.Self().ID {
		return fmt.Errorf("find %s: no other node of this cluster has that name or ID (minictl node ls): %w", node, errdefs.ErrNotFound)
	}
	if a, err := netip.ParseAddr(addr); err == nil {
		at = netip.AddrPortFrom(a, at.Port())
	} else if at, err = netip.ParseAddrPort(addr); err != nil {
		if host, port, err := net.SplitHostPort(addr); err == nil && net.ParseIP(host) != nil {
			return fmt.Errorf("find %s at %s: %q is no port: %w", node, host, port, errdefs.ErrInvalidArgument)
		}
		return fmt.Errorf("find %s: %q is no address, such as %s: %w", node, addr, c.Self().Addr.Addr(), errdefs.ErrInvalidArgument)
	}
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	if _, err := s.gossip.Join(ctx, []gossip.Peer{{ID: string(id), Addr: at}}); err != nil {
		return fmt.Errorf("find %s at %s: %w", node, at, err)
	}
	if err := s.gossip.Await(ctx, string(id)); err != nil {
		return fmt.Errorf("find %s at %s: it answered and was not seen again: %w: %w", node, at, err, errdefs.ErrUnavailable)
	}
	return nil
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

package engine

import (
	"context"
	"net/netip"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	"github.com/minictl/minictl/netdriver/ipam"
	"github.com/minictl/minictl/runtime/container"
)

// staticAddress is the address of a family that a user asked for, if any.
func staticAddress(set *network.EndpointSettings, v6 bool) netip.Addr {
	switch {
	case set == nil || set.IPAMConfig == nil:
		return netip.Addr{}
	case v6:
		return set.IPAMConfig.IPv6Address
	}
	return set.IPAMConfig.IPv4Address
}

// staticAddresses are those of both families.
func staticAddresses(set *network.EndpointSettings) []netip.Addr {
	var out []netip.Addr
	for _, v6 := range []bool{false, true} {
		if a := staticAddress(set, v6); a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

// pool gives the pool an asked address would be of; errdefs.ErrInvalidArgument if it is of none, and what it says if it
// may not be given.
func (n *Network) pool(a netip.Addr) (ipam.Pool, error) {
	var pool ipam.Pool
	for _, p := range ipam.Pools(n.Subnets) {
		if p.Is6() == a.Is6() {
			pool = p
		}
	}
	return pool, pool.Check(a)
}

// mayGive refuses asked addresses that are of none of the network's pools, or not to be given.
func (n *Network) mayGive(asked []netip.Addr) error {
	for _, a := range asked {
		if _, err := n.pool(a); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) leaseFor(containerID, name, endpoint string, static bool) lease {
	return lease{Node: string(e.cl.Self().ID), Endpoint: endpoint, Container: containerID, Name: name, Static: static}
}

func addressInUse(a netip.Addr, n *Network, holder, node string) error {
	return forbidden("Address already in use: %s on network %s is held by container %s on %s", a, n.Name, holder, node)
}

// holderName is what the holder of a lease is called now: it may have been renamed since it took the address.
func (e *Engine) holderName(networkID string, l lease) string {
	for _, r := range e.cl.Records(networkID) {
		if r.Container == l.Container {
			return r.Name
		}
	}
	if b, err := e.find(l.Container); err == nil {
		return b.specCopy().Name
	}
	return l.Name
}

// localHolder names the container behind a local network's lease: a container's ID if the address is its own for its
// life, else an endpoint's. e.mu must be held.
func (e *Engine) localHolder(holder string) string {
	for id, b := range e.boxes {
		if id == holder {
			return b.specCopy().Name
		}
		for _, ep := range b.statusCopy().Endpoints {
			if ep.ID == holder {
				return b.specCopy().Name
			}
		}
	}
	return holder
}

// keepAddresses reserves the addresses that the user asked for on a network, for the container's whole life: from now on
// nobody gets them, whether the container runs or not. Those on a network that does not exist yet are taken when it starts.
func (e *Engine) keepAddresses(ctx context.Context, spec *container.Spec, key string, u *undo) error {
	asked := staticAddresses(spec.Networks[key])
	if len(asked) == 0 {
		return nil
	}
	n, err := e.findNetwork(ctx, key)
	if errdefs.IsNotFound(err) {
		return nil // docker tells of an unknown network at the start
	}
	if err != nil || n.IPAM != "" { // its manager gives it when it is used
		return err
	}
	if n.foreign() {
		return nil // asked for at the start: there is no keeping it before
	}
	for _, a := range asked {
		pool, err := n.pool(a)
		if err != nil {
			return err
		}
		if _, err := e.takeAddress(ctx, n, pool, a, e.leaseFor(spec.ID, spec.Name, "", true)); err != nil {
			return err
		}
		u.add(func(ctx context.Context) { e.freeAddress(ctx, n, a, spec.ID) })
	}
	return nil
}

// freeAddress ends what keepAddresses began.
func (e *Engine) freeAddress(ctx context.Context, n *Network, a netip.Addr, containerID string) {
	if !n.global() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.leases[n.ID][a] == containerID {
			delete(e.leases[n.ID], a)
		}
		return
	}
	e.giveBack(ctx, n.ID, a, func(l lease) (lease, bool) {
		mine := l.Container == containerID
		l.Static, l.Endpoint = false, ""
		return l, mine
	})
}

// freeAddresses gives back what a container kept for its life, with its end.
func (e *Engine) freeAddresses(ctx context.Context, spec *container.Spec) {
	for key, set := range spec.Networks {
		for _, a := range staticAddresses(set) {
			if n, err := e.findNetwork(ctx, key); err == nil {
				e.freeAddress(ctx, n, a, spec.ID)
			}
		}
	}
}

// restoreAddresses keeps the static addresses of local networks again; the cluster's are in its store.
func (e *Engine) restoreAddresses(ctx context.Context) {
	for _, b := range e.all() {
		spec := b.specCopy()
		for key, set := range spec.Networks {
			n, err := e.findNetwork(ctx, key)
			if err != nil || n.global() || n.IPAM != "" {
				continue
			}
			for _, a := range staticAddresses(set) {
				pool, err := n.pool(a)
				if err != nil {
					continue
				}
				if _, err := e.takeLocal(n, pool, a, e.leaseFor(b.id, spec.Name, "", true)); err != nil {
					e.log.Error("keep a container's address", "container", b.id, "err", err)
				}
			}
		}
	}
}

package engine

import (
	"context"
	"net/netip"
	"slices"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/runtime/container"
)

// wishForeign is what is asked of others' programs for an endpoint. Which subnets the addresses are of they know.
func wishForeign(ep *container.Endpoint, spec *container.Spec, asked []netip.Addr) {
	ep.DNS = resolution(spec, nil)
	for _, a := range asked {
		p := netip.PrefixFrom(a, a.BitLen())
		if a.Is4() {
			ep.Address = p
		} else {
			ep.Address6 = p
		}
	}
}

// foreignJoin has others' programs make the endpoint, and takes over what they decide. They may take their time: no other
// network waits for them.
func (e *Engine) foreignJoin(ctx context.Context, n *Network, ep *container.Endpoint, sb netdriver.Sandbox, u *undo) error {
	if err := e.attach(n, ep.ID); err != nil {
		return err
	}
	if u != nil {
		u.add(func(ctx context.Context) { e.driverLeave(ctx, n, *ep) })
	}
	d := e.drivers[n.Driver]
	at, err := d.Join(ctx, n.wish(), wishEndpoint(*ep), sb)
	if err != nil {
		return err
	}
	if at.Decided != nil && decide(ep, *at.Decided) { // only now it is known what the endpoint shall lead through, or not
		if _, err := d.Join(ctx, n.wish(), wishEndpoint(*ep), sb); err != nil {
			return err
		}
	}
	return e.setSysctls(*ep, sb)
}

// attach notes an endpoint, so that its network is not removed before a container has it.
func (e *Engine) attach(n *Network, id string) error {
	e.netMu.Lock()
	defer e.netMu.Unlock()
	e.mu.RLock()
	gone := e.networks[n.ID] == nil
	e.mu.RUnlock()
	if gone {
		return notFound("network %s not found", n.Name)
	}
	if e.attached[n.ID] == nil {
		e.attached[n.ID] = map[string]bool{}
	}
	e.attached[n.ID][id] = true
	return nil
}

// foreignLeave has others' programs take an endpoint back. What they cannot, their driver keeps in mind.
func (e *Engine) foreignLeave(ctx context.Context, n *Network, ep container.Endpoint) {
	if err := e.drivers[n.Driver].Leave(ctx, n.wish(), wishEndpoint(ep)); err != nil {
		e.log.Error("leave network", "network", n.Name, "endpoint", ep.ID, "err", err)
	}
	e.netMu.Lock()
	defer e.netMu.Unlock()
	delete(e.attached[n.ID], ep.ID)
}

// decide takes over what a driver has decided; news tells whether it leads outside in another way than was known.
func decide(ep *container.Endpoint, d netdriver.Decided) (news bool) {
	news = ep.Gateway != d.Gateway || ep.Gateway6 != d.Gateway6
	ep.Address, ep.Address6, ep.MAC = d.Address, d.Address6, d.MAC.String()
	ep.Gateway, ep.Gateway6, ep.NoGateway = d.Gateway, d.Gateway6, d.NoGateway
	ep.Routes = nil
	for _, r := range d.Routes {
		ep.Routes = append(ep.Routes, container.Route(r))
	}
	ep.DNS = orDNS(ep.DNS, container.DNS(d.DNS))
	return news
}

// resolution is what a container resolves with in place of the host's settings: the user's, else its networks' own.
func resolution(spec *container.Spec, endpoints []container.Endpoint) container.DNS {
	h := spec.HostConfig
	out := container.DNS{Servers: h.DNS, Search: h.DNSSearch, Options: h.DNSOptions}
	for _, ep := range endpoints {
		out = orDNS(out, ep.DNS)
	}
	return out
}

// orDNS is what the first says, and where it says nothing what the second does.
func orDNS(a, b container.DNS) container.DNS {
	if len(a.Servers) == 0 {
		a.Servers = b.Servers
	}
	if len(a.Search) == 0 {
		a.Search = b.Search
	}
	if len(a.Options) == 0 {
		a.Options = b.Options
	}
	return a
}

// bookkeeper is a driver that keeps a list of its endpoints, since the kernel does not tell them.
type bookkeeper interface {
	Endpoints(n netdriver.Network) ([]netdriver.EndpointID, error)
	// Verify tells in what an endpoint is not as it was made.
	Verify(ctx context.Context, n netdriver.Network, id netdriver.EndpointID) error
	// Collect removes what others' programs keep for endpoints that are not on the list.
	Collect(ctx context.Context, n netdriver.Network) error
}

// sweepEndpoints removes the endpoints of foreign networks that no container has, and then has the rest looked at: that
// may take a while, and nobody waits for it.
func (e *Engine) sweepEndpoints(ctx context.Context) {
	e.mu.RLock()
	var all []*Network
	for _, n := range e.networks {
		if n.foreign() {
			all = append(all, n)
		}
	}
	e.mu.RUnlock()
	for _, n := range all {
		books, ok := e.drivers[n.Driver].(bookkeeper)
		if !ok {
			continue
		}
		var valid []netdriver.EndpointID
		for _, u := range e.localUses(n.ID) {
			valid = append(valid, netdriver.EndpointID(u.endpoint.ID))
		}
		listed, err := books.Endpoints(n.wish())
		if err != nil {
			e.log.Error("list endpoints", "network", n.Name, "err", err)
			continue
		}
		for _, id := range listed {
			if !slices.Contains(valid, id) {
				e.log.Info("remove an endpoint that no container has", "network", n.Name, "endpoint", string(id))
				e.driverLeave(ctx, n, container.Endpoint{ID: string(id)})
			}
		}
		e.spawn(func() { e.lookAfter(e.ctx, n, books, valid) })
	}
}

// lookAfter tells what has changed of a foreign network's endpoints while no daemon was there, and lets its programs
// clear up. Nothing is repaired: those who made it know better.
func (e *Engine) lookAfter(ctx context.Context, n *Network, books bookkeeper, valid []netdriver.EndpointID) {
	for _, id := range valid {
		if err := books.Verify(ctx, n.wish(), id); err != nil && ctx.Err() == nil {
			e.log.Warn("a network's programs find an endpoint not as they made it: restart its container if it is not reached", "network", n.Name, "endpoint", string(id), "err", err)
		}
	}
	if err := books.Collect(ctx, n.wish()); err != nil && ctx.Err() == nil {
		e.log.Error("clear up a network", "network", n.Name, "err", err)
	}
}

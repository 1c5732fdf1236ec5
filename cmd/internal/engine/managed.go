package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/ipam"
	"github.com/minictl/minictl/netdriver/remote"
	"github.com/minictl/minictl/runtime/container"
)

// poolTries bounds how often an address manager is asked for another pool, when what it chose overlaps a route.
const poolTries = 64

// manager gives the address manager of a network that has one.
func (e *Engine) manager(n *Network) (*remote.Allocator, error) {
	if e.cfg.Plugins == nil {
		return nil, notFound("plugin %q not found", n.IPAM)
	}
	return e.cfg.Plugins.Allocator(n.IPAM), nil
}

// findManager makes sure that a new network's address manager is there.
func (e *Engine) findManager(ctx context.Context, n *Network) error {
	if n.IPAM == "" {
		return nil
	}
	a, err := e.manager(n)
	forgets := false
	if err == nil {
		forgets, err = a.Forgets(ctx)
	}
	if err != nil {
		return fmt.Errorf("create network %s: IPAM driver: %w", n.Name, err)
	}
	if forgets {
		return unsupported("minictl does not support IPAM drivers that want their requests again after each start (RequiresRequestReplay), as %s does: it has to keep its own books", n.IPAM)
	}
	return nil
}

// requestPools has the network's address manager choose what the user left open: subnets, gateways. What it gave is in u.
func (e *Engine) requestPools(ctx context.Context, n *Network, skip4, skip6 bool, u *undo) error {
	a, err := e.manager(n)
	if err != nil {
		return err
	}
	for _, v6 := range []bool{false, true} {
		if n.wants(v6) && !n.has(v6) {
			n.Subnets = append(n.Subnets, netdriver.Subnet{Prefix: anySize(v6)})
		}
	}
	n.sortSubnets()
	n.dropGateways(true, true)
	space, err := a.Space(ctx, n.global())
	if err != nil {
		return err
	}
	var got []netdriver.Subnet
	for _, s := range n.Subnets {
		skip := skip4
		if s.Prefix.Addr().Is6() {
			skip = skip6
		}
		if s, err = e.requestPool(ctx, a, n, s, space, skip, u); err != nil {
			return err
		}
		got = append(got, s)
	}
	n.Subnets = got
	return nil
}

func (e *Engine) requestPool(ctx context.Context, a *remote.Allocator, n *Network, s netdriver.Subnet, space string, skip bool, u *undo) (netdriver.Subnet, error) {
	wish := remote.PoolWish{Space: space, Range: s.Range, Options: n.IPAMOptions, V6: s.Prefix.Addr().Is6()}
	var taken []netip.Prefix
	if s.Prefix.Bits() > 0 {
		wish.Prefix = s.Prefix
	} else if !n.global() {
		var err error
		if taken, err = e.clusterRoutes(); err != nil {
			return s, err
		}
	}
	p, err := e.freePool(ctx, a, n, wish, taken)
	if err != nil {
		return s, err
	}
	s.Prefix, s.Pool, s.Space = p.Prefix, p.ID, space
	u.add(func(ctx context.Context) { e.returnPool(ctx, n, p.ID) })
	if !s.Gateway.IsValid() && p.Gateway.IsValid() {
		s.Gateway = p.Gateway
	} else if s.Gateway.IsValid() || !skip {
		gw, err := a.RequestGateway(ctx, p.ID, s.Gateway)
		if err != nil {
			return s, fmt.Errorf("gateway of %s: %w", s.Prefix, err)
		}
		s.Gateway = gw.Addr()
		u.add(func(ctx context.Context) { e.returnTo(ctx, n, p.ID, gw.Addr()) })
	}
	for name, aux := range s.Aux {
		if _, err := a.RequestAddress(ctx, p.ID, aux, nil); err != nil {
			return s, fmt.Errorf("auxiliary address %s: %w", name, err)
		}
		u.add(func(ctx context.Context) { e.returnTo(ctx, n, p.ID, aux) })
	}
	return s, nil
}

// freePool requests a pool. Those of the manager's choice that overlap a route are held until another one is found: else
// it would choose them again.
func (e *Engine) freePool(ctx context.Context, a *remote.Allocator, n *Network, wish remote.PoolWish, taken []netip.Prefix) (remote.Pool, error) {
	var held []remote.Pool
	defer func() {
		for _, p := range held {
			e.returnPool(context.WithoutCancel(ctx), n, p.ID)
		}
	}()
	for range poolTries {
		p, err := a.RequestPool(ctx, wish)
		if err != nil || !slices.ContainsFunc(taken, func(t netip.Prefix) bool { return t.Overlaps(p.Prefix) }) {
			return p, err
		}
		held = append(held, p)
	}
	return remote.Pool{}, fmt.Errorf("%d pools that plugin %s chose overlap routes of this host: give --subnet: %w", poolTries, n.IPAM, errdefs.ErrResourceExhausted)
}

// returnPools gives a removed network's pools back, docker's order: gateway, auxiliary addresses, pool.
func (e *Engine) returnPools(ctx context.Context, n *Network) {
	if n.IPAM == "" {
		return
	}
	for _, s := range n.Subnets {
		if s.Gateway.IsValid() {
			e.returnTo(ctx, n, s.Pool, s.Gateway)
		}
		for _, aux := range s.Aux {
			e.returnTo(ctx, n, s.Pool, aux)
		}
		e.returnPool(ctx, n, s.Pool)
	}
}

func (e *Engine) returnPool(ctx context.Context, n *Network, pool string) {
	a, err := e.manager(n)
	if err == nil {
		err = a.ReleasePool(ctx, pool)
	}
	if err != nil {
		e.owe(debt{Plugin: n.IPAM, Network: n.ID, NetworkName: n.Name, Pool: pool}, err)
	}
}

func (e *Engine) returnTo(ctx context.Context, n *Network, pool string, addr netip.Addr) {
	err := errNotYet
	if a, merr := e.manager(n); merr != nil {
		err = merr
	} else if e.isRestored() {
		err = a.ReleaseAddress(ctx, pool, addr)
	}
	if err != nil {
		e.owe(debt{Plugin: n.IPAM, Network: n.ID, NetworkName: n.Name, Pool: pool, Address: addr}, err)
	}
}

// returnAddress gives an endpoint's address back to the network's manager.
func (e *Engine) returnAddress(ctx context.Context, n *Network, addr netip.Addr) {
	for _, s := range n.Subnets {
		if s.Prefix.Contains(addr) && s.Pool != "" {
			e.returnTo(ctx, n, s.Pool, addr)
			return
		}
	}
}

// requestAddress has the network's manager choose an endpoint's address. On a network of all hosts the cluster has to agree.
func (e *Engine) requestAddress(ctx context.Context, n *Network, pool ipam.Pool, asked netip.Addr, l lease) (netip.Prefix, error) {
	a, err := e.manager(n)
	if err != nil {
		return netip.Prefix{}, err
	}
	options := map[string]string{remote.OptionEndpointName: l.Name}
	if l.mac != "" {
		options[remote.OptionMAC] = l.mac
	}
	var errs []error
	for _, s := range pool {
		if asked.IsValid() && !s.Prefix.Contains(asked) {
			continue
		}
		got, err := a.RequestAddress(ctx, s.Pool, asked, options)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !s.Prefix.Contains(got.Addr()) {
			e.returnTo(ctx, n, s.Pool, got.Addr())
			return got, fmt.Errorf("plugin %s gave %s, which is not of its pool %s", n.IPAM, got, s.Prefix)
		}
		if err := e.noteAddress(ctx, n, pool, got.Addr(), l); err != nil {
			e.returnTo(ctx, n, s.Pool, got.Addr())
			return got, err
		}
		return netip.PrefixFrom(got.Addr(), s.Prefix.Bits()), nil
	}
	return netip.Prefix{}, fmt.Errorf("take an address of network %s: %w", n.Name, errors.Join(errs...))
}

// noteAddress says who has an address that a manager gave.
func (e *Engine) noteAddress(ctx context.Context, n *Network, pool ipam.Pool, addr netip.Addr, l lease) error {
	var err error
	if n.global() {
		_, err = e.takeGlobal(ctx, n, pool, addr, l)
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.leases[n.ID] == nil {
		e.leases[n.ID] = map[netip.Addr]string{}
	}
	if holder, ok := e.leases[n.ID][addr]; ok {
		return addressInUse(addr, n, e.localHolder(holder), e.cfg.NodeName)
	}
	e.leases[n.ID][addr] = l.Endpoint
	return nil
}

// managersMAC gives an endpoint its MAC address before it has addresses, where the network's manager wants to know it.
func (e *Engine) managersMAC(ctx context.Context, n *Network, ep *container.Endpoint) error {
	if n.IPAM == "" {
		return nil
	}
	a, err := e.manager(n)
	if err != nil {
		return err
	}
	needed, err := a.NeedsMAC(ctx)
	if err != nil || !needed {
		return err
	}
	mac := net.HardwareAddr{0x02, 0x42, 0, 0, 0, 0} // locally administered
	rand.Read(mac[2:])                              // never fails (crypto/rand)
	ep.MAC = mac.String()
	return nil
}

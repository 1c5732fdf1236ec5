package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/remote"
	"github.com/minictl/minictl/runtime/container"
)

// driver gives a network's driver: ours, or the plugin of that name, whether or not that is there now.
func (e *Engine) driver(n *Network) netdriver.Driver {
	if d, ok := e.drivers[n.Driver]; ok {
		return d
	}
	if e.cfg.Plugins == nil {
		return nil
	}
	return e.cfg.Plugins.Driver(n.Driver)
}

// plugin gives a network's plugin; nil if its driver is ours.
func (e *Engine) plugin(n *Network) *remote.Driver {
	if e.cfg.Plugins == nil || e.drivers[n.Driver] != nil {
		return nil
	}
	return e.cfg.Plugins.Driver(n.Driver)
}

// findDriver makes sure that a new network has a driver, and gives the network's scope.
func (e *Engine) findDriver(ctx context.Context, n *Network) (scope string, err error) {
	if e.drivers[n.Driver] != nil {
		if n.Driver == netdriver.TypeOverlay {
			return scopeGlobal, nil
		}
		return scopeLocal, nil
	}
	missing := fmt.Errorf("plugin %q not found: %w", n.Driver, errdefs.ErrNotFound)
	if d := e.plugin(n); d != nil {
		caps, err := d.Capabilities(ctx)
		if err == nil {
			return caps.Scope, nil
		}
		if !errdefs.IsNotFound(err) {
			return "", fmt.Errorf("create network %s: %w", n.Name, err)
		}
		missing = err
	}
	return "", notFound("could not find plugin %s in v1 plugin registry: minictl has the drivers %s: %v", n.Driver, e.driverNames(), missing)
}

// networkDrivers are ours, and the plugins that there are networks of.
func (e *Engine) networkDrivers(ctx context.Context) []string {
	names := slices.Collect(maps.Keys(e.drivers))
	all, err := e.allNetworks(ctx)
	if err != nil {
		e.log.Debug("list the plugins of networks", "err", err)
	}
	for _, n := range all {
		names = append(names, n.Driver)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// driverNames are the drivers that users may choose.
func (e *Engine) driverNames() string {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(e.drivers)), func(n string) bool { return n == netdriver.TypeHost || n == netdriver.TypeNull })
	out := ""
	for i, n := range names {
		switch {
		case i > 0 && i == len(names)-1:
			out += " and "
		case i > 0:
			out += ", "
		}
		out += n
	}
	return out
}

// plugged tells whether another program has a part in the network.
func (e *Engine) plugged(n *Network) bool { return n.IPAM != "" || e.plugin(n) != nil }

// createPlugged makes a local network that other programs have a part in. Nobody else waits for them meanwhile.
func (e *Engine) createPlugged(ctx context.Context, n *Network) (err error) {
	var u undo
	defer func() {
		if err != nil {
			u.run(ctx)
			err = fmt.Errorf("create network %s: %w", n.Name, err)
		}
	}()
	if err := e.claimName(ctx, n); err != nil {
		return err
	}
	defer e.unclaimName(n)
	if err := e.choosePlugged(ctx, n, &u); err != nil {
		return err
	}
	d := e.driver(n)
	if err := d.Check(n.wish()); err != nil {
		return err
	}
	if e.plugin(n) == nil {
		e.netMu.Lock()
		defer e.netMu.Unlock()
	}
	u.add(func(ctx context.Context) {
		if err := d.Remove(ctx, n.wish()); err != nil {
			e.log.Error("a network that was not made stays behind", "network", n.ID, "err", err)
		}
	})
	if err := errors.Join(step("network-ensure"), d.Ensure(ctx, n.wish())); err != nil {
		return err
	}
	return errors.Join(step("network-keep"), e.keepNetwork(n))
}

// claimName keeps others from making a network of the same name, or with the same subnets, until unclaimName.
func (e *Engine) claimName(ctx context.Context, n *Network) error {
	e.netMu.Lock()
	defer e.netMu.Unlock()
	all, err := e.allNetworks(ctx)
	if err != nil {
		return err
	}
	if err := nameFree(e.withMaking(all), n.Name); err != nil {
		return err
	}
	e.making[n.ID] = &Network{ID: n.ID, Name: n.Name}
	return nil
}

func (e *Engine) unclaimName(n *Network) {
	e.netMu.Lock()
	defer e.netMu.Unlock()
	delete(e.making, n.ID)
}

// choosePlugged gives a local network its subnets: an address manager's, or ours.
func (e *Engine) choosePlugged(ctx context.Context, n *Network, u *undo) error {
	skip4, skip6, err := e.skipGateway(ctx, n)
	if err != nil {
		return err
	}
	if n.IPAM != "" {
		return e.requestPools(ctx, n, skip4, skip6, u)
	}
	e.netMu.Lock()
	defer e.netMu.Unlock()
	all, err := e.allNetworks(ctx)
	if err != nil {
		return err
	}
	if err := e.choosePool(n, e.withMaking(all), e.localBlocks(), e.localULA()); err != nil {
		return err
	}
	n.dropGateways(skip4, skip6)
	e.making[n.ID].Subnets = slices.Clone(n.Subnets)
	return nil
}

// skipGateway tells of which families the network's plugin wants no gateway address.
func (e *Engine) skipGateway(ctx context.Context, n *Network) (skip4, skip6 bool, err error) {
	if d := e.plugin(n); d != nil {
		return d.SkipGateway(ctx, n.wish(), !n.DisableIPv4, n.EnableIPv6)
	}
	return false, false, nil
}

// dropGateways takes back the gateways that nobody asked for.
func (n *Network) dropGateways(v4, v6 bool) {
	for i, s := range n.Subnets {
		if is6 := s.Prefix.Addr().Is6(); (is6 && v6 || !is6 && v4) && !slices.Contains(n.gateways, s.Gateway) {
			n.Subnets[i].Gateway = netip.Addr{}
		}
	}
}

// withMaking adds the networks that are about to be. e.netMu must be held.
func (e *Engine) withMaking(all []*Network) []*Network {
	return append(all, slices.Collect(maps.Values(e.making))...)
}

// pluginJoin has a plugin make the endpoint. No other network waits for it; nor does the start of the daemon, for long.
func (e *Engine) pluginJoin(ctx context.Context, d *remote.Driver, n *Network, ep *container.Endpoint, sb netdriver.Sandbox, u *undo) error {
	e.netMu.Lock()
	leaving := e.leaving[n.ID]
	if !leaving {
		if e.attached[n.ID] == nil {
			e.attached[n.ID] = map[string]bool{}
		}
		e.attached[n.ID][ep.ID] = true
	}
	e.netMu.Unlock()
	if leaving {
		return notFound("network %s not found", n.Name)
	}
	if u != nil {
		u.add(func(ctx context.Context) { e.driverLeave(ctx, n, *ep) })
	}
	if !e.isRestored() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, pluginAtStart)
		defer cancel()
	}
	at, err := d.Join(ctx, n.wish(), wishEndpoint(*ep), sb)
	if err != nil {
		return err
	}
	if at.Decided != nil {
		ep.Interface = at.Interface
		decide(ep, *at.Decided)
	}
	return e.setSysctls(*ep, sb)
}

// settle tells an endpoint that a driver has decided about whether it leads outside.
func (e *Engine) settle(ctx context.Context, spec *container.Spec, sb netdriver.Sandbox, j joint, u *undo) (container.Endpoint, error) {
	ep := *j.have
	if !j.gateway && !j.gateway6 && !j.publishes {
		return ep, nil
	}
	ep.Default, ep.Default6 = j.gateway, j.gateway6
	var err error
	if ep.Ports, err = e.reservePorts(ctx, spec, ep, j.ports, u); err != nil {
		return ep, err
	}
	return ep, e.plug(ctx, j.network, &ep, sb, u)
}

// pluginLeave has a plugin forget an endpoint. One that cannot be told is told later.
func (e *Engine) pluginLeave(ctx context.Context, d *remote.Driver, n *Network, ep container.Endpoint) {
	err := errNotYet
	if e.isRestored() {
		err = d.Leave(ctx, n.wish(), wishEndpoint(ep))
	}
	if err != nil {
		e.owe(debt{Plugin: n.Driver, Network: n.ID, NetworkName: n.Name, Global: n.global(), Endpoint: ep.ID, Names: ep.Names}, err)
	}
	e.netMu.Lock()
	delete(e.attached[n.ID], ep.ID)
	e.netMu.Unlock()
	if err == nil {
		e.pluginRemove(ctx, d, n)
	}
}

// pluginRemove has a plugin forget a network of all hosts with its last endpoint on this one.
func (e *Engine) pluginRemove(ctx context.Context, d *remote.Driver, n *Network) {
	e.netMu.Lock()
	last := e.lazy(n) && len(e.attached[n.ID]) == 0
	if last {
		delete(e.attached, n.ID)
	}
	e.netMu.Unlock()
	if !last {
		return
	}
	err := d.Remove(ctx, n.wish())
	if err != nil && !errdefs.IsFailedPrecondition(err) { // else another endpoint has come, or has to go first
		e.owe(debt{Plugin: n.Driver, Network: n.ID, NetworkName: n.Name, Global: n.global()}, err)
	}
}

// isRestored tells whether the daemon has taken up what an earlier one left. Before that no plugin is waited for.
func (e *Engine) isRestored() bool {
	select {
	case <-e.restored:
		return true
	default:
		return false
	}
}

// errNotYet is why plugins are not told of an end while the daemon starts: they may start later than we do.
var errNotYet = errors.New("the daemon starts")

// removePlugged removes a local network that other programs have a part in. Nobody else waits for them meanwhile.
func (e *Engine) removePlugged(ctx context.Context, n *Network) error {
	pl := e.plugin(n)
	e.netMu.Lock()
	err := e.unused(n)
	if err == nil && len(e.attached[n.ID]) > 0 {
		err = activeEndpoints(n, []string{halfWay})
	}
	if err == nil && pl == nil {
		err = e.driver(n).Remove(ctx, n.wish())
	}
	e.leaving[n.ID] = err == nil
	e.netMu.Unlock()
	defer func() {
		e.netMu.Lock()
		delete(e.leaving, n.ID)
		e.netMu.Unlock()
	}()
	if err == nil && pl != nil {
		if _, err = pl.Capabilities(ctx); err == nil {
			err = e.settleDebts(ctx, func(d debt) bool { return d.Network == n.ID && d.Pool == "" })
		}
		if err = errors.Join(err, step("network-unmake")); err != nil {
			err = fmt.Errorf("remove network %s: %w", n.Name, err)
		}
	}
	if err != nil {
		return err
	}
	e.returnPools(ctx, n)
	if pl != nil {
		if err := pl.Remove(ctx, n.wish()); err != nil {
			e.owe(debt{Plugin: n.Driver, Network: n.ID, NetworkName: n.Name}, err)
		}
	}
	reach("network-unmade")
	e.netMu.Lock()
	defer e.netMu.Unlock()
	return e.forgetNetwork(n)
}

// allocateGlobal lets a plugin decide about a network of all hosts, before there is one.
func (e *Engine) allocateGlobal(ctx context.Context, n *Network, u *undo) error {
	d := e.plugin(n)
	if d == nil {
		return nil
	}
	if n.IPAM == "" {
		skip4, skip6, err := e.skipGateway(ctx, n)
		if err != nil {
			return fmt.Errorf("create network %s: %w", n.Name, err)
		}
		n.dropGateways(skip4, skip6)
	}
	n.State = nil
	state, err := d.Allocate(ctx, n.wish())
	if err != nil {
		return fmt.Errorf("create network %s: %w", n.Name, err)
	}
	n.State = state
	u.add(func(ctx context.Context) { e.freePlugin(ctx, n) })
	return nil
}

// freeGlobal lets plugins forget a network of all hosts that there is no more.
func (e *Engine) freeGlobal(ctx context.Context, n *Network) {
	e.freePlugin(ctx, n)
	e.returnPools(ctx, n)
}

func (e *Engine) freePlugin(ctx context.Context, n *Network) {
	d := e.plugin(n)
	if d == nil {
		return
	}
	if err := d.Free(ctx, netdriver.NetworkID(n.ID)); err != nil {
		e.log.Error("a plugin keeps what it allocated for a network that there is no more", "plugin", n.Driver, "network", n.ID, "err", err)
	}
}

// pluginInfo is what a network's plugin wants to show of its endpoints on this host, by their IDs.
func (e *Engine) pluginInfo(ctx context.Context, n *Network) map[string]map[string]string {
	d := e.plugin(n)
	if d == nil {
		return nil
	}
	out := map[string]map[string]string{}
	for _, u := range e.localUses(n.ID) {
		info, err := d.Info(ctx, netdriver.NetworkID(n.ID), netdriver.EndpointID(u.endpoint.ID))
		if err != nil {
			e.log.Warn("a plugin tells nothing of its endpoints", "plugin", n.Driver, "network", n.Name, "err", err)
			break
		}
		out[u.endpoint.ID] = info
	}
	return out
}

package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/ipam"
	"github.com/minictl/minictl/netdriver/portmap"
	"github.com/minictl/minictl/runtime/container"
)

// use is a container's endpoint on a local network.
type use struct {
	containerID, name string
	endpoint          container.Endpoint
}

// localUses are the endpoints that this host's containers have on a network.
func (e *Engine) localUses(networkID string) []use {
	var out []use
	for _, b := range e.all() {
		spec := b.specCopy()
		for _, ep := range b.statusCopy().Endpoints {
			if ep.NetworkID == networkID {
				out = append(out, use{b.id, cmp.Or(gatewayName(ep), spec.Name), ep})
			}
		}
	}
	return out
}

// gatewayName is how docker shows the endpoint that the gateway bridge holds for a container.
func gatewayName(ep container.Endpoint) string {
	if ep.Key != "" {
		return ""
	}
	return "gateway_" + ep.ID[:12]
}

// endpointNames are an endpoint's DNS names, docker's order: the first answers PTR.
func endpointNames(s *container.Spec, set *network.EndpointSettings) []string {
	names := []string{s.Name}
	if set != nil {
		names = append(names, set.Aliases...)
	}
	names = append(names, s.Short(), s.Hostname())
	var out []string
	for _, n := range names {
		if n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// portRequests are the container's wished ports, in the order of their numbers.
func portRequests(s *container.Spec) ([]portmap.Request, error) {
	var out []portmap.Request
	for p, bindings := range s.HostConfig.PortBindings {
		for _, b := range bindings {
			r := portmap.Request{Proto: string(p.Proto()), HostIP: b.HostIP, ContainerPort: p.Num()}
			if b.HostPort != "" && b.HostPort != "0" {
				rng, err := network.ParsePortRange(b.HostPort)
				if err != nil {
					return nil, invalid("invalid host port %q: %v", b.HostPort, err)
				}
				r.First, r.Last = rng.Start(), rng.End()
			}
			out = append(out, r)
		}
		if len(bindings) == 0 {
			out = append(out, portmap.Request{Proto: string(p.Proto()), ContainerPort: p.Num()})
		}
	}
	if s.HostConfig.PublishAllPorts {
		for p := range s.Config.ExposedPorts {
			if _, given := s.HostConfig.PortBindings[p]; !given {
				out = append(out, portmap.Request{Proto: string(p.Proto()), ContainerPort: p.Num()})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b portmap.Request) int {
		return cmp.Or(cmp.Compare(a.ContainerPort, b.ContainerPort), strings.Compare(a.Proto, b.Proto), cmp.Compare(a.First, b.First))
	})
	return out, nil
}

// gatewayNetwork is the bridge through which containers on overlays reach the outside; made with the first of them. The
// first that speaks IPv6 gives it an IPv6 subnet.
func (e *Engine) gatewayNetwork(ctx context.Context, all []*Network, v6 bool) (*Network, error) {
	e.netMu.Lock()
	defer e.netMu.Unlock()
	e.mu.RLock()
	var n *Network
	for _, o := range e.networks {
		if o.Name == e.cfg.GatewayBridge {
			n = o
		}
	}
	e.mu.RUnlock()
	if n != nil && (!v6 || n.has(true)) {
		return n, nil
	}
	if n != nil {
		wider := *n // who reads the old one goes on with it
		wider.Subnets, wider.EnableIPv6 = slices.Clone(n.Subnets), true
		if err := e.choosePool(&wider, all, e.localBlocks(), e.localULA()); err != nil {
			return nil, err
		}
		return &wider, e.keepNetwork(&wider)
	}
	n = e.newGateway()
	n.EnableIPv6 = v6
	if err := nameFree(all, n.Name); err != nil {
		return nil, err
	}
	if err := e.choosePool(n, all, e.localBlocks(), e.localULA()); err != nil {
		return nil, err
	}
	if err := e.keepNetwork(n); err != nil {
		return nil, err
	}
	e.networkEvent(n, events.ActionCreate)
	return n, nil
}

// lazy networks have a link on this host only while a container of this host is on them.
func (e *Engine) lazy(n *Network) bool {
	return n.global() || n.predefined() || n.Name == e.cfg.GatewayBridge
}

// join makes one endpoint. What it made is in u.
func (e *Engine) join(ctx context.Context, b *box, spec *container.Spec, sb netdriver.Sandbox, j joint, u *undo) (container.Endpoint, error) {
	ep, err := e.allot(ctx, b, spec, j, u)
	if err != nil {
		return ep, err
	}
	if ep.Ports, err = e.reservePorts(ctx, spec, ep, j.ports, u); err != nil {
		return ep, err
	}
	if err := e.plug(ctx, j.network, &ep, sb, u); err != nil {
		return ep, err
	}
	reach("joined")
	e.networkEvent(j.network, events.ActionConnect, "container", b.id)
	return ep, nil
}

// allot decides everything about an endpoint but its ports, before anything of it is made. The address it takes is in u.
func (e *Engine) allot(ctx context.Context, b *box, spec *container.Spec, j joint, u *undo) (container.Endpoint, error) {
	n := j.network
	ep := container.Endpoint{
		ID: newID(), NetworkID: n.ID, NetworkName: n.Name, Driver: n.Driver, Key: j.key, Interface: j.iface,
		Default: j.gateway, Default6: j.gateway6, Global: n.global(),
	}
	if j.key != "" {
		ep.Names = endpointNames(spec, j.set)
	}
	if j.set != nil {
		ep.Sysctls = j.set.DriverOpts[optionSysctls]
		if j.decider {
			ep.Options = maps.Clone(j.set.DriverOpts)
		}
		if ip := j.set.IPAMConfig; ip != nil {
			ep.LinkLocal = slices.Clone(ip.LinkLocalIPs)
		}
	}
	if err := step("address"); err != nil {
		return ep, err
	}
	if n.foreign() {
		wishForeign(&ep, spec, staticAddresses(j.set))
	} else if err := n.mayGive(staticAddresses(j.set)); err != nil {
		return ep, err
	}
	if j.set != nil && len(j.set.MacAddress) > 0 {
		ep.MAC = net.HardwareAddr(j.set.MacAddress).String()
	} else if err := e.managersMAC(ctx, n, &ep); err != nil {
		return ep, err
	}
	for _, pool := range ipam.Pools(n.Subnets) {
		if err := e.allotAddress(ctx, b, spec, &j, pool, &ep, u); err != nil {
			return ep, err
		}
	}
	if all := ep.Addresses(); ep.MAC == "" && len(all) > 0 && !j.decider && !n.foreign() {
		ep.MAC = ipam.MAC(all[0].Addr()).String()
	}
	reach("address-taken")
	return ep, e.fixMAC(n, &ep, j.set)
}

// fixMAC gives the endpoint the MAC that it cannot but have on its network, if that is so.
func (e *Engine) fixMAC(n *Network, ep *container.Endpoint, set *network.EndpointSettings) error {
	f, ok := e.drivers[n.Driver].(netdriver.MACFixer)
	if !ok {
		return nil
	}
	mac, err := f.FixedMAC(n.wish())
	switch {
	case err != nil:
		return fmt.Errorf("join network %s: %w", n.Name, err)
	case mac == nil:
		return nil
	case set != nil && len(set.MacAddress) > 0:
		return invalid("join network %s: its endpoint has the MAC of the interface below, %s: leave out --mac-address", n.Name, mac)
	}
	ep.MAC = mac.String()
	return nil
}

// allotAddress takes the endpoint's address of one family.
func (e *Engine) allotAddress(ctx context.Context, b *box, spec *container.Spec, j *joint, pool ipam.Pool, ep *container.Endpoint, u *undo) error {
	n := j.network
	asked := staticAddress(j.set, pool.Is6())
	l := e.leaseFor(b.id, spec.Name, ep.ID, asked.IsValid() && n.IPAM == "")
	if n.IPAM != "" {
		l.mac = ep.MAC
	}
	addr, err := e.takeAddress(ctx, n, pool, asked, l)
	if err != nil {
		return err
	}
	id := ep.ID
	u.add(func(ctx context.Context) { e.releaseAddress(ctx, n, addr.Addr(), id) })
	var gateway netip.Addr
	if s, ok := pool.Holding(addr.Addr()); ok && j.leadsOutside() {
		gateway = s.Gateway
	}
	if pool.Is6() {
		ep.Address6, ep.Gateway6 = addr, gateway
	} else {
		ep.Address, ep.Gateway = addr, gateway
	}
	return nil
}

// reservePorts takes the host's ports for an endpoint.
func (e *Engine) reservePorts(ctx context.Context, spec *container.Spec, ep container.Endpoint, reqs []portmap.Request, u *undo) ([]container.PortMapping, error) {
	reqs, out := e.publishedOn(ep, reqs)
	if len(reqs) == 0 {
		return out, nil
	}
	mappings, err := e.cfg.Ports.Reserve(ctx, spec.Name, reqs)
	if err != nil {
		return nil, fmt.Errorf("failed to set up container networking: driver failed programming external connectivity on endpoint %s (%s): %w", spec.Name, ep.ID, err)
	}
	u.add(func(context.Context) { e.cfg.Ports.Release(spec.Name) })
	for _, m := range mappings {
		out = append(out, container.PortMapping(m))
	}
	return out, nil
}

// plug makes an endpoint in the kernel, with the interface's settings that the user wished.
func (e *Engine) plug(ctx context.Context, n *Network, ep *container.Endpoint, sb netdriver.Sandbox, u *undo) error {
	if err := errors.Join(step("join"), e.driverJoin(ctx, n, ep, sb, u)); err != nil {
		return fmt.Errorf("join network %s: %w", n.Name, err)
	}
	return nil
}

// driverJoin makes the endpoint in the kernel. A lazy network's link comes with its first endpoint here and goes with its
// last, so one endpoint at a time.
func (e *Engine) driverJoin(ctx context.Context, n *Network, ep *container.Endpoint, sb netdriver.Sandbox, u *undo) error {
	if n.foreign() {
		return e.foreignJoin(ctx, n, ep, sb, u)
	}
	if d := e.plugin(n); d != nil {
		return e.pluginJoin(ctx, d, n, ep, sb, u)
	}
	e.netMu.Lock()
	defer e.netMu.Unlock()
	if e.attached[n.ID] == nil {
		e.attached[n.ID] = map[string]bool{}
	}
	e.attached[n.ID][ep.ID] = true
	if u != nil {
		u.add(func(ctx context.Context) { e.driverLeave(ctx, n, *ep) })
	}
	d := e.drivers[n.Driver]
	if _, err := d.Join(ctx, n.wish(), wishEndpoint(*ep), sb); err != nil {
		return err
	}
	if err := e.setSysctls(*ep, sb); err != nil {
		return err
	}
	if ps, ok := d.(netdriver.PeerSetter); ok {
		return ps.SetPeers(ctx, netdriver.NetworkID(n.ID), e.peers(n.ID))
	}
	return nil
}

// driverLeave removes the endpoint from the kernel, and a lazy network with its last endpoint here.
func (e *Engine) driverLeave(ctx context.Context, n *Network, ep container.Endpoint) {
	if d := e.plugin(n); d != nil {
		e.pluginLeave(ctx, d, n, ep)
		return
	}
	if n.foreign() {
		e.foreignLeave(ctx, n, ep)
		return
	}
	e.netMu.Lock()
	defer e.netMu.Unlock()
	d := e.drivers[n.Driver]
	if err := d.Leave(ctx, n.wish(), wishEndpoint(ep)); err != nil {
		e.log.Error("leave network", "network", n.Name, "endpoint", ep.ID, "err", err)
	}
	delete(e.attached[n.ID], ep.ID)
	if !e.lazy(n) || len(e.attached[n.ID]) > 0 {
		return
	}
	delete(e.attached, n.ID)
	if err := d.Remove(ctx, n.wish()); err != nil {
		e.log.Error("remove network's kernel objects", "network", n.Name, "err", err)
	}
}

// setSysctls sets what the user wished for the endpoint's interface.
func (e *Engine) setSysctls(ep container.Endpoint, sb netdriver.Sandbox) error {
	if ep.Sysctls == "" {
		return nil
	}
	keys, values, err := endpointSysctls(ep.Sysctls)
	if err != nil {
		return err
	}
	for i, key := range keys {
		path := strings.ReplaceAll(key, ".", "/")
		path = strings.Replace(path, "/IFNAME/", "/"+ep.Interface+"/", 1)
		err := e.cfg.Sandboxes.SetSysctl(sb.Path, path, values[i])
		if errdefs.IsNotFound(err) {
			return invalid("invalid %s %q: the kernel has no such setting", optionSysctls, key)
		}
		if err != nil {
			return fmt.Errorf("set %s=%s on %s: %w", key, values[i], ep.Interface, err)
		}
	}
	return nil
}

func wishEndpoint(ep container.Endpoint) netdriver.Endpoint {
	w := netdriver.Endpoint{
		ID: netdriver.EndpointID(ep.ID), Interface: ep.Interface, Address: ep.Address, Address6: ep.Address6, LinkLocal: ep.LinkLocal,
		MAC: ep.HardwareAddr(), Options: ep.Options, Aliases: ep.Names, DNS: netdriver.DNS(ep.DNS),
	}
	for _, r := range ep.Routes {
		w.Routes = append(w.Routes, netdriver.Route(r))
	}
	if ep.Default {
		w.Gateway = ep.Gateway
	}
	if ep.Default6 {
		w.Gateway6 = ep.Gateway6
	}
	for _, p := range ep.Ports {
		w.Ports = append(w.Ports, netdriver.PortMapping(p))
	}
	return w
}

// peers are a network's endpoints on the other live hosts.
func (e *Engine) peers(networkID string) []netdriver.Peer {
	self := e.cl.Self().ID
	var out []netdriver.Peer
	for _, r := range e.cl.Records(networkID) {
		mac, err := net.ParseMAC(r.MAC)
		if r.Owner == self || !r.Alive || !r.VTEP.IsValid() || err != nil {
			continue
		}
		for _, p := range r.Addresses() {
			out = append(out, netdriver.Peer{Address: p.Addr(), MAC: mac, VTEP: r.VTEP})
		}
	}
	return out
}

// records are what other hosts must know of a container's endpoints.
func (e *Engine) records(spec *container.Spec, endpoints []container.Endpoint) []cluster.Record {
	var out []cluster.Record
	for _, ep := range endpoints {
		if !ep.OnCluster() {
			continue
		}
		r := cluster.Record{ID: ep.ID, Network: ep.NetworkID, Container: spec.ID, Name: spec.Name, Names: ep.Names, MAC: ep.MAC}
		if ep.Address.IsValid() {
			r.Address, r.PrefixLen = ep.Address.Addr(), ep.Address.Bits()
		}
		if ep.Address6.IsValid() {
			r.Address6, r.PrefixLen6 = ep.Address6.Addr(), ep.Address6.Bits()
		}
		out = append(out, r)
	}
	return out
}

// publish tells every live host, and waits until each has it, half a second at most.
func (e *Engine) publish(ctx context.Context, put []cluster.Record, del []string) []string {
	put = slices.DeleteFunc(put, func(r cluster.Record) bool { return e.clashes.has(r.ID) })
	if len(put)+len(del) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	var networks []string
	for _, r := range slices.Concat(put, e.cl.OwnRecords()) {
		if slices.Contains(del, r.ID) || slices.ContainsFunc(put, func(p cluster.Record) bool { return p.ID == r.ID }) {
			networks = append(networks, r.Network)
		}
	}
	missing, err := e.cl.Publish(ctx, put, del)
	e.zones.dropNetworks(networks) // a question may have been asked before the record was there
	if err != nil {
		e.log.Warn("publish endpoints", "err", err)
	}
	if len(missing) == 0 {
		return nil
	}
	e.log.Warn("some hosts do not have the endpoint's record yet", "nodes", strings.Join(missing, ","))
	return []string{fmt.Sprintf("%s did not confirm the container's address within %s; names may resolve there a moment later", strings.Join(missing, ", "), publishTimeout)}
}

func (e *Engine) republish(ctx context.Context, b *box) error {
	spec, status := b.specCopy(), b.statusCopy()
	e.zones.drop(status.Endpoints)
	e.publish(ctx, e.records(&spec, status.Endpoints), nil)
	return nil
}

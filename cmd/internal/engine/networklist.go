package engine

import (
	"cmp"
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/network"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/ipam"
)

// NetworkList is docker network ls.
func (e *Engine) NetworkList(ctx context.Context, f api.Filters) ([]network.Summary, error) {
	if err := f.Only("id", "name", "driver", "scope", "type", "label", "dangling"); err != nil {
		return nil, err
	}
	for t := range f["type"] {
		if t != "builtin" && t != "custom" {
			return nil, invalid("invalid filter: 'type'='%s'", t)
		}
	}
	dangling, err := f.Bool("dangling")
	if err != nil {
		return nil, err
	}
	all, err := e.allNetworks(ctx)
	if err != nil {
		return nil, err
	}
	out := []network.Summary{}
	for _, n := range all {
		if matchNetwork(f, n) && (dangling == nil || !n.predefined() && *dangling == e.isEmpty(n)) {
			out = append(out, network.Summary{Network: n.view()})
		}
	}
	return out, nil
}

// isEmpty tells whether no endpoint is on a network.
func (e *Engine) isEmpty(n *Network) bool {
	return len(e.localUses(n.ID)) == 0 && len(e.cl.Records(n.ID)) == 0
}

func matchNetwork(f api.Filters, n *Network) bool {
	return f.Labels("label", n.Labels) &&
		f.Named("id", n.ID) &&
		f.Named("name", n.Name) &&
		f.Is("driver", n.Driver) &&
		f.Any("scope", func(v string) bool { return n.Scope == v || v == scopeSwarm && n.global() }) &&
		f.Any("type", func(v string) bool { return (v == "builtin") == n.predefined() })
}

// view is the network in docker's form.
func (n *Network) view() network.Network {
	v := network.Network{
		Name: n.Name, ID: n.ID, Created: n.Created, Scope: n.Scope, Driver: n.Driver, EnableIPv4: !n.DisableIPv4, EnableIPv6: n.EnableIPv6, Internal: n.Internal,
		Attachable: n.Attachable, Options: n.Options, Labels: n.Labels,
		IPAM: network.IPAM{Driver: cmp.Or(n.IPAM, "default"), Options: n.IPAMOptions, Config: []network.IPAMConfig{}},
	}
	if n.foreign() {
		v.IPAM.Driver = n.Driver
	}
	for _, s := range n.Subnets {
		v.IPAM.Config = append(v.IPAM.Config, network.IPAMConfig{Subnet: s.Prefix, Gateway: s.Gateway, IPRange: s.Range, AuxAddress: s.Aux})
	}
	if v.Options == nil {
		v.Options = map[string]string{}
	}
	if v.Labels == nil {
		v.Labels = map[string]string{}
	}
	return v
}

// NetworkInspect is everything about one network: its containers on every live host, and with them the hosts.
func (e *Engine) NetworkInspect(ctx context.Context, ref, scope string, verbose bool) (api.NetworkInspect, error) {
	var n *Network
	err := e.withNetworks(ctx, func(all []*Network) (err error) {
		if scope != "" {
			all = slices.DeleteFunc(all, func(n *Network) bool {
				return n.Scope != scope && !(scope == "swarm" && n.global()) // docker's newer word for global
			})
		}
		n, err = pickNetwork(all, ref)
		return err
	})
	if err != nil {
		return api.NetworkInspect{}, err
	}
	r := api.NetworkInspect{Inspect: network.Inspect{Network: n.view(), Containers: map[string]network.EndpointResource{}}}
	r.VNI = n.VNI
	if s, ok := e.driver(n).(netdriver.Sizer); ok && len(n.Subnets) > 0 {
		if r.MTU, err = s.MTU(n.wish()); err != nil {
			return r, err
		}
	}
	if n.global() {
		e.globalEndpoints(n, &r.Inspect)
	} else {
		for _, u := range e.localUses(n.ID) {
			r.Containers[u.containerID] = network.EndpointResource{
				Name: u.name, EndpointID: u.endpoint.ID, MacAddress: network.HardwareAddr(u.endpoint.HardwareAddr()),
				IPv4Address: u.endpoint.Address, IPv6Address: u.endpoint.Address6,
			}
		}
	}
	if verbose {
		r.Services = map[string]network.ServiceInfo{"": {Tasks: e.tasks(ctx, n, &r.Inspect)}}
	}
	if len(n.Subnets) > 0 {
		used, reserves, err := e.usedAddresses(ctx, n, &r.Inspect)
		if err != nil {
			return api.NetworkInspect{}, err
		}
		r.Reserves = reserves
		r.Status = &network.Status{IPAM: network.IPAMStatus{Subnets: usage(n.Subnets, used)}}
	}
	return r, nil
}

// usage counts, for each subnet, what of it is used and what can still be chosen.
func usage(subnets []netdriver.Subnet, used []netip.Addr) network.SubnetStatuses {
	out := network.SubnetStatuses{}
	for _, s := range subnets {
		in := 0
		for _, a := range used {
			if s.Prefix.Contains(a) {
				in++
			}
		}
		_, free := ipam.Usage(s, in)
		out[s.Prefix] = network.SubnetStatus{IPsInUse: uint64(in), DynamicIPsAvailable: uint64(free)}
	}
	return out
}

// usedAddresses are those that nobody can be given any more; reserves names those among them that hosts have in reserve.
func (e *Engine) usedAddresses(ctx context.Context, n *Network, r *network.Inspect) (used []netip.Addr, reserves map[string][]netip.Addr, err error) {
	if !n.global() {
		e.mu.RLock()
		defer e.mu.RUnlock()
		return slices.Collect(maps.Keys(e.leases[n.ID])), nil, nil
	}
	held, err := e.leasesOf(ctx, n.ID, false)
	if err != nil {
		return nil, nil, err
	}
	used = slices.Collect(maps.Keys(held))
	for _, c := range r.Containers { // given while nobody decided
		for _, p := range []netip.Prefix{c.IPv4Address, c.IPv6Address} {
			if !p.IsValid() {
				continue
			}
			h, ok := held[p.Addr()]
			if !ok {
				used = append(used, p.Addr())
			} else if h.spare() {
				delete(held, p.Addr())
			}
		}
	}
	return used, reserveWords(held, e.nodeName), nil
}

func (e *Engine) globalEndpoints(n *Network, r *network.Inspect) {
	peers := map[netip.Addr]string{}
	for _, rec := range e.cl.Records(n.ID) {
		if !rec.Alive {
			continue
		}
		mac, err := net.ParseMAC(rec.MAC)
		if err != nil {
			continue
		}
		c := network.EndpointResource{Name: rec.Name, EndpointID: rec.ID, MacAddress: network.HardwareAddr(mac)}
		for _, p := range rec.Addresses() {
			if p.Addr().Is4() {
				c.IPv4Address = p
			} else {
				c.IPv6Address = p
			}
		}
		r.Containers[rec.Container] = c
		if rec.VTEP.IsValid() {
			peers[rec.VTEP] = e.nodeName(string(rec.Owner))
		}
	}
	for ip, name := range peers {
		r.Peers = append(r.Peers, network.PeerInfo{Name: name, IP: ip})
	}
	slices.SortFunc(r.Peers, func(a, b network.PeerInfo) int { return a.IP.Compare(b.IP) })
}

// tasks are the endpoints with their hosts, and what a plugin says of those on this one: what docker's verbose inspect shows of containers that belong to no service.
func (e *Engine) tasks(ctx context.Context, n *Network, r *network.Inspect) []network.Task {
	hosts := map[string]netip.Addr{}
	for _, rec := range e.cl.Records(n.ID) {
		hosts[rec.ID] = rec.VTEP
	}
	local := e.pluginInfo(ctx, n)
	var out []network.Task
	for _, c := range r.Containers {
		ip := c.IPv4Address
		if !ip.IsValid() {
			ip = c.IPv6Address
		}
		t := network.Task{Name: c.Name, EndpointID: c.EndpointID, EndpointIP: ip.Addr(), Info: map[string]string{}}
		maps.Copy(t.Info, local[c.EndpointID])
		if ip := hosts[c.EndpointID]; ip.IsValid() {
			t.Info["Host IP"] = ip.String()
		}
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b network.Task) int { return a.EndpointIP.Compare(b.EndpointIP) })
	return out
}

package engine

import (
	"context"
	"net/netip"
	"slices"

	"github.com/minictl/minictl/dnsd"
	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/runtime/container"
)

// HostSuffix is the domain below which the host's own programs find containers, so that a resolver that divides names
// by domain knows which are ours.
const HostSuffix = "minictl"

// HostView gives what the resolver knows for this host itself, which is on no network: the names of all of them, in
// the order of the networks' names.
func (e *Engine) HostView() dnsd.View {
	v := dnsd.View{Suffix: HostSuffix, Ndots: -1}
	all, err := e.allNetworks(context.Background())
	if err != nil {
		e.log.Debug("networks for the host's resolver", "err", err)
		return v
	}
	for _, n := range all {
		if n.Driver != netdriver.TypeHost && n.Driver != netdriver.TypeNull && n.Name != e.cfg.GatewayBridge {
			v.Zones = append(v.Zones, dnsd.NewZone(n.Name, e.seenFromHost(n)))
		}
	}
	return v
}

// seenFromHost are a network's endpoints at the addresses by which this host reaches them. It has no way into an
// overlay: its own containers there are reached by the gateway bridge, the others' addresses are true and no more.
func (e *Engine) seenFromHost(n *Network) []dnsd.Host {
	var hosts []dnsd.Host
	var local []string
	for _, b := range e.all() {
		endpoints := b.statusCopy().Endpoints
		for _, ep := range endpoints {
			if ep.NetworkID != n.ID {
				continue
			}
			local = append(local, ep.ID)
			addrs := addrsOf(ep.Addresses())
			for _, gw := range endpoints {
				if n.Driver == netdriver.TypeOverlay && gw.Key == "" {
					addrs = addrsOf(gw.Addresses())
				}
			}
			hosts = append(hosts, dnsd.Host{Names: ep.Names, Addrs: addrs})
		}
	}
	if n.global() {
		for _, r := range e.cl.Records(n.ID) {
			if r.Alive && !slices.Contains(local, r.ID) {
				hosts = append(hosts, dnsd.Host{Names: r.Names, Addrs: addrsOf(r.Addresses())})
			}
		}
	}
	return hosts
}

// hostGateway is what host-gateway means to a container with these endpoints: the host as the bridge that gives the
// default route has it. The default bridge's address would do as well, but that bridge is there for its own containers
// only.
func (e *Engine) hostGateway(endpoints []container.Endpoint) (netip.Addr, error) {
	for _, ep := range endpoints {
		if ep.Default && ep.Gateway.IsValid() && ep.Driver == netdriver.TypeBridge {
			return ep.Gateway, nil
		}
	}
	return e.gatewayAddress()
}

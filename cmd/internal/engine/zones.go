package engine

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/minictl/minictl/dnsd"
	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/runtime/container"
)

// zoneCache keeps each network's names as the resolver wants them, until they change.
type zoneCache struct {
	mu    sync.Mutex
	zones map[string]*dnsd.Zone // by network ID

	conf     []byte    // the host's resolv.conf
	modified time.Time // of it, as read
}

// drop forgets the zones of the endpoints' networks.
func (z *zoneCache) drop(endpoints []container.Endpoint) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, ep := range endpoints {
		delete(z.zones, ep.NetworkID)
	}
}

func (z *zoneCache) dropNetworks(ids []string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, id := range ids {
		delete(z.zones, id)
	}
}

func (z *zoneCache) dropAll() {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.zones = nil
}

// zone gives a network's names: its endpoints on every live host, or on this one for a local network.
func (e *Engine) zone(ep container.Endpoint) *dnsd.Zone {
	z := &e.zones
	z.mu.Lock()
	defer z.mu.Unlock()
	if zone, ok := z.zones[ep.NetworkID]; ok {
		return zone
	}
	zone := dnsd.NewZone(ep.NetworkName, e.hostsOf(ep))
	if z.zones == nil {
		z.zones = map[string]*dnsd.Zone{}
	}
	z.zones[ep.NetworkID] = zone
	return zone
}

// hostsOf are a network's endpoints with their names: on every live host, or on this one for a local network.
func (e *Engine) hostsOf(ep container.Endpoint) []dnsd.Host {
	var hosts []dnsd.Host
	if ep.OnCluster() {
		for _, r := range e.cl.Records(ep.NetworkID) {
			if r.Alive {
				hosts = append(hosts, dnsd.Host{Names: r.Names, Addrs: addrsOf(r.Addresses())})
			}
		}
	} else {
		for _, u := range e.localUses(ep.NetworkID) {
			hosts = append(hosts, dnsd.Host{Names: u.endpoint.Names, Addrs: addrsOf(u.endpoint.Addresses())})
		}
	}
	return hosts
}

func addrsOf(prefixes []netip.Prefix) []netip.Addr {
	var out []netip.Addr
	for _, p := range prefixes {
		out = append(out, p.Addr())
	}
	return out
}

// hostConf is the host's resolv.conf, read again when the file changes.
func (z *zoneCache) hostConf() []byte {
	z.mu.Lock()
	defer z.mu.Unlock()
	fi, err := os.Stat(hostResolvConf)
	if err != nil {
		return nil
	}
	if !fi.ModTime().Equal(z.modified) {
		if b, err := os.ReadFile(hostResolvConf); err == nil {
			z.conf, z.modified = b, fi.ModTime()
		}
	}
	return z.conf
}

// viewer gives the resolver a container's view, question by question.
func (e *Engine) viewer(b *box) func() dnsd.View { return func() dnsd.View { return e.view(b) } }

// view is what the embedded resolver knows for one container, now.
func (e *Engine) view(b *box) dnsd.View {
	spec, status := b.specCopy(), b.statusCopy()
	v := dnsd.View{Internal: true}
	for _, ep := range status.Endpoints { // links win over the names that all share
		if set := spec.Networks[ep.Key]; set != nil && len(set.Links) > 0 {
			v.Zones = append(v.Zones, e.linkZone(ep, set.Links))
		}
	}
	for _, shared := range []bool{true, false} { // docker's order: the cluster's networks first
		for _, ep := range status.Endpoints {
			if ep.Key != "" && shared == (ep.Global || ep.Driver == netdriver.TypeOverlay) {
				v.Zones = append(v.Zones, e.zone(ep))
			}
		}
	}
	for _, ep := range status.Endpoints {
		// Whoever has a way out may ask the world; a container on internal networks alone may not.
		v.Internal = v.Internal && !ep.LeadsOutside()
	}
	if len(e.resolverOf(&spec, status.Endpoints).Servers) > 0 {
		v.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			return e.cfg.Sandboxes.Dial(ctx, status.SandboxPath, network, address)
		}
	}
	v.Beyond = func() ([]netip.AddrPort, int) {
		set := e.resolverOf(&spec, status.Endpoints)
		set.Embedded, set.Host = true, e.zones.hostConf()
		return set.Upstreams(), set.Ndots()
	}
	return v
}

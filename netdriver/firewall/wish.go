package firewall

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
)

// Bridge is the wish for one bridge: what may pass between it and the rest.
type Bridge struct {
	Interface  string
	Subnets    []netip.Prefix
	Masquerade bool // packets of Subnets that leave by another interface take that interface's address
	ICC        bool // endpoints of the bridge may send to each other through the host's routing
	Internal   bool // nothing passes between the bridge and anything but the host
	// Gateways are the host's addresses on the bridge. Behind other bridges they are no way to the host, unless Shared
	// says that they stand for the host as such.
	Gateways []netip.Addr
	Shared   bool
	// Mode4 and Mode6 are the ways to the containers, per family; empty is NAT.
	Mode4, Mode6 Mode
	// Trusted are interfaces by which published ports are reached at the containers' own addresses, too.
	Trusted []string
	// Sources are addresses, one of a family at most, that leaving packets take instead of the interface's.
	Sources []netip.Addr
}

// Mode is docker's gateway mode: how a bridge's containers and the world reach each other.
type Mode string

// The modes.
const (
	NAT         Mode = "nat"             // masqueraded, ports translated, containers' own addresses closed
	Unprotected Mode = "nat-unprotected" // the same with the containers' own addresses open
	Routed      Mode = "routed"          // nothing translated; published ports are open at the containers' own addresses
	Isolated    Mode = "isolated"        // the host itself has no address on the bridge
)

// mode is the mode of a family.
func (b Bridge) mode(f fam) Mode {
	m := b.Mode6
	if f.size == 4 {
		m = b.Mode4
	}
	return cmp.Or(m, NAT)
}

// Port is one published port. HostIP invalid or unspecified means every address of the host, of Target's family. Behind
// a routed bridge the host has no part in it, and HostPort may be 0.
type Port struct {
	Proto    string // tcp, udp or sctp
	HostIP   netip.Addr
	HostPort uint16
	Target   netip.AddrPort
	Bridge   string // the interface behind which Target is; the port rests while no such bridge is set
}

// wish is everything the table has to say. A wish is never changed once it was written; the setters work on a clone.
type wish struct {
	bridges map[string]Bridge
	ports   map[string][]Port // by owner
	guard   guard
}

// guard is the wish for the tunnel port: 0 means no guard.
type guard struct {
	port    uint16
	members []netip.Addr
}

func (w wish) clone() wish {
	next := wish{bridges: maps.Clone(w.bridges), ports: maps.Clone(w.ports), guard: w.guard}
	if next.bridges == nil {
		next.bridges = map[string]Bridge{}
	}
	if next.ports == nil {
		next.ports = map[string][]Port{}
	}
	return next
}

func (w wish) empty() bool { return len(w.bridges) == 0 && w.guard.port == 0 }

func (w wish) equal(o wish) bool {
	return maps.EqualFunc(w.bridges, o.bridges, Bridge.equal) &&
		maps.EqualFunc(w.ports, o.ports, slices.Equal[[]Port]) &&
		w.guard.port == o.guard.port && slices.Equal(w.guard.members, o.guard.members)
}

func (b Bridge) equal(o Bridge) bool {
	return b.Interface == o.Interface && slices.Equal(b.Subnets, o.Subnets) &&
		b.Masquerade == o.Masquerade && b.ICC == o.ICC && b.Internal == o.Internal &&
		slices.Equal(b.Gateways, o.Gateways) && b.Shared == o.Shared && b.Mode4 == o.Mode4 && b.Mode6 == o.Mode6 &&
		slices.Equal(b.Trusted, o.Trusted) && slices.Equal(b.Sources, o.Sources)
}

// portKey is what a packet is looked up by. An invalid ip stands for every address of the family.
type portKey struct {
	proto uint8
	is4   bool
	ip    netip.Addr
	port  uint16
}

// protocols are the transport protocols a port can be published on, by their IANA numbers.
var protocols = map[string]uint8{"tcp": 6, "udp": 17, "sctp": 132}

func (p Port) key() (portKey, error) {
	proto, ok := protocols[p.Proto]
	if !ok || !p.Target.IsValid() || p.Target.Port() == 0 {
		return portKey{}, fmt.Errorf("publish %s port %d to %s: %w", p.Proto, p.HostPort, p.Target,
			errdefs.ErrInvalidArgument)
	}
	k := portKey{proto: proto, is4: p.Target.Addr().Unmap().Is4(), port: p.HostPort}
	if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
		k.ip = p.HostIP.Unmap().WithZone("")
	}
	return k, nil
}

// crossesFamilies tells whether p asks for packets of one family to reach a target of the other, which NAT cannot do.
func (p Port) crossesFamilies() bool {
	return p.HostIP.IsValid() && p.HostIP.Unmap().Is4() != p.Target.Addr().Unmap().Is4()
}

// checkPorts refuses ports that are malformed or that another owner holds: a map can hold a key once, and one bad
// element would make the kernel refuse the whole table.
func (w wish) checkPorts(owner string, ports []Port) error {
	held := map[portKey]string{}
	for o, ps := range w.ports {
		if o == owner {
			continue
		}
		for _, p := range ps {
			if k, err := p.key(); err == nil && k.port != 0 {
				held[k] = o
			}
		}
	}
	for _, p := range ports {
		k, err := p.key()
		if err != nil {
			return err
		}
		if k.port == 0 {
			continue
		}
		if o, taken := held[k]; taken {
			return fmt.Errorf("publish %s port %d: held by %s: %w", p.Proto, p.HostPort, o, errdefs.ErrAlreadyExists)
		}
		held[k] = owner
	}
	return nil
}

// activePorts gives the ports that have their bridge, by owner, then as given.
func (w wish) activePorts() []Port {
	var out []Port
	for _, owner := range slices.Sorted(maps.Keys(w.ports)) {
		for _, p := range w.ports[owner] {
			_, up := w.bridges[p.Bridge]
			if (up || p.Bridge == "") && !p.crossesFamilies() {
				out = append(out, p)
			}
		}
	}
	return out
}

// sortedBridges gives the bridges by interface name.
func (w wish) sortedBridges() []Bridge {
	return slices.SortedFunc(maps.Values(w.bridges), func(a, b Bridge) int { return cmp.Compare(a.Interface, b.Interface) })
}

// changedUDP gives the UDP ports that are in exactly one of the two lists.
func changedUDP(before, after []Port) []Port {
	var out []Port
	for _, p := range slices.Concat(before, after) {
		if p.Proto == "udp" && slices.Contains(before, p) != slices.Contains(after, p) {
			out = append(out, p)
		}
	}
	return out
}

package remote

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/minictl/minictl/netdriver"
)

// Keys of the free-form options, docker's.
const (
	keyGeneric  = "com.docker.network.generic"
	keyIPv4     = "com.docker.network.enable_ipv4"
	keyIPv6     = "com.docker.network.enable_ipv6"
	keyInternal = "com.docker.network.internal"
	keyExposed  = "com.docker.network.endpoint.exposedports"
	keyPorts    = "com.docker.network.portmap"
)

// Scopes a plugin may have.
const (
	ScopeLocal  = "local"
	ScopeGlobal = "global"
)

// Capabilities are what a network driver says of itself when it is greeted.
type Capabilities struct {
	Scope             string // of its networks: this host's (local), or one for all hosts (global)
	ConnectivityScope string // whether it connects hosts; empty: as Scope
	GwAllocChecker    bool   // it wants to say whether a network needs a gateway address
}

func (c *Capabilities) check(name string) error {
	if c.ConnectivityScope == "" {
		c.ConnectivityScope = c.Scope
	}
	for _, s := range []string{c.Scope, c.ConnectivityScope} {
		if s != ScopeLocal && s != ScopeGlobal {
			return fmt.Errorf("plugin %s: invalid capability: expecting 'local' or 'global', got %q", name, printable(s))
		}
	}
	return nil
}

// poolData is what a network driver is told of one subnet.
type poolData struct {
	AddressSpace string
	Pool         string
	Gateway      string            `json:",omitempty"`
	AuxAddresses map[string]string `json:",omitempty"`
}

type createNetwork struct {
	NetworkID          string
	Options            map[string]any
	IPv4Data, IPv6Data []poolData
}

type allocateNetwork struct {
	NetworkID          string
	Options            map[string]string
	IPv4Data, IPv6Data []poolData
}

// networkRef and endpointRef name what a call is about.
type networkRef struct{ NetworkID string }

type endpointRef struct{ NetworkID, EndpointID string }

type endpointInterface struct{ Address, AddressIPv6, MacAddress string }

type createEndpoint struct {
	endpointRef
	Interface endpointInterface
	Options   map[string]any
}

type join struct {
	endpointRef
	SandboxKey string
	Options    map[string]any
}

type external struct {
	endpointRef
	Options map[string]any
}

// joined is a plugin's answer to Join.
type joined struct {
	InterfaceName struct{ SrcName, DstName, DstPrefix string }
	Gateway       string
	GatewayIPv6   string
	StaticRoutes  []struct {
		Destination string
		RouteType   int // 0: by NextHop, 1: on the link
		NextHop     string
	}
	DisableGatewayService bool
}

// discovery tells of a node; the only kind there is has type 1.
type discovery struct {
	DiscoveryType int
	DiscoveryData struct {
		Address string
		Self    bool `json:"self"`
	}
}

const nodeDiscovery = 1

// space is the address space that a subnet without a plugin's is said to be of.
func space(s netdriver.Subnet, global bool) string {
	switch {
	case s.Space != "":
		return s.Space
	case global:
		return "GlobalDefault"
	}
	return "LocalDefault"
}

// pools divides a network's subnets by family.
func pools(n netdriver.Network, global bool) (v4, v6 []poolData) {
	v4, v6 = []poolData{}, []poolData{}
	for _, s := range n.Subnets {
		d := poolData{AddressSpace: space(s, global), Pool: s.Prefix.String()}
		if s.Gateway.IsValid() {
			d.Gateway = netip.PrefixFrom(s.Gateway, s.Prefix.Bits()).String()
		}
		for name, a := range s.Aux {
			if d.AuxAddresses == nil {
				d.AuxAddresses = map[string]string{}
			}
			d.AuxAddresses[name] = netip.PrefixFrom(a, s.Prefix.Bits()).String()
		}
		if s.Prefix.Addr().Is6() {
			v6 = append(v6, d)
		} else {
			v4 = append(v4, d)
		}
	}
	return v4, v6
}

// networkOptions are what CreateNetwork and GwAllocCheck tell beside the subnets.
func networkOptions(n netdriver.Network, v4, v6 bool) map[string]any {
	generic := n.Options
	if generic == nil {
		generic = map[string]string{}
	}
	o := map[string]any{keyGeneric: generic, keyIPv4: v4, keyIPv6: v6}
	if n.Internal {
		o[keyInternal] = true
	}
	return o
}

// portMapping and port are docker's own encoding: the protocol by IP's number of it.
type portMapping struct {
	Proto       int
	IP          string
	Port        int
	HostIP      string
	HostPort    int
	HostPortEnd int
}

type port struct{ Proto, Port int }

// endpointOptions are what the user gave the endpoint, and its ports.
func endpointOptions(e netdriver.Endpoint) map[string]any {
	numbers := map[string]int{"tcp": 6, "udp": 17, "sctp": 132} // IANA
	ports, exposed := []portMapping{}, []port{}
	for _, p := range e.Ports {
		m := portMapping{Proto: numbers[p.Proto], Port: int(p.ContainerPort), HostPort: int(p.HostPort), HostPortEnd: int(p.HostPort)}
		if p.HostIP.IsValid() {
			m.HostIP = p.HostIP.String()
		}
		ports = append(ports, m)
		exposed = append(exposed, port{m.Proto, m.Port})
	}
	o := map[string]any{keyPorts: ports, keyExposed: exposed}
	for k, v := range e.Options {
		o[k] = v
	}
	return o
}

// decided is what a plugin has decided about an endpoint.
type decided struct {
	address, address6 netip.Prefix
	mac               net.HardwareAddr
	link              string // on the host; "" for none
	name, prefix      string // in the sandbox; either may be empty
	gateway, gateway6 netip.Addr
	routes            []netdriver.Route
	noGateway         bool // the sandbox shall get no way out from elsewhere
}

// takeInterface reads the answer to CreateEndpoint: a plugin may decide only what was left to it.
func (d *decided) takeInterface(given, answer endpointInterface) (err error) {
	for what, pair := range map[string][2]string{
		"address": {given.Address, answer.Address}, "IPv6 address": {given.AddressIPv6, answer.AddressIPv6}, "MAC address": {given.MacAddress, answer.MacAddress},
	} {
		if pair[0] != "" && pair[1] != "" {
			return fmt.Errorf("it modified the interface's %s: it was given %s and answered %q", what, pair[0], printable(pair[1]))
		}
	}
	if answer.Address != "" {
		if d.address, err = netip.ParsePrefix(answer.Address); err != nil || !d.address.Addr().Is4() {
			return fmt.Errorf("its address %q is no IPv4 address with a length", printable(answer.Address))
		}
	}
	if answer.AddressIPv6 != "" {
		if d.address6, err = netip.ParsePrefix(answer.AddressIPv6); err != nil || !d.address6.Addr().Is6() || d.address6.Addr().Is4In6() {
			return fmt.Errorf("its address %q is no IPv6 address with a length", printable(answer.AddressIPv6))
		}
	}
	if answer.MacAddress != "" {
		if d.mac, err = net.ParseMAC(answer.MacAddress); err != nil || len(d.mac) != 6 || d.mac[0]&1 != 0 {
			return fmt.Errorf("its MAC address %q is no unicast Ethernet address", printable(answer.MacAddress))
		}
	}
	return nil
}

// maxRoutes bounds what one endpoint may bring.
const maxRoutes = 1024

// takeJoin reads the answer to Join.
func (d *decided) takeJoin(j joined) (err error) {
	d.link, d.name, d.prefix = j.InterfaceName.SrcName, j.InterfaceName.DstName, j.InterfaceName.DstPrefix
	for _, name := range []string{d.link, d.name, d.prefix} {
		if name != "" && !validLink(name) {
			return fmt.Errorf("it names an interface %q, which none can be called", printable(name))
		}
	}
	if d.gateway, err = gateway(j.Gateway, false); err != nil {
		return err
	}
	if d.gateway6, err = gateway(j.GatewayIPv6, true); err != nil {
		return err
	}
	if len(j.StaticRoutes) > maxRoutes {
		return fmt.Errorf("it wants %d routes, of at most %d", len(j.StaticRoutes), maxRoutes)
	}
	for _, r := range j.StaticRoutes {
		to, err := netip.ParsePrefix(r.Destination)
		if err != nil || to.Addr().Is4In6() {
			return fmt.Errorf("it wants a route to %q, which is no prefix", printable(r.Destination))
		}
		out := netdriver.Route{To: to.Masked()}
		switch {
		case r.RouteType == 0:
			out.Via, err = netip.ParseAddr(r.NextHop)
			if err != nil || out.Via.Zone() != "" || out.Via.Is6() != to.Addr().Is6() {
				return fmt.Errorf("it wants a route to %s by %q, which is no address of that family", to, printable(r.NextHop))
			}
		case r.RouteType != 1:
			return fmt.Errorf("it wants a route to %s of the type %d: there are 0 (by a next hop) and 1 (on the link)", to, r.RouteType)
		}
		d.routes = append(d.routes, out)
		d.noGateway = d.noGateway || to.Bits() == 0
	}
	d.noGateway = d.noGateway || j.DisableGatewayService
	return nil
}

func gateway(s string, v6 bool) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Is6() != v6 || a.Zone() != "" || a.IsUnspecified() {
		return a, fmt.Errorf("its gateway %q is no address of its family", printable(s))
	}
	return a, nil
}

// maxLink is the longest name of an interface, in bytes (IFNAMSIZ less the zero).
const maxLink = 15

func validLink(s string) bool {
	return len(s) <= maxLink && s != "." && s != ".." && s != "lo" && printable(s) == s && !strings.ContainsAny(s, "/: %")
}

// missingMethod tells whether a plugin lacks a method that it may lack.
func missingMethod(err error) bool { return errors.Is(err, errNoMethod) }

// invalidAnswer is a plugin's answer that cannot be followed.
func invalidAnswer(name, kind, method string, err error) error {
	return fmt.Errorf("plugin %s answers %s.%s with what cannot be: %w", name, kind, method, err)
}

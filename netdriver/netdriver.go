// Package netdriver states the Container Network Model: networks, the endpoints that join sandboxes to them, and the
// drivers that make both in the kernel.
//
// A Sandbox is one container's network stack. An Endpoint joins one sandbox to one network. A Network is a set of
// endpoints that reach each other. Sub-packages hold one mechanism each; none of them knows containers, clusters or
// HTTP.
package netdriver

import (
	"context"
	"net"
	"net/netip"
)

// NetworkID is a network's identity: 64 hexadecimal digits.
type NetworkID string

// EndpointID is an endpoint's identity: 64 hexadecimal digits.
type EndpointID string

// Driver names.
const (
	TypeBridge  = "bridge"
	TypeHost    = "host"
	TypeNull    = "null"
	TypeMacvlan = "macvlan"
	TypeOverlay = "overlay"
	TypeCNI     = "cni"
)

// Subnet is one address range of a network, of either family. A network may have several of each.
type Subnet struct {
	Prefix  netip.Prefix          `json:"prefix"`
	Gateway netip.Addr            `json:"gateway"`
	Range   netip.Prefix          `json:"range,omitzero"` // dynamic addresses come from here only; zero: all of Prefix
	Aux     map[string]netip.Addr `json:"aux,omitempty"`  // addresses never given out, by the name the user gave them

	// Pool and Space are what an address manager of another program calls the subnet and what it is of; empty: ours.
	Pool  string `json:"pool,omitempty"`
	Space string `json:"space,omitempty"`
}

// Network is the wish for one network, as a driver needs it. Options are docker's driver options; the driver parses
// the ones it knows and leaves the rest alone.
type Network struct {
	ID       NetworkID
	Name     string
	Driver   string
	Subnets  []Subnet
	Internal bool
	Global   bool   // of all hosts of a cluster, not of this one alone
	VNI      uint32 // VXLAN network identifier (RFC 7348), overlay networks only
	Options  map[string]string
}

// PortMapping publishes a container's port on the host. HostIP invalid or unspecified means every host address, HostPort
// 0 that the port is open at the container's own address only.
type PortMapping struct {
	Proto         string     `json:"proto"` // tcp, udp or sctp
	HostIP        netip.Addr `json:"hostIP,omitzero"`
	HostPort      uint16     `json:"hostPort"`
	ContainerPort uint16     `json:"containerPort"`
}

// Endpoint is the wish for one endpoint. It has one address of each family that its network has a subnet of.
type Endpoint struct {
	ID        EndpointID
	Interface string       // its name inside the sandbox, such as eth0
	Address   netip.Prefix // IPv4; invalid on a network without it
	Address6  netip.Prefix // IPv6; invalid on a network without it
	LinkLocal []netip.Addr // more addresses of the interface, 169.254.0.0/16 or fe80::/10, of which only neighbours know
	MAC       net.HardwareAddr
	Gateway   netip.Addr        // the sandbox's IPv4 default route goes through it; invalid: this endpoint gives none
	Gateway6  netip.Addr        // the same for IPv6
	Ports     []PortMapping     // honoured by drivers that publish ports
	Aliases   []string          // its names on the network, for drivers that pass them on
	DNS       DNS               // what the container resolves with, for the same
	Routes    []Route           // more routes of the interface
	Options   map[string]string // of the driver, as the user gave them
}

// DNS is where a resolver asks, and how; the zero value says nothing.
type DNS struct {
	Servers []netip.Addr `json:"servers,omitempty"`
	Search  []string     `json:"search,omitempty"`  // domains
	Options []string     `json:"options,omitempty"` // of resolv.conf(5)
}

// Route is one beyond those that the kernel makes of the addresses.
type Route struct {
	To  netip.Prefix `json:"to"`
	Via netip.Addr   `json:"via,omitzero"` // invalid: on the link itself
}

// Addresses are the addresses the endpoint has on its network, IPv4 first.
func (e Endpoint) Addresses() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []netip.Prefix{e.Address, e.Address6} {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}

// Gateways are the gateways of the endpoint's default routes, one of a family at most.
func (e Endpoint) Gateways() []netip.Addr {
	var out []netip.Addr
	for _, a := range []netip.Addr{e.Gateway, e.Gateway6} {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

// Sandbox is a container's network namespace, by the path of its file.
type Sandbox struct {
	ID   string
	Path string
}

// Attachment is what a Join made.
type Attachment struct {
	Interface string // empty: none
	MTU       int    // bytes
	// Decided is what a Decider has decided about the endpoint; nil for other drivers.
	Decided *Decided
}

// Decided is what a driver decides about an endpoint that others' drivers are told. Whoever calls Join again gives it
// back as the endpoint's wish.
type Decided struct {
	Address, Address6 netip.Prefix // as wished where the wish has one
	MAC               net.HardwareAddr
	Gateway, Gateway6 netip.Addr // through which the endpoint could lead outside; invalid: it does not
	DNS               DNS        // servers that know the network's names
	Routes            []Route
	NoGateway         bool // no other endpoint shall be made for the sandbox to lead outside
}

// Decider is what drivers add that decide about endpoints themselves, by the answer of another program say: whether one
// leads outside is known only when it has joined. The first Join wishes no gateway; a further one does, if it shall.
type Decider interface {
	Decides()
}

// Driver makes networks and endpoints of one type in the kernel. Every call states the whole wish and may be repeated.
type Driver interface {
	// Type is the name users give to -d.
	Type() string
	// Check refuses a wish the driver cannot honour (errdefs.ErrInvalidArgument names option and value) before
	// anything is made. Unknown options are not its business.
	Check(Network) error
	// Ensure creates or repairs what the network needs on this host.
	Ensure(ctx context.Context, n Network) error
	// Remove removes what Ensure made; nil if there is nothing.
	Remove(ctx context.Context, n Network) error
	// Join makes the endpoint in the sandbox; idempotent by endpoint ID. It calls for no earlier Ensure. On error
	// nothing of the endpoint stays behind.
	Join(ctx context.Context, n Network, e Endpoint, s Sandbox) (Attachment, error)
	// Leave removes the endpoint; nil if it is not there, also when the sandbox is already gone.
	Leave(ctx context.Context, n Network, e Endpoint) error
}

// Peer is one address of an endpoint of the same network on another host.
type Peer struct {
	Address netip.Addr
	MAC     net.HardwareAddr
	VTEP    netip.Addr // the other host's data-path address
}

// PeerSetter is what drivers that span hosts add: SetPeers states every remote endpoint of a network. It is nil work
// while the network is not present on this host.
type PeerSetter interface {
	SetPeers(ctx context.Context, id NetworkID, peers []Peer) error
}

// Sizer is what drivers add that know their endpoints' MTU.
type Sizer interface {
	// MTU is what the network's endpoints carry now, in bytes.
	MTU(n Network) (int, error)
}

// MACFixer is what drivers add some of whose networks give their endpoints a MAC that nobody can choose.
type MACFixer interface {
	// FixedMAC is the MAC that an endpoint of the network has; nil: its own.
	FixedMAC(n Network) (net.HardwareAddr, error)
}

// DataPath is this host's end of the tunnels between hosts. The zero value means that the host has none yet.
type DataPath struct {
	Addr netip.Addr
	Port uint16 // UDP
	MTU  int    // bytes, of the interface that holds Addr
}

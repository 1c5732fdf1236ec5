// Package bridge is the driver of networks within one host: a Linux bridge in the daemon's own namespace, a veth pair
// for each endpoint, NAT to the outside and published ports.
//
// The bridge carries the gateway's address. What may pass is not decided here but by the Firewall, except between the
// ports of one bridge: where containers shall not reach each other their ports carry the bridge's isolated flag, which
// needs no packet filter in the bridged path.
package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/firewall"
	"github.com/minictl/minictl/netdriver/ipam"
	"github.com/minictl/minictl/netdriver/nl"
	"github.com/minictl/minictl/netdriver/portmap"
	"github.com/minictl/minictl/netdriver/sandbox"
)

// Firewall is what the driver asks of netdriver/firewall: NAT, isolation and ports, as whole wishes.
type Firewall interface {
	SetBridge(ctx context.Context, b firewall.Bridge) error
	RemoveBridge(ctx context.Context, iface string) error
	SetPorts(ctx context.Context, owner string, ports []firewall.Port) error
}

// Relay is what the driver asks of netdriver/portmap: ports that no rule can lead to a container.
type Relay interface {
	Relay(owner string, targets []portmap.Target) error
}

// Config is what New needs.
type Config struct {
	Log      *slog.Logger
	Firewall Firewall
	Relay    Relay // nil: ports that no rule can lead to a container are not reached
}

// Driver makes bridge networks in the namespace its methods are called in.
type Driver struct {
	log      *slog.Logger
	firewall Firewall
	relay    Relay

	mu    sync.Mutex
	locks map[string]*sync.Mutex // by bridge: one change of a network at a time
}

// The driver honours the contract.
var (
	_ netdriver.Driver = (*Driver)(nil)
	_ netdriver.Sizer  = (*Driver)(nil)
)

// New gives the driver.
func New(c Config) *Driver {
	return &Driver{log: c.Log.With("component", "bridge"), firewall: c.Firewall, relay: c.Relay, locks: make(map[string]*sync.Mutex)}
}

// Type is bridge.
func (d *Driver) Type() string { return netdriver.TypeBridge }

// MTU is the one asked for, or Ethernet's.
func (d *Driver) MTU(n netdriver.Network) (int, error) {
	o, err := parse(n)
	return o.mtu, err
}

// Check refuses options with bad values.
func (d *Driver) Check(n netdriver.Network) error {
	_, err := parse(n)
	return err
}

// Ensure makes or repairs the bridge, its address and its rules, and switches forwarding on.
func (d *Driver) Ensure(ctx context.Context, n netdriver.Network) error {
	o, err := parse(n)
	if err != nil {
		return err
	}
	defer d.lock(o.name)()
	c, err := nl.Here()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := d.ensure(ctx, c, n, o); err != nil {
		return fmt.Errorf("set up network %s: %w", n.Name, err)
	}
	return nil
}

// Remove removes the bridge, unless somebody else made it, and its rules.
func (d *Driver) Remove(ctx context.Context, n netdriver.Network) error {
	o, err := parse(n)
	if err != nil {
		return err
	}
	defer d.lock(o.name)()
	c, err := nl.Here()
	if err != nil {
		return err
	}
	defer c.Close()
	br, err := c.Link(o.name)
	switch {
	case errdefs.IsNotFound(err):
		err = nil
	case err == nil && br.Alias == alias(n.ID):
		err = c.Delete(br.Index)
	}
	if err := errors.Join(err, d.firewall.RemoveBridge(ctx, o.name)); err != nil {
		return fmt.Errorf("remove network %s: %w", n.Name, err)
	}
	return nil
}

// Join plugs the endpoint into the bridge, which it sets up if need be, and publishes its ports.
func (d *Driver) Join(ctx context.Context, n netdriver.Network, e netdriver.Endpoint, s netdriver.Sandbox) (netdriver.Attachment, error) {
	o, err := parse(n)
	if err != nil {
		return netdriver.Attachment{}, err
	}
	defer d.lock(o.name)()
	c, err := nl.Here()
	if err != nil {
		return netdriver.Attachment{}, err
	}
	defer c.Close()
	if err := d.join(ctx, c, n, o, e, s); err != nil {
		return netdriver.Attachment{}, fmt.Errorf("join network %s: %w", n.Name, err)
	}
	return netdriver.Attachment{Interface: e.Interface, MTU: o.mtu}, nil
}

// join is Join inside the lock.
func (d *Driver) join(ctx context.Context, c *nl.Conn, n netdriver.Network, o options, e netdriver.Endpoint, s netdriver.Sandbox) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	br, err := d.ensure(ctx, c, n, o)
	if err != nil {
		return err
	}
	undo := context.WithoutCancel(ctx)
	err = sandbox.Attach(ctx, c, sandbox.Plug{Endpoint: e, Sandbox: s, Bridge: br.Index, MTU: o.mtu, Isolated: !o.icc, Open: o.open})
	if err != nil {
		return errors.Join(err, d.setPorts(undo, string(e.ID), nil, nil))
	}
	if err := d.setPorts(ctx, string(e.ID), ports(o.name, e), relayed(e)); err != nil {
		return errors.Join(err, d.setPorts(undo, string(e.ID), nil, nil), sandbox.Detach(c, e.ID))
	}
	return nil
}

// setPorts states an endpoint's published ports, those that rules lead to it and those that have to be relayed.
func (d *Driver) setPorts(ctx context.Context, owner string, ports []firewall.Port, targets []portmap.Target) error {
	err := d.firewall.SetPorts(ctx, owner, ports)
	if d.relay != nil {
		err = errors.Join(err, d.relay.Relay(owner, targets))
	}
	return err
}

// Leave unplugs the endpoint and withdraws its ports.
func (d *Driver) Leave(ctx context.Context, n netdriver.Network, e netdriver.Endpoint) error {
	o, err := parse(n)
	if err != nil {
		return err
	}
	defer d.lock(o.name)()
	c, err := nl.Here()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := errors.Join(d.setPorts(ctx, string(e.ID), nil, nil), sandbox.Detach(c, e.ID)); err != nil {
		return fmt.Errorf("leave network %s: %w", n.Name, err)
	}
	return nil
}

// ensure is Ensure inside the lock; it gives the bridge.
func (d *Driver) ensure(ctx context.Context, c *nl.Conn, n netdriver.Network, o options) (nl.Link, error) {
	br, err := setBridge(c, n, o)
	if err != nil {
		return nl.Link{}, err
	}
	if !br.Up {
		if err := c.SetUp(br.Index); err != nil {
			return nl.Link{}, err
		}
	}
	for _, g := range gateways(n, o) {
		if err := nl.AwaitSolicited(ctx, o.name, g.Addr()); err != nil {
			return nl.Link{}, err
		}
	}
	rule := firewall.Bridge{
		Interface: o.name, Masquerade: o.masquerade && !n.Internal, ICC: o.icc, Internal: n.Internal, Shared: o.isDefault,
		Mode4: o.mode4, Mode6: o.mode6, Trusted: o.trusted, Sources: o.sources,
	}
	for _, g := range gateways(n, o) {
		rule.Gateways = append(rule.Gateways, g.Addr())
	}
	for _, s := range n.Subnets {
		rule.Subnets = append(rule.Subnets, s.Prefix.Masked())
	}
	return br, d.firewall.SetBridge(ctx, rule)
}

// setBridge makes or repairs the device and its address.
func setBridge(c *nl.Conn, n netdriver.Network, o options) (nl.Link, error) {
	br, err := c.Link(o.name)
	if errdefs.IsNotFound(err) {
		br, err = addBridge(c, n, o)
	}
	if err != nil {
		return nl.Link{}, err
	}
	if br.Kind != "bridge" {
		return nl.Link{}, fmt.Errorf("%s is a %s, not a bridge; give the network another name with -o %s=NAME: %w",
			o.name, br.Kind, OptionName, errdefs.ErrConflict)
	}
	if id, ok := owner(br.Alias); ok && id != n.ID {
		return nl.Link{}, fmt.Errorf("bridge %s belongs to network %.12s; give this one another name with -o %s=NAME: %w",
			o.name, id, OptionName, errdefs.ErrConflict)
	}
	if err := setSysctls(n, o.name, br.Alias == alias(n.ID)); err != nil {
		return nl.Link{}, err
	}
	want := gateways(n, o)
	if br.Alias != alias(n.ID) { // the user's own bridge: what is on it stays
		have, err := c.Addresses(br.Index)
		if err != nil {
			return nl.Link{}, err
		}
		want = append(have, want...)
	} else if br.MTU != o.mtu {
		if err := c.SetMTU(br.Index, o.mtu); err != nil {
			return nl.Link{}, err
		}
	}
	return br, c.SetAddresses(br.Index, want)
}

// addBridge makes the device. Its MAC follows from the gateway's address: it stays when ports come and go and when the
// network is made again, so that no container's neighbour cache goes stale.
func addBridge(c *nl.Conn, n netdriver.Network, o options) (nl.Link, error) {
	var gateway netip.Addr
	if len(n.Subnets) > 0 {
		gateway = n.Subnets[0].Gateway
	}
	if err := c.AddBridge(o.name, ipam.MAC(gateway), o.mtu); err != nil {
		return nl.Link{}, err
	}
	br, err := c.Link(o.name)
	if err != nil {
		return nl.Link{}, err
	}
	if err := c.SetAlias(br.Index, alias(n.ID)); err != nil {
		return nl.Link{}, errors.Join(err, c.Delete(br.Index))
	}
	br.Alias = alias(n.ID)
	return br, nil
}

// gateways are the bridge's addresses.
func gateways(n netdriver.Network, o options) []netip.Prefix {
	var list []netip.Prefix
	for _, s := range n.Subnets {
		if s.Gateway.IsValid() && !(o.noAddress && s.Gateway.Is4()) && o.mode(s.Gateway) != firewall.Isolated {
			list = append(list, netip.PrefixFrom(s.Gateway, s.Prefix.Bits()))
		}
	}
	return list
}

// ports translates an endpoint's published ports: one of every host address is one of each family the endpoint has.
func ports(bridge string, e netdriver.Endpoint) []firewall.Port {
	var list []firewall.Port
	for _, p := range e.Ports {
		for _, a := range e.Addresses() {
			if p.HostIP.IsValid() && p.HostIP.Unmap().Is4() != a.Addr().Is4() {
				continue // packets of one family do not reach an address of the other
			}
			list = append(list, firewall.Port{
				Proto: p.Proto, HostIP: p.HostIP, HostPort: p.HostPort, Bridge: bridge,
				Target: netip.AddrPortFrom(a.Addr(), p.ContainerPort),
			})
		}
	}
	return list
}

// relayed are the ports that are reached by IPv6 where no rule leads: from ::1, which the kernel takes no answer for from
// a bridge, and to a container that has no IPv6 address.
func relayed(e netdriver.Endpoint) []portmap.Target {
	to := e.Address6.Addr()
	if !to.IsValid() {
		to = e.Address.Addr()
	}
	var list []portmap.Target
	for _, p := range e.Ports {
		any6 := !p.HostIP.IsValid() || p.HostIP == netip.IPv6Unspecified() || p.HostIP == netip.IPv6Loopback()
		other6 := p.HostIP.Is6() && !e.Address6.IsValid()
		if to.IsValid() && p.HostPort != 0 && p.Proto != "sctp" && (any6 || other6) {
			list = append(list, portmap.Target{Proto: p.Proto, HostIP: p.HostIP, HostPort: p.HostPort, To: netip.AddrPortFrom(to, p.ContainerPort)})
		}
	}
	return list
}

// lock takes the bridge's lock and gives its release.
func (d *Driver) lock(name string) (unlock func()) {
	d.mu.Lock()
	l := d.locks[name]
	if l == nil {
		l = new(sync.Mutex)
		d.locks[name] = l
	}
	d.mu.Unlock()
	l.Lock()
	return l.Unlock
}

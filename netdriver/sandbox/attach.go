package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/guard"
	"github.com/minictl/minictl/netdriver/nl"
)

// Plug is the wish for one endpoint that reaches its network through a bridge.
type Plug struct {
	Endpoint netdriver.Endpoint
	Sandbox  netdriver.Sandbox
	Bridge   int            // index of the bridge in the Conn's namespace
	MTU      int            // bytes, of both ends
	Isolated bool           // the port exchanges no frames with other isolated ports
	Open     bool           // the port takes frames with any source
	OnLink   []netip.Prefix // more destinations that the interface reaches without a gateway
}

// Attach joins a sandbox to a bridge in c's namespace by a veth pair, or repairs the pair that is there. When it
// returns the port forwards: the first packet is not lost. On error nothing of the endpoint stays behind.
func Attach(ctx context.Context, c *nl.Conn, p Plug) error {
	if err := attach(ctx, c, p); err != nil {
		return errors.Join(fmt.Errorf("attach %s: %w", p.Endpoint.Interface, err), Detach(c, p.Endpoint.ID))
	}
	return nil
}

// attach makes the pair, its two ends and the bridge's row for it.
func attach(ctx context.Context, c *nl.Conn, p Plug) error {
	port, fresh, err := pair(c, p)
	if err != nil {
		return err
	}
	if err := setPort(c, port, p); err != nil {
		return err
	}
	var in *nl.Conn
	err = Do(p.Sandbox.Path, func() (err error) {
		if in, err = nl.Here(); err != nil {
			return err
		}
		if err := setInterface(in, p); err != nil {
			return err
		}
		return nl.AwaitSolicited(ctx, p.Endpoint.Interface, heard(p.Endpoint)...)
	})
	if in != nil {
		defer in.Close()
	}
	if err != nil {
		return err
	}
	mac, ok := nl.MAC(p.Endpoint.MAC)
	if ok {
		if err := c.SetPortFDB(port.Index, mac); err != nil {
			return err
		}
	}
	if err := awaitUp(ctx, c, port.Index, p.Bridge); err != nil || !fresh || !ok {
		return err
	}
	return announce(in, p)
}

// heard are the addresses whose neighbours' questions the endpoint answers.
func heard(e netdriver.Endpoint) []netip.Addr {
	addrs := slices.Clone(e.LinkLocal)
	for _, p := range e.Addresses() {
		addrs = append(addrs, p.Addr())
	}
	return addrs
}

// announce lets the kernel send an unsolicited ARP, or neighbour advertisement, for each of the endpoint's addresses, so
// that neighbours forget the MAC that an earlier holder had. It does that (arp_notify, ndisc_notify) when a MAC is set,
// be it the one that is there. A packet socket
// would do as well, but closing one waits for an RCU grace period: ten milliseconds and more on every start.
func announce(in *nl.Conn, p Plug) error {
	l, err := in.Link(p.Endpoint.Interface)
	if err != nil {
		return err
	}
	return in.SetMAC(l.Index, p.Endpoint.MAC)
}

// Detach removes an endpoint's pair, both ends; nil if there is none.
func Detach(c *nl.Conn, id netdriver.EndpointID) error {
	port, _, err := find(c, id)
	if err != nil || port.Index == 0 {
		return err
	}
	return c.Delete(port.Index)
}

// Plugged is an endpoint found in the kernel.
type Plugged struct {
	ID        netdriver.EndpointID
	Addresses []netip.Addr
	Port      nl.Link
}

// Attached lists the endpoints plugged into a bridge, as the aliases of its ports tell.
func Attached(c *nl.Conn, bridge int) ([]Plugged, error) {
	links, err := c.Links()
	if err != nil {
		return nil, err
	}
	var list []Plugged
	for _, l := range links {
		if l.Master != bridge {
			continue
		}
		if id, addrs, ok := parseAlias(l.Alias); ok {
			list = append(list, Plugged{ID: id, Addresses: addrs, Port: l})
		}
	}
	return list, nil
}

// aliasPrefix starts the alias of every port of ours; the endpoint's ID and addresses follow. The kernel keeps them for
// a daemon that starts anew.
const aliasPrefix = "minictl endpoint "

// alias is the remark on an endpoint's port.
func alias(e netdriver.Endpoint) string {
	text := aliasPrefix + string(e.ID)
	for _, p := range e.Addresses() {
		text += " " + p.Addr().String()
	}
	return text
}

// Alias is the remark by which a device inside a sandbox is known as an endpoint's, where there is no port outside.
func Alias(e netdriver.Endpoint) string { return alias(e) }

// IsPlug tells whether a device bears an endpoint's alias.
func IsPlug(l nl.Link, id netdriver.EndpointID) bool {
	owner, _, ok := parseAlias(l.Alias)
	return ok && owner == id
}

// Furnish brings an interface that is in the sandbox already into the wished state: MTU, MAC, addresses and routes.
func Furnish(ctx context.Context, p Plug) error {
	return Do(p.Sandbox.Path, func() error {
		in, err := nl.Here()
		if err != nil {
			return err
		}
		defer in.Close()
		if err := setInterface(in, p); err != nil {
			return err
		}
		return nl.AwaitSolicited(ctx, p.Endpoint.Interface, heard(p.Endpoint)...)
	})
}

// parseAlias reads alias back; ok is false for a link that is not ours.
func parseAlias(s string) (id netdriver.EndpointID, addrs []netip.Addr, ok bool) {
	rest, ok := strings.CutPrefix(s, aliasPrefix)
	if !ok {
		return "", nil, false
	}
	name, texts, _ := strings.Cut(rest, " ")
	for text := range strings.FieldsSeq(texts) {
		if a, err := netip.ParseAddr(text); err == nil {
			addrs = append(addrs, a)
		}
	}
	return netdriver.EndpointID(name), addrs, name != ""
}

// portNames are the names an endpoint's port may have: docker's veth and 7 digits of the ID, and two more in case
// that another endpoint's ID starts alike.
func portNames(id netdriver.EndpointID) []string {
	const digits = 7
	var names []string
	for s := string(id); s != "" && len(names) < 3; s = s[min(digits, len(s)):] {
		names = append(names, "veth"+s[:min(digits, len(s))])
	}
	return names
}

// find looks for an endpoint's port. Without one the port's index is 0 and free is a name for it, "" if all are
// taken by others.
func find(c *nl.Conn, id netdriver.EndpointID) (port nl.Link, free string, err error) {
	for _, name := range portNames(id) {
		l, err := c.Link(name)
		if errdefs.IsNotFound(err) {
			if free == "" {
				free = name
			}
			continue
		}
		if err != nil {
			return nl.Link{}, "", err
		}
		if owner, _, ok := parseAlias(l.Alias); ok && owner == id {
			return l, "", nil
		}
	}
	return nl.Link{}, free, nil
}

// pair gives the endpoint's port and whether it is new. One whose other end is not the wished interface of the wished
// sandbox is made anew.
func pair(c *nl.Conn, p Plug) (port nl.Link, fresh bool, err error) {
	port, name, err := find(c, p.Endpoint.ID)
	if err != nil {
		return nl.Link{}, false, err
	}
	if port.Index != 0 {
		if whole, err := leadsTo(c, port, p); err != nil || whole {
			return port, false, err
		}
		if err := c.Delete(port.Index); err != nil {
			return nl.Link{}, false, err
		}
		name = port.Name
	}
	port, err = addPair(c, name, p)
	return port, true, err
}

// addPair makes the pair; its port is called name.
func addPair(c *nl.Conn, name string, p Plug) (nl.Link, error) {
	if name == "" {
		return nl.Link{}, fmt.Errorf("name the host's end: %v are other devices: %w", portNames(p.Endpoint.ID), errdefs.ErrAlreadyExists)
	}
	err := c.AddVeth(nl.Veth{
		Name: name, MTU: p.MTU, PeerName: p.Endpoint.Interface, PeerMAC: p.Endpoint.MAC, PeerNS: p.Sandbox.Path,
	})
	if errdefs.IsAlreadyExists(err) {
		return nl.Link{}, fmt.Errorf("the sandbox already has an interface %s: %w", p.Endpoint.Interface, err)
	}
	if err != nil {
		return nl.Link{}, err
	}
	port, err := c.Link(name)
	if err != nil {
		return nl.Link{}, err
	}
	// Without its alias nobody would know the port again, so it goes if the alias cannot be written.
	if err := c.SetAlias(port.Index, alias(p.Endpoint)); err != nil {
		return nl.Link{}, errors.Join(err, c.Delete(port.Index))
	}
	port.Alias = alias(p.Endpoint)
	return port, nil
}

// leadsTo tells whether port's other end is the interface p wishes. A sandbox that is gone is reported, not taken for
// a mismatch.
func leadsTo(c *nl.Conn, port nl.Link, p Plug) (bool, error) {
	id, err := c.NSID(p.Sandbox.Path)
	if err != nil {
		return false, err
	}
	in, err := nl.At(p.Sandbox.Path)
	if err != nil {
		return false, err
	}
	defer in.Close()
	l, err := in.Link(p.Endpoint.Interface)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return l.Index == port.Peer && l.Peer == port.Index && id == port.PeerNS, err
}

// setPort brings the bridge's end into its state.
func setPort(c *nl.Conn, port nl.Link, p Plug) error {
	if want := alias(p.Endpoint); port.Alias != want {
		if err := c.SetAlias(port.Index, want); err != nil {
			return err
		}
	}
	if port.MTU != p.MTU {
		if err := c.SetMTU(port.Index, p.MTU); err != nil {
			return err
		}
	}
	// A bridge port speaks no IP of its own: without this it would send router solicitations into the network.
	err := c.Do(func() error { return nl.SetSysctl("net/ipv6/conf/"+port.Name+"/disable_ipv6", "1") })
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if port.Master != p.Bridge {
		if err := c.SetMaster(port.Index, p.Bridge); err != nil {
			return err
		}
	}
	if err := c.SetIsolated(port.Index, p.Isolated); err != nil {
		return err
	}
	if err := setGuard(c, port, p); err != nil {
		return err
	}
	// What the bridge does not know is none of this container's: its MAC has a row, and no other lives here.
	if err := c.SetFlood(port.Index, p.Open || len(p.Endpoint.MAC) == 0); err != nil {
		return err
	}
	return c.SetUp(port.Index)
}

// setGuard ties the port to the endpoint's own addresses. It is there before the port comes up.
func setGuard(c *nl.Conn, port nl.Link, p Plug) error {
	if p.Open || len(p.Endpoint.MAC) == 0 {
		return guard.Clear(c, port.Index)
	}
	return guard.Set(c, port.Index, guard.Wish{MAC: p.Endpoint.MAC, Addresses: heard(p.Endpoint)})
}

// setInterface brings the container's end into its state; it runs inside the sandbox, whose Conn c is.
func setInterface(c *nl.Conn, p Plug) error {
	l, err := c.Link(p.Endpoint.Interface)
	if err != nil {
		return err
	}
	if l.MTU != p.MTU {
		if err := c.SetMTU(l.Index, p.MTU); err != nil {
			return err
		}
	}
	if len(p.Endpoint.MAC) > 0 && l.MAC.String() != p.Endpoint.MAC.String() {
		if err := c.SetMAC(l.Index, p.Endpoint.MAC); err != nil {
			return err
		}
	}
	if err := nl.SetSysctl("net/ipv4/conf/"+l.Name+"/arp_notify", "1"); err != nil { // see announce
		return err
	}
	if err := setIPv6(p.Endpoint); err != nil {
		return err
	}
	addrs := p.Endpoint.Addresses()
	for _, a := range p.Endpoint.LinkLocal {
		addrs = append(addrs, linkLocal(a))
	}
	if err := c.SetAddresses(l.Index, addrs); err != nil {
		return err
	}
	if err := c.SetUp(l.Index); err != nil {
		return err
	}
	return setRoutes(c, l.Index, p)
}

// linkLocal gives an address the length of its family's link-local subnet (RFC 3927, RFC 4291 section 2.5.6).
func linkLocal(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(a, 16)
	}
	return netip.PrefixFrom(a, 64)
}

// setIPv6 switches IPv6 on exactly where the endpoint has an address of it, as docker does. Duplicate address
// detection is off: the allocator gives no address twice. Nor does anybody's router advertisement count: addresses and
// routes are stated.
func setIPv6(e netdriver.Endpoint) error {
	is6 := func(a netip.Addr) bool { return a.Is6() }
	off := "1"
	if slices.ContainsFunc(e.LinkLocal, is6) || slices.ContainsFunc(e.Addresses(), func(p netip.Prefix) bool { return is6(p.Addr()) }) {
		off = "0"
	}
	conf := "net/ipv6/conf/" + e.Interface
	err := errors.Join(nl.SetSysctl(conf+"/accept_dad", "0"), nl.SetSysctl(conf+"/accept_ra", "0"),
		nl.SetSysctl(conf+"/ndisc_notify", "1"), // see announce
		nl.SetSysctl(conf+"/disable_ipv6", off))
	if errdefs.IsNotFound(err) && off == "1" { // a kernel without IPv6
		return nil
	}
	return err
}

// setRoutes states the routes beyond the one the kernel makes from the address. A default route goes when the
// endpoint no longer gives one.
func setRoutes(c *nl.Conn, index int, p Plug) error {
	for _, to := range p.OnLink {
		if err := c.SetRoute(index, to, netip.Addr{}); err != nil {
			return err
		}
	}
	for _, r := range p.Endpoint.Routes {
		if err := c.SetRoute(index, r.To, r.Via); err != nil {
			return err
		}
	}
	for _, v6 := range []bool{false, true} {
		if err := setDefaultRoute(c, index, p.Endpoint, v6); err != nil {
			return err
		}
	}
	return nil
}

// setDefaultRoute states one family's default route, or that the endpoint gives none.
func setDefaultRoute(c *nl.Conn, index int, e netdriver.Endpoint, v6 bool) error {
	all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if v6 {
		all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	for _, gw := range e.Gateways() {
		if gw.Is6() == v6 {
			return c.SetRoute(index, all, gw)
		}
	}
	if slices.ContainsFunc(e.Routes, func(r netdriver.Route) bool { return r.To == all }) {
		return nil
	}
	if dev, _, err := c.DefaultRoute(v6); err != nil || dev != index {
		return err
	}
	return c.DeleteRoute(index, all)
}

// upTime bounds the wait for a port: the kernel reports a carrier from a work queue, normally within a millisecond.
const upTime = 2 * time.Second

// awaitUp returns when all these devices carry frames. Before that a bridge drops what its port sends, and a bridge
// that just got its first port drops its own answers.
func awaitUp(ctx context.Context, c *nl.Conn, indices ...int) error {
	ctx, cancel := context.WithTimeout(ctx, upTime)
	defer cancel()
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	for _, index := range indices {
		for {
			l, err := c.LinkAt(index)
			if err != nil {
				return err
			}
			if l.Oper {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for link %s to come up: %w", l.Name, ctx.Err())
			case <-tick.C:
			}
		}
	}
	return nil
}

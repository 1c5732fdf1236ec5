package engine

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/minictl/minictl/cluster"
)

// localAddress resolves an IP (with or without a port), an interface's name, or nothing, to an address of this host.
func localAddress(s, flag string) (netip.AddrPort, error) {
	none := netip.AddrPort{}
	if s == "" {
		a := sourceFor("192.0.2.1") // TEST-NET-1 (RFC 5737): any address outside will do, nothing is sent
		if a == "" {
			return none, invalid("this host has no route to the outside to tell its address by: give %s an address or an interface", flag)
		}
		s = a
	}
	port := uint16(cluster.ControlPort)
	if ap, err := netip.ParseAddrPort(s); err == nil {
		s, port = ap.Addr().String(), ap.Port()
	}
	if a, err := netip.ParseAddr(s); err == nil {
		if _, err := interfaceOf(a.Unmap()); err != nil {
			return none, err
		}
		return netip.AddrPortFrom(a.Unmap(), port), nil
	}
	if name, p, err := net.SplitHostPort(s); err == nil { // eth0:7946
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return none, invalid("%s %s: %q is not a port", flag, s, p)
		}
		s, port = name, uint16(n)
	}
	ifc, err := net.InterfaceByName(s)
	if err != nil {
		return none, invalid("%s %s is neither an address nor an interface of this host; its interfaces are %s", flag, s, interfaceNames())
	}
	addrs, err := ifc.Addrs()
	if err != nil {
		return none, fmt.Errorf("list the addresses of %s: %w", s, err)
	}
	var v4, v6 []netip.Addr
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		switch {
		case err != nil || p.Addr().Is6() && p.Addr().IsLinkLocalUnicast():
		case p.Addr().Is4():
			v4 = append(v4, p.Addr())
		default:
			v6 = append(v6, p.Addr())
		}
	}
	if len(v4) == 0 {
		v4 = v6 // an interface of IPv6 alone
	}
	switch len(v4) {
	case 1:
		return netip.AddrPortFrom(v4[0], port), nil
	case 0:
		return none, invalid("interface %s has no address: give %s an address", s, flag)
	}
	return none, invalid("interface %s has several addresses (%v): give %s one of them", s, v4, flag)
}

func interfaceNames() string {
	all, err := net.Interfaces()
	if err != nil {
		return "unknown"
	}
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
	}
	return strings.Join(names, ", ")
}

// interfaceOf finds the interface that holds an address.
func interfaceOf(a netip.Addr) (net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return net.Interface{}, fmt.Errorf("list interfaces: %w", err)
	}
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went away meanwhile
		}
		for _, x := range addrs {
			if p, err := netip.ParsePrefix(x.String()); err == nil && p.Addr().Unmap() == a {
				return i, nil
			}
		}
	}
	return net.Interface{}, invalid("no interface of this host has the address %s; its interfaces are %s", a, interfaceNames())
}

// HostAddresses implements cluster.Addresses by this host's interfaces.
type HostAddresses struct{}

// Interface implements cluster.Addresses.
func (HostAddresses) Interface(a netip.Addr) (name string, ok bool) {
	i, err := interfaceOf(a)
	return i.Name, err == nil
}

// Address implements cluster.Addresses. A link-local address (RFC 3927, RFC 4291) is what an interface has without DHCP.
func (HostAddresses) Address(iface string, like netip.Addr) (netip.Addr, bool) {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return netip.Addr{}, false
	}
	addrs, err := i.Addrs()
	if err != nil {
		return netip.Addr{}, false
	}
	for _, x := range addrs {
		if p, err := netip.ParsePrefix(x.String()); err == nil && p.Addr().Unmap().Is4() == like.Is4() && !p.Addr().IsLinkLocalUnicast() {
			return p.Addr().Unmap(), true
		}
	}
	return netip.Addr{}, false
}

// mtuOf is the MTU in bytes of the interface that holds an address.
func mtuOf(a netip.Addr) (int, error) {
	i, err := interfaceOf(a)
	return i.MTU, err
}

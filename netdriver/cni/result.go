package cni

import (
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/minictl/minictl/netdriver"
)

// decode reads a result of any version: what of it is about one interface of the sandbox.
func decode(text []byte, iface string) (netdriver.Decided, error) {
	at := netdriver.Decided{}
	said, err := create.CreateFromBytes(text)
	if err != nil {
		return at, err
	}
	r, err := current.GetResult(said)
	if err != nil {
		return at, err
	}
	for _, ip := range r.IPs {
		if ip == nil || !about(r, ip, iface) {
			continue
		}
		p, ok := prefix(ip.Address)
		switch {
		case !ok:
		case p.Addr().Is4() && !at.Address.IsValid():
			at.Address = p
			at.Gateway = defaultVia(r.Routes, false, ip.Gateway)
		case p.Addr().Is6() && !at.Address6.IsValid():
			at.Address6 = p
			at.Gateway6 = defaultVia(r.Routes, true, ip.Gateway)
		}
	}
	for _, s := range r.DNS.Nameservers {
		if a, err := netip.ParseAddr(s); err == nil {
			at.DNS.Servers = append(at.DNS.Servers, a)
		}
	}
	at.DNS.Search, at.DNS.Options = r.DNS.Search, r.DNS.Options
	if len(at.DNS.Search) == 0 && r.DNS.Domain != "" {
		at.DNS.Search = []string{r.DNS.Domain} // as resolv.conf(5) reads a domain line
	}
	return at, nil
}

// about tells whether an address is the interface's. Before version 0.3 none said, and later ones may leave it out.
func about(r *current.Result, ip *current.IPConfig, iface string) bool {
	if ip.Interface == nil || *ip.Interface < 0 || *ip.Interface >= len(r.Interfaces) {
		return true
	}
	i := r.Interfaces[*ip.Interface]
	return i == nil || i.Sandbox != "" && i.Name == iface
}

// prefix is an address with its subnet's length.
func prefix(n net.IPNet) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	a = a.Unmap()
	if !ok || bits != a.BitLen() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, ones), true
}

// defaultVia is the gateway of a family's default route, which a route without one has of the address; invalid: there is
// no such route.
func defaultVia(routes []*types.Route, v6 bool, own net.IP) netip.Addr {
	for _, r := range routes {
		if r == nil {
			continue
		}
		p, ok := prefix(r.Dst)
		if !ok || p.Bits() != 0 || p.Addr().Is6() != v6 {
			continue
		}
		via := r.GW
		if via == nil {
			via = own
		}
		a, _ := netip.AddrFromSlice(via)
		return a.Unmap()
	}
	return netip.Addr{}
}

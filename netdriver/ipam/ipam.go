// Package ipam decides which addresses and subnets to give out; it is pure: it holds no state, reads no clock and never
// asks the kernel.
//
// A caller derives the used addresses from its endpoint records and the taken subnets from its networks and routes.
// Nothing is stored beside them, so an address cannot leak and cannot be given twice.
package ipam

import (
	"fmt"
	"math"
	"net"
	"net/netip"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
)

// Lowest gives the lowest address of s.Range (or of s.Prefix when there is no range) that is neither reserved nor used.
// Reserved are the network address, the IPv4 broadcast address, the gateway and the auxiliary addresses. The error is
// errdefs.ErrResourceExhausted when none is left.
func Lowest(s netdriver.Subnet, used func(netip.Addr) bool) (netip.Addr, error) {
	return search(s, used, poolOf(s).Addr(), netip.Addr.Next, poolOf(s).Contains)
}

// Highest is Lowest from the other end: what is set aside for later comes from there.
func Highest(s netdriver.Subnet, used func(netip.Addr) bool) (netip.Addr, error) {
	return search(s, used, lastOf(poolOf(s)), netip.Addr.Prev, poolOf(s).Contains)
}

// search goes on from one address, in either direction, as long as it is among those that count.
func search(s netdriver.Subnet, used func(netip.Addr) bool, from netip.Addr, next func(netip.Addr) netip.Addr, among func(netip.Addr) bool) (netip.Addr, error) {
	r := newReserved(s)
	pool := poolOf(s)
	for a := from; a.IsValid() && among(a); a = next(a) {
		if !r.has(a) && !used(a) {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("find a free address in %s: %w", pool, errdefs.ErrResourceExhausted)
}

// maxReserve is how many addresses of a network are set aside for one host at most.
const maxReserve = 8

// Check says whether addr may be given out in s. The range does not matter: it bounds what is chosen, not what is asked
// for. An address outside is errdefs.ErrInvalidArgument; a reserved one is errdefs.ErrPermissionDenied, which is what
// clients know as status 403 with the text "Address already in use".
func Check(s netdriver.Subnet, addr netip.Addr) error {
	addr = addr.Unmap()
	if !addr.IsValid() || !s.Prefix.Contains(addr) {
		return errdefs.ErrInvalidArgument.WithMessage(
			fmt.Sprintf("no configured subnet contains IP address %s", addr))
	}
	if newReserved(s).has(addr) {
		return errdefs.ErrPermissionDenied.WithMessage("Address already in use")
	}
	return nil
}

// Usage counts the addresses that can be chosen in s and those of them that are free when used are taken. Counts that
// do not fit (IPv6) are math.MaxInt.
func Usage(s netdriver.Subnet, used int) (total, free int) {
	pool := poolOf(s)
	host := pool.Addr().BitLen() - pool.Bits()
	if !pool.IsValid() || host < 0 {
		return 0, 0
	}
	if host >= 62 {
		return math.MaxInt, math.MaxInt
	}
	total = 1 << host
	for a := range newReserved(s) {
		if pool.Contains(a) {
			total--
		}
	}
	return total, max(total-used, 0)
}

// MAC derives a locally administered hardware address, 02:42 and the address's last four bytes, so that an address
// keeps its MAC wherever its endpoint moves and no neighbour cache goes stale.
func MAC(a netip.Addr) net.HardwareAddr {
	b := a.Unmap().AsSlice()
	if len(b) < 4 {
		return nil
	}
	return append(net.HardwareAddr{0x02, 0x42}, b[len(b)-4:]...)
}

// reserved is the set of addresses of a subnet that no endpoint ever gets.
type reserved map[netip.Addr]struct{}

func newReserved(s netdriver.Subnet) reserved {
	r := make(reserved, 3+len(s.Aux))
	add := func(a netip.Addr) {
		if a.IsValid() {
			r[a.Unmap()] = struct{}{}
		}
	}
	p := s.Prefix.Masked()
	if hasNetworkAddress(p) {
		add(p.Addr())
		if p.Addr().Is4() {
			add(lastOf(p))
		}
	}
	add(s.Gateway)
	for _, a := range s.Aux {
		add(a)
	}
	return r
}

func (r reserved) has(a netip.Addr) bool { _, ok := r[a]; return ok }

// hasNetworkAddress tells whether the first address of p names the subnet itself. Point-to-point subnets (RFC 3021 for
// /31, RFC 6164 for /127) and single addresses have none to spare.
func hasNetworkAddress(p netip.Prefix) bool { return p.Addr().BitLen()-p.Bits() >= 2 }

// poolOf is where dynamic addresses come from.
func poolOf(s netdriver.Subnet) netip.Prefix {
	if s.Range.IsValid() {
		return s.Range.Masked()
	}
	return s.Prefix.Masked()
}

// lastOf gives the highest address of p; the zero Addr for an invalid prefix.
func lastOf(p netip.Prefix) netip.Addr {
	if !p.IsValid() {
		return netip.Addr{}
	}
	b := p.Addr().AsSlice()
	for i := range b {
		switch host := (i+1)*8 - p.Bits(); {
		case host >= 8:
			b[i] = 0xff
		case host > 0:
			b[i] |= 1<<host - 1
		}
	}
	return addrOf(b)
}

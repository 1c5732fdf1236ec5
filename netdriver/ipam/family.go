package ipam

import (
	"crypto/sha256"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
)

// Pool is the subnets of one family of a network: where an endpoint's address of that family comes from. They are used
// in their order.
type Pool []netdriver.Subnet

// Pools sorts a network's subnets by family, IPv4 first; a family without a subnet has no pool.
func Pools(subnets []netdriver.Subnet) []Pool {
	var v4, v6 Pool
	for _, s := range subnets {
		if s.Prefix.Addr().Is4() {
			v4 = append(v4, s)
		} else {
			v6 = append(v6, s)
		}
	}
	var out []Pool
	for _, p := range []Pool{v4, v6} {
		if len(p) > 0 {
			out = append(out, p)
		}
	}
	return out
}

// Is6 tells the pool's family.
func (p Pool) Is6() bool { return len(p) > 0 && p[0].Prefix.Addr().Is6() }

// Family is the name of the pool's family.
func (p Pool) Family() string {
	if p.Is6() {
		return "IPv6"
	}
	return "IPv4"
}

// Lowest gives the lowest free address of the first subnet that has one; see Lowest.
func (p Pool) Lowest(used func(netip.Addr) bool) (netip.Addr, error) {
	for _, s := range p {
		if a, err := Lowest(s, used); err == nil {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("find a free %s address: %w", p.Family(), errdefs.ErrResourceExhausted)
}

// Highest gives the highest free address of the last subnet that has one.
func (p Pool) Highest(used func(netip.Addr) bool) (netip.Addr, error) {
	return p.fromLast(func(s netdriver.Subnet) (netip.Addr, error) { return Highest(s, used) })
}

func (p Pool) fromLast(find func(netdriver.Subnet) (netip.Addr, error)) (netip.Addr, error) {
	for _, s := range slices.Backward(p) {
		if a, err := find(s); err == nil {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("find a free %s address: %w", p.Family(), errdefs.ErrResourceExhausted)
}

// Holding gives the subnet that an address is in.
func (p Pool) Holding(a netip.Addr) (netdriver.Subnet, bool) {
	for _, s := range p {
		if s.Prefix.Contains(a.Unmap()) {
			return s, true
		}
	}
	return netdriver.Subnet{}, false
}

// Check says whether an address may be given out; see Check.
func (p Pool) Check(a netip.Addr) error {
	s, _ := p.Holding(a)
	return Check(s, a)
}

// Total counts the addresses that can be chosen; counts that do not fit are math.MaxInt.
func (p Pool) Total() (total int) {
	for _, s := range p {
		n, _ := Usage(s, 0)
		if n > math.MaxInt-total {
			return math.MaxInt
		}
		total += n
	}
	return total
}

// ReserveSize is how many addresses of the pool are set aside for each of several hosts: no more than a quarter of it
// for all together, none for a host that is alone.
func (p Pool) ReserveSize(hosts int) int {
	if hosts < 2 {
		return 0
	}
	return min(maxReserve, p.Total()/(4*hosts))
}

// ULA gives the unique local block (RFC 4193), a /48 to cut /64s from, of whatever the seed names: its 40 bits follow
// from the seed, so that two hosts or clusters that meet one day have different ones.
func ULA(seed string) Block {
	sum := sha256.Sum256([]byte("minictl ULA " + seed))
	a := [16]byte{0: 0xfd}
	copy(a[1:6], sum[:])
	return Block{Base: netip.PrefixFrom(netip.AddrFrom16(a), 48), Size: 64}
}

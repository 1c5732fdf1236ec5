package ipam

import (
	"crypto/sha256"
	"net/netip"

	"github.com/minictl/minictl/netdriver"
)

// Two sides of a cluster that do not hear of each other take the same for free. Lowest begins at one end of a subnet, Highest
// at the other; what is given apart from both comes from a place between them, which follows from a seed, so that several
// sides that do so are not likely to give the same either.

// Apart gives a free address of the last subnet that has one, from the middle half of it if there is one: the first behind
// a place that follows from the seed, or before it. The error is errdefs.ErrResourceExhausted when none is left.
func (p Pool) Apart(seed string, used func(netip.Addr) bool) (netip.Addr, error) {
	return p.fromLast(func(s netdriver.Subnet) (a netip.Addr, err error) {
		pool := poolOf(s)
		start := middle(pool, seed)
		inside := func(a netip.Addr) bool { return pool.Contains(a) && inMiddle(pool, a) }
		for _, among := range []func(netip.Addr) bool{inside, pool.Contains} {
			for _, next := range []func(netip.Addr) netip.Addr{netip.Addr.Next, netip.Addr.Prev} {
				if a, err = search(s, used, start, next, among); err == nil {
					return a, nil
				}
			}
		}
		return a, err
	})
}

// BlocksApart puts in front of the blocks what they come to late: the last one's upper half, first of it what is behind a
// place that follows from the seed.
func BlocksApart(blocks []Block, seed string) []Block {
	if len(blocks) == 0 {
		return blocks
	}
	last := blocks[len(blocks)-1]
	if last.Base.Bits() >= last.Size {
		return append([]Block{last}, blocks...)
	}
	upper := netip.PrefixFrom(toggled(last.Base.Masked().Addr(), last.Base.Bits()), last.Base.Bits()+1)
	place := within(upper, seed)
	out := []Block{{netip.PrefixFrom(place, last.Size).Masked(), last.Size}}
	for bits := last.Size; bits > upper.Bits(); bits-- { // what is behind it are the halves that begin with a 1 where it has a 0
		if p := netip.PrefixFrom(place, bits).Masked(); !isSet(p.Addr(), bits-1) {
			out = append(out, Block{netip.PrefixFrom(toggled(p.Addr(), bits-1), bits), last.Size})
		}
	}
	return append(append(out, Block{upper, last.Size}), blocks...)
}

// middle gives a place in the second or third quarter of p, or p's first address if it has no quarters.
func middle(p netip.Prefix, seed string) netip.Addr {
	if p.Addr().BitLen()-p.Bits() < 2 {
		return p.Addr()
	}
	a := within(p, seed)
	if !inMiddle(p, a) {
		a = toggled(a, p.Bits()+1)
	}
	return a
}

// inMiddle tells whether an address of p is in its second or third quarter: of the first two bits behind the prefix one is
// set.
func inMiddle(p netip.Prefix, a netip.Addr) bool {
	return p.Addr().BitLen()-p.Bits() >= 2 && isSet(a, p.Bits()) != isSet(a, p.Bits()+1)
}

// within gives an address of p that follows from the seed.
func within(p netip.Prefix, seed string) netip.Addr {
	sum := sha256.Sum256([]byte("minictl apart " + seed))
	a, last := p.Masked().Addr().AsSlice(), lastOf(p).AsSlice()
	for i := range a {
		a[i] |= sum[i] & (a[i] ^ last[i])
	}
	return addrOf(a)
}

// isSet tells an address's bit; the first one is 0.
func isSet(a netip.Addr, bit int) bool { return a.AsSlice()[bit/8]&(0x80>>(bit%8)) != 0 }

func toggled(a netip.Addr, bit int) netip.Addr {
	b := a.AsSlice()
	b[bit/8] ^= 0x80 >> (bit % 8)
	return addrOf(b)
}

func addrOf(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

package ipam

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
)

// Block is a range to cut subnets from.
type Block struct {
	Base netip.Prefix
	Size int // prefix length of each subnet, in bits
}

// Check refuses a range that is none and a subnet size that does not fit it; errdefs.ErrInvalidArgument.
func (b Block) Check() error {
	smallest := maxSubnetBits
	if b.Base.Addr().Is6() {
		smallest = maxSubnetBits6
	}
	switch {
	case !b.Base.IsValid() || b.Base.Addr().Is4In6():
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid base pool %s: must be a range such as 10.20.0.0/16", b.Base))
	case b.Size < b.Base.Bits() || b.Size > smallest:
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid subnet size %d for pool %s: must be from %d to %d", b.Size, b.Base, b.Base.Bits(), smallest))
	}
	return nil
}

// DefaultOverlay gives the pools of networks that span hosts: /24s out of 10.0.0.0/8.
func DefaultOverlay() []Block {
	return []Block{{netip.MustParsePrefix("10.0.0.0/8"), 24}}
}

// The sizes of subnets that nobody chose, in bits: docker's, and RFC 4291's.
const (
	defaultSize  = 24
	defaultSize6 = 64
)

// DefaultSize is the prefix length of subnets of these ranges unless another is asked for; see Blocks.
func DefaultSize(bases []netip.Prefix) int {
	if slices.ContainsFunc(bases, func(p netip.Prefix) bool { return p.Addr().Is4() }) {
		return defaultSize
	}
	return defaultSize6
}

// Blocks makes pools of ranges that somebody chose, each cut into subnets of a prefix length. Among ranges of both families
// the length is IPv4's, and those of IPv6 are cut into /64s. The error is errdefs.ErrInvalidArgument.
func Blocks(bases []netip.Prefix, size int) ([]Block, error) {
	out := make([]Block, 0, len(bases))
	mixed := DefaultSize(bases) == defaultSize
	for i, base := range bases {
		size := size
		if mixed && base.Addr().Is6() {
			size = max(defaultSize6, base.Bits())
		}
		if err := (Block{base, size}).Check(); err != nil {
			return nil, err
		}
		for _, other := range bases[:i] {
			if other.Overlaps(base) {
				return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("base pools %s and %s overlap", other, base))
			}
		}
		out = append(out, Block{base.Masked(), size})
	}
	return out, nil
}

// maxSubnetBits is the prefix length of the smallest subnet worth giving: a gateway and five containers or more.
const (
	maxSubnetBits  = 29
	maxSubnetBits6 = 125
)

// DefaultLocal gives the pools of networks of one host: docker's own list. 172.17.0.0/16 is not in it: it belongs to
// the default bridge alone.
func DefaultLocal() []Block {
	return []Block{
		{netip.MustParsePrefix("172.18.0.0/16"), 16},
		{netip.MustParsePrefix("172.19.0.0/16"), 16},
		{netip.MustParsePrefix("172.20.0.0/14"), 16},
		{netip.MustParsePrefix("172.24.0.0/14"), 16},
		{netip.MustParsePrefix("172.28.0.0/14"), 16},
		{netip.MustParsePrefix("192.168.0.0/16"), 20},
	}
}

// NextPool gives the first subnet of blocks, in their order, that overlaps nothing taken. A default route (length 0)
// in taken is ignored: it says where the rest goes, not that every address is in use. Blocks whose Size does not fit
// their Base are skipped. The error is errdefs.ErrResourceExhausted.
//
// The cost is that of sorting taken: the walk jumps over each taken prefix instead of trying every subnet inside it.
func NextPool(blocks []Block, taken []netip.Prefix) (netip.Prefix, error) {
	for _, b := range blocks {
		if p, ok := firstFree(b, taken); ok {
			return p, nil
		}
	}
	return netip.Prefix{}, errdefs.ErrResourceExhausted.WithMessage(
		"all predefined address pools have been fully subnetted: give the network a range of its own with --subnet")
}

func firstFree(b Block, taken []netip.Prefix) (netip.Prefix, bool) {
	base := b.Base.Masked()
	if !base.IsValid() || b.Size < base.Bits() || b.Size > base.Addr().BitLen() {
		return netip.Prefix{}, false
	}
	here := inside(base, taken)
	end := lastOf(base)
	for at := base.Addr(); at.IsValid() && at.Compare(end) <= 0; {
		c := netip.PrefixFrom(at, b.Size)
		// Prefixes nest or are apart, so one that ends before the candidate is of no use to any later one either.
		for len(here) > 0 && lastOf(here[0]).Less(at) {
			here = here[1:]
		}
		if len(here) == 0 || !here[0].Overlaps(c) {
			return c, true
		}
		// Whichever reaches further ends on a boundary of Size, so what follows it is aligned.
		next := lastOf(c)
		if l := lastOf(here[0]); next.Less(l) {
			next = l
		}
		at = next.Next()
	}
	return netip.Prefix{}, false
}

// inside gives the prefixes that overlap base, by first address, the wider before the narrower.
func inside(base netip.Prefix, taken []netip.Prefix) []netip.Prefix {
	var here []netip.Prefix
	for _, t := range taken {
		if t.IsValid() && t.Bits() > 0 && t.Overlaps(base) {
			here = append(here, t.Masked())
		}
	}
	slices.SortFunc(here, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	return here
}

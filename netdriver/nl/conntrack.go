package nl

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Flow is one tracked connection, by the addresses of its two directions. Without address translation Reply is Orig
// turned round.
type Flow struct {
	Proto uint8 // IANA protocol number
	Orig  Tuple
	Reply Tuple
}

// Tuple is one direction of a Flow.
type Tuple struct{ Src, Dst netip.AddrPort }

// DeleteFlows removes the tracked connections that match says, in the calling thread's network namespace, and counts
// them. The cost is one dump of the whole connection table, so call it for changes, not for packets.
func DeleteFlows(ctx context.Context, match func(Flow) bool) (int, error) {
	var n uint
	for _, family := range []netlink.InetFamily{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if err := ctx.Err(); err != nil {
			return int(n), err
		}
		got, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, flowFilter(match))
		n += got
		if err != nil {
			return int(n), fmt.Errorf("delete tracked connections: %w", err)
		}
	}
	return int(n), nil
}

// flowFilter lets a plain function stand where the library wants an interface.
type flowFilter func(Flow) bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f flowFilter) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	return f(Flow{Proto: c.Forward.Protocol, Orig: tupleOf(c.Forward), Reply: tupleOf(c.Reverse)})
}

func tupleOf(t netlink.IPTuple) Tuple {
	return Tuple{Src: addrPort(t.SrcIP, t.SrcPort), Dst: addrPort(t.DstIP, t.DstPort)}
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}

package nl

import (
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Routes gives every IPv4 prefix that this namespace's main table routes, the default route excepted: what an address
// pool must not overlap.
func (c *Conn) Routes() ([]netip.Prefix, error) {
	routes, err := dump(func() ([]netlink.Route, error) { return c.h.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		if p := fromIPNet(r.Dst); p.IsValid() && p.Bits() > 0 {
			out = append(out, p)
		}
	}
	return out, nil
}

package nl

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addresses lists a device's addresses, without the kernel's own link-local IPv6 ones.
func (c *Conn) Addresses(index int) ([]netip.Prefix, error) {
	all, err := dump(func() ([]netlink.Addr, error) { return c.h.AddrList(ref(index), netlink.FAMILY_ALL) })
	if err != nil {
		return nil, wrap(err, "list addresses of link", index)
	}
	var list []netip.Prefix
	for _, a := range all {
		if p := fromIPNet(a.IPNet); p.IsValid() && !p.Addr().Is6() || p.IsValid() && !p.Addr().IsLinkLocalUnicast() {
			list = append(list, p)
		}
	}
	return list, nil
}

// SetAddresses gives a device exactly these addresses: the missing are added first, then the others removed. IPv6
// ones skip duplicate address detection, which would leave them unusable for a second.
func (c *Conn) SetAddresses(index int, want []netip.Prefix) error {
	have, err := c.Addresses(index)
	if err != nil {
		return err
	}
	missing, extra := diff(want, have)
	if err := c.addAddresses(index, missing); err != nil || len(extra) == 0 {
		return err
	}
	for _, p := range extra {
		err := c.h.AddrDel(ref(index), &netlink.Addr{IPNet: toIPNet(p)})
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) { // it went with its primary
			return wrap(err, "remove address "+p.String()+" from link", index)
		}
	}
	// Removing the first address of a subnet takes its others along (promote_secondaries is off by default).
	if have, err = c.Addresses(index); err != nil {
		return err
	}
	missing, _ = diff(want, have)
	return c.addAddresses(index, missing)
}

// addAddresses adds addresses to a device.
func (c *Conn) addAddresses(index int, list []netip.Prefix) error {
	for _, p := range list {
		a := &netlink.Addr{IPNet: toIPNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := c.h.AddrReplace(ref(index), a); err != nil {
			return wrap(err, "add address "+p.String()+" to link", index)
		}
	}
	return nil
}

// diff compares two lists as sets.
func diff(want, have []netip.Prefix) (missing, extra []netip.Prefix) {
	for _, p := range want {
		if !slices.Contains(have, p) {
			missing = append(missing, p)
		}
	}
	for _, p := range have {
		if !slices.Contains(want, p) {
			extra = append(extra, p)
		}
	}
	return missing, extra
}

// SetRoute states a route of the main table through a device. Via invalid: the destination is on the link itself.
func (c *Conn) SetRoute(index int, to netip.Prefix, via netip.Addr) error {
	r := &netlink.Route{LinkIndex: index, Dst: toIPNet(to.Masked())}
	if via.IsValid() {
		r.Gw = via.AsSlice()
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	if err := c.h.RouteReplace(r); err != nil {
		return wrap(err, "set route "+to.String()+" of link", index)
	}
	return nil
}

// DefaultRoute tells the device and gateway of the main table's default route, of IPv6 or IPv4; index 0 if there is
// none.
func (c *Conn) DefaultRoute(v6 bool) (index int, via netip.Addr, err error) {
	family := netlink.FAMILY_V4
	if v6 {
		family = netlink.FAMILY_V6
	}
	routes, err := dump(func() ([]netlink.Route, error) { return c.h.RouteList(nil, family) })
	if err != nil {
		return 0, netip.Addr{}, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil || fromIPNet(r.Dst).Bits() == 0 {
			via, _ := netip.AddrFromSlice(r.Gw)
			return r.LinkIndex, via.Unmap(), nil
		}
	}
	return 0, netip.Addr{}, nil
}

// DeleteRoute removes a route of a device; nil if there is none.
func (c *Conn) DeleteRoute(index int, to netip.Prefix) error {
	err := c.h.RouteDel(&netlink.Route{LinkIndex: index, Dst: toIPNet(to.Masked())})
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return wrap(err, "delete route "+to.String()+" of link", index)
}

// toIPNet and fromIPNet are the border between net/netip and the library's net.IP.
func toIPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func fromIPNet(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

// HardwareAddr is a MAC as a comparable value.
type HardwareAddr [6]byte

// MAC copies a hardware address; ok is false unless it is a unicast Ethernet address.
func MAC(a net.HardwareAddr) (m HardwareAddr, ok bool) {
	if len(a) != len(m) || a[0]&1 != 0 {
		return m, false
	}
	copy(m[:], a)
	return m, m != HardwareAddr{}
}

// String is the usual colon form.
func (m HardwareAddr) String() string { return net.HardwareAddr(m[:]).String() }

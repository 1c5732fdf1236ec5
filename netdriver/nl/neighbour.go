package nl

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Row is one row of a device's neighbour table (Address → MAC) or, for a tunnel device, of its own forwarding table
// (MAC → Address of the other host).
type Row struct {
	Address   netip.Addr
	MAC       HardwareAddr
	Permanent bool // false: learned, ageing or not resolved
}

// Neighbours lists the neighbour rows of a device, both families.
func (c *Conn) Neighbours(index int) ([]Row, error) {
	return c.rows("neighbours", index, unix.AF_UNSPEC, 0)
}

// FDB lists the unicast rows of a tunnel device's own forwarding table (`bridge fdb show`: self).
func (c *Conn) FDB(index int) ([]Row, error) {
	return c.rows("forwarding rows", index, unix.AF_BRIDGE, netlink.NTF_SELF)
}

// rows dumps one of the two tables.
func (c *Conn) rows(what string, index, family, flag int) ([]Row, error) {
	all, err := dump(func() ([]netlink.Neigh, error) { return c.h.NeighList(index, family) })
	if err != nil {
		return nil, wrap(err, "list "+what+" of link", index)
	}
	var list []Row
	for _, n := range all {
		addr, ok := netip.AddrFromSlice(n.IP)
		if n.Flags&flag != flag || !ok || addr.IsMulticast() {
			continue
		}
		r := Row{Address: addr.Unmap(), Permanent: n.State&netlink.NUD_PERMANENT != 0}
		copy(r.MAC[:], n.HardwareAddr)
		list = append(list, r)
	}
	return list, nil
}

// SetNeighbour writes a permanent neighbour row over whatever the address had.
func (c *Conn) SetNeighbour(index int, r Row) error {
	n := neighbour(index, r)
	n.HardwareAddr = r.MAC[:]
	return wrap(c.h.NeighSet(n), fmt.Sprintf("set neighbour %s of link", r.Address), index)
}

// DeleteNeighbour removes an address's neighbour row; nil if there is none.
func (c *Conn) DeleteNeighbour(index int, r Row) error {
	return wrap(absent(c.h.NeighDel(neighbour(index, r))), fmt.Sprintf("delete neighbour %s of link", r.Address), index)
}

// SetFDB writes a permanent row into a tunnel device's own forwarding table. It replaces: an exclusive create fails
// where the kernel has learned the MAC meanwhile.
func (c *Conn) SetFDB(index int, r Row) error {
	return wrap(c.h.NeighSet(fdb(index, r)), fmt.Sprintf("set forwarding row %s of link", r.MAC), index)
}

// DeleteFDB removes a row of a tunnel device's own forwarding table; nil if there is none.
func (c *Conn) DeleteFDB(index int, r Row) error {
	return wrap(absent(c.h.NeighDel(fdb(index, r))), fmt.Sprintf("delete forwarding row %s of link", r.MAC), index)
}

// ntfSticky is NTF_STICKY of linux/neighbour.h, which the library has no name for.
const ntfSticky = 1 << 6

// SetPortFDB writes a static row for a bridge's port into the bridge's table: frames for a MAC that was learned behind
// another port go to this one at once. The row is sticky (Linux 4.20): neither a late frame from where the MAC was
// before, nor a neighbour that pretends to have it, draws it away.
func (c *Conn) SetPortFDB(index int, mac HardwareAddr) error {
	n := &netlink.Neigh{
		LinkIndex: index, Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP, HardwareAddr: mac[:],
		Flags: netlink.NTF_MASTER | ntfSticky,
	}
	return wrap(c.h.NeighSet(n), fmt.Sprintf("set forwarding row %s of bridge port", mac), index)
}

// neighbour is a row of the IP neighbour table.
func neighbour(index int, r Row) *netlink.Neigh {
	family := netlink.FAMILY_V4
	if r.Address.Is6() {
		family = netlink.FAMILY_V6
	}
	return &netlink.Neigh{
		LinkIndex: index, Family: family, State: netlink.NUD_PERMANENT, Type: unix.RTN_UNICAST, IP: r.Address.AsSlice(),
	}
}

// fdb is a row of a tunnel device's forwarding table.
func fdb(index int, r Row) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: index, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF,
		IP: r.Address.AsSlice(), HardwareAddr: r.MAC[:],
	}
}

// absent turns the kernel's "no such row" into success.
func absent(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

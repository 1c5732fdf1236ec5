package nl

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	rtnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Link is what the kernel says of one network device.
type Link struct {
	Index  int
	Name   string
	Kind   string // bridge, veth, vxlan …; "" or "device" for hardware
	Alias  string
	MTU    int // bytes
	MAC    net.HardwareAddr
	Up     bool // the administrator's wish (IFF_UP)
	Oper   bool // fact: it carries frames (operational state up, RFC 2863), and a bridge port forwards
	Master int  // index of the bridge it is a port of; 0: none
	Peer   int  // index of a veth's other end, in the namespace PeerNS
	PeerNS int  // see Conn.NSID; for a vxlan device the namespace of its outer socket; -1: the same namespace
	VXLAN  VXLAN
}

// VXLAN is what makes up a tunnel device (RFC 7348). Those this package makes also have proxy, l2miss, l3miss and
// nolearning set, and outer UDP checksums on.
type VXLAN struct {
	VNI   uint32
	Port  uint16     // UDP, of both ends
	Local netip.Addr // outer source address
	// Static says, in what is read, that the flags are those this package sets.
	Static bool
}

// Link looks a device up by name. ErrNotFound if there is none.
func (c *Conn) Link(name string) (Link, error) {
	l, err := dump(func() (netlink.Link, error) { return c.h.LinkByName(name) })
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return Link{}, fmt.Errorf("find link %s: %w", name, errdefs.ErrNotFound)
	}
	if err != nil {
		return Link{}, fmt.Errorf("find link %s: %w", name, err)
	}
	if l.Attrs().Name != name { // the kernel also answers to alternative names
		return Link{}, fmt.Errorf("find link %s: %w", name, errdefs.ErrNotFound)
	}
	return read(l), nil
}

// LinkAt looks a device up by index. ErrNotFound if there is none.
func (c *Conn) LinkAt(index int) (Link, error) {
	l, err := dump(func() (netlink.Link, error) { return c.h.LinkByIndex(index) })
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		err = unix.ENODEV
	}
	if err != nil {
		return Link{}, wrap(err, "find link", index)
	}
	return read(l), nil
}

// Links lists every device of the namespace.
func (c *Conn) Links() ([]Link, error) {
	all, err := dump(c.h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	links := make([]Link, len(all))
	for i, l := range all {
		links[i] = read(l)
	}
	return links, nil
}

// read copies what we use out of the library's view.
func read(l netlink.Link) Link {
	a := l.Attrs()
	r := Link{
		Index: a.Index, Name: a.Name, Kind: l.Type(), Alias: a.Alias, MTU: a.MTU, MAC: a.HardwareAddr,
		Up: a.RawFlags&unix.IFF_UP != 0, Oper: a.OperState == netlink.OperUp,
		Master: a.MasterIndex, Peer: a.ParentIndex, PeerNS: a.NetNsID,
	}
	if v, ok := l.(*netlink.Vxlan); ok {
		local, _ := netip.AddrFromSlice(v.SrcAddr)
		r.VXLAN = VXLAN{
			VNI: uint32(v.VxlanId), Port: uint16(v.Port), Local: local.Unmap(),
			Static: v.Proxy && v.L2miss && v.L3miss && !v.Learning,
		}
	}
	return r
}

// AddBridge makes a bridge with a MAC of its own (a bridge without one changes it with its ports) and no default
// VLAN, which would only double every FDB row. ErrAlreadyExists if the name is taken.
func (c *Conn) AddBridge(name string, mac net.HardwareAddr, mtu int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.MTU = name, mac, mtu
	noVLAN := uint16(0)
	return c.add(&netlink.Bridge{LinkAttrs: attrs, VlanDefaultPVID: &noVLAN})
}

// Veth is the wish for a pair of devices.
type Veth struct {
	Name     string // of the end in the Conn's namespace
	MTU      int    // bytes, of both ends
	PeerName string
	PeerMAC  net.HardwareAddr // nil: the kernel's choice
	PeerNS   string           // path of the namespace the other end is made in
}

// AddVeth makes a pair, each end straight in its own namespace: no passing name that could clash or be left behind.
// ErrAlreadyExists if either name is taken, ErrNotFound if the peer's namespace is missing.
func (c *Conn) AddVeth(v Veth) error {
	ns, err := openNS(v.PeerNS)
	if err != nil {
		return fmt.Errorf("add link %s: %w", v.Name, err)
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = v.Name, v.MTU
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerHardwareAddr, pair.PeerMTU = v.PeerName, v.PeerMAC, uint32(v.MTU)
	pair.PeerNamespace = netlink.NsFd(ns.Fd())
	return c.add(pair)
}

// MacvlanMode says what the macvlan devices of one parent see of each other.
type MacvlanMode int

// The modes (linux/if_link.h).
const (
	MacvlanBridge   = MacvlanMode(netlink.MACVLAN_MODE_BRIDGE)   // they reach each other
	MacvlanPrivate  = MacvlanMode(netlink.MACVLAN_MODE_PRIVATE)  // they never do
	MacvlanVEPA     = MacvlanMode(netlink.MACVLAN_MODE_VEPA)     // they do if the switch sends it back
	MacvlanPassthru = MacvlanMode(netlink.MACVLAN_MODE_PASSTHRU) // there is only one, which has the parent's MAC
)

// AddMacvlan makes a macvlan device on a parent in the Conn's namespace, straight in the namespace at ns.
func (c *Conn) AddMacvlan(name string, parent int, mode MacvlanMode, mac net.HardwareAddr, ns string) error {
	target, err := openNS(ns)
	if err != nil {
		return fmt.Errorf("add link %s: %w", name, err)
	}
	defer target.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.HardwareAddr, attrs.Namespace = name, parent, mac, netlink.NsFd(target.Fd())
	return c.add(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MacvlanMode(mode)})
}

// AddVLAN makes a VLAN of a device (IEEE 802.1Q).
func (c *Conn) AddVLAN(name string, parent int, id uint16) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = name, parent
	return c.add(&netlink.Vlan{LinkAttrs: attrs, VlanId: int(id), VlanProtocol: netlink.VLAN_PROTOCOL_8021Q})
}

// AddVXLAN makes a tunnel device called name in the namespace at ns. Its outer socket stays in the Conn's namespace,
// because that is where the request is made.
func (c *Conn) AddVXLAN(name string, v VXLAN, mtu int, ns string) error {
	target, err := openNS(ns)
	if err != nil {
		return fmt.Errorf("add link %s: %w", name, err)
	}
	defer target.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.Namespace = name, mtu, netlink.NsFd(target.Fd())
	return c.add(&netlink.Vxlan{
		LinkAttrs: attrs, VxlanId: int(v.VNI), Port: int(v.Port), SrcAddr: v.Local.AsSlice(),
		Proxy: true, L2miss: true, L3miss: true, UDPCSum: true,
	})
}

// add makes a device; the kernel's EEXIST becomes ErrAlreadyExists.
func (c *Conn) add(l netlink.Link) error {
	err := c.h.LinkAdd(l)
	if errors.Is(err, unix.EEXIST) {
		err = errdefs.ErrAlreadyExists
	}
	if err != nil {
		return fmt.Errorf("add %s %s: %w", l.Type(), l.Attrs().Name, err)
	}
	return nil
}

// Delete removes a device; nil if it is gone. A veth's other end goes with it.
func (c *Conn) Delete(index int) error {
	err := c.h.LinkDel(ref(index))
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return wrap(err, "delete link", index)
}

// deleteGroup marks devices that are to go together; nothing else uses the number.
const deleteGroup = 0x6d696e69

// DeleteAll removes several devices at once. The kernel waits out a few RCU grace periods for every request to delete,
// however many devices it is for: one by one takes many times as long. Those that are gone already are no error.
func (c *Conn) DeleteAll(indexes ...int) error {
	marked := 0
	for _, i := range indexes {
		err := c.h.LinkSetGroup(ref(i), deleteGroup)
		if errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return wrap(err, "delete link", i)
		}
		marked++
	}
	if marked == 0 {
		return nil
	}
	err := c.Do(func() error {
		req := rtnl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
		req.AddData(rtnl.NewIfInfomsg(unix.AF_UNSPEC))
		req.AddData(rtnl.NewRtAttr(unix.IFLA_GROUP, rtnl.Uint32Attr(deleteGroup)))
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete %d links: %w", marked, err)
	}
	return nil
}

// SetUp switches a device on.
func (c *Conn) SetUp(index int) error { return wrap(c.h.LinkSetUp(ref(index)), "set up link", index) }

// SetMTU sets the largest packet, in bytes.
func (c *Conn) SetMTU(index, mtu int) error {
	return wrap(c.h.LinkSetMTU(ref(index), mtu), fmt.Sprintf("set MTU %d of link", mtu), index)
}

// SetMAC sets the hardware address.
func (c *Conn) SetMAC(index int, mac net.HardwareAddr) error {
	return wrap(c.h.LinkSetHardwareAddr(ref(index), mac), fmt.Sprintf("set MAC %s of link", mac), index)
}

// SetName renames a device, which has to be down on kernels before 6.2.
func (c *Conn) SetName(index int, name string) error {
	return wrap(c.h.LinkSetName(ref(index), name), "rename to "+name+" link", index)
}

// Move moves a device into the namespace whose file is at ns and calls it name there, in one step: a name that is taken on
// the way does not matter. It arrives switched off and without addresses. ErrAlreadyExists if the name is taken there,
// ErrNotFound if there is no such namespace.
func (c *Conn) Move(index int, name, ns string) error {
	target, err := openNS(ns)
	if err != nil {
		return err
	}
	defer target.Close()
	err = c.Do(func() error {
		req := rtnl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
		msg := rtnl.NewIfInfomsg(unix.AF_UNSPEC)
		msg.Index, msg.Change = int32(index), unix.IFF_UP // down: one that is up keeps its name
		req.AddData(msg)
		req.AddData(rtnl.NewRtAttr(unix.IFLA_NET_NS_FD, rtnl.Uint32Attr(uint32(target.Fd()))))
		req.AddData(rtnl.NewRtAttr(unix.IFLA_IFNAME, rtnl.ZeroTerminated(name)))
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
	if errors.Is(err, unix.EEXIST) {
		err = errdefs.ErrAlreadyExists
	}
	return wrap(err, "move to "+ns+" as "+name+" link", index)
}

// SetAlias writes the remark (at most 255 bytes) by which we know our own devices again.
func (c *Conn) SetAlias(index int, alias string) error {
	return wrap(c.h.LinkSetAlias(ref(index), alias), "set alias of link", index)
}

// SetMaster makes a device a port of a bridge.
func (c *Conn) SetMaster(index, bridge int) error {
	return wrap(c.h.LinkSetMasterByIndex(ref(index), bridge), "add to the bridge link", index)
}

// SetIsolated sets IFLA_BRPORT_ISOLATED: isolated ports of a bridge exchange no frames with each other, only with its
// other ports and the bridge itself.
func (c *Conn) SetIsolated(index int, on bool) error {
	return wrap(c.h.LinkSetIsolated(ref(index), on), "set isolation of bridge port", index)
}

// SetFlood sets IFLA_BRPORT_UNICAST_FLOOD: whether a bridge's port is sent the frames for MACs that the bridge does not
// know.
func (c *Conn) SetFlood(index int, on bool) error {
	return wrap(c.h.LinkSetFlood(ref(index), on), "set flooding of bridge port", index)
}

// ref names a device by its index, as the library wants it.
func ref(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

// wrap adds what was done to which device.
func wrap(err error, verb string, index int) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("%s %d: %w", verb, index, errdefs.ErrNotFound)
	}
	return fmt.Errorf("%s %d: %w", verb, index, err)
}

package nl

import (
	"errors"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// IngressFilter tells the name of the program that judges what a device receives; "" if there is none of ours.
func (c *Conn) IngressFilter(index int) (string, error) {
	list, err := c.h.FilterList(ref(index), netlink.HANDLE_MIN_INGRESS)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // no such qdisc
		return "", nil
	}
	if err != nil {
		return "", wrap(err, "list the filters of link", index)
	}
	for _, f := range list {
		if b, ok := f.(*netlink.BpfFilter); ok && b.Priority == ingressFilter(index).Priority {
			return b.Name, nil
		}
	}
	return "", nil
}

// SetIngressFilter makes a BPF program judge what a device receives, in place of an earlier one (tc-bpf(8), direct
// action). It goes with the device.
func (c *Conn) SetIngressFilter(index, fd int, name string) error {
	q := &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := c.h.QdiscAdd(q); err != nil && !errors.Is(err, unix.EEXIST) {
		return wrap(err, "add a clsact qdisc to link", index)
	}
	f := ingressFilter(index)
	f.Fd, f.Name = fd, name
	return wrap(c.h.FilterReplace(f), "filter what comes in by link", index)
}

// RemoveIngressFilter takes the program away; nil if there is none.
func (c *Conn) RemoveIngressFilter(index int) error {
	name, err := c.IngressFilter(index)
	if err != nil || name == "" {
		return err
	}
	return wrap(absent(c.h.FilterDel(ingressFilter(index))), "unfilter what comes in by link", index)
}

// ingressFilter is our place among a device's filters: the first.
func ingressFilter(index int) *netlink.BpfFilter {
	return &netlink.BpfFilter{DirectAction: true, FilterAttrs: netlink.FilterAttrs{
		LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL,
	}}
}

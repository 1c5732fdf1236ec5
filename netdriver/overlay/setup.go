package overlay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/nl"
	"github.com/minictl/minictl/netdriver/sandbox"
)

// Device names inside a network's namespace, as docker's operators know them.
const (
	bridgeName = "br0"
	tunnelName = "vxlan0"
)

// ensure sets a network up and plugs the endpoints we know of in again: they need a changed MTU.
func (d *Driver) ensure(ctx context.Context, own *network) error {
	w, err := d.want(own)
	if err != nil {
		return err
	}
	c, err := d.open(ctx, &w)
	if err != nil {
		return err
	}
	defer c.Close()
	errs := []error{d.writeRows(ctx, c, own)}
	for _, id := range slices.Sorted(maps.Keys(own.endpoints)) {
		p := own.endpoints[id]
		if !sandbox.Exists(p.sandbox.Path) {
			continue // the container is gone; its Leave is on the way
		}
		errs = append(errs, d.plug(ctx, c, w, p))
	}
	return errors.Join(errs...)
}

// open sets the namespace and its devices up and gives a Conn to it. It corrects w where an earlier daemon's tunnel
// stays.
func (d *Driver) open(ctx context.Context, w *want) (*nl.Conn, error) {
	if err := d.tune(); err != nil {
		return nil, err
	}
	if !sandbox.Exists(w.file) {
		if err := sandbox.ShareDir(d.dir); err != nil {
			return nil, err
		}
		if _, err := sandbox.Create(ctx, w.file); err != nil {
			return nil, err
		}
	}
	c, err := nl.At(w.file)
	if err != nil {
		return nil, err
	}
	if err = adopt(c, w); err == nil {
		err = setBridge(ctx, c, *w)
	}
	if err == nil {
		err = setTunnel(c, *w)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// adopt takes the MTU of a tunnel that stays because the data path is not known yet.
func adopt(c *nl.Conn, w *want) error {
	if !w.keep {
		return nil
	}
	l, err := c.Link(tunnelName)
	if errdefs.IsNotFound(err) {
		w.keep = false
		return nil
	}
	if err != nil {
		return err
	}
	w.mtu = l.MTU
	return nil
}

// setBridge makes or repairs br0.
func setBridge(ctx context.Context, c *nl.Conn, w want) error {
	br, err := c.Link(bridgeName)
	if errdefs.IsNotFound(err) {
		if err := c.Do(bypassNetfilter); err != nil {
			return err
		}
		if err := c.AddBridge(bridgeName, w.mac, w.mtu); err != nil {
			return err
		}
		br, err = c.Link(bridgeName)
	}
	if err != nil {
		return err
	}
	if br.MTU != w.mtu {
		if err := c.SetMTU(br.Index, w.mtu); err != nil {
			return err
		}
	}
	if br.MAC.String() != w.mac.String() {
		if err := c.SetMAC(br.Index, w.mac); err != nil {
			return err
		}
	}
	if err := c.Do(func() error { return setIPv6(bridgeName, w) }); err != nil {
		return err
	}
	if err := c.SetAddresses(br.Index, w.gateways); err != nil {
		return err
	}
	if !br.Up {
		if err := c.SetUp(br.Index); err != nil {
			return err
		}
	}
	return c.Do(func() error {
		for _, g := range w.gateways {
			if err := nl.AwaitSolicited(ctx, bridgeName, g.Addr()); err != nil {
				return err
			}
		}
		return nil
	})
}

// setIPv6 switches IPv6 on exactly where the network has a subnet of it. The tunnel device needs it to answer neighbour
// solicitations (RFC 4861) from its rows, but no address, not even a link-local one (addr_gen_mode 1, ip-sysctl.rst): it
// would talk into the network. Duplicate address detection would leave the gateway unusable for a second.
func setIPv6(device string, w want) error {
	off := "1"
	if slices.ContainsFunc(w.subnets, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		off = "0"
	}
	conf := "net/ipv6/conf/" + device
	err := errors.Join(nl.SetSysctl(conf+"/addr_gen_mode", "1"), nl.SetSysctl(conf+"/accept_dad", "0"), nl.SetSysctl(conf+"/accept_ra", "0"),
		nl.SetSysctl(conf+"/disable_ipv6", off))
	if errdefs.IsNotFound(err) && off == "1" { // a kernel without IPv6
		return nil
	}
	return err
}

// bypassNetfilter keeps bridged frames away from iptables and nftables inside the network's namespace: there are no
// rules in it, and going through none costs a fifth of the packet rate. Without br_netfilter there is nothing to do.
func bypassNetfilter() error {
	for _, family := range []string{"ip", "ip6", "arp"} {
		err := nl.SetSysctl("net/bridge/bridge-nf-call-"+family+"tables", "0")
		if err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// setTunnel makes the tunnel device as wished, or none without a data path. One that differs in anything is made
// anew: most of it cannot be changed on a live device.
func setTunnel(c *nl.Conn, w want) error {
	have, err := c.Link(tunnelName)
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if w.keep {
		return nil
	}
	if have.Index != 0 {
		same, err := fits(c, have, w)
		if err != nil {
			return err
		}
		if same {
			return repairTunnel(c, have, w)
		}
		if err := c.Delete(have.Index); err != nil {
			return err
		}
	}
	if !w.tunnel.Local.IsValid() {
		return nil
	}
	return addTunnel(c, w)
}

// fits tells whether the device is the wished tunnel. One whose socket is in yet another namespace belongs to another
// daemon that uses the same folder; taking it over would cut that daemon's containers off.
func fits(c *nl.Conn, have nl.Link, w want) (bool, error) {
	if have.Kind != "vxlan" {
		return false, nil
	}
	home, err := c.NSID(nl.Self)
	if err != nil {
		return false, err
	}
	if have.PeerNS != home {
		return false, fmt.Errorf("namespace %s is in use by a daemon in another network namespace; give each daemon a folder of its own: %w",
			w.file, errdefs.ErrConflict)
	}
	return have.VXLAN == w.tunnel, nil
}

// addTunnel makes the tunnel device. It is asked for in the daemon's namespace, where its UDP socket stays, and made
// in the network's under a name unique to the network: there are kernels that compare names in the first as well.
func addTunnel(c *nl.Conn, w want) error {
	host, err := nl.Here()
	if err != nil {
		return err
	}
	defer host.Close()
	passing := "vx-" + strconv.FormatUint(uint64(w.tunnel.VNI), 16) + "-" + string(w.id[:min(5, len(w.id))])
	if half, err := c.Link(passing); err == nil { // left by a crash
		if err := c.Delete(half.Index); err != nil {
			return err
		}
	}
	err = host.AddVXLAN(passing, w.tunnel, w.mtu, w.file)
	if errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("VNI %d on UDP port %d is taken by another VXLAN device of this host, `ip -d link show type vxlan` "+
			"in each of `ip netns list` finds it: %w", w.tunnel.VNI, w.tunnel.Port, err)
	}
	if err != nil {
		return err
	}
	l, err := c.Link(passing)
	if err != nil {
		return err
	}
	if err := c.SetName(l.Index, tunnelName); err != nil {
		return errors.Join(err, c.Delete(l.Index))
	}
	return repairTunnel(c, l, w)
}

// repairTunnel sets what can be changed on a live tunnel device.
func repairTunnel(c *nl.Conn, l nl.Link, w want) error {
	br, err := c.Link(bridgeName)
	if err != nil {
		return err
	}
	if l.MTU != w.mtu {
		if err := c.SetMTU(l.Index, w.mtu); err != nil {
			return err
		}
	}
	if l.Master != br.Index {
		if err := c.SetMaster(l.Index, br.Index); err != nil {
			return err
		}
	}
	if err := c.Do(func() error { return setIPv6(tunnelName, w) }); err != nil {
		return err
	}
	if l.Up {
		return nil
	}
	return c.SetUp(l.Index)
}

// plug joins one endpoint to br0.
func (d *Driver) plug(ctx context.Context, c *nl.Conn, w want, p plugged) error {
	br, err := c.Link(bridgeName)
	if err != nil {
		return err
	}
	var onLink []netip.Prefix
	for _, own := range p.endpoint.Addresses() {
		for _, s := range w.subnets {
			if s != own.Masked() && s.Addr().Is4() == own.Addr().Is4() {
				onLink = append(onLink, s)
			}
		}
	}
	return sandbox.Attach(ctx, c, sandbox.Plug{
		Endpoint: p.endpoint, Sandbox: p.sandbox, Bridge: br.Index, MTU: w.mtu, Open: w.open, OnLink: onLink,
	})
}

// clearOut removes a network's namespace and all in it; nil if there is none.
func clearOut(file string) error {
	c, err := nl.At(file)
	if errdefs.IsNotFound(err) || !sandbox.Exists(file) {
		return errors.Join(sandbox.Remove(file), sandbox.UnshareDir(filepath.Dir(file))) // a dead file
	}
	if err != nil {
		return err
	}
	defer c.Close()
	links, err := c.Links()
	if err != nil {
		return err
	}
	var all []int
	for _, l := range links {
		if l.Name != "lo" {
			all = append(all, l.Index)
		}
	}
	return errors.Join(append([]error{c.DeleteAll(all...)}, sandbox.Remove(file), sandbox.UnshareDir(filepath.Dir(file)))...)
}

// The neighbour tables' limits that docker sets: a host with more than 1024 reachable containers would otherwise drop
// packets. They exist in the machine's first network namespace only.
var neighbourLimits = []struct {
	key   string
	value int
}{
	{"net/ipv4/neigh/default/gc_thresh3", 65536},
	{"net/ipv4/neigh/default/gc_thresh2", 49152},
	{"net/ipv4/neigh/default/gc_thresh1", 8192},
	{"net/ipv6/neigh/default/gc_thresh3", 65536},
	{"net/ipv6/neigh/default/gc_thresh2", 49152},
	{"net/ipv6/neigh/default/gc_thresh1", 8192},
}

// Sysctls are the settings of the whole machine that a Driver changes.
func Sysctls() []string {
	var keys []string
	for _, l := range neighbourLimits {
		keys = append(keys, l.key)
	}
	return keys
}

// tune raises the limits once; a read-only /proc/sys is not worth failing for.
func (d *Driver) tune() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tuned {
		return nil
	}
	d.tuned = true
	for _, l := range neighbourLimits {
		if err := nl.RaiseSysctl(l.key, l.value); err != nil && !errdefs.IsNotFound(err) {
			d.log.Warn("neighbour table limit not raised", "key", l.key, "err", err)
		}
	}
	return nil
}

// Present names the networks that have a namespace on this host, by the first 10 digits of their IDs.
func (d *Driver) Present() ([]string, error) {
	names, err := sandbox.List(d.dir)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, name := range names {
		if id, ok := networkOf(name); ok {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// Prune removes every network of this driver that is not in keep: what a crash, or a network removed while the daemon
// was down, has left.
func (d *Driver) Prune(_ context.Context, keep []netdriver.NetworkID) error {
	present, err := d.Present()
	if err != nil {
		return fmt.Errorf("prune networks: %w", err)
	}
	kept := make(map[string]bool)
	for _, id := range keep {
		kept[d.file(id)] = true
	}
	var errs []error
	for _, id := range present {
		file := d.file(netdriver.NetworkID(id))
		if kept[file] {
			continue
		}
		if err := clearOut(file); err != nil {
			errs = append(errs, fmt.Errorf("prune network %s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

// networkOf reads a namespace file's name; ok is false for a namespace that is not ours.
func networkOf(name string) (id string, ok bool) {
	if len(name) != len(filePrefix)+fileDigits || name[:len(filePrefix)] != filePrefix {
		return "", false
	}
	id = name[len(filePrefix):]
	for _, r := range id {
		if (r < '0' || r > '9') && (r < 'a' || r > 'f') {
			return "", false
		}
	}
	return id, true
}

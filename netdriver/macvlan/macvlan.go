// Package macvlan is the driver of networks whose containers stand on the wire of one of the host's interfaces, each
// with a MAC of its own, as if they were machines beside it.
//
// The containers' gateway is a router on that wire, no address of the host; the kernel lets the host itself and its
// macvlan containers not reach each other. A container's device lives in the sandbox alone, so the sandbox is all there
// is to tell of it: its alias names the endpoint. A parent called IFACE.ID that does not exist is made as VLAN ID of
// IFACE and goes with the network.
package macvlan

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/nl"
	"github.com/minictl/minictl/netdriver/sandbox"
)

// Config is what New needs.
type Config struct {
	Log       *slog.Logger
	Sandboxes string // the folder of all sandboxes, where endpoints are looked for
}

// Driver makes macvlan networks in the namespace its methods are called in.
type Driver struct {
	log *slog.Logger
	dir string

	mu sync.Mutex // one change at a time
}

// The driver honours the contract.
var (
	_ netdriver.Driver   = (*Driver)(nil)
	_ netdriver.MACFixer = (*Driver)(nil)
)

// New gives the driver.
func New(c Config) *Driver { return &Driver{log: c.Log.With("component", "macvlan"), dir: c.Sandboxes} }

// Type is macvlan.
func (d *Driver) Type() string { return netdriver.TypeMacvlan }

// Check refuses a network without a parent and options with bad values.
func (d *Driver) Check(n netdriver.Network) error {
	_, err := parse(n)
	return err
}

// FixedMAC is the parent's, which a passthru endpoint has: with one of its own it would change the parent's.
func (d *Driver) FixedMAC(n netdriver.Network) (net.HardwareAddr, error) {
	o, err := parse(n)
	if err != nil || o.mode != nl.MacvlanPassthru {
		return nil, err
	}
	c, err := nl.Here()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	l, err := c.Link(o.parent)
	return l.MAC, err
}

// Ensure makes or repairs the parent, where that is a VLAN of ours.
func (d *Driver) Ensure(_ context.Context, n netdriver.Network) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := nl.Here()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, _, err := d.ensure(c, n); err != nil {
		return fmt.Errorf("set up network %s: %w", n.Name, err)
	}
	return nil
}

// ensure gives the parent.
func (d *Driver) ensure(c *nl.Conn, n netdriver.Network) (nl.Link, options, error) {
	o, err := parse(n)
	if err != nil {
		return nl.Link{}, o, err
	}
	l, err := c.Link(o.parent)
	if errdefs.IsNotFound(err) {
		l, err = addVLAN(c, n, o)
	}
	if err != nil {
		return nl.Link{}, o, err
	}
	if !l.Up && l.Alias == alias(n.ID) {
		err = c.SetUp(l.Index)
	}
	return l, o, err
}

// addVLAN makes the parent on its base.
func addVLAN(c *nl.Conn, n netdriver.Network, o options) (nl.Link, error) {
	base := nl.Link{}
	err := error(errdefs.ErrNotFound)
	if o.vlan != 0 {
		base, err = c.Link(o.base)
	}
	if err != nil {
		return nl.Link{}, fmt.Errorf("option %s: this host has no interface %q, see ip link: %w", OptionParent, o.parent, errdefs.ErrInvalidArgument)
	}
	err = c.AddVLAN(o.parent, base.Index, o.vlan)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		return nl.Link{}, fmt.Errorf("option %s: this host's kernel has no VLANs (8021q), so that %s cannot be made: %w", OptionParent, o.parent, errdefs.ErrNotImplemented)
	}
	if err != nil {
		return nl.Link{}, err
	}
	l, err := c.Link(o.parent)
	if err != nil {
		return nl.Link{}, err
	}
	if err := c.SetAlias(l.Index, alias(n.ID)); err != nil {
		return nl.Link{}, errors.Join(err, c.Delete(l.Index))
	}
	l.Alias = alias(n.ID)
	return l, nil
}

// Remove removes the parent, if it was made for the network.
func (d *Driver) Remove(_ context.Context, n netdriver.Network) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := nl.Here()
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := c.Link(n.Options[OptionParent])
	switch {
	case errdefs.IsNotFound(err):
		return nil
	case err == nil && l.Alias == alias(n.ID):
		err = c.Delete(l.Index)
	}
	if err != nil {
		return fmt.Errorf("remove network %s: %w", n.Name, err)
	}
	return nil
}

// Join makes the endpoint's device in the sandbox.
func (d *Driver) Join(ctx context.Context, n netdriver.Network, e netdriver.Endpoint, s netdriver.Sandbox) (netdriver.Attachment, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	mtu, err := d.join(ctx, n, e, s)
	if err != nil {
		return netdriver.Attachment{}, fmt.Errorf("join network %s: %w", n.Name, err)
	}
	return netdriver.Attachment{Interface: e.Interface, MTU: mtu}, nil
}

func (d *Driver) join(ctx context.Context, n netdriver.Network, e netdriver.Endpoint, s netdriver.Sandbox) (mtu int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	c, err := nl.Here()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	parent, o, err := d.ensure(c, n)
	if err != nil {
		return 0, err
	}
	if o.mode == nl.MacvlanPassthru {
		e.MAC = nil // it has the parent's, and would give the parent its own
	}
	if o.mtu == 0 || o.mtu > parent.MTU {
		o.mtu = parent.MTU
	}
	if err := d.leaveElsewhere(e, s.Path); err != nil {
		return 0, err
	}
	made, err := d.device(c, parent, o, e, s)
	if err == nil {
		err = sandbox.Furnish(ctx, sandbox.Plug{Endpoint: e, Sandbox: s, MTU: o.mtu})
	}
	if err != nil && made {
		err = errors.Join(err, remove(s.Path, e.ID))
	}
	return o.mtu, err
}

// device makes the endpoint's device, unless it is there. made tells that it is the endpoint's, for whoever has to
// remove it.
func (d *Driver) device(c *nl.Conn, parent nl.Link, o options, e netdriver.Endpoint, s netdriver.Sandbox) (made bool, err error) {
	in, err := nl.At(s.Path)
	if err != nil {
		return false, err
	}
	defer in.Close()
	have, err := in.Link(e.Interface)
	if err == nil && !sandbox.IsPlug(have, e.ID) {
		return false, fmt.Errorf("the sandbox already has an interface %s: %w", e.Interface, errdefs.ErrAlreadyExists)
	}
	if err == nil {
		return true, in.SetAlias(have.Index, sandbox.Alias(e))
	}
	if !errdefs.IsNotFound(err) {
		return false, err
	}
	err = c.AddMacvlan(e.Interface, parent.Index, o.mode, e.MAC, s.Path)
	if errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EINVAL) {
		return false, fmt.Errorf("%s takes no macvlan of this kind: it may be a bridge's port, or a passthru endpoint may have it: %w", parent.Name, errors.Join(err, errdefs.ErrConflict))
	}
	if err != nil {
		return false, err
	}
	l, err := in.Link(e.Interface)
	if err == nil {
		err = in.SetAlias(l.Index, sandbox.Alias(e))
	}
	if err != nil {
		return false, errors.Join(err, in.Delete(l.Index))
	}
	return true, nil
}

// Leave removes the endpoint's device, in whichever sandbox it is.
func (d *Driver) Leave(_ context.Context, n netdriver.Network, e netdriver.Endpoint) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.leaveElsewhere(e, ""); err != nil {
		return fmt.Errorf("leave network %s: %w", n.Name, err)
	}
	return nil
}

// leaveElsewhere removes the endpoint from every sandbox but one.
func (d *Driver) leaveElsewhere(e netdriver.Endpoint, but string) error {
	names, err := sandbox.List(d.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if path := filepath.Join(d.dir, name); path != but {
			errs = append(errs, remove(path, e.ID))
		}
	}
	return errors.Join(errs...)
}

// remove removes an endpoint's device from a sandbox; nil if it, or the sandbox, is not there.
func remove(path string, id netdriver.EndpointID) error {
	c, err := nl.At(path)
	if errdefs.IsNotFound(err) || !sandbox.Exists(path) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Close()
	links, err := c.Links()
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Kind == "macvlan" && sandbox.IsPlug(l, id) {
			return c.Delete(l.Index)
		}
	}
	return nil
}

// Prune removes every parent that was made for a network which is not in keep: what a crash, or a daemon that is cleaned
// up after, has left.
func (d *Driver) Prune(_ context.Context, keep []netdriver.NetworkID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := nl.Here()
	if err != nil {
		return err
	}
	defer c.Close()
	links, err := c.Links()
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range links {
		id, ours := strings.CutPrefix(l.Alias, aliasPrefix)
		if !ours || l.Kind == netdriver.TypeBridge || slices.Contains(keep, netdriver.NetworkID(id)) { // a bridge's alias says the same
			continue
		}
		d.log.Info("left-over parent removed", "network", id, "link", l.Name)
		if err := c.Delete(l.Index); err != nil {
			errs = append(errs, fmt.Errorf("prune network %.12s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

// aliasPrefix starts the remark on a network's VLAN; the network's ID follows.
const aliasPrefix = "minictl network "

func alias(id netdriver.NetworkID) string { return aliasPrefix + string(id) }

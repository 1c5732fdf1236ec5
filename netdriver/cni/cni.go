// Package cni is the driver of networks whose endpoints are made by CNI plugins, programs of others' that a configuration
// names: flannel's, Calico's, or the reference plugins.
//
// Addresses, routes and ports are the plugins' business; what they say comes back in the Attachment. The kernel does not
// tell which endpoint a plugin made what for, so this driver keeps a record of each on disk, written before the first
// plugin runs: whatever happens in between, DEL is called for it in the end.
package cni

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/nl"
	"github.com/minictl/minictl/netdriver/sandbox"
)

// Config is what New needs.
type Config struct {
	Log      *slog.Logger
	Dir      string        // for what has to outlive the daemon
	AddLimit time.Duration // how long the plugins of a network may take to add an endpoint; 0: 30 s
	// Step, if any, is called where tests break things: its error is the step's.
	Step func(name string) error
}

// Driver runs plugins in the namespace its methods are called in.
type Driver struct {
	log      *slog.Logger
	dir      string
	addLimit time.Duration
	step     func(name string) error
	exec     *runner

	mu    sync.Mutex
	names map[string]*sync.RWMutex // by the configuration's name: a collection runs beside nothing else
}

// The driver honours the contract.
var _ netdriver.Driver = (*Driver)(nil)

// New gives the driver.
func New(c Config) *Driver {
	log := c.Log.With("component", "cni")
	if c.Step == nil {
		c.Step = func(string) error { return nil }
	}
	return &Driver{log: log, dir: c.Dir, addLimit: cmp.Or(c.AddLimit, addTime), step: c.Step, exec: &runner{log: log}, names: map[string]*sync.RWMutex{}}
}

// Type is cni.
func (d *Driver) Type() string { return netdriver.TypeCNI }

// client gives libcni's with the network's folders of plugins.
func (d *Driver) client(c conf) *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir(c.bin, filepath.Join(d.dir, "cache"), d.exec)
}

// named is the lock of all endpoints that plugins know under one name, in whichever networks.
func (d *Driver) named(name string) *sync.RWMutex {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names[name] == nil {
		d.names[name] = &sync.RWMutex{}
	}
	return d.names[name]
}

// Check refuses what is no configuration, and what only the configuration may say.
func (d *Driver) Check(n netdriver.Network) error {
	_, err := parse(n.Options)
	return err
}

// Ensure has nothing to do: CNI knows no networks without endpoints.
func (d *Driver) Ensure(context.Context, netdriver.Network) error { return nil }

// Remove takes back what plugins have made for endpoints that are still known: nothing, unless a DEL has failed. What a
// plugin leaves for its network as a whole stays, such as the bridge of the plugin bridge: others may use it.
func (d *Driver) Remove(ctx context.Context, n netdriver.Network) error {
	left, err := d.records(func(r *record) bool { return r.Network == n.ID })
	for _, r := range left {
		if derr := d.delete(ctx, r); derr != nil {
			err = errors.Join(err, fmt.Errorf("%w; delete %s if there is nothing to take back any more", derr, d.recordPath(r.Endpoint)))
		}
	}
	return err
}

// Prune does the same for networks that are not in keep, and removes what a daemon that was killed had begun to write. No
// endpoint may be joining meanwhile.
func (d *Driver) Prune(ctx context.Context, keep []netdriver.NetworkID) error {
	halves, err := filepath.Glob(filepath.Join(d.recordDir(), unfinished+"*"))
	for _, f := range halves {
		err = errors.Join(err, os.Remove(f))
	}
	if err != nil {
		return err
	}
	left, err := d.records(func(r *record) bool { return !slices.Contains(keep, r.Network) })
	for _, r := range left {
		err = errors.Join(err, d.delete(ctx, r))
	}
	return err
}

// Decides says that plugins choose addresses, gateways and MACs.
func (d *Driver) Decides() {}

// Join has the plugins add the endpoint, unless they have. What the wish leaves open they choose, and the Attachment says
// it. A first Join leaves the routes as the plugins made them; a further one makes the default route as wished.
func (d *Driver) Join(ctx context.Context, n netdriver.Network, e netdriver.Endpoint, s netdriver.Sandbox) (netdriver.Attachment, error) {
	made, err := d.join(ctx, n, e, s)
	if err != nil {
		return netdriver.Attachment{}, err
	}
	return made.attachment(e), nil
}

func (d *Driver) join(ctx context.Context, n netdriver.Network, e netdriver.Endpoint, s netdriver.Sandbox) (facts, error) {
	var none facts
	if err := ctx.Err(); err != nil {
		return none, err
	}
	if !sandbox.Exists(s.Path) {
		return none, fmt.Errorf("network %s: open network namespace %s: %w", n.Name, s.Path, errdefs.ErrNotFound)
	}
	r, err := d.recall(e.ID)
	if err != nil {
		return none, err
	}
	if r != nil && r.Sandbox == s.Path && len(r.Result) > 0 && hasLink(s.Path, r.Interface) {
		return d.rejoin(r, n, e)
	}
	c, err := parse(n.Options)
	if err != nil {
		return none, err
	}
	fresh := &record{
		Endpoint: e.ID, Network: n.ID, Name: n.Name, Container: s.ID, Interface: e.Interface, Sandbox: s.Path, Options: n.Options,
	}
	if r != nil { // in another sandbox, or half made
		d.log.Info("an endpoint is made again", "network", n.Name, "endpoint", string(e.ID), "interface", e.Interface)
		fresh.Wishes = r.Wishes
	} else if fresh.Wishes, err = c.wishes(n, e); err != nil {
		return none, err
	}
	if r != nil {
		if err := d.delete(ctx, r); err != nil {
			return none, err
		}
	}
	if hasLink(s.Path, e.Interface) {
		return none, fmt.Errorf("network %s: the sandbox already has an interface %s: %w", n.Name, e.Interface, errdefs.ErrAlreadyExists)
	}
	if err := d.clear(ctx, fresh); err != nil {
		return none, err
	}
	at, err := d.add(ctx, c, fresh, e)
	if err != nil {
		// With a context of its own: what has failed half way is taken back whether or not the caller still waits.
		return none, errors.Join(err, d.delete(context.WithoutCancel(ctx), fresh))
	}
	return at, nil
}

// clear takes back what plugins still know under a new endpoint's container and interface, though there is no such
// interface: their DEL has failed when it was due.
func (d *Driver) clear(ctx context.Context, fresh *record) error {
	stale, err := d.records(func(r *record) bool {
		return r.Network == fresh.Network && r.Container == fresh.Container && r.Interface == fresh.Interface
	})
	for _, r := range stale {
		err = errors.Join(err, d.delete(ctx, r))
	}
	return err
}

// hasLink tells whether there is such an interface in a sandbox.
func hasLink(path, name string) bool {
	_, err := linkIn(path, name)
	return err == nil
}

func linkIn(path, name string) (nl.Link, error) {
	c, err := nl.At(path)
	if err != nil {
		return nl.Link{}, err
	}
	defer c.Close()
	return c.Link(name)
}

// runtimeConf is the endpoint as libcni wants it. A sandbox that is gone has no path: plugins skip what was inside.
func (r *record) runtimeConf() *libcni.RuntimeConf {
	rt := &libcni.RuntimeConf{ContainerID: r.Container, NetNS: r.Sandbox, IfName: r.Interface, CapabilityArgs: r.Wishes.capabilities()}
	if !sandbox.Exists(r.Sandbox) {
		rt.NetNS = ""
	}
	return rt
}

// add runs the plugins' ADD.
func (d *Driver) add(ctx context.Context, c conf, r *record, e netdriver.Endpoint) (facts, error) {
	lock := d.named(c.list.Name)
	lock.RLock()
	defer lock.RUnlock()
	if err := errors.Join(d.keep(r), d.step("cni-kept")); err != nil {
		return facts{}, err
	}
	ctx, done := bound(ctx, d.addLimit)
	defer done()
	result, err := d.client(c).AddNetworkList(ctx, c.list, r.runtimeConf())
	if err != nil {
		return facts{}, told(r.Name, err)
	}
	if r.Result, err = json.Marshal(result); err != nil {
		return facts{}, err
	}
	if err := d.step("cni-added"); err != nil {
		return facts{}, err
	}
	f, err := r.facts()
	if err == nil {
		err = r.honoured(f)
	}
	if err == nil && len(e.Gateways()) > 0 {
		err = r.lead(f, e)
	}
	if err == nil {
		err = d.keep(r)
	}
	return f, err
}

// rejoin is Join where the plugins have added the endpoint before.
func (d *Driver) rejoin(r *record, n netdriver.Network, e netdriver.Endpoint) (facts, error) {
	f, err := r.facts()
	if err != nil {
		return f, err
	}
	if !slices.Equal(r.Wishes.Ports, portMappings(e.Ports)) {
		return f, fmt.Errorf("network %s: CNI plugins publish ports when a container joins, and not later: stop it first: %w", n.Name, errdefs.ErrNotImplemented)
	}
	return f, r.lead(f, e)
}

// Leave has the plugins take the endpoint back.
func (d *Driver) Leave(ctx context.Context, _ netdriver.Network, e netdriver.Endpoint) error {
	r, err := d.recall(e.ID)
	if err != nil || r == nil {
		return err
	}
	return d.delete(ctx, r)
}

// delete runs the plugins' DEL, with what they were added with; a second time if it fails. After an ADD that was cut short
// the reference plugin bridge removes the interface, fails at rules that were never made, and finds nothing to do then.
func (d *Driver) delete(ctx context.Context, r *record) error {
	c, err := parse(r.Options)
	if err != nil {
		return err
	}
	lock := d.named(c.list.Name)
	lock.RLock()
	defer lock.RUnlock()
	ctx, done := bound(ctx, askTime)
	defer done()
	err = d.client(c).DelNetworkList(ctx, c.list, r.runtimeConf())
	if err != nil && ctx.Err() == nil {
		d.log.Warn("DEL is tried again", "network", r.Name, "endpoint", string(r.Endpoint), "err", err)
		err = d.client(c).DelNetworkList(ctx, c.list, r.runtimeConf())
	}
	if err != nil {
		return told(r.Name, err)
	}
	if err := d.step("cni-deleted"); err != nil {
		return err
	}
	return d.forget(r.Endpoint)
}

// Endpoints are those of a network that plugins have been asked for and have not been told to take back.
func (d *Driver) Endpoints(n netdriver.Network) ([]netdriver.EndpointID, error) {
	all, err := d.records(func(r *record) bool { return r.Network == n.ID })
	var ids []netdriver.EndpointID
	for _, r := range all {
		ids = append(ids, r.Endpoint)
	}
	return ids, err
}

// Verify asks the plugins whether an endpoint is still what they made; nil where the configuration is of a version, or
// says, that they cannot tell.
func (d *Driver) Verify(ctx context.Context, _ netdriver.Network, id netdriver.EndpointID) error {
	r, err := d.recall(id)
	if err != nil || r == nil || len(r.Result) == 0 {
		return err
	}
	c, err := parse(r.Options)
	if err != nil {
		return err
	}
	lock := d.named(c.list.Name)
	lock.RLock()
	defer lock.RUnlock()
	ctx, done := bound(ctx, askTime)
	defer done()
	err = d.client(c).CheckNetworkList(ctx, c.list, r.runtimeConf())
	if err == nil || errors.Is(err, libcni.ErrorCheckNotSupp) {
		return nil
	}
	return told(r.Name, err)
}

// Collect lets the plugins remove what they have for none of the endpoints they were asked for (GC, since CNI 1.1). It is
// the configuration that says, with disableGC, that others use the plugins under the same name.
func (d *Driver) Collect(ctx context.Context, n netdriver.Network) error {
	c, err := parse(n.Options)
	if err != nil {
		return err
	}
	if can, err := version.GreaterThanOrEqualTo(c.list.CNIVersion, "1.1.0"); err != nil || !can {
		return err
	}
	lock := d.named(c.list.Name)
	lock.Lock()
	defer lock.Unlock()
	all, err := d.records(func(r *record) bool {
		o, err := parse(r.Options)
		return err == nil && o.list.Name == c.list.Name
	})
	if err != nil {
		return err
	}
	valid := []types.GCAttachment{}
	for _, r := range all {
		valid = append(valid, types.GCAttachment{ContainerID: r.Container, IfName: r.Interface})
	}
	ctx, done := bound(ctx, askTime)
	defer done()
	if err := d.client(c).GCNetworkList(ctx, c.list, &libcni.GCArgs{ValidAttachments: valid}); err != nil {
		return told(n.Name, err)
	}
	return nil
}

// honoured wants what the user asked for to be what the plugins gave: some leave a wish out in silence.
func (r *record) honoured(f facts) error {
	refused := func(what, asked, got any) error {
		return fmt.Errorf("network %s: its CNI plugins were asked for the %s %v and gave %v: %w", r.Name, what, asked, got, errdefs.ErrInvalidArgument)
	}
	for _, asked := range r.Wishes.IPs {
		a, err := netip.ParseAddr(asked)
		if err != nil {
			return err
		}
		got := f.Address.Addr()
		if a.Is6() {
			got = f.Address6.Addr()
		}
		if got != a {
			return refused("address", a, got)
		}
	}
	if asked := r.Wishes.MAC; asked != "" && f.MAC.String() != asked {
		return refused("MAC address", asked, f.MAC)
	}
	return nil
}

// facts are what the plugins made, as their result and the kernel tell.
type facts struct {
	netdriver.Decided
	mtu int
}

// attachment is Join's answer.
func (f facts) attachment(e netdriver.Endpoint) netdriver.Attachment {
	return netdriver.Attachment{Interface: e.Interface, MTU: f.mtu, Decided: &f.Decided}
}

func (r *record) facts() (f facts, err error) {
	if f.Decided, err = decode(r.Result, r.Interface); err != nil {
		return f, fmt.Errorf("network %s: read the CNI plugins' result: %w", r.Name, err)
	}
	l, err := linkIn(r.Sandbox, r.Interface)
	if errdefs.IsNotFound(err) {
		return f, fmt.Errorf("network %s: its CNI plugins made no interface %s: %w", r.Name, r.Interface, errdefs.ErrInternal)
	}
	if err != nil {
		return f, fmt.Errorf("network %s: %w", r.Name, err)
	}
	f.mtu, f.MAC = l.MTU, l.MAC
	return f, nil
}

// lead makes the sandbox's default routes go through the endpoint, or not. One without a gateway, which only the plugins
// understand, stays as they made it.
func (r *record) lead(made facts, e netdriver.Endpoint) error {
	in, err := nl.At(r.Sandbox)
	if err != nil {
		return err
	}
	defer in.Close()
	l, err := in.Link(r.Interface)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		v6         bool
		asked, own netip.Addr
		all        netip.Prefix
	}{
		{false, e.Gateway, made.Gateway, netip.PrefixFrom(netip.IPv4Unspecified(), 0)},
		{true, e.Gateway6, made.Gateway6, netip.PrefixFrom(netip.IPv6Unspecified(), 0)},
	} {
		dev, via, err := in.DefaultRoute(f.v6)
		if err != nil {
			return err
		}
		switch {
		case f.asked.IsValid() && dev == l.Index && via == f.asked:
		case f.asked.IsValid():
			err = in.SetRoute(l.Index, f.all, f.asked)
		case f.own.IsValid() && dev == l.Index:
			err = in.DeleteRoute(l.Index, f.all)
		}
		if err != nil {
			return fmt.Errorf("network %s: %w", r.Name, err)
		}
	}
	return nil
}

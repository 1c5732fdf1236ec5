// Package overlay is the driver of networks that span hosts: one namespace per network and host with a bridge, br0,
// whose ports are the local containers and one VXLAN device (RFC 7348) that leads to all other hosts.
//
// Nothing is learned from the wire. Which MAC lives behind which host, and which address has which MAC, is stated by
// SetPeers and written as permanent rows, always by replace; what is not stated is removed. The kernel's own dump is
// the only memory of what has been written, so that a restarted daemon, or one that died half-way, simply goes on.
package overlay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/guard"
	"github.com/minictl/minictl/netdriver/nl"
	"github.com/minictl/minictl/netdriver/sandbox"
)

// Config is what New needs.
type Config struct {
	Log      *slog.Logger
	NetnsDir string // where the networks' namespace files live; /run/netns makes them visible to `ip netns`
}

// Driver makes overlay networks. Its methods have to be called from threads in the daemon's own network namespace.
type Driver struct {
	log *slog.Logger
	dir string

	mu       sync.Mutex
	path     netdriver.DataPath
	stated   bool // SetDataPath has been called; before, the tunnels an earlier daemon left are kept as they are
	networks map[netdriver.NetworkID]*network
	tuned    bool // the neighbour tables' limits have been raised
}

// network is what has been wished of one network. What there is of it, only the kernel knows.
type network struct {
	mu        sync.Mutex
	gone      bool // removed: whoever waited for mu has to look it up again
	wish      *netdriver.Network
	endpoints map[netdriver.EndpointID]plugged
	peers     []netdriver.Peer
	known     map[netip.Addr]nl.HardwareAddr // with which MAC containers here may remember an address, unless it follows from it
	stated    bool                           // SetPeers has been called; before, the rows an earlier daemon wrote are kept
}

// plugged is the wish for one local endpoint.
type plugged struct {
	endpoint netdriver.Endpoint
	sandbox  netdriver.Sandbox
}

// The driver honours the contract.
var (
	_ netdriver.Driver     = (*Driver)(nil)
	_ netdriver.PeerSetter = (*Driver)(nil)
	_ netdriver.Sizer      = (*Driver)(nil)
)

// New gives a driver without a data path: containers of one host reach each other, and no one else, until SetDataPath.
// What an earlier driver left in the kernel goes on working meanwhile: its tunnels until SetDataPath, and its rows
// until SetPeers, say otherwise.
func New(c Config) *Driver {
	return &Driver{
		log: c.Log.With("component", "overlay"), dir: c.NetnsDir,
		networks: make(map[netdriver.NetworkID]*network),
	}
}

// Type is overlay.
func (d *Driver) Type() string { return netdriver.TypeOverlay }

// Options are the names of all options the driver knows.
func (d *Driver) Options() []string { return []string{OptionMTU, OptionVNI, guard.Option} }

// Check refuses a network without VNI or subnet and options with bad values.
func (d *Driver) Check(n netdriver.Network) error {
	_, err := parse(n)
	return err
}

// Ensure makes or repairs the network's namespace, bridge, tunnel device and rows.
func (d *Driver) Ensure(ctx context.Context, n netdriver.Network) error {
	if err := d.Check(n); err != nil { // what cannot be is not wished
		return fmt.Errorf("set up network %s: %w", n.Name, err)
	}
	own := d.acquire(n.ID)
	defer own.mu.Unlock()
	own.wish = &n
	if err := d.ensure(ctx, own); err != nil {
		return fmt.Errorf("set up network %s: %w", n.Name, err)
	}
	return nil
}

// Remove removes the network from this host. Devices go first and one by one: somebody may hold the namespace open,
// and a tunnel device that lives on in it would keep the VNI.
func (d *Driver) Remove(_ context.Context, n netdriver.Network) error {
	own := d.acquire(n.ID)
	defer own.mu.Unlock()
	if err := clearOut(d.file(n.ID)); err != nil {
		return fmt.Errorf("remove network %s: %w", n.Name, err)
	}
	own.gone = true
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.networks, n.ID)
	return nil
}

// Join plugs the endpoint into the network, which it sets up if need be. The rows for other hosts' endpoints are in
// place when it returns.
func (d *Driver) Join(ctx context.Context, n netdriver.Network, e netdriver.Endpoint, s netdriver.Sandbox) (netdriver.Attachment, error) {
	if err := d.Check(n); err != nil {
		return netdriver.Attachment{}, fmt.Errorf("join network %s: %w", n.Name, err)
	}
	own := d.acquire(n.ID)
	defer own.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return netdriver.Attachment{}, fmt.Errorf("join network %s: %w", n.Name, err)
	}
	own.wish = &n
	present := sandbox.Exists(d.file(n.ID))
	own.endpoints[e.ID] = plugged{endpoint: e, sandbox: s}
	mtu, err := d.join(ctx, own, e.ID)
	if err != nil {
		delete(own.endpoints, e.ID)
		if !present { // the namespace was made for this endpoint
			err = errors.Join(err, clearOut(d.file(n.ID)))
		}
		return netdriver.Attachment{}, fmt.Errorf("join network %s: %w", n.Name, err)
	}
	return netdriver.Attachment{Interface: e.Interface, MTU: mtu}, nil
}

// join plugs one endpoint of own in and tells the network's MTU.
func (d *Driver) join(ctx context.Context, own *network, id netdriver.EndpointID) (mtu int, err error) {
	w, err := d.want(own)
	if err != nil {
		return 0, err
	}
	c, err := d.open(ctx, &w)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	// Rows first: while vxlan0 has a row for the address it would answer for it as well, and br0 would take the answer
	// for a sign of where the address is.
	err = d.writeRows(ctx, c, own)
	if err == nil {
		err = d.plug(ctx, c, w, own.endpoints[id])
	}
	if err == nil {
		if e := own.endpoints[id].endpoint; len(e.MAC) > 0 { // Attach has announced it
			mac, _ := nl.MAC(e.MAC)
			for _, a := range e.Addresses() {
				own.note(a.Addr(), mac)
			}
		}
		return w.mtu, nil
	}
	delete(own.endpoints, id)
	return 0, errors.Join(err, sandbox.Detach(c, id), d.writeRows(context.WithoutCancel(ctx), c, own))
}

// Leave unplugs the endpoint. A remote one may have its address by now; its rows then take the local one's place.
func (d *Driver) Leave(ctx context.Context, n netdriver.Network, e netdriver.Endpoint) error {
	own := d.acquire(n.ID)
	defer own.mu.Unlock()
	delete(own.endpoints, e.ID)
	c, err := nl.At(d.file(n.ID))
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err == nil {
		defer c.Close()
		err = errors.Join(sandbox.Detach(c, e.ID), d.writeRows(ctx, c, own))
	}
	if err != nil {
		return fmt.Errorf("leave network %s: %w", n.Name, err)
	}
	return nil
}

// SetPeers states the network's endpoints on other hosts. While the network is not present here the list is kept for
// the Join that makes it present.
func (d *Driver) SetPeers(ctx context.Context, id netdriver.NetworkID, peers []netdriver.Peer) error {
	if len(peers) == 0 && !d.known(id) && !sandbox.Exists(d.file(id)) {
		return nil // nothing to keep and nothing to remove
	}
	own := d.acquire(id)
	defer own.mu.Unlock()
	own.peers, own.stated = slices.Clone(peers), true
	c, err := nl.At(d.file(id))
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("set peers: %w", err)
	}
	defer c.Close()
	if err := d.writeRows(ctx, c, own); err != nil {
		return fmt.Errorf("set peers: %w", err)
	}
	return nil
}

// SetDataPath states this host's end of the tunnels. When it changes, the tunnel device of every network that is
// present here and has been Ensured or Joined is made anew, with all its rows, and the endpoints get the new MTU. All
// networks are tried; the errors come back together.
func (d *Driver) SetDataPath(ctx context.Context, p netdriver.DataPath) error {
	d.mu.Lock()
	d.path, d.stated = p, true
	ids := make([]netdriver.NetworkID, 0, len(d.networks))
	for id := range d.networks {
		ids = append(ids, id)
	}
	d.mu.Unlock()
	slices.Sort(ids)
	var errs []error
	for _, id := range ids {
		if err := d.refresh(ctx, id); err != nil {
			errs = append(errs, fmt.Errorf("set data path: %w", err))
		}
	}
	return errors.Join(errs...)
}

// MTU is what fits into the tunnels, or less if less was asked for.
func (d *Driver) MTU(n netdriver.Network) (int, error) {
	o, err := parse(n)
	path, _ := d.dataPath()
	return fit(o.mtu, path), err
}

// refresh sets a present network up again.
func (d *Driver) refresh(ctx context.Context, id netdriver.NetworkID) error {
	own := d.acquire(id)
	defer own.mu.Unlock()
	if own.wish == nil || !sandbox.Exists(d.file(id)) {
		return nil
	}
	if err := d.ensure(ctx, own); err != nil {
		return fmt.Errorf("network %s: %w", own.wish.Name, err)
	}
	return nil
}

// acquire gives the network's locked record, a new one if need be.
func (d *Driver) acquire(id netdriver.NetworkID) *network {
	for {
		d.mu.Lock()
		own := d.networks[id]
		if own == nil {
			own = &network{endpoints: make(map[netdriver.EndpointID]plugged), known: make(map[netip.Addr]nl.HardwareAddr)}
			d.networks[id] = own
		}
		d.mu.Unlock()
		own.mu.Lock()
		if !own.gone {
			return own
		}
		own.mu.Unlock()
	}
}

// known tells whether anything has been wished of the network.
func (d *Driver) known(id netdriver.NetworkID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.networks[id] != nil
}

// dataPath gives the data path, and whether one, be it none, has been stated.
func (d *Driver) dataPath() (path netdriver.DataPath, stated bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.path, d.stated
}

// The name of a network's namespace file: docker's, whose leading number counts the times a host joined a swarm.
const (
	filePrefix = "1-"
	fileDigits = 10 // of the network's ID
)

// file is the path of the network's namespace, the same name on every host.
func (d *Driver) file(id netdriver.NetworkID) string {
	return filepath.Join(d.dir, filePrefix+string(id[:min(fileDigits, len(id))]))
}

package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/nl"
	"github.com/minictl/minictl/netdriver/sandbox"
)

// farewell is how long a plugin may take to hear that something ends: whoever waits for it wants to be rid of it.
const farewell = 4 * time.Second

// Driver makes the networks of one plugin, in the namespace its methods are called in.
type Driver struct {
	plugin    *plugin
	log       *slog.Logger
	sandboxes string
	patience  time.Duration

	mu sync.Mutex // one change at a time
	// told is what the plugin has been told of and not to forget: networks, and their endpoints.
	told map[netdriver.NetworkID]map[netdriver.EndpointID]bool

	nodesMu sync.Mutex
	nodes   map[Node]bool // told to the plugin at nodesOf
	nodesOf *peer
}

// Node is a member of the cluster, as plugins that connect hosts are told of it.
type Node struct {
	Addr netip.Addr
	Self bool
}

// The driver honours the contract.
var (
	_ netdriver.Driver  = (*Driver)(nil)
	_ netdriver.Decider = (*Driver)(nil)
)

func newDriver(c Config, p *plugin) *Driver {
	return &Driver{plugin: p, log: p.log, sandboxes: c.Sandboxes, patience: c.Patience, told: map[netdriver.NetworkID]map[netdriver.EndpointID]bool{}}
}

// Type is the plugin's name.
func (d *Driver) Type() string { return d.plugin.name }

// Decides says that the plugin does.
func (d *Driver) Decides() {}

// Check has nothing to refuse: the options are the plugin's.
func (d *Driver) Check(netdriver.Network) error { return nil }

// Capabilities are what the plugin says of itself. The plugin is looked for, and greeted if it is new.
func (d *Driver) Capabilities(ctx context.Context) (Capabilities, error) {
	to, err := d.plugin.hello(ctx, networkDriver)
	if err != nil {
		return Capabilities{}, err
	}
	return to.network, nil
}

// Adopt says that the plugin was told of a network, and of endpoints of it, before this Driver was there.
func (d *Driver) Adopt(id netdriver.NetworkID, endpoints ...netdriver.EndpointID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.told[id] == nil {
		d.told[id] = map[netdriver.EndpointID]bool{}
	}
	for _, e := range endpoints {
		d.told[id][e] = true
	}
}

// SkipGateway asks whether a network to be made goes without a gateway address.
func (d *Driver) SkipGateway(ctx context.Context, n netdriver.Network, v4, v6 bool) (skip4, skip6 bool, err error) {
	caps, err := d.Capabilities(ctx)
	if err != nil || !caps.GwAllocChecker {
		return false, false, err
	}
	var answer struct{ SkipIPv4, SkipIPv6 bool }
	in := struct{ Options map[string]any }{networkOptions(n, v4, v6)}
	err = d.call(ctx, d.patience, "GwAllocCheck", in, &answer)
	return answer.SkipIPv4, answer.SkipIPv6, err
}

// Allocate lets the plugin decide about a network of all hosts, once for all of them; it gives the options that each
// host's Ensure has to have. Free ends it.
func (d *Driver) Allocate(ctx context.Context, n netdriver.Network) (map[string]string, error) {
	v4, v6 := pools(n, true)
	var answer struct{ Options map[string]string }
	options := n.Options
	if options == nil {
		options = map[string]string{}
	}
	err := d.call(ctx, d.patience, "AllocateNetwork", allocateNetwork{string(n.ID), options, v4, v6}, &answer)
	if missingMethod(err) {
		return nil, nil
	}
	return answer.Options, err
}

// Free ends what Allocate began.
func (d *Driver) Free(ctx context.Context, id netdriver.NetworkID) error {
	err := d.call(ctx, d.patience, "FreeNetwork", networkRef{string(id)}, nil)
	if missingMethod(err) {
		return nil
	}
	return err
}

func (d *Driver) call(ctx context.Context, limit time.Duration, method string, in, out any) error {
	return d.plugin.call(ctx, limit, networkDriver, method, in, out)
}

// Ensure tells the plugin of the network, unless it has been told.
func (d *Driver) Ensure(ctx context.Context, n netdriver.Network) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ensure(ctx, n)
}

func (d *Driver) ensure(ctx context.Context, n netdriver.Network) error {
	if d.told[n.ID] != nil {
		return nil
	}
	v4, v6 := pools(n, n.Global)
	in := createNetwork{string(n.ID), networkOptions(n, len(v4) > 0, len(v6) > 0), v4, v6}
	if err := d.call(ctx, d.patience, "CreateNetwork", in, nil); err != nil {
		return err
	}
	d.told[n.ID] = map[netdriver.EndpointID]bool{}
	return nil
}

// Remove tells the plugin that the network ends. What it complains of is logged: it has heard. ErrUnavailable or
// ErrNotFound if it could not be told, ErrFailedPrecondition if it has still to be told of the end of endpoints.
func (d *Driver) Remove(ctx context.Context, n netdriver.Network) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.told[n.ID] == nil {
		return nil
	}
	if left := len(d.told[n.ID]); left > 0 {
		return fmt.Errorf("plugin %s still has %d endpoints of network %s: %w", d.plugin.name, left, n.Name, errdefs.ErrFailedPrecondition)
	}
	if err := d.tell(ctx, "DeleteNetwork", networkRef{string(n.ID)}); err != nil {
		return err
	}
	delete(d.told, n.ID)
	return nil
}

// tell is call for what ends.
func (d *Driver) tell(ctx context.Context, method string, in any) error {
	err := d.call(ctx, min(farewell, d.patience), method, in, nil)
	if refused(err) {
		d.log.Warn("the plugin complains of an end", "method", method, "err", err)
		return nil
	}
	return err
}

// Join has the plugin make the endpoint's interface and moves it into the sandbox, or brings the one that is there into
// its state.
func (d *Driver) Join(ctx context.Context, n netdriver.Network, e netdriver.Endpoint, s netdriver.Sandbox) (netdriver.Attachment, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at, err := d.join(ctx, n, e, s)
	if err != nil {
		return at, fmt.Errorf("join network %s: %w", n.Name, err)
	}
	return at, nil
}

func (d *Driver) join(ctx context.Context, n netdriver.Network, e netdriver.Endpoint, s netdriver.Sandbox) (at netdriver.Attachment, err error) {
	if err := ctx.Err(); err != nil {
		return at, err
	}
	have, err := sandbox.Borrowed(s.Path, e.ID)
	switch {
	case err == nil:
		d.told[n.ID] = withEndpoint(d.told[n.ID], e.ID)
		return d.again(ctx, n, e, s, have)
	case !errdefs.IsNotFound(err) || !sandbox.Exists(s.Path):
		return at, err
	}
	if d.told[n.ID][e.ID] && e.Interface == "" { // the plugin gave it none
		return at, nil
	}
	if d.told[n.ID][e.ID] { // in another sandbox, or its interface is gone
		if err := d.leave(ctx, n, e); err != nil {
			return at, err
		}
	}
	if err := d.nameFree(e, s); err != nil {
		return at, err
	}
	if err := d.ensure(ctx, n); err != nil {
		return at, err
	}
	defer func() {
		if err == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*farewell)
		defer cancel()
		if uerr := d.leave(ctx, n, e); uerr != nil {
			err = fmt.Errorf("%w; and it could not be told to forget the endpoint: %w", err, uerr)
		}
	}()
	dec, err := d.create(ctx, n, &e)
	if err != nil {
		return at, err
	}
	in := join{endpointRef{string(n.ID), string(e.ID)}, s.Path, endpointOptions(e)}
	var answer joined
	if err := d.call(ctx, d.patience, "Join", in, &answer); err != nil {
		return at, err
	}
	if err := dec.takeJoin(answer); err != nil {
		return at, invalidAnswer(d.plugin.name, networkDriver, "Join", err)
	}
	e.Routes = dec.routes
	at.Decided = &netdriver.Decided{
		Address: e.Address, Address6: e.Address6, MAC: e.MAC, Gateway: dec.gateway, Gateway6: dec.gateway6, Routes: dec.routes, NoGateway: dec.noGateway,
	}
	if dec.link == "" {
		return at, d.external(ctx, n, e, false)
	}
	at.Interface, at.MTU, err = d.take(ctx, &e, s, dec)
	at.Decided.MAC = e.MAC
	if err != nil {
		return at, err
	}
	return at, d.external(ctx, n, e, false)
}

func withEndpoint(m map[netdriver.EndpointID]bool, id netdriver.EndpointID) map[netdriver.EndpointID]bool {
	if m == nil {
		m = map[netdriver.EndpointID]bool{}
	}
	m[id] = true
	return m
}

// nameFree refuses a name that the sandbox has given to another interface, before the plugin is told of anything.
func (d *Driver) nameFree(e netdriver.Endpoint, s netdriver.Sandbox) error {
	in, err := nl.At(s.Path)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = in.Link(e.Interface)
	if err == nil {
		return fmt.Errorf("the sandbox already has an interface %s: %w", e.Interface, errdefs.ErrAlreadyExists)
	}
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// create tells the plugin of the endpoint; what it decides is in e.
func (d *Driver) create(ctx context.Context, n netdriver.Network, e *netdriver.Endpoint) (dec decided, err error) {
	in := createEndpoint{endpointRef: endpointRef{string(n.ID), string(e.ID)}, Options: endpointOptions(*e)}
	if e.Address.IsValid() {
		in.Interface.Address = e.Address.String()
	}
	if e.Address6.IsValid() {
		in.Interface.AddressIPv6 = e.Address6.String()
	}
	if len(e.MAC) > 0 {
		in.Interface.MacAddress = e.MAC.String()
	}
	d.told[n.ID] = withEndpoint(d.told[n.ID], e.ID) // also if it does not answer
	var answer struct{ Interface endpointInterface }
	if err := d.call(ctx, d.patience, "CreateEndpoint", in, &answer); err != nil {
		if refused(err) {
			delete(d.told[n.ID], e.ID)
		}
		return dec, err
	}
	if err := dec.takeInterface(in.Interface, answer.Interface); err != nil {
		return dec, invalidAnswer(d.plugin.name, networkDriver, "CreateEndpoint", err)
	}
	if dec.address.IsValid() {
		e.Address = dec.address
	}
	if dec.address6.IsValid() {
		e.Address6 = dec.address6
	}
	if dec.mac != nil {
		e.MAC = dec.mac
	}
	return dec, nil
}

// take moves the plugin's link into the sandbox and furnishes it.
func (d *Driver) take(ctx context.Context, e *netdriver.Endpoint, s netdriver.Sandbox, dec decided) (name string, mtu int, err error) {
	c, err := nl.Here()
	if err != nil {
		return "", 0, err
	}
	defer c.Close()
	l, err := c.Link(dec.link)
	if err != nil {
		return "", 0, invalidAnswer(d.plugin.name, networkDriver, "Join", fmt.Errorf("it names the interface %s, which this host does not have", dec.link))
	}
	if e.Interface, err = nameIn(s, *e, dec); err != nil {
		return "", 0, err
	}
	if len(e.MAC) == 0 {
		e.MAC = l.MAC
	}
	if err := sandbox.Borrow(c, dec.link, *e, s); err != nil {
		return "", 0, err
	}
	plug := sandbox.Plug{Endpoint: *e, Sandbox: s, MTU: l.MTU}
	if err := sandbox.Furnish(ctx, plug); err != nil {
		return "", 0, err
	}
	return e.Interface, l.MTU, sandbox.Announce(ctx, c, plug)
}

// optionIfname is the user's choice of an interface's name, which goes before the plugin's.
const optionIfname = "com.docker.network.endpoint.ifname"

// nameIn gives the interface's name in the sandbox: the user's, the plugin's, the planned one if it begins as the plugin
// wishes, else the lowest free one that does.
func nameIn(s netdriver.Sandbox, e netdriver.Endpoint, dec decided) (string, error) {
	digits := strings.TrimPrefix(e.Interface, dec.prefix)
	planned := digits != e.Interface && digits != "" && strings.Trim(digits, "0123456789") == ""
	switch {
	case e.Options[optionIfname] != "" || dec.name == "" && (dec.prefix == "" || planned):
		return e.Interface, nil
	case dec.name != "":
		return dec.name, nil
	}
	in, err := nl.At(s.Path)
	if err != nil {
		return "", err
	}
	defer in.Close()
	links, err := in.Links()
	if err != nil {
		return "", err
	}
	for i := 0; ; i++ {
		name := fmt.Sprintf("%s%d", dec.prefix, i)
		if !slices.ContainsFunc(links, func(l nl.Link) bool { return l.Name == name }) {
			return name, nil
		}
	}
}

// again brings an interface that is in the sandbox into another state. What the plugin decided comes back with the wish.
func (d *Driver) again(ctx context.Context, n netdriver.Network, e netdriver.Endpoint, s netdriver.Sandbox, have nl.Link) (at netdriver.Attachment, err error) {
	if have.Name != e.Interface {
		return at, fmt.Errorf("the endpoint's interface is %s, not %s: %w", have.Name, e.Interface, errdefs.ErrAlreadyExists)
	}
	led, err := leads(s, have)
	if err != nil {
		return at, err
	}
	if slices.ContainsFunc(e.Routes, func(r netdriver.Route) bool { return r.To.Bits() == 0 }) {
		led = false // the plugin's own route, of which it knows
	}
	if err := sandbox.Furnish(ctx, sandbox.Plug{Endpoint: e, Sandbox: s, MTU: have.MTU}); err != nil {
		return at, err
	}
	return netdriver.Attachment{Interface: have.Name, MTU: have.MTU}, d.external(ctx, n, e, led)
}

// leads tells whether a default route goes through the interface.
func leads(s netdriver.Sandbox, l nl.Link) (bool, error) {
	in, err := nl.At(s.Path)
	if err != nil {
		return false, err
	}
	defer in.Close()
	for _, v6 := range []bool{false, true} {
		if dev, _, err := in.DefaultRoute(v6); err != nil || dev == l.Index {
			return err == nil, err
		}
	}
	return false, nil
}

// external tells the plugin when the sandbox's way out begins, or ceases, to lead through the endpoint.
func (d *Driver) external(ctx context.Context, n netdriver.Network, e netdriver.Endpoint, led bool) error {
	lead := len(e.Gateways()) > 0
	ref := endpointRef{string(n.ID), string(e.ID)}
	var err error
	switch {
	case lead && !led:
		err = d.call(ctx, d.patience, "ProgramExternalConnectivity", external{ref, endpointOptions(e)}, nil)
	case led && !lead:
		err = d.call(ctx, d.patience, "RevokeExternalConnectivity", ref, nil)
	}
	if missingMethod(err) {
		return nil
	}
	return err
}

// Leave takes the endpoint's interface out of the sandbox and tells the plugin to forget the endpoint. The interface goes
// even if the plugin could not be told, which is ErrUnavailable or ErrNotFound: calling Leave again tells it.
func (d *Driver) Leave(ctx context.Context, n netdriver.Network, e netdriver.Endpoint) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.leave(ctx, n, e); err != nil {
		return fmt.Errorf("leave network %s: %w", n.Name, err)
	}
	return nil
}

func (d *Driver) leave(ctx context.Context, n netdriver.Network, e netdriver.Endpoint) error {
	ref := endpointRef{string(n.ID), string(e.ID)}
	known := d.told[n.ID][e.ID]
	var errs []error
	if known && len(e.Gateways()) > 0 {
		errs = append(errs, d.tell(ctx, "RevokeExternalConnectivity", ref))
	}
	if known && errors.Join(errs...) == nil {
		errs = append(errs, d.tell(ctx, "Leave", ref))
	}
	names, err := sandbox.List(d.sandboxes)
	errs = append(errs, err)
	for _, name := range names {
		errs = append(errs, sandbox.Return(filepath.Join(d.sandboxes, name), e.ID))
	}
	if known && errors.Join(errs...) == nil {
		errs = append(errs, d.tell(ctx, "DeleteEndpoint", ref))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	delete(d.told[n.ID], e.ID)
	return nil
}

// Info is what the plugin wants to show of an endpoint, for people.
func (d *Driver) Info(ctx context.Context, n netdriver.NetworkID, e netdriver.EndpointID) (map[string]string, error) {
	var answer struct{ Value map[string]any }
	err := d.call(ctx, min(farewell, d.patience), "EndpointOperInfo", endpointRef{string(n), string(e)}, &answer)
	if missingMethod(err) {
		return nil, nil
	}
	out := map[string]string{}
	for k, v := range answer.Value {
		out[printable(k)] = printable(fmt.Sprint(v))
	}
	return out, err
}

// SetNodes tells a plugin that connects hosts which members came and which went. One that is not there is told when it is;
// what it complains of is logged.
func (d *Driver) SetNodes(ctx context.Context, nodes []Node) error {
	d.nodesMu.Lock()
	defer d.nodesMu.Unlock()
	caps, err := d.Capabilities(ctx)
	if err != nil || caps.ConnectivityScope != ScopeGlobal {
		return err
	}
	d.plugin.mu.Lock()
	now := d.plugin.peer
	d.plugin.mu.Unlock()
	if d.nodesOf != now {
		d.nodesOf, d.nodes = now, map[Node]bool{} // another program, which knows of none
	}
	for _, node := range nodes {
		if d.nodes[node] {
			continue
		}
		if err := d.discover(ctx, "DiscoverNew", node); err != nil {
			return err
		}
		d.nodes[node] = true
	}
	for _, node := range slices.Collect(maps.Keys(d.nodes)) {
		if slices.Contains(nodes, node) {
			continue
		}
		if err := d.discover(ctx, "DiscoverDelete", node); err != nil {
			return err
		}
		delete(d.nodes, node)
	}
	return nil
}

func (d *Driver) discover(ctx context.Context, method string, n Node) error {
	in := discovery{DiscoveryType: nodeDiscovery}
	in.DiscoveryData.Address, in.DiscoveryData.Self = n.Addr.String(), n.Self
	return d.tell(ctx, method, in)
}

package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/ipam"
)

// Scopes of networks, in docker's words for them before swarm.
const (
	scopeLocal  = "local"
	scopeGlobal = "global"
)

// Store keys. networks holds nothing: every creation and removal writes it, so that a transaction conditioned on its
// revision has seen all networks there are. use/<id> is written by every address taken, for the same reason.
const (
	keyNetworks   = "networks"
	keyNetwork    = "network/"
	keyUse        = "use/"
	keyAddress    = "address/"
	firstVNI      = 256
	lastVNI       = 1<<24 - 1
	casAttempts   = 100
	gwICCOption   = "com.docker.network.bridge.enable_icc"
	gwMasqOption  = "com.docker.network.bridge.enable_ip_masquerade"
	gwNameOption  = "com.docker.network.bridge.name"
	defaultOption = "com.docker.network.bridge.default_bridge"
	// defaultBridgeLink is the default bridge's link. It is not docker0, so that both engines can live on one host.
	defaultBridgeLink = "mini0"
)

// Network is a network's record: local ones in this host's state, global ones in the cluster's store.
type Network struct {
	ID          string             `json:"id"`
	Name        string             `json:"name"`
	Created     time.Time          `json:"created"`
	Scope       string             `json:"scope"`
	Driver      string             `json:"driver"`
	EnableIPv6  bool               `json:"enableIPv6,omitempty"`
	DisableIPv4 bool               `json:"disableIPv4,omitempty"`
	Subnets     []netdriver.Subnet `json:"subnets,omitempty"` // of IPv4 first
	VNI         uint32             `json:"vni,omitempty"`
	Internal    bool               `json:"internal,omitempty"`
	Attachable  bool               `json:"attachable,omitempty"`
	Options     map[string]string  `json:"options,omitempty"`
	Labels      map[string]string  `json:"labels,omitempty"`
	IPAMOptions map[string]string  `json:"ipamOptions,omitempty"`
	IPAM        string             `json:"ipam,omitempty"`  // the plugin that manages the addresses; empty: we do
	State       map[string]string  `json:"state,omitempty"` // options that the driver's plugin added for all hosts
	Asked       json.RawMessage    `json:"asked,omitempty"` // of the default bridge: the settings it follows; none: docker's

	rev      store.Revision // of a global network's record
	gateways []netip.Addr   // that the user asked for
}

func (n *Network) global() bool { return n.Scope == scopeGlobal }

func (n *Network) predefined() bool {
	return !n.global() && (n.Name == network.NetworkBridge || n.Name == network.NetworkHost || n.Name == network.NetworkNone)
}

// wish is the network as its driver needs it.
func (n *Network) wish() netdriver.Network {
	options := n.Options
	if len(n.State) > 0 {
		options = maps.Clone(n.Options)
		if options == nil {
			options = map[string]string{}
		}
		maps.Copy(options, n.State)
	}
	return netdriver.Network{
		ID: netdriver.NetworkID(n.ID), Name: n.Name, Driver: n.Driver, Subnets: n.Subnets, Internal: n.Internal, Global: n.global(), VNI: n.VNI, Options: options,
	}
}

// allNetworks are this host's own and the cluster's, by name.
func (e *Engine) allNetworks(ctx context.Context) ([]*Network, error) {
	out, _, err := e.globalNetworks(ctx, false)
	if err != nil {
		return nil, err
	}
	e.mu.RLock()
	for _, n := range e.networks {
		out = append(out, n)
	}
	e.mu.RUnlock()
	slices.SortFunc(out, func(a, b *Network) int { return strings.Compare(a.Name+"\x00"+a.ID, b.Name+"\x00"+b.ID) })
	return out, nil
}

func (e *Engine) globalNetworks(ctx context.Context, fresh bool) ([]*Network, store.Revision, error) {
	pairs, rev, err := e.cl.Store().Range(ctx, keyNetwork, fresh)
	if err != nil {
		return nil, 0, fmt.Errorf("list networks: %w", err)
	}
	out := make([]*Network, 0, len(pairs))
	for _, p := range pairs {
		n := &Network{rev: p.Rev}
		if err := json.Unmarshal(p.Value, n); err != nil {
			return nil, 0, fmt.Errorf("read %s: %w", p.Key, err)
		}
		out = append(out, n)
	}
	return out, rev, nil
}

// findNetwork resolves what a user calls a network: full ID, name, or an unambiguous start of the ID.
func (e *Engine) findNetwork(ctx context.Context, ref string) (n *Network, err error) {
	err = e.withNetworks(ctx, func(all []*Network) (err error) {
		n, err = pickNetwork(all, ref)
		return err
	})
	return n, err
}

func pickNetwork(all []*Network, ref string) (*Network, error) {
	matches := func(fits func(*Network) bool) []*Network {
		var out []*Network
		for _, n := range all {
			if fits(n) {
				out = append(out, n)
			}
		}
		return out
	}
	for _, m := range []struct {
		how  string
		nets []*Network
	}{
		{"ID", matches(func(n *Network) bool { return n.ID == ref })},
		{"name", matches(func(n *Network) bool { return n.Name == ref })},
		{"ID prefix", matches(func(n *Network) bool { return ref != "" && strings.HasPrefix(n.ID, ref) })},
	} {
		switch {
		case len(m.nets) == 1:
			return m.nets[0], nil
		case len(m.nets) > 1:
			return nil, invalid("network %s is ambiguous (%d matches found based on %s)", ref, len(m.nets), m.how)
		}
	}
	return nil, notFound("network %s not found", ref)
}

// NetworkCreate makes a network: a local one on this host, an overlay in the whole cluster.
func (e *Engine) NetworkCreate(ctx context.Context, req network.CreateRequest) (network.CreateResponse, error) {
	n, err := e.newNetwork(ctx, req)
	if err != nil {
		return network.CreateResponse{}, err
	}
	if r, ok := e.driver(n).(resolver); ok {
		if n.Options, err = r.Resolve(ctx, n.Name, n.Options); err != nil {
			return network.CreateResponse{}, err
		}
	}
	switch {
	case n.global():
		err = e.createGlobal(ctx, n)
	case e.plugged(n):
		err = e.createPlugged(ctx, n)
	default:
		err = e.createLocal(ctx, n)
	}
	if err != nil {
		return network.CreateResponse{}, err
	}
	e.networkEvent(n, events.ActionCreate)
	return network.CreateResponse{ID: n.ID, Warning: e.unknownOptions(n)}, nil
}

// resolver is a driver whose options name what stands elsewhere: it gives them with what that says now.
type resolver interface {
	Resolve(ctx context.Context, network string, options map[string]string) (map[string]string, error)
}

// newNetwork checks the request and gives the record without what has still to be chosen.
func (e *Engine) newNetwork(ctx context.Context, req network.CreateRequest) (*Network, error) {
	n := &Network{
		ID: newID(), Name: req.Name, Created: time.Now().UTC(), Scope: scopeLocal, Driver: req.Driver, Internal: req.Internal,
		Attachable: req.Attachable, Options: req.Options, Labels: req.Labels,
	}
	if strings.TrimSpace(n.Name) == "" {
		return nil, invalid("network name cannot be empty")
	}
	if n.Driver == "" || n.Driver == "default" {
		n.Driver = netdriver.TypeBridge
	}
	switch {
	case n.predefined() || n.Name == network.NetworkDefault:
		return nil, forbidden("operation is not permitted on predefined %s network", n.Name)
	case n.Driver == netdriver.TypeHost || n.Driver == netdriver.TypeNull:
		return nil, forbidden("only one instance of \"%s\" network is allowed", n.Driver)
	case n.Driver == "ipvlan":
		return nil, unsupported("minictl has no ipvlan driver: use macvlan, or a bridge network with -o %s=routed", optionMode4)
	case req.ConfigOnly || req.ConfigFrom != nil && req.ConfigFrom.Network != "":
		return nil, unsupported("minictl does not support --config-only and --config-from; give the network its options itself")
	case req.Ingress:
		return nil, unsupported("minictl does not support --ingress: it publishes ports on the host that runs the container")
	}
	e.defaultOptions(n)
	var err error
	if n.Scope, err = e.findDriver(ctx, n); err != nil {
		return nil, err
	}
	if n.global() {
		n.Attachable = true // any container may join; there are no services to keep it for
	}
	if err := n.checkScope(req.Scope); err != nil {
		return nil, err
	}
	if err := n.setIPAM(req); err != nil {
		return nil, err
	}
	return n, e.findManager(ctx, n)
}

// checkScope refuses another scope than the driver's; swarm is docker's present word for global.
func (n *Network) checkScope(asked string) error {
	if asked == "" || asked == n.Scope || asked == scopeSwarm && n.global() {
		return nil
	}
	return unsupported("minictl does not support --scope %s for networks of the driver %s: leave it out (bridge networks belong to one host, overlay networks to the cluster)", asked, n.Driver)
}

func (e *Engine) createLocal(ctx context.Context, n *Network) error {
	e.netMu.Lock()
	defer e.netMu.Unlock()
	all, err := e.allNetworks(ctx)
	if err != nil {
		return err
	}
	all = e.withMaking(all)
	if err := nameFree(all, n.Name); err != nil {
		return err
	}
	if err := e.choosePool(n, all, e.localBlocks(), e.localULA()); err != nil {
		return err
	}
	d := e.driver(n)
	if err := d.Check(n.wish()); err != nil {
		return err
	}
	if err := errors.Join(step("network-ensure"), d.Ensure(ctx, n.wish())); err != nil {
		return errors.Join(fmt.Errorf("create network %s: %w", n.Name, err), d.Remove(context.WithoutCancel(ctx), n.wish()))
	}
	if err := errors.Join(step("network-keep"), e.keepNetwork(n)); err != nil {
		return errors.Join(err, d.Remove(context.WithoutCancel(ctx), n.wish()))
	}
	return nil
}

func (e *Engine) keepNetwork(n *Network) error {
	if err := e.state.add("networks", n.ID, n); err != nil {
		return fmt.Errorf("keep network %s: %w", n.Name, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.networks[n.ID] = n
	return nil
}

func nameFree(all []*Network, name string) error {
	for _, o := range all {
		if o.Name == name {
			return conflict("network with name %s already exists", name)
		}
	}
	return nil
}

// createGlobal decides name, VNI and subnet in one transaction, and returns when every live host knows the network.
func (e *Engine) createGlobal(ctx context.Context, n *Network) (err error) {
	var u undo // of what plugins have decided
	defer func() {
		if err != nil {
			u.run(ctx)
		}
	}()
	if n.IPAM != "" {
		skip4, skip6, err := e.skipGateway(ctx, n)
		if err == nil {
			err = e.requestPools(ctx, n, skip4, skip6, &u)
		}
		if err != nil {
			return fmt.Errorf("create network %s: %w", n.Name, err)
		}
	}
	asked, chosen := slices.Clone(n.Subnets), u.steps
	ctx, cancel := e.cl.Deciding(ctx, patient)
	defer cancel()
	for range casAttempts {
		n.Subnets = slices.Clone(asked)
		cond, err := e.generation(ctx)
		if err != nil {
			return e.undecided("create network "+n.Name, err)
		}
		others, _, err := e.globalNetworks(ctx, true)
		if err != nil {
			return e.undecided("create network "+n.Name, err)
		}
		if err := e.fillGlobal(ctx, n, others); err != nil {
			return err
		}
		if err := e.allocateGlobal(ctx, n, &u); err != nil {
			return err
		}
		ops, err := e.foundation(n)
		if err != nil {
			return err
		}
		if err := step("network-decide"); err != nil {
			return err
		}
		_, err = e.cl.Store().Txn(ctx, store.Txn{If: []store.Cond{cond}, Then: ops})
		reach("network-decided")
		if errdefs.IsConflict(err) { // somebody else made or removed one meanwhile: choose again
			again := undo{u.steps[len(chosen):]}
			again.run(ctx)
			u.steps = chosen
			continue
		}
		if err != nil {
			return e.undecided("create network "+n.Name, err)
		}
		return e.synced(ctx)
	}
	return unavailable("create network %s: the cluster's networks keep changing; try again", n.Name)
}

// foundation is what the transaction that makes a network writes: its record, and every host's reserve.
func (e *Engine) foundation(n *Network) ([]store.Op, error) {
	value, err := json.Marshal(n)
	if err != nil {
		return nil, err
	}
	ops := []store.Op{{Key: keyNetwork + n.ID, Value: value}, {Key: keyNetworks, Value: []byte(n.ID)}}
	for a, l := range e.setAside(n) {
		b, err := json.Marshal(l)
		if err != nil {
			return nil, err
		}
		ops = append(ops, store.Op{Key: addressKey(n.ID, a), Value: b})
	}
	return ops, nil
}

func (e *Engine) fillGlobal(ctx context.Context, n *Network, others []*Network) error {
	e.mu.RLock()
	local := slices.Collect(maps.Values(e.networks))
	e.mu.RUnlock()
	if err := nameFree(append(local, others...), n.Name); err != nil {
		return err
	}
	side := e.side() // another one may have made networks that nobody here knows
	blocks, ula, err := e.overlayBlocks(ctx)
	if err != nil {
		return e.undecided("create network "+n.Name, err)
	}
	if side != "" {
		blocks, ula = ipam.BlocksApart(blocks, side), ipam.BlocksApart(ula, side)
	}
	if n.Driver == netdriver.TypeOverlay {
		if n.VNI, err = e.chooseVNI(n, others, side); err != nil {
			return err
		}
	}
	if n.IPAM == "" {
		if err := e.choosePool(n, append(others, local...), blocks, ula); err != nil {
			return err
		}
	}
	return e.driver(n).Check(n.wish())
}

// chooseVNI is the VXLAN identifier asked for, if no other network has it, or a free one.
func (e *Engine) chooseVNI(n *Network, others []*Network, side string) (uint32, error) {
	asked, err := e.cfg.Overlay.AskedVNI(n.wish())
	if err != nil {
		return 0, err
	}
	used := map[uint32]bool{}
	for _, o := range others {
		if o.VNI == asked && asked != 0 {
			return 0, conflict("create network: network %s has the VXLAN identifier %d; choose another one", o.Name, asked)
		}
		used[o.VNI] = true
	}
	if asked != 0 {
		return asked, nil
	}
	vni := freeVNI(used, side)
	if vni == 0 {
		return 0, &classed{"create network: every VXLAN identifier is in use", errdefs.ErrResourceExhausted}
	}
	return vni, nil
}

// freeVNI is the lowest identifier that is not used, or, apart from another side, one of the upper half, if it has one: the next
// behind a place that follows from this side's name. 0 if there is none.
func freeVNI(used map[uint32]bool, side string) uint32 {
	const half = (lastVNI - firstVNI + 1) / 2
	if side != "" {
		h := fnv.New32a()
		h.Write([]byte(side))
		for i := range uint32(half) {
			if vni := lastVNI - half + 1 + (h.Sum32()%half+i)%half; !used[vni] {
				return vni
			}
		}
	}
	for vni := uint32(firstVNI); vni <= lastVNI; vni++ {
		if !used[vni] {
			return vni
		}
	}
	return 0
}

// generation is the condition that no network has been made or removed since now.
func (e *Engine) generation(ctx context.Context) (store.Cond, error) {
	pairs, _, err := e.cl.Store().Range(ctx, keyNetworks, true)
	if err != nil {
		return store.Cond{}, err
	}
	for _, p := range pairs {
		if p.Key == keyNetworks {
			return store.Cond{Key: keyNetworks, Rev: p.Rev}, nil
		}
	}
	return store.Cond{Key: keyNetworks}, nil
}

// synced waits until the live hosts have what was just decided. One that lags gets it later: it is not an error.
func (e *Engine) synced(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if err := e.cl.Synced(ctx); err != nil {
		e.log.Warn("some hosts have not seen the change yet", "err", err)
	}
	return nil
}

// NetworkRemove removes a network that no container uses.
func (e *Engine) NetworkRemove(ctx context.Context, ref string) error {
	n, err := e.findNetwork(ctx, ref)
	if u := (*unheard)(nil); errors.As(err, &u) {
		return u.undecided // whoever removes is content with what is not there
	}
	if err != nil {
		return err
	}
	if n.predefined() {
		return forbidden("%s is a pre-defined network and cannot be removed", n.Name)
	}
	switch {
	case n.global():
		err = e.removeGlobal(ctx, n)
	case e.plugged(n):
		err = e.removePlugged(ctx, n)
	default:
		err = e.removeLocal(ctx, n)
	}
	if err != nil {
		return err
	}
	e.networkEvent(n, events.ActionDestroy)
	return nil
}

// short is how much of an identity people are shown.
func short(id string) string { return id[:min(12, len(id))] }

// halfWay is an endpoint that no container has yet, or has no more.
const halfWay = "of a container that starts or stops just now"

func activeEndpoints(n *Network, holders []string) error {
	return forbidden("error while removing network: network %s has active endpoints (%s)", n.Name, strings.Join(holders, ", "))
}

func (e *Engine) removeLocal(ctx context.Context, n *Network) error {
	e.netMu.Lock()
	defer e.netMu.Unlock()
	if err := e.unused(n); err != nil {
		return err
	}
	if n.foreign() && len(e.attached[n.ID]) > 0 {
		return activeEndpoints(n, []string{halfWay})
	}
	if err := errors.Join(step("network-unmake"), e.driver(n).Remove(ctx, n.wish())); err != nil {
		return fmt.Errorf("remove network %s: %w", n.Name, err)
	}
	reach("network-unmade")
	return e.forgetNetwork(n)
}

// unused refuses a local network that containers have endpoints on.
func (e *Engine) unused(n *Network) error {
	var holders []string
	for _, use := range e.localUses(n.ID) {
		holders = append(holders, fmt.Sprintf("name:%q id:%q", use.name, short(use.endpoint.ID)))
	}
	if len(holders) > 0 {
		return activeEndpoints(n, holders)
	}
	return nil
}

// forgetNetwork takes a local network off the state.
func (e *Engine) forgetNetwork(n *Network) error {
	if err := e.state.delete("networks", n.ID); err != nil {
		return fmt.Errorf("remove network %s: %w", n.Name, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.networks, n.ID)
	delete(e.leases, n.ID) // what is left is kept for containers that do not run
	return nil
}

func (e *Engine) removeGlobal(ctx context.Context, n *Network) error {
	ctx, cancel := e.cl.Deciding(ctx, patient)
	defer cancel()
	for range casAttempts {
		record, there, err := store.Get(ctx, e.cl.Store(), keyNetwork+n.ID, true)
		if err != nil {
			return e.undecided("remove network "+n.Name, err)
		}
		if !there { // this host had not heard of that yet
			return notFound("network %s not found", n.Name)
		}
		use, _, err := store.Get(ctx, e.cl.Store(), keyUse+n.ID, true)
		if err != nil {
			return e.undecided("remove network "+n.Name, err)
		}
		held, err := e.addresses(ctx, n.ID)
		if err != nil {
			return e.undecided("remove network "+n.Name, err)
		}
		var holders []string
		ops := []store.Op{{Key: keyNetwork + n.ID, Delete: true}, {Key: keyUse + n.ID, Delete: true}, {Key: keyNetworks, Value: []byte(n.ID)}}
		for a, l := range held {
			if l.Endpoint == "" { // kept for a container that does not run: no reason to keep the network
				ops = append(ops, store.Op{Key: addressKey(n.ID, a), Delete: true})
				continue
			}
			holders = append(holders, fmt.Sprintf("name:%q id:%q", e.holderName(n.ID, l), short(l.Endpoint)))
		}
		if len(holders) > 0 {
			slices.Sort(holders)
			return activeEndpoints(n, holders)
		}
		if err := step("network-remove"); err != nil {
			return err
		}
		_, err = e.cl.Store().Txn(ctx, store.Txn{
			If: []store.Cond{{Key: keyNetwork + n.ID, Rev: record.Rev}, {Key: keyUse + n.ID, Rev: use.Rev}}, Then: ops,
		})
		reach("network-removed")
		if errdefs.IsConflict(err) {
			continue // a container has taken an address meanwhile, or the network is gone: look again
		}
		if err != nil {
			return e.undecided("remove network "+n.Name, err)
		}
		e.freeGlobal(ctx, n)
		return e.synced(ctx)
	}
	return unavailable("remove network %s: it keeps being used; try again", n.Name)
}

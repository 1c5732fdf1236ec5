package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/netdriver/ipam"
	"github.com/minictl/minictl/runtime/container"
)

// How often the leases are compared with what this host has: soon again while nobody can decide, after longer and longer
// pauses while a container is in the middle of a step or an address is another's too (after a takeover that may be what a
// host that has yet to come back has given up since), else now and then, whenever networks or members change, and when an
// address could not be given back.
const (
	reconcileSoon  = 500 * time.Millisecond
	reconcileEvery = 30 * time.Second
)

// errBusy says that the leases of some containers were left as they are.
var errBusy = errors.New("some containers are in the middle of a step")

func (e *Engine) wakeReconcile() { wake(e.wake) }

// wake makes a loop look, if it does not do so anyway.
func wake(loop chan<- struct{}) {
	select {
	case loop <- struct{}{}:
	default: // it is awake
	}
}

func (e *Engine) reconcileLoop() {
	networks, err := e.cl.Store().Watch(e.ctx, keyNetwork)
	if err != nil {
		return // the cluster is closed
	}
	next := time.NewTimer(0)
	defer next.Stop()
	pause := reconcileSoon
	for {
		before, due := e.clashes.all(), false
		select {
		case <-next.C:
			due = true
		case <-e.wake:
		case _, open := <-networks:
			if !open {
				networks = nil
			}
		case <-e.ctx.Done():
			return
		}
		err := e.reconcileLeases(e.ctx)
		switch {
		case err != nil && !errors.Is(err, errBusy):
			if e.ctx.Err() == nil {
				e.log.Debug("leases stay as they are for now", "err", err)
			}
			pause = reconcileSoon
			next.Reset(reconcileSoon)
		case err != nil, len(e.clashes.all()) > 0:
			if due {
				pause = min(2*pause, reconcileEvery)
			}
			if err != nil && !due || !slices.Equal(e.clashes.all(), before) {
				pause = reconcileSoon
			}
			next.Reset(pause)
		default:
			pause = reconcileSoon
			next.Reset(reconcileEvery)
		}
	}
}

// reconcileLeases makes the cluster's leases what this host's containers have, and its reserves as large as they should
// be: after a crash, after a time without a leader, after a takeover. It is errBusy when more is to be done later.
func (e *Engine) reconcileLeases(ctx context.Context) error {
	ctx, cancel := e.cl.Deciding(ctx, patient)
	defer cancel()
	epoch := e.cl.Epoch()
	pairs, _, err := e.cl.Store().Range(ctx, keyAddress, true) // a replica may not have caught up yet
	if err != nil {
		return err
	}
	if err := e.keepOwnNetworks(ctx); err != nil {
		return err
	}
	if e.cfg.Witness {
		return e.cl.Settled(ctx, epoch) // it has no addresses
	}
	all, _, err := e.globalNetworks(ctx, true)
	if err != nil {
		return err
	}
	held := map[string]map[netip.Addr]lease{}
	for _, p := range pairs {
		id, a, err := parseAddressKey(p.Key)
		l, lerr := readLease(p)
		if err != nil || lerr != nil {
			continue
		}
		if held[id] == nil {
			held[id] = map[netip.Addr]lease{}
		}
		held[id][a] = l
	}
	var clashes []clash
	uses, busy := e.addressUses(all)
	var full error
	for _, n := range all {
		found, err := e.reconcileNetwork(ctx, n, held[n.ID], uses[n.ID], busy)
		if errdefs.IsResourceExhausted(err) {
			full, err = err, nil
		}
		if err != nil {
			return err
		}
		clashes = append(clashes, found...)
		delete(uses, n.ID)
	}
	for id, gone := range uses {
		for a, l := range gone {
			clashes = append(clashes, clash{networkID: id, leaseClash: leaseClash{addr: a, mine: l}})
		}
	}
	for _, c := range e.clashes.all() {
		if busy[c.mine.Container] { // nothing is known of it at this moment
			clashes = append(clashes, c)
		}
	}
	slices.SortFunc(clashes, func(a, b clash) int { // the same ones are to be the same list the next time
		return cmp.Or(strings.Compare(a.networkID, b.networkID), a.addr.Compare(b.addr))
	})
	e.setClashes(ctx, clashes)
	node := string(e.cl.Self().ID)
	err = e.spares.forget(func(owner, id string) bool {
		return owner == node && slices.ContainsFunc(all, func(n *Network) bool { return n.ID == id })
	})
	switch {
	case err != nil:
		return err
	case full != nil:
		return full
	case len(busy) > 0:
		return errBusy
	case len(e.wake) > 0: // there is more to look at
		return nil
	}
	return e.cl.Settled(ctx, epoch)
}

func (e *Engine) reconcileNetwork(ctx context.Context, n *Network, held, uses map[netip.Addr]lease, busy map[string]bool) ([]clash, error) {
	node := string(e.cl.Self().ID)
	e.adoptReserve(ctx, n.ID, node)
	list, _ := e.spares.list(node, n.ID)
	f := leaseFacts{
		self: node, held: held, uses: uses, spares: list, busy: func(container string) bool { return busy[container] },
		pools: ipam.Pools(n.Subnets), size: func(p ipam.Pool) int {
			if n.IPAM != "" {
				return 0 // they are not ours to set aside
			}
			return p.ReserveSize(len(e.hosts()))
		},
		side: e.side(),
	}
	steps, found := planLeases(f)
	var full error // where there is no room for more there is for less
	for _, s := range steps {
		switch err := e.applyLease(ctx, n, s, f); {
		case errdefs.IsResourceExhausted(err):
			full = err
		case err != nil:
			return nil, err
		}
	}
	var out []clash
	for _, c := range found {
		out = append(out, clash{networkID: n.ID, network: n.Name, leaseClash: c})
	}
	return out, full
}

// applyLease takes one step. One that comes too late is left for the next look.
func (e *Engine) applyLease(ctx context.Context, n *Network, s leaseStep, f leaseFacts) error {
	if s.strike && !e.spares.strike(f.self, n.ID, s.addr, f.spares[s.addr]) {
		return nil
	}
	if !s.only {
		key := addressKey(n.ID, s.addr)
		ops := []store.Op{{Key: key, Delete: true}}
		if s.put != nil {
			value, err := s.put.over(f.held[s.addr])
			if err != nil {
				return err
			}
			ops = []store.Op{{Key: key, Value: value}, {Key: keyUse + n.ID, Value: []byte(s.put.Endpoint)}}
		}
		_, err := e.cl.Store().Txn(ctx, store.Txn{
			If: []store.Cond{{Key: keyNetwork + n.ID, Rev: n.rev}, {Key: key, Rev: f.held[s.addr].rev}}, Then: ops,
		})
		if errdefs.IsConflict(err) {
			e.wakeReconcile()
			return nil
		}
		if err != nil {
			return err
		}
		e.log.Info("brought a lease up to date", "network", n.Name, "address", s.addr, "was", f.held[s.addr].Container, "is", leaseWords(s.put))
	}
	return e.spares.change(f.self, n.ID, func(addrs map[netip.Addr]lease) {
		switch now, listed := addrs[s.addr]; {
		case s.note && (!listed || now == f.spares[s.addr]):
			addrs[s.addr] = lease{}
		case s.settle && (now.Endpoint == f.uses[s.addr].Endpoint || now == f.spares[s.addr] && !now.taken()):
			delete(addrs, s.addr)
		}
	})
}

func leaseWords(l *lease) string {
	switch {
	case l == nil:
		return "free"
	case l.spare():
		return "in reserve"
	}
	return l.Container
}

// addressUses are the addresses on global networks that this host's containers have, or keep for their life. busy are the
// containers in the middle of a step, so that what is said of them here means nothing.
func (e *Engine) addressUses(all []*Network) (uses map[string]map[netip.Addr]lease, busy map[string]bool) {
	uses, busy = map[string]map[netip.Addr]lease{}, map[string]bool{}
	for _, b := range e.all() {
		if !b.op.TryLock() {
			busy[b.id] = true
			continue
		}
		for id, addrs := range e.usesOf(b, all) {
			if uses[id] == nil {
				uses[id] = map[netip.Addr]lease{}
			}
			maps.Copy(uses[id], addrs)
		}
		b.op.Unlock()
	}
	return uses, busy
}

func (e *Engine) usesOf(b *box, all []*Network) map[string]map[netip.Addr]lease {
	out := map[string]map[netip.Addr]lease{}
	spec := b.specCopy()
	set := func(networkID string, a netip.Addr, endpoint string, static bool) {
		if out[networkID] == nil {
			out[networkID] = map[netip.Addr]lease{}
		}
		l := e.leaseFor(b.id, spec.Name, endpoint, static)
		l.Static = l.Static || out[networkID][a].Static
		out[networkID][a] = l
	}
	for key, wish := range spec.Networks {
		n, err := pickNetwork(all, key)
		if err != nil || n.IPAM != "" {
			continue
		}
		for _, a := range staticAddresses(wish) {
			if _, err := n.pool(a); err == nil {
				set(n.ID, a, "", true)
			}
		}
	}
	for _, ep := range b.statusCopy().Endpoints {
		for _, p := range ep.Addresses() {
			if ep.OnCluster() {
				set(ep.NetworkID, p.Addr(), ep.ID, false)
			}
		}
	}
	return out
}

// clash is an address that a container of this host has and that is not its own in the cluster: its network is gone
// (network is empty), or somebody else was given it after a takeover. The container goes on, but no other host hears of
// it there.
type clash struct {
	networkID, network string
	leaseClash
}

type clashes struct {
	mu   sync.Mutex
	list []clash
}

func (c *clashes) has(endpoint string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.list, func(x clash) bool { return x.mine.Endpoint == endpoint && endpoint != "" })
}

func (c *clashes) all() []clash {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.list)
}

// setClashes withdraws the records of what clashes now and publishes those of what does no more.
func (e *Engine) setClashes(ctx context.Context, now []clash) {
	before := e.clashes.all()
	has := func(list []clash, endpoint string) bool {
		return slices.ContainsFunc(list, func(x clash) bool { return x.mine.Endpoint == endpoint })
	}
	e.clashes.mu.Lock()
	e.clashes.list = now
	e.clashes.mu.Unlock()
	var withdraw []string
	for _, c := range now {
		if c.mine.Endpoint != "" && !has(before, c.mine.Endpoint) {
			e.log.Error("an address is not this container's any more", "container", c.mine.Name, "network", c.networkID, "address", c.addr, "holder", c.other.Name)
			withdraw = append(withdraw, c.mine.Endpoint)
		}
	}
	e.publish(ctx, nil, withdraw)
	for _, c := range before {
		if c.mine.Endpoint == "" || has(now, c.mine.Endpoint) {
			continue
		}
		if !e.publishAgain(ctx, c.mine.Container) {
			e.clashes.mu.Lock()
			e.clashes.list = append(e.clashes.list, c)
			e.clashes.mu.Unlock()
			e.wakeReconcile()
		}
	}
}

// publishAgain tells the others of a container that has come out of a clash; false: it is in the middle of a step, which may
// be the one that ends what there would be to tell.
func (e *Engine) publishAgain(ctx context.Context, id string) bool {
	b, err := e.find(id)
	if err != nil {
		return true // removed
	}
	if !b.op.TryLock() {
		return false
	}
	defer b.op.Unlock()
	if err := e.republish(ctx, b); err != nil {
		e.log.Warn("publish a container again", "container", b.id, "err", err)
	}
	return true
}

// still gives the container's endpoint if it has that yet: it may have been restarted since.
func (e *Engine) still(c clash) (container.Endpoint, bool) {
	e.mu.RLock()
	b := e.boxes[c.mine.Container]
	e.mu.RUnlock()
	if b == nil {
		return container.Endpoint{}, false
	}
	all := b.statusCopy().Endpoints
	i := slices.IndexFunc(all, func(ep container.Endpoint) bool { return ep.ID == c.mine.Endpoint })
	if i < 0 {
		return container.Endpoint{}, false
	}
	return all[i], true
}

// clashWords say what a user can do about each.
func (e *Engine) clashWords() []string {
	var out []string
	for _, c := range e.clashes.all() {
		ep, still := e.still(c)
		switch {
		case !still:
		case c.network == "":
			out = append(out, e.goneNetworkWords(c.mine.Name, ep))
		default:
			out = append(out, fmt.Sprintf("%s has the address %s on %s, which belongs to %s on %s: minictl restart %s gives it another.",
				c.mine.Name, c.addr, c.network, e.holderName(c.networkID, c.other), e.nodeName(c.other.Node), c.mine.Name))
		}
	}
	slices.Sort(out)
	return out
}

// goneNetworkWords say what to do with a container whose network was removed while this host was apart from the others, or was
// made then and clashed with theirs. A restart looks its network up again, by what the user called it.
func (e *Engine) goneNetworkWords(container string, ep container.Endpoint) string {
	out := fmt.Sprintf("%s is on a network, %s, that the cluster does not have: it was removed, or made, while this host was apart from the others.",
		container, cmp.Or(ep.NetworkName, ep.NetworkID))
	all, err := e.allNetworks(e.ctx)
	if err != nil {
		return out
	}
	switch n, err := pickNetwork(all, ep.Key); {
	case err == nil:
		return fmt.Sprintf("%s There is another one named %s now: minictl restart %s takes it there.", out, n.Name, container)
	case ep.Key != "" && ep.Key == ep.NetworkName:
		return fmt.Sprintf("%s Make one of that name and then minictl restart %s, or remove it.", out, container)
	}
	return fmt.Sprintf("%s Remove it, or run it anew on another.", out)
}

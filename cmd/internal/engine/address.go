package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/netdriver/ipam"
	"github.com/minictl/minictl/runtime/container"
)

// lease is what stands under address/<network>/<ip>: who has the address. The key's existence is the lease; the free
// set is whatever has no key.
type lease struct {
	Node      string `json:"node"`
	Endpoint  string `json:"endpoint"`  // empty: kept for the container, which does not use it now
	Container string `json:"container"` // empty too: set aside for the node, see spares
	Name      string `json:"name"`
	Static    bool   `json:"static,omitempty"` // asked for by the user: the container's as long as there is the container

	rev store.Revision // of the key
	mac string         // of the endpoint, for an address manager that wants to know it
	was string         // its value, as it was read
}

func readLease(p store.Pair) (lease, error) {
	l := lease{rev: p.Rev, was: string(p.Value)}
	if err := json.Unmarshal(p.Value, &l); err != nil {
		return l, fmt.Errorf("read %s: %w", p.Key, err)
	}
	return l, nil
}

// over encodes what replaces a lease. As long as it is the same holder's, what a newer release has noted there stays.
func (l lease) over(old lease) ([]byte, error) {
	if old.Node != l.Node || old.Container != l.Container {
		old.was = ""
	}
	return store.Carry([]byte(old.was), l)
}

// spare tells whether an address is set aside for its node, and nobody has it.
func (l lease) spare() bool { return l.Container == "" && l.Endpoint == "" && !l.Static }

// taken tells whether a container has an address of a host's own list.
func (l lease) taken() bool { return !l.spare() }

// same tells whether two leases mean the same; a container may have been renamed since.
func (l lease) same(o lease) bool {
	return l.Node == o.Node && l.Endpoint == o.Endpoint && l.Container == o.Container && l.Static == o.Static
}

// addresses are the leases of a global network, as the cluster has decided them.
func (e *Engine) addresses(ctx context.Context, networkID string) (map[netip.Addr]lease, error) {
	return e.leasesOf(ctx, networkID, true)
}

// leasesOf are the leases of a global network: as the cluster has decided them, or as far as this host knows.
func (e *Engine) leasesOf(ctx context.Context, networkID string, fresh bool) (map[netip.Addr]lease, error) {
	prefix := keyAddress + networkID + "/"
	pairs, _, err := e.cl.Store().Range(ctx, prefix, fresh)
	if err != nil {
		return nil, err
	}
	out := make(map[netip.Addr]lease, len(pairs))
	for _, p := range pairs {
		a, err := netip.ParseAddr(strings.TrimPrefix(p.Key, prefix))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", p.Key, err)
		}
		if out[a], err = readLease(p); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// takeAddress gives an endpoint the asked address of one of a network's pools, or the lowest free one.
func (e *Engine) takeAddress(ctx context.Context, n *Network, pool ipam.Pool, asked netip.Addr, l lease) (netip.Prefix, error) {
	if asked.IsValid() {
		if err := pool.Check(asked); err != nil {
			return netip.Prefix{}, err
		}
	}
	if n.IPAM != "" {
		return e.requestAddress(ctx, n, pool, asked, l)
	}
	var a netip.Addr
	var err error
	if n.global() {
		a, err = e.takeGlobal(ctx, n, pool, asked, l)
	} else {
		a, err = e.takeLocal(n, pool, asked, l)
	}
	if err != nil {
		return netip.Prefix{}, err
	}
	s, _ := pool.Holding(a)
	return netip.PrefixFrom(a, s.Prefix.Bits()), nil
}

// exhausted says how many addresses a pool has, and who has them.
func exhausted(n *Network, pool ipam.Pool, holders string) error {
	return &classed{fmt.Sprintf("no available %s addresses on this network's address pools: %s (%s): all %d are in use: %s; remove containers or make a network with a larger --subnet",
		pool.Family(), n.Name, n.ID, pool.Total(), holders), errdefs.ErrResourceExhausted}
}

// holders names the hosts that have a pool's addresses, those with the most first.
func (e *Engine) holders(pool ipam.Pool, held map[netip.Addr]lease) string {
	used, reserved := map[string]int{}, map[string]int{}
	for a, l := range held {
		if _, in := pool.Holding(a); !in {
			continue
		}
		name := e.nodeName(l.Node)
		used[name] += 0
		if l.spare() {
			reserved[name]++
		} else {
			used[name]++
		}
	}
	names := slices.SortedFunc(maps.Keys(used), func(a, b string) int {
		return cmp.Or(cmp.Compare(used[b]+reserved[b], used[a]+reserved[a]), strings.Compare(a, b))
	})
	var out []string
	for _, name := range names {
		out = append(out, fmt.Sprintf("%s %d and %d in reserve", name, used[name], reserved[name]))
	}
	return strings.Join(out, ", ")
}

func (e *Engine) takeLocal(n *Network, pool ipam.Pool, asked netip.Addr, l lease) (netip.Addr, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	held := e.leases[n.ID]
	if held == nil {
		held = map[netip.Addr]string{}
		e.leases[n.ID] = held
	}
	if asked.IsValid() {
		if holder, ok := held[asked]; ok && holder != l.Container {
			return asked, addressInUse(asked, n, e.localHolder(holder), e.cfg.NodeName)
		}
		held[asked] = l.Container // not the endpoint's: it stays when that goes
		return asked, nil
	}
	a, err := pool.Lowest(func(a netip.Addr) bool { _, ok := held[a]; return ok })
	if err != nil {
		return a, exhausted(n, pool, "this host's containers hold them")
	}
	held[a] = l.Endpoint
	return a, nil
}

// takeGlobal asks the cluster for an address. When nobody decides, or all others are taken, it comes out of what is set
// aside for this host.
func (e *Engine) takeGlobal(ctx context.Context, n *Network, pool ipam.Pool, asked netip.Addr, l lease) (netip.Addr, error) {
	decided, cancel := e.cl.Deciding(ctx, impatient)
	defer cancel()
	a, err := e.takeDecided(decided, n, pool, asked, l)
	if ctx.Err() == nil && (errdefs.IsUnavailable(err) || errdefs.IsResourceExhausted(err)) {
		e.wakeReconcile() // it may have been given, and nobody heard of it
		if spare, ok := e.takeSpare(ctx, n, pool, asked, l); ok {
			return spare, nil
		}
		if errdefs.IsUnavailable(err) {
			return a, e.undecided(noSpare(n, asked), err)
		}
	}
	return a, err
}

func noSpare(n *Network, asked netip.Addr) string {
	if asked.IsValid() {
		return fmt.Sprintf("take the address %s on network %s, which is not this host's to give", asked, n.Name)
	}
	return fmt.Sprintf("take an address on network %s, of which this host has none left in reserve", n.Name)
}

// takeDecided claims the lowest free address by compare-and-swap: the key must not exist, the network still must. Whoever
// loses the race takes the next one, so addresses are given in order in the whole cluster and none is given twice.
func (e *Engine) takeDecided(ctx context.Context, n *Network, pool ipam.Pool, asked netip.Addr, l lease) (netip.Addr, error) {
	var err error
	var held map[netip.Addr]lease // nil: to be read
	lost := false                 // some of held were seen to be others' when they were tried for
	for range casAttempts {
		if held == nil {
			if held, err = e.addresses(ctx, n.ID); err != nil {
				return asked, fmt.Errorf("take an address of network %s: %w", n.Name, err)
			}
		}
		a := asked
		var present store.Revision // 0: the key must not exist
		if asked.IsValid() {
			if h, ok := held[asked]; ok {
				if err := e.mayTake(n, asked, h, l); err != nil {
					return asked, err
				}
				present = h.rev // kept for this container, or for this host
			}
		} else if a, err = e.nextAddress(pool, held); err != nil && lost {
			held, lost = nil, false // one may have come free meanwhile
			continue
		} else if err != nil {
			return a, exhausted(n, pool, e.holders(pool, held))
		}
		value, err := l.over(held[a])
		if err != nil {
			return asked, err
		}
		_, err = e.cl.Store().Txn(ctx, store.Txn{
			If: []store.Cond{{Key: keyNetwork + n.ID, Rev: n.rev}, {Key: addressKey(n.ID, a), Rev: present}},
			Then: []store.Op{
				{Key: addressKey(n.ID, a), Value: value}, {Key: keyUse + n.ID, Value: []byte(l.Endpoint)},
			},
		})
		var race *store.ConflictError
		if errors.As(err, &race) && race.Key == addressKey(n.ID, a) && !asked.IsValid() {
			held[a], lost = lease{}, true // somebody was faster: the next one
			continue
		}
		if errdefs.IsConflict(err) {
			held = nil
			if fresh, _, ferr := e.globalNetworks(ctx, true); ferr == nil {
				if _, perr := pickNetwork(fresh, n.ID); perr != nil {
					return a, perr // removed meanwhile
				}
			}
			continue
		}
		if err != nil {
			return a, fmt.Errorf("take an address of network %s: %w", n.Name, err)
		}
		return a, nil
	}
	return asked, unavailable("take an address of network %s: too many others want one; try again", n.Name)
}

// mayTake says who has an asked address, unless it is the container's own, or one that is set aside for this host: it is
// struck off the list first, where it also is if the container has given it back while nobody decided.
func (e *Engine) mayTake(n *Network, asked netip.Addr, h, l lease) error {
	switch kept := h.Static && h.Container == l.Container; {
	case !h.spare() && !(kept && h.Node == l.Node):
		return addressInUse(asked, n, e.holderName(n.ID, h), e.nodeName(h.Node))
	case h.Node != l.Node:
		return forbidden("Address already in use: %s on network %s is in the reserve of %s; choose one that minictl network inspect does not list there", asked, n.Name, e.nodeName(h.Node))
	case !e.spares.claim(l.Node, n.ID, asked, l.Container):
		return forbidden("Address already in use: %s on network %s was given to a container of this host a moment ago", asked, n.Name)
	}
	return nil
}

// nextAddress is the lowest one that nobody has, or one that another side of the cluster is not likely to give.
func (e *Engine) nextAddress(pool ipam.Pool, held map[netip.Addr]lease) (netip.Addr, error) {
	used := func(a netip.Addr) bool { _, ok := held[a]; return ok }
	if side := e.side(); side != "" {
		return pool.Apart(side, used)
	}
	return pool.Lowest(used)
}

// side names this side of the cluster after a takeover, until all hosts from before it are back or removed: such a host may
// have given out more of the lowest addresses than anybody here knows, and of the highest to hosts that joined there. It is
// empty when there is no other side.
func (e *Engine) side() string {
	if !e.cl.Cautious() {
		return ""
	}
	return e.cl.Epoch()
}

func addressKey(networkID string, a netip.Addr) string {
	return keyAddress + networkID + "/" + a.String()
}

// releaseAddresses gives all of an endpoint's addresses back.
func (e *Engine) releaseAddresses(ctx context.Context, n *Network, ep *container.Endpoint) {
	for _, p := range ep.Addresses() {
		e.releaseAddress(ctx, n, p.Addr(), ep.ID)
	}
}

// releaseAddress gives an address back. One that can't be given back now, for want of a leader, is found and given back
// by reconcileLeases later.
func (e *Engine) releaseAddress(ctx context.Context, n *Network, a netip.Addr, endpoint string) {
	if !a.IsValid() {
		return
	}
	if n.IPAM != "" {
		defer e.returnAddress(ctx, n, a)
	}
	networkID := n.ID
	if !n.global() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.leases[networkID][a] == endpoint {
			delete(e.leases[networkID], a)
		}
		return
	}
	e.giveBack(ctx, networkID, a, endpointEnds(endpoint))
}

// giveBack ends a use of a global network's address. Nobody who removes something waits long for that: reconcileLeases
// does it when somebody can decide.
func (e *Engine) giveBack(ctx context.Context, networkID string, a netip.Addr, end func(lease) (lease, bool)) {
	ctx, cancel := context.WithTimeout(ctx, patient)
	defer cancel()
	ctx, done := e.cl.Deciding(ctx, impatient)
	defer done()
	if e.returnSpare(ctx, networkID, a, ctx.Err() != nil, end) {
		return
	}
	if err := e.changeLease(ctx, addressKey(networkID, a), end); err != nil {
		e.log.Warn("address is given back later", "network", networkID, "address", a, "err", err)
		e.wakeReconcile()
	}
}

// endpointEnds ends an endpoint's use of an address: the lease goes, unless it is the container's for its whole life.
func endpointEnds(endpoint string) func(lease) (lease, bool) {
	return func(l lease) (lease, bool) {
		mine := l.Endpoint == endpoint && endpoint != ""
		l.Endpoint = ""
		return l, mine
	}
}

// changeLease replaces the lease under a key by what change makes of it; one that is neither used nor static is deleted.
// Nothing happens if change says that it is not concerned.
func (e *Engine) changeLease(ctx context.Context, key string, change func(lease) (lease, bool)) error {
	pairs, _, err := e.cl.Store().Range(ctx, key, true)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		old, err := readLease(p)
		if p.Key != key || err != nil {
			continue
		}
		l, concerned := change(old)
		if !concerned {
			continue
		}
		op := store.Op{Key: key, Delete: true}
		if l.Static || l.Endpoint != "" {
			value, err := l.over(old)
			if err != nil {
				return err
			}
			op = store.Op{Key: key, Value: value}
		}
		_, err = e.cl.Store().Txn(ctx, store.Txn{If: []store.Cond{{Key: key, Rev: p.Rev}}, Then: []store.Op{op}})
		if errdefs.IsConflict(err) {
			return nil // somebody else has dropped it, and perhaps taken it again
		}
		return err
	}
	return nil
}

func (e *Engine) nodeName(id string) string {
	for _, m := range e.cl.Members() {
		if string(m.ID) == id {
			return m.Name
		}
	}
	return id
}

package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/netdriver/ipam"
)

// lease is what stands under address/<network>/<ip>: who has the address. The key's existence is the lease; the free
// set is whatever has no key.
type lease struct {
	Node      string `json:"node"`
	Endpoint  string `json:"endpoint"` // empty: kept for the container, which does not use it now
	Container string `json:"container"`
	Name      string `json:"name"`
	Static    bool   `json:"static,omitempty"` // asked for by the user: the container's as long as there is the container

	rev store.Revision // of the key
}

// addresses are the leases of a global network, as the cluster has decided them.
func (e *Engine) addresses(ctx context.Context, networkID string) (map[netip.Addr]lease, error) {
	prefix := keyAddress + networkID + "/"
	pairs, _, err := e.cl.Store().Range(ctx, prefix, true)
	if err != nil {
		return nil, err
	}
	out := make(map[netip.Addr]lease, len(pairs))
	for _, p := range pairs {
		a, err := netip.ParseAddr(strings.TrimPrefix(p.Key, prefix))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", p.Key, err)
		}
		l := lease{rev: p.Rev}
		if err := json.Unmarshal(p.Value, &l); err != nil {
			return nil, fmt.Errorf("read %s: %w", p.Key, err)
		}
		out[a] = l
	}
	return out, nil
}

// takeAddress gives an endpoint the asked address, or the lowest free one.
func (e *Engine) takeAddress(ctx context.Context, n *Network, asked netip.Addr, l lease) (netip.Prefix, error) {
	if len(n.Subnets) == 0 {
		return netip.Prefix{}, nil
	}
	s := n.Subnets[0]
	if asked.IsValid() {
		if err := ipam.Check(s, asked); err != nil {
			return netip.Prefix{}, err
		}
	}
	var a netip.Addr
	var err error
	if n.global() {
		a, err = e.takeGlobal(ctx, n, asked, l)
	} else {
		a, err = e.takeLocal(n, asked, l)
	}
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(a, s.Prefix.Bits()), nil
}

func exhausted(n *Network, used int) error {
	total, _ := ipam.Usage(n.Subnets[0], used)
	return &classed{fmt.Sprintf("no available IPv4 addresses on this network's address pools: %s (%s): all %d are in use; remove containers or make a network with a larger --subnet",
		n.Name, n.ID, total), errdefs.ErrResourceExhausted}
}

func (e *Engine) takeLocal(n *Network, asked netip.Addr, l lease) (netip.Addr, error) {
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
	a, err := ipam.Lowest(n.Subnets[0], func(a netip.Addr) bool { _, ok := held[a]; return ok })
	if err != nil {
		return a, exhausted(n, len(held))
	}
	held[a] = l.Endpoint
	return a, nil
}

// takeGlobal claims the lowest free address by compare-and-swap: the key must not exist, the network still must. Whoever
// loses the race looks again, so addresses are given in order in the whole cluster and none is given twice.
func (e *Engine) takeGlobal(ctx context.Context, n *Network, asked netip.Addr, l lease) (netip.Addr, error) {
	value, err := json.Marshal(l)
	if err != nil {
		return asked, err
	}
	for range casAttempts {
		held, err := e.addresses(ctx, n.ID)
		if err != nil {
			return asked, e.explainStore(fmt.Errorf("take an address of network %s: %w", n.Name, err))
		}
		a := asked
		var present store.Revision // 0: the key must not exist
		if asked.IsValid() {
			if h, ok := held[asked]; ok {
				if !h.Static || h.Container != l.Container {
					return asked, addressInUse(asked, n, e.holderName(n.ID, h), e.nodeName(h.Node))
				}
				present = h.rev // kept for this container
			}
		} else if a, err = ipam.Lowest(n.Subnets[0], func(a netip.Addr) bool { _, ok := held[a]; return ok }); err != nil {
			return a, exhausted(n, len(held))
		}
		_, err = e.cl.Store().Txn(ctx, store.Txn{
			If: []store.Cond{{Key: keyNetwork + n.ID, Rev: n.rev}, {Key: addressKey(n.ID, a), Rev: present}},
			Then: []store.Op{
				{Key: addressKey(n.ID, a), Value: value}, {Key: keyUse + n.ID, Value: []byte(l.Endpoint)},
			},
		})
		if errdefs.IsConflict(err) {
			if fresh, _, ferr := e.globalNetworks(ctx, true); ferr == nil {
				if _, perr := pickNetwork(fresh, n.ID); perr != nil {
					return a, perr // removed meanwhile
				}
			}
			continue
		}
		if err != nil {
			return a, e.explainStore(fmt.Errorf("take an address of network %s: %w", n.Name, err))
		}
		return a, nil
	}
	return asked, unavailable("take an address of network %s: too many others want one; try again", n.Name)
}

func addressKey(networkID string, a netip.Addr) string {
	return keyAddress + networkID + "/" + a.String()
}

// releaseAddress gives an address back. One that can't be given back now, for want of a leader, is found and given back
// by reconcileLeases later.
func (e *Engine) releaseAddress(ctx context.Context, networkID string, global bool, a netip.Addr, endpoint string) {
	if !a.IsValid() {
		return
	}
	if !global {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.leases[networkID][a] == endpoint {
			delete(e.leases[networkID], a)
		}
		return
	}
	if err := e.dropLease(ctx, addressKey(networkID, a), endpoint); err != nil {
		e.log.Warn("address is given back later", "network", networkID, "endpoint", endpoint, "err", err)
	}
}

// dropLease ends the endpoint's use of the key: the lease goes, unless it is the container's for its whole life.
func (e *Engine) dropLease(ctx context.Context, key, endpoint string) error {
	return e.changeLease(ctx, key, func(l lease) (lease, bool) {
		mine := l.Endpoint == endpoint && endpoint != ""
		l.Endpoint = ""
		return l, mine
	})
}

// changeLease replaces the lease under a key by what change makes of it; one that is neither used nor static is deleted.
// Nothing happens if change says that it is not concerned.
func (e *Engine) changeLease(ctx context.Context, key string, change func(lease) (lease, bool)) error {
	pairs, _, err := e.cl.Store().Range(ctx, key, true)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		var l lease
		if p.Key != key || json.Unmarshal(p.Value, &l) != nil {
			continue
		}
		l, concerned := change(l)
		if !concerned {
			continue
		}
		op := store.Op{Key: key, Delete: true}
		if l.Static || l.Endpoint != "" {
			value, err := json.Marshal(l)
			if err != nil {
				return err
			}
			op = store.Op{Key: key, Value: value}
		}
		_, err := e.cl.Store().Txn(ctx, store.Txn{If: []store.Cond{{Key: key, Rev: p.Rev}}, Then: []store.Op{op}})
		if errdefs.IsConflict(err) {
			return nil // somebody else has dropped it, and perhaps taken it again
		}
		return err
	}
	return nil
}

// How often left-over leases are looked for: soon again while nobody can decide, as after a start, else now and then.
const (
	reconcileSoon  = 500 * time.Millisecond
	reconcileEvery = 30 * time.Second
)

func (e *Engine) reconcileLoop() {
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-next.C:
		case <-e.ctx.Done():
			return
		}
		wait := reconcileEvery
		if err := e.reconcileLeases(e.ctx); err != nil && e.ctx.Err() == nil {
			e.log.Debug("leases stay as they are for now", "err", err)
			wait = reconcileSoon
		}
		next.Reset(wait)
	}
}

func (e *Engine) nodeName(id string) string {
	for _, m := range e.cl.Members() {
		if string(m.ID) == id {
			return m.Name
		}
	}
	return id
}

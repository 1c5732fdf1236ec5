package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/runtime/container"
)

// NetworkConnect gives a container one more endpoint. A running one has it, and every live host its record, when the call
// returns; for the others it is a wish that the next start fulfils.
func (e *Engine) NetworkConnect(ctx context.Context, ref string, req network.ConnectRequest) (err error) {
	n, err := e.findNetwork(ctx, ref)
	if err != nil {
		return err
	}
	b, err := e.find(req.Container)
	if err != nil {
		return err
	}
	set := req.EndpointConfig
	if set == nil {
		set = &network.EndpointSettings{}
	}
	if err := checkEndpointWish(n.Name, set); err != nil {
		return err
	}
	b.op.Lock()
	defer b.op.Unlock()
	if err := mayChange(b, req.Container); err != nil {
		return err
	}
	old := b.specCopy()
	if err := checkConnect(&old, n); err != nil {
		return err
	}
	key, connected := e.keyOf(ctx, &old, n)
	running := b.statusCopy().Running()
	if connected && running {
		return forbidden("endpoint with name %s already exists in network %s", old.Name, n.Name)
	}
	next := old
	key = cmp.Or(key, n.Name)
	next.Networks, next.NetworkOrder = maps.Clone(old.Networks), slices.Clone(old.NetworkOrder)
	if next.Networks == nil {
		next.Networks = map[string]*network.EndpointSettings{}
	}
	next.Networks[key] = set
	if !connected {
		next.NetworkOrder = append(next.NetworkOrder, key)
	}
	return e.rewish(ctx, b, &old, &next, running, func(u *undo) error { return e.keepAddresses(ctx, &next, key, u) })
}

// mayChange refuses a container that is about to go. b.op must be held.
func mayChange(b *box, ref string) error {
	st := b.statusCopy().State
	switch {
	case b.removed:
		return notFound("No such container: %s", ref)
	case st == mobycontainer.StateRemoving || st == mobycontainer.StateDead:
		return conflict("container %s is marked for removal and cannot be connected to or disconnected from the network", b.id)
	}
	return nil
}

// checkConnect refuses, in docker's words, what shares a network stack or has none.
func checkConnect(s *container.Spec, n *Network) error {
	mode := s.HostConfig.NetworkMode
	switch {
	case mode.IsContainer():
		return invalid("container sharing network namespace with another container or host cannot be connected to any other network")
	case n.Driver == netdriver.TypeHost:
		return invalid("cannot connect container to host network - container must be created in host network mode")
	case mode.IsHost():
		return invalid("container sharing network namespace with another container or host cannot be connected to any other network")
	case mode.IsNone() || n.Driver == netdriver.TypeNull:
		return invalid("container cannot be connected to multiple networks with one of the networks in private (none) mode")
	}
	return nil
}

// keyOf finds under which key a container wishes a network: the user may have given its name or its ID.
func (e *Engine) keyOf(ctx context.Context, s *container.Spec, n *Network) (key string, ok bool) {
	all, err := e.allNetworks(ctx)
	if err != nil {
		return "", false
	}
	for key := range s.Networks {
		if o, err := pickNetwork(all, key); err == nil && o.ID == n.ID {
			return key, true
		}
	}
	return "", false
}

// rewish replaces the container's wished networks, and makes them so if it runs. prepare may take what the new wish
// needs. On error everything is as before. b.op must be held.
func (e *Engine) rewish(ctx context.Context, b *box, old, next *container.Spec, running bool, prepare func(*undo) error) (err error) {
	var u undo
	defer func() {
		if err != nil {
			u.run(ctx)
		}
	}()
	if err := prepare(&u); err != nil {
		return err
	}
	u.add(func(context.Context) { _ = e.setWish(b, old) })
	if err := errors.Join(e.setWish(b, next), step("rewish")); err != nil {
		return err
	}
	if running {
		if err := e.reshape(ctx, b); err != nil {
			return err
		}
	}
	for key, set := range old.Networks { // a static address that is not wished any more
		for _, a := range staticAddresses(set) {
			if slices.Contains(staticAddresses(next.Networks[key]), a) {
				continue
			}
			if n, err := e.findNetwork(ctx, key); err == nil {
				e.freeAddress(ctx, n, a, b.id)
			}
		}
	}
	return nil
}

// setWish keeps another set of wished networks.
func (e *Engine) setWish(b *box, s *container.Spec) error {
	b.mu.Lock()
	b.spec.Networks, b.spec.NetworkOrder = s.Networks, s.NetworkOrder
	b.mu.Unlock()
	if err := e.keep(b); err != nil {
		return fmt.Errorf("keep container's networks: %w", err)
	}
	return nil
}

// NetworkDisconnect takes an endpoint away. With force also one whose container is gone, or whose network is.
func (e *Engine) NetworkDisconnect(ctx context.Context, ref string, req network.DisconnectRequest) error {
	n, nerr := e.findNetwork(ctx, ref)
	if nerr != nil && (!req.Force || !errdefs.IsNotFound(nerr)) {
		return nerr
	}
	b, err := e.find(req.Container)
	if errdefs.IsNotFound(err) && req.Force && nerr == nil {
		return e.disconnectGone(ctx, n, req.Container)
	}
	if err != nil {
		return err
	}
	b.op.Lock()
	defer b.op.Unlock()
	if err := mayChange(b, req.Container); err != nil {
		return err
	}
	old := b.specCopy()
	key, ok := ref, old.Networks[ref] != nil
	if nerr == nil {
		if old.HostConfig.NetworkMode.IsHost() && n.Driver == netdriver.TypeHost {
			return invalid("container cannot be disconnected from host network or connected to host network")
		}
		key, ok = e.keyOf(ctx, &old, n)
	}
	if !ok && nerr != nil {
		return nerr
	}
	if !ok {
		return conflict("container %s is not connected to the network %s", b.id, n.Name)
	}
	next := old
	next.Networks, next.NetworkOrder = maps.Clone(old.Networks), slices.Clone(old.NetworkOrder)
	delete(next.Networks, key)
	next.NetworkOrder = slices.DeleteFunc(next.NetworkOrder, func(k string) bool { return k == key })
	running := b.statusCopy().Running()
	if err := e.rewish(ctx, b, &old, &next, running, func(*undo) error { return nil }); err != nil {
		return err
	}
	if !running && nerr == nil {
		e.networkEvent(n, events.ActionDisconnect, "container", b.id)
	}
	return nil
}

// disconnectGone removes what a container that is gone left on a network: its lease and its record. One that another live
// host has is not gone.
func (e *Engine) disconnectGone(ctx context.Context, n *Network, ref string) error {
	fits := func(id, name string) bool {
		return name == strings.TrimPrefix(ref, "/") || id == ref || len(ref) >= 12 && strings.HasPrefix(id, ref)
	}
	missing := notFound("No such container: %s", ref)
	if !n.global() {
		return missing // a local network's endpoints are derived from the containers
	}
	held, err := e.addresses(ctx, n.ID)
	if err != nil {
		return e.undecided("disconnect "+ref, err)
	}
	found := false
	for a, l := range held {
		if !fits(l.Container, l.Name) {
			continue
		}
		if l.Node != string(e.cl.Self().ID) && e.nodeAlive(l.Node) {
			return conflict("container %s is on host %s, which is alive: disconnect it there", l.Name, e.nodeName(l.Node))
		}
		found = true
		e.freeAddress(ctx, n, a, l.Container)
	}
	var stale []string
	for _, r := range e.cl.OwnRecords() {
		if r.Network == n.ID && fits(r.Container, r.Name) {
			stale = append(stale, r.ID)
		}
	}
	if !found && len(stale) == 0 {
		return missing
	}
	e.publish(ctx, nil, stale)
	e.networkEvent(n, events.ActionDisconnect, "container", ref)
	return nil
}

func (e *Engine) nodeAlive(id string) bool {
	for _, m := range e.cl.Members() {
		if string(m.ID) == id {
			return m.Alive
		}
	}
	return false
}

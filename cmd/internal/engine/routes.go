package engine

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// watchAgain is how long after the kernel's news of routes ended they are asked for again.
const watchAgain = 30 * time.Second

// clusterRoutes are the prefixes that any host routes somewhere: this one as it does now, the others as they last said.
func (e *Engine) clusterRoutes() ([]netip.Prefix, error) {
	out, err := e.cfg.Routes()
	if err != nil {
		return nil, fmt.Errorf("list this host's routes: %w", err)
	}
	for _, m := range e.cl.Members() {
		out = append(out, m.Routes...)
	}
	return out, nil
}

// tellRoutes tells the cluster which prefixes this host routes elsewhere. Its own local networks are not among them:
// they are nobody else's business, and every host has its gateway bridge at the same place.
func (e *Engine) tellRoutes() {
	routes, err := e.cfg.Routes()
	if err != nil {
		e.log.Warn("list this host's routes", "err", err)
		return
	}
	e.mu.RLock()
	own := map[netip.Prefix]bool{}
	for _, n := range e.networks {
		for _, s := range n.Subnets {
			own[s.Prefix.Masked()] = true
		}
	}
	e.mu.RUnlock()
	e.cl.SetRoutes(slices.DeleteFunc(routes, func(p netip.Prefix) bool { return own[p.Masked()] }))
}

// followRoutes keeps what the cluster knows of this host's routes up to date.
func (e *Engine) followRoutes() { e.follow("routes", e.cfg.WatchRoutes, e.tellRoutes) }

// followMTU keeps what it knows of this host's data path up to date.
func (e *Engine) followMTU() { e.follow("links", e.cfg.WatchLinks, e.tellMTU) }

// tellMTU tells the cluster what the interface that holds the data path's address carries now.
func (e *Engine) tellMTU() {
	self := e.cl.Self()
	if !e.cl.Clustered() || !self.DataPath.IsValid() {
		return
	}
	if mtu, err := mtuOf(self.DataPath); err == nil { // an interface that is gone for now had one
		e.cl.SetMTU(mtu)
	}
}

// pathMTU is the smallest MTU of the members' data paths: what every one of them carries, in bytes.
func (e *Engine) pathMTU() int {
	smallest := e.cl.Self().MTU
	for _, m := range e.cl.Members() {
		if m.MTU > 0 && (smallest == 0 || m.MTU < smallest) {
			smallest = m.MTU
		}
	}
	return smallest
}

// follow calls tell now and after each change.
func (e *Engine) follow(what string, watch func(context.Context, func()) error, tell func()) {
	for {
		tell()
		err := watch(e.ctx, tell)
		if e.ctx.Err() != nil {
			return
		}
		e.log.Warn("cannot watch this host's "+what, "err", err)
		select {
		case <-time.After(watchAgain):
		case <-e.ctx.Done():
			return
		}
	}
}

// withdrawRecords takes back what an earlier daemon published and nobody here stands behind any more.
func (e *Engine) withdrawRecords(ctx context.Context) {
	live := map[string]bool{}
	for _, b := range e.all() {
		for _, ep := range b.statusCopy().Endpoints {
			live[ep.ID] = true
		}
	}
	var gone []string
	for _, r := range e.cl.OwnRecords() {
		if !live[r.ID] {
			e.log.Info("withdraw an endpoint's record that nothing stands behind", "endpoint", r.ID, "container", r.Container)
			gone = append(gone, r.ID)
		}
	}
	e.publish(ctx, nil, gone)
}

package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/firewall"
	"github.com/minictl/minictl/runtime/container"
)

// repairEvery is how often the kernel is compared with what it ought to hold, though nobody said that it has changed.
const repairEvery = 30 * time.Second

// drift counts by kind what others changed in the kernel and was repaired, and keeps what cannot be.
type drift struct {
	mu       sync.Mutex
	repaired map[string]int
	last     time.Time // of the last repair
	found    string    // what was wrong then
	blocks   []firewall.Block
}

// driftKinds are what is looked after: the table of rules, links, and the rows of overlays.
func driftKinds() []string { return []string{"nft", "link", "fdb", "neighbour"} }

func (d *drift) add(kind string, n int, found string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last, d.found = time.Now(), found
	if d.repaired == nil {
		d.repaired = map[string]int{}
	}
	d.repaired[kind] += n
}

func (d *drift) counts() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.repaired)
}

// block keeps what stands in the way, and gives what did not before.
func (d *drift) block(now []firewall.Block) (fresh []firewall.Block) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range now {
		if !slices.Contains(d.blocks, b) {
			fresh = append(fresh, b)
		}
	}
	d.blocks = now
	return fresh
}

// words say what was repaired, how often, and when last; "" is nothing.
func (d *drift) words() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var parts []string
	for _, kind := range driftKinds() {
		if n := d.repaired[kind]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", kind, n))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return fmt.Sprintf("something else on this host has changed what minictl made in the kernel; repaired since the daemon began: %s; last at %s: %s",
		strings.Join(parts, ", "), d.last.Format(time.RFC3339), d.found)
}

// warnings are docker info's.
func (d *drift) warnings() []string {
	out := []string{}
	if words := d.words(); words != "" {
		out = append(out, "WARNING: "+words)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range d.blocks {
		out = append(out, "WARNING: "+b.String())
	}
	return out
}

// repairLoop repairs now and then, and soon after the kernel has told of a change.
func (e *Engine) repairLoop() {
	wake := make(chan struct{}, 1)
	tell := func() {
		select {
		case wake <- struct{}{}:
		default: // it looks soon
		}
	}
	e.spawn(func() { e.follow("packet rules", e.cfg.WatchRules, tell) })
	e.spawn(func() { e.follow("links", e.cfg.WatchLinks, tell) })
	tick := time.NewTicker(repairEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-wake:
		case <-e.ctx.Done():
			return
		}
		e.repair(e.ctx)
	}
}

// repair compares rules, links and rows with the kernel's own listing and makes up for what others did to them.
func (e *Engine) repair(ctx context.Context) {
	wrong, err := e.cfg.Firewall.Repair(ctx)
	if wrong != "" {
		e.drift.add("nft", 1, wrong)
		e.log.Warn("repaired the packet rules: another program has changed them", "found", wrong)
	}
	e.repairFailed("packet rules", err)
	if r, ok := e.cfg.Overlay.(repairer); ok {
		found, err := r.Repair(ctx)
		for kind, n := range found {
			if n > 0 {
				e.drift.add(kind, n, fmt.Sprintf("overlays: %s, %d", kind, n))
				e.log.Warn("repaired the overlays: another program has changed them", "kind", kind, "count", n)
			}
		}
		e.repairFailed("overlays", err)
	}
	e.repairBridges(ctx)
	blocks, err := e.cfg.Firewall.Blocks(ctx)
	e.repairFailed("others' rules", err)
	if err == nil {
		for _, b := range e.drift.block(blocks) {
			e.log.Warn("another program's rules drop the packets of containers", "bridge", b.Bridge, "table", b.Table, "chain", b.Chain, "help", b.Help())
		}
	}
}

func (e *Engine) repairFailed(what string, err error) {
	if err != nil && e.ctx.Err() == nil {
		e.log.Error("compare the kernel with what it ought to hold", "what", what, "err", err)
	}
}

// repairer is a driver that knows all its endpoints.
type repairer interface {
	Repair(ctx context.Context) (drift map[string]int, err error)
}

// misser is a driver that tells which links of a network are missing.
type misser interface {
	Missing(ctx context.Context, n netdriver.Network, endpoints []netdriver.EndpointID) (int, error)
}

// repairBridges makes the links of bridges again that somebody removed.
func (e *Engine) repairBridges(ctx context.Context) {
	e.mu.RLock()
	all := slices.Collect(maps.Values(e.networks))
	e.mu.RUnlock()
	for _, n := range all {
		if m, ok := e.driver(n).(misser); ok {
			e.repairFailed("network "+n.Name, e.repairBridge(ctx, n, m))
		}
	}
}

func (e *Engine) repairBridge(ctx context.Context, n *Network, m misser) error {
	type plugged struct {
		endpoint container.Endpoint
		sandbox  netdriver.Sandbox
	}
	var here []plugged
	var ids []netdriver.EndpointID
	for _, b := range e.all() {
		if !b.op.TryLock() {
			continue // in the middle of a step: the next look sees it
		}
		defer b.op.Unlock()
		st := b.statusCopy()
		for _, ep := range st.Endpoints {
			if ep.NetworkID == n.ID && st.Running() {
				here = append(here, plugged{ep, netdriver.Sandbox{ID: b.id[:12], Path: st.SandboxPath}})
				ids = append(ids, netdriver.EndpointID(ep.ID))
			}
		}
	}
	if len(here) == 0 {
		return nil // a bridge without containers is made again with the first
	}
	missing, err := m.Missing(ctx, n.wish(), ids)
	if err != nil || missing == 0 {
		return err
	}
	e.drift.add("link", missing, fmt.Sprintf("%d links of network %s were missing", missing, n.Name))
	e.log.Warn("repaired a bridge: another program has removed links of it", "network", n.Name, "count", missing)
	for _, p := range here {
		if err := e.driverJoin(ctx, n, &p.endpoint, p.sandbox, nil); err != nil {
			return err
		}
	}
	return nil
}

package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/remote"
	"github.com/minictl/minictl/runtime/container"
)

// pluginAtStart bounds how long the start of the daemon waits for one plugin, for one endpoint whose interface is gone.
const pluginAtStart = 2 * time.Second

// settleEvery is how often plugins that could not be told of an end are tried again.
const settleEvery = 5 * time.Second

// debt is something that has ended here and a plugin could not be told of: an endpoint, a network of all hosts with its
// last endpoint here (Endpoint is empty), an address, or a pool (Address is invalid too).
type debt struct {
	ID          string     `json:"id"`
	Plugin      string     `json:"plugin"`
	Network     string     `json:"network"`
	NetworkName string     `json:"networkName"`
	Global      bool       `json:"global,omitempty"`
	Endpoint    string     `json:"endpoint,omitempty"`
	Names       []string   `json:"names,omitempty"` // of the endpoint
	Pool        string     `json:"pool,omitempty"`
	Address     netip.Addr `json:"address,omitzero"`
}

// words say what the plugin still has.
func (d *debt) words() string {
	switch {
	case d.Address.IsValid():
		return fmt.Sprintf("address %s of network %s", d.Address, d.NetworkName)
	case d.Pool != "":
		return fmt.Sprintf("pool %s of network %s", d.Pool, d.NetworkName)
	case d.Endpoint != "" && len(d.Names) > 0:
		return fmt.Sprintf("endpoint %s (%s) of network %s", short(d.Endpoint), d.Names[0], d.NetworkName)
	case d.Endpoint != "":
		return fmt.Sprintf("endpoint %s of network %s", short(d.Endpoint), d.NetworkName)
	}
	return "network " + d.NetworkName
}

// network is enough of one to leave it.
func (d *debt) wish() *Network {
	n := &Network{ID: d.Network, Name: d.NetworkName, Driver: d.Plugin, Scope: scopeLocal}
	if d.Global {
		n.Scope = scopeGlobal
	}
	return n
}

// debts are all of them, also in this host's state: they outlive the daemon.
type debts struct {
	mu   sync.Mutex
	list map[string]debt
}

func (d *debts) all() []debt {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.SortedFunc(maps.Values(d.list), func(a, b debt) int { return strings.Compare(a.words(), b.words()) })
}

// owe keeps what a plugin has to be told.
func (e *Engine) owe(d debt, why error) {
	d.ID = newID()
	e.log.Warn("a plugin could not be told of an end, and is told later", "plugin", d.Plugin, "has", d.words(), "err", why)
	e.debts.mu.Lock()
	if e.debts.list == nil {
		e.debts.list = map[string]debt{}
	}
	e.debts.list[d.ID] = d
	e.debts.mu.Unlock()
	if err := e.state.put("debts", d.ID, d); err != nil {
		e.log.Error("keep what a plugin has to be told", "plugin", d.Plugin, "err", err)
	}
}

// adoptPlugins tells the drivers what an earlier daemon told their plugins.
func (e *Engine) adoptPlugins(ctx context.Context) error {
	if e.cfg.Plugins == nil {
		return nil
	}
	adopt := func(n *Network, endpoints ...string) {
		if d := e.plugin(n); d != nil {
			var ids []netdriver.EndpointID
			for _, id := range endpoints {
				ids = append(ids, netdriver.EndpointID(id))
			}
			d.Adopt(netdriver.NetworkID(n.ID), ids...)
		}
	}
	for _, n := range e.networks {
		adopt(n)
	}
	for _, b := range e.boxes {
		for _, ep := range b.statusCopy().Endpoints {
			adopt(&Network{ID: ep.NetworkID, Driver: ep.Driver}, ep.ID)
		}
	}
	return each(e.state, "debts", func(d debt) {
		if e.debts.list == nil {
			e.debts.list = map[string]debt{}
		}
		e.debts.list[d.ID] = d
		switch {
		case d.Pool != "":
		case d.Endpoint != "":
			adopt(d.wish(), d.Endpoint)
		default:
			adopt(d.wish())
		}
	})
}

// pluginLoop tells plugins what they could not be told, and of the cluster's members.
func (e *Engine) pluginLoop() {
	if e.cfg.Plugins == nil {
		return
	}
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for {
		e.settleDebts(e.ctx, func(debt) bool { return true })
		e.tellNodes(e.ctx)
		select {
		case <-tick.C:
		case <-e.pluginWake:
		case <-e.ctx.Done():
			return
		}
	}
}

// settleDebts tries those that which says. What is left of them is the error.
func (e *Engine) settleDebts(ctx context.Context, which func(debt) bool) error {
	missing := map[string]error{} // plugins that did not answer
	for _, d := range e.debts.all() {
		if !which(d) || missing[d.Plugin] != nil {
			continue
		}
		if err := e.settleDebt(ctx, d); err != nil {
			missing[d.Plugin] = fmt.Errorf("plugin %s still has %s: %w", d.Plugin, d.words(), err)
			e.log.Debug("a plugin can still not be told of an end", "plugin", d.Plugin, "has", d.words(), "err", err)
			continue
		}
		e.log.Info("a plugin has been told of an end at last", "plugin", d.Plugin, "had", d.words())
		e.debts.mu.Lock()
		delete(e.debts.list, d.ID)
		e.debts.mu.Unlock()
		if err := e.state.delete("debts", d.ID); err != nil {
			e.log.Error("forget what a plugin had to be told", "plugin", d.Plugin, "err", err)
		}
	}
	return errors.Join(slices.Collect(maps.Values(missing))...)
}

func (e *Engine) settleDebt(ctx context.Context, d debt) error {
	if err := e.cfg.Plugins.Present(d.Plugin); err != nil {
		return err
	}
	if d.Pool != "" {
		a := e.cfg.Plugins.Allocator(d.Plugin)
		if d.Address.IsValid() {
			return a.ReleaseAddress(ctx, d.Pool, d.Address)
		}
		return a.ReleasePool(ctx, d.Pool)
	}
	n, dr := d.wish(), e.cfg.Plugins.Driver(d.Plugin)
	if d.Endpoint != "" {
		if err := dr.Leave(ctx, n.wish(), wishEndpoint(container.Endpoint{ID: d.Endpoint})); err != nil {
			return err
		}
		e.pluginRemove(ctx, dr, n)
		return nil
	}
	return dr.Remove(ctx, n.wish())
}

// tellNodes tells plugins that connect hosts which of them there are.
func (e *Engine) tellNodes(ctx context.Context) {
	if !e.cl.Clustered() {
		return
	}
	self := e.cl.Self().ID
	var nodes []remote.Node
	for _, m := range e.hosts() {
		if m.Alive && m.Addr.IsValid() {
			nodes = append(nodes, remote.Node{Addr: m.Addr.Addr(), Self: m.ID == self})
		}
	}
	for _, d := range e.cfg.Plugins.Drivers() {
		if e.cfg.Plugins.Present(d.Type()) != nil {
			continue
		}
		if err := d.SetNodes(ctx, nodes); err != nil {
			e.log.Debug("a plugin is told of the cluster's members later", "plugin", d.Type(), "err", err)
		}
	}
}

// pluginWarnings name, for docker info, the networks that wait for a plugin and what plugins could not be told.
func (e *Engine) pluginWarnings(ctx context.Context) []string {
	if e.cfg.Plugins == nil {
		return nil
	}
	var out []string
	all, err := e.allNetworks(ctx)
	if err != nil {
		return nil
	}
	for _, n := range all {
		for _, plugin := range e.pluginsOf(n) {
			if err := e.cfg.Plugins.Present(plugin); err != nil {
				out = append(out, fmt.Sprintf("WARNING: network %s waits for its plugin: %v", n.Name, err))
			}
		}
	}
	for _, d := range e.debts.all() {
		out = append(out, fmt.Sprintf("WARNING: plugin %s could not be told that this has ended, and is told when it answers: %s", d.Plugin, d.words()))
	}
	return out
}

// pluginsOf are the programs that have a part in a network.
func (e *Engine) pluginsOf(n *Network) []string {
	var out []string
	if e.plugin(n) != nil {
		out = append(out, n.Driver)
	}
	if n.IPAM != "" && n.IPAM != n.Driver {
		out = append(out, n.IPAM)
	}
	return out
}

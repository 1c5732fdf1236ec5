package engine

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"pgregory.net/rapid"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/ipam"
	"github.com/minictl/minictl/runtime/container"
)

// connect has a container, which is made if there is none of that name, ask for an address, and start with it. One that is
// connected stays as it is.
func (h *island) connect(ctx context.Context, networkID, name string, asked netip.Addr) {
	b := h.boxes[h.names[name]]
	if b == nil {
		b = &box{id: newID(), spec: container.Spec{Name: name}}
		b.spec.ID = b.id
	}
	if len(b.spec.Networks) > 0 {
		return
	}
	next := b.spec
	next.Networks = map[string]*network.EndpointSettings{networkID: {IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: asked}}}
	b.op.Lock()
	defer b.op.Unlock()
	var u undo
	if err := h.keepAddresses(ctx, &next, networkID, &u); err != nil {
		u.run(ctx)
		return
	}
	b.spec = next
	h.mu.Lock()
	h.boxes[b.id], h.names[name] = b, b.id
	h.mu.Unlock()
	h.startLocked(ctx, networkID, b)
}

// disconnect ends that.
func (h *island) disconnect(ctx context.Context, b *box) {
	b.op.Lock()
	defer b.op.Unlock()
	old := b.spec
	b.spec.Networks = nil
	h.freeAddresses(ctx, &old)
}

// start gives a container that has asked for an address an endpoint with it.
func (h *island) start(ctx context.Context, networkID string, b *box) {
	b.op.Lock()
	defer b.op.Unlock()
	h.startLocked(ctx, networkID, b)
}

func (h *island) startLocked(ctx context.Context, networkID string, b *box) {
	set := b.spec.Networks[networkID]
	if set == nil || len(b.status.Endpoints) > 0 {
		return
	}
	n, err := h.network(ctx, networkID)
	if err != nil {
		return
	}
	ep := container.Endpoint{ID: newID(), NetworkID: networkID, Driver: netdriver.TypeOverlay}
	p, err := h.takeAddress(ctx, n, ipam.Pools(n.Subnets)[0], staticAddress(set, false), h.leaseFor(b.id, b.spec.Name, ep.ID, true))
	if err != nil {
		return
	}
	ep.Address = p
	b.status = container.Status{State: mobycontainer.StateRunning, Endpoints: []container.Endpoint{ep}}
}

// stop ends its endpoint; the address stays its own.
func (h *island) stop(ctx context.Context, networkID string, b *box) {
	b.op.Lock()
	defer b.op.Unlock()
	endpoints := b.status.Endpoints
	b.status.Endpoints = nil
	for _, ep := range endpoints {
		h.releaseAddress(ctx, &Network{ID: networkID, Scope: scopeGlobal}, ep.Address.Addr(), ep.ID)
	}
}

// asking draws a container of a host that asks, or has asked, for an address; nil if there is none.
func asking(rt *rapid.T, h *island) *box {
	var names []string
	for name := range h.names {
		if strings.HasPrefix(name, "s") {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return h.boxes[h.names[rapid.SampledFrom(names).Draw(rt, "who asked")]]
}

// TestReserveWalk cuts hosts off, loses and delays what they send, crashes and restarts them: no address is ever given
// twice, and at rest the cluster's leases are what the hosts have.
func TestReserveWalk(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ctx := t.Context()
		hosts, ov := islands(t, 2)
		fates := rapid.SampledFrom([]fate{arrives, arrives, arrives, arrives, arrives, arrives, lost, unanswered, delayed})
		for _, h := range hosts {
			h.link.fate = func() fate { return fates.Draw(rt, "fate") }
		}
		names := func(h *island) []string {
			var out []string
			for _, n := range h.used() {
				out = append(out, n)
			}
			slices.Sort(out)
			return out
		}
		serial := 0
		deliver := func() {
			for _, h := range hosts {
				for _, x := range h.link.late {
					_, _ = h.link.Store.Txn(ctx, x)
				}
				h.link.late = nil
			}
		}
		steps := map[string]func(h *island){
			"run": func(h *island) { serial++; _, _ = h.run(ctx, ov, fmt.Sprint("c", serial)) },
			"end": func(h *island) {
				if list := names(h); len(list) > 0 {
					h.end(ctx, ov, rapid.SampledFrom(list).Draw(rt, "name"), rapid.IntRange(0, 4).Draw(rt, "crash") == 0)
				}
			},
			"connect": func(h *island) {
				name, asked := "s"+fmt.Sprint(rapid.IntRange(1, 3).Draw(rt, "asks")), rapid.IntRange(2, 5).Draw(rt, "asked")
				h.connect(ctx, ov, name, netip.AddrFrom4([4]byte{10, 0, 0, byte(asked)}))
			},
			"disconnect": func(h *island) {
				if b := asking(rt, h); b != nil {
					h.stop(ctx, ov, b)
					h.disconnect(ctx, b)
				}
			},
			"stop": func(h *island) {
				if b := asking(rt, h); b != nil {
					h.stop(ctx, ov, b)
				}
			},
			"start": func(h *island) {
				if b := asking(rt, h); b != nil {
					h.start(ctx, ov, b)
				}
			},
			"cut":       func(h *island) { h.link.sever(rt); h.fake.missing = true },
			"silent":    func(h *island) { h.link.sever(rt) }, // nobody has noticed yet
			"heal":      func(h *island) { h.link.cut, h.fake.missing = false, false },
			"reconcile": func(h *island) { _ = h.reconcileLeases(ctx) },
			"deliver":   func(*island) { deliver() },
			"restart": func(h *island) {
				var err error
				if h.spares, err = openSpares(h.state); err != nil {
					rt.Fatal(err)
				}
			},
		}
		choice := rapid.SampledFrom([]string{
			"run", "run", "run", "run", "end", "end", "end", "end", "cut", "cut", "heal", "heal", "heal",
			"reconcile", "reconcile", "reconcile", "reconcile", "silent", "deliver", "restart",
			"connect", "connect", "disconnect", "stop", "start",
		})
		for range 150 {
			steps[choice.Draw(rt, "step")](hosts[rapid.IntRange(0, len(hosts)-1).Draw(rt, "host")])
			all := map[netip.Addr]string{}
			for _, h := range hosts {
				for _, b := range h.boxes {
					for _, a := range has(b) {
						if other, twice := all[a]; twice {
							rt.Fatalf("%s is given to %s and to %s on %s", a, other, b.spec.Name, h.cfg.NodeName)
						}
						all[a] = b.spec.Name
					}
				}
			}
		}
		deliver()
		for range 2 {
			for _, h := range hosts {
				h.link.cut, h.link.fate, h.fake.missing = false, nil, false
				if err := h.reconcileLeases(ctx); err != nil {
					rt.Fatal(err)
				}
			}
		}
		held, err := hosts[0].addresses(ctx, ov)
		if err != nil {
			rt.Fatal(err)
		}
		for _, h := range hosts {
			used := h.used()
			for a, name := range used {
				if held[a].Name != name || held[a].Node != h.cfg.NodeName {
					rt.Errorf("%s is %s's on %s, the cluster says %+v", a, name, h.cfg.NodeName, held[a])
				}
			}
			list, _ := h.spares.list(h.cfg.NodeName, ov)
			for a, l := range held {
				_, listed := list[a]
				if l.Node == h.cfg.NodeName && (l.spare() != listed || used[a] == "" && !l.spare()) {
					rt.Errorf("%s: %s is %+v, listed %v as %+v", h.cfg.NodeName, a, l, listed, list[a])
				}
			}
			if len(h.clashes.all()) > 0 {
				rt.Errorf("%s: clashes %v", h.cfg.NodeName, h.clashes.all())
			}
		}
	})
}

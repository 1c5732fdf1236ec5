package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/store/memstore"
	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/ipam"
	"github.com/minictl/minictl/runtime/container"
)

// link is a host's way to the cluster's store: it can be cut, and lose what it carries.
type link struct {
	store.Store
	cut     bool
	replica []store.Pair // what the host knew when it was cut
	// fate says what happens to the next transaction; nil: it arrives and is answered.
	fate func() fate
	late []store.Txn // on their way for longer than anybody waited
}

type fate int

const (
	arrives fate = iota
	lost
	unanswered
	delayed
)

func (l *link) sever(t interface{ Fatal(...any) }) {
	var err error
	if l.replica, _, err = l.Store.Range(context.Background(), "", false); err != nil {
		t.Fatal(err)
	}
	l.cut = true
}

func (l *link) Range(ctx context.Context, prefix string, fresh bool) ([]store.Pair, store.Revision, error) {
	if !l.cut {
		return l.Store.Range(ctx, prefix, fresh)
	}
	if fresh {
		return nil, 0, errdefs.ErrUnavailable
	}
	var out []store.Pair
	for _, p := range l.replica {
		if len(p.Key) >= len(prefix) && p.Key[:len(prefix)] == prefix {
			out = append(out, p)
		}
	}
	return out, 1, nil
}

func (l *link) Txn(ctx context.Context, t store.Txn) (store.Revision, error) {
	if l.cut {
		return 0, errdefs.ErrUnavailable
	}
	what := arrives
	if l.fate != nil {
		what = l.fate()
	}
	switch what {
	case lost:
		return 0, errdefs.ErrUnavailable
	case delayed:
		l.late = append(l.late, t)
		return 0, errdefs.ErrUnavailable
	}
	rev, err := l.Store.Txn(ctx, t)
	if what == unanswered {
		return 0, errdefs.ErrUnavailable
	}
	return rev, err
}

// island is a host of a cluster that can be cut off, with containers that are nothing but their addresses.
type island struct {
	*Engine
	link *link
	fake *fakeCluster
}

func islands(t *testing.T, n int) (hosts []*island, network string) {
	t.Helper()
	st := memstore.New()
	var members []cluster.Member
	for i := range n {
		members = append(members, cluster.Member{Node: cluster.Node{ID: cluster.NodeID(fmt.Sprint("host", i+1)), Name: fmt.Sprint("host", i+1)}, Alive: true})
	}
	for _, m := range members {
		l := &link{Store: st}
		e := newHost(t, l, m.Name)
		e.state.db.NoSync = true // nothing here survives a power failure
		f := e.cl.(*fakeCluster)
		f.members = members
		hosts = append(hosts, &island{e, l, f})
	}
	ov := &Network{ID: newID(), Name: "ov", Driver: netdriver.TypeOverlay, Scope: scopeGlobal, Subnets: lan(t, "10.0.0.0/26")}
	if err := hosts[0].createGlobal(t.Context(), ov); err != nil {
		t.Fatal(err)
	}
	return hosts, ov.ID
}

func (h *island) network(ctx context.Context, id string) (*Network, error) {
	all, _, err := h.globalNetworks(ctx, false)
	if err != nil {
		return nil, err
	}
	return pickNetwork(all, id)
}

// run starts a container that has an address and nothing else.
func (h *island) run(ctx context.Context, network, name string) (netip.Addr, error) {
	n, err := h.network(ctx, network)
	if err != nil {
		return netip.Addr{}, err
	}
	b := &box{id: newID(), spec: container.Spec{Name: name}}
	b.spec.ID = b.id
	ep := container.Endpoint{ID: newID(), NetworkID: network, Driver: netdriver.TypeOverlay}
	h.mu.Lock()
	h.boxes[b.id], h.names[name] = b, b.id
	h.mu.Unlock()
	b.op.Lock()
	defer b.op.Unlock()
	p, err := h.takeAddress(ctx, n, ipam.Pools(n.Subnets)[0], netip.Addr{}, h.leaseFor(b.id, name, ep.ID, false))
	if err != nil {
		h.forget(b)
		return p.Addr(), err
	}
	ep.Address = p
	b.status = container.Status{State: mobycontainer.StateRunning, Endpoints: []container.Endpoint{ep}}
	return p.Addr(), nil
}

// remove ends it; a crash forgets it before its address is given back.
func (h *island) end(ctx context.Context, network, name string, crash bool) {
	b := h.boxes[h.names[name]]
	b.op.Lock()
	defer b.op.Unlock()
	endpoints, spec := b.status.Endpoints, b.spec
	b.status.Endpoints = nil
	h.forget(b)
	if crash {
		return
	}
	for _, ep := range endpoints {
		h.releaseAddress(ctx, &Network{ID: network, Scope: scopeGlobal}, ep.Address.Addr(), ep.ID)
	}
	h.freeAddresses(ctx, &spec)
}

func (h *island) used() map[netip.Addr]string {
	out := map[netip.Addr]string{}
	for _, b := range h.boxes {
		for _, a := range has(b) {
			out[a] = b.spec.Name
		}
	}
	return out
}

// has are the addresses that a container has, or keeps.
func has(b *box) (out []netip.Addr) {
	for _, ep := range b.status.Endpoints {
		out = append(out, ep.Address.Addr())
	}
	for _, set := range b.spec.Networks {
		if a := staticAddress(set, false); !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// TestGivenBackSoon: an address that could not be given back, for want of an answer or because its container was in the
// middle of a step when somebody looked, does not wait for the next regular look.
func TestGivenBackSoon(t *testing.T) {
	leased := func(h *island, network string, a netip.Addr) bool {
		pairs, _, err := h.link.Store.Range(t.Context(), addressKey(network, a), true)
		if err != nil || len(pairs) == 0 {
			return false
		}
		l, err := readLease(pairs[0])
		return err != nil || !l.spare()
	}
	for name, end := range map[string]func(t *testing.T, h *island, network string){
		"unanswered": func(t *testing.T, h *island, network string) {
			h.link.fate = func() fate {
				h.link.fate = nil
				return lost
			}
			h.end(t.Context(), network, "web", false)
		},
		"busy": func(_ *testing.T, h *island, _ string) {
			b := h.boxes[h.names["web"]]
			b.op.Lock()
			b.status.Endpoints = nil
			h.wakeReconcile()
			synctest.Wait()
			b.op.Unlock()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hosts, ov := islands(t, 1)
				h := hosts[0]
				a, err := h.run(t.Context(), ov, "web")
				if err != nil {
					t.Fatal(err)
				}
				h.spawn(h.reconcileLoop)
				synctest.Wait()
				end(t, h, ov)
				if !leased(h, ov, a) {
					t.Fatal("nothing to give back")
				}
				<-time.After(2 * reconcileSoon) // of the bubble
				synctest.Wait()
				if leased(h, ov, a) {
					t.Error("it is still leased")
				}
			})
		})
	}
}

// TestReconcileOnAFullDisk: that there is no room to write one lease down is no reason to keep another that nobody uses.
func TestReconcileOnAFullDisk(t *testing.T) {
	ctx := t.Context()
	hosts, ov := islands(t, 1)
	h := hosts[0]
	second := &Network{ID: newID(), Name: "second", Driver: netdriver.TypeOverlay, Scope: scopeGlobal}
	if err := h.createGlobal(ctx, second); err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{ov, second.ID} { // one of them is looked at first
		other := second.ID
		if network == second.ID {
			other = ov
		}
		a, err := h.run(ctx, network, "web")
		if err != nil {
			t.Fatal(err)
		}
		value, err := json.Marshal(h.leaseFor("gone", "gone", "gone", false))
		if err != nil {
			t.Fatal(err)
		}
		left := addressKey(other, netip.MustParseAddr("10.0.0.9"))
		if other == second.ID {
			left = addressKey(other, second.Subnets[0].Prefix.Addr().Next().Next())
		}
		if _, err := h.link.Store.Txn(ctx, store.Txn{Then: []store.Op{{Key: addressKey(network, a), Delete: true}, {Key: left, Value: value}}}); err != nil {
			t.Fatal(err)
		}
		free := h.link.Store
		h.link.Store = &lagging{Store: free, refuse: addressKey(network, a)}
		if err := h.reconcileLeases(ctx); !errdefs.IsResourceExhausted(err) {
			t.Errorf("%v", err)
		}
		if _, there, err := store.Get(ctx, free, left, true); there || err != nil {
			t.Errorf("the lease of no container: %v, %v", there, err)
		}
		h.link.Store = free
		h.end(ctx, network, "web", false)
		if err := h.reconcileLeases(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReserve: a host that is cut off gives addresses at once, the same again after it got them back, and none that the
// others give; when it is back, they are addresses like any other, and the reserve is whole again.
func TestReserve(t *testing.T) {
	ctx := t.Context()
	hosts, ov := islands(t, 2)
	h1, h2 := hosts[0], hosts[1]
	must := func(h *island, name, want string) {
		t.Helper()
		if a, err := h.run(ctx, ov, name); err != nil || a.String() != want {
			t.Errorf("%s on %s: %s, %v; want %s", name, h.cfg.NodeName, a, err, want)
		}
	}
	must(h1, "a", "10.0.0.2")
	must(h2, "b", "10.0.0.3")
	h2.link.sever(t)
	h2.fake.missing = true
	must(h1, "c", "10.0.0.4")
	must(h2, "d", "10.0.0.49") // nobody has looked at the reserve before: it was there from the network's first moment on
	h2.end(ctx, ov, "b", false)
	must(h2, "e", "10.0.0.3") // its own once more
	h2.end(ctx, ov, "d", false)
	must(h2, "f", "10.0.0.49")
	for i := range 6 {
		must(h2, fmt.Sprint("g", i), fmt.Sprintf("10.0.0.%d", 50+i))
	}
	if _, err := h2.run(ctx, ov, "one too many"); !errdefs.IsUnavailable(err) {
		t.Errorf("beyond the reserve: %v", err)
	}
	h2.end(ctx, ov, "g5", false)
	h2.link.cut, h2.fake.missing = false, false
	if err := h2.reconcileLeases(ctx); err != nil {
		t.Fatal(err)
	}
	held, err := h1.addresses(ctx, ov)
	if err != nil {
		t.Fatal(err)
	}
	for a, name := range h2.used() {
		if held[a].Name != name {
			t.Errorf("%s is %s's, the cluster says %+v", a, name, held[a])
		}
	}
	words := reserveWords(held, func(node string) string { return node })
	if got := len(words["host2"]); got != 7 {
		t.Errorf("the reserve is %v", words["host2"])
	}
	list, _ := h2.spares.list("host2", ov)
	if len(list) != 7 {
		t.Errorf("the list is %v", list)
	}
	n, err := h1.network(ctx, ov)
	if err != nil {
		t.Fatal(err)
	}
	static := func(h *island, a string) error {
		_, err := h.takeAddress(ctx, n, ipam.Pools(n.Subnets)[0], netip.MustParseAddr(a), h.leaseFor(newID(), "static", newID(), true))
		return err
	}
	own := words["host2"][0].String()
	if err := static(h1, own); !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "is in the reserve of host2") {
		t.Errorf("another host's reserve: %v", err)
	}
	if err := static(h2, own); err != nil {
		t.Errorf("one's own: %v", err)
	}
	if list, _ := h2.spares.list("host2", ov); len(list) != 6 {
		t.Errorf("the list has an address that is taken: %v", list)
	}
	must(h2, "h", "10.0.0.5")
	must(h1, "i", "10.0.0.6")
}

// TestNewerFieldsOfALease: what a newer release has noted with an address outlives what this one does with it, as long as
// the same container has it, and does not pass to the next.
func TestNewerFieldsOfALease(t *testing.T) {
	ctx := t.Context()
	hosts, ov := islands(t, 2)
	h := hosts[0]
	n, err := h.network(ctx, ov)
	if err != nil {
		t.Fatal(err)
	}
	asked := netip.MustParseAddr("10.0.0.7")
	key := addressKey(ov, asked)
	id := newID()
	b := &box{id: id, spec: container.Spec{ID: id, Name: "kept"}}
	h.boxes[id], h.names["kept"] = b, id
	take := func(holder, endpoint string) {
		t.Helper()
		if _, err := h.takeAddress(ctx, n, ipam.Pools(n.Subnets)[0], asked, h.leaseFor(holder, "kept", endpoint, true)); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, want bool) {
		t.Helper()
		p, ok, err := store.Get(ctx, h.cl.Store(), key, true)
		if err != nil || !ok || strings.Contains(string(p.Value), `"weight":9`) != want {
			t.Errorf("%s: %s, %v", what, p.Value, err)
		}
	}
	take(id, "")
	p, _, err := store.Get(ctx, h.cl.Store(), key, true)
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(p.Value), "{", `{"weight":9,`, 1)
	if _, err := h.cl.Store().Txn(ctx, store.Txn{Then: []store.Op{{Key: key, Value: []byte(newer)}}}); err != nil {
		t.Fatal(err)
	}
	ep := container.Endpoint{ID: newID(), NetworkID: ov, Driver: netdriver.TypeOverlay, Address: netip.PrefixFrom(asked, 26)}
	take(id, ep.ID)
	check("the container starts", true)
	h.releaseAddress(ctx, &Network{ID: ov, Scope: scopeGlobal}, asked, ep.ID)
	check("it stops", true)
	// The cluster's word is behind what the container has: it is brought up to date.
	b.spec.Networks = map[string]*network.EndpointSettings{"ov": {IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: asked}}}
	b.status = container.Status{State: mobycontainer.StateRunning, Endpoints: []container.Endpoint{ep}}
	if err := h.reconcileLeases(ctx); err != nil {
		t.Fatal(err)
	}
	if held, err := h.addresses(ctx, ov); err != nil || held[asked].Endpoint != ep.ID {
		t.Fatalf("%+v, %v", held[asked], err)
	}
	check("it is brought up to date", true)
	// One of the reserve that a container takes is no longer what was written there.
	held, err := h.addresses(ctx, ov)
	if err != nil {
		t.Fatal(err)
	}
	for a, l := range held {
		if l.spare() && l.Node == "host1" {
			asked = a
		}
	}
	key = addressKey(ov, asked)
	if _, err := h.cl.Store().Txn(ctx, store.Txn{Then: []store.Op{{Key: key, Value: []byte(`{"node":"host1","weight":9}`)}}}); err != nil {
		t.Fatal(err)
	}
	take(newID(), newID())
	check("another has the address", false)
}

// TestReserveGrowsWithTheCluster: a network made on a host alone has no reserves; they come with the second host, smaller
// ones with more, and a host takes its own for want of anything else.
func TestReserveGrowsWithTheCluster(t *testing.T) {
	ctx := t.Context()
	hosts, _ := islands(t, 3)
	members := hosts[0].fake.members
	sizes := func(n int) (out []int) {
		for _, h := range hosts {
			h.fake.members = members[:n]
		}
		for range 2 {
			for _, h := range hosts[:n] {
				if err := h.reconcileLeases(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
		all, _, err := hosts[0].globalNetworks(ctx, true)
		if err != nil {
			t.Fatal(err)
		}
		small, err := pickNetwork(all, "small")
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range hosts[:n] {
			list, _ := h.spares.list(h.cfg.NodeName, small.ID)
			out = append(out, len(list))
		}
		return out
	}
	hosts[0].fake.members = members[:1]
	small := &Network{ID: newID(), Name: "small", Driver: netdriver.TypeOverlay, Scope: scopeGlobal, Subnets: lan(t, "10.1.0.0/27")}
	if err := hosts[0].createGlobal(ctx, small); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]string{1: "[0]", 2: "[3 3]", 3: "[2 2 2]"} { // of 29 usable
		if got := fmt.Sprint(sizes(n)); got != want {
			t.Errorf("%d hosts: %s, want %s", n, got, want)
		}
	}
	sizes(3)
	for i := range 29 - 4 { // all but the reserves of the two others
		if _, err := hosts[0].run(ctx, small.ID, fmt.Sprint("c", i)); err != nil {
			t.Fatalf("container %d: %v", i, err)
		}
	}
	if _, err := hosts[0].run(ctx, small.ID, "full"); !errdefs.IsResourceExhausted(err) {
		t.Errorf("a full network: %v", err)
	}
}

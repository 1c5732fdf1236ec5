package engine

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/store/memstore"
	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/ipam"
	"github.com/minictl/minictl/netdriver/overlay"
	"github.com/minictl/minictl/runtime/container"
)

func TestPickNetwork(t *testing.T) {
	all := []*Network{{ID: "abc1", Name: "net"}, {ID: "abd2", Name: "other"}, {ID: "fff3", Name: "abc1"}, {ID: "eee4", Name: "same"}, {ID: "eee5", Name: "same"}}
	for ref, want := range map[string]string{"net": "abc1", "abc1": "abc1", "abd": "abd2", "fff3": "fff3", "other": "abd2"} {
		if n, err := pickNetwork(all, ref); err != nil || n.ID != want {
			t.Errorf("%s: %v, %v", ref, n, err)
		}
	}
	for _, ref := range []string{"nope", ""} {
		if _, err := pickNetwork(all, ref); !errdefs.IsNotFound(err) {
			t.Errorf("%q: %v", ref, err)
		}
	}
	for _, ref := range []string{"same", "ab", "eee"} {
		if _, err := pickNetwork(all, ref); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q is ambiguous: %v", ref, err)
		}
	}
}

// TestCreateGlobal makes networks on five hosts at once: names, VNIs and subnets are unique and in order.
func TestCreateGlobal(t *testing.T) {
	st := memstore.New()
	const hosts, each = 5, 6
	var wg sync.WaitGroup
	for h := range hosts {
		e := newHost(t, st, fmt.Sprintf("host%d", h))
		wg.Go(func() {
			for i := range each {
				req := network.CreateRequest{Name: fmt.Sprintf("n%d-%d", h, i), Driver: "overlay"}
				if _, err := e.NetworkCreate(t.Context(), req); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	e := newHost(t, st, "reader")
	all, _, err := e.globalNetworks(t.Context(), true)
	if err != nil || len(all) != hosts*each {
		t.Fatalf("%d networks, %v", len(all), err)
	}
	var vnis []uint32
	var subnets []netip.Prefix
	for _, n := range all {
		vnis = append(vnis, n.VNI)
		subnets = append(subnets, n.Subnets[0].Prefix)
	}
	slices.Sort(vnis)
	slices.SortFunc(subnets, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	next := netip.MustParseAddr("10.0.0.0").As4()
	for i := range all {
		if vnis[i] != firstVNI+uint32(i) {
			t.Errorf("VNI %d, want %d", vnis[i], firstVNI+i)
		}
		if next[2] == 2 {
			next[2]++ // this host routes 10.0.2.0/24
		}
		if want := netip.PrefixFrom(netip.AddrFrom4(next), 24); subnets[i] != want {
			t.Errorf("subnet %s, want %s", subnets[i], want)
		}
		next[2]++
	}
	if _, err := e.NetworkCreate(t.Context(), network.CreateRequest{Name: "n0-0", Driver: "overlay"}); !errdefs.IsConflict(err) {
		t.Errorf("a name twice: %v", err)
	}
	overlap := network.CreateRequest{Name: "o", Driver: "overlay", IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.0.0.128/25")}}}}
	if _, err := e.NetworkCreate(t.Context(), overlap); !errdefs.IsPermissionDenied(err) {
		t.Errorf("an overlapping subnet: %v", err)
	}
}

// TestAskedVNI gives a network the VXLAN identifier that was asked for, once, and passes over it afterwards.
func TestAskedVNI(t *testing.T) {
	e := newHost(t, memstore.New(), "host")
	create := func(name, asked string) error {
		req := network.CreateRequest{Name: name, Driver: "overlay"}
		if asked != "" {
			req.Options = map[string]string{overlay.OptionVNI: asked}
		}
		_, err := e.NetworkCreate(t.Context(), req)
		return err
	}
	for _, c := range []struct {
		name, asked string
		want        uint32
	}{{"asked", "256", 256}, {"next", "", 257}, {"far", "16777215", lastVNI}, {"low", "7", 7}, {"last", "", 258}} {
		if err := create(c.name, c.asked); err != nil {
			t.Fatal(err)
		}
		n, err := e.findNetwork(t.Context(), c.name)
		if err != nil || n.VNI != c.want {
			t.Errorf("%s has VNI %d (%v), want %d", c.name, n.VNI, err, c.want)
		}
	}
	if err := create("twice", "7"); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "network low has the VXLAN identifier 7") {
		t.Errorf("an identifier twice: %v", err)
	}
	if err := create("list", "8,9"); !errdefs.IsNotImplemented(err) {
		t.Errorf("two identifiers: %v", err)
	}
}

// TestTakeGlobal takes addresses on five hosts at once: the lowest ones, none twice, and a freed one again.
func TestTakeGlobal(t *testing.T) {
	st := memstore.New()
	first := newHost(t, st, "first")
	resp, err := first.NetworkCreate(t.Context(), network.CreateRequest{Name: "ov", Driver: "overlay"})
	if err != nil {
		t.Fatal(err)
	}
	const hosts, each = 5, 20
	var mu sync.Mutex
	taken := map[netip.Addr]string{}
	var wg sync.WaitGroup
	for h := range hosts {
		e := newHost(t, st, fmt.Sprintf("host%d", h))
		wg.Go(func() {
			n, err := e.findNetwork(t.Context(), resp.ID)
			if err != nil {
				t.Error(err)
				return
			}
			for i := range each {
				l := lease{Node: e.cfg.NodeName, Endpoint: fmt.Sprintf("%d-%d", h, i), Name: "c"}
				p, err := e.takeAddress(t.Context(), n, ipam.Pools(n.Subnets)[0], netip.Addr{}, l)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if other, twice := taken[p.Addr()]; twice {
					t.Errorf("%s was given to %s and %s", p, other, l.Endpoint)
				}
				taken[p.Addr()] = l.Endpoint
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	a := netip.MustParseAddr("10.0.0.2")
	for range hosts * each {
		if _, ok := taken[a]; !ok {
			t.Errorf("%s was left out", a)
		}
		a = a.Next()
	}
	n, err := first.findNetwork(t.Context(), "ov")
	if err != nil {
		t.Fatal(err)
	}
	if err := first.NetworkRemove(t.Context(), "ov"); !errdefs.IsPermissionDenied(err) {
		t.Errorf("removed while in use: %v", err)
	}
	free := netip.MustParseAddr("10.0.0.9")
	first.releaseAddress(t.Context(), n, free, "somebody else")
	if p, err := first.takeAddress(t.Context(), n, ipam.Pools(n.Subnets)[0], free, lease{}); err == nil {
		t.Errorf("%s was given back by a stranger", p)
	}
	first.releaseAddress(t.Context(), n, free, taken[free])
	if p, err := first.takeAddress(t.Context(), n, ipam.Pools(n.Subnets)[0], netip.Addr{}, lease{Node: "first", Endpoint: "e", Container: "gone"}); err != nil || p.Addr() != free {
		t.Errorf("took %s, %v; want %s", p, err, free)
	}
	// A lease of this host that no container stands behind is a crash's: it is found and given back.
	if err := first.reconcileLeases(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p, err := first.takeAddress(t.Context(), n, ipam.Pools(n.Subnets)[0], free, lease{Endpoint: "f"}); err != nil || p.Addr() != free {
		t.Errorf("took %s, %v; want %s", p, err, free)
	}
}

// TestRemovedOnce: of several who remove a network, each taking it for there, one has done it.
func TestRemovedOnce(t *testing.T) {
	st := memstore.New()
	h1, h2 := newHost(t, st, "h1"), newHost(t, st, "h2")
	n := &Network{ID: newID(), Name: "ov", Driver: "overlay", Scope: scopeGlobal}
	if err := h1.createGlobal(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if err := h1.removeGlobal(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if err := h2.removeGlobal(t.Context(), n); !errdefs.IsNotFound(err) {
		t.Errorf("the second: %v", err)
	}
}

// lagging answers from what a host knew at some time, if that is set, unless it is asked for what is decided; refuse are keys that cannot be
// written, nor removed.
type lagging struct {
	store.Store
	knew   []store.Pair
	refuse string
}

func (l *lagging) Range(ctx context.Context, prefix string, fresh bool) ([]store.Pair, store.Revision, error) {
	if fresh || l.knew == nil {
		return l.Store.Range(ctx, prefix, fresh)
	}
	return slices.DeleteFunc(slices.Clone(l.knew), func(p store.Pair) bool { return !strings.HasPrefix(p.Key, prefix) }), 1, nil
}

func (l *lagging) Txn(ctx context.Context, t store.Txn) (store.Revision, error) {
	if slices.ContainsFunc(t.Then, func(op store.Op) bool { return l.refuse != "" && op.Key == l.refuse }) {
		return 0, fmt.Errorf("write raft.db: %w", errdefs.ErrResourceExhausted)
	}
	return l.Store.Txn(ctx, t)
}

// TestPruneGoesOn: a network that another host has removed meanwhile, and one that cannot be removed, keep none of the others.
func TestPruneGoesOn(t *testing.T) {
	st := memstore.New()
	l := &lagging{Store: st}
	h1, h2 := newHost(t, st, "h1"), newHost(t, l, "h2")
	ids := map[string]string{}
	for _, name := range []string{"a", "b", "c", "d"} {
		n := &Network{ID: newID(), Name: name, Driver: "overlay", Scope: scopeGlobal, Created: time.Now()}
		if err := h1.createGlobal(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		ids[name] = n.ID
	}
	var err error
	if l.knew, _, err = st.Range(t.Context(), "", true); err != nil {
		t.Fatal(err)
	}
	l.refuse = keyNetwork + ids["c"]
	if err := h1.NetworkRemove(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	r, err := h2.NetworkPrune(t.Context(), api.Filters{})
	slices.Sort(r.NetworksDeleted)
	if !slices.Equal(r.NetworksDeleted, []string{"b", "d"}) {
		t.Errorf("removed %v", r.NetworksDeleted)
	}
	if !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "remove network c") || !strings.HasPrefix(err.Error(), "removed ") {
		t.Errorf("what remains: %v", err)
	}
}

// TestPruneLeavesWhatIsUsedHere: nobody has to decide on a network that a container of this very host uses.
func TestPruneLeavesWhatIsUsedHere(t *testing.T) {
	l := &lagging{Store: memstore.New()}
	e := newHost(t, l, "a")
	n := &Network{ID: newID(), Name: "used", Driver: "overlay", Scope: scopeGlobal, Created: time.Now()}
	if err := e.createGlobal(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	l.refuse = keyNetwork + n.ID
	b := newBox(t, e, "web")
	b.status.Endpoints = []container.Endpoint{{ID: newID(), NetworkID: n.ID, Driver: netdriver.TypeOverlay, Key: "k"}}
	if r, err := e.NetworkPrune(t.Context(), api.Filters{}); err != nil || len(r.NetworksDeleted) > 0 {
		t.Errorf("removed %v, %v", r.NetworksDeleted, err)
	}
	b.status.Endpoints = nil
	if _, err := e.NetworkPrune(t.Context(), api.Filters{}); !errdefs.IsResourceExhausted(err) {
		t.Errorf("when nobody uses it: %v", err)
	}
}

func TestExhausted(t *testing.T) {
	e := newHost(t, memstore.New(), "host")
	n := &Network{ID: "n", Name: "small", Scope: scopeLocal, Subnets: lan(t, "10.9.0.0/30")}
	if p, err := e.takeAddress(t.Context(), n, ipam.Pools(n.Subnets)[0], netip.Addr{}, lease{Endpoint: "a"}); err != nil || p.String() != "10.9.0.2/30" {
		t.Fatalf("%s, %v", p, err)
	}
	if _, err := e.takeAddress(t.Context(), n, ipam.Pools(n.Subnets)[0], netip.Addr{}, lease{Endpoint: "b"}); !errdefs.IsResourceExhausted(err) {
		t.Errorf("a full network: %v", err)
	}
	if _, err := e.takeAddress(t.Context(), n, ipam.Pools(n.Subnets)[0], netip.MustParseAddr("10.9.0.2"), lease{Endpoint: "b"}); !errdefs.IsPermissionDenied(err) {
		t.Errorf("a taken address: %v", err)
	}
	e.releaseAddress(t.Context(), n, netip.MustParseAddr("10.9.0.2"), "a")
	if _, err := e.takeAddress(t.Context(), n, ipam.Pools(n.Subnets)[0], netip.Addr{}, lease{Endpoint: "b"}); err != nil {
		t.Error(err)
	}
}

package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/runtime/container"
)

// TestCautious: after a takeover the missing hosts may still be giving addresses, subnets and identifiers, and another one
// may have taken over, too: what each side gives, and sets aside for a host that joins it, the others do not.
func TestCautious(t *testing.T) {
	ctx := t.Context()
	addrs, nets, vnis := map[netip.Addr]string{}, map[netip.Prefix]string{}, map[uint32]string{}
	for _, side := range []struct {
		epoch    string
		cautious bool
	}{{"1.00000000", false}, {"2.12345678", true}, {"2.89abcdef", true}} {
		hosts, _ := islands(t, 2)
		wide := &Network{ID: newID(), Name: "wide", Driver: netdriver.TypeOverlay, Scope: scopeGlobal, Subnets: lan(t, "10.9.0.0/16")}
		if err := hosts[0].createGlobal(ctx, wide); err != nil {
			t.Fatal(err)
		}
		h, ov := hosts[1], wide.ID
		h.fake.epoch, h.fake.cautious = side.epoch, side.cautious
		mine := map[netip.Addr]bool{}
		for i := range 3 {
			a, err := h.run(ctx, ov, fmt.Sprint("web", i))
			if err != nil {
				t.Fatal(err)
			}
			mine[a] = true
		}
		third := cluster.Member{Node: cluster.Node{ID: "host3", Name: "host3"}, Alive: true}
		h.fake.members = append(slices.Clone(h.fake.members), third)
		h.fake.self = third.Node
		if err := h.reconcileLeases(ctx); err != nil {
			t.Fatal(err)
		}
		list, _ := h.spares.list("host3", ov)
		if len(list) == 0 {
			t.Error("no reserve for who has joined")
		}
		for a := range list {
			mine[a] = true
		}
		for a := range mine {
			if other, twice := addrs[a]; twice {
				t.Errorf("%s: %s in %s, too", a, side.epoch, other)
			}
			addrs[a] = side.epoch
		}
		for i := range 2 {
			n := &Network{ID: newID(), Name: fmt.Sprint("net", i), Driver: netdriver.TypeOverlay, Scope: scopeGlobal}
			if err := h.createGlobal(ctx, n); err != nil {
				t.Fatal(err)
			}
			p := n.Subnets[0].Prefix
			if nets[p] != "" || vnis[n.VNI] != "" {
				t.Errorf("%s and %d: %s in %q and %q, too", p, n.VNI, side.epoch, nets[p], vnis[n.VNI])
			}
			nets[p], vnis[n.VNI] = side.epoch, side.epoch
		}
		h.fake.cautious = false
		if a, err := h.run(ctx, ov, "last"); err != nil || a.Compare(netip.MustParseAddr("10.9.0.5")) > 0 {
			t.Errorf("nobody is missing: %s, %v", a, err)
		}
	}
}

// TestCautiousReserves: a network that a host brings from another side has containers there, which may have addresses from
// either end of it, and have those that are known: nobody's reserve is set aside there.
func TestCautiousReserves(t *testing.T) {
	hosts, _ := islands(t, 2)
	h := hosts[1]
	h.fake.epoch, h.fake.cautious = "2.12345678", true
	n := &Network{ID: newID(), Name: "brought", Driver: netdriver.TypeOverlay, Scope: scopeGlobal, VNI: 4711, Subnets: lan(t, "10.9.0.0/24")}
	first := h.setAside(n)
	if len(first) != 16 {
		t.Fatal(first)
	}
	addrs := slices.SortedFunc(maps.Keys(first), netip.Addr.Compare)
	own, others := addrs[0], addrs[1]
	id := newID()
	h.boxes[id] = &box{id: id, spec: container.Spec{ID: id, Name: "own"}, status: container.Status{Endpoints: []container.Endpoint{
		{ID: newID(), NetworkID: n.ID, Driver: netdriver.TypeOverlay, Address: netip.PrefixFrom(own, 24)},
	}}}
	h.fake.records = []cluster.Owned{{Record: cluster.Record{ID: newID(), Network: n.ID, Address: others, PrefixLen: 24}}}
	if err := h.keepOwnNetwork(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	held, err := h.leasesOf(t.Context(), n.ID, true)
	if _, taken := held[own]; err != nil || len(held) != 16 || taken {
		t.Fatalf("%v, %v", held, err)
	}
	if l, taken := held[others]; taken {
		t.Errorf("%s is a container's on another host of that side, and set aside: %+v", others, l)
	}
	for a := range held {
		if last := a.As4()[3]; last < 64 || last > 191 {
			t.Errorf("%s is set aside", a)
		}
	}
}

// TestClash: a container comes back with an address that another has been given since. It is named, its record is
// withdrawn, its address is not taken away from the other; when that one goes, all is well again.
func TestClash(t *testing.T) {
	ctx := t.Context()
	hosts, ov := islands(t, 2)
	h1, h2 := hosts[0], hosts[1]
	if _, err := h1.run(ctx, ov, "web"); err != nil {
		t.Fatal(err)
	}
	// The side that went on knows nothing of it.
	a := netip.MustParseAddr("10.0.0.2")
	if _, err := h1.link.Store.Txn(ctx, store.Txn{Then: []store.Op{{Key: addressKey(ov, a), Delete: true}}}); err != nil {
		t.Fatal(err)
	}
	if got, err := h2.run(ctx, ov, "db"); err != nil || got != a {
		t.Fatal(got, err)
	}
	endpoint := h1.boxes[h1.names["web"]].status.Endpoints[0].ID
	if err := h1.reconcileLeases(ctx); err != nil {
		t.Fatal(err)
	}
	words := strings.Join(h1.clashWords(), "\n")
	if !strings.Contains(words, "web has the address 10.0.0.2 on ov, which belongs to db on host2: minictl restart web") || !h1.clashes.has(endpoint) {
		t.Errorf("%q", words)
	}
	b := h1.boxes[h1.names["web"]]
	b.op.Lock() // it is being restarted, and has told the others of its end
	if err := h1.reconcileLeases(ctx); !errors.Is(err, errBusy) {
		t.Error(err)
	}
	b.op.Unlock()
	if len(h1.fake.own) > 0 || !h1.clashes.has(endpoint) {
		t.Errorf("in the middle of a step it is published again: %v", h1.fake.own)
	}
	h1.end(ctx, ov, "web", false)
	held, err := h2.addresses(ctx, ov)
	if err != nil || held[a].Name != "db" {
		t.Errorf("the other's lease is %+v, %v", held[a], err)
	}
	if got, err := h1.run(ctx, ov, "web"); err != nil || got == a {
		t.Errorf("restarted with %s, %v", got, err)
	}
	if err := h1.reconcileLeases(ctx); err != nil || len(h1.clashes.all()) > 0 {
		t.Errorf("%v, %v", h1.clashWords(), err)
	}
}

// TestClashEnds: the other's lease was from before a takeover, and goes when its host comes back: nobody waits for the next
// regular look, during which the container would have no name.
func TestClashEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		hosts, ov := islands(t, 2)
		h1, h2 := hosts[0], hosts[1]
		if _, err := h1.run(ctx, ov, "web"); err != nil {
			t.Fatal(err)
		}
		if _, err := h1.link.Store.Txn(ctx, store.Txn{Then: []store.Op{{Key: addressKey(ov, netip.MustParseAddr("10.0.0.2")), Delete: true}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := h2.run(ctx, ov, "db"); err != nil {
			t.Fatal(err)
		}
		h1.spawn(h1.reconcileLoop)
		synctest.Wait()
		if len(h1.clashes.all()) != 1 {
			t.Errorf("%v", h1.clashWords())
		}
		h2.end(ctx, ov, "db", false)
		<-time.After(2 * reconcileSoon) // of the bubble
		synctest.Wait()
		if len(h1.clashes.all()) > 0 {
			t.Errorf("not well again: %v", h1.clashWords())
		}
	})
}

// TestUnheard: what a host that is cut off does not know may be there all the same, and it says so; to whoever would remove
// it, it is not gone.
func TestUnheard(t *testing.T) {
	ctx := t.Context()
	hosts, _ := islands(t, 2)
	h1, h2 := hosts[0], hosts[1]
	look := func() error {
		_, err := h2.findNetwork(ctx, "new")
		return err
	}
	if err := look(); !errdefs.IsNotFound(err) || err.Error() != "network new not found" {
		t.Errorf("when the other is asked: %v", err)
	}
	h2.link.sever(t)
	h2.fake.missing = true
	h2.fake.members = []cluster.Member{{Node: cluster.Node{ID: "host1", Name: "host1", Addr: netip.MustParseAddrPort("192.0.2.1:7946")}, Voter: true}}
	if err := h1.createGlobal(ctx, &Network{ID: newID(), Name: "new", Driver: netdriver.TypeOverlay, Scope: scopeGlobal}); err != nil {
		t.Fatal(err)
	}
	want := "network new not found on this host, which may not have heard of it: host1 (192.0.2.1), which decides for this cluster, has not been heard"
	if err := look(); !errdefs.IsNotFound(err) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("cut off: %v", err)
	}
	if err := h2.NetworkRemove(ctx, "new"); !errdefs.IsUnavailable(err) || errdefs.IsNotFound(err) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("removing it: %v", err)
	}
}

// TestNetworkGone: the network of a running container was removed on the side that went on.
func TestNetworkGone(t *testing.T) {
	ctx := t.Context()
	hosts, ov := islands(t, 2)
	h1, h2 := hosts[0], hosts[1]
	h1.link.sever(t)
	h1.fake.missing = true
	if _, err := h1.run(ctx, ov, "web"); err != nil {
		t.Fatal(err)
	}
	if err := h2.NetworkRemove(ctx, "ov"); err != nil {
		t.Fatal(err)
	}
	h1.link.cut, h1.fake.missing = false, false
	if err := h1.reconcileLeases(ctx); err != nil {
		t.Fatal(err)
	}
	says := func(ep container.Endpoint, want string) {
		t.Helper()
		b := h1.boxes[h1.names["web"]]
		ep.ID, ep.NetworkID, ep.Driver = b.status.Endpoints[0].ID, ov, netdriver.TypeOverlay
		b.status.Endpoints[0] = ep
		got := strings.Join(h1.clashWords(), "\n")
		if was := "it was removed, or made, while this host was apart from the others."; !strings.Contains(got, was) || !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	says(container.Endpoint{NetworkName: "ov", Key: ov[:12]}, "web is on a network, ov, that the cluster does not have")
	says(container.Endpoint{NetworkName: "ov", Key: ov[:12]}, "Remove it, or run it anew on another.")
	says(container.Endpoint{NetworkName: "ov", Key: "ov"}, "Make one of that name and then minictl restart web, or remove it.")
	again := &Network{ID: newID(), Name: "ov", Driver: netdriver.TypeOverlay, Scope: scopeGlobal}
	if err := h2.createGlobal(ctx, again); err != nil {
		t.Fatal(err)
	}
	says(container.Endpoint{NetworkName: "ov", Key: "ov"}, "There is another one named ov now: minictl restart web takes it there.")
	if err := h2.NetworkRemove(ctx, again.ID); err != nil {
		t.Fatal(err)
	}
	if _, known := h1.spares.list("host1", ov); known {
		t.Error("the reserve of a removed network is kept")
	}
	if pairs, _, err := h1.link.Range(ctx, keyAddress, true); err != nil || len(pairs) > 0 {
		t.Errorf("left over: %v, %v", pairs, err)
	}
}

// TestKeepOwnNetworks: what an old leader made alone becomes the cluster's if it clashes with nothing, and is otherwise
// left alone.
func TestKeepOwnNetworks(t *testing.T) {
	ctx := t.Context()
	hosts, _ := islands(t, 2)
	h := hosts[0]
	for _, n := range []*Network{
		{ID: "1", Name: "solo", VNI: 300, Subnets: lan(t, "10.5.0.0/24")},
		{ID: "2", Name: "ov", VNI: 301, Subnets: lan(t, "10.6.0.0/24")},
		{ID: "3", Name: "same-vni", VNI: firstVNI, Subnets: lan(t, "10.7.0.0/24")},
		{ID: "4", Name: "same-subnet", VNI: 302, Subnets: lan(t, "10.0.0.0/28")},
	} {
		n.Driver, n.Scope = netdriver.TypeOverlay, scopeGlobal
		b, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		h.fake.before = append(h.fake.before, cluster.BeforePair{Pair: store.Pair{Key: keyNetwork + n.ID, Value: b}})
	}
	if err := h.reconcileLeases(ctx); err != nil {
		t.Fatal(err)
	}
	all, _, err := hosts[1].globalNetworks(ctx, true)
	var got []string
	for _, n := range all {
		got = append(got, n.Name)
	}
	slices.Sort(got)
	if err != nil || strings.Join(got, " ") != "ov solo" || h.fake.before != nil {
		t.Errorf("%v, %v, left %v", got, err, h.fake.before)
	}
	if held, err := h.addresses(ctx, "1"); err != nil || len(reserveWords(held, func(n string) string { return n })["host2"]) == 0 {
		t.Errorf("no reserves on the network that was kept: %v, %v", held, err)
	}
}

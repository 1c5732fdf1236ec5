package engine

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	"github.com/minictl/minictl/cluster/store/memstore"
	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/ipam"
	"github.com/minictl/minictl/runtime/container"
)

func joints(names ...string) []joint {
	var out []joint
	for _, n := range names {
		kind, name, _ := strings.Cut(n, " ")
		j := joint{network: &Network{ID: name, Name: name, Driver: netdriver.TypeBridge, Subnets: make([]netdriver.Subnet, 1)}, key: name, set: &network.EndpointSettings{}}
		switch kind {
		case "overlay":
			j.network.Driver = netdriver.TypeOverlay
		case "internal":
			j.network.Internal = true
		case "high":
			j.set.GwPriority = 5
		case "low":
			j.set.GwPriority = -5
		}
		out = append(out, j)
	}
	return out
}

func TestGatewayChoice(t *testing.T) {
	for _, v := range []struct {
		joints string
		want   int
		bridge bool // one more endpoint, on the gateway bridge
	}{
		{"", -1, false},
		{"bridge b", 0, false},
		{"bridge b, bridge a", 1, false},
		{"high b, bridge a", 0, false},
		{"low a, bridge b", 1, false},
		{"high a, high b", 0, false},
		{"overlay a, bridge b", 1, false},
		{"internal a, bridge b", 1, false},
		{"overlay a", -1, true},
		{"overlay a, internal b", -1, true},
		{"internal a", -1, false},
	} {
		var in []joint
		if v.joints != "" {
			in = joints(strings.Split(v.joints, ", ")...)
		}
		if got := gatewayOf(in, false); got != v.want {
			t.Errorf("%s: gateway %d, want %d", v.joints, got, v.want)
		}
		if got := needsGatewayBridge(in); got != v.bridge {
			t.Errorf("%s: gateway bridge %v", v.joints, got)
		}
	}
}

func TestInterfaceNames(t *testing.T) {
	named := joints("bridge a", "bridge b", "bridge c")
	named[1].set.DriverOpts = map[string]string{optionIfname: "eth0"}
	have := []container.Endpoint{
		{NetworkID: "b", Key: "b", Interface: "eth3"}, {NetworkID: "gone", Key: "gone", Interface: "eth0", NetworkName: "gone"},
	}
	twice := joints("bridge a", "bridge b")
	for i := range twice {
		twice[i].set.DriverOpts = map[string]string{optionIfname: "wan0"}
	}
	for _, v := range []struct {
		what   string
		joints []joint
		have   []container.Endpoint
		want   string
	}{
		{"in order", joints("bridge a", "bridge b"), nil, "eth0 eth1"},
		{"around a wish", named, nil, "eth1 eth0 eth2"},
		{"around what is and what goes", joints("bridge a", "bridge b", "bridge c"), have, "eth1 eth3 eth2"},
		{"twice", twice, nil, "wan0 of network b is in use on network a"},
	} {
		err := nameInterfaces(v.joints, v.have)
		var got []string
		for _, j := range v.joints {
			got = append(got, j.iface)
		}
		if err != nil {
			got = []string{err.Error()}
		}
		if s := strings.Join(got, " "); !strings.Contains(s, v.want) {
			t.Errorf("%s: %s, want %s", v.what, s, v.want)
		}
	}
}

func TestEndpointOptions(t *testing.T) {
	for name, ok := range map[string]bool{
		"eth0": true, "wan-1.7": true, "": false, "lo": false, "..": false, "a/b": false, "a b": false, "0123456789abcdef": false,
	} {
		if err := checkDriverOpts(map[string]string{optionIfname: name}); (err == nil) != ok || err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("ifname %q: %v", name, err)
		}
	}
	for s, ok := range map[string]bool{
		"net.ipv4.conf.IFNAME.log_martians=1": true, "net.ipv4.conf.ifname.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2": true,
		"": false, "net.ipv4.conf.eth0.log_martians=1": false, "net.ipv4.ip_forward=1": false, "kernel.a.b.IFNAME.c=1": false,
		"net.ipv4.conf.IFNAME.log_martians": false, "net...IFNAME.x=1": false, "net.a/../b.c.IFNAME.d=1": false,
	} {
		if err := checkDriverOpts(map[string]string{optionSysctls: s}); (err == nil) != ok || err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("sysctls %q: %v", s, err)
		}
	}
	if err := checkDriverOpts(map[string]string{"of.another.driver": "x"}); err != nil {
		t.Error(err)
	}
}

// FuzzEndpointSysctls wants that no setting gets out of the endpoint's own interface.
func FuzzEndpointSysctls(f *testing.F) {
	f.Add("net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.ifname.forwarding=0")
	f.Fuzz(func(t *testing.T, s string) {
		keys, values, err := endpointSysctls(s)
		if err != nil {
			return
		}
		if len(keys) != len(values) || len(keys) == 0 {
			t.Errorf("%q: %d keys, %d values", s, len(keys), len(values))
		}
		for _, k := range keys {
			if strings.ContainsAny(k, "/ ") || strings.Contains(k, "..") || !strings.HasPrefix(k, "net.") || strings.Count(k, ".IFNAME.") != 1 {
				t.Errorf("%q gives %q", s, k)
			}
		}
	})
}

func TestEditLines(t *testing.T) {
	old := "127.0.0.1\tlocalhost\n10.0.0.2\tabc\n192.0.2.7 mine"
	got := string(editLines([]byte(old), map[string]bool{"10.0.0.2\tabc\n": true}, []string{"10.0.1.2\tabc\n", ""}))
	if want := "127.0.0.1\tlocalhost\n192.0.2.7 mine\n10.0.1.2\tabc\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLinkParts(t *testing.T) {
	for s, want := range map[string]string{"web": "web as web", "web:db": "web as db", "": "", ":a": "", "a:": "", "a:b:c": ""} {
		target, alias, err := parseLink(s)
		if (err == nil) != (want != "") || err == nil && target+" as "+alias != want {
			t.Errorf("%q: %s as %s, %v", s, target, alias, err)
		}
	}
}

// TestStaticLease walks a static address through a container's life on two hosts that share a store.
func TestStaticLease(t *testing.T) {
	ctx := t.Context()
	st := memstore.New()
	h1, h2 := newHost(t, st, "host1"), newHost(t, st, "host2")
	n := &Network{ID: newID(), Name: "ov", Driver: netdriver.TypeOverlay, Scope: scopeGlobal, Subnets: lan(t, "10.0.0.0/24")}
	if err := h1.createGlobal(ctx, n); err != nil {
		t.Fatal(err)
	}
	n, err := h1.findNetwork(ctx, "ov")
	if err != nil {
		t.Fatal(err)
	}
	a := n.Subnets[0].Gateway.Next()
	take := func(h *Engine, asked netip.Addr, l lease) error {
		_, err := h.takeAddress(ctx, n, ipam.Pools(n.Subnets)[0], asked, l)
		return err
	}
	b := &box{id: newID(), spec: container.Spec{Name: "web1", NetworkOrder: []string{"ov"}, Networks: map[string]*network.EndpointSettings{
		"ov": {IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: a}},
	}}}
	b.spec.ID = b.id
	h1.boxes[b.id] = b
	var u undo
	if err := h1.keepAddresses(ctx, &b.spec, "ov", &u); err != nil {
		t.Fatal(err)
	}
	other := h2.leaseFor(newID(), "thief", newID(), true)
	for range 2 { // kept, used, kept again
		if err := take(h2, a, other); !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "web1 on host1") {
			t.Errorf("host2 takes it: %v", err)
		}
		endpoint := newID()
		if err := take(h1, a, h1.leaseFor(b.id, "web1", endpoint, true)); err != nil {
			t.Fatal(err)
		}
		h1.releaseAddress(ctx, n, a, endpoint)
		if err := h1.reconcileLeases(ctx); err != nil {
			t.Fatal(err)
		}
	}
	// A crash left it in use by an endpoint that is not there: it is the container's, and unused.
	if err := take(h1, a, h1.leaseFor(b.id, "web1", newID(), true)); err != nil {
		t.Fatal(err)
	}
	if err := h1.reconcileLeases(ctx); err != nil {
		t.Fatal(err)
	}
	held, err := h1.addresses(ctx, n.ID)
	if err != nil || !held[a].Static || held[a].Endpoint != "" {
		t.Errorf("after the crash: %+v, %v", held, err)
	}
	h1.freeAddresses(ctx, &b.spec)
	if err := take(h2, a, other); err != nil {
		t.Errorf("not free after the removal: %v", err)
	}
	// One that a removed container left behind goes as well.
	if err := take(h1, a.Next(), h1.leaseFor(newID(), "gone", "", true)); err != nil {
		t.Fatal(err)
	}
	if err := h1.reconcileLeases(ctx); err != nil {
		t.Fatal(err)
	}
	if held, err := h1.addresses(ctx, n.ID); err != nil || len(held) != 1 {
		t.Errorf("left over: %+v, %v", held, err)
	}
}

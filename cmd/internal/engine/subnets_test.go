package engine

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	"github.com/minictl/minictl/cluster/store/memstore"
	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/ipam"
)

// request is docker network create with these subnets.
func request(name string, ipv4, ipv6 *bool, subnets ...string) network.CreateRequest {
	r := network.CreateRequest{Name: name, Driver: "overlay", EnableIPv4: ipv4, EnableIPv6: ipv6, IPAM: &network.IPAM{}}
	for _, s := range subnets {
		r.IPAM.Config = append(r.IPAM.Config, network.IPAMConfig{Subnet: netip.MustParsePrefix(s)})
	}
	return r
}

// TestSubnetsChosen: what a network gets by what was asked for, and what is refused in words.
func TestSubnetsChosen(t *testing.T) {
	on, off := new(bool), new(bool)
	*on = true
	e := newHost(t, memstore.New(), "host")
	ula := e.clusterULA().Base
	nth := func(n byte) string {
		a := ula.Addr().As16()
		a[7] = n
		return netip.PrefixFrom(netip.AddrFrom16(a), 64).String()
	}
	for _, c := range []struct {
		what string
		req  network.CreateRequest
		want string // subnets, or a part of the refusal
	}{
		{"neither said", request("a", nil, nil), "10.0.0.0/24"},
		{"both", request("b", nil, on), "10.0.1.0/24 " + nth(0)},
		{"IPv6 alone", request("c", off, on), nth(1)},
		{"a subnet of IPv6 asks for it", request("d", nil, nil, "fd00:7::/64"), "10.0.3.0/24 fd00:7::/64"}, // 10.0.2.0/24 is a route
		{"IPv4 comes first", request("e", nil, on, "fd00:8::/64", "10.9.0.0/24", "10.8.0.0/24"), "10.9.0.0/24 10.8.0.0/24 fd00:8::/64"},
		{"sizes", request("f", nil, on, "::/80", "0.0.0.0/22"), "10.0.4.0/22 " + netip.PrefixFrom(netip.MustParsePrefix(nth(2)).Addr(), 80).String()},
		{"what overlaps another", request("g", nil, nil, "10.70.0.0/24", "fd00:7::/48"), "Pool overlaps with other one on this address space: network d has fd00:7::/64"},
		{"what overlaps itself", request("g", nil, nil, "10.70.0.0/24", "10.70.0.0/25"), "subnets 10.70.0.0/24 and 10.70.0.0/25 overlap"},
		{"IPv6 refused", request("g", nil, off, "fd00:9::/64"), "subnet fd00:9::/64 is of IPv6, which is switched off"},
		{"IPv4 refused", request("g", off, on, "10.70.0.0/24"), "subnet 10.70.0.0/24 is of IPv4, which is switched off"},
		{"neither", request("g", off, nil), "IPv4 or IPv6 must be enabled"},
	} {
		t.Run(c.what, func(t *testing.T) {
			resp, err := e.NetworkCreate(t.Context(), c.req)
			if err != nil {
				if !strings.Contains(err.Error(), c.want) || !errdefs.IsInvalidArgument(err) && !errdefs.IsPermissionDenied(err) {
					t.Errorf("%v, want %q", err, c.want)
				}
				return
			}
			n, err := e.findNetwork(t.Context(), resp.ID)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range n.Subnets {
				got = append(got, s.Prefix.String())
				if !s.Prefix.Contains(s.Gateway) {
					t.Errorf("gateway %s of %s", s.Gateway, s.Prefix)
				}
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("%s, want %s", s, c.want)
			}
		})
	}
}

// TestChosenPools cuts subnets of each family from the ranges that were chosen for it, else from the usual ones.
func TestChosenPools(t *testing.T) {
	on := true
	for _, c := range []struct {
		bases string
		bits  int
		want  string
	}{
		{"10.20.0.0/16", 26, "10.20.0.0/26 fd"},
		{"10.20.0.0/16 fd00:20::/48", 0, "10.20.0.0/24 fd00:20::/64"},
		{"fd00:20::/48 10.20.0.0/16", 26, "10.20.0.0/26 fd00:20::/64"},
		{"fd00:20::/48", 0, "10.0.0.0/24 fd00:20::/64"},
		{"fd00:20::/48", 112, "10.0.0.0/24 fd00:20::/112"},
	} {
		e := newHost(t, memstore.New(), "host")
		var bases []netip.Prefix
		for _, b := range strings.Fields(c.bases) {
			bases = append(bases, netip.MustParsePrefix(b))
		}
		if _, err := e.choosePools(t.Context(), bases, c.bits); err != nil {
			t.Fatal(err)
		}
		if _, err := e.NetworkCreate(t.Context(), request("n", nil, &on)); err != nil {
			t.Fatal(err)
		}
		n, err := e.findNetwork(t.Context(), "n")
		if err != nil {
			t.Fatal(err)
		}
		if got := n.Subnets[0].Prefix.String() + " " + n.Subnets[1].Prefix.String(); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s by %d: %s, want %s", c.bases, c.bits, got, c.want)
		}
	}
}

// TestReserveOfBothFamilies: a host that is cut off gives an address of each family, and what it gives is its own.
func TestReserveOfBothFamilies(t *testing.T) {
	ctx := t.Context()
	hosts, _ := islands(t, 2)
	dual := &Network{
		ID: newID(), Name: "dual", Driver: netdriver.TypeOverlay, Scope: scopeGlobal, EnableIPv6: true,
		Subnets: slices.Concat(lan(t, "10.6.0.0/24"), lan(t, "fd00:6::/64")),
	}
	if err := hosts[0].createGlobal(ctx, dual); err != nil {
		t.Fatal(err)
	}
	take := func(h *island, endpoint string) string {
		t.Helper()
		n, err := h.network(ctx, dual.ID)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, pool := range ipam.Pools(n.Subnets) {
			p, err := h.takeAddress(ctx, n, pool, netip.Addr{}, h.leaseFor(newID(), endpoint, endpoint, false))
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, p.String())
		}
		return strings.Join(got, " ")
	}
	if got := take(hosts[0], "a"); got != "10.6.0.2/24 fd00:6::2/64" {
		t.Errorf("while somebody decides: %s", got)
	}
	hosts[1].link.sever(t)
	hosts[1].fake.missing = true
	if got := take(hosts[1], "b"); got != "10.6.0.239/24 fd00:6::ffff:ffff:ffff:fff0/64" {
		t.Errorf("while nobody decides: %s", got)
	}
	if got := take(hosts[1], "c"); got != "10.6.0.240/24 fd00:6::ffff:ffff:ffff:fff1/64" {
		t.Errorf("the next: %s", got)
	}
	held, err := hosts[0].leasesOf(ctx, dual.ID, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"10.6.0.239", "fd00:6::ffff:ffff:ffff:fff0"} {
		if l := held[netip.MustParseAddr(a)]; l.Node != hosts[1].cfg.NodeName {
			t.Errorf("%s is %+v in the store", a, l)
		}
	}
}

// TestGatewaysOfBothFamilies: each family's default route has its own choice, and the container's ports follow IPv4's.
func TestGatewaysOfBothFamilies(t *testing.T) {
	in := joints("high four", "bridge both", "overlay wide")
	in[1].network.Subnets = slices.Concat(lan(t, "10.1.0.0/24"), lan(t, "fd00:1::/64"))
	in[0].network.Subnets = lan(t, "10.2.0.0/24")
	if v4, v6 := gatewayOf(in, false), gatewayOf(in, true); v4 != 0 || v6 != 1 {
		t.Errorf("gateways %d and %d", v4, v6)
	}
	if v6 := gatewayOf(in[:1], true); v6 != -1 {
		t.Errorf("IPv6 through a network without it: %d", v6)
	}
}

// TestPlanLeasesOfBothFamilies: each pool has its own reserve, and a spare of none of them is given back.
func TestPlanLeasesOfBothFamilies(t *testing.T) {
	stray, kept := netip.MustParseAddr("10.99.0.1"), netip.MustParseAddr("10.6.0.14")
	f := leaseFacts{
		self: "me", pools: ipam.Pools(slices.Concat(lan(t, "10.6.0.0/28"), lan(t, "fd00:6::/64"))), size: func(ipam.Pool) int { return 2 },
		held: map[netip.Addr]lease{stray: {Node: "me"}, kept: {Node: "me"}}, spares: map[netip.Addr]lease{stray: {}, kept: {}},
		busy: func(string) bool { return false },
	}
	steps, clashes := planLeases(f)
	var got []string
	for _, s := range steps {
		word := "put "
		if s.put == nil {
			word = "delete "
		}
		got = append(got, word+s.addr.String())
	}
	want := "put 10.6.0.13; put fd00:6::ffff:ffff:ffff:ffff; put fd00:6::ffff:ffff:ffff:fffe; delete 10.99.0.1"
	if s := strings.Join(got, "; "); s != want || len(clashes) > 0 {
		t.Errorf("steps %q, want %q; clashes %v", s, want, clashes)
	}
}

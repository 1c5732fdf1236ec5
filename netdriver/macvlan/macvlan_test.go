package macvlan

import (
	"context"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/ipam"
	"github.com/minictl/minictl/netdriver/netdrivertest"
)

// wire makes parent0, the host's end of a cable, and router on its other end with the gateway's address.
func wire(t *testing.T) {
	t.Helper()
	router := netdrivertest.NewSandbox(t, netdrivertest.Dir(t), "router")
	netdrivertest.MustRun(t, "", "ip link add parent0 type veth peer name eth0 netns "+router.Path)
	netdrivertest.MustRun(t, "", "ip link set parent0 up")
	netdrivertest.MustRun(t, router.Path, "ip addr add 192.0.2.1/24 dev eth0")
	netdrivertest.MustRun(t, router.Path, "ip link set eth0 up")
}

func testNetwork(options map[string]string) netdriver.Network {
	if options == nil {
		options = map[string]string{}
	}
	if _, given := options[OptionParent]; !given {
		options[OptionParent] = "parent0"
	}
	return netdriver.Network{
		ID: netdriver.NetworkID(strings.Repeat("a72ce58f3bd2", 6)[:64]), Name: "lan", Driver: netdriver.TypeMacvlan, Options: options,
		Subnets: []netdriver.Subnet{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Gateway: netip.MustParseAddr("192.0.2.1")}},
	}
}

func testEndpoint(last byte, iface string) netdriver.Endpoint {
	a := netip.AddrFrom4([4]byte{192, 0, 2, last})
	return netdriver.Endpoint{
		ID: netdriver.EndpointID(strings.Repeat(string("0123456789abcdef"[last&15])+"c", 32)), Interface: iface,
		Address: netip.PrefixFrom(a, 24), MAC: ipam.MAC(a), Gateway: netip.MustParseAddr("192.0.2.1"),
	}
}

func TestConformance(t *testing.T) {
	for _, mode := range []string{"bridge", "private", "vepa"} {
		t.Run(mode, func(t *testing.T) {
			netdrivertest.Suite(t, func(t *testing.T, dir string) netdrivertest.Subject {
				return netdrivertest.Subject{
					Golden: "macvlan", Kind: "macvlan", Prepare: wire,
					New: func(*testing.T) netdriver.Driver {
						return New(Config{Log: netdrivertest.Quiet(), Sandboxes: filepath.Join(dir, "sandboxes")})
					},
					Network:   testNetwork(map[string]string{OptionMode: mode, OptionMTU: "1400"}),
					Endpoints: [2]netdriver.Endpoint{testEndpoint(2, "eth0"), testEndpoint(3, "eth1")},
				}
			})
		})
	}
}

// TestModes wants containers to reach the router on the wire, and each other as the mode says; one passthru endpoint
// there may be, and no second.
func TestModes(t *testing.T) {
	for _, c := range []struct {
		mode       string
		neighbours bool
	}{{"bridge", true}, {"private", false}, {"vepa", false}} {
		t.Run(c.mode, func(t *testing.T) {
			d, n, dir := lab(t, c.mode)
			a, b := netdrivertest.NewSandbox(t, dir, "a"), netdrivertest.NewSandbox(t, dir, "b")
			join(t, d, n, testEndpoint(2, "eth0"), a)
			join(t, d, n, testEndpoint(3, "eth0"), b)
			if !netdrivertest.Ping(a.Path, netip.MustParseAddr("192.0.2.1")) {
				t.Error("the router is not reached")
			}
			if got := netdrivertest.Ping(a.Path, netip.MustParseAddr("192.0.2.3")); got != c.neighbours {
				t.Errorf("neighbours reach each other: %v", got)
			}
		})
	}
	t.Run("passthru", func(t *testing.T) {
		d, n, dir := lab(t, "passthru")
		before := netdrivertest.Listing(t, "")
		a, b := netdrivertest.NewSandbox(t, dir, "a"), netdrivertest.NewSandbox(t, dir, "b")
		join(t, d, n, testEndpoint(2, "eth0"), a)
		join(t, d, n, testEndpoint(2, "eth0"), a)
		if !netdrivertest.Ping(a.Path, netip.MustParseAddr("192.0.2.1")) {
			t.Error("the router is not reached")
		}
		mac, err := d.FixedMAC(n)
		if err != nil || !strings.Contains(netdrivertest.MustRun(t, a.Path, "ip link show eth0"), "link/ether "+mac.String()) {
			t.Errorf("the endpoint's MAC is said to be %s (%v)", mac, err)
		}
		if mac, err := d.FixedMAC(testNetwork(map[string]string{OptionMode: "vepa"})); err != nil || mac != nil {
			t.Errorf("an endpoint of vepa is said to have %s (%v)", mac, err)
		}
		if _, err := d.Join(context.Background(), n, testEndpoint(3, "eth0"), b); !errdefs.IsConflict(err) {
			t.Errorf("a second endpoint: %v", err)
		}
		if err := d.Leave(context.Background(), n, testEndpoint(2, "eth0")); err != nil {
			t.Fatal(err)
		}
		if got := netdrivertest.Listing(t, ""); got != before {
			t.Errorf("the host has\n%safter, before\n%s", got, before)
		}
	})
}

func lab(t *testing.T, mode string) (*Driver, netdriver.Network, string) {
	t.Helper()
	netdrivertest.NewNS(t)
	wire(t)
	dir := netdrivertest.Dir(t)
	return New(Config{Log: netdrivertest.Quiet(), Sandboxes: dir}), testNetwork(map[string]string{OptionMode: mode}), dir
}

func join(t *testing.T, d *Driver, n netdriver.Network, e netdriver.Endpoint, s netdriver.Sandbox) {
	t.Helper()
	if _, err := d.Join(context.Background(), n, e, s); err != nil {
		t.Fatal(err)
	}
}

// TestVLAN makes and removes the parent, or says that this kernel cannot.
func TestVLAN(t *testing.T) {
	netdrivertest.NewNS(t)
	wire(t)
	ctx := context.Background()
	d := New(Config{Log: netdrivertest.Quiet(), Sandboxes: netdrivertest.Dir(t)})
	n := testNetwork(map[string]string{OptionParent: "parent0.10"})
	before := netdrivertest.Listing(t, "")
	_, missing := netdrivertest.Run("", "ip", "link", "add", "link", "parent0", "name", "probe", "type", "vlan", "id", "9")
	if missing == nil {
		netdrivertest.MustRun(t, "", "ip link del probe")
	}
	err := d.Ensure(ctx, n)
	if missing != nil {
		if !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "no VLANs (8021q)") {
			t.Errorf("a kernel without VLANs: %v", err)
		}
	} else if got := netdrivertest.Listing(t, ""); err != nil || !strings.Contains(got, "link parent0.10 vlan") {
		t.Errorf("%v, the host has\n%s", err, got)
	}
	if err := d.Remove(ctx, n); err != nil {
		t.Fatal(err)
	}
	if got := netdrivertest.Listing(t, ""); got != before {
		t.Errorf("the host has\n%safter, before\n%s", got, before)
	}
	// The user's own parent stays.
	if err := d.Remove(ctx, testNetwork(nil)); err != nil {
		t.Fatal(err)
	}
	if got := netdrivertest.Listing(t, ""); got != before {
		t.Errorf("the user's interface is gone:\n%s", got)
	}
}

func TestRefusals(t *testing.T) {
	netdrivertest.NewNS(t)
	d := New(Config{Log: netdrivertest.Quiet()})
	for _, c := range []struct {
		options  map[string]string
		internal bool
		is       func(error) bool
		text     string
	}{
		{map[string]string{OptionParent: ""}, false, errdefs.IsInvalidArgument, "give -o parent=eth0"},
		{map[string]string{OptionParent: ""}, true, errdefs.IsNotImplemented, "dummy interface"},
		{map[string]string{OptionParent: "nosuch"}, false, errdefs.IsInvalidArgument, `no interface "nosuch"`},
		{map[string]string{OptionParent: "nosuch.10"}, false, errdefs.IsInvalidArgument, `no interface "nosuch.10"`},
		{map[string]string{OptionParent: "a/b"}, false, errdefs.IsInvalidArgument, `"a/b"`},
		{map[string]string{OptionMode: "l2"}, false, errdefs.IsInvalidArgument, `"l2" is not bridge, private, vepa or passthru`},
		{map[string]string{OptionMTU: "x"}, false, errdefs.IsInvalidArgument, `"x" is not an MTU`},
	} {
		n := testNetwork(c.options)
		n.Internal = c.internal
		err := d.Check(n)
		if err == nil {
			err = d.Ensure(context.Background(), n)
		}
		if err == nil || !c.is(err) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%v: %v", c.options, err)
		}
	}
}

// TestPrune: what was made for a network that nobody knows any more goes. A veth stands for the VLAN, which kernels without
// 8021q cannot make.
func TestPrune(t *testing.T) {
	netdrivertest.NewNS(t)
	for name, remark := range map[string]string{"gone.7": alias("gone"), "kept.7": alias("kept"), "users.7": "mine"} {
		netdrivertest.MustRun(t, "", "ip link add "+name+" type veth peer name p-"+name)
		mark(t, name, remark)
	}
	netdrivertest.MustRun(t, "", "ip link add br-1 type bridge")
	mark(t, "br-1", alias("bridged")) // another driver's
	d := New(Config{Log: netdrivertest.Quiet(), Sandboxes: netdrivertest.Dir(t)})
	if err := d.Prune(t.Context(), []netdriver.NetworkID{"kept"}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"gone.7": false, "kept.7": true, "users.7": true, "br-1": true} {
		if _, err := netdrivertest.Here(t).Link(name); (err == nil) != want {
			t.Errorf("%s: %v, want it there: %v", name, err, want)
		}
	}
}

func mark(t *testing.T, name, remark string) {
	t.Helper()
	c := netdrivertest.Here(t)
	l, err := c.Link(name)
	if err == nil {
		err = c.SetAlias(l.Index, remark)
	}
	if err != nil {
		t.Fatal(err)
	}
}

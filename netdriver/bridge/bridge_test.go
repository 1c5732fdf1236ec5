package bridge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/firewall"
	"github.com/minictl/minictl/netdriver/ipam"
	"github.com/minictl/minictl/netdriver/netdrivertest"
	"github.com/minictl/minictl/netdriver/portmap"
	"github.com/minictl/minictl/netdriver/sandbox"
)

// recorder is a Firewall and a Relay that remembers its wish and fails where told to.
type recorder struct {
	mu      sync.Mutex
	bridges map[string]firewall.Bridge
	ports   map[string][]firewall.Port
	targets map[string][]portmap.Target
	refuse  error // what SetPorts says to a list that is not empty
}

func newRecorder() *recorder {
	return &recorder{bridges: make(map[string]firewall.Bridge), ports: make(map[string][]firewall.Port), targets: make(map[string][]portmap.Target)}
}

func (r *recorder) SetBridge(_ context.Context, b firewall.Bridge) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bridges[b.Interface] = b
	return nil
}

func (r *recorder) RemoveBridge(_ context.Context, iface string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.bridges, iface)
	return nil
}

func (r *recorder) SetPorts(_ context.Context, owner string, ports []firewall.Port) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.ports, owner)
	if len(ports) > 0 && r.refuse == nil {
		r.ports[owner] = ports
	}
	if len(ports) > 0 {
		return r.refuse
	}
	return nil
}

func (r *recorder) Relay(owner string, targets []portmap.Target) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.targets[owner] = targets; len(targets) == 0 {
		delete(r.targets, owner)
	}
	return nil
}

// testNetwork is 172.18.0.0/16 with the given options.
func testNetwork(options map[string]string) netdriver.Network {
	return netdriver.Network{
		ID: netdriver.NetworkID(strings.Repeat("a72ce58f3bd2", 6)[:64]), Name: "web", Driver: netdriver.TypeBridge, Options: options,
		Subnets: []netdriver.Subnet{{Prefix: netip.MustParsePrefix("172.18.0.0/16"), Gateway: netip.MustParseAddr("172.18.0.1")}},
	}
}

// testEndpoint is the endpoint with address 172.18.0.last.
func testEndpoint(last byte, iface string) netdriver.Endpoint {
	a := netip.AddrFrom4([4]byte{172, 18, 0, last})
	id := strings.Repeat(string("0123456789abcdef"[last&15])+"b", 32)
	return netdriver.Endpoint{
		ID: netdriver.EndpointID(id), Interface: iface, Address: netip.PrefixFrom(a, 16), MAC: ipam.MAC(a),
		Gateway: netip.MustParseAddr("172.18.0.1"),
		Ports:   []netdriver.PortMapping{{Proto: "tcp", HostPort: 8000 + uint16(last), ContainerPort: 80}},
	}
}

func TestConformance(t *testing.T) {
	netdrivertest.Suite(t, func(t *testing.T, _ string) netdrivertest.Subject {
		wall := newRecorder()
		t.Cleanup(func() {
			if t.Name() == "TestConformance/golden" && len(wall.bridges)+len(wall.ports) > 0 {
				t.Errorf("the firewall still has %v and %v", wall.bridges, wall.ports)
			}
		})
		return netdrivertest.Subject{
			New: func(*testing.T) netdriver.Driver {
				return New(Config{Log: netdrivertest.Quiet(), Firewall: wall, Relay: newRecorder()})
			},
			Network:   testNetwork(map[string]string{OptionICC: "false"}),
			Endpoints: [2]netdriver.Endpoint{testEndpoint(2, "eth0"), testEndpoint(3, "eth1")},
		}
	})
}

// dualStack is testNetwork with an IPv6 subnet besides.
func dualStack(options map[string]string) netdriver.Network {
	n := testNetwork(options)
	n.Subnets = append(n.Subnets, netdriver.Subnet{Prefix: netip.MustParsePrefix("fd00:18::/64"), Gateway: netip.MustParseAddr("fd00:18::1")})
	return n
}

// dualEndpoint is testEndpoint with an address of each family.
func dualEndpoint(last byte, iface string) netdriver.Endpoint {
	e := testEndpoint(last, iface)
	e.Address6 = netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x18, 15: last}), 64)
	e.Gateway6 = netip.MustParseAddr("fd00:18::1")
	return e
}

// TestDualStackConformance runs the suite with both families.
func TestDualStackConformance(t *testing.T) {
	netdrivertest.Suite(t, func(t *testing.T, _ string) netdrivertest.Subject {
		return netdrivertest.Subject{
			Golden: "dualstack",
			New: func(*testing.T) netdriver.Driver {
				return New(Config{Log: netdrivertest.Quiet(), Firewall: newRecorder(), Relay: newRecorder()})
			},
			Network:   dualStack(nil),
			Endpoints: [2]netdriver.Endpoint{dualEndpoint(2, "eth0"), dualEndpoint(3, "eth1")},
		}
	})
}

// plugIn joins endpoint .last of n to a fresh sandbox and gives its path.
func plugIn(t *testing.T, d *Driver, n netdriver.Network, dir string, last byte) string {
	t.Helper()
	s := netdrivertest.NewSandbox(t, dir, "s"+string('0'+rune(last)))
	if _, err := d.Join(context.Background(), n, testEndpoint(last, "eth0"), s); err != nil {
		t.Fatal(err)
	}
	return s.Path
}

func TestFirstPacketAndIsolation(t *testing.T) {
	for _, icc := range []string{"true", "false"} {
		t.Run("icc="+icc, func(t *testing.T) {
			netdrivertest.NewNS(t)
			dir := netdrivertest.Dir(t)
			d := New(Config{Log: netdrivertest.Quiet(), Firewall: newRecorder(), Relay: newRecorder()})
			n := testNetwork(map[string]string{OptionICC: icc})
			a, b := plugIn(t, d, n, dir, 2), plugIn(t, d, n, dir, 3)
			if !netdrivertest.Ping(a, netip.MustParseAddr("172.18.0.1")) {
				t.Error("the first packet to the gateway is lost")
			}
			if got := netdrivertest.Ping(b, netip.MustParseAddr("172.18.0.2")); got != (icc == "true") {
				t.Errorf("containers reach each other: %v", got)
			}
		})
	}
}

func TestWishForTheFirewall(t *testing.T) {
	netdrivertest.NewNS(t)
	wall := newRecorder()
	d := New(Config{Log: netdrivertest.Quiet(), Firewall: wall, Relay: wall})
	n := testNetwork(map[string]string{OptionName: "mini_gwbridge", OptionICC: "false"})
	plugIn(t, d, n, netdrivertest.Dir(t), 2)
	b := wall.bridges["mini_gwbridge"]
	if !b.Masquerade || b.ICC || b.Internal || len(b.Subnets) != 1 || b.Subnets[0].String() != "172.18.0.0/16" {
		t.Errorf("bridge: %+v", b)
	}
	want := firewall.Port{Proto: "tcp", HostPort: 8002, Target: netip.MustParseAddrPort("172.18.0.2:80"), Bridge: "mini_gwbridge"}
	if got := wall.ports[string(testEndpoint(2, "eth0").ID)]; len(got) != 1 || got[0] != want {
		t.Errorf("ports: %+v", got)
	}
	target := portmap.Target{Proto: "tcp", HostPort: 8002, To: want.Target}
	if got := wall.targets[string(testEndpoint(2, "eth0").ID)]; len(got) != 1 || got[0] != target {
		t.Errorf("relayed: %+v", got)
	}
	n.Internal = true
	if err := d.Ensure(context.Background(), n); err != nil {
		t.Fatal(err)
	}
	if b := wall.bridges["mini_gwbridge"]; b.Masquerade || !b.Internal {
		t.Errorf("internal bridge: %+v", b)
	}
	for key, want := range map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv4/conf/mini_gwbridge/route_localnet": "1", "net/ipv6/conf/mini_gwbridge/disable_ipv6": "1",
	} {
		if got := strings.TrimSpace(netdrivertest.MustRun(t, "", "cat /proc/sys/"+key)); got != want {
			t.Errorf("%s = %s", key, got)
		}
	}
}

// TestPublishedPort runs the driver with the real firewall: a port published on every address is reached from the host
// itself through 127.0.0.1, which takes the bridge's route_localnet, and nothing of it stays behind.
func TestPublishedPort(t *testing.T) {
	netdrivertest.NewNS(t)
	ctx := context.Background()
	wall := firewall.New(netdrivertest.Quiet())
	d := New(Config{Log: netdrivertest.Quiet(), Firewall: wall, Relay: newRecorder()})
	n, e := testNetwork(map[string]string{OptionICC: "false"}), testEndpoint(2, "eth0")
	box := plugIn(t, d, n, netdrivertest.Dir(t), 2)
	var server net.Listener
	err := sandbox.Do(box, func() (err error) { server, err = net.Listen("tcp4", "172.18.0.2:80"); return err })
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for _, host := range []string{"127.0.0.1:8002", "172.18.0.1:8002"} {
		c, err := net.DialTimeout("tcp4", host, 5*time.Second)
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		c.Close()
	}
	if err := errors.Join(d.Leave(ctx, n, e), d.Remove(ctx, n)); err != nil {
		t.Fatal(err)
	}
	if rules := netdrivertest.MustRun(t, "", "nft list ruleset"); rules != "" {
		t.Errorf("left behind:\n%s", rules)
	}
}

// TestRelayed leads to a container by hand what no rule leads there: from ::1, and by IPv6 to one that has none.
func TestRelayed(t *testing.T) {
	e := testEndpoint(2, "eth0")
	e.Ports = nil
	for i, ip := range []string{"", "0.0.0.0", "127.0.0.1", "::", "::1", "2001:db8::1"} {
		p := netdriver.PortMapping{Proto: "tcp", HostPort: uint16(8000 + i), ContainerPort: 80}
		if ip != "" {
			p.HostIP = netip.MustParseAddr(ip)
		}
		e.Ports = append(e.Ports, p)
	}
	e.Ports = append(e.Ports, netdriver.PortMapping{Proto: "sctp", HostPort: 9, ContainerPort: 9}, netdriver.PortMapping{Proto: "tcp", ContainerPort: 7})
	six := e
	six.Address6 = netip.MustParsePrefix("fd00::2/64")
	only := six
	only.Address = netip.Prefix{}
	for _, c := range []struct {
		what string
		e    netdriver.Endpoint
		want string
	}{
		{"IPv4", e, "8000>172.18.0.2:80 8003>172.18.0.2:80 8004>172.18.0.2:80 8005>172.18.0.2:80"},
		{"both", six, "8000>[fd00::2]:80 8003>[fd00::2]:80 8004>[fd00::2]:80"},
		{"IPv6", only, "8000>[fd00::2]:80 8003>[fd00::2]:80 8004>[fd00::2]:80"},
	} {
		var got []string
		for _, target := range relayed(c.e) {
			got = append(got, fmt.Sprintf("%d>%s", target.HostPort, target.To))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %s, want %s", c.what, s, c.want)
		}
	}
}

func TestRefusedPortsLeaveNothing(t *testing.T) {
	netdrivertest.NewNS(t)
	wall := newRecorder()
	d := New(Config{Log: netdrivertest.Quiet(), Firewall: wall, Relay: newRecorder()})
	n := testNetwork(nil)
	if err := d.Ensure(context.Background(), n); err != nil {
		t.Fatal(err)
	}
	s := netdrivertest.NewSandbox(t, netdrivertest.Dir(t), "s")
	before := netdrivertest.Listing(t, "") + netdrivertest.Listing(t, s.Path)
	wall.refuse = errors.New("no room")
	if _, err := d.Join(context.Background(), n, testEndpoint(2, "eth0"), s); !errors.Is(err, wall.refuse) {
		t.Errorf("Join says %v", err)
	}
	if after := netdrivertest.Listing(t, "") + netdrivertest.Listing(t, s.Path); after != before {
		t.Errorf("left behind:\n%s", after)
	}
}

func TestDefaultRouteFollowsTheGateway(t *testing.T) {
	netdrivertest.NewNS(t)
	d := New(Config{Log: netdrivertest.Quiet(), Firewall: newRecorder(), Relay: newRecorder()})
	n, e := testNetwork(nil), testEndpoint(2, "eth0")
	s := netdrivertest.NewSandbox(t, netdrivertest.Dir(t), "s")
	for range 2 {
		for _, gateway := range []netip.Addr{netip.MustParseAddr("172.18.0.1"), {}} {
			e.Gateway = gateway
			if _, err := d.Join(context.Background(), n, e, s); err != nil {
				t.Fatal(err)
			}
			got := strings.Contains(netdrivertest.Listing(t, s.Path), "route default via 172.18.0.1 dev eth0")
			if got != gateway.IsValid() {
				t.Errorf("gateway %v, default route %v", gateway, got)
			}
		}
	}
}

func TestForeignBridges(t *testing.T) {
	netdrivertest.NewNS(t)
	ctx := context.Background()
	d := New(Config{Log: netdrivertest.Quiet(), Firewall: newRecorder(), Relay: newRecorder()})
	netdrivertest.MustRun(t, "", "ip link add lan type bridge")
	netdrivertest.MustRun(t, "", "ip addr add 192.0.2.1/24 dev lan")
	netdrivertest.MustRun(t, "", "ip link add cable type veth peer name cable1")
	n := testNetwork(map[string]string{OptionName: "lan"})
	if err := d.Ensure(ctx, n); err != nil {
		t.Fatal(err)
	}
	got := netdrivertest.Listing(t, "")
	if !strings.Contains(got, "192.0.2.1/24") || !strings.Contains(got, "172.18.0.1/16") {
		t.Errorf("the user's bridge:\n%s", got)
	}
	if err := d.Remove(ctx, n); err != nil || !strings.Contains(netdrivertest.Listing(t, ""), "link lan bridge") {
		t.Errorf("the user's bridge is gone: %v", err)
	}
	if err := d.Ensure(ctx, testNetwork(map[string]string{OptionName: "cable"})); !errdefs.IsConflict(err) {
		t.Errorf("a veth taken for a bridge: %v", err)
	}
	if err := d.Ensure(ctx, testNetwork(nil)); err != nil {
		t.Fatal(err)
	}
	other := testNetwork(map[string]string{OptionName: "br-a72ce58f3bd2"})
	other.ID = netdriver.NetworkID(strings.Repeat("f", 64))
	if err := d.Ensure(ctx, other); !errdefs.IsConflict(err) {
		t.Errorf("another network's bridge: %v", err)
	}
}

func TestPrune(t *testing.T) {
	netdrivertest.NewNS(t)
	ctx := context.Background()
	d := New(Config{Log: netdrivertest.Quiet(), Firewall: newRecorder(), Relay: newRecorder()})
	netdrivertest.MustRun(t, "", "ip link add lan type bridge")
	empty := netdrivertest.Listing(t, "")
	n := testNetwork(nil)
	if err := d.Ensure(ctx, n); err != nil {
		t.Fatal(err)
	}
	if err := d.Prune(ctx, []netdriver.NetworkID{n.ID}); err != nil {
		t.Fatal(err)
	}
	if ids, err := d.Present(); err != nil || !slices.Equal(ids, []netdriver.NetworkID{n.ID}) {
		t.Errorf("present: %v, %v", ids, err)
	}
	if err := d.Prune(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if got := netdrivertest.Listing(t, ""); got != empty {
		t.Errorf("left behind:\n%s", got)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []map[string]string{
		{OptionICC: "maybe"}, {OptionMasquerade: "2"}, {OptionNoAddress: ""}, {OptionDefault: "x"}, {OptionName: "a-name-of-16-char"},
		{OptionName: "a/b"}, {OptionName: ".."}, {OptionName: "-x"}, {OptionMTU: "1e3"}, {OptionMTU: "67"}, {OptionMTU: "65536"},
		{OptionHostBinding: "localhost"}, {OptionMode4: "bridged"}, {OptionMode6: "NAT"}, {OptionTrusted: "eth0::eth1"}, {OptionHost4: "::1"},
		{OptionHost6: "192.0.2.1"}, {OptionPrefix: "a/b"},
	} {
		key := slices.Collect(maps.Keys(o))[0]
		err := New(Config{Log: netdrivertest.Quiet()}).Check(testNetwork(o))
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), `"`+o[key]+`"`) {
			t.Errorf("%v: %v", o, err)
		}
	}
	got, err := parse(testNetwork(map[string]string{OptionMTU: "9000", OptionICC: "false", OptionName: "docker0", "unknown": "kept"}))
	if want := (options{name: "docker0", masquerade: true, mtu: 9000}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("parse: %+v, %v", got, err)
	}
	if got, _ := parse(testNetwork(map[string]string{OptionMTU: "0"})); got.name != "br-a72ce58f3bd2" || got.mtu != 1500 || !got.icc {
		t.Errorf("defaults: %+v", got)
	}
}

func FuzzOptions(f *testing.F) {
	f.Add(OptionMTU, "1500")
	f.Add(OptionName, "br0")
	f.Fuzz(func(t *testing.T, key, value string) {
		o, err := parse(testNetwork(map[string]string{key: value}))
		if err == nil && (o.name == "" || len(o.name) > maxName || o.mtu < minMTU || o.mtu > maxMTU) {
			t.Errorf("%q=%q gives %+v", key, value, o)
		}
	})
}

func BenchmarkJoin(b *testing.B) {
	netdrivertest.NewNS(b)
	ctx := context.Background()
	d := New(Config{Log: netdrivertest.Quiet(), Firewall: newRecorder(), Relay: newRecorder()})
	n, e := testNetwork(nil), testEndpoint(2, "eth0")
	s := netdrivertest.NewSandbox(b, netdrivertest.Dir(b), "s")
	for b.Loop() {
		if _, err := d.Join(ctx, n, e, s); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := d.Leave(ctx, n, e); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

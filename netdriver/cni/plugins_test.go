package cni

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/netdrivertest"
	"github.com/minictl/minictl/netdriver/nl"
)

// flannelShape is what flannel's plugin makes of its own configuration and hands on.
const flannelShape = `{"name": "cbr0", "cniVersion": "0.3.1", "plugins": [
  {"type": "bridge", "bridge": "cni0", "mtu": 1450, "isGateway": true, "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "LEASES", "ranges": [[{"subnet": "10.244.1.0/24"}]], "routes": [{"dst": "10.244.0.0/16"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}`

// subject is a configuration on trial.
type subject struct {
	name, conf string
	kind       string // of the endpoint's interface; veth
	endpoint   netdriver.Endpoint
	want       netdriver.Decided // without the MAC, unless the endpoint asks for one
}

func subjects() []subject {
	ip, via := netip.MustParsePrefix, netip.MustParseAddr
	e := func(change func(*netdriver.Endpoint)) netdriver.Endpoint {
		out := testEndpoint(2, "eth0")
		change(&out)
		return out
	}
	none := func(*netdriver.Endpoint) {}
	ports := func(e *netdriver.Endpoint) {
		e.Ports = []netdriver.PortMapping{
			{Proto: "tcp", HostPort: 8080, ContainerPort: 80}, {Proto: "udp", HostIP: via("127.0.0.1"), HostPort: 5353, ContainerPort: 53},
		}
	}
	return []subject{
		{name: "flannel", conf: flannelShape, endpoint: e(ports), want: netdriver.Decided{Address: ip("10.244.1.2/24"), Gateway: via("10.244.1.1")}},
		{
			name: "ptp", endpoint: e(none), want: netdriver.Decided{Address: ip("10.1.0.2/24"), Gateway: via("10.1.0.1"), DNS: netdriver.DNS{
				Servers: []netip.Addr{via("10.1.0.53")}, Search: []string{"corp.example"}, Options: []string{"ndots:2"},
			}},
			conf: `{"name": "pair", "cniVersion": "1.0.0", "type": "ptp", "mtu": 1400, "ipMasq": true,
			  "dns": {"nameservers": ["10.1.0.53"], "search": ["corp.example"], "options": ["ndots:2"]},
			  "ipam": {"type": "host-local", "dataDir": "LEASES", "subnet": "10.1.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}`,
		},
		{
			name: "chosen", endpoint: e(func(e *netdriver.Endpoint) {
				e.Address, e.MAC = ip("10.2.0.77/32"), net.HardwareAddr{2, 0, 0, 0, 0, 7}
			}), want: netdriver.Decided{Address: ip("10.2.0.77/24"), MAC: net.HardwareAddr{2, 0, 0, 0, 0, 7}},
			conf: `{"name": "chosen", "cniVersion": "0.4.0", "plugins": [
			  {"type": "bridge", "bridge": "cni0", "capabilities": {"ips": true},
			   "ipam": {"type": "host-local", "dataDir": "LEASES", "subnet": "10.2.0.0/24"}},
			  {"type": "tuning", "capabilities": {"mac": true}, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}},
			  {"type": "firewall", "backend": "iptables"}]}`,
		},
		{
			name: "dualstack", endpoint: e(none), want: netdriver.Decided{
				Address: ip("10.3.0.2/24"), Gateway: via("10.3.0.1"), Address6: ip("fd00:3::2/64"), Gateway6: via("fd00:3::1"),
			},
			conf: `{"name": "dual", "cniVersion": "1.0.0", "plugins": [{"type": "bridge", "bridge": "cni0", "isDefaultGateway": true,
			  "ipam": {"type": "host-local", "dataDir": "LEASES", "ranges": [[{"subnet": "10.3.0.0/24"}], [{"subnet": "fd00:3::/64"}]]}}]}`,
		},
		{
			name: "static", kind: "macvlan", endpoint: e(none), want: netdriver.Decided{Address: ip("192.0.2.9/24")},
			conf: `{"name": "static", "cniVersion": "0.2.0", "plugins": [{"type": "macvlan", "master": "parent0",
			  "ipam": {"type": "static", "addresses": [{"address": "192.0.2.9/24"}]}}]}`,
		},
	}
}

// listing is the kernel's, of the host with its rules and of the sandbox. The reference plugins give random names, and
// the kernel addresses of random MACs.
func listing(t *testing.T, s netdriver.Sandbox) string {
	t.Helper()
	text := "# host\n" + netdrivertest.Listing(t, "") + netdrivertest.MustRun(t, "", "nft -s list ruleset") + "# sandbox\n" + netdrivertest.Listing(t, s.Path)
	text = regexp.MustCompile(`(?m)^ *addr fe80::.*\n|^#.Warning.*\n`).ReplaceAllString(text, "")
	return regexp.MustCompile(`veth[0-9a-f]{8}`).ReplaceAllString(text, "vethX")
}

// bridge6 makes cni0 beforehand, with IPv6 as on a host, which the namespace lacks, and without addresses of the kernel's
// own making.
func bridge6(t *testing.T) {
	t.Helper()
	netdrivertest.MustRun(t, "", "ip link add cni0 type bridge")
	netdrivertest.MustRun(t, "", "ip link set cni0 addrgenmode none")
	if err := nl.SetSysctl("net/ipv6/conf/cni0/disable_ipv6", "0"); err != nil {
		t.Fatal(err)
	}
}

// TestPlugins joins an endpoint to networks of the reference plugins, wants what they decide and the kernel's listing to
// be as in the golden text, and both as before when it has left.
func TestPlugins(t *testing.T) {
	for _, c := range subjects() {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			wire(t)
			bridge6(t)
			n, s := h.network(t, c.conf), h.sandbox(t, "box")
			// What the first endpoint of all brings, the plugins leave.
			h.join(t, n, c.endpoint, s)
			h.leave(t, n, c.endpoint)
			before := listing(t, s)
			given := h.given(t)

			c.want.Address = netip.PrefixFrom(next(c.want.Address.Addr(), c), c.want.Address.Bits())
			if c.want.Address6.IsValid() {
				c.want.Address6 = netip.PrefixFrom(c.want.Address6.Addr().Next(), c.want.Address6.Bits())
			}
			got := h.join(t, n, c.endpoint, s)
			joined := listing(t, s)
			if len(got.MAC) != 6 || c.want.MAC != nil && !bytes.Equal(got.MAC, c.want.MAC) {
				t.Errorf("MAC %v, want %v", got.MAC, c.want.MAC)
			}
			got.MAC, c.want.MAC = nil, nil
			if !equal(got, c.want) {
				t.Errorf("decided\n%+v, want\n%+v", got, c.want)
			}
			golden(t, c.name, joined)
			wish := c.endpoint
			wish.Gateway, wish.Gateway6 = got.Gateway, got.Gateway6
			if again := h.join(t, n, wish, s); again.Address != got.Address || listing(t, s) != joined {
				t.Errorf("joined again: %+v\n%s", again, listing(t, s))
			}
			h.leave(t, n, c.endpoint)
			h.leave(t, n, c.endpoint)
			if now := listing(t, s); now != before {
				t.Errorf("left behind:\n%s\nbefore:\n%s", now, before)
			}
			if now := h.given(t); !slices.Equal(now, given) || h.known(t) != 0 {
				t.Errorf("addresses given %v, before %v; %d records", now, given, h.known(t))
			}
		})
	}
}

// next is what host-local gives after an address it has given already; what was asked for stays.
func next(a netip.Addr, c subject) netip.Addr {
	if c.endpoint.Address.IsValid() || c.kind == "macvlan" {
		return a
	}
	return a.Next()
}

func equal(a, b netdriver.Decided) bool {
	return a.Address == b.Address && a.Address6 == b.Address6 && a.Gateway == b.Gateway && a.Gateway6 == b.Gateway6 &&
		slices.Equal(a.DNS.Servers, b.DNS.Servers) && slices.Equal(a.DNS.Search, b.DNS.Search) && slices.Equal(a.DNS.Options, b.DNS.Options)
}

func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if os.Getenv("GOLDEN") == "update" {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("the listing is\n%s\nwant\n%s", text, want)
	}
}

// TestSandboxGone leaves when the sandbox is not there any more: leases and ports go all the same. The rules of ipMasq stay
// with plugins as old as Debian's, which look for the addresses inside.
func TestSandboxGone(t *testing.T) {
	for _, c := range subjects() {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			wire(t)
			bridge6(t)
			c.conf = strings.Replace(c.conf, `"cniVersion": "0.3.1"`, `"cniVersion": "1.0.0"`, 1)
			n, s := h.network(t, c.conf), h.sandbox(t, "box")
			h.join(t, n, c.endpoint, s)
			if err := os.Remove(s.Path); err == nil {
				t.Fatal("a mounted file is removed")
			}
			netdrivertest.MustRun(t, "", "umount "+s.Path)
			h.leave(t, n, c.endpoint)
			if got := h.given(t); len(got) != 0 || h.known(t) != 0 {
				t.Errorf("addresses %v, %d records", got, h.known(t))
			}
			rules := netdrivertest.MustRun(t, "", "nft -s list ruleset")
			if strings.Contains(rules, "8080") {
				t.Errorf("the port is published:\n%s", rules)
			}
		})
	}
}

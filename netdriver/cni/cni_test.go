package cni

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/netdrivertest"
)

// host is a driver as a daemon has it, in a fresh namespace.
type host struct {
	*Driver
	dir string
}

func newHost(t *testing.T) *host {
	t.Helper()
	netdrivertest.NewNS(t)
	dir := netdrivertest.Dir(t)
	return &host{newDriver(dir), dir}
}

func newDriver(dir string) *Driver {
	return New(Config{Log: netdrivertest.Quiet(), Dir: filepath.Join(dir, "state")})
}

// leases is host-local's folder.
func (h *host) leases() string { return filepath.Join(h.dir, "leases") }

// network makes a network of a configuration, in which LEASES stands for host-local's folder.
func (h *host) network(t *testing.T, conf string) netdriver.Network {
	t.Helper()
	path := filepath.Join(h.dir, "10-test.conflist")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(conf, "LEASES", h.leases())), 0o644); err != nil {
		t.Fatal(err)
	}
	options, err := h.Resolve(context.Background(), "net1", map[string]string{OptionConf: path})
	if err != nil {
		t.Fatal(err)
	}
	return testNetwork(options)
}

func testNetwork(options map[string]string) netdriver.Network {
	return netdriver.Network{ID: netdriver.NetworkID(strings.Repeat("a72ce58f3bd2", 6)[:64]), Name: "net1", Driver: netdriver.TypeCNI, Options: options}
}

func testEndpoint(n int, iface string) netdriver.Endpoint {
	return netdriver.Endpoint{ID: netdriver.EndpointID(strings.Repeat(fmt.Sprintf("%x", n), 64)), Interface: iface}
}

func (h *host) sandbox(t *testing.T, name string) netdriver.Sandbox {
	t.Helper()
	return netdrivertest.NewSandbox(t, filepath.Join(h.dir, "sandboxes"), name)
}

func (h *host) join(t *testing.T, n netdriver.Network, e netdriver.Endpoint, s netdriver.Sandbox) netdriver.Decided {
	t.Helper()
	at, err := h.Join(context.Background(), n, e, s)
	if err != nil {
		t.Fatal(err)
	}
	return *at.Decided
}

func (h *host) leave(t *testing.T, n netdriver.Network, e netdriver.Endpoint) {
	t.Helper()
	if err := h.Leave(context.Background(), n, e); err != nil {
		t.Fatal(err)
	}
}

// given are the addresses that host-local has given, in any network.
func (h *host) given(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(h.leases(), "*/*.*.*.*"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range all {
		out = append(out, filepath.Base(f))
	}
	return out
}

// known are the driver's records.
func (h *host) known(t *testing.T) int {
	t.Helper()
	all, err := h.records(func(*record) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// wire makes parent0, the host's end of a cable.
func wire(t *testing.T) {
	t.Helper()
	router := netdrivertest.NewSandbox(t, netdrivertest.Dir(t), "router")
	netdrivertest.MustRun(t, "", "ip link add parent0 type veth peer name eth0 netns "+router.Path)
	netdrivertest.MustRun(t, "", "ip link set parent0 up")
	netdrivertest.MustRun(t, router.Path, "ip addr add 192.0.2.1/24 dev eth0")
	netdrivertest.MustRun(t, router.Path, "ip link set eth0 up")
}

const macvlanConf = `{"name": "lan", "cniVersion": "1.0.0", "plugins": [{"type": "macvlan", "master": "parent0", "mtu": 1400,
  "capabilities": {"ips": true, "mac": true},
  "ipam": {"type": "host-local", "dataDir": "LEASES", "ranges": [[{"subnet": "192.0.2.0/24", "gateway": "192.0.2.1"}]],
    "routes": [{"dst": "0.0.0.0/0"}]}}]}`

// TestConformance runs what every driver owes its callers, over the plugin macvlan: of the reference plugins it leaves the
// least behind.
func TestConformance(t *testing.T) {
	netdrivertest.Suite(t, func(t *testing.T, dir string) netdrivertest.Subject {
		h := &host{newDriver(dir), dir}
		ends := [2]netdriver.Endpoint{testEndpoint(2, "eth0"), testEndpoint(3, "eth1")}
		for i := range ends {
			ends[i].Address = netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(2 + i)}), 24)
			ends[i].Gateway = netip.MustParseAddr("192.0.2.1")
			ends[i].MAC = net.HardwareAddr{2, 0, 0, 0, 0, byte(2 + i)}
		}
		return netdrivertest.Subject{
			Kind: "macvlan", Prepare: wire, New: func(*testing.T) netdriver.Driver { return newDriver(dir) },
			Network: h.network(t, macvlanConf), Endpoints: ends,
		}
	})
}

// TestRefused wants what cannot become a network refused, in words that name it.
func TestRefused(t *testing.T) {
	h := newHost(t)
	one := func(plugin string) string {
		return `{"name": "x", "cniVersion": "1.0.0", "plugins": [` + plugin + `]}`
	}
	for _, c := range []struct {
		name, conf string
		options    map[string]string
		want       string
	}{
		{"no option", "", map[string]string{}, "option conf: a CNI network needs a configuration, give -o conf=/etc/cni/net.d/FILE.conflist"},
		{"no file", "", map[string]string{OptionConf: "/nosuch/file"}, "option conf: this host has no file /nosuch/file"},
		{"relative", "", map[string]string{OptionConf: "x.conflist"}, `option conf: "x.conflist" is no absolute path of this host`},
		{"folder", "", map[string]string{OptionConf: "/etc"}, "option conf: /etc is no file"},
		{"device", "", map[string]string{OptionConf: "/dev/zero"}, "option conf: /dev/zero is no file"},
		{"config given", "", map[string]string{OptionConf: "/x", OptionConfig: "{}"}, "option config: minictl keeps here"},
		{"no JSON", "{,}", nil, "it is no CNI configuration: invalid character"},
		{"no name", `{"cniVersion": "1.0.0", "plugins": [{"type": "ptp"}]}`, nil, "no name"},
		{"bad name", `{"name": "../x", "cniVersion": "1.0.0", "plugins": [{"type": "ptp"}]}`, nil, `its name "../x"`},
		{"no plugins", `{"name": "x", "cniVersion": "1.0.0", "plugins": []}`, nil, "no plugins in list"},
		{"nothing", `{"name": "x", "cniVersion": "1.0.0"}`, nil, "names no plugins"},
		{"version", `{"name": "x", "cniVersion": "9.0.0", "plugins": [{"type": "ptp"}]}`, nil, `its cniVersion "9.0.0" is none of 0.1.0`},
		{"version of the plugin", `{"name": "x", "cniVersion": "1.1.0", "plugins": [{"type": "ptp"}]}`, nil, `its cniVersion is 1.1.0, and the CNI plugin "ptp" speaks 0.1.0`},
		{"missing plugin", one(`{"type": "nosuch"}`), nil, `its CNI plugin "nosuch" is in none of /opt/cni/bin, /usr/lib/cni: install it, or give its folder with -o bin-path=DIR`},
		{"missing IPAM", one(`{"type": "ptp", "ipam": {"type": "nosuch"}}`), nil, `its CNI plugin "nosuch" is in none of`},
		{"plugin by path", one(`{"type": "../cni/ptp"}`), nil, `its CNI plugin "../cni/ptp" is in none of`},
		{"bin-path", one(`{"type": "ptp"}`), map[string]string{OptionBinPath: "bin"}, `option bin-path: "bin" is no absolute path`},
		{"other bin-path", one(`{"type": "ptp"}`), map[string]string{OptionBinPath: "/nosuch"}, `its CNI plugin "ptp" is in none of /nosuch`},
	} {
		t.Run(c.name, func(t *testing.T) {
			options := map[string]string{}
			if c.conf != "" {
				options[OptionConf] = filepath.Join(t.TempDir(), "c.conflist")
				if err := os.WriteFile(options[OptionConf], []byte(c.conf), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			for k, v := range c.options {
				options[k] = v
			}
			_, err := h.Resolve(context.Background(), "net1", options)
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

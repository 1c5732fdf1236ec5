package overlay

import (
	"context"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/ipam"
	"github.com/minictl/minictl/netdriver/netdrivertest"
)

// testNetwork is network number i: VNI 256+i, the same subnet every time.
func testNetwork(i int) netdriver.Network {
	id := strings.Repeat(string("4567"[i])+"c21b88438", 7)[:64]
	return netdriver.Network{
		ID: netdriver.NetworkID(id), Name: "ov_net" + string("1234"[i]), Driver: netdriver.TypeOverlay, VNI: uint32(256 + i),
		Subnets: []netdriver.Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/24"), Gateway: netip.MustParseAddr("10.0.0.1")}},
	}
}

// testEndpoint is the endpoint with address 10.0.0.last.
func testEndpoint(last byte, iface string) netdriver.Endpoint {
	a := netip.AddrFrom4([4]byte{10, 0, 0, last})
	digits := "0123456789abcdef"
	id := strings.Repeat("e"+string(digits[last>>4])+string(digits[last&15])+"f", 16)
	return netdriver.Endpoint{
		ID: netdriver.EndpointID(id), Interface: iface, Address: netip.PrefixFrom(a, 24), MAC: ipam.MAC(a),
	}
}

// peer tells others of an endpoint on a host.
func peer(e netdriver.Endpoint, vtep netip.Addr) netdriver.Peer {
	return netdriver.Peer{Address: e.Address.Addr(), MAC: e.MAC, VTEP: vtep}
}

// underlay gives the fresh namespace an eth0 with a data-path address.
func underlay(t *testing.T) {
	t.Helper()
	netdrivertest.MustRun(t, "", "ip link add eth0 type veth peer name wire")
	netdrivertest.MustRun(t, "", "ip addr add 192.168.66.11/24 dev eth0")
	netdrivertest.MustRun(t, "", "ip link set eth0 up")
	netdrivertest.MustRun(t, "", "ip link set wire up")
}

// dataPath is the end of the tunnels that underlay prepares.
func dataPath() netdriver.DataPath {
	return netdriver.DataPath{Addr: netip.MustParseAddr("192.168.66.11"), Port: 4789, MTU: 1500}
}

func TestConformance(t *testing.T) {
	netdrivertest.Suite(t, func(t *testing.T, dir string) netdrivertest.Subject {
		n := testNetwork(0)
		remote := testEndpoint(9, "eth0")
		return netdrivertest.Subject{
			New: func(t *testing.T) netdriver.Driver {
				d := New(Config{Log: netdrivertest.Quiet(), NetnsDir: filepath.Join(dir, "netns")})
				if err := d.SetDataPath(context.Background(), dataPath()); err != nil {
					t.Fatal(err)
				}
				err := d.SetPeers(context.Background(), n.ID, []netdriver.Peer{peer(remote, netip.MustParseAddr("192.168.66.12"))})
				if err != nil {
					t.Fatal(err)
				}
				return lasting{d}
			},
			Network:    n,
			Endpoints:  [2]netdriver.Endpoint{testEndpoint(2, "eth0"), testEndpoint(3, "eth1")},
			Namespaces: []string{filepath.Join(dir, "netns", "1-4c21b88438")},
			Prepare:    underlay,
		}
	})
}

// lasting states the peers again after a network was removed, as the daemon does.
type lasting struct{ *Driver }

// Remove removes and states the peers of the suite.
func (l lasting) Remove(ctx context.Context, n netdriver.Network) error {
	if err := l.Driver.Remove(ctx, n); err != nil {
		return err
	}
	return l.SetPeers(ctx, n.ID, []netdriver.Peer{peer(testEndpoint(9, "eth0"), netip.MustParseAddr("192.168.66.12"))})
}

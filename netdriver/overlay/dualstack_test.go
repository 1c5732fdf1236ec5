package overlay

import (
	"context"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/netdrivertest"
)

// dualNetwork is testNetwork with an IPv6 subnet besides.
func dualNetwork(i int) netdriver.Network {
	n := testNetwork(i)
	n.Subnets = append(n.Subnets, netdriver.Subnet{Prefix: netip.MustParsePrefix("fd00:10::/64"), Gateway: netip.MustParseAddr("fd00:10::1")})
	return n
}

// addr6 is fd00:10::last.
func addr6(last byte) netip.Addr { return netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x10, 15: last}) }

// dualEndpoint is testEndpoint with an address of each family.
func dualEndpoint(last byte, iface string) netdriver.Endpoint {
	e := testEndpoint(last, iface)
	e.Address6 = netip.PrefixFrom(addr6(last), 64)
	return e
}

// peers6 tells others of all addresses of an endpoint.
func peers6(e netdriver.Endpoint, vtep netip.Addr) []netdriver.Peer {
	var list []netdriver.Peer
	for _, a := range e.Addresses() {
		list = append(list, netdriver.Peer{Address: a.Addr(), MAC: e.MAC, VTEP: vtep})
	}
	return list
}

// TestDualStackConformance runs the suite with both families inside and IPv6 outside.
func TestDualStackConformance(t *testing.T) {
	netdrivertest.Suite(t, func(t *testing.T, dir string) netdrivertest.Subject {
		n := dualNetwork(0)
		remote := peers6(dualEndpoint(9, "eth0"), netip.MustParseAddr("fd00:66::12"))
		return netdrivertest.Subject{
			Golden: "dualstack",
			New: func(t *testing.T) netdriver.Driver {
				d := New(Config{Log: netdrivertest.Quiet(), NetnsDir: filepath.Join(dir, "netns")})
				err := d.SetDataPath(context.Background(), netdriver.DataPath{Addr: netip.MustParseAddr("fd00:66::11"), Port: 4789, MTU: 1500})
				if err == nil {
					err = d.SetPeers(context.Background(), n.ID, remote)
				}
				if err != nil {
					t.Fatal(err)
				}
				return lasting6{d, remote}
			},
			Network:    n,
			Endpoints:  [2]netdriver.Endpoint{dualEndpoint(2, "eth0"), dualEndpoint(3, "eth1")},
			Namespaces: []string{filepath.Join(dir, "netns", "1-4c21b88438")},
			Prepare: func(t *testing.T) {
				underlay(t)
				netdrivertest.MustRun(t, "", "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0")
				netdrivertest.MustRun(t, "", "ip addr add fd00:66::11/64 dev eth0 nodad")
			},
		}
	})
}

// lasting6 states the peers again after a network was removed, as the daemon does.
type lasting6 struct {
	*Driver
	peers []netdriver.Peer
}

// Remove removes and states the peers of the suite.
func (l lasting6) Remove(ctx context.Context, n netdriver.Network) error {
	if err := l.Driver.Remove(ctx, n); err != nil {
		return err
	}
	return l.SetPeers(ctx, n.ID, l.peers)
}

// TestIPv6AcrossHosts sends IPv6 through tunnels of either family: the first packet arrives, the largest one too, and no
// neighbour solicitation leaves a host.
func TestIPv6AcrossHosts(t *testing.T) {
	for _, c := range []struct {
		name   string
		outer6 bool
		only6  bool
		mtu    int
	}{{"over IPv4", false, false, 1450}, {"over IPv6", true, false, 1430}, {"IPv6 alone over IPv6", true, true, 1430}} {
		t.Run(c.name, func(t *testing.T) {
			a, b := nodes(t)
			w := dualNetwork(0)
			end := func(last byte) netdriver.Endpoint {
				e := dualEndpoint(last, "eth0")
				if c.only6 {
					e.Address = netip.Prefix{}
				}
				return e
			}
			if c.only6 {
				w.Subnets = w.Subnets[1:]
			}
			boxes := map[*node]string{}
			for _, x := range []struct {
				here, there *node
				mine, its   byte
			}{{a, b, 2, 3}, {b, a, 3, 2}} {
				s := x.here.sandbox(t, "box")
				boxes[x.here] = s.Path
				here, vtep := x.here.Addr, x.there.Addr
				if c.outer6 {
					here, vtep = x.here.Addr6, x.there.Addr6
				}
				x.here.Do(t, func() error {
					ctx := context.Background()
					if err := x.here.driver.SetDataPath(ctx, netdriver.DataPath{Addr: here, Port: 4789, MTU: 1500}); err != nil {
						return err
					}
					at, err := x.here.driver.Join(ctx, w, end(x.mine), s)
					if err == nil && at.MTU != c.mtu {
						t.Errorf("MTU %d, want %d", at.MTU, c.mtu)
					}
					if err != nil {
						return err
					}
					return x.here.driver.SetPeers(ctx, w.ID, peers6(end(x.its), vtep))
				})
			}
			if !netdrivertest.Ping(boxes[a], addr6(3)) || !netdrivertest.Ping(boxes[b], addr6(2)) {
				t.Error("the first packet is lost")
			}
			if !netdrivertest.Ping(boxes[a], addr6(1)) {
				t.Error("the gateway does not answer")
			}
			if !c.only6 {
				reach(t, boxes[a], 3, true)
			}
			size := []string{"busybox", "ping", "-c", "1", "-W", "1", "-s", map[int]string{1450: "1402", 1430: "1382"}[c.mtu], addr6(3).String()}
			if out, err := netdrivertest.Run(boxes[a], size...); err != nil {
				t.Errorf("a packet as large as the MTU is lost: %s", out)
			}
			// What vxlan0 itself sends is what it could answer by a row; solicitations would show as drops on no peer.
			if got := a.rows(t, w); !strings.Contains(got, "neigh fd00:10::3 dev vxlan0 lladdr 02:42:0a:00:00:03 permanent") ||
				strings.Count(got, "fdb ") != 1 {
				t.Errorf("rows:\n%s", got)
			}
		})
	}
}

// TestIPv6AddressMoves gives an IPv6 address to a container on the other host, with another MAC: who remembers the old
// one learns the new one before its own question would tell.
func TestIPv6AddressMoves(t *testing.T) {
	a, b := nodes(t)
	w := dualNetwork(0)
	ctx := context.Background()
	one, here, there := a.sandbox(t, "one"), a.sandbox(t, "here"), b.sandbox(t, "there")
	first := dualEndpoint(3, "eth0")
	a.Do(t, func() error {
		if _, err := a.driver.Join(ctx, w, dualEndpoint(2, "eth0"), one); err != nil {
			return err
		}
		_, err := a.driver.Join(ctx, w, first, here)
		return err
	})
	if !netdrivertest.Ping(one.Path, addr6(3)) {
		t.Fatal("not reached in the beginning")
	}
	second := dualEndpoint(7, "eth0")
	second.Address6 = first.Address6
	a.Do(t, func() error { return a.driver.Leave(ctx, w, first) })
	b.Do(t, func() error {
		if err := b.driver.SetPeers(ctx, w.ID, peers6(dualEndpoint(2, "eth0"), a.Addr)); err != nil {
			return err
		}
		_, err := b.driver.Join(ctx, w, second, there)
		return err
	})
	a.Do(t, func() error { return a.driver.SetPeers(ctx, w.ID, peers6(second, b.Addr)) })
	if !netdrivertest.Ping(one.Path, addr6(3)) {
		t.Errorf("the address moved, and its neighbour does not know:\n%s", netdrivertest.MustRun(t, one.Path, "ip -6 neigh"))
	}
}

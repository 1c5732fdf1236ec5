package firewall

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/minictl/minictl/netdriver/nl"
)

func port(proto, hostIP string, hostPort uint16, target, bridge string) Port {
	p := Port{Proto: proto, HostPort: hostPort, Target: netip.MustParseAddrPort(target), Bridge: bridge}
	if hostIP != "" {
		p.HostIP = netip.MustParseAddr(hostIP)
	}
	return p
}

func TestTraffic(t *testing.T) {
	l := newLab(t)
	for _, s := range []struct{ name, network, addr string }{
		{"c1", "tcp", ":80"}, {"c1", "udp", "172.18.0.2:53"}, {"c2", "tcp", ":80"}, {"g1", "tcp", ":80"}, {"g2", "tcp", ":80"},
		{"i1", "tcp", ":80"}, {"client", "tcp", ":80"}, {"client", "udp", "192.0.2.9:53"},
		{"host", "tcp", "127.0.0.1:7000"}, {"host", "tcp", "0.0.0.0:7001"},
	} {
		l.serve(s.name, s.network, s.addr)
	}
	l.ok(l.fw.SetPorts(context.Background(), "c1", []Port{
		port("tcp", "", 8080, "172.18.0.2:80", "br-a"),
		port("udp", "0.0.0.0", 5353, "172.18.0.2:53", "br-a"),
		port("tcp", "127.0.0.1", 8081, "172.18.0.2:80", "br-a"),
		port("tcp", "192.0.2.1", 8082, "172.18.0.2:80", "br-a"),
	}))
	l.ok(l.fw.SetPorts(context.Background(), "g1", []Port{port("tcp", "", 9090, "172.19.0.2:80", "gw0")}))
	// The worst case for ports bound to 127.0.0.1: somebody lets the wire route them.
	l.sysctl("net/ipv4/conf/pclient/route_localnet", "1")
	for _, name := range []string{"client", "c2"} {
		l.ok(nl.Enter(l.path(name), func() error { return nl.SetSysctl("net/ipv4/conf/all/route_localnet", "1") }))
	}
	run := func(ns, cmd string) {
		l.ok(nl.Enter(l.path(ns), func() error { l.run(cmd); return nil }))
	}
	run("client", "ip addr del 127.0.0.1/8 dev lo")
	run("client", "ip route add 127.0.0.0/8 via 192.0.2.1")
	run("c2", "ip addr del 127.0.0.1/8 dev lo")
	run("c2", "ip route add 127.0.0.0/8 via 172.18.0.1")

	for _, c := range []struct{ what, from, network, to, want string }{
		{"the wire reaches a published port, its address kept", "client", "tcp", "192.0.2.1:8080", "c1 saw 192.0.2.9"},
		{"the same by UDP", "client", "udp", "192.0.2.1:5353", "c1 saw 192.0.2.9"},
		{"a port of one address, by it", "client", "tcp", "192.0.2.1:8082", "c1 saw 192.0.2.9"},
		{"a port of one address, by another", "client", "tcp", "172.18.0.1:8082", "refused"},
		{"an isolated bridge's published port", "client", "tcp", "192.0.2.1:9090", "g1 saw 192.0.2.9"},
		{"an unpublished port", "client", "tcp", "192.0.2.1:80", "refused"},
		{"a published port's target, by routing", "client", "tcp", "172.18.0.2:80", "timeout"},
		{"an unpublished container, by routing", "client", "tcp", "172.18.0.3:80", "timeout"},
		{"the host by the gateway's address", "client", "tcp", "172.18.0.1:7001", "host saw 192.0.2.9"},
		{"a port bound to 127.0.0.1, by the host's address", "client", "tcp", "192.0.2.1:8081", "refused"},
		{"a port bound to 127.0.0.1, by routed loopback", "client", "tcp", "127.0.0.1:8081", "timeout"},

		{"the host by its own address", "host", "tcp", "192.0.2.1:8080", "c1 saw 192.0.2.1"},
		{"the host by 127.0.0.1", "host", "tcp", "127.0.0.1:8080", "c1 saw 172.18.0.1"},
		{"the host by 127.0.0.1, UDP", "host", "udp", "127.0.0.1:5353", "c1 saw 172.18.0.1"},
		{"the host by 127.0.0.1, bound there", "host", "tcp", "127.0.0.1:8081", "c1 saw 172.18.0.1"},
		{"the host by a bridge's address", "host", "tcp", "172.19.0.1:8080", "c1 saw 172.19.0.1"},
		{"the host by the container's address", "host", "tcp", "172.18.0.3:80", "c2 saw 172.18.0.1"},

		{"a container to its own published port", "c1", "tcp", "192.0.2.1:8080", "c1 saw 172.18.0.1"},
		{"a container to its neighbour's published port", "c2", "tcp", "192.0.2.1:8080", "c1 saw 172.18.0.1"},
		{"the same by UDP", "c2", "udp", "192.0.2.1:5353", "c1 saw 172.18.0.1"},
		{"the same on an isolated bridge, to itself", "g1", "tcp", "192.0.2.1:9090", "g1 saw 172.19.0.1"},
		{"the same on an isolated bridge, to the neighbour", "g2", "tcp", "192.0.2.1:9090", "g1 saw 172.19.0.1"},
		{"another bridge's published port", "g2", "tcp", "192.0.2.1:8080", "c1 saw 172.19.0.3"},
		{"another bridge's container", "g2", "tcp", "172.18.0.2:80", "timeout"},
		{"the host from a container", "c1", "tcp", "172.18.0.1:7001", "host saw 172.18.0.2"},
		{"the host from a container, by the wire's address", "c1", "tcp", "192.0.2.1:7001", "host saw 172.18.0.2"},
		{"another bridge's gateway", "c1", "tcp", "172.19.0.1:7001", "timeout"},
		{"the host's loopback from a container", "c2", "tcp", "127.0.0.1:7000", "timeout"},

		{"the neighbour with ICC", "c2", "tcp", "172.18.0.2:80", "c1 saw 172.18.0.3"},
		{"the neighbour without ICC", "g2", "tcp", "172.19.0.2:80", "timeout"},

		{"the world, masqueraded", "c1", "tcp", "192.0.2.9:80", "client saw 192.0.2.1"},
		{"the world by UDP", "c1", "udp", "192.0.2.9:53", "client saw 192.0.2.1"},
		{"the world from an isolated bridge", "g1", "tcp", "192.0.2.9:80", "client saw 192.0.2.1"},
		{"the world from an internal network", "i1", "tcp", "192.0.2.9:80", "timeout"},
		{"a published port from an internal network", "i1", "tcp", "192.0.2.1:8080", "timeout"},
		{"the host from an internal network", "i1", "tcp", "172.20.0.1:7001", "host saw 172.20.0.2"},
		{"the host's other addresses from there", "i1", "tcp", "192.0.2.1:7001", "timeout"},
		{"another bridge's gateway from there", "i1", "tcp", "172.18.0.1:7001", "timeout"},
		{"an internal network from the wire", "client", "tcp", "172.20.0.2:80", "timeout"},
		{"an internal network from another bridge", "c1", "tcp", "172.20.0.2:80", "timeout"},
		{"an internal network from the host", "host", "tcp", "172.20.0.2:80", "i1 saw 172.20.0.1"},
	} {
		t.Run(c.what, func(t *testing.T) {
			l.expect(t, c.want, func() string {
				got := l.ask(c.from, c.network, c.to)
				if strings.HasSuffix(got, "no route to host") {
					return "timeout" // ARP gave up first
				}
				return got
			})
		})
	}
}

// Each mode opens what it says, to whom it says, and nothing else.
func TestModes(t *testing.T) {
	l := newLab(t)
	for _, s := range []struct{ name, network, addr string }{
		{"c1", "tcp", ":80"}, {"c1", "tcp", ":81"}, {"c1", "udp", "172.18.0.2:5000"}, {"c1", "udp", "172.18.0.2:5001"}, {"client", "tcp", ":80"},
	} {
		l.serve(s.name, s.network, s.addr)
	}
	l.run("ip addr add 192.0.2.77/24 dev pclient")
	type ask struct{ from, network, to, want string }
	for _, step := range []struct {
		what  string
		wish  Bridge
		ports []Port
		asks  []ask
	}{
		{"nat, a range that keeps its numbers", Bridge{}, []Port{port("udp", "", 5000, "172.18.0.2:5000", "br-a"), port("udp", "", 5001, "172.18.0.2:5001", "br-a")}, []ask{
			{"client", "udp", "192.0.2.1:5000", "c1 saw 192.0.2.9"}, {"client", "udp", "192.0.2.1:5001", "c1 saw 192.0.2.9"},
			{"client", "udp", "192.0.2.1:5002", "refused"}, {"client", "udp", "172.18.0.2:5000", "timeout"}, {"c1", "tcp", "192.0.2.9:80", "client saw 192.0.2.1"},
		}},
		{"the same on one address", Bridge{}, []Port{port("udp", "192.0.2.77", 5000, "172.18.0.2:5000", "br-a"), port("udp", "192.0.2.77", 5001, "172.18.0.2:5001", "br-a")}, []ask{
			{"client", "udp", "192.0.2.77:5001", "c1 saw 192.0.2.9"}, {"client", "udp", "192.0.2.1:5001", "refused"},
		}},
		{"nat-unprotected", Bridge{Mode4: Unprotected}, []Port{port("tcp", "", 8080, "172.18.0.2:80", "br-a")}, []ask{
			{"client", "tcp", "192.0.2.1:8080", "c1 saw 192.0.2.9"}, {"client", "tcp", "172.18.0.2:80", "c1 saw 192.0.2.9"},
			{"client", "tcp", "172.18.0.2:81", "c1 saw 192.0.2.9"}, {"c1", "tcp", "192.0.2.9:80", "client saw 192.0.2.1"},
		}},
		{"routed", Bridge{Mode4: Routed}, []Port{port("tcp", "", 0, "172.18.0.2:80", "br-a")}, []ask{
			{"client", "tcp", "172.18.0.2:80", "c1 saw 192.0.2.9"}, {"client", "tcp", "172.18.0.2:81", "timeout"}, {"client", "tcp", "192.0.2.1:80", "refused"},
			{"g1", "tcp", "172.18.0.2:80", "c1 saw 172.19.0.2"}, {"c1", "tcp", "192.0.2.9:80", "client saw 172.18.0.2"},
		}},
		{"the wire is trusted", Bridge{Trusted: []string{"pclient"}}, []Port{port("tcp", "127.0.0.1", 8080, "172.18.0.2:80", "br-a")}, []ask{
			{"client", "tcp", "172.18.0.2:80", "c1 saw 192.0.2.9"}, {"client", "tcp", "172.18.0.2:81", "timeout"}, {"g1", "tcp", "172.18.0.2:80", "timeout"},
			{"client", "tcp", "192.0.2.1:8080", "refused"},
		}},
		{"another source", Bridge{Sources: addrs("192.0.2.77")}, nil, []ask{{"c1", "tcp", "192.0.2.9:80", "client saw 192.0.2.77"}}},
		{"nat again", Bridge{}, nil, []ask{{"client", "tcp", "172.18.0.2:80", "timeout"}, {"c1", "tcp", "192.0.2.9:80", "client saw 192.0.2.1"}}},
	} {
		b := bridgeA
		b.Mode4, b.Trusted, b.Sources = step.wish.Mode4, step.wish.Trusted, step.wish.Sources
		l.ok(l.fw.SetPorts(context.Background(), "c1", nil))
		l.ok(l.fw.SetBridge(context.Background(), b))
		l.ok(l.fw.SetPorts(context.Background(), "c1", step.ports))
		for _, a := range step.asks {
			t.Run(step.what+": "+a.from+" to "+a.to, func(t *testing.T) {
				l.expect(t, a.want, func() string { return l.ask(a.from, a.network, a.to) })
			})
		}
	}
}

// The gateway that stands for the host is reached from every bridge that is not internal.
func TestSharedGateway(t *testing.T) {
	l := newLab(t)
	l.serve("host", "tcp", "0.0.0.0:7001")
	for _, step := range []struct {
		shared   bool
		from, to string
		want     string
	}{
		{true, "g1", "172.18.0.1:7001", "host saw 172.19.0.2"}, {true, "c1", "172.19.0.1:7001", "timeout"},
		{true, "i1", "172.18.0.1:7001", "timeout"}, {false, "g1", "172.18.0.1:7001", "timeout"},
	} {
		a := bridgeA
		a.Shared = step.shared
		l.ok(l.fw.SetBridge(context.Background(), a))
		l.expect(t, step.want, func() string { return l.ask(step.from, "tcp", step.to) })
	}
}

// ICC off must hold for packets that take the way round by the gateway, where the isolated flag does not see them.
func TestNoICCByRouting(t *testing.T) {
	l := newLab(t)
	l.serve("g1", "tcp", ":80")
	l.ok(nl.Enter(l.path("g2"), func() error {
		l.run("ip route add 172.19.0.2/32 via 172.19.0.1")
		return nil
	}))
	l.ok(nl.Enter(l.path("g1"), func() error {
		l.run("ip route add 172.19.0.3/32 via 172.19.0.1")
		return nil
	}))
	l.expect(t, "timeout", func() string { return l.ask("g2", "tcp", "172.19.0.2:80") })
	open := bridgeGW
	open.ICC = true
	l.ok(l.fw.SetBridge(context.Background(), open))
	l.expect(t, "g1 saw 172.19.0.3", func() string { return l.ask("g2", "tcp", "172.19.0.2:80") })
}

// Where br_netfilter is on, the kernel bridges a packet that DNAT sends back to its own bridge.
func TestHairpinThroughBrNetfilter(t *testing.T) {
	l := newLab(t)
	if err := nl.SetSysctl("net/bridge/bridge-nf-call-iptables", "1"); err != nil {
		t.Skip("no br_netfilter here")
	}
	l.serve("c1", "tcp", ":80")
	l.ok(l.fw.SetPorts(context.Background(), "c1", []Port{port("tcp", "", 8080, "172.18.0.2:80", "br-a")}))
	l.expect(t, "c1 saw 172.18.0.1", func() string { return l.ask("c2", "tcp", "192.0.2.1:8080") })
	// To itself it is bridged back out of the port it came in by, which needs the port's leave.
	l.run("bridge link set dev pc1 hairpin on")
	l.expect(t, "c1 saw 172.18.0.1", func() string { return l.ask("c1", "tcp", "192.0.2.1:8080") })
}

// A UDP stream that never pauses must follow its port to the next container at once.
func TestUDPFollowsItsPort(t *testing.T) {
	l := newLab(t)
	ctx := context.Background()
	l.serve("c1", "udp", "172.18.0.2:53")
	l.serve("c2", "udp", "172.18.0.3:53")
	var c net.Conn
	l.ok(nl.Enter(l.path("client"), func() (err error) {
		c, err = net.Dial("udp", "192.0.2.1:5353")
		return err
	}))
	defer c.Close()
	say := func() string { return outcome(exchange(c, "udp")) }
	l.expect(t, "refused", say)
	for _, step := range []struct{ target, want string }{
		{"172.18.0.2:53", "c1 saw 192.0.2.9"}, {"172.18.0.3:53", "c2 saw 192.0.2.9"}, {"", "refused"},
	} {
		var ports []Port
		if step.target != "" {
			ports = []Port{port("udp", "", 5353, step.target, "br-a")}
		}
		l.ok(l.fw.SetPorts(ctx, "owner", ports))
		t.Run("to "+step.target, func(t *testing.T) { l.expect(t, step.want, say) })
	}
}

// Streams that merely pass the host to the same port elsewhere are not ours to cut.
func TestUDPFlushSparesOthers(t *testing.T) {
	l := newLab(t)
	l.serve("client", "udp", "192.0.2.9:53")
	l.serve("c1", "udp", "172.18.0.2:53")
	l.expect(t, "client saw 192.0.2.1", func() string { return l.ask("c2", "udp", "192.0.2.9:53") })
	before := l.run("conntrack -L -p udp --dport 53 -s 172.18.0.3")
	l.ok(l.fw.SetPorts(context.Background(), "dns", []Port{port("udp", "", 53, "172.18.0.2:53", "br-a")}))
	if after := l.run("conntrack -L -p udp --dport 53 -s 172.18.0.3"); !strings.Contains(after, "src=172.18.0.3") {
		t.Errorf("the stream is gone:\nbefore %safter %s", before, after)
	}
}

func TestTunnelGuard(t *testing.T) {
	l := newLab(t)
	ctx := context.Background()
	l.serve("host", "udp", "0.0.0.0:4789")
	l.serve("client", "udp", "192.0.2.9:4789")
	l.expect(t, "client saw 192.0.2.1", func() string { return l.ask("c1", "udp", "192.0.2.9:4789") })
	l.expect(t, "host saw 192.0.2.9", func() string { return l.ask("client", "udp", "192.0.2.1:4789") })
	for _, step := range []struct {
		what    string
		members []string
		want    string
	}{
		{"no members", nil, "timeout"},
		{"a member", []string{"192.0.2.9", "192.0.2.7"}, "host saw 192.0.2.9"},
		{"other members", []string{"192.0.2.7", "2001:db8::1"}, "timeout"},
	} {
		var members []netip.Addr
		for _, m := range step.members {
			members = append(members, netip.MustParseAddr(m))
		}
		l.ok(l.fw.SetMembers(ctx, 4789, members))
		t.Run(step.what, func(t *testing.T) {
			l.expect(t, step.want, func() string { return l.ask("client", "udp", "192.0.2.1:4789") })
			// A container is never a member, whatever address masquerading would lend it.
			l.expect(t, "timeout", func() string { return l.ask("c1", "udp", "192.0.2.1:4789") })
			if step.want != "timeout" {
				l.expect(t, "timeout", func() string { return l.ask("c1", "udp", "192.0.2.9:4789") })
			}
		})
	}
	// What members send each other leaves no row in the table of connections; what others send does.
	rows := func() string {
		l.run("conntrack -F")
		l.expect(t, "host saw 192.0.2.9", func() string { return l.ask("client", "udp", "192.0.2.1:4789") })
		return l.run("conntrack -L -p udp --dport 4789 -s 192.0.2.9")
	}
	l.ok(l.fw.SetMembers(ctx, 4789, []netip.Addr{netip.MustParseAddr("192.0.2.9")}))
	if list := rows(); strings.Contains(list, "192.0.2.9") {
		t.Errorf("tracked: %s", list)
	}
	l.ok(l.fw.SetMembers(ctx, 0, nil))
	if list := rows(); !strings.Contains(list, "192.0.2.9") {
		t.Errorf("nothing is tracked here, so the test says nothing: %s", list)
	}
}

// A connection must survive any number of rewrites of the table, and no new one may fail during them.
func TestRewriteIsSeamless(t *testing.T) {
	l := newLab(t)
	ctx := context.Background()
	l.serve("c1", "tcp", ":80")
	l.ok(l.fw.SetPorts(ctx, "c1", []Port{port("tcp", "", 8080, "172.18.0.2:80", "br-a")}))
	const connections = 30
	failed := make(chan string, 1)
	go func() {
		defer close(failed)
		for range connections {
			// A packet that misses the rules is refused; one that is late is only late.
			if got := l.ask("client", "tcp", "192.0.2.1:8080"); got != "c1 saw 192.0.2.9" && got != "timeout" {
				failed <- got
				return
			}
		}
	}()
	for rewrites := 0; ; rewrites++ {
		select {
		case got, bad := <-failed:
			if bad {
				t.Errorf("during a rewrite: %q", got)
			}
			if rewrites == 0 {
				t.Error("nothing was rewritten meanwhile")
			}
			return
		default:
			l.ok(l.fw.Sync(ctx))
		}
	}
}

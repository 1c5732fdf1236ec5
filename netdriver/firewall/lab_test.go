package firewall

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver/netdrivertest"
	"github.com/minictl/minictl/netdriver/nl"
)

// The lab: a host with two bridges, containers behind them, and a client on the wire.
//
//	client 192.0.2.9 ── wire ── 192.0.2.1 host ── br-a 172.18.0.1 ── c1 .2, c2 .3   (ICC on)
//	                                          ├── gw0  172.19.0.1 ── g1 .2, g2 .3   (ICC off)
//	                                          └── int0 172.20.0.1 ── i1 .2          (internal)
type lab struct {
	t    *testing.T
	dir  string
	fw   *Firewall
	host string // path of the host's namespace
}

// patience is how long a test waits for an answer before it says that packets are dropped. Answers take less than 1 ms.
const patience = 200 * time.Millisecond

var (
	bridgeA   = Bridge{Interface: "br-a", Subnets: prefixes("172.18.0.0/16"), Gateways: addrs("172.18.0.1"), Masquerade: true, ICC: true}
	bridgeGW  = Bridge{Interface: "gw0", Subnets: prefixes("172.19.0.0/16"), Gateways: addrs("172.19.0.1"), Masquerade: true}
	bridgeInt = Bridge{Interface: "int0", Subnets: prefixes("172.20.0.0/16"), Gateways: addrs("172.20.0.1"), ICC: true, Internal: true}
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func newLab(t *testing.T) *lab {
	t.Helper()
	netdrivertest.NewNS(t)
	l := &lab{t: t, dir: netdrivertest.Dir(t), fw: newFirewall(t), host: fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), syscall.Gettid())}
	l.sysctl("net/ipv4/ip_forward", "1")
	// A host without br_netfilter; TestHairpinThroughBrNetfilter turns it on.
	if err := nl.SetSysctl("net/bridge/bridge-nf-call-iptables", "0"); err != nil && !errdefs.IsNotFound(err) {
		t.Fatal(err)
	}
	l.bridge("br-a", "172.18.0.1/16")
	l.bridge("gw0", "172.19.0.1/16")
	l.bridge("int0", "172.20.0.1/16")
	l.endpoint("c1", "br-a", "172.18.0.2/16", "172.18.0.1")
	l.endpoint("c2", "br-a", "172.18.0.3/16", "172.18.0.1")
	l.endpoint("g1", "gw0", "172.19.0.2/16", "172.19.0.1")
	l.endpoint("g2", "gw0", "172.19.0.3/16", "172.19.0.1")
	l.endpoint("i1", "int0", "172.20.0.2/16", "172.20.0.1")
	l.endpoint("client", "", "192.0.2.9/24", "192.0.2.1")
	// The bridge driver sets the flag; here the test does.
	for _, port := range []string{"pg1", "pg2"} {
		l.run("bridge link set dev " + port + " isolated on")
	}
	for _, b := range []Bridge{bridgeA, bridgeGW, bridgeInt} {
		l.ok(l.fw.SetBridge(context.Background(), b))
	}
	return l
}

func newFirewall(t *testing.T) *Firewall {
	f := New(netdrivertest.Quiet())
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (l *lab) ok(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) run(command string) string {
	l.t.Helper()
	return netdrivertest.MustRun(l.t, "", command)
}

func (l *lab) sysctl(key, value string) { l.t.Helper(); l.ok(nl.SetSysctl(key, value)) }

func (l *lab) bridge(name, addr string) {
	l.run("ip link add " + name + " type bridge")
	l.run("ip addr add " + addr + " dev " + name)
	l.run("ip link set " + name + " up")
	l.sysctl("net/ipv4/conf/"+name+"/route_localnet", "1")
}

// endpoint makes a namespace with eth0 on a bridge, or on a wire of its own when there is none.
func (l *lab) endpoint(name, bridge, addr, gateway string) {
	s := netdrivertest.NewSandbox(l.t, l.dir, name)
	l.run("ip link add p" + name + " type veth peer name eth0 netns " + s.Path)
	if bridge != "" {
		l.run("ip link set p" + name + " master " + bridge)
	} else {
		l.run("ip addr add " + gateway + "/24 dev p" + name)
	}
	l.run("ip link set p" + name + " up")
	for _, c := range []string{"ip addr add " + addr + " dev eth0", "ip link set eth0 up", "ip route add default via " + gateway} {
		netdrivertest.MustRun(l.t, s.Path, c)
	}
}

func (l *lab) path(name string) string {
	if name == "host" {
		return l.host
	}
	return filepath.Join(l.dir, name)
}

// serve answers "NAME saw SOURCE" at an address of a namespace until the test ends.
func (l *lab) serve(name, network, addr string) {
	l.t.Helper()
	l.ok(nl.Enter(l.path(name), func() error {
		if network == "udp" {
			c, err := net.ListenPacket("udp4", addr)
			if err == nil {
				l.t.Cleanup(func() { _ = c.Close() })
				go echoUDP(c, name)
			}
			return err
		}
		ln, err := net.Listen("tcp", addr)
		if err == nil {
			l.t.Cleanup(func() { _ = ln.Close() })
			go echoTCP(ln, name)
		}
		return err
	}))
}

func echoTCP(ln net.Listener, name string) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		fmt.Fprintf(c, "%s saw %s\n", name, hostOf(c.RemoteAddr()))
		_ = c.Close()
	}
}

func echoUDP(c net.PacketConn, name string) {
	buf := make([]byte, 64)
	for {
		_, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(fmt.Appendf(nil, "%s saw %s", name, hostOf(from)), from)
	}
}

func hostOf(a net.Addr) string {
	h, _, _ := net.SplitHostPort(a.String())
	return h
}

// expect asks until the answer is the wanted one: on a busy machine an answer may come too late. A wanted silence has to
// be there at once.
func (l *lab) expect(t *testing.T, want string, ask func() string) {
	t.Helper()
	var got string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		if got = ask(); strings.HasSuffix(got, want) {
			return
		}
		if want == "timeout" {
			break
		}
	}
	t.Errorf("%q, want %q", got, want)
}

// ask connects from a namespace and gives the answer, or "refused", "timeout" or the error.
func (l *lab) ask(from, network, addr string) string {
	l.t.Helper()
	var got string
	err := nl.Enter(l.path(from), func() error {
		c, err := net.DialTimeout(network, addr, patience)
		if err != nil {
			return err
		}
		defer c.Close()
		got, err = exchange(c, network)
		return err
	})
	return outcome(got, err)
}

func exchange(c net.Conn, network string) (string, error) {
	if err := c.SetDeadline(time.Now().Add(400 * time.Millisecond)); err != nil {
		return "", err
	}
	if network != "udp" {
		return bufio.NewReader(c).ReadString('\n')
	}
	if _, err := io.WriteString(c, "?"); err != nil {
		return "", err
	}
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

func outcome(got string, err error) string {
	var ne net.Error
	switch {
	case err == nil:
		return strings.TrimSpace(got)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.As(err, &ne) && ne.Timeout():
		return "timeout"
	}
	return err.Error()
}

func enter(t testing.TB, path string, fn func() error) {
	t.Helper()
	if err := nl.Enter(path, fn); err != nil {
		t.Fatal(err)
	}
}

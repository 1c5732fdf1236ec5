package netdrivertest

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/minictl/minictl/netdriver/nl"
)

// Host is a machine of a test: a network namespace with eth0 on a common wire.
type Host struct {
	Path  string     // of its namespace
	Addr  netip.Addr // of its eth0, in a /24
	Addr6 netip.Addr // the same, in a /64
	Dir   string     // for files of its own
}

// Do runs fn on a thread in the host's namespace, as the host's daemon would. It must not end the test from there.
func (h Host) Do(t testing.TB, fn func() error) {
	t.Helper()
	if err := nl.Enter(h.Path, fn); err != nil {
		t.Fatal(err)
	}
}

// Hosts makes n hosts, 192.168.66.11 and fd00:66::11 and up, whose eth0 are joined by a bridge in a namespace of its own.
func Hosts(t testing.TB, n int) []Host {
	t.Helper()
	NeedRoot(t)
	dir := Dir(t)
	wire := NewSandbox(t, filepath.Join(dir, "hosts"), "wire")
	MustRun(t, wire.Path, "ip link add wire type bridge")
	MustRun(t, wire.Path, "ip link set wire up")
	hosts := make([]Host, n)
	for i := range hosts {
		name := fmt.Sprintf("h%d", i+1)
		s := NewSandbox(t, filepath.Join(dir, "hosts"), name)
		h := Host{Path: s.Path, Addr: netip.AddrFrom4([4]byte{192, 168, 66, byte(11 + i)}), Dir: filepath.Join(dir, name)}
		c, err := nl.At(wire.Path)
		if err != nil {
			t.Fatal(err)
		}
		err = c.AddVeth(nl.Veth{Name: name, MTU: 1500, PeerName: "eth0", PeerNS: h.Path})
		c.Close()
		if err != nil {
			t.Fatal(err)
		}
		MustRun(t, wire.Path, "ip link set "+name+" master wire up")
		MustRun(t, h.Path, fmt.Sprintf("ip addr add %s/24 dev eth0", h.Addr))
		MustRun(t, h.Path, "ip link set eth0 up")
		h.Addr6 = netip.MustParseAddr(fmt.Sprintf("fd00:66::%d", 11+i))
		h.Do(t, func() error { return nl.SetSysctl("net/ipv6/conf/eth0/disable_ipv6", "0") })
		MustRun(t, h.Path, fmt.Sprintf("ip addr add %s/64 dev eth0 nodad", h.Addr6))
		hosts[i] = h
	}
	return hosts
}

// Ping sends one echo request from the namespace at path and tells whether the answer came within a second.
func Ping(path string, to netip.Addr) bool {
	_, err := Run(path, "busybox", "ping", "-c", "1", "-W", "1", to.String())
	return err == nil
}

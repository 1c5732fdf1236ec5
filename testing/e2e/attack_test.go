package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/testing/lab"
)

// attack makes this test program, bound into a container, write frames to an interface, or say what has come by one.
const attack = "attack"

// attackMain is the program inside: "send IFACE FRAME…" writes frames given in hexadecimal digits; "watch IFACE" prints
// the marks it finds in the frames that arrive; "listen PORT" does so for a UDP socket's datagrams; "accept ADDRESS" tells who connects; "resolve ADDRESS" answers DNS.
func attackMain(args []string) error {
	switch {
	case len(args) > 2 && args[0] == "send":
		fd, at, err := rawSocket(args[1])
		if err != nil {
			return err
		}
		for _, text := range args[2:] {
			b, err := hex.DecodeString(text)
			if err == nil {
				err = unix.Sendto(fd, b, 0, at)
			}
			if err != nil {
				return fmt.Errorf("send %s: %w", text, err)
			}
		}
		return nil
	case len(args) == 2 && args[0] == "watch":
		fd, at, err := rawSocket(args[1])
		if err == nil {
			err = unix.Bind(fd, at)
		}
		fmt.Fprintln(os.Stdout, "watching")
		for b := make([]byte, 4096); err == nil; {
			var n int
			var from unix.Sockaddr
			n, from, err = unix.Recvfrom(fd, b, 0)
			if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype != unix.PACKET_OUTGOING {
				printMarks(b[:max(n, 0)])
			}
		}
		return err
	case len(args) == 2 && args[0] == "listen":
		c, err := net.ListenPacket("udp4", ":"+args[1])
		fmt.Fprintln(os.Stdout, "watching")
		for b := make([]byte, 4096); err == nil; {
			var n int
			n, _, err = c.ReadFrom(b)
			printMarks(b[:n])
		}
		return err
	}
	if len(args) == 2 && args[0] == "accept" {
		return acceptAll(args[1])
	}
	if len(args) == 2 && args[0] == "resolve" {
		return resolveAll(args[1])
	}
	return fmt.Errorf("%s: unknown arguments %q", attack, args)
}

// resolveAll is a resolver that knows one address, of every name.
func resolveAll(addr string) error {
	answer := func(w dns.ResponseWriter, req *dns.Msg) {
		m := new(dns.Msg).SetReply(req)
		if rr, err := dns.NewRR(req.Question[0].Name + " A " + addr); err == nil && req.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{rr}
		}
		_ = w.WriteMsg(m)
	}
	return (&dns.Server{Addr: ":53", Net: "udp", Handler: dns.HandlerFunc(answer)}).ListenAndServe()
}

func acceptAll(addr string) error {
	ln, err := net.Listen("tcp4", addr)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "watching")
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		host, _, err := net.SplitHostPort(c.RemoteAddr().String())
		fmt.Fprintln(os.Stdout, "from", host)
		if err := errors.Join(err, c.Close()); err != nil {
			return err
		}
	}
}

func rawSocket(iface string) (int, *unix.SockaddrLinklayer, error) {
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, err
	}
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return 0, nil, err
	}
	return fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}, nil
}

func printMarks(b []byte) {
	for _, m := range regexp.MustCompile(`mark<[^>]*>`).FindAll(b, -1) {
		fmt.Fprintln(os.Stdout, string(m))
	}
}

// mark is what watchers look for.
func mark(name string) []byte { return []byte("mark<" + name + ">") }

// plugged is an interface of a container: who it may say it is.
type plugged struct {
	mac net.HardwareAddr
	ip  netip.Addr
	ip6 netip.Addr // invalid without IPv6
}

func plugOf(t *testing.T, h *lab.Host, container, iface string) plugged {
	t.Helper()
	out := h.MustMinictl("exec", container, "ip", "addr", "show", iface)
	m := regexp.MustCompile(`(?s)link/ether (\S+) .*inet ([0-9.]+)/`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("%s's %s: %s", container, iface, out)
	}
	mac, err := net.ParseMAC(m[1])
	if err != nil {
		t.Fatal(err)
	}
	p := plugged{mac: mac, ip: netip.MustParseAddr(m[2])}
	if m := regexp.MustCompile(`inet6 (fd[0-9a-f:]+)/`).FindStringSubmatch(out); m != nil {
		p.ip6 = netip.MustParseAddr(m[1])
	}
	return p
}

// gatewayOf is a bridge's own end, by its address.
func gatewayOf(ip string) plugged {
	a := netip.MustParseAddr(ip)
	return plugged{mac: append(net.HardwareAddr{0x02, 0x42}, a.AsSlice()...), ip: a}
}

func broadcast() net.HardwareAddr { return bytes.Repeat([]byte{0xff}, 6) }

func ether(src, dst net.HardwareAddr, kind uint16, body []byte) []byte {
	return slices.Concat(dst, src, binary.BigEndian.AppendUint16(nil, kind), body)
}

// udp4 is a datagram in an IPv4 packet.
func udp4(src, dst netip.Addr, port uint16, payload []byte) []byte {
	ip := slices.Concat([]byte{0x45, 0}, binary.BigEndian.AppendUint16(nil, uint16(28+len(payload))), []byte{0, 0, 0, 0, 64, 17, 0, 0}, src.AsSlice(), dst.AsSlice())
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	head := binary.BigEndian.AppendUint16(nil, 40000)
	head = binary.BigEndian.AppendUint16(head, port)
	head = binary.BigEndian.AppendUint16(head, uint16(8+len(payload)))
	return slices.Concat(ip, head, []byte{0, 0}, payload)
}

// arpReply says that an address has a MAC.
func arpReply(sha net.HardwareAddr, spa netip.Addr, to plugged, name string) []byte {
	return slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, 2}, sha, spa.AsSlice(), to.mac, to.ip.AsSlice(), mark(name))
}

// ipv6 is a packet (RFC 8200) with the hop limit that neighbour discovery demands. The payload's checksum stands at sumAt.
func ipv6(src, dst netip.Addr, next byte, payload []byte, sumAt int) []byte {
	var sum uint32
	for _, b := range [][]byte{src.AsSlice(), dst.AsSlice(), payload, {0, next, 0, byte(len(payload))}} {
		for i := range b {
			sum += uint32(b[i]) << (8 * (1 - i%2))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	payload = slices.Clone(payload)
	binary.BigEndian.PutUint16(payload[sumAt:], ^uint16(sum))
	return slices.Concat([]byte{0x60, 0, 0, 0}, binary.BigEndian.AppendUint16(nil, uint16(len(payload))), []byte{next, 255}, src.AsSlice(), dst.AsSlice(), payload)
}

// udp6 is a datagram in an IPv6 packet.
func udp6(src, dst netip.Addr, port uint16, payload []byte) []byte {
	head := binary.BigEndian.AppendUint16([]byte{0x9c, 0x40}, port)
	head = binary.BigEndian.AppendUint16(head, uint16(8+len(payload)))
	return ipv6(src, dst, 17, slices.Concat(head, []byte{0, 0}, payload), 6)
}

// discovery is a message of neighbour discovery (RFC 4861) about a target, with the MAC that it shall have.
func discovery(kind byte, src, dst, target netip.Addr, mac net.HardwareAddr, name string) []byte {
	return ipv6(src, dst, 58, slices.Concat([]byte{kind, 0, 0, 0, 0x20, 0, 0, 0}, target.AsSlice(), []byte{2, 1}, mac, mark(name)), 2)
}

// hidden puts a hop-by-hop header between a packet and what it carries.
func hidden(packet []byte) []byte {
	out := slices.Concat(packet[:40], []byte{packet[6], 0, 1, 4, 0, 0, 0, 0}, packet[40:])
	binary.BigEndian.PutUint16(out[4:], uint16(len(out)-40))
	out[6] = 0
	return out
}

// vxlan puts a frame into a tunnel's packet (RFC 7348).
func vxlan(vni uint32, frame []byte) []byte {
	return slices.Concat([]byte{8, 0, 0, 0}, binary.BigEndian.AppendUint32(nil, vni<<8), frame)
}

// assault is one try of a container: frames for one of its interfaces. Nobody may see its name's mark.
type assault struct {
	name, from, iface string
	frame             []byte
}

// TestAttacks tries, from containers with NET_ADMIN and NET_RAW, to be somebody else and to get where it must not; and
// from a machine outside to get in. Afterwards an honest frame goes the same ways: what arrives after it arrives alone.
func TestAttacks(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	laptop := l.Client("laptop")
	l.Name("outside.example", netip.MustParseAddr("192.168.66.1"))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h1.MustMinictl("network", "create", "-d", "overlay", "--subnet", "fd00:a::/64", "ov_a")
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_b")
	h1.MustMinictl("network", "create", "-d", "overlay", "--internal", "ov_in")
	h1.MustMinictl("network", "create", "--subnet", "172.30.0.0/16", "--subnet", "fd00:b::/64", "br_a")
	h1.MustMinictl("network", "create", "--subnet", "172.31.0.0/16", "br_b")
	h1.MustMinictl("network", "create", "--subnet", "192.168.99.0/24", "--internal", "br_in")
	h1.MustMinictl("network", "create", "--subnet", "192.168.98.0/24", "-o", "io.minictl.port_security=false", "br_open")
	watchers := map[string]func() string{}
	run := func(h *lab.Host, name, network string, more ...string) plugged {
		t.Helper()
		args := append([]string{"run", "-d", "--name", name, "--network", network, "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW", "-v", self + ":/self:ro"}, more...)
		h.MustMinictl(append(args, "busybox", "/self", attack, "watch", "eth0")...)
		watchers[name] = func() string { return h.MustMinictl("logs", name) }
		return plugOf(t, h, name, "eth0")
	}
	att, vic, oth := run(h1, "att", "ov_a"), run(h1, "vic", "ov_a"), run(h1, "oth", "ov_b")
	far := run(h2, "far", "ov_a")
	iov, iovic := run(h1, "iov", "ov_in"), run(h1, "iovic", "ov_in")
	batt, bvic, bb := run(h1, "batt", "br_a"), run(h1, "bvic", "br_a"), run(h1, "bb", "br_b")
	iatt, ivic := run(h1, "iatt", "br_in"), run(h1, "ivic", "br_in")
	oatt, ovic := run(h1, "oatt", "br_open"), run(h1, "ovic", "br_open")
	gwAtt, gwVic := plugOf(t, h1, "att", "eth1"), plugOf(t, h1, "vic", "eth1")
	h1.MustMinictl("exec", "-d", "vic", "sh", "-c", "/self attack watch eth1 > /proc/1/fd/1")
	gw, brA, brIn := gatewayOf("172.18.0.1"), gatewayOf("172.30.0.1"), gatewayOf("192.168.99.1")
	for name, h := range map[string]*lab.Host{"host1": h1, "host2": h2, "laptop": laptop} {
		p := h.Start(self, attack, "listen", "5999")
		watchers[name] = p.Output
	}
	l.Eventually(soon, func() error {
		for name, said := range watchers {
			if !strings.Contains(said(), "watching") {
				return errf("%s does not watch yet", name)
			}
		}
		if n := strings.Count(watchers["vic"](), "watching"); n != 2 {
			return errf("vic watches %d interfaces", n)
		}
		return nil
	})
	const ip, arp, vlan, ip6 = 0x0800, 0x0806, 0x8100, 0x86dd
	const routerAdvertisement, neighbourAdvertisement, redirect = 134, 136, 137
	everybody, everybody6 := netip.MustParseAddr("ff02::1"), net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	router, routerB := netip.MustParseAddr("fd00:a::1"), netip.MustParseAddr("fd00:b::1")
	nobody := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	inner := func(dst plugged, name string) []byte {
		return ether(nobody, dst.mac, ip, udp4(netip.MustParseAddr("10.0.0.99"), dst.ip, 9, mark(name)))
	}
	to := func(from, via plugged, dst string, port uint16, name string) []byte {
		return ether(from.mac, via.mac, ip, udp4(from.ip, netip.MustParseAddr(dst), port, mark(name)))
	}
	assaults := []assault{
		{"another's MAC", "att", "eth0", ether(vic.mac, broadcast(), ip, udp4(att.ip, vic.ip, 9, mark("another's MAC")))},
		{"nobody's MAC", "att", "eth0", ether(nobody, vic.mac, ip, udp4(att.ip, vic.ip, 9, mark("nobody's MAC")))},
		{"a remote one's MAC", "att", "eth0", ether(far.mac, vic.mac, ip, udp4(att.ip, vic.ip, 9, mark("a remote one's MAC")))},
		{"another's address", "att", "eth0", ether(att.mac, vic.mac, ip, udp4(far.ip, vic.ip, 9, mark("another's address")))},
		{"another's address, remotely", "att", "eth0", ether(att.mac, far.mac, ip, udp4(vic.ip, far.ip, 9, mark("another's address, remotely")))},
		{"the gateway's address", "att", "eth0", ether(att.mac, vic.mac, ip, udp4(netip.MustParseAddr("10.0.0.1"), vic.ip, 9, mark("the gateway's address")))},
		{"ARP: I am another", "att", "eth0", ether(att.mac, far.mac, arp, arpReply(att.mac, vic.ip, far, "ARP: I am another"))},
		{"ARP: I am the gateway", "att", "eth0", ether(att.mac, broadcast(), arp, arpReply(att.mac, netip.MustParseAddr("10.0.0.1"), vic, "ARP: I am the gateway"))},
		{"ARP: I am at another's MAC", "att", "eth0", ether(att.mac, vic.mac, arp, arpReply(far.mac, att.ip, vic, "ARP: I am at another's MAC"))},
		{"another's IPv6 address", "att", "eth0", ether(att.mac, vic.mac, ip6, udp6(far.ip6, vic.ip6, 9, mark("another's IPv6 address")))},
		{"ND: I am another", "att", "eth0", ether(att.mac, far.mac, ip6, discovery(neighbourAdvertisement, att.ip6, far.ip6, vic.ip6, att.mac, "ND: I am another"))},
		{"ND: I am the remote one", "att", "eth0", ether(att.mac, vic.mac, ip6, discovery(neighbourAdvertisement, att.ip6, vic.ip6, far.ip6, att.mac, "ND: I am the remote one"))},
		{"ND: I am the gateway", "att", "eth0", ether(att.mac, everybody6, ip6, discovery(neighbourAdvertisement, att.ip6, everybody, router, att.mac, "ND: I am the gateway"))},
		{"ND: another says so", "att", "eth0", ether(att.mac, vic.mac, ip6, discovery(neighbourAdvertisement, far.ip6, vic.ip6, far.ip6, att.mac, "ND: another says so"))},
		{"ND: behind a header", "att", "eth0", ether(att.mac, vic.mac, ip6, hidden(discovery(neighbourAdvertisement, att.ip6, vic.ip6, far.ip6, att.mac, "ND: behind a header")))},
		{"ND: I am a router", "att", "eth0", ether(att.mac, everybody6, ip6, discovery(routerAdvertisement, att.ip6, everybody, att.ip6, att.mac, "ND: I am a router"))},
		{"ND: go by me", "att", "eth0", ether(att.mac, vic.mac, ip6, discovery(redirect, router, vic.ip6, att.ip6, att.mac, "ND: go by me"))},
		{"a VLAN", "att", "eth0", ether(att.mac, vic.mac, vlan, slices.Concat([]byte{0, 7, 8, 0}, udp4(att.ip, vic.ip, 9, mark("a VLAN"))))},
		{"something else than IP", "att", "eth0", ether(att.mac, vic.mac, 0x88b5, mark("something else than IP"))},
		{"another overlay", "att", "eth0", to(att, oth, oth.ip.String(), 9, "another overlay")},
		{"another overlay by its gateway", "att", "eth0", to(att, gatewayOf("10.0.0.1"), oth.ip.String(), 9, "another overlay by its gateway")},
		{"another overlay by the host", "att", "eth1", to(gwAtt, gw, oth.ip.String(), 9, "another overlay by the host")},
		{"a bridge by the host", "att", "eth1", to(gwAtt, gw, bb.ip.String(), 9, "a bridge by the host")},
		{"a neighbour on the gateway bridge", "att", "eth1", to(gwAtt, gwVic, gwVic.ip.String(), 9, "a neighbour on the gateway bridge")},
		{"all neighbours on the gateway bridge", "att", "eth1", ether(gwAtt.mac, broadcast(), ip, udp4(gwAtt.ip, gwVic.ip, 9, mark("all neighbours on the gateway bridge")))},
		{"a neighbour there by the host", "att", "eth1", to(gwAtt, gw, gwVic.ip.String(), 9, "a neighbour there by the host")},
		{"a neighbour's ARP there", "att", "eth1", ether(gwAtt.mac, broadcast(), arp, arpReply(gwAtt.mac, gw.ip, gwVic, "a neighbour's ARP there"))},
		{"VXLAN to the other host", "att", "eth1", ether(gwAtt.mac, gw.mac, ip, udp4(gwAtt.ip, h2.Addr(), 4789, vxlan(256, inner(far, "VXLAN to the other host"))))},
		{"VXLAN to its own host", "att", "eth1", ether(gwAtt.mac, gw.mac, ip, udp4(gwAtt.ip, h1.Addr(), 4789, vxlan(256, inner(vic, "VXLAN to its own host"))))},
		{"VXLAN from a member's address", "oatt", "eth0", ether(oatt.mac, gatewayOf("192.168.98.1").mac, ip, udp4(h2.Addr(), h1.Addr(), 4789, vxlan(256, inner(vic, "VXLAN from a member's address"))))},
		{"another's address on a bridge", "batt", "eth0", ether(batt.mac, bvic.mac, ip, udp4(netip.MustParseAddr("172.30.0.9"), bvic.ip, 9, mark("another's address on a bridge")))},
		{"the gateway's ARP on a bridge", "batt", "eth0", ether(batt.mac, broadcast(), arp, arpReply(batt.mac, brA.ip, bvic, "the gateway's ARP on a bridge"))},
		{"ND: another on a bridge", "batt", "eth0", ether(batt.mac, bvic.mac, ip6, discovery(neighbourAdvertisement, batt.ip6, bvic.ip6, routerB, batt.mac, "ND: another on a bridge"))},
		{"another bridge", "batt", "eth0", to(batt, brA, bb.ip.String(), 9, "another bridge")},
		{"a service on another bridge's gateway", "batt", "eth0", to(batt, brA, "172.31.0.1", 5999, "a service on another bridge's gateway")},
		{"a service on an internal bridge's gateway", "batt", "eth0", to(batt, brA, "192.168.99.1", 5999, "a service on an internal bridge's gateway")},
		{"the host's loopback", "batt", "eth0", to(batt, brA, "127.0.0.1", 5999, "the host's loopback")},
		{"from the host's loopback", "oatt", "eth0", ether(oatt.mac, gatewayOf("192.168.98.1").mac, ip, udp4(netip.MustParseAddr("127.0.0.1"), h1.Addr(), 5999, mark("from the host's loopback")))},
		{"outside from an internal network", "iatt", "eth0", to(iatt, brIn, laptop.Addr().String(), 5999, "outside from an internal network")},
		{"the host's address from an internal network", "iatt", "eth0", to(iatt, brIn, h1.Addr().String(), 5999, "the host's address from an internal network")},
		{"the default gateway from an internal network", "iatt", "eth0", to(iatt, brIn, "172.18.0.1", 5999, "the default gateway from an internal network")},
		{"a bridge from an internal network", "iatt", "eth0", to(iatt, brIn, bb.ip.String(), 9, "a bridge from an internal network")},
		{"outside from an internal overlay", "iov", "eth0", to(iov, gatewayOf("10.0.2.1"), laptop.Addr().String(), 5999, "outside from an internal overlay")},
	}
	byPort := map[[2]string][]string{}
	for _, a := range assaults {
		key := [2]string{a.from, a.iface}
		byPort[key] = append(byPort[key], hex.EncodeToString(a.frame))
	}
	for key, frames := range byPort {
		h1.MustMinictl(append([]string{"exec", key[0], "/self", attack, "send", key[1]}, frames...)...)
	}
	// From outside: straight to a container, and into a tunnel.
	laptop.MustRun("ip", "route", "add", "172.30.0.0/16", "via", h1.Addr().String())
	laptop.MustRun("ip", "route", "add", "10.0.0.0/24", "via", h1.Addr().String())
	datagram(t, laptop, bvic.ip.String()+":9", mark("a container by its address"))
	datagram(t, laptop, vic.ip.String()+":9", mark("an overlay's container by its address"))
	datagram(t, laptop, h1.Addr().String()+":4789", vxlan(256, inner(vic, "VXLAN from no member")))
	datagram(t, laptop, h2.Addr().String()+":4789", vxlan(256, inner(far, "VXLAN from no member")))

	// Honest ones: every watcher is reached by somebody, and an open network's forger reaches its neighbour.
	honest := []assault{
		{"vic", "att", "eth0", ether(att.mac, vic.mac, ip6, udp6(att.ip6, vic.ip6, 9, mark("end of vic, by IPv6")))},
		{"vic", "att", "eth0", ether(att.mac, vic.mac, ip6, discovery(neighbourAdvertisement, att.ip6, vic.ip6, att.ip6, att.mac, "end of vic, found by ND"))},
		{"vic", "att", "eth0", to(att, vic, vic.ip.String(), 9, "end of vic")},
		{"far", "att", "eth0", to(att, far, far.ip.String(), 9, "end of far")},
		{"iovic", "iov", "eth0", to(iov, iovic, iovic.ip.String(), 9, "end of iovic")},
		{"bvic", "batt", "eth0", to(batt, bvic, bvic.ip.String(), 9, "end of bvic")},
		{"ivic", "iatt", "eth0", to(iatt, ivic, ivic.ip.String(), 9, "end of ivic")},
		{"host1", "iatt", "eth0", to(iatt, brIn, brIn.ip.String(), 5999, "end of host1")},
		{"host1", "batt", "eth0", to(batt, brA, h1.Addr().String(), 5999, "end of host1, by its own address")},
		{"host2", "batt", "eth0", to(batt, brA, h2.Addr().String(), 5999, "end of host2")},
		{"laptop", "att", "eth1", to(gwAtt, gw, laptop.Addr().String(), 5999, "end of laptop")},
		{"ovic", "oatt", "eth0", ether(nobody, ovic.mac, ip, udp4(netip.MustParseAddr("192.168.98.99"), ovic.ip, 9, mark("end of ovic")))},
	}
	for _, a := range honest {
		h1.MustMinictl("exec", a.from, "/self", attack, "send", a.iface, hex.EncodeToString(a.frame))
	}
	l.Eventually(soon, func() error {
		for _, a := range honest {
			if said := watchers[a.name](); !strings.Contains(said, "mark<end of "+a.name) {
				return errf("%s saw no honest frame: %s", a.name, said)
			}
		}
		return nil
	})
	for _, by := range []string{"end of vic, by IPv6", "end of vic, found by ND", "end of vic"} {
		wantMatch(t, "vic", watchers["vic"](), `mark<`+by+`>`)
	}
	senders := []string{"att", "iov", "batt", "iatt"} // they are told by ICMP that nobody listens
	for name, said := range watchers {
		for line := range strings.Lines(said()) {
			line = strings.TrimSpace(line)
			honest := strings.HasPrefix(line, "mark<end of "+name) || slices.Contains(senders, name) && strings.HasPrefix(line, "mark<end of ")
			if strings.HasPrefix(line, "mark<") && !honest {
				t.Errorf("%s was reached: %s", name, line)
			}
		}
	}
	// Nobody outside may be asked by a container that must not get out: no default route, and no forwarded name.
	for _, name := range []string{"iatt", "iov"} {
		wantDefault(t, h1, name, "")
		out, errOut, code := h1.Minictl("exec", name, "nslookup", "-type=a", "outside.example")
		if code == 0 || strings.Contains(out, "192.168.66.1\n") {
			t.Errorf("%s resolves names outside: %s%s", name, out, errOut)
		}
	}
	wantMatch(t, "others resolve it", h1.MustMinictl("exec", "att", "nslookup", "-type=a", "outside.example"), `192\.168\.66\.1`)
}

// datagram sends one datagram from a host.
func datagram(t *testing.T, h *lab.Host, to string, payload []byte) {
	t.Helper()
	c, err := h.Dial(context.Background(), "udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(payload); err != nil {
		t.Fatal(err)
	}
}

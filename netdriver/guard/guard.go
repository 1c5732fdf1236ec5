// Package guard drops, at a container's port, the frames in which the container gives itself out as somebody else.
//
// A container with NET_RAW writes whatever it likes, one with NET_ADMIN renames itself. Its port is the last place where
// the host knows who sent a frame, so a small program stands there, in front of the bridge: the source has to be the
// endpoint's own MAC and one of its own addresses, in ARP and neighbour discovery as in IP. Everything that is not ARP,
// IPv4 or IPv6 is dropped, VLAN tags included, and so are router advertisements and redirects, which are for routers.
//
// The program is a classifier (cls_bpf, direct action) on the port's clsact qdisc. It lives and dies with the port, and
// `nft flush ruleset` does not reach it.
package guard

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/netdriver/nl"
)

// Option is the option that says whether a network's ports are guarded: true unless said otherwise. Without it a
// container may be a router, or hold an address that moves between hosts.
const Option = "io.minictl.port_security"

// Off reads Option. ErrInvalidArgument names it and its value.
func Off(options map[string]string) (bool, error) {
	text, given := options[Option]
	if !given {
		return false, nil
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("option %s: %q is not true or false: %w", Option, text, errdefs.ErrInvalidArgument)
	}
	return !on, nil
}

// Wish is who may speak through a port. Without addresses every address may.
type Wish struct {
	MAC       net.HardwareAddr
	Addresses []netip.Addr
}

// name tells the wish, as `tc filter show dev PORT ingress` prints it.
func (w Wish) name() string {
	var b strings.Builder
	b.WriteString("minictl " + w.MAC.String())
	for _, a := range w.Addresses {
		b.WriteString(" " + a.String())
	}
	return b.String()
}

// Set guards a port, or leaves it as it is when the same wish guards it already.
func Set(c *nl.Conn, index int, w Wish) error {
	if len(w.MAC) != macLen {
		return fmt.Errorf("guard port: MAC %q: %w", w.MAC, errdefs.ErrInvalidArgument)
	}
	w.Addresses = slices.DeleteFunc(slices.Clone(w.Addresses), func(a netip.Addr) bool { return !a.IsValid() })
	slices.SortFunc(w.Addresses, netip.Addr.Compare)
	if have, err := c.IngressFilter(index); err != nil || have == w.name() {
		return err
	}
	prog, err := load(w)
	if err != nil {
		return fmt.Errorf("guard port against forged sources: %w; a network with -o %s=false does without", err, Option)
	}
	defer prog.Close() // the filter holds it
	return c.SetIngressFilter(index, prog.FD(), w.name())
}

// Clear opens a port; nil if it is not guarded.
func Clear(c *nl.Conn, index int) error { return c.RemoveIngressFilter(index) }

// load gives the program to the kernel. Kernels before 5.11 count programs as locked memory: a refusal for lack of it is
// answered by raising the limit.
func load(w Wish) (*ebpf.Program, error) {
	spec := &ebpf.ProgramSpec{Name: "minictl_guard", Type: ebpf.SchedCLS, License: "MIT", Instructions: program(w)}
	prog, err := ebpf.NewProgram(spec)
	if err == nil {
		return prog, nil
	}
	all := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if unix.Setrlimit(unix.RLIMIT_MEMLOCK, &all) != nil {
		return nil, err
	}
	return ebpf.NewProgram(spec)
}

// What the program answers (linux/pkt_cls.h): the next filter, or the end of the packet.
const (
	pass = -1 // TC_ACT_UNSPEC
	shot = 2  // TC_ACT_SHOT
)

// Where the program keeps what it reads of a frame: below the frame pointer, so that every field it compares is aligned.
const (
	frame     = -18 // the Ethernet header: destination, source, type
	frameSrc  = frame + macLen
	frameType = frameSrc + macLen
	packet    = -64 // the header behind it, or of ICMPv6
	vlanAt    = 20  // __sk_buff.vlan_present
	macLen    = 6
	frameLen  = 14
)

// program compares a frame's sources with the wish. Frames too short for their type end like forged ones.
func program(w Wish) asm.Instructions {
	var v4, v6 []netip.Addr
	for _, a := range w.Addresses {
		if a = a.Unmap().WithZone(""); a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	p := &writer{}
	p.add(asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R0, asm.R6, vlanAt, asm.Word), asm.JNE.Imm(asm.R0, 0, "shot"))
	p.read(0, frame, frameLen)
	p.differs(frameSrc, w.MAC, "shot")
	if len(w.Addresses) == 0 {
		p.end()
		return p.out
	}
	if len(v4) > 0 {
		p.equals(frameType, []byte{0x08, 0x06}, "arp")
		p.equals(frameType, []byte{0x08, 0x00}, "ipv4")
	}
	if len(v6) > 0 {
		p.equals(frameType, []byte{0x86, 0xdd}, "ipv6")
	}
	p.add(asm.Ja.Label("shot"))
	if len(v4) > 0 {
		p.arp(w.MAC, v4)
		p.ipv4(v4)
	}
	if len(v6) > 0 {
		p.ipv6(append(v6, linkLocal(w.MAC)))
	}
	p.end()
	return p.out
}

// arp checks RFC 826's packet for Ethernet and IPv4: the sender's two addresses; 0.0.0.0 asks whether an address is free
// (RFC 5227).
func (p *writer) arp(mac net.HardwareAddr, own []netip.Addr) {
	const length, sha, spa = 28, 8, 14
	p.label("arp")
	p.read(frameLen, packet, length)
	p.differs(packet, []byte{0, 1, 0x08, 0x00}, "shot") // Ethernet, IPv4
	p.differs(packet+4, []byte{macLen, 4}, "shot")
	p.differs(packet+sha, mac, "shot")
	p.oneOf(packet+spa, append(own, netip.IPv4Unspecified()))
}

// ipv4 checks RFC 791's source.
func (p *writer) ipv4(own []netip.Addr) {
	const length, src = 20, 12
	p.label("ipv4")
	p.read(frameLen, packet, length)
	p.oneOf(packet+src, own)
}

// ipv6 checks RFC 8200's source, and in neighbour discovery (RFC 4861) what the source says of itself. The unspecified
// address may ask only. Extension headers, behind which such a message could hide, are refused at its hop limit of 255.
func (p *writer) ipv6(own []netip.Addr) {
	const (
		length, next, hops, src = 40, 6, 7, 8
		hopByHop, icmp          = 0, 58
		target, withTarget      = 8, 24
	)
	p.label("ipv6")
	p.read(frameLen, packet, length)
	p.add(asm.LoadMem(asm.R7, asm.RFP, packet+next, asm.Byte))
	for i, a := range own {
		miss := fmt.Sprintf("not6 %d", i)
		p.differs(packet+src, a.AsSlice(), miss)
		p.add(asm.Ja.Label("own6"))
		p.label(miss)
	}
	p.differs(packet+src, make([]byte, 16), "shot")
	p.add(asm.JEq.Imm(asm.R7, hopByHop, "own6"), asm.JNE.Imm(asm.R7, icmp, "shot"))
	p.label("own6")
	p.add(asm.JEq.Imm(asm.R7, icmp, "icmp6"),
		asm.LoadMem(asm.R0, asm.RFP, packet+hops, asm.Byte), asm.JNE.Imm(asm.R0, 255, "pass"))
	for _, extension := range []int32{hopByHop, 43, 44, 60} { // routing, fragment, destination options
		p.add(asm.JEq.Imm(asm.R7, extension, "shot"))
	}
	p.add(asm.Ja.Label("pass"))

	const advertisement, neighbour, redirect = 134, 136, 137
	p.label("icmp6")
	p.read(frameLen+length, packet, 1)
	p.add(asm.LoadMem(asm.R0, asm.RFP, packet, asm.Byte),
		asm.JEq.Imm(asm.R0, advertisement, "shot"), asm.JEq.Imm(asm.R0, redirect, "shot"), asm.JNE.Imm(asm.R0, neighbour, "pass"))
	p.read(frameLen+length, packet, withTarget)
	p.oneOf(packet+target, own)
}

// linkLocal is the address the kernel gives itself from a MAC (RFC 4291 appendix A).
func linkLocal(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]})
}

// writer puts a program together. A label stands before the instruction that follows it.
type writer struct {
	out  asm.Instructions
	next string
	n    int
}

func (p *writer) add(list ...asm.Instruction) {
	if p.next != "" {
		list[0] = list[0].WithSymbol(p.next)
		p.next = ""
	}
	p.out = append(p.out, list...)
}

func (p *writer) label(name string) {
	if p.next != "" { // two names for one place
		p.add(asm.Ja.Label(name))
	}
	p.next = name
}

// read copies bytes of the frame to below the frame pointer; a frame that has fewer ends here.
func (p *writer) read(from int32, to int32, length int32) {
	p.add(asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, from),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, to), asm.Mov.Imm(asm.R4, length),
		asm.FnSkbLoadBytes.Call(), asm.JNE.Imm(asm.R0, 0, "shot"))
}

// differs jumps when the bytes at a place are not the wanted ones.
func (p *writer) differs(at int16, want []byte, to string) {
	for len(want) > 0 {
		size, v := asm.Half, int32(0)
		if len(want) >= 4 && at%4 == 0 {
			size, v = asm.Word, int32(binary.NativeEndian.Uint32(want))
		} else {
			v = int32(binary.NativeEndian.Uint16(want))
		}
		p.add(asm.LoadMem(asm.R0, asm.RFP, at, size), asm.JNE.Imm32(asm.R0, v, to))
		at += int16(size.Sizeof())
		want = want[size.Sizeof():]
	}
}

// equals jumps when the bytes at a place are the wanted ones.
func (p *writer) equals(at int16, want []byte, to string) {
	p.n++
	miss := fmt.Sprintf("miss %d", p.n)
	p.differs(at, want, miss)
	p.add(asm.Ja.Label(to))
	p.label(miss)
}

// oneOf ends the program: well if one of the addresses stands at the place.
func (p *writer) oneOf(at int16, own []netip.Addr) {
	for _, a := range own {
		p.equals(at, a.AsSlice(), "pass")
	}
	p.add(asm.Ja.Label("shot"))
}

func (p *writer) end() {
	p.label("pass")
	p.add(asm.Mov.Imm(asm.R0, pass), asm.Return())
	p.label("shot")
	p.add(asm.Mov.Imm(asm.R0, shot), asm.Return())
}

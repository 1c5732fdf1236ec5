package firewall

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The words below are the few phrases of nft's language that the plan uses, in nft's own encoding, so that
// `nft list table` shows them as a reader would have typed them.

// Registers. Register 1 is the first of the kernel's 16-byte registers; 8 to 23 address the same memory in 4-byte
// words, which is how keys of several fields are put side by side.
const (
	reg1  = 1
	word0 = 8 // the same memory as reg1
)

// ipsDstNat is IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h: the connection's destination was rewritten.
const ipsDstNat = 1 << 5

func rule(parts ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func equals(b ...byte) expr.Any  { return &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: b} }
func differs(b ...byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: b} }
func native(v uint32) []byte     { return binary.NativeEndian.AppendUint32(nil, v) }
func bePort(port uint16) []byte  { return binary.BigEndian.AppendUint16(nil, port) }
func ifname(name string) []byte {
	return append([]byte(name), make([]byte, unix.IFNAMSIZ-len(name))...)
}
func padded(b []byte) []byte                { return append(b, make([]byte, -len(b)&3)...) }
func verdict(k expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: k}} }
func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

func accept() []expr.Any     { return verdict(expr.VerdictAccept) }
func drop() []expr.Any       { return verdict(expr.VerdictDrop) }
func masquerade() []expr.Any { return []expr.Any{&expr.Masq{}} }
func notrack() []expr.Any    { return []expr.Any{&expr.Notrack{}} }

func in(s *nftables.Set) expr.Any {
	return &expr.Lookup{SourceRegister: reg1, SetName: s.Name, SetID: s.ID}
}

func notIn(s *nftables.Set) expr.Any {
	return &expr.Lookup{SourceRegister: reg1, SetName: s.Name, SetID: s.ID, Invert: true}
}

func meta(key expr.MetaKey, reg uint32) expr.Any { return &expr.Meta{Key: key, Register: reg} }

func iifIn(s *nftables.Set) []expr.Any { return []expr.Any{meta(expr.MetaKeyIIFNAME, reg1), in(s)} }
func oifIn(s *nftables.Set) []expr.Any { return []expr.Any{meta(expr.MetaKeyOIFNAME, reg1), in(s)} }

func notLoopbackInterface() []expr.Any {
	return []expr.Any{meta(expr.MetaKeyIIFNAME, reg1), differs(ifname("lo")...)}
}

// pairIn matches the interfaces a packet came in and goes out by. The kernel cannot compare two registers, so "the same
// bridge" is a set of pairs.
func pairIn(s *nftables.Set) []expr.Any {
	return []expr.Any{meta(expr.MetaKeyIIFNAME, reg1), meta(expr.MetaKeyOIFNAME, reg1+1), in(s)}
}

// oifSource matches the interface a packet goes out by together with its source.
func (f fam) oifSource(s *nftables.Set) []expr.Any {
	return []expr.Any{meta(expr.MetaKeyOIFNAME, reg1), f.load(f.src, reg1+1), in(s)}
}

// fam holds what differs between the two IP families.
type fam struct {
	suffix   string
	nfproto  byte
	src, dst uint32 // offsets of the addresses in the IP header
	size     uint32 // of an address, in bytes
	typ      nftables.SetDatatype
}

// families are the two IP families; the offsets are those of RFC 791 and RFC 8200.
var families = []fam{
	{"4", unix.NFPROTO_IPV4, 12, 16, 4, nftables.TypeIPAddr},
	{"6", unix.NFPROTO_IPV6, 8, 24, 16, nftables.TypeIP6Addr},
}

func (f fam) holds(a netip.Addr) bool { return a.Is4() == (f.size == 4) }

func (f fam) only() []expr.Any { return []expr.Any{meta(expr.MetaKeyNFPROTO, reg1), equals(f.nfproto)} }

func (f fam) load(offset, reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.size}
}

// onLinkOnly matches packets to link-local addresses, fe80::/10 (RFC 4291).
func (f fam) onLinkOnly() []expr.Any {
	return append(f.only(),
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: f.dst, Len: 2},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 2, Mask: []byte{0xff, 0xc0}, Xor: []byte{0, 0}},
		equals(0xfe, 0x80))
}

// multicast matches packets to ff00::/8.
func (f fam) multicast() []expr.Any {
	return append(f.only(),
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: f.dst, Len: 1}, equals(0xff))
}

// local matches packets for an address of this host, and sees the routing tables as they are now: addresses that come
// and go need no new rules.
func local() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg1, ResultADDRTYPE: true, FlagDADDR: true},
		equals(native(unix.RTN_LOCAL)...),
	}
}

func loadPort(reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

// keyAny loads protocol . destination port; keyAddr has the destination address between them.
func keyAny() []expr.Any { return []expr.Any{meta(expr.MetaKeyL4PROTO, reg1), loadPort(word0 + 1)} }

func (f fam) keyAddr() []expr.Any {
	return []expr.Any{meta(expr.MetaKeyL4PROTO, reg1), f.load(f.dst, word0+1), loadPort(word0 + 1 + f.size/4)}
}

// dnat sends the packet to what the key in register 1 maps to; a key that is not there leaves the rule.
func (f fam) dnat(s *nftables.Set) []expr.Any {
	return []expr.Any{
		&expr.Lookup{SourceRegister: reg1, DestRegister: reg1, IsDestRegSet: true, SetName: s.Name, SetID: s.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.nfproto), RegAddrMin: reg1, RegProtoMin: word0 + f.size/4},
	}
}

// dnatKeepPort sends the packet to the address that the key in register 1 maps to, at the port it asked for.
func (f fam) dnatKeepPort(s *nftables.Set) []expr.Any {
	return []expr.Any{
		&expr.Lookup{SourceRegister: reg1, DestRegister: reg1, IsDestRegSet: true, SetName: s.Name, SetID: s.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.nfproto), RegAddrMin: reg1},
	}
}

// snat gives the packet the source that its own maps to; one that is not there leaves the rule.
func (f fam) snat(s *nftables.Set) []expr.Any {
	return []expr.Any{
		f.load(f.src, reg1),
		&expr.Lookup{SourceRegister: reg1, DestRegister: reg1, IsDestRegSet: true, SetName: s.Name, SetID: s.ID},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.nfproto), RegAddrMin: reg1},
	}
}

// icmp matches the family's ICMP.
func (f fam) icmp() []expr.Any {
	proto := byte(unix.IPPROTO_ICMP)
	if f.size == 16 {
		proto = unix.IPPROTO_ICMPV6
	}
	return append(f.only(), meta(expr.MetaKeyL4PROTO, reg1), equals(proto))
}

// loopback matches addresses of 127.0.0.0/8 at the offset.
func (f fam) loopback(offset uint32) []expr.Any {
	return append(f.only(),
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 1},
		equals(127))
}

// toLoopback6 matches packets for ::1, which is all the loopback that IPv6 has.
func (f fam) toLoopback6() []expr.Any {
	return append(f.only(), f.load(f.dst, reg1), equals(netip.IPv6Loopback().AsSlice()...))
}

func ctState(bits uint32) []expr.Any { return ctBits(expr.CtKeySTATE, bits) }
func ctDNAT() []expr.Any             { return ctBits(expr.CtKeySTATUS, ipsDstNat) }

func ctBits(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: reg1},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: native(bits), Xor: native(0)},
		differs(native(0)...),
	}
}

func udpTo(port uint16) []expr.Any {
	return []expr.Any{meta(expr.MetaKeyL4PROTO, reg1), equals(unix.IPPROTO_UDP), loadPort(reg1), equals(bePort(port)...)}
}

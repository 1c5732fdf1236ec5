package dnsd

import (
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/miekg/dns"
)

// quickConn is a container's UDP socket that answers by itself what most queries ask: an address of a name that is
// known. A query of that kind costs two system calls and a look-up; unpacked into records, in a goroutine of its own, it
// would cost several times as much. All others are what ReadFrom gives.
type quickConn struct {
	*net.UDPConn
	log     *slog.Logger
	view    func() View
	queries *atomic.Uint64
	out     []byte
}

// quicken puts a quickConn in front of a socket. One that is bound to every address keeps to the library, which answers
// from the address that was asked.
func (s *Server) quicken(pc net.PacketConn, view func() View) net.PacketConn {
	udp, ok := pc.(*net.UDPConn)
	if !ok {
		return pc
	}
	if local, ok := udp.LocalAddr().(*net.UDPAddr); !ok || local.IP.IsUnspecified() {
		return pc
	}
	return &quickConn{UDPConn: udp, log: s.log, view: view, queries: &s.queries}
}

// ReadFrom gives the next query that is not answered here. One goroutine at a time may call it.
func (c *quickConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return 0, nil, err
		}
		q, ok := parsePlain(b[:n])
		if ok {
			c.out, ok = c.view().quick(c.out[:0], b[:n], q)
		}
		if !ok {
			return n, net.UDPAddrFromAddrPort(from), nil
		}
		c.queries.Add(1)
		if _, err := c.WriteToUDPAddrPort(c.out, from); err != nil {
			c.log.Debug("query unanswered", "err", err)
		}
	}
}

// plain is a query that asks for an address and carries nothing unusual.
type plain struct {
	name   string // as asked, without the last dot
	end    int    // of the question, in bytes from the message's start
	qtype  uint16
	opt    bool // asked with EDNS0
	secure bool // its DO bit
	size   int  // the asker takes, in bytes
}

// The sizes of RFC 1035 section 4.1 and RFC 6891 section 6.1.2, in bytes.
const (
	headerLen  = 12
	maxLabel   = 63
	maxNameLen = 255
	optLen     = 11
)

// parsePlain reads such a query. ok is false for any other packet, well-formed or not.
func parsePlain(b []byte) (q plain, ok bool) {
	// Not a response, the standard opcode, one question, no records but the OPT.
	if len(b) < headerLen || b[2]&0xf8 != 0 || binary.BigEndian.Uint16(b[4:]) != 1 ||
		binary.BigEndian.Uint32(b[6:]) != 0 || b[10] != 0 || b[11] > 1 {
		return q, false
	}
	name, at, ok := plainName(b, headerLen)
	if !ok || len(b) < at+4 || binary.BigEndian.Uint16(b[at+2:]) != dns.ClassINET {
		return q, false
	}
	q = plain{name: name, end: at + 4, qtype: binary.BigEndian.Uint16(b[at:]), size: dns.MinMsgSize}
	if q.qtype != dns.TypeA && q.qtype != dns.TypeAAAA {
		return q, false
	}
	if b[11] == 0 {
		return q, len(b) == q.end
	}
	// The root's name, the type, the asker's size, the extended code, version 0, flags, no options.
	o := b[q.end:]
	if len(o) != optLen || o[0] != 0 || binary.BigEndian.Uint16(o[1:]) != dns.TypeOPT || o[6] != 0 || binary.BigEndian.Uint16(o[9:]) != 0 {
		return q, false
	}
	q.opt, q.secure, q.size = true, o[7]&0x80 != 0, max(q.size, int(binary.BigEndian.Uint16(o[3:])))
	return q, true
}

// plainName reads a name of letters, digits, - and _, which is spelled in text as it is in the packet.
func plainName(b []byte, from int) (name string, end int, ok bool) {
	var text [maxNameLen]byte
	n, at := 0, from
	for at < len(b) && b[at] != 0 {
		l := int(b[at])
		if at++; l > maxLabel || at+l > len(b) || at+l-from >= maxNameLen {
			return "", 0, false
		}
		for _, c := range b[at : at+l] {
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c == '-' || c == '_') {
				return "", 0, false
			}
			text[n] = c
			n++
		}
		text[n] = '.'
		n, at = n+1, at+l
	}
	if n == 0 || at >= len(b) {
		return "", 0, false
	}
	return string(text[:n-1]), at + 1, true
}

// quick appends the answer to a plain query, the same that the longer way gives. ok is false when the name is not known,
// or the answer does not fit.
func (v View) quick(out, query []byte, q plain) (answer []byte, ok bool) {
	name, _ := v.strip(q.name)
	e, known := lookup(v.Zones, name)
	addrs := e.v4
	if q.qtype == dns.TypeAAAA {
		addrs = e.v6
	}
	if !known || len(addrs) > 0xffff {
		return out, false
	}
	// RFC 1035 section 4.1.1: the ID, the flags RD and CD as asked, QR and RA set.
	const qr, rd, ra, cd = 0x80, 0x01, 0x80, 0x10
	out = append(out, query[0], query[1], qr|query[2]&rd, ra|query[3]&cd, 0, 1)
	out = binary.BigEndian.AppendUint16(out, uint16(len(addrs)))
	out = append(out, 0, 0, 0, query[11])
	out = append(out, query[headerLen:q.end]...)
	if n := len(addrs); n > 0 {
		first := rand.IntN(n)
		for i := range n {
			out = appendAddress(out, q.qtype, addrs[(first+i)%n])
		}
	}
	if q.opt {
		out = append(out, 0, 0, byte(dns.TypeOPT), maxUDP>>8, maxUDP&0xff, 0, 0, 0, 0, 0, 0)
		if q.secure {
			out[len(out)-4] = 0x80
		}
	}
	return out, len(out) <= q.size
}

// appendAddress adds a record whose name is the question's (RFC 1035 section 4.1.4: a pointer to it).
func appendAddress(out []byte, rrtype uint16, a netip.Addr) []byte {
	out = append(out, 0xc0, headerLen, 0, byte(rrtype), 0, dns.ClassINET, 0, 0, 0, ttl)
	if rrtype == dns.TypeA {
		b := a.As4()
		return append(append(out, 0, byte(len(b))), b[:]...)
	}
	b := a.As16()
	return append(append(out, 0, byte(len(b))), b[:]...)
}

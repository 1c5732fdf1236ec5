package dnsd

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// ttl is how long an answer may be kept, in seconds: long enough for one page load, short enough that nobody talks to a
// container that is gone.
const ttl = 5

// Dial is net.Dialer's DialContext.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// View is what one container may see: the zones of its networks, in the order they are asked, and where the rest goes.
type View struct {
	Zones     []*Zone
	Upstreams []netip.AddrPort
	Internal  bool // only on internal networks: nothing is forwarded, unless by Dial
	// Dial, if any, reaches the upstreams: those that the user chose for a container are asked from within it, so that one
	// may stand on its networks. Without it they are asked from this process' network namespace.
	Dial Dial
	// Suffix is a domain that may follow every name; the view is then that of somebody who asks others for what is not
	// ours, and is told at once that it is not.
	Suffix string
	// Beyond, if any, gives Upstreams and Ndots. It is asked for names of no zone only: they come from a file, and most
	// questions never need it.
	Beyond func() (upstreams []netip.AddrPort, ndots int)
	Ndots  int // resolv.conf's ndots as the user or the host gave it; -1: neither did
}

// local answers a question from the zones. ok is false when the name is none of ours and has to be asked elsewhere.
func (v View) local(q dns.Question) (rrs []dns.RR, ok bool) {
	if q.Qclass != dns.ClassINET {
		return nil, false
	}
	if q.Qtype == dns.TypePTR {
		a, isAddr := reverseAddr(q.Name)
		target := lookupPTR(v.Zones, a)
		if !isAddr || target == "" {
			return nil, false
		}
		return []dns.RR{&dns.PTR{Hdr: header(q.Name, dns.TypePTR), Ptr: dns.Fqdn(target)}}, true
	}
	name, below := v.strip(q.Name)
	e, known := lookup(v.Zones, name)
	if !known && below {
		return nil, false // see missing
	}
	if !known {
		// _service._proto.NAME of a name of ours is ours too; nobody publishes services here.
		return nil, q.Qtype == dns.TypeSRV && v.knowsServiceHost(q.Name)
	}
	// A name we know is never asked elsewhere: a wildcard outside would answer for the missing family.
	return e.records(q), true
}

// strip takes the view's suffix off a name; below tells whether it was there.
func (v View) strip(name string) (bare string, below bool) {
	if v.Suffix == "" {
		return name, false
	}
	bare, below = strings.CutSuffix(trimDot(lower(name)), "."+v.Suffix)
	return bare, below
}

// missing answers, in a view with a suffix, for a name that is not there: below the suffix there is none, elsewhere
// somebody else may know.
func (v View) missing(name string) int {
	if _, below := v.strip(name); below || trimDot(lower(name)) == v.Suffix {
		return dns.RcodeNameError
	}
	return dns.RcodeRefused
}

func (v View) knowsServiceHost(name string) bool {
	labels := dns.SplitDomainName(name)
	if len(labels) < 3 || !strings.HasPrefix(labels[0], "_") || !strings.HasPrefix(labels[1], "_") {
		return false
	}
	_, known := lookup(v.Zones, strings.Join(labels[2:], "."))
	return known
}

// records gives the entry's records of the asked type in a random rotation, so that clients that take the first spread
// over all holders of a name. The name is spelled as in the question, as resolvers that randomise its case demand.
func (e entry) records(q dns.Question) []dns.RR {
	var rrs []dns.RR
	if q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY {
		for _, a := range rotated(e.v4) {
			rrs = append(rrs, &dns.A{Hdr: header(q.Name, dns.TypeA), A: a.AsSlice()})
		}
	}
	if q.Qtype == dns.TypeAAAA || q.Qtype == dns.TypeANY {
		for _, a := range rotated(e.v6) {
			rrs = append(rrs, &dns.AAAA{Hdr: header(q.Name, dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	}
	return rrs
}

func rotated(addrs []netip.Addr) []netip.Addr {
	if len(addrs) < 2 {
		return addrs
	}
	k := rand.IntN(len(addrs))
	return append(append(make([]netip.Addr, 0, len(addrs)), addrs[k:]...), addrs[:k]...)
}

func header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

// heldBack tells whether an unknown name must not leave the host: somebody who set ndots wants names without a dot to be
// tried with the search list, and an answer from outside would end that search.
func (v View) heldBack(q dns.Question) bool {
	return v.Ndots >= 0 && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeAAAA) && dns.CountLabel(q.Name) == 1
}

// reply makes an answer of our own.
func reply(req *dns.Msg, rcode int, rrs []dns.RR) *dns.Msg {
	m := new(dns.Msg).SetRcode(req, rcode)
	m.RecursionAvailable = true
	m.Answer = rrs
	m.Compress = true
	if opt := req.IsEdns0(); opt != nil {
		// RFC 6891 section 6.1.1: whoever asks with EDNS0 is answered with it.
		m.SetEdns0(maxUDP, opt.Do())
		if opt.Version() != 0 {
			m.Answer, m.Rcode = nil, dns.RcodeBadVers
		}
	}
	return m
}

// udpSize is how many bytes the asker takes over UDP.
func udpSize(req *dns.Msg) int {
	if opt := req.IsEdns0(); opt != nil && opt.UDPSize() > dns.MinMsgSize {
		return int(opt.UDPSize())
	}
	return dns.MinMsgSize
}

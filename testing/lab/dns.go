package lab

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// names is the underlay's DNS server: it answers what it was told and says NXDOMAIN at once to everything else, so that
// no test ever waits for a resolver.
type names struct {
	mu    sync.Mutex
	addrs map[string][]netip.Addr // by lower-case name with the final dot
}

// underlayMain serves DNS in the underlay's namespace until the lab closes.
func underlayMain() error {
	n := &names{addrs: map[string][]netip.Addr{}}
	return serve(func(verb string, args []string) error {
		switch {
		case verb == "serve" && len(args) == 1:
			return n.listen(args[0])
		case verb == "name" && len(args) == 2:
			addr, err := netip.ParseAddr(args[1])
			if err != nil {
				return err
			}
			n.add(args[0], addr)
			return nil
		}
		return fmt.Errorf("unknown command %q", verb)
	})
}

// listen binds both sockets before it returns; the servers run until the process ends.
func (n *names) listen(addr string) error {
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	go func() { _ = (&dns.Server{PacketConn: pc, Handler: n}).ActivateAndServe() }()
	go func() { _ = (&dns.Server{Listener: ln, Handler: n}).ActivateAndServe() }()
	return nil
}

func (n *names) add(name string, addr netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := strings.ToLower(dns.Fqdn(name))
	n.addrs[key] = append(n.addrs[key], addr)
}

// ServeDNS implements dns.Handler.
func (n *names) ServeDNS(w dns.ResponseWriter, req *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(req)
	m.RecursionAvailable = true
	if len(req.Question) == 1 {
		n.answer(m, req.Question[0])
	}
	_ = w.WriteMsg(m) // the asker has gone: nothing to do about it
}

func (n *names) answer(m *dns.Msg, q dns.Question) {
	n.mu.Lock()
	addrs, known := n.addrs[strings.ToLower(q.Name)]
	n.mu.Unlock()
	if !known {
		m.Rcode = dns.RcodeNameError
		return
	}
	h := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 5}
	for _, a := range addrs {
		switch {
		case q.Qtype == dns.TypeA && a.Is4():
			m.Answer = append(m.Answer, &dns.A{Hdr: h, A: a.AsSlice()})
		case q.Qtype == dns.TypeAAAA && a.Is6():
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: a.AsSlice()})
		}
	}
}

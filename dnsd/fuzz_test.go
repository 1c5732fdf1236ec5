package dnsd

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func packed(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzQuery feeds any packet that parses through the whole path of a query without upstreams: the answer parses, is for
// that query, and fits what the asker takes.
func FuzzQuery(f *testing.F) {
	f.Add(packed(f, question("bbox1.", dns.TypeA)), false)
	f.Add(packed(f, question("web.ov_net1.", dns.TypeANY).SetEdns0(100, true)), true)
	f.Add(packed(f, question("2.0.0.10.in-addr.arpa.", dns.TypePTR)), false)
	f.Add(packed(f, question(strings.Repeat("0.", 32)+"ip6.arpa.", dns.TypePTR)), false)
	s := NewServer(quiet())
	view := View{Zones: zones(), Ndots: 0}
	f.Fuzz(func(t *testing.T, b []byte, tcp bool) {
		req := new(dns.Msg)
		if req.Unpack(b) != nil {
			return
		}
		raw, err := s.resolve(context.Background(), req, view, tcp)
		if err != nil {
			return // a question that parses but cannot be packed again
		}
		m := new(dns.Msg)
		if err := m.Unpack(raw); err != nil {
			t.Fatalf("%v of an answer to\n%v", err, req)
		}
		if m.Id != req.Id || !m.Response || !tcp && len(raw) > udpSize(req) && len(m.Answer) > 0 {
			t.Fatalf("%d bytes:\n%v\nanswer to\n%v", len(raw), m, req)
		}
	})
}

// FuzzAnswers feeds any packet from an upstream.
func FuzzAnswers(f *testing.F) {
	q := question("example.com.", dns.TypeA)
	f.Add(packed(f, says("198.51.100.1")(q, false)))
	f.Add(packed(f, refuses(dns.RcodeRefused)(q, false)))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(dns.Msg)
		// The library takes a question that ends early; a class of 0 is how it shows.
		if m.Unpack(b) == nil && len(m.Question) > 0 && m.Question[0].Qclass != 0 {
			q := new(dns.Msg)
			q.Id, q.Question = m.Id, m.Question[:1]
			if answers(b, q) != m.Response {
				t.Fatalf("the answer to its own question is passed over:\n%v", m)
			}
		}
		if answers(b, q) {
			_ = verdict{raw: b}.refused()
		}
	})
}

func FuzzReverseAddr(f *testing.F) {
	f.Add("2.0.0.10.in-addr.arpa.")
	f.Add("3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.")
	f.Fuzz(func(t *testing.T, name string) {
		a, ok := reverseAddr(name)
		if !ok {
			return
		}
		if back, err := dns.ReverseAddr(a.String()); a.Is4() == strings.Contains(lower(name), "in-addr") &&
			(err != nil || trimDot(lower(name)) != trimDot(back)) {
			t.Fatalf("%q is %s, which is %q", name, a, back)
		}
	})
}

// FuzzParseResolvConf: whatever is read can be written and read again.
func FuzzParseResolvConf(f *testing.F) {
	f.Add([]byte(hostFile))
	f.Add([]byte("nameserver ::1\noptions ndots:x ndots:3\nsearch a b\ndomain"))
	f.Fuzz(func(t *testing.T, b []byte) {
		servers, search, options := ParseResolvConf(b)
		var own []netip.Addr
		for _, s := range servers {
			own = append(own, s.Addr())
		}
		text := ResolvConf(ResolvOptions{Host: b})
		again, search2, options2 := ParseResolvConf(text)
		if strings.Join(search, " ") != strings.Join(search2, " ") || strings.Join(options, " ") != strings.Join(options2, " ") {
			t.Fatalf("%q became %q", b, text)
		}
		if len(again) == 0 {
			t.Fatalf("no server in %q", text)
		}
		_ = ResolvConf(ResolvOptions{Host: b, Embedded: true, Servers: own})
	})
}

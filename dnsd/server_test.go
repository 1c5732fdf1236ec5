package dnsd

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func addrs(list string) (out []netip.Addr) {
	for _, s := range strings.Fields(list) {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func host(names, list string) Host { return Host{Names: strings.Fields(names), Addrs: addrs(list)} }

// zones are two networks, as one container sees them.
func zones() []*Zone {
	return []*Zone{
		NewZone("ov_net1", []Host{
			host("bbox1 8f1e0e9b6a1c Web cache.local", "10.0.0.2"),
			host("bbox2 0e9b6a1c8f1e web", "10.0.0.3 fd00::3"),
			host("db.backend", "10.0.0.9"),
		}),
		NewZone("my.net", []Host{host("bbox1", "172.19.0.2"), host("only2", "172.19.0.3"), host("db", "172.19.0.4")}),
		NewZone("backend", []Host{host("db", "172.20.0.4"), host("six", "fd00::6")}),
	}
}

// serve starts a Server with one client and gives the addresses of its sockets.
func serve(t testing.TB, view func() View) (udp, tcp string) {
	t.Helper()
	s := NewServer(quiet())
	t.Cleanup(s.Close)
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Add("c1", pc, ln, view)
	return pc.LocalAddr().String(), ln.Addr().String()
}

// upstream is a server that answers by fn, over UDP and TCP on one port. A nil message is silence.
func upstream(t testing.TB, fn func(req *dns.Msg, tcp bool) *dns.Msg) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) {
		if m := fn(req, w.RemoteAddr().Network() == "tcp"); m != nil {
			_ = w.WriteMsg(m)
		}
	})
	for _, srv := range []*dns.Server{{Listener: ln, Handler: handler}, {PacketConn: pc, Handler: handler, UDPSize: 4096}} {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		go func() { _ = srv.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = srv.Shutdown() })
	}
	return netip.MustParseAddrPort(ln.Addr().String())
}

// says answers every name with one address, so that a test sees who answered.
func says(addr string) func(*dns.Msg, bool) *dns.Msg {
	return func(req *dns.Msg, _ bool) *dns.Msg {
		m := new(dns.Msg).SetReply(req)
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: req.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 300},
			A: netip.MustParseAddr(addr).AsSlice()}}
		return m
	}
}

func refuses(rcode int) func(*dns.Msg, bool) *dns.Msg {
	return func(req *dns.Msg, _ bool) *dns.Msg { return new(dns.Msg).SetRcode(req, rcode) }
}

func silence(*dns.Msg, bool) *dns.Msg { return nil }

func query(t testing.TB, network, addr string, m *dns.Msg) *dns.Msg {
	t.Helper()
	r, _, err := (&dns.Client{Net: network, Timeout: 6 * time.Second}).Exchange(m, addr)
	if err != nil {
		t.Fatalf("ask %s: %v", m.Question[0].String(), err)
	}
	return r
}

func question(name string, qtype uint16) *dns.Msg {
	m := new(dns.Msg).SetQuestion(name, qtype)
	m.Compress = false
	return m
}

// show writes an answer as text: the code if it is not NOERROR, then the records' data, sorted.
func show(m *dns.Msg) string {
	var out []string
	for _, rr := range m.Answer {
		f := strings.Fields(rr.String())
		out = append(out, f[len(f)-1])
	}
	slices.Sort(out)
	if m.Rcode != dns.RcodeSuccess {
		out = append([]string{dns.RcodeToString[m.Rcode]}, out...)
	}
	return strings.Join(out, " ")
}

func TestAnswers(t *testing.T) {
	up := upstream(t, says("198.51.100.1"))
	normal := View{Zones: zones(), Upstreams: []netip.AddrPort{up}, Ndots: -1}
	internal, ndots, alone := normal, normal, normal
	internal.Internal, ndots.Ndots, alone.Upstreams = true, 0, nil
	var view atomic.Pointer[View]
	udp, tcp := serve(t, func() View { return *view.Load() })
	for _, c := range []struct {
		view  *View
		name  string
		qtype uint16
		want  string
	}{
		// Names of every kind, on the first network that knows them.
		{&normal, "bbox1.", dns.TypeA, "10.0.0.2"},
		{&normal, "BBOX1.", dns.TypeA, "10.0.0.2"},
		{&normal, "8f1e0e9b6a1c.", dns.TypeA, "10.0.0.2"},
		{&normal, "cache.local.", dns.TypeA, "10.0.0.2"},
		{&normal, "only2.", dns.TypeA, "172.19.0.3"},
		{&normal, "web.", dns.TypeA, "10.0.0.2 10.0.0.3"},
		{&normal, "web.", dns.TypeAAAA, "fd00::3"},
		{&normal, "web.", dns.TypeANY, "10.0.0.2 10.0.0.3 fd00::3"},
		// Names with their network's, where both may contain dots.
		{&normal, "bbox1.ov_net1.", dns.TypeA, "10.0.0.2"},
		{&normal, "bbox1.MY.net.", dns.TypeA, "172.19.0.2"},
		{&normal, "cache.local.ov_net1.", dns.TypeA, "10.0.0.2"},
		{&normal, "db.backend.ov_net1.", dns.TypeA, "10.0.0.9"},
		{&normal, "db.backend.", dns.TypeA, "10.0.0.9"},
		{&normal, "db.", dns.TypeA, "172.19.0.4"},
		{&normal, "only2.ov_net1.", dns.TypeA, "198.51.100.1"},
		{&normal, "ov_net1.", dns.TypeA, "198.51.100.1"},
		{&normal, "bbox1ov_net1.", dns.TypeA, "198.51.100.1"},
		// A known name never leaves, whatever is asked about it.
		{&normal, "bbox1.", dns.TypeAAAA, ""},
		{&normal, "six.", dns.TypeA, ""},
		{&normal, "bbox1.", dns.TypeMX, ""},
		{&normal, "bbox1.", dns.TypeTXT, ""},
		{&normal, "bbox1.", dns.TypeHTTPS, ""},
		{&normal, "bbox1.", dns.TypeSRV, ""},
		{&normal, "_http._tcp.bbox1.", dns.TypeSRV, ""},
		{&normal, "_http._tcp.nobody.", dns.TypeSRV, "198.51.100.1"},
		// The way back.
		{&normal, "2.0.0.10.in-addr.arpa.", dns.TypePTR, "bbox1.ov_net1."},
		{&normal, "2.0.19.172.IN-ADDR.arpa.", dns.TypePTR, "bbox1.my.net."},
		{&normal, "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, "bbox2.ov_net1."},
		{&normal, "1.0.0.10.in-addr.arpa.", dns.TypePTR, "198.51.100.1"},
		{&normal, "0.0.10.in-addr.arpa.", dns.TypePTR, "198.51.100.1"},
		// Everything else.
		{&normal, "example.com.", dns.TypeA, "198.51.100.1"},
		{&normal, "nobody.", dns.TypeA, "198.51.100.1"},
		{&normal, ".", dns.TypeNS, "198.51.100.1"},
		{&internal, "example.com.", dns.TypeA, "SERVFAIL"},
		{&internal, "bbox1.", dns.TypeA, "10.0.0.2"},
		{&alone, "example.com.", dns.TypeA, "SERVFAIL"},
		{&ndots, "nobody.", dns.TypeA, ""},
		{&ndots, "nobody.", dns.TypeAAAA, ""},
		{&ndots, "nobody.", dns.TypeMX, "198.51.100.1"},
		{&ndots, "nobody.example.", dns.TypeA, "198.51.100.1"},
		{&ndots, "bbox1.", dns.TypeA, "10.0.0.2"},
	} {
		view.Store(c.view)
		for network, addr := range map[string]string{"udp": udp, "tcp": tcp} {
			r := query(t, network, addr, question(c.name, c.qtype))
			if got := show(r); got != c.want {
				t.Errorf("%s %s %s: %q, want %q", network, c.name, dns.TypeToString[c.qtype], got, c.want)
			}
			for _, rr := range r.Answer {
				if rr.Header().Name != c.name {
					t.Errorf("%s is spelled %s in the answer", c.name, rr.Header().Name)
				}
				if rr.Header().Ttl > ttl && !strings.Contains(rr.String(), "198.51") {
					t.Errorf("%s may be kept for %d s", c.name, rr.Header().Ttl)
				}
			}
		}
	}
}

// TestSuffix is the view of the host itself: every name, bare and below the suffix; nothing is forwarded.
func TestSuffix(t *testing.T) {
	view := View{Zones: zones(), Suffix: "minictl", Ndots: -1, Upstreams: []netip.AddrPort{upstream(t, says("198.51.100.1"))}}
	udp, tcp := serve(t, func() View { return view })
	for _, c := range []struct {
		name  string
		rcode int
		want  string
	}{
		{"bbox1.", dns.RcodeSuccess, "10.0.0.2"}, {"bbox1.minictl.", dns.RcodeSuccess, "10.0.0.2"}, {"Only2.MY.net.Minictl.", dns.RcodeSuccess, "172.19.0.3"},
		{"six.minictl.", dns.RcodeSuccess, ""}, {"nosuch.minictl.", dns.RcodeNameError, ""}, {"minictl.", dns.RcodeNameError, ""},
		{"example.com.", dns.RcodeRefused, ""}, {"nosuch.", dns.RcodeRefused, ""},
	} {
		for network, addr := range map[string]string{"udp": udp, "tcp": tcp} {
			r := query(t, network, addr, question(c.name, dns.TypeA))
			got := ""
			if len(r.Answer) > 0 {
				got = r.Answer[0].(*dns.A).A.String()
			}
			if r.Rcode != c.rcode || got != c.want {
				t.Errorf("%s by %s: %s %q", c.name, network, dns.RcodeToString[r.Rcode], got)
			}
		}
	}
}

func TestOrderIsRotated(t *testing.T) {
	udp, _ := serve(t, func() View { return View{Zones: zones(), Ndots: -1} })
	first := map[string]int{}
	for range 100 {
		first[query(t, "udp", udp, question("web.", dns.TypeA)).Answer[0].(*dns.A).A.String()]++
	}
	if len(first) != 2 {
		t.Errorf("first of 100 answers: %v", first)
	}
}

func TestOddQueries(t *testing.T) {
	udp, _ := serve(t, func() View { return View{Zones: zones(), Ndots: -1} })
	notify := question("bbox1.", dns.TypeSOA)
	notify.Opcode = dns.OpcodeNotify
	if r := query(t, "udp", udp, notify); r.Rcode != dns.RcodeNotImplemented {
		t.Errorf("NOTIFY: %v", r)
	}
	two := question("bbox1.", dns.TypeA)
	two.Question = append(two.Question, two.Question[0])
	if r := query(t, "udp", udp, two); r.Rcode != dns.RcodeFormatError {
		t.Errorf("two questions: %v", r)
	}
	chaos := question("bbox1.", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	if r := query(t, "udp", udp, chaos); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("another class is not ours: %v", r)
	}
	badVersion := question("bbox1.", dns.TypeA).SetEdns0(1232, false)
	badVersion.IsEdns0().SetVersion(9)
	if r := query(t, "udp", udp, badVersion); r.Rcode != dns.RcodeBadVers || len(r.Answer) != 0 {
		t.Errorf("EDNS version 9: %v", r)
	}
}

// Forty holders of a name do not fit 512 bytes.
func TestTruncation(t *testing.T) {
	var hosts []Host
	for i := range 40 {
		hosts = append(hosts, host("many", fmt.Sprintf("10.0.0.%d", i+2)))
	}
	big := func(req *dns.Msg, tcp bool) *dns.Msg {
		m := new(dns.Msg).SetReply(req)
		for i := range 60 {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: header(req.Question[0].Name, dns.TypeTXT), Txt: []string{strings.Repeat("x", i)}})
		}
		if !tcp {
			m.Truncate(udpSize(req))
		}
		return m
	}
	up := upstream(t, big)
	udp, tcp := serve(t, func() View {
		return View{Zones: []*Zone{NewZone("n", hosts)}, Upstreams: []netip.AddrPort{up}, Ndots: -1}
	})
	for _, c := range []struct {
		network, name string
		qtype, size   uint16
		truncated     bool
		least         int
	}{
		{"udp", "many.", dns.TypeA, 0, true, 10},
		{"udp", "many.", dns.TypeA, 1232, false, 40},
		{"tcp", "many.", dns.TypeA, 0, false, 40},
		{"udp", "example.com.", dns.TypeTXT, 0, true, 0},
		{"udp", "example.com.", dns.TypeTXT, 1232, true, 0},
		{"udp", "example.com.", dns.TypeTXT, 4096, false, 60},
		{"tcp", "example.com.", dns.TypeTXT, 0, false, 60},
	} {
		q := question(c.name, c.qtype)
		if c.size > 0 {
			q.SetEdns0(c.size, false)
		}
		addr := map[string]string{"udp": udp, "tcp": tcp}[c.network]
		r := query(t, c.network, addr, q)
		if r.Truncated != c.truncated || len(r.Answer) < c.least {
			t.Errorf("%s %s with %d bytes: TC %v, %d answers", c.network, c.name, c.size, r.Truncated, len(r.Answer))
		}
		if c.name == "many." && (r.IsEdns0() != nil) != (c.size > 0) {
			t.Errorf("%s with %d bytes: OPT %v", c.name, c.size, r.IsEdns0())
		}
	}
}

func TestForwarding(t *testing.T) {
	good, other := upstream(t, says("198.51.100.1")), upstream(t, says("198.51.100.2"))
	servfail, refused := upstream(t, refuses(dns.RcodeServerFailure)), upstream(t, refuses(dns.RcodeRefused))
	nxdomain, mute := upstream(t, refuses(dns.RcodeNameError)), upstream(t, silence)
	closed := netip.MustParseAddrPort("127.0.0.1:1")
	for _, c := range []struct {
		what string
		ups  []netip.AddrPort
		want string
		most time.Duration // on a busy machine too, but less than a time-out more
	}{
		{"the first", []netip.AddrPort{good, other}, "198.51.100.1", exchangeTimeout},
		{"the next after SERVFAIL", []netip.AddrPort{servfail, other}, "198.51.100.2", exchangeTimeout},
		{"the next after REFUSED", []netip.AddrPort{refused, other}, "198.51.100.2", exchangeTimeout},
		{"the next after a closed port", []netip.AddrPort{closed, other}, "198.51.100.2", exchangeTimeout},
		{"the third", []netip.AddrPort{refused, servfail, good}, "198.51.100.1", exchangeTimeout},
		{"no such name is an answer", []netip.AddrPort{nxdomain, good}, "NXDOMAIN", exchangeTimeout},
		{"the last refusal, at once", []netip.AddrPort{servfail, refused}, "REFUSED", exchangeTimeout},
		{"the only refusal, at once", []netip.AddrPort{refused}, "REFUSED", exchangeTimeout},
		{"nobody listens", []netip.AddrPort{closed}, "SERVFAIL", exchangeTimeout},
		{"the next after silence", []netip.AddrPort{mute, good}, "198.51.100.1", 2 * exchangeTimeout},
		{"the refusal after silence", []netip.AddrPort{mute, refused}, "REFUSED", 2 * exchangeTimeout},
		{"silence alone", []netip.AddrPort{mute}, "SERVFAIL", 2 * exchangeTimeout},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			udp, _ := serve(t, func() View { return View{Upstreams: c.ups, Ndots: -1} })
			start := time.Now()
			if got := show(query(t, "udp", udp, question("example.com.", dns.TypeA))); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if took := time.Since(start); took > c.most {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestUpstreamsFromWithin has the servers that a user chose asked from where the container is, on internal networks too.
func TestUpstreamsFromWithin(t *testing.T) {
	inside := upstream(t, says("198.51.100.7"))
	var dialled atomic.Int32
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled.Add(1)
		if address != "10.0.0.53:53" {
			return nil, fmt.Errorf("%s is asked", address)
		}
		return new(net.Dialer).DialContext(ctx, network, inside.String())
	}
	for _, internal := range []bool{false, true} {
		udp, tcp := serve(t, func() View {
			return View{Upstreams: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.53:53")}, Dial: dial, Internal: internal, Ndots: -1}
		})
		for network, addr := range map[string]string{"udp": udp, "tcp": tcp} {
			if got := show(query(t, network, addr, question("example.com.", dns.TypeA))); got != "198.51.100.7" {
				t.Errorf("internal %v, %s: %q", internal, network, got)
			}
		}
	}
	if n := dialled.Load(); n != 4 {
		t.Errorf("%d queries from within", n)
	}
}

// A silent server costs its patience once, not with every query.
func TestSilentUpstreamIsAskedLast(t *testing.T) {
	var asked atomic.Int32
	mute := upstream(t, func(*dns.Msg, bool) *dns.Msg { asked.Add(1); return nil })
	good := upstream(t, says("198.51.100.1"))
	udp, _ := serve(t, func() View { return View{Upstreams: []netip.AddrPort{mute, good}, Ndots: -1} })
	query(t, "udp", udp, question("example.com.", dns.TypeA))
	query(t, "udp", udp, question("example.com.", dns.TypeA))
	if n := asked.Load(); n != 1 {
		t.Errorf("the silent server was asked %d times", n)
	}
}

// Packets that do not answer the query are passed over.
func TestForgedAnswers(t *testing.T) {
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	go func() {
		buf := make([]byte, 4096)
		n, from, err := pc.ReadFrom(buf)
		req := new(dns.Msg)
		if err != nil || req.Unpack(buf[:n]) != nil {
			return
		}
		send := func(edit func(*dns.Msg)) {
			m := says("203.0.113.66")(req, false)
			edit(m)
			b, _ := m.Pack()
			_, _ = pc.WriteTo(b, from)
		}
		_, _ = pc.WriteTo([]byte("short"), from)
		send(func(m *dns.Msg) { m.Id++ })
		send(func(m *dns.Msg) { m.Response = false })
		send(func(m *dns.Msg) { m.Question[0].Name = "other.example." })
		send(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMX })
		send(func(m *dns.Msg) { m.Question = nil })
		b, _ := says("198.51.100.1")(req, false).Pack()
		_, _ = pc.WriteTo(b, from)
	}()
	udp, _ := serve(t, func() View {
		return View{Upstreams: []netip.AddrPort{netip.MustParseAddrPort(pc.LocalAddr().String())}, Ndots: -1}
	})
	if got := show(query(t, "udp", udp, question("example.com.", dns.TypeA))); got != "198.51.100.1" {
		t.Errorf("believed %q", got)
	}
}

// A thousand queries that all wait at once are all answered.
func TestThousandAtOnce(t *testing.T) {
	const n = 1000
	var arrived atomic.Int64
	all := make(chan struct{})
	up := upstream(t, func(req *dns.Msg, _ bool) *dns.Msg {
		if arrived.Add(1) == n {
			close(all)
		}
		select {
		case <-all:
		case <-time.After(exchangeTimeout):
			return nil
		}
		return says("198.51.100.1")(req, false)
	})
	s := NewServer(quiet())
	defer s.Close()
	var failed atomic.Int64
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			raw, err := s.resolve(context.Background(), question(fmt.Sprintf("n%d.example.", i), dns.TypeA),
				View{Upstreams: []netip.AddrPort{up}, Ndots: -1}, true) // TCP: a burst of UDP may overrun the test's own server
			m := new(dns.Msg)
			if err != nil || m.Unpack(raw) != nil || show(m) != "198.51.100.1" {
				failed.Add(1)
			}
		})
	}
	wg.Wait()
	if f := failed.Load(); f > 0 {
		t.Errorf("%d of %d queries failed", f, n)
	}
}

// Remove ends queries that wait, closes the sockets, and the same id can be added again.
func TestRemove(t *testing.T) {
	arrived := make(chan struct{}, 1)
	up := upstream(t, func(*dns.Msg, bool) *dns.Msg { arrived <- struct{}{}; return nil })
	s := NewServer(quiet())
	defer s.Close()
	for range 2 {
		pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s.Add("c1", pc, ln, func() View { return View{Upstreams: []netip.AddrPort{up}, Ndots: -1} })
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _, _ = (&dns.Client{Timeout: 6 * time.Second}).Exchange(question("example.com.", dns.TypeA), pc.LocalAddr().String())
		}()
		<-arrived
		start := time.Now()
		s.Remove("c1")
		if took := time.Since(start); took >= exchangeTimeout {
			t.Errorf("Remove took %v: it waited for the query", took)
		}
		if _, err := pc.WriteTo(nil, pc.LocalAddr()); err == nil {
			t.Error("the UDP socket is open")
		}
		if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
			t.Error("the TCP socket listens")
		}
		_ = done // the client's own socket times out or is refused; nobody waits for it
	}
	s.Remove("nobody")
	s.Add("c2", nil, nil, func() View { return View{} })
}

package dnsd

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// canonical is a packed message with its answers in order and its names shortened: both ways shuffle the former, and only
// one always does the latter.
func canonical(t *testing.T, raw []byte) []byte {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(raw); err != nil {
		t.Fatalf("%v in %x", err, raw)
	}
	slices.SortFunc(m.Answer, func(a, b dns.RR) int {
		return bytes.Compare([]byte(a.String()), []byte(b.String()))
	})
	m.Compress = true
	return packed(t, m)
}

// FuzzQuick: what is answered without unpacking says what the longer way says, in no more bytes; no packet is taken that
// the longer way would not take.
func FuzzQuick(f *testing.F) {
	for _, q := range []*dns.Msg{
		question("bbox1.", dns.TypeA), question("WEB.ov_net1.", dns.TypeA), question("web.", dns.TypeAAAA), question("six.", dns.TypeA),
		question("bbox1.minictl.", dns.TypeA), question("bbox2.", dns.TypeA).SetEdns0(100, true), question("db.backend.", dns.TypeA).SetEdns0(1232, false),
		question("many.", dns.TypeA), question("many.", dns.TypeA).SetEdns0(900, false), question("nobody.", dns.TypeA),
	} {
		f.Add(packed(f, q))
	}
	checking := question("web.", dns.TypeA)
	checking.CheckingDisabled, checking.RecursionDesired = true, false
	f.Add(packed(f, checking))
	s := NewServer(quiet())
	many := Host{Names: []string{"many"}}
	for a := netip.MustParseAddr("10.0.1.0"); len(many.Addrs) < 40; a = a.Next() {
		many.Addrs = append(many.Addrs, a)
	}
	view := View{Zones: append(zones(), NewZone("crowd", []Host{many})), Ndots: -1, Suffix: "minictl"}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, ok := parsePlain(b)
		if !ok {
			return
		}
		fast, ok := view.quick(nil, b, q)
		if !ok {
			return
		}
		req := new(dns.Msg)
		if err := req.Unpack(b); err != nil {
			t.Fatalf("answers what the library refuses: %v", err)
		}
		slow, err := s.resolve(context.Background(), req, view, false)
		if err != nil {
			t.Fatal(err)
		}
		if len(fast) > len(slow) || !bytes.Equal(canonical(t, fast), canonical(t, slow)) {
			t.Fatalf("%x\n  is answered %x\n  and should be %x", b, fast, slow)
		}
	})
}

// The plain questions of a client take the short way, and others do not. A change that sends them the long way would
// pass every other test.
func TestQuickTakesPlainQuestions(t *testing.T) {
	view := View{Zones: zones(), Ndots: -1}
	for _, c := range []struct {
		what string
		q    *dns.Msg
		want bool
	}{
		{"an address", question("bbox1.", dns.TypeA), true},
		{"in capitals", question("BBOX1.OV_NET1.", dns.TypeA), true},
		{"the other family", question("bbox1.", dns.TypeAAAA), true},
		{"EDNS0", question("bbox1.", dns.TypeA).SetEdns0(1232, true), true},
		{"an unknown name", question("nobody.", dns.TypeA), false},
		{"an MX", question("bbox1.", dns.TypeMX), false},
		{"a strange letter", question("b\\.box.", dns.TypeA), false},
	} {
		b := packed(t, c.q)
		q, ok := parsePlain(b)
		if ok {
			_, ok = view.quick(nil, b, q)
		}
		if ok != c.want {
			t.Errorf("%s: answered the short way %v, want %v", c.what, ok, c.want)
		}
	}
}

// A Server's own socket answers plain questions, and gives the library the rest; one that is bound to every address is left
// to the library.
func TestQuickConn(t *testing.T) {
	s := NewServer(quiet())
	defer s.Close()
	view := func() View { return View{Zones: zones(), Ndots: -1} }
	wild, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer wild.Close()
	if s.quicken(wild, view) != wild {
		t.Error("a socket of every address would answer from another than was asked")
	}
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conn := s.quicken(udp, view)
	defer conn.Close()
	c, err := net.Dial("udp", udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, q := range []*dns.Msg{question("bbox1.", dns.TypeA), question("bbox1.", dns.TypeMX)} {
		if _, err := c.Write(packed(t, q)); err != nil {
			t.Fatal(err)
		}
	}
	b := make([]byte, maxUDP)
	n, from, err := conn.ReadFrom(b)
	if m := new(dns.Msg); err != nil || m.Unpack(b[:n]) != nil || m.Question[0].Qtype != dns.TypeMX || from.String() != c.LocalAddr().String() {
		t.Errorf("got %x from %v, %v", b[:n], from, err)
	}
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg)
	if n, err := c.Read(b); err != nil || m.Unpack(b[:n]) != nil || show(m) != "10.0.0.2" {
		t.Errorf("the plain question: %v, %v", m, err)
	}
	if queries, failures := s.Counts(); queries != 1 || failures != 0 {
		t.Errorf("counted %d queries, %d failures", queries, failures)
	}
}

// BenchmarkQuery is a client that asks over loopback, one question after the other; BenchmarkQueries are many of them.
func BenchmarkQuery(b *testing.B) {
	z := zones()
	udp, _ := serve(b, func() View { return View{Zones: z, Ndots: -1} })
	c, buf := asker(b, udp)
	b.ReportAllocs()
	defer reportCPU(b)()
	for b.Loop() {
		ask1(b, c, buf)
	}
}

func BenchmarkQueries(b *testing.B) {
	z := zones()
	udp, _ := serve(b, func() View { return View{Zones: z, Ndots: -1} })
	b.SetParallelism(4)
	b.ReportAllocs()
	defer reportCPU(b)()
	b.RunParallel(func(pb *testing.PB) {
		c, buf := asker(b, udp)
		for pb.Next() {
			ask1(b, c, buf)
		}
	})
}

// reportCPU gives, when the returned function is called, the processor time that both ends took: on a busy machine it
// says more than the clock.
func reportCPU(b *testing.B) func() {
	b.Helper()
	used := func() int64 {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}

func asker(b *testing.B, udp string) (net.Conn, []byte) {
	b.Helper()
	c, err := net.Dial("udp", udp)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Minute)); err != nil {
		b.Fatal(err)
	}
	return c, packed(b, question("bbox1.", dns.TypeA))
}

func ask1(b *testing.B, c net.Conn, q []byte) {
	var in [512]byte
	if _, err := c.Write(q); err != nil {
		b.Fatal(err)
	}
	if n, err := c.Read(in[:]); err != nil || n <= len(q) {
		b.Fatal(n, err)
	}
}

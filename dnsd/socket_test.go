package dnsd

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestQuestionsWait: what comes while no server reads, five seconds of a thousand questions a second, is answered by the
// next one, as long as somebody keeps the socket.
func TestQuestionsWait(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root: only root may give a socket more room than net.core.rmem_max")
		}
		t.Skip("needs root")
	}
	const clients, each = 50, 100
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	kept, err := pc.(*net.UDPConn).File() // the shim's
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	view := func() View { return View{Zones: zones()} }
	s := NewServer(quiet())
	defer s.Close()
	s.Add("c1", pc, nil, view)
	s.Remove("c1")
	var socks []net.Conn
	for range clients {
		c, err := net.Dial("udp4", pc.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for i := range each {
			m := new(dns.Msg).SetQuestion("bbox1.ov_net1.", dns.TypeA)
			m.Id = uint16(i)
			b, err := m.Pack()
			if err == nil {
				_, err = c.Write(b)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		socks = append(socks, c)
	}
	again, err := net.FilePacketConn(kept)
	if err != nil {
		t.Fatal(err)
	}
	s.Add("c1", again, nil, view)
	var wg sync.WaitGroup
	for _, c := range socks {
		wg.Go(func() {
			_ = c.SetReadDeadline(time.Now().Add(time.Minute))
			b := make([]byte, 512)
			for i := range each {
				if _, err := c.Read(b); err != nil {
					t.Errorf("%d of %d questions are answered: %v", i, each, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// pair opens a client's two sockets.
func pair(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return pc, ln
}

// TestHold: nobody is answered between Hold and Release, by what the view says then.
func TestHold(t *testing.T) {
	s := NewServer(quiet())
	defer s.Close()
	s.Hold()
	var known atomic.Bool
	pc, ln := pair(t)
	s.Add("c1", pc, ln, func() View {
		if !known.Load() {
			t.Error("a question is answered before Release")
		}
		return View{Zones: zones()}
	})
	var wg sync.WaitGroup
	sent := make(chan struct{}, 2)
	for _, to := range []net.Addr{pc.LocalAddr(), ln.Addr()} {
		wg.Go(func() {
			c, err := net.Dial(to.Network(), to.String())
			if err != nil {
				t.Error(err)
				sent <- struct{}{}
				return
			}
			defer c.Close()
			conn := &dns.Conn{Conn: c}
			err = conn.WriteMsg(question("bbox1.ov_net1.", dns.TypeA))
			sent <- struct{}{}
			_ = c.SetReadDeadline(time.Now().Add(time.Minute))
			if err == nil {
				_, err = conn.ReadMsg()
			}
			if err != nil {
				t.Errorf("%s: %v", to.Network(), err)
			}
		})
	}
	<-sent
	<-sent
	gone, goneTCP := pair(t)
	s.Add("c2", gone, goneTCP, func() View { return View{} })
	s.Remove("c2")
	if _, err := gone.WriteTo(nil, gone.LocalAddr()); err == nil {
		t.Error("the socket of one that was removed is open")
	}
	known.Store(true)
	s.Release()
	wg.Wait()
}

// TestCloseAnswersFirst: a question that waits for an upstream when the server is closed is answered.
func TestCloseAnswersFirst(t *testing.T) {
	arrived, closing := make(chan struct{}), make(chan struct{})
	up := upstream(t, func(req *dns.Msg, tcp bool) *dns.Msg {
		close(arrived)
		<-closing
		return says("192.0.2.7")(req, tcp)
	})
	s := NewServer(quiet())
	pc, _ := pair(t)
	s.Add("c1", pc, nil, func() View { return View{Upstreams: []netip.AddrPort{up}, Ndots: -1} })
	answered := make(chan error, 1)
	go func() {
		_, _, err := (&dns.Client{Timeout: 6 * time.Second}).Exchange(question("example.com.", dns.TypeA), pc.LocalAddr().String())
		answered <- err
	}()
	<-arrived
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.Close()
	}()
	for !s.closing() { // no more is read
		runtime.Gosched()
	}
	close(closing)
	<-closed
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// TestCloseHearsConnections: a connection that is open when the server is closed has its question answered.
func TestCloseHearsConnections(t *testing.T) {
	s := NewServer(quiet())
	pc, ln := pair(t)
	s.Add("c1", pc, ln, func() View { return View{Zones: zones()} })
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	conn := &dns.Conn{Conn: c}
	ask := func() {
		t.Helper()
		err := conn.WriteMsg(question("bbox1.ov_net1.", dns.TypeA))
		if err == nil {
			_, err = conn.ReadMsg()
		}
		if err != nil {
			t.Error(err)
		}
	}
	ask() // the connection is accepted
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.Close()
	}()
	for { // nobody listens any more
		again, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			break
		}
		again.Close()
		runtime.Gosched()
	}
	ask()
	c.Close()
	<-closed
}

// closing tells whether Close has taken the clients out.
func (s *Server) closing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.clients) == 0
}

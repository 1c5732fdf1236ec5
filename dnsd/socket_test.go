package dnsd

import (
	"net"
	"os"
	"sync"
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

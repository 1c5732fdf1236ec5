package firewall

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/minictl/minictl/netdriver/netdrivertest"
)

func TestRedirectDNS(t *testing.T) {
	netdrivertest.NewNS(t)
	ctx := context.Background()
	s := netdrivertest.NewSandbox(t, netdrivertest.Dir(t), "c1")
	l := &lab{t: t}
	l.dir = s.Path[:len(s.Path)-len("/c1")]
	var udp net.PacketConn
	var tcp net.Listener
	enter(t, s.Path, func() (err error) {
		if udp, err = net.ListenPacket("udp4", "127.0.0.11:0"); err == nil {
			tcp, err = net.Listen("tcp4", "127.0.0.11:0")
		}
		return err
	})
	defer udp.Close()
	defer tcp.Close()
	go echoUDP(udp, "resolver")
	go echoTCP(tcp, "resolver")
	l.expect(t, "refused", func() string { return l.ask("c1", "udp", "127.0.0.11:53") })
	portOf := func(a net.Addr) uint16 { return netip.MustParseAddrPort(a.String()).Port() }
	// Twice: a restarted daemon states it again.
	for range 2 {
		start := time.Now()
		if err := RedirectDNS(ctx, s.Path, portOf(udp.LocalAddr()), portOf(tcp.Addr())); err != nil {
			t.Fatal(err)
		}
		t.Log("took", time.Since(start))
		for _, c := range []struct{ network, addr, want string }{
			// A connected socket drops answers from any other address than the one it asked.
			{"udp", "127.0.0.11:53", "resolver saw 127.0.0.1"},
			{"tcp", "127.0.0.11:53", "resolver saw 127.0.0.1"},
			{"udp", "127.0.0.11:54", "refused"},
			{"tcp", "127.0.0.1:53", "refused"},
		} {
			l.expect(t, c.want, func() string { return l.ask("c1", c.network, c.addr) })
		}
	}
	// A container with rules of its own that track connections sees one connection each, both ends of it at port 53.
	enter(t, s.Path, func() error {
		out, err := exec.Command("nft", "add table ip own; add chain ip own in { type filter hook input priority 0; };"+
			"add rule ip own in meta l4proto { tcp, udp } th sport 53 ct state new drop").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	for _, network := range []string{"udp", "tcp"} {
		l.expect(t, "resolver saw 127.0.0.1", func() string { return l.ask("c1", network, "127.0.0.11:53") })
	}
	if got := listing(t); got != "" {
		t.Errorf("in the host's namespace:\n%s", got)
	}
	if err := RedirectDNS(ctx, s.Path+"x", 1, 2); err == nil {
		t.Error("a namespace that is not there")
	}
}

func TestRedirectDNSListing(t *testing.T) {
	netdrivertest.NewNS(t)
	for range 2 {
		if err := RedirectDNS(context.Background(), "/proc/thread-self/ns/net", 40000, 40001); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "dns", listing(t))
}

func BenchmarkRedirectDNS(b *testing.B) {
	netdrivertest.NewNS(b)
	for b.Loop() {
		if err := RedirectDNS(context.Background(), "/proc/thread-self/ns/net", 40000, 40001); err != nil {
			b.Fatal(err)
		}
	}
}

package transport

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/containerd/errdefs"
)

// Wire is the network below a transport: the kernel's, or one in a test's memory.
type Wire interface {
	// Listen opens streams and packets at one address; port 0 picks one.
	Listen(ctx context.Context, addr netip.AddrPort) (net.Listener, net.PacketConn, error)
	// Dial opens a stream to HOST:PORT, from an address of this host if one is given.
	Dial(ctx context.Context, from netip.Addr, to string) (net.Conn, error)
}

// Kernel is TCP and UDP.
type Kernel struct{}

// Listen implements Wire. A port that the kernel picked for TCP may be taken for UDP, so that case is tried several times.
func (Kernel) Listen(ctx context.Context, addr netip.AddrPort) (net.Listener, net.PacketConn, error) {
	var lc net.ListenConfig
	var err error
	for range 10 {
		var tcp net.Listener
		if tcp, err = lc.Listen(ctx, "tcp", addr.String()); err != nil {
			break
		}
		var udp net.PacketConn
		if udp, err = lc.ListenPacket(ctx, "udp", tcp.Addr().String()); err == nil {
			return tcp, udp, nil
		}
		tcp.Close()
		if addr.Port() != 0 {
			break
		}
	}
	return nil, nil, fmt.Errorf("listen on %v: %w: %w", addr, err, errdefs.ErrUnavailable)
}

// Dial implements Wire.
func (Kernel) Dial(ctx context.Context, from netip.Addr, to string) (net.Conn, error) {
	var d net.Dialer
	if from.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: from.AsSlice()}
	}
	return d.DialContext(ctx, "tcp", to)
}

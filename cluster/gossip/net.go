package gossip

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Network is what gossip needs of the cluster's transport.
type Network interface {
	// Dial opens a stream to the node id, expected at addr (host:port).
	Dial(ctx context.Context, id, addr string) (net.Conn, error)
	// Streams gives the streams that others open.
	Streams() net.Listener
	// Packets is the socket for packets. Gossip closes it when it stops.
	Packets() net.PacketConn
}

// fabric adapts a Network to memberlist.
type fabric struct {
	net     Network
	addr    netip.AddrPort // to advertise
	packets chan *memberlist.Packet
	streams chan net.Conn
	done    chan struct{}
	once    sync.Once
	wg      sync.WaitGroup
}

var _ memberlist.NodeAwareTransport = (*fabric)(nil)

func newFabric(n Network, addr netip.AddrPort) *fabric {
	f := &fabric{net: n, addr: addr, packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), done: make(chan struct{})}
	f.wg.Go(f.readPackets)
	f.wg.Go(f.acceptStreams)
	return f
}

func (f *fabric) readPackets() {
	buf := make([]byte, 65536)
	for {
		n, from, err := f.net.Packets().ReadFrom(buf)
		if err != nil {
			select {
			case <-f.done:
				return
			case <-time.After(100 * time.Millisecond): // an ICMP refusal read as an error; the socket is still good
				continue
			}
		}
		p := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: from, Timestamp: time.Now()}
		select {
		case f.packets <- p:
		case <-f.done:
			return
		}
	}
}

func (f *fabric) acceptStreams() {
	for {
		c, err := f.net.Streams().Accept()
		if err != nil {
			return // the listener is closed; memberlist is stopped next
		}
		select {
		case f.streams <- c:
		case <-f.done:
			c.Close()
			return
		}
	}
}

func (f *fabric) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return f.addr.Addr().AsSlice(), int(f.addr.Port()), nil
}

func (f *fabric) WriteTo(b []byte, addr string) (time.Time, error) {
	return f.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (f *fabric) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	to, err := netip.ParseAddrPort(a.Addr)
	if err != nil {
		return time.Time{}, fmt.Errorf("send gossip packet: %w", err)
	}
	_, err = f.net.Packets().WriteTo(b, net.UDPAddrFromAddrPort(to))
	return time.Now(), err
}

func (f *fabric) PacketCh() <-chan *memberlist.Packet { return f.packets }

func (f *fabric) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return f.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

func (f *fabric) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if a.Name == "" { // nobody to verify: members are called by node ID
		return nil, fmt.Errorf("open gossip stream to %s: no node ID", a.Addr)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return f.net.Dial(ctx, a.Name, a.Addr)
}

func (f *fabric) StreamCh() <-chan net.Conn { return f.streams }

func (f *fabric) Shutdown() error {
	f.once.Do(func() {
		close(f.done)
		f.net.Streams().Close()
		f.net.Packets().Close()
	})
	f.wg.Wait()
	return nil
}

package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// memNet is a network in memory. What is cut swallows packets and holds back what is written to streams, as a cable that
// is out does; streams that are cut for long break.
type memNet struct {
	mu        sync.Mutex
	listeners map[netip.AddrPort]*memListener
	sockets   map[netip.AddrPort]*memSocket
	cuts      map[link]bool
	news      chan struct{} // closed when cuts change
}

// link is one direction between two hosts.
type link struct{ from, to netip.Addr }

func newMemNet() *memNet {
	return &memNet{listeners: map[netip.AddrPort]*memListener{}, sockets: map[netip.AddrPort]*memSocket{}, cuts: map[link]bool{}, news: make(chan struct{})}
}

// change cuts links and mends others, all at once: who waits for a link looks once at what has become of it.
func (n *memNet) change(fn func(cuts map[link]bool)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fn(n.cuts)
	close(n.news)
	n.news = make(chan struct{})
}

func (n *memNet) state(from, to netip.Addr) (cut bool, news chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cuts[link{from, to}], n.news
}

// memWire is one host's end of it.
type memWire struct {
	net  *memNet
	addr netip.Addr
}

// streamPatience is how long a stream lives whose other end is silent; see transport's keep-alive.
const streamPatience = 11 * time.Second

// Listen implements transport.Wire.
func (w memWire) Listen(_ context.Context, addr netip.AddrPort) (net.Listener, net.PacketConn, error) {
	w.net.mu.Lock()
	defer w.net.mu.Unlock()
	if w.net.listeners[addr] != nil || w.net.sockets[addr] != nil {
		return nil, nil, fmt.Errorf("listen on %v: address in use", addr)
	}
	l := &memListener{net: w.net, addr: addr, conns: make(chan net.Conn, 64), done: make(chan struct{})}
	s := &memSocket{net: w.net, addr: addr, packets: make(chan memPacket, 1024), done: make(chan struct{})}
	w.net.listeners[addr], w.net.sockets[addr] = l, s
	return l, s, nil
}

// Dial implements transport.Wire. A host that is cut off does not answer; one where nobody listens refuses.
func (w memWire) Dial(ctx context.Context, _ netip.Addr, to string) (net.Conn, error) {
	addr, err := netip.ParseAddrPort(to)
	if err != nil {
		return nil, err
	}
	for {
		there, news := w.net.state(w.addr, addr.Addr())
		back, _ := w.net.state(addr.Addr(), w.addr)
		if !there && !back {
			break
		}
		select {
		case <-news:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	w.net.mu.Lock()
	l := w.net.listeners[addr]
	w.net.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("dial %v: %w", addr, syscall.ECONNREFUSED)
	}
	a, b := newMemHalf(w.net, w.addr, addr.Addr()), newMemHalf(w.net, addr.Addr(), w.addr)
	here, there := &memConn{in: b, out: a}, &memConn{in: a, out: b}
	select {
	case l.conns <- there:
		return here, nil
	case <-l.done:
		return nil, fmt.Errorf("dial %v: %w", addr, syscall.ECONNREFUSED)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type memListener struct {
	net   *memNet
	addr  netip.AddrPort
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		delete(l.net.listeners, l.addr)
		l.net.mu.Unlock()
		close(l.done)
		for {
			select {
			case c := <-l.conns:
				c.Close()
				continue
			default:
			}
			return
		}
	})
	return nil
}

func (l *memListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

type memPacket struct {
	b    []byte
	from netip.AddrPort
}

// memSocket is UDP.
type memSocket struct {
	net     *memNet
	addr    netip.AddrPort
	packets chan memPacket
	done    chan struct{}
	once    sync.Once
}

func (s *memSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-s.packets:
		return copy(b, p.b), net.UDPAddrFromAddrPort(p.from), nil
	case <-s.done:
		return 0, nil, net.ErrClosed
	}
}

func (s *memSocket) WriteTo(b []byte, to net.Addr) (int, error) {
	addr := to.(*net.UDPAddr).AddrPort()
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	cut, _ := s.net.state(s.addr.Addr(), addr.Addr())
	s.net.mu.Lock()
	other := s.net.sockets[addr]
	s.net.mu.Unlock()
	if other != nil && !cut {
		select {
		case other.packets <- memPacket{bytes.Clone(b), s.addr}:
		default: // as UDP does
		}
	}
	return len(b), nil
}

func (s *memSocket) Close() error {
	s.once.Do(func() {
		s.net.mu.Lock()
		delete(s.net.sockets, s.addr)
		s.net.mu.Unlock()
		close(s.done)
	})
	return nil
}

func (s *memSocket) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(s.addr) }
func (s *memSocket) SetDeadline(time.Time) error      { return nil }
func (s *memSocket) SetReadDeadline(time.Time) error  { return nil }
func (s *memSocket) SetWriteDeadline(time.Time) error { return nil }

// memHalf is one direction of a stream.
type memHalf struct {
	net      *memNet
	from, to netip.Addr

	mu       sync.Mutex
	buf      bytes.Buffer
	ended    bool // the writer has closed it
	broken   bool // the reader has
	deadline time.Time
	news     chan struct{}
}

func newMemHalf(n *memNet, from, to netip.Addr) *memHalf {
	return &memHalf{net: n, from: from, to: to, news: make(chan struct{})}
}

// change does fn under the lock and wakes who waits.
func (h *memHalf) change(fn func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fn()
	close(h.news)
	h.news = make(chan struct{})
}

func (h *memHalf) write(b []byte) (int, error) {
	err := net.ErrClosed
	h.change(func() {
		if !h.ended && !h.broken {
			h.buf.Write(b)
			err = nil
		}
	})
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

func (h *memHalf) read(b []byte) (int, error) {
	var silence <-chan time.Time // begins when the cut is seen
	for {
		cut, healed := h.net.state(h.from, h.to)
		h.mu.Lock()
		broken, ended, deadline, news := h.broken, h.ended, h.deadline, h.news
		if !cut && !broken && h.buf.Len() > 0 {
			n, err := h.buf.Read(b)
			h.mu.Unlock()
			return n, err
		}
		h.mu.Unlock()
		switch {
		case broken:
			return 0, net.ErrClosed
		case ended && !cut:
			return 0, io.EOF
		case !deadline.IsZero() && !time.Now().Before(deadline):
			return 0, os.ErrDeadlineExceeded
		}
		if !cut {
			silence = nil
		} else if silence == nil {
			t := time.NewTimer(streamPatience)
			defer t.Stop()
			silence = t.C
		}
		var late <-chan time.Time
		if !deadline.IsZero() {
			t := time.NewTimer(time.Until(deadline))
			defer t.Stop()
			late = t.C
		}
		select {
		case <-news:
		case <-healed:
		case <-late:
		case <-silence:
			h.change(func() { h.broken = true })
		}
	}
}

// memConn is TCP.
type memConn struct{ in, out *memHalf }

func (c *memConn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *memConn) Write(b []byte) (int, error) { return c.out.write(b) }

func (c *memConn) Close() error {
	c.out.change(func() { c.out.ended = true })
	c.in.change(func() { c.in.broken = true })
	return nil
}

func (c *memConn) LocalAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.out.from, 1))
}
func (c *memConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.out.to, 1))
}

func (c *memConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *memConn) SetWriteDeadline(time.Time) error { return nil } // writes never wait
func (c *memConn) SetReadDeadline(t time.Time) error {
	c.in.change(func() { c.in.deadline = t })
	return nil
}

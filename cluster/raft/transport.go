package raft

import (
	"context"
	"net"
	"sync"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	hraft "github.com/hashicorp/raft"
)

// StreamLayer connects this host to the raft of others. Connections are
// authenticated by whoever makes them; raft trusts what it reads.
type StreamLayer interface {
	// Dial connects to the raft of a node by its ID.
	Dial(ctx context.Context, nodeID string) (net.Conn, error)
	// Listener gives the connections that others dialled. The backend closes
	// it when it closes.
	Listener() net.Listener
}

// streams adapts a StreamLayer to hashicorp's and remembers every connection:
// their transport closes neither those it accepted nor those in use, and their
// goroutines end with their connections.
type streams struct {
	node   string
	layer  StreamLayer
	ctx    context.Context // ends dials when the transport closes
	cancel context.CancelFunc

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
}

func newStreams(node string, layer StreamLayer) *streams {
	ctx, cancel := context.WithCancel(context.Background())
	return &streams{node: node, layer: layer, ctx: ctx, cancel: cancel, conns: map[net.Conn]struct{}{}}
}

// Accept implements net.Listener.
func (s *streams) Accept() (net.Conn, error) {
	c, err := s.layer.Listener().Accept()
	if err != nil {
		return nil, err
	}
	return s.track(c)
}

// Dial implements raft.StreamLayer. Addresses are node IDs.
func (s *streams) Dial(node hraft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	c, err := s.layer.Dial(ctx, string(node))
	if err != nil {
		return nil, err
	}
	return s.track(c)
}

// Addr implements net.Listener; raft sends it to others as our address.
func (s *streams) Addr() net.Addr { return nodeAddr(s.node) }

// Close implements net.Listener and closes the connections as well.
func (s *streams) Close() error {
	s.cancel()
	s.mu.Lock()
	s.closed = true
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	for c := range conns {
		_ = c.Close()
	}
	return s.layer.Listener().Close()
}

func (s *streams) track(c net.Conn) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	t := &trackedConn{Conn: c, streams: s}
	s.conns[t] = struct{}{}
	return t, nil
}

// trackedConn forgets itself when it is closed.
type trackedConn struct {
	net.Conn
	streams *streams
}

// Close implements net.Conn.
func (c *trackedConn) Close() error {
	c.streams.mu.Lock()
	delete(c.streams.conns, c)
	c.streams.mu.Unlock()
	return c.Conn.Close()
}

// nodeAddr is a node ID as an address.
type nodeAddr string

// Network implements net.Addr.
func (nodeAddr) Network() string { return "node" }

func (a nodeAddr) String() string { return string(a) }

// newTransport returns raft's way to the others; a host alone has none, and
// nothing listens.
func newTransport(node string, layer StreamLayer, log hclog.Logger) (hraft.Transport, *streams) {
	if layer == nil {
		_, t := hraft.NewInmemTransport(hraft.ServerAddress(node))
		return t, nil
	}
	s := newStreams(node, layer)
	return hraft.NewNetworkTransportWithConfig(&hraft.NetworkTransportConfig{
		Stream:  s,
		MaxPool: 4, // heartbeats, entries, nudges, reads
		Timeout: ioTimeout,
		Logger:  log,
		// One request after another: raft's pipeline stops for ever, and with it
		// Shutdown, when a follower refuses entries for want of room while the
		// next are being sent.
		MaxRPCsInFlight: 1,
	}), s
}

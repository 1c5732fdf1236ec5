// Package dnsd is the resolver that containers find at 127.0.0.11: it answers the names of their networks itself and
// hands everything else to upstream servers.
//
// Each container has sockets of its own, so who asks is known by the socket. What a container may see is a View, read
// anew for every query; the server keeps no state about names.
package dnsd

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// maxUDP is the largest query read from a UDP socket, in bytes.
const maxUDP = 4096

// Server answers queries on any number of socket pairs. Its methods may be called from any goroutine.
type Server struct {
	log     *slog.Logger
	forward *forwarder

	queries, failures atomic.Uint64

	mu      sync.Mutex
	clients map[string]*client
	held    bool // between Hold and Release
}

// Counts are the queries so far, and those of them that were answered with SERVFAIL or not at all.
func (s *Server) Counts() (queries, failures uint64) { return s.queries.Load(), s.failures.Load() }

// rcode is a packed message's response code (RFC 1035 section 4.1.1).
func rcode(raw []byte) int {
	if len(raw) < 4 {
		return dns.RcodeFormatError
	}
	return int(raw[3] & 0x0f)
}

// client is one container's pair of sockets.
type client struct {
	log  *slog.Logger
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	waiting []*dns.Server // not begun
	servers []*dns.Server
	closed  bool
}

// NewServer gives a Server that serves nobody yet.
func NewServer(log *slog.Logger) *Server {
	log = log.With("component", "dnsd")
	return &Server{log: log, forward: newForwarder(log), clients: map[string]*client{}}
}

// Add serves the two sockets, which are the Server's from now on, until Remove; either may be nil. view is called for
// each query, from many goroutines, and has to be quick. Sockets under an id that is already served replace the earlier
// ones.
func (s *Server) Add(id string, udp net.PacketConn, tcp net.Listener, view func() View) {
	s.Remove(id)
	ctx, stop := context.WithCancel(context.Background())
	c := &client{log: s.log, stop: stop}
	answer := func(w dns.ResponseWriter, req *dns.Msg) { s.answer(ctx, w, req, view()) }
	if udp != nil {
		if err := hold(udp); err != nil {
			s.log.Warn("few questions can wait while the daemon is restarted", "err", err)
		}
		c.waiting = append(c.waiting, &dns.Server{PacketConn: s.quicken(udp, view), UDPSize: maxUDP, Handler: dns.HandlerFunc(answer),
			// The library wakes up at each timeout to look around; a thousand idle containers should cost nothing.
			ReadTimeout: time.Hour})
	}
	if tcp != nil {
		c.waiting = append(c.waiting, &dns.Server{Listener: tcp, Handler: dns.HandlerFunc(answer)})
	}
	s.mu.Lock()
	s.clients[id] = c
	held := s.held
	s.mu.Unlock()
	if !held {
		c.begin()
	}
}

// Hold lets questions wait in their sockets, those of sockets to come included, until Release. Nobody is told meanwhile that
// a name does not exist that the server's owner has only not heard of yet.
func (s *Server) Hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = true
}

// Release answers what has waited since Hold, and all that comes.
func (s *Server) Release() {
	s.mu.Lock()
	s.held = false
	all := slices.Collect(maps.Values(s.clients))
	s.mu.Unlock()
	for _, c := range all {
		c.begin()
	}
}

// Remove closes the sockets of id and returns when no query of theirs is under way; unknown ids are no error. Queries
// that wait for an upstream are given up.
func (s *Server) Remove(id string) {
	s.mu.Lock()
	c := s.clients[id]
	delete(s.clients, id)
	s.mu.Unlock()
	if c != nil {
		c.close(0)
	}
}

// Close removes every id. Queries that are under way have patience to be answered: whoever keeps the sockets has those that
// come after, but nobody has these.
func (s *Server) Close() {
	s.mu.Lock()
	all := s.clients
	s.clients = map[string]*client{}
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, c := range all {
		wg.Go(func() { c.close(patience) })
	}
	wg.Wait()
}

// begin reads the sockets.
func (c *client) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	for _, srv := range c.waiting {
		c.serve(srv)
	}
	c.waiting = nil
}

// serve starts one server and returns when it reads, since one that has not started cannot be stopped.
func (c *client) serve(srv *dns.Server) {
	started := make(chan struct{})
	srv.NotifyStartedFunc = func() { close(started) }
	ended := make(chan struct{})
	c.wg.Go(func() {
		defer close(ended)
		if err := srv.ActivateAndServe(); err != nil && !errors.Is(err, net.ErrClosed) {
			c.log.Error("resolver socket failed", "err", err)
		}
	})
	select {
	case <-started:
		c.servers = append(c.servers, srv)
	case <-ended:
		closeSockets(srv)
	}
}

// close takes no more questions and gives up those that are not answered in time, open connections with them.
func (c *client) close(within time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	shutdown := func(srv *dns.Server) { _ = srv.Shutdown() } // the only error is that the server ended by itself
	if within == 0 {
		c.stop()
	}
	defer time.AfterFunc(within, func() {
		c.stop()
		for _, srv := range c.servers {
			shutdown(srv)
		}
	}).Stop()
	for _, srv := range c.servers {
		if srv.PacketConn != nil || within == 0 {
			shutdown(srv) // of TCP, it ends connections whose question has not been read yet
		}
		closeSockets(srv)
	}
	for _, srv := range c.waiting {
		closeSockets(srv)
	}
	c.wg.Wait()
	c.stop()
}

func closeSockets(srv *dns.Server) {
	if srv.PacketConn != nil {
		_ = srv.PacketConn.Close()
	}
	if srv.Listener != nil {
		_ = srv.Listener.Close()
	}
}

// answer decides who answers one query, and writes the answer.
func (s *Server) answer(ctx context.Context, w dns.ResponseWriter, req *dns.Msg, v View) {
	overTCP := w.RemoteAddr().Network() == "tcp"
	s.queries.Add(1)
	raw, err := s.resolve(ctx, req, v, overTCP)
	if err != nil || raw == nil || rcode(raw) == dns.RcodeServerFailure {
		s.failures.Add(1)
	}
	if err == nil && raw != nil {
		_, err = w.Write(raw)
	}
	if err != nil {
		// The asker is gone or will ask again; nobody here can do more.
		s.log.Debug("query unanswered", "err", err)
	}
}

// resolve gives the packed answer to a query; none when the client is being removed.
func (s *Server) resolve(ctx context.Context, req *dns.Msg, v View, overTCP bool) ([]byte, error) {
	switch {
	case req.Response || len(req.Question) != 1:
		return fit(reply(req, dns.RcodeFormatError, nil), req, overTCP)
	case req.Opcode != dns.OpcodeQuery:
		return fit(reply(req, dns.RcodeNotImplemented, nil), req, overTCP)
	}
	q := req.Question[0]
	if rrs, ok := v.local(q); ok {
		return fit(reply(req, dns.RcodeSuccess, rrs), req, overTCP)
	}
	if v.Beyond != nil {
		v.Upstreams, v.Ndots = v.Beyond()
	}
	if v.heldBack(q) {
		return fit(reply(req, dns.RcodeSuccess, nil), req, overTCP)
	}
	if v.Suffix != "" {
		return fit(reply(req, v.missing(q.Name), nil), req, overTCP)
	}
	if v.Internal && v.Dial == nil || len(v.Upstreams) == 0 {
		return fit(reply(req, dns.RcodeServerFailure, nil), req, overTCP)
	}
	raw, err := s.forward.exchange(ctx, req, v.Upstreams, v.Dial, overTCP)
	switch {
	case ctx.Err() != nil:
		return nil, nil
	case err != nil:
		s.log.Debug("no upstream answered", "name", q.Name, "err", err)
		return fit(reply(req, dns.RcodeServerFailure, nil), req, overTCP)
	case overTCP || len(raw) <= udpSize(req):
		return raw, nil
	}
	m := new(dns.Msg)
	if err := m.Unpack(raw); err != nil {
		return fit(reply(req, dns.RcodeServerFailure, nil), req, overTCP)
	}
	return fit(m, req, overTCP)
}

// fit packs a message, cut to what the asker takes over UDP; the TC bit sends it to TCP for the rest.
func fit(m, req *dns.Msg, overTCP bool) ([]byte, error) {
	if !overTCP {
		m.Truncate(udpSize(req))
	}
	return m.Pack()
}

// Package dnsd is the resolver that containers find at 127.0.0.11: it answers the names of their networks itself and
// hands everything else to upstream servers.
//
// Each container has sockets of its own, so who asks is known by the socket. What a container may see is a View, read
// anew for every query; the server keeps no state about names.
package dnsd

import (
	"context"
	"log/slog"
	"net"
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
	stop    context.CancelFunc
	servers []*dns.Server
	wg      sync.WaitGroup
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
	c := &client{stop: stop}
	answer := func(w dns.ResponseWriter, req *dns.Msg) { s.answer(ctx, w, req, view()) }
	if udp != nil {
		if err := hold(udp); err != nil {
			s.log.Warn("few questions can wait while the daemon is restarted", "err", err)
		}
		c.serve(s.log, &dns.Server{PacketConn: udp, UDPSize: maxUDP, Handler: dns.HandlerFunc(answer),
			// The library wakes up at each timeout to look around; a thousand idle containers should cost nothing.
			ReadTimeout: time.Hour})
	}
	if tcp != nil {
		c.serve(s.log, &dns.Server{Listener: tcp, Handler: dns.HandlerFunc(answer)})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients[id] = c
}

// Remove closes the sockets of id and returns when no query of theirs is under way; unknown ids are no error. Queries
// that wait for an upstream are given up.
func (s *Server) Remove(id string) {
	s.mu.Lock()
	c := s.clients[id]
	delete(s.clients, id)
	s.mu.Unlock()
	if c != nil {
		c.close()
	}
}

// Close removes every id.
func (s *Server) Close() {
	s.mu.Lock()
	all := s.clients
	s.clients = map[string]*client{}
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, c := range all {
		wg.Go(c.close)
	}
	wg.Wait()
}

// serve starts one server and returns when it reads, since one that has not started cannot be stopped.
func (c *client) serve(log *slog.Logger, srv *dns.Server) {
	started := make(chan struct{})
	srv.NotifyStartedFunc = func() { close(started) }
	ended := make(chan struct{})
	c.wg.Go(func() {
		defer close(ended)
		if err := srv.ActivateAndServe(); err != nil {
			log.Error("resolver socket failed", "err", err)
		}
	})
	select {
	case <-started:
		c.servers = append(c.servers, srv)
	case <-ended:
		closeSockets(srv)
	}
}

func (c *client) close() {
	c.stop()
	for _, srv := range c.servers {
		_ = srv.Shutdown() // the only error is that the server ended by itself
		closeSockets(srv)
	}
	c.wg.Wait()
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
	if v.Internal || len(v.Upstreams) == 0 {
		return fit(reply(req, dns.RcodeServerFailure, nil), req, overTCP)
	}
	raw, err := s.forward.exchange(ctx, req, v.Upstreams, overTCP)
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

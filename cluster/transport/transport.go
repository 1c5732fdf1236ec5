package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/identity"
)

// Protocol is the ALPN name of what a connection carries.
type Protocol string

// The protocols. Their numbers change when an old and a new host could not understand each other.
const (
	Gossip Protocol = "minictl-gossip/1"
	Raft   Protocol = "minictl-raft/1"
	RPC    Protocol = "minictl-rpc/1"
	Join   Protocol = "minictl-join/1"
	Rejoin Protocol = "minictl-rejoin/1" // for members from before a takeover, which can say nothing else
	Renew  Protocol = "minictl-renew/1"  // for members whose certificate is good no more: both ends go by each other's key alone
)

const (
	handshakeTimeout = 5 * time.Second
	// Handshakes cost the called side a signature; more at once than a whole cluster restarting are an attack.
	maxHandshakes = 256
)

// Peers is what a transport must know of the cluster's members.
type Peers interface {
	// Authorize refuses a node that is not a member, with a sentence for its operator, and, with ErrCopy, one that says it
	// listens at addr while the member of that ID is up at another address.
	Authorize(ctx context.Context, id string, addr netip.AddrPort) error
	// Address tells where a node listens.
	Address(id string) (netip.AddrPort, bool)
}

// ErrCopy says that a host has the key of a node that is up elsewhere.
var ErrCopy = errors.New("a copy of another node")

// Config describes a transport. None of its functions may block; those that are nil are not called.
type Config struct {
	Addr        netip.AddrPort // to listen on, TCP and UDP; port 0 picks one
	Credentials *identity.Credentials
	Fence       Fence
	Peers       Peers
	Log         *slog.Logger
	Wire        Wire             // nil: Kernel
	Now         func() time.Time // that certificates are checked by; nil: time.Now
	// Met is told of members of this cluster whose fence is not this host's, and where they say they listen.
	Met func(node string, theirs Fence, addr netip.AddrPort)
	// Untrusted is told of a dialled member that shows a certificate which this host does not accept, or does not accept
	// this host's; the name is empty if it was the other side that dialled.
	Untrusted func(node string)
	// Refused is told why a dialled host of this cluster does not take this one for a member, or takes it for a copy of one.
	Refused func(sentence string)
}

// Transport is a listening host's end of the cluster's connections.
type Transport struct {
	cfg       Config
	tcp       net.Listener
	udp       net.PacketConn
	listeners map[Protocol]*listener
	slots     chan struct{}
	done      chan struct{}
	wg        sync.WaitGroup

	cred   atomic.Pointer[identity.Credentials]
	fence  atomic.Pointer[Fence]
	mu     sync.Mutex
	conns  map[*Conn]struct{}
	raw    map[net.Conn]struct{} // in their handshake
	closed bool
}

// Conn is a connection whose other end has proved to be the node Peer; empty for a joining host.
type Conn struct {
	*tls.Conn
	Peer  string
	owner *Transport
}

// Close closes the connection and forgets it.
func (c *Conn) Close() error {
	if c.owner != nil {
		c.owner.mu.Lock()
		delete(c.owner.conns, c)
		c.owner.mu.Unlock()
	}
	return c.Conn.Close()
}

// Listen opens the port and starts to accept. Close ends what it started.
func Listen(ctx context.Context, cfg Config) (*Transport, error) {
	if cfg.Wire == nil {
		cfg.Wire = Kernel{}
	}
	tcp, udp, err := cfg.Wire.Listen(ctx, cfg.Addr)
	if err != nil {
		return nil, err
	}
	t := &Transport{
		cfg: cfg, tcp: tcp, udp: udp,
		listeners: map[Protocol]*listener{},
		slots:     make(chan struct{}, maxHandshakes),
		done:      make(chan struct{}),
		conns:     map[*Conn]struct{}{},
		raw:       map[net.Conn]struct{}{},
	}
	if t.cfg.Now == nil {
		t.cfg.Now = time.Now
	}
	t.cred.Store(cfg.Credentials)
	t.fence.Store(&cfg.Fence)
	for _, p := range []Protocol{Gossip, Raft, RPC, Join, Rejoin, Renew} {
		t.listeners[p] = newListener(tcp.Addr())
	}
	t.wg.Add(1)
	go t.accept()
	return t, nil
}

// SetCredentials replaces the certificate for all connections from now on; those that exist go on.
func (t *Transport) SetCredentials(c *identity.Credentials) { t.cred.Store(c) }

// Credentials are those in use.
func (t *Transport) Credentials() *identity.Credentials { return t.cred.Load() }

// SetFence replaces what this host knows of its cluster's past; the epoch stays the same as long as there is a Transport.
func (t *Transport) SetFence(f Fence) { t.fence.Store(&f) }

// Addr is where the transport listens.
func (t *Transport) Addr() netip.AddrPort { return t.tcp.Addr().(*net.TCPAddr).AddrPort() }

// Packets is the UDP socket. Close closes it.
func (t *Transport) Packets() net.PacketConn { return t.udp }

// Listener gives the connections of one protocol. They are *Conn.
func (t *Transport) Listener(p Protocol) net.Listener { return t.listeners[p] }

func (t *Transport) accept() {
	defer t.wg.Done()
	for {
		conn, err := t.tcp.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, most likely. The listener is still good.
			t.cfg.Log.Warn("accept cluster connection", "err", err)
			select {
			case <-time.After(100 * time.Millisecond):
				continue
			case <-t.done:
				return
			}
		}
		select {
		case t.slots <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		t.wg.Go(func() {
			defer func() { <-t.slots }()
			t.serve(conn)
		})
	}
}

// serve takes one connection through its handshake and hands it to its protocol's listener.
func (t *Transport) serve(conn net.Conn) {
	if !t.track(conn) {
		conn.Close()
		return
	}
	defer t.untrack(conn)
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	conn.SetDeadline(time.Now().Add(handshakeTimeout))
	setKeepAlive(conn)
	tc := tls.Server(conn, t.serverConfig())
	if err := tc.HandshakeContext(ctx); err != nil {
		// Anybody can open a connection; that is nothing an operator acts upon.
		t.cfg.Log.Debug("refused cluster connection", "remote", conn.RemoteAddr().String(), "err", err)
		conn.Close()
		t.untrusted("", "", err)
		return
	}
	state := tc.ConnectionState()
	c := &Conn{Conn: tc, owner: t}
	p := Protocol(state.NegotiatedProtocol)
	if p != Join {
		c.Peer, _ = identity.IDOf(state.PeerCertificates[0].PublicKey) // verified by the handshake
		if err := t.admit(ctx, c, p); err != nil {
			t.cfg.Log.Warn("refused cluster connection", "node", c.Peer, "remote", conn.RemoteAddr().String(), "err", err)
			conn.Close()
			return
		}
	}
	conn.SetDeadline(time.Time{})
	if !t.adopt(c) || !t.listeners[p].deliver(ctx, c) {
		c.Close()
	}
}

// admit checks fence and membership of a caller with a good certificate and answers it.
func (t *Transport) admit(ctx context.Context, c *Conn, p Protocol) error {
	var theirs hello
	if err := readFrame(c, &theirs); err != nil {
		return err
	}
	own := *t.fence.Load()
	relation, err, member := own.Compare(theirs.Fence), own.Check(theirs.Fence), false
	if relation != Foreign {
		unknown := t.cfg.Peers.Authorize(ctx, c.Peer, theirs.Addr)
		member = unknown == nil
		if !member || p == Renew || p == Rejoin && relation != Ahead {
			err = unknown
		}
		if !member && (relation == Behind || relation == Split) {
			err = fmt.Errorf("it is from before a takeover of this cluster (epoch %s, now %s), or from its other side, and nobody here knows it: if it joined there, it is let in as soon as a host that knows it has joined again; else %w",
				theirs.Epoch, own.Epoch, unknown)
		}
	}
	var a answer
	if err != nil {
		a.Refused = err.Error()
	}
	if member && err != nil {
		a.Fence, a.Addr = &own, t.Addr()
		t.met(c.Peer, theirs)
	}
	return errors.Join(err, writeFrame(c, a))
}

// met passes on that a member has another fence.
func (t *Transport) met(node string, theirs hello) {
	if own := *t.fence.Load(); t.cfg.Met != nil && own.Cluster == theirs.Cluster && own.Epoch != theirs.Epoch {
		t.cfg.Met(node, theirs.Fence, theirs.Addr)
	}
}

// Dial opens a connection to a member.
func (t *Transport) Dial(ctx context.Context, id string, p Protocol) (*Conn, error) {
	addr, ok := t.cfg.Peers.Address(id)
	if !ok {
		return nil, fmt.Errorf("dial node %s: no such member: %w", id, errdefs.ErrNotFound)
	}
	return t.DialAddr(ctx, id, addr.String(), p)
}

// DialAddr opens a connection to the node id, which is expected at addr.
func (t *Transport) DialAddr(ctx context.Context, id, addr string, p Protocol) (_ *Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	// From the advertised address: the other side's firewall may know no other.
	conn, err := t.cfg.Wire.Dial(ctx, t.cfg.Addr.Addr(), addr)
	if err != nil {
		return nil, fmt.Errorf("dial node %s: %w: %w", id, err, errdefs.ErrUnavailable)
	}
	setKeepAlive(conn)
	c := &Conn{Conn: tls.Client(conn, t.clientConfig(id, p)), Peer: id, owner: t}
	if err := c.HandshakeContext(ctx); err != nil {
		conn.Close()
		if err = otherRelease(p, err); !errdefs.IsNotImplemented(err) {
			t.untrusted(id, p, err)
		}
		return nil, fmt.Errorf("dial node %s at %s: %w: %w", id, addr, err, errdefs.ErrUnavailable)
	}
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	if err := t.introduce(c); err != nil {
		conn.Close()
		t.untrusted(id, p, err)
		return nil, fmt.Errorf("dial node %s at %s: %w", id, addr, err)
	}
	conn.SetDeadline(time.Time{})
	if !t.adopt(c) {
		conn.Close()
		return nil, fmt.Errorf("dial node %s: %w", id, net.ErrClosed)
	}
	return c, nil
}

// untrusted passes on that it was a certificate which a connection failed by. In TLS 1.3 the caller's own is refused after
// its handshake is done.
func (t *Transport) untrusted(id string, p Protocol, err error) {
	var theirs *tls.CertificateVerificationError
	var own *net.OpError
	if t.cfg.Untrusted != nil && p != Renew && (errors.As(err, &theirs) || errors.As(err, &own) && own.Op == "remote error") {
		t.cfg.Untrusted(id)
	}
}

func (t *Transport) introduce(c *Conn) error {
	if err := writeFrame(c, hello{*t.fence.Load(), t.Addr()}); err != nil {
		return err
	}
	var a answer
	if err := readFrame(c, &a); err != nil {
		return err
	}
	if a.Refused != "" {
		if a.Fence != nil {
			t.met(c.Peer, hello{*a.Fence, a.Addr})
			return fenced{fmt.Errorf("%s: %w", a.Refused, errdefs.ErrPermissionDenied)}
		}
		if t.cfg.Refused != nil {
			t.cfg.Refused(a.Refused)
		}
		return fmt.Errorf("%s: %w", a.Refused, errdefs.ErrPermissionDenied)
	}
	return nil
}

func (t *Transport) track(conn net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.raw[conn] = struct{}{}
	}
	return !t.closed
}

func (t *Transport) untrack(conn net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.raw, conn)
}

// adopt makes Close and Drop responsible for the connection.
func (t *Transport) adopt(c *Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.conns[c] = struct{}{}
	}
	return !t.closed
}

// Drop closes all connections with a node: it has left, or its host is dead and they would only time out.
func (t *Transport) Drop(id string) {
	t.mu.Lock()
	var drop []*Conn
	for c := range t.conns {
		if c.Peer == id {
			drop = append(drop, c)
		}
	}
	t.mu.Unlock()
	for _, c := range drop {
		c.NetConn().Close() // at once: a TLS close would wait to write its alert to a dead host
		c.Close()
	}
}

// Close closes the port and every connection and waits for what Listen started.
func (t *Transport) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	close(t.done)
	var conns []net.Conn
	for c := range t.conns {
		conns = append(conns, c.NetConn())
	}
	for c := range t.raw {
		conns = append(conns, c)
	}
	clear(t.conns)
	t.mu.Unlock()
	errs := []error{t.tcp.Close(), t.udp.Close()}
	for _, c := range slices.All(conns) {
		c.Close()
	}
	for _, l := range t.listeners {
		l.Close()
	}
	t.wg.Wait()
	for i, err := range errs {
		if errors.Is(err, net.ErrClosed) { // whoever reads the packets may have closed the socket first
			errs[i] = nil
		}
	}
	return errors.Join(errs...)
}

// setKeepAlive notices within seconds that a host has vanished without a word.
func setKeepAlive(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3})
	}
}

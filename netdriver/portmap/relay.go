package portmap

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Target says where a held port leads for those clients of IPv6 whose packets no rule leads to the container: from ::1,
// and to a container without IPv6. Between them and the container stands this process, so that the container sees the
// host's address, and connections end when the process does.
type Target struct {
	Proto    string // tcp or udp
	HostIP   netip.Addr
	HostPort uint16 // both as they were reserved
	To       netip.AddrPort
}

const (
	dialTimeout = 10 * time.Second // for a container that takes no connection
	backlog     = 128              // of connections not yet accepted, for each port
)

// relay carries what arrives at held sockets. One goroutine waits for all of them, however many ports there are.
type relay struct {
	mu    sync.Mutex
	poll  *os.File         // an epoll instance (epoll(7)); nil until the first port needs it
	doors map[socket]*door // every socket that is listened to
}

// door is a held socket that is listened to. Its lock is the relay's.
type door struct {
	sock  socket
	proto string
	owner string
	to    netip.AddrPort
	open  map[net.Conn]bool // what goes through it now
	udp   map[udpClient]*udpFlow
}

// Relay states every target of an owner, in place of those stated before; none removes them, and ends what goes through
// them. A port that nobody holds, as one that a foreign process took while this one was away, is passed over.
func (a *Allocator) Relay(owner string, targets []Target) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := &a.relay
	r.mu.Lock()
	defer r.mu.Unlock()
	want := map[socket]Target{}
	for _, t := range targets {
		for _, c := range a.held[slot{t.Proto, t.HostPort}] {
			if c.ip == t.HostIP {
				for _, s := range c.socks {
					want[s] = t
				}
			}
		}
	}
	for s, d := range r.doors {
		if t, ok := want[s]; d.owner == owner && (!ok || t.To != d.to) {
			if err := errors.Join(r.close(d), a.bind.silence(d.proto, s)); err != nil {
				return fmt.Errorf("no longer relay port %d: %w", d.to.Port(), err)
			}
		}
	}
	for s, t := range want {
		if r.doors[s] != nil {
			continue
		}
		if err := r.listen(s, owner, t); err != nil {
			return fmt.Errorf("relay port %s: %w", show(t.HostIP, t.HostPort), err)
		}
	}
	return nil
}

// listen makes a held socket a door.
func (r *relay) listen(s socket, owner string, t Target) error {
	if err := r.start(); err != nil {
		return err
	}
	if err := hear(s, t.Proto); err != nil {
		return err
	}
	d := &door{sock: s, proto: t.Proto, owner: owner, to: t.To, open: map[net.Conn]bool{}}
	if err := r.control(unix.EPOLL_CTL_ADD, s); err != nil {
		return err
	}
	r.doors[s] = d
	return nil
}

// hear undoes what made a socket deaf.
func hear(s socket, proto string) error {
	if err := unix.SetNonblock(int(s), true); err != nil {
		return err
	}
	if proto == "tcp" {
		// As in bind: connections in TIME_WAIT do not matter, and nobody can share a port that is listened to.
		if err := unix.SetsockoptInt(int(s), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
		return unix.Listen(int(s), backlog)
	}
	// Answers leave by the address that was asked.
	if err := unix.SetsockoptInt(int(s), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1); err != nil {
		return err
	}
	return unix.SetsockoptInt(int(s), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
}

// silence makes a socket deaf again.
func (b *binder) silence(proto string, s socket) error {
	if proto == "tcp" {
		if err := unix.Shutdown(int(s), unix.SHUT_RD); err != nil {
			return err
		}
		return unix.SetsockoptInt(int(s), unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
	}
	return b.deafen(int(s))
}

// start makes the epoll instance and the goroutine that waits on it for as long as this process lives.
func (r *relay) start() error {
	if r.poll != nil {
		return nil
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // it is waited for as files are, without a thread of its own
		return errors.Join(err, unix.Close(fd))
	}
	r.poll, r.doors = os.NewFile(uintptr(fd), "epoll"), map[socket]*door{}
	go r.wait(r.poll)
	return nil
}

func (r *relay) control(op int, s socket) error {
	raw, err := r.poll.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.EpollCtl(int(fd), op, int(s), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s)})
	})
	return errors.Join(err, failed)
}

// wait takes in what has arrived, door by door.
func (r *relay) wait(poll *os.File) {
	raw, err := poll.SyscallConn()
	events := make([]unix.EpollEvent, 64)
	for err == nil {
		n := 0
		err = raw.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), events, 0) // it fails on bad arguments alone
			return n > 0
		})
		for _, e := range events[:max(n, 0)] {
			r.take(socket(e.Fd))
		}
	}
}

// take takes one connection, or a few datagrams, in at a door; epoll tells again of what is left.
func (r *relay) take(s socket) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.doors[s]
	switch {
	case d == nil: // it was closed meanwhile
	case d.proto == "udp":
		r.takeDatagrams(d)
	default:
		fd, from, err := unix.Accept4(int(s), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		c, err := fileConn(fd)
		if err != nil {
			return
		}
		if a, ok := from.(*unix.SockaddrInet6); !ok || netip.AddrFrom16(a.Addr).Is4In6() {
			reset(c) // rules lead those of IPv4: without them nothing of theirs shall arrive
			return
		}
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetKeepAlive(true) // a client that vanished is not waited for
		}
		d.open[c] = true
		go r.carry(d, c)
	}
}

// fileConn makes a connection of a descriptor, which is its own from then on.
func fileConn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "relayed")
	defer f.Close()
	return net.FileConn(f)
}

// carry leads a connection to the container and back, until both sides are done or the door is closed.
func (r *relay) carry(d *door, client net.Conn) {
	there, err := net.DialTimeout("tcp", d.to.String(), dialTimeout)
	if err != nil || !r.note(d, there) {
		reset(client)
		r.forget(d, client, there)
		return
	}
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{there, client}, {client, there}} {
		wg.Go(func() {
			to, ok1 := way[0].(*net.TCPConn)
			from, ok2 := way[1].(*net.TCPConn)
			if !ok1 || !ok2 {
				return
			}
			if _, err := to.ReadFrom(from); err != nil { // one side is lost: so is the other
				reset(client)
				reset(there)
				return
			}
			_ = to.CloseWrite() // fails if it is closed already
		})
	}
	wg.Wait()
	r.forget(d, client, there)
}

// reset ends a connection so that the other end sees that something is wrong.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

// note adds a connection to those that end with the door; false: it is closed already.
func (r *relay) note(d *door, c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.doors[d.sock] != d {
		return false
	}
	d.open[c] = true
	return true
}

// forget closes connections that are done with.
func (r *relay) forget(d *door, conns ...net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		if c != nil {
			_ = c.Close()
			delete(d.open, c)
		}
	}
}

// close ends everything that goes through a door, and the door. The lock is held.
func (r *relay) close(d *door) error {
	delete(r.doors, d.sock)
	for c := range d.open {
		reset(c)
	}
	return r.control(unix.EPOLL_CTL_DEL, d.sock)
}

// drop closes the doors among sockets that are about to be given up.
func (r *relay) drop(socks []socket) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range socks {
		if d := r.doors[s]; d != nil {
			_ = r.close(d) // the socket goes, and takes its place in epoll along
		}
	}
}

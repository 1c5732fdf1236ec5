package portmap

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// socket is a descriptor that keeps a port from others. Ten thousand of them shall cost no more than the kernel's own
// share, so they are not Go's connections, which bring a poller's record and a filter each.
type socket int

// Close gives the port up.
func (s socket) Close() error { return unix.Close(int(s)) }

// binder makes sockets.
type binder struct {
	deaf    *ebpf.Program // throws everything away; nil: this kernel gives us none to share
	checked bool
}

// hold binds what keeps a port from others. Every address means both families, in one socket; but a host without IPv6,
// or with a process that serves this port on IPv6 only, is no reason to refuse.
func (b *binder) hold(proto string, ip netip.Addr, port uint16) ([]socket, error) {
	if ip.IsValid() {
		s, err := b.bind(proto, ip, port, true)
		return list(s, err)
	}
	s, err := b.bind(proto, netip.IPv6Unspecified(), port, false)
	if err != nil {
		s, err = b.bind(proto, netip.IPv4Unspecified(), port, true)
	}
	return list(s, err)
}

func list(s socket, err error) ([]socket, error) {
	if err != nil || s < 0 {
		return nil, err
	}
	return []socket{s}, nil
}

// bind takes one address and port. A kernel without SCTP has no process that could take the port either: it gives -1.
//
// For TCP, SO_REUSEADDR keeps a connection in TIME_WAIT from refusing the port for a minute. It also lets sockets share a
// port that only bind it, so that who is first shows at listen alone.
func (b *binder) bind(proto string, ip netip.Addr, port uint16, only bool) (socket, error) {
	kind, number := unix.SOCK_STREAM, unix.IPPROTO_TCP
	switch proto {
	case "udp":
		kind, number = unix.SOCK_DGRAM, unix.IPPROTO_UDP
	case "sctp":
		number = unix.IPPROTO_SCTP
	}
	ip = ip.Unmap()
	domain, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(port), Addr: ip.As16()})
	if ip.Is4() {
		domain, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(port), Addr: ip.As4()}
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, number)
	if proto == "sctp" && (errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT)) {
		return -1, nil
	}
	if errors.Is(err, unix.EMFILE) {
		return -1, fmt.Errorf("the daemon may have no more open files, of which each port takes one: raise its limit (LimitNOFILE): %w", err)
	}
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if domain == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, map[bool]int{true: 1}[only])
	}
	if err == nil && proto == "tcp" {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil && proto == "udp" {
		err = b.deafen(fd)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil && proto == "tcp" {
		err = retire(fd)
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("bind: %w", err), unix.Close(fd))
	}
	return socket(fd), nil
}

// retire proves at listen that a TCP socket's port is free, and stops listening: a client that comes past the rules is
// refused at once, and goes on to the host's other address family. The explicit bind survives that, and without
// SO_REUSEADDR it is shared with nobody.
func retire(fd int) error {
	if err := unix.Listen(fd, 0); err != nil {
		return err
	}
	if err := unix.Shutdown(fd, unix.SHUT_RD); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
}

// deafen makes the kernel throw away everything that arrives at a socket: nobody reads from it. The sockets share one
// program; a classic filter, of which each would have a copy, does where BPF is not to be had.
func (b *binder) deafen(fd int) error {
	if !b.checked {
		b.checked = true
		spec := &ebpf.ProgramSpec{Name: "minictl_deaf", Type: ebpf.SocketFilter, License: "MIT",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}}
		if prog, err := ebpf.NewProgram(spec); err == nil {
			b.deaf = prog
		}
	}
	if b.deaf != nil && unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, b.deaf.FD()) == nil {
		return nil
	}
	nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	prog := unix.SockFprog{Len: uint16(len(nothing)), Filter: &nothing[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	return nil
}

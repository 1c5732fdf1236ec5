package portmap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// hold binds what keeps a port from others.
func hold(proto string, ip netip.Addr, port uint16) ([]io.Closer, error) {
	if ip.IsValid() {
		s, err := bind(proto, ip, port)
		if err != nil {
			return nil, err
		}
		return []io.Closer{s}, nil
	}
	v4, err := bind(proto, netip.IPv4Unspecified(), port)
	if err != nil {
		return nil, err
	}
	socks := []io.Closer{v4}
	// Every address means IPv6 too, but a host without it, or with a process that serves this port on IPv6 only, is no
	// reason to refuse.
	if v6, err := bindOnly(proto, netip.IPv6Unspecified(), port); err == nil {
		socks = append(socks, v6)
	}
	return socks, nil
}

// bind takes one address and port. TCP listens: a socket that is only bound with SO_REUSEADDR can be shared by the next
// one that asks, and without SO_REUSEADDR a connection in TIME_WAIT would refuse the port for a minute.
func bind(proto string, ip netip.Addr, port uint16) (io.Closer, error) {
	ip = ip.Unmap()
	at := netip.AddrPortFrom(ip, port).String()
	family := "4"
	if ip.Is6() {
		family = "6"
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = deafen(int(fd)) }), err)
	}}
	// MPTCP listeners answer to another protocol number than the plain ones next to them.
	lc.SetMultipathTCP(false)
	switch proto {
	case "tcp":
		return lc.Listen(context.Background(), "tcp"+family, at)
	case "udp":
		return lc.ListenPacket(context.Background(), "udp"+family, at)
	}
	s, err := bindOnly(proto, ip, port)
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT) {
		// A kernel without SCTP has no process that could take the port either.
		return io.NopCloser(nil), nil
	}
	return s, err
}

// bindOnly takes an address and port without listening there, so that a client is refused at once and goes on to the
// host's other address family instead of waiting.
func bindOnly(proto string, ip netip.Addr, port uint16) (io.Closer, error) {
	kind, number := unix.SOCK_STREAM, unix.IPPROTO_TCP
	switch proto {
	case "udp":
		kind, number = unix.SOCK_DGRAM, unix.IPPROTO_UDP
	case "sctp":
		number = unix.IPPROTO_SCTP
	}
	domain, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(port), Addr: ip.As16()})
	if ip.Is4() {
		domain, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(port), Addr: ip.As4()}
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, number)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "held port")
	if ip.Is6() {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil && proto == "udp" {
		err = deafen(fd)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bind: %w", err), f.Close())
	}
	return f, nil
}

// deafen makes the kernel throw away everything that arrives at a socket: nobody reads from it.
func deafen(fd int) error {
	nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	prog := unix.SockFprog{Len: uint16(len(nothing)), Filter: &nothing[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	return nil
}

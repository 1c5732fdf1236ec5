package dnsd

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// backlog is how many bytes of questions a container's socket holds while nobody reads it: a daemon that is restarted takes
// over what has come meanwhile. A resolver asks for five seconds before it gives up (resolv.conf(5)), so older questions are
// of no use; five seconds of a thousand a second, each of which the kernel counts with 768 bytes (a buffer of 512 and its
// description), are just under 4 MiB. The kernel's own default, 208 KiB, is full after a quarter of a second. It is a
// bound, not a reservation: memory is used by questions that wait.
//
// TCP needs nothing of the kind: net listens with the system's largest backlog, 4096 connections (net.core.somaxconn), and
// each holds its own question.
const backlog = 4 << 20

// hold makes room for what waits while nobody reads. The usual bound of a socket's buffer, net.core.rmem_max, is for those
// who may not change it (SO_RCVBUFFORCE in socket(7)); the kernel doubles what it is told, for its descriptions.
func hold(udp net.PacketConn) error {
	c, ok := udp.(*net.UDPConn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("make room for waiting questions: %w", err)
	}
	var set error
	if err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, backlog/2)
	}); err == nil {
		err = set
	}
	if err != nil {
		return fmt.Errorf("make room for waiting questions: %w", err)
	}
	return nil
}

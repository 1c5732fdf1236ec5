package nl

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Conn is an rtnetlink socket of one network namespace. It may be used by several goroutines, from any thread.
type Conn struct {
	h    *netlink.Handle
	path string // of the namespace; "" for the one the opener's thread was in
}

// Here opens a Conn to the calling thread's namespace.
func Here() (*Conn, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink socket: %w", err)
	}
	return &Conn{h: h}, nil
}

// At opens a Conn to the namespace whose file is at path. ErrNotFound if there is none.
func At(path string) (*Conn, error) {
	var c *Conn
	err := Enter(path, func() (err error) {
		c, err = Here()
		return err
	})
	if err != nil {
		return nil, err
	}
	c.path = path
	return c, nil
}

// Close closes the socket.
func (c *Conn) Close() { c.h.Close() }

// Do runs fn on a thread that is inside the Conn's namespace. A Conn made by Here runs it on the calling thread, which
// has to be the opener's namespace still.
func (c *Conn) Do(fn func() error) error {
	if c.path == "" {
		return fn()
	}
	return Enter(c.path, fn)
}

// NSID tells the number by which the Conn's namespace knows the one at path (Link.PeerNS speaks of it), -1 if it has
// none.
func (c *Conn) NSID(path string) (int, error) {
	f, err := openNS(path)
	if err != nil {
		return -1, err
	}
	defer f.Close()
	id, err := c.h.GetNetNsIdByFd(int(f.Fd()))
	if err != nil {
		return -1, fmt.Errorf("look up the id of network namespace %s: %w", path, err)
	}
	return id, nil
}

// dumpTries bounds the repeats of an interrupted dump: somebody who changes links without end must not hold us.
const dumpTries = 20

// dump repeats a listing until the kernel gives one in a single piece.
func dump[T any](list func() (T, error)) (T, error) {
	for range dumpTries - 1 {
		got, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return got, err
		}
	}
	return list()
}

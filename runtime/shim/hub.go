package shim

import (
	"encoding/binary"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/runtime/logs"
)

// frameHeader is the length of docker's multiplexing header: stream number, three
// zeros, payload length (big endian).
const frameHeader = 8

// hub hands output to the attached clients. Each gets everything from its attach
// on; the slowest one sets the pace.
type hub struct {
	raw bool // TTY: no frames

	mu      sync.Mutex
	clients map[*client]struct{}
	ended   bool
}

// client is one attached connection.
type client struct {
	conn           *net.UnixConn
	stdout, stderr bool

	mu   sync.Mutex // one frame at a time
	gone chan struct{}
	once sync.Once
}

func newHub(raw bool) *hub { return &hub{raw: raw, clients: map[*client]struct{}{}} }

// admit answers a client and attaches it, in one step: its first byte of output comes after the answer, and output made
// after the answer is not lost. When the output has already ended, it gets its end at once.
func (h *hub) admit(c *client, answer func() error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := answer(); err != nil {
		return err
	}
	if h.ended {
		c.finish()
		return nil
	}
	h.clients[c] = struct{}{}
	return nil
}

func (h *hub) remove(c *client) {
	h.mu.Lock()
	delete(h.clients, c)
	h.mu.Unlock()
	c.finish()
}

// send writes a chunk to all clients that want its stream. The chunk begins with
// frameHeader bytes of room.
func (h *hub) send(stream string, chunk []byte) {
	number := byte(1)
	if stream == logs.Stderr {
		number = 2
	}
	chunk[0], chunk[1], chunk[2], chunk[3] = number, 0, 0, 0
	binary.BigEndian.PutUint32(chunk[4:], uint32(len(chunk)-frameHeader))
	if h.raw {
		chunk = chunk[frameHeader:]
	}
	for _, c := range h.wanting(number) {
		c.mu.Lock()
		_, err := c.conn.Write(chunk)
		c.mu.Unlock()
		if err != nil {
			h.remove(c)
		}
	}
}

func (h *hub) wanting(number byte) []*client {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []*client
	for c := range h.clients {
		if number == 1 && c.stdout || number == 2 && c.stderr {
			out = append(out, c)
		}
	}
	return out
}

// end tells all clients, present and future, that no more output comes.
func (h *hub) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	for c := range h.clients {
		c.finish()
	}
	clear(h.clients)
}

// cut closes the connections of clients that do not read, so that writes to them return.
func (h *hub) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.clients {
		_ = c.conn.SetWriteDeadline(time.Now())
	}
}

// sweep removes clients that have closed their connection for good. One that only
// ended its input still reads, and reading cannot tell the two apart; poll can.
func (h *hub) sweep() {
	h.mu.Lock()
	var dead []*client
	for c := range h.clients {
		if hungUp(c.conn) {
			dead = append(dead, c)
		}
	}
	h.mu.Unlock()
	for _, c := range dead {
		h.remove(c)
	}
}

func hungUp(c *net.UnixConn) (hup bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}} // POLLHUP is always reported
		n, _ := unix.Poll(p, 0)
		hup = n > 0 && p[0].Revents&unix.POLLHUP != 0
	})
	return hup || err != nil
}

// finish ends the output towards a client; what was written before still reaches it.
func (c *client) finish() {
	c.once.Do(func() {
		_ = c.conn.CloseWrite()
		close(c.gone)
	})
}

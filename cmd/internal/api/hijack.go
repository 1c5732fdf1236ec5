package api

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/api/types"
	"golang.org/x/sys/unix"
)

// Frame types of the multiplexed stream: the first byte of its 8-byte header.
const (
	stdoutFrame = 1
	stderrFrame = 2
)

// frame puts text into one frame; with a TTY there are none.
func frame(tty bool, kind byte, text string) []byte {
	if tty {
		return []byte(text)
	}
	head := make([]byte, 8, 8+len(text))
	head[0] = kind
	binary.BigEndian.PutUint32(head[4:], uint32(len(text)))
	return append(head, text...)
}

// hijacked is a connection taken over from net/http.
type hijacked struct {
	net.Conn
	in io.Reader // starts with what net/http had read ahead
}

// hijack answers 101, or to clients that did not ask for an upgrade the older plain 200, and gives the connection.
func hijack(w http.ResponseWriter, c *call, contentType string) (*hijacked, error) {
	upgrade := c.Header.Get("Upgrade") != ""
	header := w.Header().Clone()
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over connection: %w", err)
	}
	if rec, ok := w.(*recorder); ok {
		rec.begun = true // net/http has no answer to give any more
	}
	_ = conn.SetDeadline(time.Time{})
	status := "HTTP/1.1 200 OK\r\n"
	if upgrade {
		status = "HTTP/1.1 101 UPGRADED\r\n"
		header.Set("Connection", "Upgrade")
		header.Set("Upgrade", "tcp")
	} else {
		contentType = types.MediaTypeRawStream
	}
	header.Set("Content-Type", contentType)
	_, _ = buf.WriteString(status)
	_ = header.Write(buf)
	_, _ = buf.WriteString("\r\n")
	if err := buf.Flush(); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("answer upgrade: %w", err)
	}
	return &hijacked{Conn: conn, in: buf.Reader}, nil
}

// drainTime is how long the client may take to end its side after the last output. Closing with unread input would
// make the kernel reset the connection, and the client's read of a clean end fail.
const drainTime = 2 * time.Second

// hangupCheck is how often a connection is asked whether its other end has gone.
const hangupCheck = time.Second

// pump copies both ways until the output ends, the client goes, or ctx ends; then both are closed. The client's
// half-close ends stdin alone: output flows on.
func (h *hijacked) pump(ctx context.Context, s Stream, stdin bool) {
	closeStream := sync.OnceFunc(func() { _ = s.Close() })
	stop := context.AfterFunc(ctx, func() { closeStream(); _ = h.Close() })
	defer stop()
	done := make(chan struct{})
	var helpers sync.WaitGroup
	helpers.Go(func() { h.watchHangup(done, closeStream) })
	helpers.Go(func() {
		h.copyInput(s, stdin)
		if hungUp(h.Conn) {
			closeStream() // no need to wait for the watcher
		}
		if stdin {
			_ = s.CloseWrite()
		}
	})
	_, _ = io.Copy(h.Conn, s)
	close(done)
	closeStream()
	if half, ok := h.Conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_ = h.SetReadDeadline(time.Now().Add(drainTime))
	} else {
		_ = h.Close()
	}
	helpers.Wait()
	_ = h.Close()
}

// copyInput reads until the client's half-close, and gives it to s if that is what the client is for.
func (h *hijacked) copyInput(s Stream, stdin bool) {
	if stdin {
		_, _ = io.Copy(struct{ io.Writer }{s}, h.in)
	}
	_, _ = io.Copy(io.Discard, h.in) // the process may have closed its stdin; the client may go on typing
}

// watchHangup runs until done, and calls gone when the client has left altogether. A read cannot tell that from a
// half-close, and does not even happen while the process lets its stdin fill up or has not been started.
func (h *hijacked) watchHangup(done <-chan struct{}, gone func()) {
	tick := time.NewTicker(hangupCheck)
	defer tick.Stop()
	for !hungUp(h.Conn) {
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
	gone()
}

// hungUp asks the kernel. On a unix socket POLLHUP means that the peer closed both ways (unix_poll); on TCP it comes
// once something written was answered with a reset.
func hungUp(conn net.Conn) bool {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(fds, 0)
		gone = err == nil && n > 0 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	return gone || err != nil
}

// flush sends what is written so far. An error means that the client is gone, which the next write finds as well.
func flush(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }

// flushWriter sends each write at once, and remembers whether any was made.
type flushWriter struct {
	w     http.ResponseWriter
	begun bool
}

// begin sends the header if nothing else has.
func (f *flushWriter) begin() {
	if f.begun {
		return
	}
	f.begun = true
	f.w.WriteHeader(http.StatusOK)
	flush(f.w)
}

// Write sends b at once: what streams is watched.
func (f *flushWriter) Write(b []byte) (int, error) {
	f.begun = true
	n, err := f.w.Write(b)
	flush(f.w)
	return n, err
}

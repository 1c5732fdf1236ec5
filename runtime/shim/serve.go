package shim

import (
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/minictl/minictl/runtime/shim/wire"
)

// requestTimeout bounds how long a connection may take to say what it wants.
const requestTimeout = 5 * time.Second

func (s *stdio) accept() {
	for {
		c, err := s.listener.AcceptUnix()
		if err != nil {
			return // closed
		}
		go s.serve(c)
	}
}

// serve answers one connection.
func (s *stdio) serve(c *net.UnixConn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(requestTimeout))
	r, files, err := wire.ReadRequest(c)
	if err != nil {
		_ = wire.Send(c, wire.Reply{Error: err.Error()}, nil)
		return
	}
	switch r.Op {
	case wire.OpAttach:
		s.attach(c, r)
	case wire.OpPut:
		s.fds.put(r.Name, files)
		_ = wire.Send(c, wire.Reply{}, nil)
	case wire.OpGet:
		s.fds.send(c, r.Name)
	}
}

// attach is the container's stdio for one client until both directions end.
func (s *stdio) attach(c *net.UnixConn, r wire.Request) {
	cl := &client{conn: c, stdout: r.Stdout, stderr: r.Stderr, gone: make(chan struct{})}
	s.hub.sweep()
	if err := s.hub.admit(cl, func() error { return wire.Send(c, wire.Reply{}, nil) }); err != nil {
		return
	}
	_ = c.SetDeadline(time.Time{})
	defer s.hub.remove(cl)

	left := make(chan struct{})
	go func() {
		defer close(left)
		s.readClient(c, r.Stdin)
	}()
	select {
	case <-cl.gone: // output has ended: the client closes when it has read it all
	case <-left:
		// The input has ended. A client that only closed its writing half still
		// reads; one that is gone is noticed by the next write or attach.
		<-cl.gone
	}
}

// readClient takes a client's bytes: the container's input, or nothing.
func (s *stdio) readClient(c *net.UnixConn, stdin bool) {
	if s.input == nil || !stdin {
		_, _ = discard(c)
		return
	}
	s.input.copyFrom(c)
	// docker closes the input of a container made with --interactive when the
	// client that ran it leaves, never that of a terminal.
	if s.opts.StdinOnce && !s.opts.TTY {
		s.input.finish()
	}
}

// discard reads and forgets, to notice that a client has closed.
func discard(c *net.UnixConn) (n int64, err error) {
	var buf [512]byte
	for err == nil {
		var k int
		k, err = c.Read(buf[:])
		n += int64(k)
	}
	return n, err
}

// fdStore keeps descriptors by name.
type fdStore struct {
	mu    sync.Mutex
	files map[string][]*os.File
}

func newFDStore() *fdStore { return &fdStore{files: map[string][]*os.File{}} }

// put replaces what is stored under name and owns files from then on.
func (st *fdStore) put(name string, files []*os.File) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, f := range st.files[name] {
		f.Close()
	}
	if len(files) == 0 {
		delete(st.files, name)
		return
	}
	st.files[name] = files
}

// send answers a get.
func (st *fdStore) send(c *net.UnixConn, name string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	files := st.files[name]
	if files == nil {
		_ = wire.Send(c, wire.Reply{NotFound: true, Error: fmt.Sprintf("no descriptors named %q", name)}, nil)
		return
	}
	_ = wire.Send(c, wire.Reply{FDs: len(files)}, files)
}

func (st *fdStore) close() {
	st.mu.Lock()
	defer st.mu.Unlock()
	for name, files := range st.files {
		for _, f := range files {
			f.Close()
		}
		delete(st.files, name)
	}
}

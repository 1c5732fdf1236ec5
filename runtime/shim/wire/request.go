package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
)

// Operations of a Request.
const (
	// OpAttach turns the connection into the container's stdio.
	OpAttach = "attach"
	// OpPut stores the file descriptors sent along under Name, replacing older ones; none deletes.
	OpPut = "put"
	// OpGet answers with the descriptors stored under Name; they stay stored.
	OpGet = "get"
)

// maxLine bounds a request or reply; maxFDs is the kernel's limit per message (SCM_MAX_FD).
const (
	maxLine = 4096
	maxFDs  = 253
)

// Request is what a connection asks.
type Request struct {
	Op   string `json:"op"`
	Name string `json:"name,omitempty"` // put, get
	FDs  int    `json:"fds,omitempty"`  // put: how many come along
	// attach: which streams the client wants.
	Stdin  bool `json:"stdin,omitempty"`
	Stdout bool `json:"stdout,omitempty"`
	Stderr bool `json:"stderr,omitempty"`
}

// Reply answers a Request.
type Reply struct {
	Error string `json:"error,omitempty"`
	// NotFound: the error is that nothing is stored under the name.
	NotFound bool `json:"not_found,omitempty"`
	FDs      int  `json:"fds,omitempty"` // get: how many come along
}

// parseRequest checks what came from outside.
func parseRequest(line []byte) (Request, error) {
	var r Request
	if err := json.Unmarshal(line, &r); err != nil {
		return Request{}, fmt.Errorf("read request: %w", err)
	}
	switch {
	case r.Op != OpAttach && r.Op != OpPut && r.Op != OpGet:
		return Request{}, fmt.Errorf("read request: unknown operation %q", r.Op)
	case r.Op != OpAttach && (r.Name == "" || len(r.Name) > 255):
		return Request{}, fmt.Errorf("read request: %s needs a name of at most 255 bytes", r.Op)
	case r.FDs < 0 || r.FDs > maxFDs:
		return Request{}, fmt.Errorf("read request: %d descriptors, not 0 to %d", r.FDs, maxFDs)
	}
	return r, nil
}

// ReadRequest reads the one request of a connection with its descriptors, which
// the caller owns then. It reads nothing behind the line.
func ReadRequest(c *net.UnixConn) (Request, []*os.File, error) {
	line, files, err := readLine(c)
	if err != nil {
		return Request{}, nil, err
	}
	r, err := parseRequest(line)
	if err == nil && r.FDs != len(files) {
		err = fmt.Errorf("read request: %d descriptors announced, %d came", r.FDs, len(files))
	}
	if err != nil {
		closeAll(files)
		return Request{}, nil, err
	}
	return r, files, nil
}

// Send writes a request or reply as one message, with files if any.
func Send(c *net.UnixConn, msg any, files []*os.File) error {
	b, err := json.Marshal(msg)
	if err != nil {
		return err
	}
	fds := make([]int, 0, len(files))
	for _, f := range files {
		// Not f.Fd: that makes the descriptor blocking, for its other owners too.
		raw, err := f.SyscallConn()
		if err != nil {
			return err
		}
		if err := raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) }); err != nil {
			return err
		}
	}
	var oob []byte
	if len(fds) > 0 {
		oob = syscall.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(append(b, '\n'), oob, nil)
	runtime.KeepAlive(files)
	return err
}

// readLine reads up to a newline, which ends a message of its own: the peer
// sends nothing more before it has our answer. The kernel never merges a
// message that carries descriptors with the following one.
func readLine(c *net.UnixConn) ([]byte, []*os.File, error) {
	var (
		line  []byte
		files []*os.File
		buf   = make([]byte, maxLine)
		oob   = make([]byte, syscall.CmsgSpace(4*maxFDs))
	)
	for !bytes.HasSuffix(line, []byte{'\n'}) {
		n, on, flags, _, err := c.ReadMsgUnix(buf, oob)
		more, perr := parseRights(oob[:on])
		files = append(files, more...)
		switch {
		case err != nil:
		case perr != nil:
			err = perr
		case n == 0:
			err = errors.New("connection closed before a whole line")
		case len(line)+n > maxLine:
			err = fmt.Errorf("line longer than %d bytes", maxLine)
		case flags&syscall.MSG_CTRUNC != 0:
			err = errors.New("descriptors were cut off")
		}
		if err != nil {
			closeAll(files)
			return nil, nil, fmt.Errorf("read message: %w", err)
		}
		line = append(line, buf[:n]...)
	}
	return line, files, nil
}

// parseRights takes the descriptors out of a control message.
func parseRights(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range msgs {
		fds, err := syscall.ParseUnixRights(&m)
		if err != nil {
			continue // another kind of message
		}
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

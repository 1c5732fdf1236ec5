package ctrd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/minictl/minictl/runtime/shim/wire"
)

// Stream is a process's stdio. Read gives raw bytes with a TTY, else docker's
// multiplexed frames, and io.EOF after the last; Write is the process's stdin.
type Stream interface {
	io.ReadWriteCloser
	// CloseWrite ends the input towards the process.
	CloseWrite() error
}

// AttachOptions choose the streams.
type AttachOptions struct{ Stdin, Stdout, Stderr bool }

// Attach connects to the container's stdio. After NewTask and before Start it
// misses nothing; several clients may be attached, and the slowest sets the pace.
func (t *Task) Attach(ctx context.Context, o AttachOptions) (Stream, error) {
	c, err := wire.Attach(ctx, t.socket, o.Stdin, o.Stdout, o.Stderr)
	if err != nil {
		return nil, fmt.Errorf("attach to container: %w", err)
	}
	return attached{c}, nil
}

// attached is a Stream through the shim.
type attached struct{ *wire.Conn }

// Read implements io.Reader. A shim that closes with input unread resets the
// connection, after all its output: that is the end, too.
func (a attached) Read(p []byte) (int, error) {
	n, err := a.Conn.Read(p)
	if errors.Is(err, syscall.ECONNRESET) {
		err = io.EOF
	}
	return n, err
}

// StoreFDs keeps files in the container's shim, where they outlive the daemon;
// none deletes. The caller's own stay open.
func (t *Task) StoreFDs(ctx context.Context, name string, files []*os.File) error {
	return wire.Put(ctx, t.socket, name, files)
}

// LoadFDs gives what StoreFDs stored, in its order; ErrNotFound if nothing is.
func (t *Task) LoadFDs(ctx context.Context, name string) ([]*os.File, error) {
	return wire.Get(ctx, t.socket, name)
}

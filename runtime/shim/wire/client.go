package wire

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/containerd/errdefs"
)

// timeout bounds a request's answer; a shim answers from memory.
const timeout = 5 * time.Second

// Conn is an attached connection.
type Conn struct {
	*net.UnixConn
	r *bufio.Reader // what came behind the reply
}

// Read gives the container's output: raw with a TTY, else docker's frames.
func (c *Conn) Read(p []byte) (int, error) { return c.r.Read(p) }

// Attach connects to a container's stdio. From its return on no output is missed.
func Attach(ctx context.Context, socket string, stdin, stdout, stderr bool) (*Conn, error) {
	c, err := dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	if err := Send(c, Request{Op: OpAttach, Stdin: stdin, Stdout: stdout, Stderr: stderr}, nil); err != nil {
		c.Close()
		return nil, fmt.Errorf("attach: %w", err)
	}
	br := bufio.NewReaderSize(c, 32<<10)
	line, err := br.ReadSlice('\n')
	if err == nil {
		_, err = parseReply(line)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("attach: %w", err)
	}
	return &Conn{UnixConn: c, r: br}, c.SetDeadline(time.Time{})
}

// Put keeps files in the shim under a name, replacing what was there. The
// caller's own files stay open.
func Put(ctx context.Context, socket, name string, files []*os.File) error {
	c, err := dial(ctx, socket)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := Send(c, Request{Op: OpPut, Name: name, FDs: len(files)}, files); err != nil {
		return fmt.Errorf("store descriptors %s: %w", name, err)
	}
	line, extra, err := readLine(c)
	closeAll(extra)
	if err == nil {
		_, err = parseReply(line)
	}
	if err != nil {
		return fmt.Errorf("store descriptors %s: %w", name, err)
	}
	return nil
}

// Get gives duplicates of the files kept under a name, in the order of Put;
// ErrNotFound if there are none.
func Get(ctx context.Context, socket, name string) ([]*os.File, error) {
	c, err := dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := Send(c, Request{Op: OpGet, Name: name}, nil); err != nil {
		return nil, fmt.Errorf("fetch descriptors %s: %w", name, err)
	}
	line, files, err := readLine(c)
	if err != nil {
		return nil, fmt.Errorf("fetch descriptors %s: %w", name, err)
	}
	r, err := parseReply(line)
	if err == nil && r.FDs != len(files) {
		err = fmt.Errorf("%d announced, %d came", r.FDs, len(files))
	}
	if err != nil {
		closeAll(files)
		return nil, fmt.Errorf("fetch descriptors %s: %w", name, err)
	}
	return files, nil
}

func parseReply(line []byte) (Reply, error) {
	var r Reply
	if err := json.Unmarshal(line, &r); err != nil {
		return Reply{}, fmt.Errorf("read reply: %w", err)
	}
	switch {
	case r.NotFound:
		return r, fmt.Errorf("%s: %w", r.Error, errdefs.ErrNotFound)
	case r.Error != "":
		return r, errors.New(r.Error)
	}
	return r, nil
}

func dial(ctx context.Context, socket string) (*net.UnixConn, error) {
	d := net.Dialer{Timeout: timeout}
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("reach shim: %w: %w", err, errdefs.ErrUnavailable)
	}
	end := time.Now().Add(timeout)
	if t, ok := ctx.Deadline(); ok && t.Before(end) {
		end = t
	}
	if err := c.SetDeadline(end); err != nil {
		c.Close()
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

var _ io.ReadWriteCloser = (*Conn)(nil)

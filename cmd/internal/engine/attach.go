package engine

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/runtime/ctrd"
)

// lateStream is a client attached before the process exists: it waits for the start, and misses nothing.
type lateStream struct {
	opts  ctrd.AttachOptions
	ready chan struct{} // closed once stream or err is set
	once  sync.Once

	stream ctrd.Stream
	err    error
	closed chan struct{}
	shut   sync.Once
}

func newLateStream(o ctrd.AttachOptions) *lateStream {
	return &lateStream{opts: o, ready: make(chan struct{}), closed: make(chan struct{})}
}

func (l *lateStream) connect(s ctrd.Stream) {
	l.once.Do(func() {
		l.stream = s
		close(l.ready)
	})
	if l.gone() { // in this moment: nobody else closes it
		_ = s.Close()
	}
}

// gone tells whether the client has closed.
func (l *lateStream) gone() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// fail ends the wait; err nil reads as an end without output.
func (l *lateStream) fail(err error) {
	l.once.Do(func() {
		l.err = errors.Join(io.EOF, err)
		close(l.ready)
	})
}

func (l *lateStream) wait() (ctrd.Stream, error) {
	select {
	case <-l.ready:
		return l.stream, l.err
	case <-l.closed:
		return nil, io.ErrClosedPipe
	}
}

// Read gives the container's output as the Engine API frames it.
func (l *lateStream) Read(p []byte) (int, error) {
	s, err := l.wait()
	if err != nil {
		return 0, io.EOF
	}
	return s.Read(p)
}

// Write gives the container input.
func (l *lateStream) Write(p []byte) (int, error) {
	s, err := l.wait()
	if err != nil {
		return 0, err
	}
	return s.Write(p)
}

// CloseWrite ends the input.
func (l *lateStream) CloseWrite() error {
	s, err := l.wait()
	if err != nil {
		return err
	}
	return s.CloseWrite()
}

// Close detaches.
func (l *lateStream) Close() error {
	l.shut.Do(func() { close(l.closed) })
	select {
	case <-l.ready:
		if l.stream != nil {
			return l.stream.Close()
		}
	default:
	}
	return nil
}

// connectLate gives those who attached before the start their streams. The process has not begun: no output is lost.
func (r *run) connectLate(ctx context.Context) error {
	r.b.mu.Lock()
	late := r.b.late
	r.b.late = nil
	r.b.mu.Unlock()
	return connectAll(late, func(o ctrd.AttachOptions) (ctrd.Stream, error) { return r.task.Attach(ctx, o) })
}

// connectAll leaves out who has gone: nobody would read its stream, and the slowest reader sets the container's pace. After an
// error nobody waits any more.
func connectAll(late []*lateStream, attach func(ctrd.AttachOptions) (ctrd.Stream, error)) (err error) {
	for _, l := range late {
		if l.gone() {
			continue
		}
		var s ctrd.Stream
		if err == nil {
			s, err = attach(l.opts)
		}
		if err != nil {
			l.fail(err)
			continue
		}
		l.connect(s)
	}
	return err
}

// ContainerTTY tells whether its output is one raw stream.
func (e *Engine) ContainerTTY(_ context.Context, ref string) (bool, error) {
	b, err := e.find(ref)
	if err != nil {
		return false, err
	}
	return b.specCopy().Config.Tty, nil
}

// ContainerAttach connects a client with a container's streams, now or as soon as it starts.
func (e *Engine) ContainerAttach(ctx context.Context, ref string, opts api.AttachOptions) (api.Stream, error) {
	b, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	if b.statusCopy().State == "paused" {
		return nil, conflict("container %s is paused, unpause the container before attach", ref)
	}
	keys, err := escapeKeys(opts.DetachKeys)
	if err != nil {
		return nil, err
	}
	o := ctrd.AttachOptions{Stdin: opts.Stdin && b.specCopy().Config.OpenStdin, Stdout: opts.Stdout, Stderr: opts.Stderr}
	e.event(b, events.ActionAttach)
	var live api.Stream
	switch {
	case !opts.Stream:
		live = emptyStream{}
	default:
		if live, err = e.liveStream(ctx, b, o); err != nil {
			return nil, err
		}
	}
	live = escapable(live, b.specCopy().Config.Tty && opts.Stdin, keys, func() { e.event(b, events.ActionDetach) })
	if opts.Logs {
		return e.withLogs(ctx, b, opts, live), nil
	}
	return live, nil
}

func (e *Engine) liveStream(ctx context.Context, b *box, o ctrd.AttachOptions) (api.Stream, error) {
	b.mu.Lock()
	task := b.task
	if task == nil {
		l := newLateStream(o)
		b.late = append(b.late, l)
		b.mu.Unlock()
		return l, nil
	}
	b.mu.Unlock()
	s, err := task.Attach(ctx, o)
	if errdefs.IsNotFound(err) {
		return emptyStream{}, nil // it ended just now
	}
	return s, err
}

// withLogs shows what was written before, then what comes.
func (e *Engine) withLogs(ctx context.Context, b *box, opts api.AttachOptions, live api.Stream) api.Stream {
	pr, pw := io.Pipe()
	e.spawn(func() {
		_ = pw.CloseWithError(e.ContainerLogs(ctx, b.id, api.LogsOptions{Stdout: opts.Stdout, Stderr: opts.Stderr, Tail: "all"}, pw))
	})
	return &loggedStream{Stream: live, both: io.MultiReader(pr, live), past: pr}
}

type loggedStream struct {
	api.Stream
	both io.Reader
	past *io.PipeReader
}

// Read gives the past, then the present.
func (l *loggedStream) Read(p []byte) (int, error) { return l.both.Read(p) }

// Close detaches from both.
func (l *loggedStream) Close() error { return errors.Join(l.past.Close(), l.Stream.Close()) }

// emptyStream is attached to nothing.
type emptyStream struct{}

// Read is at its end.
func (emptyStream) Read([]byte) (int, error) { return 0, io.EOF }

// Write drops.
func (emptyStream) Write(p []byte) (int, error) { return len(p), nil }

// CloseWrite does nothing.
func (emptyStream) CloseWrite() error { return nil }

// Close does nothing.
func (emptyStream) Close() error { return nil }

// ContainerResize sets the terminal's size.
func (e *Engine) ContainerResize(ctx context.Context, ref string, height, width uint32) error {
	b, err := e.find(ref)
	if err != nil {
		return err
	}
	b.mu.Lock()
	task := b.task
	b.mu.Unlock()
	if task == nil {
		return conflict("cannot resize a stopped container: container %s is not running", b.id)
	}
	return task.Resize(ctx, height, width)
}

package ctrd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/pkg/cio"
)

// lingerTime is how long an exec's output may stay silent after its end before
// it counts as ended: children may hold it open for ever. It is dockerd's time; on
// a machine that is busy the shim needs some of it to pass the last output on.
const lingerTime = 2 * time.Second

// stdinTimeout bounds the wait for the shim to open its end of the input.
const stdinTimeout = 5 * time.Second

// execStdio moves an exec's streams between FIFOs and its Stream.
type execStdio struct {
	dir    string
	opts   ExecOptions
	cfg    cio.Config
	stdin  *os.File      // nil: none, or before ready
	ready  chan struct{} // closed when stdin can be written, or never will be
	out    []execOutput
	keep   []*os.File // hold the FIFOs open until the shim has its own ends
	pumps  sync.WaitGroup
	r      *io.PipeReader
	w      *io.PipeWriter
	moved  atomic.Int64 // reads so far
	inPipe atomic.Int32 // pumps that wait for the stream's reader
	ended  chan struct{}
	once   sync.Once
}

// execOutput is one stream; number is docker's frame number, wanted says that
// the client asked for it.
type execOutput struct {
	file   *os.File
	number byte
	wanted bool
}

func newExecStdio(parent string, o ExecOptions) (_ *execStdio, err error) {
	s := &execStdio{opts: o, cfg: cio.Config{Terminal: o.TTY}, ended: make(chan struct{}), ready: make(chan struct{})}
	s.r, s.w = io.Pipe()
	if !o.TTY && !o.Stdin && !o.Stdout && !o.Stderr {
		return s, nil // detached: the shim gives it /dev/null
	}
	if s.dir, err = execStdioDir(parent); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	// The shim cannot do with one of stdout and stderr: what is not wanted is read
	// and dropped.
	if s.cfg.Stdout, err = s.output("stdout", 1, o.Stdout); err != nil {
		return nil, err
	}
	if !o.TTY {
		if s.cfg.Stderr, err = s.output("stderr", 2, o.Stderr); err != nil {
			return nil, err
		}
	}
	if o.Stdin {
		s.cfg.Stdin = filepath.Join(s.dir, "stdin")
		if err := syscall.Mkfifo(s.cfg.Stdin, 0o600); err != nil {
			return nil, fmt.Errorf("make fifo %s: %w", s.cfg.Stdin, err)
		}
	}
	return s, nil
}

func (s *execStdio) output(name string, number byte, wanted bool) (string, error) {
	path, rd, wr, err := makeFIFO(s.dir, name)
	if err != nil {
		return "", err
	}
	s.out = append(s.out, execOutput{rd, number, wanted})
	s.keep = append(s.keep, wr)
	return path, nil
}

func (s *execStdio) config() cio.Config { return s.cfg }

func (s *execStdio) start() {
	for _, o := range s.out {
		s.pumps.Go(func() { s.pump(o) })
	}
	go func() {
		s.pumps.Wait()
		s.w.Close()
		close(s.ended)
	}()
}

// pump reads one stream to its end. When the stream's reader has closed, the rest
// is dropped, so that the process is not held up.
func (s *execStdio) pump(o execOutput) {
	const header = 8
	defer o.file.Close()
	buf := make([]byte, header+32<<10)
	for {
		n, err := o.file.Read(buf[header:])
		if n > 0 {
			s.moved.Add(1)
			if o.wanted {
				chunk := buf[header : header+n]
				if !s.opts.TTY {
					buf[0] = o.number
					binary.BigEndian.PutUint32(buf[4:], uint32(n))
					chunk = buf[:header+n]
				}
				s.inPipe.Add(1)
				if _, werr := s.w.Write(chunk); werr != nil {
					o.wanted = false
				}
				s.inPipe.Add(-1)
			}
		}
		if err != nil {
			return
		}
	}
}

// opened is called when the shim has opened its ends of the output.
func (s *execStdio) opened() {
	for _, f := range s.keep {
		f.Close()
	}
	s.keep = nil
}

// openStdin opens the write end of the input. The shim opens its read end in the
// background, and a FIFO without a reader refuses to be opened for writing: bytes
// written before would be lost, and the process never see an end.
func (s *execStdio) openStdin() error {
	defer close(s.ready)
	if s.cfg.Stdin == "" {
		return nil
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(stdinTimeout); ; <-tick.C {
		f, err := os.OpenFile(s.cfg.Stdin, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err == nil {
			s.stdin = f
			return nil
		}
		if !errors.Is(err, syscall.ENXIO) || time.Now().After(end) {
			return fmt.Errorf("open stdin: %w", err)
		}
	}
}

// exited watches the output after the process's end: it is over when the FIFOs
// are, or when nothing comes although the reader keeps up.
func (s *execStdio) exited() {
	tick := time.NewTicker(lingerTime)
	defer tick.Stop()
	for moved := s.moved.Load(); ; {
		select {
		case <-s.ended:
			return
		case <-tick.C:
		}
		now := s.moved.Load()
		if now == moved && s.inPipe.Load() == 0 {
			s.close()
			return
		}
		moved = now
	}
}

// closeStdin closes our end; only after ready.
func (s *execStdio) closeStdin() {
	if s.stdin != nil {
		s.stdin.Close()
	}
}

// close ends everything that is still open.
func (s *execStdio) close() {
	s.once.Do(func() {
		s.opened()
		s.closeStdin()
		for _, o := range s.out {
			o.file.Close()
		}
		s.w.Close()
		s.removeFIFOs()
	})
}

func (s *execStdio) removeFIFOs() {
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// execStream is the Stream of an exec.
type execStream struct {
	s          *execStdio
	closeStdin func() error
}

// Read implements io.Reader.
func (e *execStream) Read(p []byte) (int, error) { return e.s.r.Read(p) }

// Write implements io.Writer: the process's stdin. Before Start it waits.
func (e *execStream) Write(p []byte) (int, error) {
	if e.s.cfg.Stdin == "" {
		return len(p), nil // not asked for: docker drops it
	}
	<-e.s.ready
	if e.s.stdin == nil {
		return 0, os.ErrClosed
	}
	return e.s.stdin.Write(p)
}

// CloseWrite ends the process's input; a terminal's stays open, as with docker.
func (e *execStream) CloseWrite() error {
	if e.s.cfg.Stdin == "" || e.s.opts.TTY {
		return nil
	}
	<-e.s.ready
	e.s.closeStdin()
	return e.closeStdin()
}

// Close implements io.Closer. The process runs on, its output is dropped.
func (e *execStream) Close() error {
	err := e.s.r.Close()
	select {
	case <-e.s.ready:
		_ = e.CloseWrite()
	default: // never started
	}
	return err
}

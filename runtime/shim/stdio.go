package shim

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/minictl/minictl/runtime/logs"
	"github.com/minictl/minictl/runtime/shim/wire"
)

// stdio is everything around one container's standard streams: the FIFOs that
// containerd's part of the shim copies to and from, the log, the attached
// clients, and the socket by which they come.
type stdio struct {
	opts     wire.Stdio
	bundle   string
	listener *net.UnixListener
	log      logWriter // nil: none
	hub      *hub
	fds      *fdStore
	input    *input // nil: no stdin

	out  []output
	keep []*os.File // ends that hold the FIFOs open until containerd's part has its own

	output    sync.WaitGroup // the pumps
	accepting sync.WaitGroup
	moved     atomic.Int64 // chunks, for drain
}

// logWriter keeps output: a logs.Writer or a logs.Queue.
type logWriter interface {
	Write(stream string, p []byte, now time.Time)
	Close() error
}

func openLog(o wire.Stdio) (logWriter, error) {
	w, err := logs.NewWriter(o.LogDir, logs.Limits{MaxSize: o.MaxSize, MaxFiles: o.MaxFiles, Compress: o.Compress}, o.Attrs)
	if err != nil {
		return nil, err
	}
	if o.Buffer > 0 {
		return logs.NewQueue(w, o.Buffer), nil
	}
	return w, nil
}

// Output ends with the last process that holds the pipes, and with --pid=host that
// may be one that never ends, so drain is bounded: two drainIdle in which nothing
// moves, drainRounds of them in all.
const (
	drainIdle   = time.Second
	drainRounds = 10
)

// output is one stream on its way from the FIFO.
type output struct {
	name string
	file *os.File
}

// openStdio makes FIFOs, log and socket. closeStdin is called when the input has
// to end.
func openStdio(bundle string, o wire.Stdio, closeStdin func()) (_ *stdio, err error) {
	s := &stdio{opts: o, bundle: bundle, hub: newHub(o.TTY), fds: newFDStore()}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if o.LogDir != "" {
		if s.log, err = openLog(o); err != nil {
			return nil, err
		}
	}
	names := []string{logs.Stdout, logs.Stderr}
	if o.TTY {
		names = names[:1]
	}
	for _, name := range names {
		rd, wr, err := openFIFO(filepath.Join(bundle, name))
		if err != nil {
			return nil, err
		}
		s.out = append(s.out, output{name, rd})
		s.keep = append(s.keep, wr)
	}
	if o.Stdin {
		path := filepath.Join(bundle, "stdin")
		if err := makeFIFO(path); err != nil {
			return nil, err
		}
		s.input = &input{path: path, end: closeStdin}
	}
	return s, s.listen()
}

// openFIFO makes a FIFO and opens both ends, without waiting for anybody.
func openFIFO(path string) (rd, wr *os.File, err error) {
	if err := makeFIFO(path); err != nil {
		return nil, nil, err
	}
	if rd, err = os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0); err != nil {
		return nil, nil, err
	}
	if wr, err = os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0); err != nil {
		rd.Close()
		return nil, nil, err
	}
	return rd, wr, nil
}

func makeFIFO(path string) error {
	if err := syscall.Mkfifo(path, 0o600); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make fifo %s: %w", path, err)
	}
	return nil
}

func (s *stdio) listen() error {
	// A shim that was killed leaves its socket behind.
	if err := os.Remove(s.opts.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.opts.Socket, Net: "unix"})
	if err != nil {
		return err
	}
	s.listener = l
	return os.Chmod(s.opts.Socket, 0o600)
}

// paths are the FIFOs for containerd's part.
func (s *stdio) paths() (stdin, stdout, stderr string) {
	if s.opts.Stdin {
		stdin = filepath.Join(s.bundle, "stdin")
	}
	if !s.opts.TTY {
		stderr = filepath.Join(s.bundle, logs.Stderr)
	}
	return stdin, filepath.Join(s.bundle, logs.Stdout), stderr
}

// start reads the output and answers the socket.
func (s *stdio) start() {
	for _, o := range s.out {
		s.output.Go(func() { s.pump(o) })
	}
	s.accepting.Go(s.accept)
	go func() {
		s.output.Wait()
		s.hub.end()
	}()
}

// opened is called when containerd's part has opened its ends of the output: from
// then on the end of a stream is the end of its last writer.
func (s *stdio) opened() {
	for _, f := range s.keep {
		f.Close()
	}
	s.keep = nil
}

// pump moves one stream into the log and to the clients, in this order: a client
// that stalls holds the container up, as docker's does, but loses no log line.
func (s *stdio) pump(o output) {
	defer o.file.Close()
	buf := make([]byte, frameHeader+16<<10)
	for {
		n, err := o.file.Read(buf[frameHeader:])
		if n > 0 {
			if s.log != nil {
				s.log.Write(o.name, buf[frameHeader:frameHeader+n], time.Now())
			}
			s.hub.send(o.name, buf[:frameHeader+n])
			s.moved.Add(1)
		}
		if err != nil {
			return // io.EOF, or closed by us
		}
	}
}

// drain waits until the streams have ended, as long as something moves. When
// nothing does, it first lets go of clients that do not read: the log is worth more.
func (s *stdio) drain() {
	done := make(chan struct{})
	go func() { s.output.Wait(); close(done) }()
	tick := time.NewTicker(drainIdle)
	defer tick.Stop()
	idle := 0
	for moved, round := s.moved.Load(), 0; round < drainRounds && idle < 2; round++ {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		now := s.moved.Load()
		if now != moved {
			idle = 0
		} else if idle++; idle == 1 {
			s.hub.cut()
		}
		moved = now
	}
}

// close ends everything.
func (s *stdio) close() {
	s.opened()
	s.hub.cut()
	for _, o := range s.out {
		o.file.Close()
	}
	s.output.Wait()
	if s.log != nil {
		s.log.Close()
	}
	if s.input != nil {
		s.input.shut()
	}
	if s.listener != nil {
		s.listener.Close() // removes the socket's file, too
	}
	s.accepting.Wait()
	s.hub.end()
	s.fds.close()
}

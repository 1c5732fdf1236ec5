package shim

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/minictl/minictl/runtime/logs"
	"github.com/minictl/minictl/runtime/shim/wire"
)

// fixture is a stdio whose container is the test.
type fixture struct {
	*stdio
	outw, errw *os.File
	ended      chan struct{} // closeStdin was called
}

func newFixture(t *testing.T, o wire.Stdio) *fixture {
	t.Helper()
	dir, err := os.MkdirTemp("", "st") // short: the socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	o.Socket = filepath.Join(dir, "s.sock")
	o.LogDir = filepath.Join(dir, "log")
	f := &fixture{ended: make(chan struct{})}
	if f.stdio, err = openStdio(dir, o, func() { close(f.ended) }); err != nil {
		t.Fatal(err)
	}
	f.start()
	t.Cleanup(f.close)
	open := func(name string) *os.File {
		w, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		return w
	}
	f.outw = open(logs.Stdout)
	if !o.TTY {
		f.errw = open(logs.Stderr)
	}
	f.opened()
	return f
}

func (f *fixture) attach(t *testing.T, in, out, errs bool) *wire.Conn {
	t.Helper()
	c, err := wire.Attach(t.Context(), f.opts.Socket, in, out, errs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// clients waits until n are attached: the reply to an attach comes before.
func (f *fixture) clients(t *testing.T, n int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); ; <-tick.C {
		f.hub.mu.Lock()
		have := len(f.hub.clients)
		f.hub.mu.Unlock()
		if have == n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d clients, want %d", have, n)
		}
	}
}

func TestClients(t *testing.T) {
	f := newFixture(t, wire.Stdio{})
	both, onlyErr := f.attach(t, false, true, true), f.attach(t, false, false, true)
	fmt.Fprint(f.outw, "out")
	want := "\x01\x00\x00\x00\x00\x00\x00\x03out"
	buf := make([]byte, len(want))
	if _, err := io.ReadFull(both, buf); err != nil || string(buf) != want {
		t.Errorf("%q, %v", buf, err)
	}
	fmt.Fprint(f.errw, "e\n")
	f.outw.Close()
	f.errw.Close()
	want = "\x02\x00\x00\x00\x00\x00\x00\x02e\n"
	for name, c := range map[string]*wire.Conn{"both": both, "stderr": onlyErr} {
		if b, err := io.ReadAll(c); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	// A client that comes after the end gets the end.
	if b, err := io.ReadAll(f.attach(t, false, true, true)); err != nil || len(b) > 0 {
		t.Errorf("late client: %q, %v", b, err)
	}
}

func TestTerminalIsRaw(t *testing.T) {
	f := newFixture(t, wire.Stdio{TTY: true})
	c := f.attach(t, false, true, true)
	fmt.Fprint(f.outw, "raw\r\n")
	f.outw.Close()
	if b, err := io.ReadAll(c); err != nil || string(b) != "raw\r\n" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestGoneClients: closed connections do not pile up while nothing is written.
func TestGoneClients(t *testing.T) {
	f := newFixture(t, wire.Stdio{})
	half := f.attach(t, false, true, false)
	f.clients(t, 1)
	if err := half.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		f.attach(t, false, true, false).Close()
	}
	last := f.attach(t, false, true, false)
	f.clients(t, 2) // the half-closed one still reads
	fmt.Fprint(f.outw, "x")
	for name, c := range map[string]*wire.Conn{"half closed": half, "last": last} {
		if _, err := io.ReadFull(c, make([]byte, 9)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStalledClient: a client that never reads holds the container up, and Delete
// lets go of it without losing a log line.
func TestStalledClient(t *testing.T) {
	f := newFixture(t, wire.Stdio{})
	f.attach(t, false, true, true)
	f.clients(t, 1)
	const lines = 50000 // more than pipe and socket hold
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		for i := range lines {
			fmt.Fprintf(f.outw, "line %d, and some more to fill the buffers\n", i)
		}
		f.outw.Close()
		f.errw.Close()
	}()
	select {
	case <-wrote:
		t.Fatal("nothing stalled")
	case <-time.After(100 * time.Millisecond):
	}
	f.drain()
	f.close()
	n := 0
	var line string
	for e, err := range logs.Read(t.Context(), f.opts.LogDir, logs.Options{Tail: -1}) {
		if err != nil {
			t.Fatal(err)
		}
		if line += string(e.Line); e.Partial() {
			continue // the stall came in the middle of a line
		}
		if line != fmt.Sprintf("line %d, and some more to fill the buffers\n", n) {
			t.Fatalf("line %d: %q", n, line)
		}
		line = ""
		n++
	}
	if n != lines {
		t.Errorf("%d lines in the log", n)
	}
}

// TestDrainIsBounded: a process outside the container that keeps the pipe open
// does not keep Delete.
func TestDrainIsBounded(t *testing.T) {
	f := newFixture(t, wire.Stdio{})
	fmt.Fprint(f.outw, "last\n")
	done := make(chan struct{})
	go func() { f.drain(); f.close(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("it waits for the process outside")
	}
}

func TestStdinEnds(t *testing.T) {
	for _, once := range []bool{true, false} {
		f := newFixture(t, wire.Stdio{Stdin: true, StdinOnce: once})
		rd, err := os.OpenFile(f.input.path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer rd.Close()
		if err := f.input.open(); err != nil {
			t.Fatal(err)
		}
		c := f.attach(t, true, true, true)
		fmt.Fprint(c, "in")
		buf := make([]byte, 2)
		if _, err := io.ReadFull(rd, buf); err != nil || string(buf) != "in" {
			t.Errorf("%q, %v", buf, err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if !once {
			// The end of one client is not the container's: another goes on.
			c2 := f.attach(t, true, false, false)
			fmt.Fprint(c2, "go")
			if _, err := io.ReadFull(rd, buf); err != nil || string(buf) != "go" {
				t.Errorf("%q, %v", buf, err)
			}
			select {
			case <-f.ended:
				t.Error("input ended")
			default:
			}
			continue
		}
		select {
		case <-f.ended:
		case <-time.After(time.Minute):
			t.Error("input did not end")
		}
	}
}

func TestFDStore(t *testing.T) {
	f := newFixture(t, wire.Stdio{})
	for _, text := range []string{"first", "replaced"} {
		rd, wr, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(wr, text)
		wr.Close()
		if err := wire.Put(t.Context(), f.opts.Socket, "n", []*os.File{rd}); err != nil {
			t.Fatal(err)
		}
		rd.Close()
		got, err := wire.Get(t.Context(), f.opts.Socket, "n")
		if err != nil || len(got) != 1 {
			t.Fatalf("%v, %v", got, err)
		}
		if b, err := io.ReadAll(got[0]); err != nil || string(b) != text {
			t.Errorf("%q, %v", b, err)
		}
		got[0].Close()
	}
	if err := wire.Put(t.Context(), f.opts.Socket, "n", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := wire.Get(t.Context(), f.opts.Socket, "n"); err == nil {
		t.Error("deleted descriptors come back")
	}
}

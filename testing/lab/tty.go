package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
)

// TTY is a program of a host with a terminal of its own, and somebody typing at it.
type TTY struct {
	lab  *Lab
	proc *Process
	ptm  *os.File

	mu     sync.Mutex
	seen   bytes.Buffer // all output so far
	marked int          // how far Expect has read
}

// TTY starts a program on a fresh pseudo-terminal of 80 columns and 24 rows.
func (h *Host) TTY(args ...string) *TTY {
	h.lab.tb.Helper()
	t, err := h.startTTY(args)
	if err != nil {
		h.lab.tb.Fatalf("lab: %s: start %s on a terminal: %v", h.name, strings.Join(args, " "), err)
	}
	return t
}

// MinictlTTY is TTY for the binary under test.
func (h *Host) MinictlTTY(args ...string) *TTY {
	h.lab.tb.Helper()
	return h.TTY(append([]string{h.binary()}, args...)...)
}

func (h *Host) startTTY(args []string) (*TTY, error) {
	cmd, err := h.command(context.Background(), args)
	if err != nil {
		return nil, err
	}
	ptm, pts, err := pty.Open()
	if err != nil {
		return nil, err
	}
	defer pts.Close()
	if err := pty.Setsize(ptm, &pty.Winsize{Rows: 24, Cols: 80}); err != nil {
		return nil, err
	}
	cmd.Env = append(cmd.Env, "TERM=xterm")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = pts, pts, pts
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := within(h.pid(), allOf, cmd.Start); err != nil {
		ptm.Close()
		return nil, err
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	h.mu.Lock()
	h.procs = append(h.procs, p)
	h.mu.Unlock()
	t := &TTY{lab: h.lab, proc: p, ptm: ptm}
	read := make(chan struct{})
	go func() {
		defer close(read)
		t.collect()
	}()
	go func() {
		_ = cmd.Wait() // the state is in cmd
		<-read
		ptm.Close()
		close(p.done)
	}()
	return t, nil
}

// collect reads until every copy of the terminal's other end is closed (the kernel says EIO then).
func (t *TTY) collect() {
	b := make([]byte, 4096)
	for {
		n, err := t.ptm.Read(b)
		t.mu.Lock()
		t.seen.Write(b[:n])
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Type writes keys as typed; a line ends with "\r".
func (t *TTY) Type(keys string) {
	t.lab.tb.Helper()
	if _, err := t.ptm.WriteString(keys); err != nil {
		t.lab.tb.Fatalf("lab: type %q: %v\n%s", keys, err, t.Output())
	}
}

// Expect waits until text appears after what the last Expect found, at most d.
func (t *TTY) Expect(text string, d time.Duration) {
	t.lab.tb.Helper()
	err := poll(d, func() error {
		t.mu.Lock()
		defer t.mu.Unlock()
		i := bytes.Index(t.seen.Bytes()[t.marked:], []byte(text))
		if i < 0 {
			return fmt.Errorf("terminal never showed %q; it showed:\n%s", text, t.seen.String())
		}
		t.marked += i + len(text)
		return nil
	})
	if err != nil {
		t.lab.tb.Fatalf("lab: %v", err)
	}
}

// Output is all the terminal showed so far.
func (t *TTY) Output() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen.String()
}

// Resize changes the window's size; the program gets SIGWINCH.
func (t *TTY) Resize(rows, cols uint16) {
	t.lab.tb.Helper()
	if err := pty.Setsize(t.ptm, &pty.Winsize{Rows: rows, Cols: cols}); err != nil {
		t.lab.tb.Fatalf("lab: resize: %v", err)
	}
}

// Wait waits for the program's end, at most d, and gives its exit code.
func (t *TTY) Wait(d time.Duration) (int, error) { return t.proc.Wait(d) }

// Hangup closes the window: the program gets SIGHUP.
func (t *TTY) Hangup() error { return t.proc.Signal(syscall.SIGHUP) }

package ctrd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ExecOptions choose an exec's streams.
type ExecOptions struct{ TTY, Stdin, Stdout, Stderr bool }

// Exec is an additional process of a container.
type Exec struct {
	id      string
	task    *Task
	process containerd.Process
	stdio   *execStdio
	exit    exit
}

// Exec prepares a process; it runs with Start.
func (t *Task) Exec(ctx context.Context, execID string, p *specs.Process, o ExecOptions) (*Exec, error) {
	stdio, err := newExecStdio(t.rt.execDir(), o)
	if err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	proc := *p
	proc.Terminal = o.TTY
	process, err := t.task.Exec(t.rt.ctx(ctx), execID, &proc, func(string) (cio.IO, error) {
		return fixedIO{stdio.config()}, nil
	})
	if err != nil {
		stdio.close()
		return nil, err
	}
	return &Exec{id: execID, task: t, process: process, stdio: stdio, exit: newExit()}, nil
}

// Start runs the process. An error's text is runc's own.
func (e *Exec) Start(ctx context.Context) error {
	r := e.task.rt
	e.stdio.start()
	err := e.process.Start(r.ctx(ctx))
	e.stdio.opened()
	if err != nil {
		close(e.stdio.ready)
		e.exit.set(ExitStatus{Code: containerd.UnknownExitStatus, At: time.Now(), Err: err})
		e.stdio.close()
		return err
	}
	if err := e.stdio.openStdin(); err != nil {
		r.log.Warn("exec without input", "container", e.task.id, "err", err)
	}
	r.waits.Go(func() { e.await(r.ctx(r.life)) })
	return nil
}

func (e *Exec) await(ctx context.Context) {
	ch, err := e.process.Wait(ctx)
	if err != nil {
		e.exit.set(ExitStatus{Code: containerd.UnknownExitStatus, At: time.Now(), Err: err})
		return
	}
	st := <-ch
	code, at, err := st.Result()
	if err != nil { // the shim died, and the process with it
		code, at = 128+uint32(syscall.SIGKILL), time.Now()
	}
	e.exit.set(ExitStatus{Code: code, At: at, Err: err})
	e.stdio.exited()
}

// Wait gives the exit status once, on a channel of the caller's own.
func (e *Exec) Wait() <-chan ExitStatus { return e.exit.wait() }

// Stream is the process's stdio; there is one, so call it once.
func (e *Exec) Stream() Stream { return &execStream{e.stdio, e.closeStdin} }

// closeStdin ends the input. The shim holds a write end of its own.
func (e *Exec) closeStdin() error {
	r := e.task.rt
	return e.process.CloseIO(r.ctx(r.life), containerd.WithStdinCloser)
}

// Resize sets the terminal's size in characters.
func (e *Exec) Resize(ctx context.Context, h, w uint32) error {
	return e.process.Resize(e.task.rt.ctx(ctx), w, h)
}

// Pid is the process's, in the daemon's pid namespace; 0 before Start.
func (e *Exec) Pid() int { return int(e.process.Pid()) }

// Kill sends a signal; ErrNotFound when the process has ended.
func (e *Exec) Kill(ctx context.Context, sig syscall.Signal) error {
	return e.process.Kill(e.task.rt.ctx(ctx), sig)
}

// Delete forgets an ended or never started process. What it wrote can still be
// read from its stream.
func (e *Exec) Delete(ctx context.Context) error {
	done := make(chan error, 1)
	// The shim waits up to 10 s for children that keep the output open; nobody
	// needs to wait along.
	go func() {
		_, err := e.process.Delete(e.task.rt.ctx(context.WithoutCancel(ctx)))
		done <- err
	}()
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case err := <-done:
		if err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("delete exec: %w", err)
		}
	case <-timer.C:
	}
	e.stdio.removeFIFOs()
	return nil
}

// execStdioDir makes the directory of one exec's FIFOs.
func execStdioDir(parent string) (string, error) {
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", err
	}
	return os.MkdirTemp(parent, "")
}

func makeFIFO(dir, name string) (path string, rd, wr *os.File, err error) {
	path = filepath.Join(dir, name)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		return "", nil, nil, fmt.Errorf("make fifo %s: %w", path, err)
	}
	if rd, err = os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0); err != nil {
		return "", nil, nil, err
	}
	if wr, err = os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0); err != nil {
		rd.Close()
		return "", nil, nil, err
	}
	return path, rd, wr, nil
}

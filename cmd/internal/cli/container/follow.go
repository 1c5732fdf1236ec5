package container

import (
	"context"
	"errors"
	"fmt"

	"github.com/docker/cli/cli/streams"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/cmd/internal/cli/stream"
)

// followClient is what following a container from before its start to its end needs of the daemon.
type followClient interface {
	ContainerAttach(ctx context.Context, id string, o client.ContainerAttachOptions) (client.ContainerAttachResult, error)
	ContainerWait(ctx context.Context, id string, o client.ContainerWaitOptions) client.ContainerWaitResult
	ContainerStart(ctx context.Context, id string, o client.ContainerStartOptions) (client.ContainerStartResult, error)
	ContainerKill(ctx context.Context, id string, o client.ContainerKillOptions) (client.ContainerKillResult, error)
	ContainerResize(ctx context.Context, id string, o client.ContainerResizeOptions) (client.ContainerResizeResult, error)
}

// follow attaches to a container, starts it, and stays until it ends. The order attach, wait, start loses neither
// output nor exit code, however short the container's life.
type follow struct {
	id                         string
	tty, stdin, stdout, stderr bool
	detachKeys                 string
	signals                    bool // pass ours on
	removed                    bool // wait for its removal, not only its end (--rm)
}

// errNotStarted wraps what kept the container from starting.
type errNotStarted struct{ error }

func (e errNotStarted) Unwrap() error { return e.error }

// run returns errNotStarted for what happened before the container ran, an ExitError with its code after, nil for
// code 0 and for a user who detached.
func (f follow) run(ctx context.Context, cl followClient, c *console.Console) error {
	if f.signals {
		defer f.forward(ctx, cl)()
		ctx = context.WithoutCancel(ctx) // the signal is the container's to act upon
	}
	streamCtx, stop := context.WithCancel(ctx)
	defer stop()
	conn, err := cl.ContainerAttach(ctx, f.id, client.ContainerAttachOptions{Stream: true,
		Stdin: f.stdin, Stdout: f.stdout, Stderr: f.stderr, DetachKeys: f.detachKeys})
	if err != nil {
		return errNotStarted{err}
	}
	defer conn.Close()
	streamed := make(chan error, 1)
	go func() { streamed <- f.session(c, conn.HijackedResponse).Run(streamCtx) }()

	exited := f.wait(ctx, cl)
	if _, err := cl.ContainerStart(ctx, f.id, client.ContainerStartOptions{}); err != nil {
		stop()
		<-streamed // the terminal is itself again before anything is printed
		return errNotStarted{err}
	}
	if f.tty {
		stream.FollowSize(streamCtx, c.Out, f.resizer(cl))
	}
	return f.end(stop, streamed, exited)
}

// end waits for both the stream's and the container's end: output still in flight is shown, and the code is returned.
func (f follow) end(stop func(), streamed <-chan error, exited <-chan error) error {
	select {
	case err := <-streamed:
		switch {
		case errors.Is(err, stream.ErrDetached):
			return nil
		case err != nil:
			return err
		}
		return <-exited
	case err := <-exited:
		if !f.stdout && !f.stderr {
			stop() // no output to wait for; only input, which may never end
		}
		<-streamed // its error, if any, has the same cause
		return err
	}
}

func (f follow) session(c *console.Console, conn client.HijackedResponse) *stream.Session {
	s := &stream.Session{Conn: conn, TTY: f.tty, DetachKeys: f.detachKeys}
	if f.stdin {
		s.In = c.In
	}
	if f.stdout {
		s.Out = c.Out
	}
	if f.stderr {
		s.Err = c.Err
	}
	return s
}

// wait registers at the daemon before it returns; the channel gets one value: nil for code 0, else an ExitError.
func (f follow) wait(ctx context.Context, cl followClient) <-chan error {
	condition := container.WaitConditionNextExit
	if f.removed {
		condition = container.WaitConditionRemoved
	}
	w := cl.ContainerWait(ctx, f.id, client.ContainerWaitOptions{Condition: condition})
	out := make(chan error, 1)
	go func() { out <- exitStatus(w) }()
	return out
}

// exitStatus turns a failed wait into the daemon's code: it must not look like the container's own success.
func exitStatus(w client.ContainerWaitResult) error {
	select {
	case r := <-w.Result:
		if r.Error != nil {
			return console.Exit(exitDaemon, fmt.Errorf("wait for the container: %s", r.Error.Message))
		}
		return console.Exit(int(r.StatusCode), nil)
	case err := <-w.Error:
		return console.Exit(exitDaemon, fmt.Errorf("wait for the container: %w", err))
	}
}

func (f follow) forward(ctx context.Context, cl followClient) (stop func()) {
	return stream.ForwardSignals(ctx, func(ctx context.Context, signal string) error {
		_, err := cl.ContainerKill(ctx, f.id, client.ContainerKillOptions{Signal: signal})
		return err
	})
}

func (f follow) resizer(cl followClient) func(context.Context, uint, uint) error {
	return func(ctx context.Context, h, w uint) error {
		_, err := cl.ContainerResize(ctx, f.id, client.ContainerResizeOptions{Height: h, Width: w})
		return err
	}
}

// checkTTY refuses a terminal for the container when our own input is none: keys could never reach it as typed.
func checkTTY(in *streams.In, stdin, tty bool) error {
	if tty && stdin && !in.IsTerminal() {
		return errors.New("cannot attach stdin to a TTY-enabled container because stdin is not a terminal: leave out -t")
	}
	return nil
}

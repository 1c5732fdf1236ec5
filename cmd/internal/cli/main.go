package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

// signalled is the cause of a context that a signal ended.
type signalled struct{ syscall.Signal }

func (s signalled) Error() string { return "stopped by signal " + s.Signal.String() }

// Main runs the command line args (without the program's name) and gives the exit code: 0, 1 for an error, a code of
// docker's for run, exec and start, 128 plus its number for a signal. daemon are added as New does.
//
// A signal ends the context, so that commands put the terminal back and remove what they began; a second one ends the
// process as if nobody listened.
func Main(ctx context.Context, args []string, s Streams, daemon ...*cobra.Command) int {
	c := newConsole(s)
	root := newRoot(c, daemon...)
	root.SetArgs(args)
	ctx, stop := withSignals(ctx)
	defer stop()
	cmd, err := root.ExecuteContextC(ctx)
	explain := c.Explain
	if slices.Contains(daemon, cmd) { // it asks no daemon: whom it cannot reach is another
		explain = api.Sentence
	}
	return exitCode(ctx, c, explain, err)
}

// exitCode prints err, if there is something to print, and finds its code. A container's own code comes without text.
func exitCode(ctx context.Context, c *console.Console, explain func(error) string, err error) int {
	if err == nil {
		return 0
	}
	var exit *console.ExitError
	if errors.As(err, &exit) && exit.Err == nil {
		return exit.Code
	}
	var sig signalled
	if errors.Is(err, context.Canceled) && errors.As(context.Cause(ctx), &sig) {
		return 128 + int(sig.Signal)
	}
	fmt.Fprintln(c.Err, "minictl: "+explain(err))
	if exit != nil {
		return exit.Code
	}
	return 1
}

// withSignals is signal.NotifyContext that remembers which signal it was.
func withSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	caught := make(chan os.Signal, 1)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) { // nohup's wish, which Notify would undo
			signal.Notify(caught, s)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case s := <-caught:
			signal.Stop(caught)
			if n, ok := s.(syscall.Signal); ok {
				cancel(signalled{n})
			}
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(caught)
		cancel(nil)
		<-done
	}
}

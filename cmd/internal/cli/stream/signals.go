package stream

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	msignal "github.com/moby/sys/signal"
)

// ForwardSignals gives every signal we get to send, by docker's name ("TERM"), until the returned function is called.
// Not passed on: those about ourselves (our children, our pipe, the Go runtime's SIGURG) and the terminal's size.
func ForwardSignals(ctx context.Context, send func(ctx context.Context, signal string) error) (stop func()) {
	caught := make(chan os.Signal, 16)
	ignored := map[os.Signal]bool{}
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGHUP} {
		ignored[s] = signal.Ignored(s) // nohup's wish holds for the container too
	}
	signal.Notify(caught)
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case s := <-caught:
				if name := signalName(s); name != "" && !ignored[s] {
					_ = send(ctx, name) // the container may be gone; its exit code tells
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		signal.Stop(caught)
		cancel()
		<-done
	}
}

func signalName(s os.Signal) string {
	switch s {
	case syscall.SIGCHLD, syscall.SIGPIPE, syscall.SIGURG, syscall.SIGWINCH:
		return ""
	}
	for name, n := range msignal.SignalMap {
		if n == s {
			return name
		}
	}
	return ""
}

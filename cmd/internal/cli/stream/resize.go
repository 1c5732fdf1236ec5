package stream

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/docker/cli/cli/streams"
)

const (
	// The process may not have its terminal yet when the first size arrives.
	resizeAttempts = 10
	resizePause    = 10 * time.Millisecond
)

// FollowSize tells the container the terminal's size now and at every change, until ctx ends. A size of 0×0 is no
// terminal and is never sent.
func FollowSize(ctx context.Context, out *streams.Out, set func(ctx context.Context, height, width uint) error) {
	if !out.IsTerminal() {
		return
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	go func() {
		defer signal.Stop(changed)
		firstSize(ctx, out, set)
		for {
			select {
			case <-changed:
				_ = send(ctx, out, set) // the next change tries again
			case <-ctx.Done():
				return
			}
		}
	}()
}

// firstSize tries for about half a second; after that the next change of size will do.
func firstSize(ctx context.Context, out *streams.Out, set func(context.Context, uint, uint) error) {
	for i := range resizeAttempts {
		if send(ctx, out, set) == nil {
			return
		}
		select {
		case <-time.After(time.Duration(i+1) * resizePause):
		case <-ctx.Done():
			return
		}
	}
}

func send(ctx context.Context, out *streams.Out, set func(context.Context, uint, uint) error) error {
	h, w := out.GetTtySize()
	if h == 0 && w == 0 {
		return nil
	}
	return set(ctx, h, w)
}

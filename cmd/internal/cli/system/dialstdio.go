package system

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

// newDialStdioCommand is the far end of -H ssh://. It is no command for people.
func newDialStdioCommand(c *console.Console) *cobra.Command {
	return &cobra.Command{
		Use:                   "dial-stdio",
		Short:                 "Proxy the stdio stream to the daemon connection. Should not be invoked manually.",
		Example:               "  ssh host2 minictl system dial-stdio",
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		Hidden:                true,
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, _ []string) error {
			conn, err := cl.Dialer()(ctx)
			if err != nil {
				return err
			}
			defer conn.Close()
			return proxy(ctx, conn, c.In, c.Out)
		}),
	}
}

// proxy copies both ways. The end of the input is passed on as such; the end of the daemon's stream ends it all, whether
// or not there is more input.
func proxy(ctx context.Context, conn net.Conn, in io.Reader, out io.Writer) error {
	up, down := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, in)
		if w, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			err = w.CloseWrite()
		}
		up <- err
	}()
	go func() {
		_, err := io.Copy(out, conn)
		down <- err
	}()
	var err error
	select {
	case err = <-down:
	case err = <-up:
		if err == nil {
			select {
			case err = <-down:
			case <-ctx.Done():
			}
		}
	case <-ctx.Done():
	}
	if err != nil {
		return fmt.Errorf("copy the daemon's stream: %w", err)
	}
	return context.Cause(ctx)
}

package container

import (
	"context"
	"errors"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/cmd/internal/cli/stream"
)

type startOptions struct {
	attach, interactive bool
	detachKeys          string
}

func newStartCommand(c *console.Console) *cobra.Command {
	var o startOptions
	cmd := &cobra.Command{
		Use:   "start [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Start one or more stopped containers",
		Example: `  minictl start web1 web2
  minictl start -ai bbox1`,
		Args:                  console.AtLeast(1),
		ValidArgsFunction:     complete.Containers(c, true),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
			return runStart(ctx, cl, c, o, args)
		}),
	}
	cmd.Flags().BoolVarP(&o.attach, "attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	cmd.Flags().BoolVarP(&o.interactive, "interactive", "i", false, "Attach container's STDIN")
	cmd.Flags().StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	return cmd
}

// inspectFollowClient is what following a container that is there already needs.
type inspectFollowClient interface {
	followClient
	ContainerInspect(ctx context.Context, id string, o client.ContainerInspectOptions) (client.ContainerInspectResult, error)
}

// runStart without flags starts many and waits for none; attached it is the second half of run, for one.
func runStart(ctx context.Context, cl inspectFollowClient, c *console.Console, o startOptions, refs []string) error {
	if !o.attach && !o.interactive {
		return c.EachError(refs, "start containers", func(ref string) error {
			_, err := cl.ContainerStart(ctx, ref, client.ContainerStartOptions{})
			return err
		})
	}
	if len(refs) > 1 {
		return errors.New("you cannot start and attach multiple containers at once")
	}
	if err := stream.CheckDetachKeys(o.detachKeys); err != nil {
		return err
	}
	res, err := cl.ContainerInspect(ctx, refs[0], client.ContainerInspectOptions{})
	if err != nil {
		return console.Exit(exitDaemon, err)
	}
	ctr := res.Container
	stdin := o.interactive && ctr.Config.OpenStdin
	if err := checkTTY(c.In, stdin, ctr.Config.Tty); err != nil {
		return console.Exit(exitDaemon, err)
	}
	err = follow{id: ctr.ID, tty: ctr.Config.Tty, stdin: stdin, stdout: true, stderr: true,
		detachKeys: detachKeys(c, o.detachKeys), signals: !ctr.Config.Tty,
		removed: ctr.HostConfig != nil && ctr.HostConfig.AutoRemove}.run(ctx, cl, c)
	var unstarted errNotStarted
	if errors.As(err, &unstarted) {
		return startError(unstarted.error)
	}
	return err
}

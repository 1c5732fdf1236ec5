package container

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

// endOptions are stop's and restart's.
type endOptions struct {
	signal     string
	seconds    int
	oldSeconds int
}

// add returns a function that gives the wait in seconds, nil when no flag said one: then it is the container's own.
func (o *endOptions) add(cmd *cobra.Command) func() (*int, error) {
	fs := cmd.Flags()
	fs.StringVarP(&o.signal, "signal", "s", "", "Signal to send to the container")
	fs.IntVarP(&o.seconds, "timeout", "t", 0, "Seconds to wait before killing the container")
	fs.IntVar(&o.oldSeconds, "time", 0, "Seconds to wait before killing the container")
	_ = fs.MarkHidden("time") // docker's older spelling
	return func() (*int, error) {
		switch now, old := fs.Changed("timeout"), fs.Changed("time"); {
		case now && old:
			return nil, errors.New("conflicting options: cannot specify both --timeout and --time")
		case now:
			return &o.seconds, nil
		case old:
			return &o.oldSeconds, nil
		}
		return nil, nil
	}
}

// newStopCommand sends no timeout unless told: the container's own (run --stop-timeout) is the daemon's to know.
func newStopCommand(c *console.Console) *cobra.Command {
	var o endOptions
	cmd := each("stop [OPTIONS] CONTAINER [CONTAINER...]", "Stop one or more running containers",
		"  minictl stop web1\n  minictl stop -t 30 db", complete.Containers(c, false))
	seconds := o.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, refs []string) error {
		t, err := seconds()
		if err != nil {
			return err
		}
		return withEach(cmd, c, refs, "stop containers", func(ctx context.Context, cl *client.Client, ref string) error {
			_, err := cl.ContainerStop(ctx, ref, client.ContainerStopOptions{Signal: o.signal, Timeout: t})
			return err
		})
	}
	return cmd
}

func newRestartCommand(c *console.Console) *cobra.Command {
	var o endOptions
	cmd := each("restart [OPTIONS] CONTAINER [CONTAINER...]", "Restart one or more containers",
		"  minictl restart web1", complete.Containers(c, true))
	seconds := o.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, refs []string) error {
		t, err := seconds()
		if err != nil {
			return err
		}
		return withEach(cmd, c, refs, "restart containers", func(ctx context.Context, cl *client.Client, ref string) error {
			_, err := cl.ContainerRestart(ctx, ref, client.ContainerRestartOptions{Signal: o.signal, Timeout: t})
			return err
		})
	}
	return cmd
}

func newKillCommand(c *console.Console) *cobra.Command {
	var signal string
	cmd := each("kill [OPTIONS] CONTAINER [CONTAINER...]", "Kill one or more running containers",
		"  minictl kill web1\n  minictl kill -s HUP web1", complete.Containers(c, false))
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	cmd.RunE = func(cmd *cobra.Command, refs []string) error {
		return withEach(cmd, c, refs, "kill containers", func(ctx context.Context, cl *client.Client, ref string) error {
			_, err := cl.ContainerKill(ctx, ref, client.ContainerKillOptions{Signal: signal})
			return err
		})
	}
	return cmd
}

// newRemoveCommand makes rm -f of what is not there a success: clean-up scripts run twice.
func newRemoveCommand(c *console.Console) *cobra.Command {
	var o client.ContainerRemoveOptions
	cmd := each("rm [OPTIONS] CONTAINER [CONTAINER...]", "Remove one or more containers",
		"  minictl rm web1\n  minictl rm -f $(minictl ps -aq)", complete.Containers(c, true))
	fs := cmd.Flags()
	fs.BoolVarP(&o.Force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	fs.BoolVarP(&o.RemoveVolumes, "volumes", "v", false, "Remove anonymous volumes associated with the container")
	fs.BoolVarP(&o.RemoveLinks, "link", "l", false, "Remove the specified link")
	cmd.RunE = func(cmd *cobra.Command, refs []string) error {
		return withEach(cmd, c, refs, "remove containers", func(ctx context.Context, cl *client.Client, ref string) error {
			_, err := cl.ContainerRemove(ctx, ref, o)
			if o.Force && errdefs.IsNotFound(err) {
				return console.Quiet(err)
			}
			return err
		})
	}
	return cmd
}

func newRenameCommand(c *console.Console) *cobra.Command {
	return &cobra.Command{
		Use:                   "rename CONTAINER NEW_NAME",
		Short:                 "Rename a container",
		Example:               "  minictl rename bbox1 client1",
		Args:                  console.Exactly(2),
		ValidArgsFunction:     complete.Then(complete.Containers(c, true), complete.None),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
			if strings.TrimSpace(args[1]) == "" {
				return errors.New("the new name is empty")
			}
			_, err := cl.ContainerRename(ctx, args[0], client.ContainerRenameOptions{NewName: args[1]})
			return err
		}),
	}
}

func newWaitCommand(c *console.Console) *cobra.Command {
	cmd := each("wait CONTAINER [CONTAINER...]", "Block until one or more containers stop, then print their exit codes",
		"  minictl wait job1", complete.Containers(c, false))
	cmd.RunE = c.WithClient(func(ctx context.Context, cl *client.Client, refs []string) error {
		return runWait(ctx, cl, c, refs)
	})
	return cmd
}

// waitClient is what wait needs of the daemon.
type waitClient interface {
	ContainerWait(ctx context.Context, id string, o client.ContainerWaitOptions) client.ContainerWaitResult
}

// runWait goes on after a failure, so that every line of the output has its container until the first error.
func runWait(ctx context.Context, cl waitClient, c *console.Console, refs []string) error {
	var errs []error
	for _, ref := range refs {
		code, err := waitOne(ctx, cl, ref)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintln(c.Out, code)
	}
	return errors.Join(errs...)
}

func waitOne(ctx context.Context, cl waitClient, ref string) (int64, error) {
	w := cl.ContainerWait(ctx, ref, client.ContainerWaitOptions{}) // the API's default is: not running
	select {
	case r := <-w.Result:
		if r.Error != nil {
			return 0, errors.New(r.Error.Message)
		}
		return r.StatusCode, nil
	case err := <-w.Error:
		return 0, err
	}
}

// each is a command that takes one or more containers.
func each(use, short, example string, names complete.Func) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: example,
		Args: console.AtLeast(1), ValidArgsFunction: names, DisableFlagsInUseLine: true,
	}
}

func withEach(cmd *cobra.Command, c *console.Console, refs []string, what string,
	do func(ctx context.Context, cl *client.Client, ref string) error) error {
	cl, err := c.Client()
	if err != nil {
		return err
	}
	return c.EachError(refs, what, func(ref string) error { return do(cmd.Context(), cl, ref) })
}

package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/docker/cli/cli/command/formatter/tabwriter"
	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

func newPauseCommand(c *console.Console) *cobra.Command {
	cmd := each("pause CONTAINER [CONTAINER...]", "Pause all processes within one or more containers",
		"  minictl pause web1", complete.Containers(c, false))
	cmd.RunE = func(cmd *cobra.Command, refs []string) error {
		return withEach(cmd, c, refs, "pause containers", func(ctx context.Context, cl *client.Client, ref string) error {
			_, err := cl.ContainerPause(ctx, ref, client.ContainerPauseOptions{})
			return err
		})
	}
	return cmd
}

func newUnpauseCommand(c *console.Console) *cobra.Command {
	cmd := each("unpause CONTAINER [CONTAINER...]", "Unpause all processes within one or more containers",
		"  minictl unpause web1", complete.Containers(c, false))
	cmd.RunE = func(cmd *cobra.Command, refs []string) error {
		return withEach(cmd, c, refs, "unpause containers", func(ctx context.Context, cl *client.Client, ref string) error {
			_, err := cl.ContainerUnpause(ctx, ref, client.ContainerUnpauseOptions{})
			return err
		})
	}
	return cmd
}

// newTopCommand takes ps's options after the container as they are, with or without a dash.
func newTopCommand(c *console.Console) *cobra.Command {
	cmd := each("top CONTAINER [ps OPTIONS]", "Display the running processes of a container",
		"  minictl top web1\n  minictl top web1 -o pid,rss,cmd", complete.First(1, complete.Containers(c, false)))
	cmd.Flags().SetInterspersed(false)
	cmd.RunE = c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
		res, err := cl.ContainerTop(ctx, args[0], client.ContainerTopOptions{Arguments: args[1:]})
		if err != nil {
			return err
		}
		return writeTop(c.Out, res)
	})
	return cmd
}

// writeTop has docker's columns.
func writeTop(out io.Writer, res client.ContainerTopResult) error {
	w := tabwriter.NewWriter(out, 20, 1, 3, ' ', 0)
	for _, row := range append([][]string{res.Titles}, res.Processes...) {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// updateFlags are those of the limits that can change while a container runs.
type updateFlags struct {
	limits  limitFlags
	restart string
}

func (f *updateFlags) add(fs *pflag.FlagSet) {
	f.limits.addIO(pflag.NewFlagSet("", pflag.ContinueOnError)) // makes the lists that apply reads
	f.limits.ulimits = opts.NewUlimitOpt(nil)
	f.limits.addCPU(fs)
	fs.Uint16Var(&f.limits.blkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	fs.VarP(&f.limits.memory, "memory", "m", "Memory limit")
	fs.Var(&f.limits.memoryReservation, "memory-reservation", "Memory soft limit")
	fs.Var(&f.limits.memorySwap, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	fs.Int64Var(&f.limits.pids, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	fs.StringVar(&f.restart, "restart", "", "Restart policy to apply when a container exits")
}

func (f *updateFlags) wish(fs *pflag.FlagSet) (client.ContainerUpdateOptions, error) {
	var (
		h      container.HostConfig
		policy container.RestartPolicy
		err    error
	)
	if fs.NFlag() == 0 {
		return client.ContainerUpdateOptions{}, errors.New("you must provide one or more flags when using this command")
	}
	if f.restart != "" {
		if policy, err = opts.ParseRestartPolicy(f.restart); err != nil {
			return client.ContainerUpdateOptions{}, fmt.Errorf("--restart %s: %w", f.restart, err)
		}
	}
	if err := f.limits.apply(fs, &h); err != nil {
		return client.ContainerUpdateOptions{}, err
	}
	return client.ContainerUpdateOptions{Resources: &h.Resources, RestartPolicy: &policy}, nil
}

func newUpdateCommand(c *console.Console) *cobra.Command {
	var f updateFlags
	cmd := each("update [OPTIONS] CONTAINER [CONTAINER...]", "Update configuration of one or more containers",
		"  minictl update --memory 64m --restart always web1", complete.Containers(c, true))
	f.add(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, refs []string) error {
		o, err := f.wish(cmd.Flags())
		if err != nil {
			return err
		}
		return withEach(cmd, c, refs, "update containers", func(ctx context.Context, cl *client.Client, ref string) error {
			res, err := cl.ContainerUpdate(ctx, ref, o)
			c.Warn(res.Warnings)
			return err
		})
	}
	return cmd
}

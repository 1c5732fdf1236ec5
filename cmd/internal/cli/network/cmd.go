// Package network has the commands about networks: create, ls, inspect, connect and the like.
package network

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/opts"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/cmd/internal/cli/inspect"
)

// NewCommand gives minictl network.
func NewCommand(c *console.Console) *cobra.Command {
	cmd := &cobra.Command{Use: "network COMMAND", Short: "Manage networks",
		Example: "  minictl network create -d overlay ov_net1\n  minictl network ls"}
	cmd.AddCommand(newCreateCommand(c), newListCommand(c), newInspectCommand(c), newRemoveCommand(c),
		newConnectCommand(c), newDisconnectCommand(c), newPruneCommand(c))
	return cmd
}

func newInspectCommand(c *console.Console) *cobra.Command {
	var (
		format  string
		verbose bool
	)
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] NETWORK [NETWORK...]",
		Short: "Display detailed information on one or more networks",
		Example: `  minictl network inspect ov_net1
  minictl network inspect -f '{{(index .IPAM.Config 0).Subnet}}' ov_net1`,
		Args:                  console.AtLeast(1),
		ValidArgsFunction:     complete.Networks(c),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, refs []string) error {
			return inspect.Write(c.Out, refs, format, Getter(ctx, cl, verbose))
		}),
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", inspect.FormatHelp("{{.Id}}"))
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Verbose output for diagnostics")
	return cmd
}

// inspectClient is what looking at one network needs of the daemon.
type inspectClient interface {
	NetworkInspect(ctx context.Context, id string, o client.NetworkInspectOptions) (client.NetworkInspectResult, error)
}

// Getter finds a network for the inspect commands.
func Getter(ctx context.Context, cl inspectClient, verbose bool) inspect.Getter {
	return func(ref string) (any, []byte, error) {
		res, err := cl.NetworkInspect(ctx, ref, client.NetworkInspectOptions{Verbose: verbose})
		return res.Network, res.Raw, err
	}
}

func newRemoveCommand(c *console.Console) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:                   "rm [OPTIONS] NETWORK [NETWORK...]",
		Aliases:               []string{"remove"},
		Short:                 "Remove one or more networks",
		Example:               "  minictl network rm ov_net1",
		Args:                  console.AtLeast(1),
		ValidArgsFunction:     complete.Networks(c),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, refs []string) error {
			return c.EachError(refs, "remove networks", func(ref string) error {
				_, err := cl.NetworkRemove(ctx, ref, client.NetworkRemoveOptions{})
				if force && errdefs.IsNotFound(err) {
					return console.Quiet(err)
				}
				return err
			})
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not error if the network does not exist")
	return cmd
}

func newDisconnectCommand(c *console.Console) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:                   "disconnect [OPTIONS] NETWORK CONTAINER",
		Short:                 "Disconnect a container from a network",
		Example:               "  minictl network disconnect ov_net1 bbox1",
		Args:                  console.Exactly(2),
		ValidArgsFunction:     complete.Then(complete.Networks(c), complete.Containers(c, true)),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
			_, err := cl.NetworkDisconnect(ctx, args[0],
				client.NetworkDisconnectOptions{Container: args[1], Force: force})
			return err
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the container to disconnect from a network")
	return cmd
}

func newPruneCommand(c *console.Console) *cobra.Command {
	var force bool
	filter := opts.NewFilterOpt()
	cmd := &cobra.Command{
		Use:                   "prune [OPTIONS]",
		Short:                 "Remove all unused networks",
		Example:               "  minictl network prune -f --filter until=24h",
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, _ []string) error {
			if ok, err := c.Confirm(ctx, force, "WARNING! This will remove all custom networks not used by at least one container."); !ok {
				return err
			}
			return runPrune(ctx, cl, c.Out, filter.Value())
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	cmd.Flags().Var(&filter, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}

// pruneClient is what prune needs of the daemon.
type pruneClient interface {
	NetworkPrune(ctx context.Context, o client.NetworkPruneOptions) (client.NetworkPruneResult, error)
}

func runPrune(ctx context.Context, cl pruneClient, out io.Writer, f client.Filters) error {
	res, err := cl.NetworkPrune(ctx, client.NetworkPruneOptions{Filters: f})
	if err != nil {
		return err
	}
	if len(res.Report.NetworksDeleted) > 0 {
		fmt.Fprintln(out, "Deleted Networks:")
		for _, n := range res.Report.NetworksDeleted {
			fmt.Fprintln(out, n)
		}
	}
	return nil
}

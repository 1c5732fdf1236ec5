// Package volume has the commands about volumes: create, ls, inspect, rm and prune.
package volume

import (
	"context"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/cmd/internal/cli/inspect"
)

// NewCommand gives minictl volume.
func NewCommand(c *console.Console) *cobra.Command {
	cmd := &cobra.Command{Use: "volume COMMAND", Short: "Manage volumes",
		Example: "  minictl volume create data\n  minictl run -d -v data:/var/lib/db --name db busybox sleep 600"}
	cmd.AddCommand(newCreateCommand(c), newListCommand(c), newInspectCommand(c), newRemoveCommand(c), newPruneCommand(c))
	return cmd
}

func newInspectCommand(c *console.Console) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:                   "inspect [OPTIONS] VOLUME [VOLUME...]",
		Short:                 "Display detailed information on one or more volumes",
		Example:               "  minictl volume inspect data\n  minictl volume inspect -f '{{.Mountpoint}}' data",
		Args:                  console.AtLeast(1),
		ValidArgsFunction:     complete.Volumes(c),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, names []string) error {
			return inspect.Write(c.Out, names, format, Getter(ctx, cl))
		}),
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", inspect.FormatHelp("{{.Name}}"))
	return cmd
}

// inspectClient is what looking at one volume needs of the daemon.
type inspectClient interface {
	VolumeInspect(ctx context.Context, name string, o client.VolumeInspectOptions) (client.VolumeInspectResult, error)
}

// Getter finds a volume for the inspect commands.
func Getter(ctx context.Context, cl inspectClient) inspect.Getter {
	return func(name string) (any, []byte, error) {
		res, err := cl.VolumeInspect(ctx, name, client.VolumeInspectOptions{})
		return res.Volume, res.Raw, err
	}
}

// newRemoveCommand leaves --force to the daemon: it makes a volume that is not there a success.
func newRemoveCommand(c *console.Console) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:                   "rm [OPTIONS] VOLUME [VOLUME...]",
		Aliases:               []string{"remove"},
		Short:                 "Remove one or more volumes",
		Long:                  "Remove one or more volumes. You cannot remove a volume that is in use by a container.",
		Example:               "  minictl volume rm data",
		Args:                  console.AtLeast(1),
		ValidArgsFunction:     complete.Volumes(c),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, names []string) error {
			return c.EachError(names, "remove volumes", func(name string) error {
				_, err := cl.VolumeRemove(ctx, name, client.VolumeRemoveOptions{Force: force})
				return err
			})
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of one or more volumes")
	return cmd
}

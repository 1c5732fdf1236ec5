package container

import (
	"context"
	"fmt"
	"io"

	"github.com/docker/cli/opts"
	"github.com/docker/go-units"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

func newExportCommand(c *console.Console) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:                   "export [OPTIONS] CONTAINER",
		Short:                 "Export a container's filesystem as a tar archive",
		Example:               "  minictl export -o web1.tar web1",
		Args:                  console.Exactly(1),
		ValidArgsFunction:     complete.First(1, complete.Containers(c, true)),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
			return c.WriteTo(output, func() (io.ReadCloser, error) {
				return cl.ContainerExport(ctx, args[0], client.ContainerExportOptions{})
			})
		}),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	return cmd
}

func newDiffCommand(c *console.Console) *cobra.Command {
	return &cobra.Command{
		Use:                   "diff CONTAINER",
		Short:                 "Inspect changes to files or directories on a container's filesystem",
		Example:               "  minictl diff web1",
		Args:                  console.Exactly(1),
		ValidArgsFunction:     complete.First(1, complete.Containers(c, true)),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
			res, err := cl.ContainerDiff(ctx, args[0], client.ContainerDiffOptions{})
			if err != nil {
				return err
			}
			for _, ch := range res.Changes {
				fmt.Fprintln(c.Out, ch.Kind, ch.Path)
			}
			return nil
		}),
	}
}

func newCommitCommand(c *console.Console) *cobra.Command {
	var (
		o       client.ContainerCommitOptions
		pause   bool
		changes = opts.NewListOpts(nil)
	)
	cmd := &cobra.Command{
		Use:                   "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
		Short:                 "Create a new image from a container's changes",
		Example:               "  minictl commit -m \"with the site\" -c 'ENV MODE=live' web1 site:1",
		Args:                  console.Between(1, 2),
		ValidArgsFunction:     complete.First(1, complete.Containers(c, true)),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
			o.Changes, o.NoPause = changes.GetSlice(), !pause
			if len(args) > 1 {
				o.Reference = args[1]
			}
			res, err := cl.ContainerCommit(ctx, args[0], o)
			if err != nil {
				return err
			}
			fmt.Fprintln(c.Out, res.ID)
			return nil
		}),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&pause, "pause", "p", true, "Pause container during commit")
	fs.StringVarP(&o.Comment, "message", "m", "", "Commit message")
	fs.StringVarP(&o.Author, "author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
	fs.VarP(&changes, "change", "c", "Apply Dockerfile instruction to the created image")
	return cmd
}

func newPruneCommand(c *console.Console) *cobra.Command {
	var force bool
	filter := opts.NewFilterOpt()
	cmd := &cobra.Command{
		Use:                   "prune [OPTIONS]",
		Short:                 "Remove all stopped containers",
		Example:               "  minictl container prune -f --filter until=24h",
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, _ []string) error {
			if ok, err := c.Confirm(ctx, force, "WARNING! This will remove all stopped containers."); !ok {
				return err
			}
			freed, err := Prune(ctx, cl, c.Out, filter.Value())
			if err != nil {
				return err
			}
			fmt.Fprintln(c.Out, "Total reclaimed space:", units.HumanSize(float64(freed)))
			return nil
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	cmd.Flags().Var(&filter, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}

// pruneClient is what prune needs of the daemon.
type pruneClient interface {
	ContainerPrune(ctx context.Context, o client.ContainerPruneOptions) (client.ContainerPruneResult, error)
}

// Prune removes stopped containers, lists them on out and gives the bytes that came free.
func Prune(ctx context.Context, cl pruneClient, out io.Writer, f client.Filters) (uint64, error) {
	res, err := cl.ContainerPrune(ctx, client.ContainerPruneOptions{Filters: f})
	if err != nil {
		return 0, err
	}
	if len(res.Report.ContainersDeleted) > 0 {
		fmt.Fprintln(out, "Deleted Containers:")
		for _, id := range res.Report.ContainersDeleted {
			fmt.Fprintln(out, id)
		}
		fmt.Fprintln(out)
	}
	return res.Report.SpaceReclaimed, nil
}

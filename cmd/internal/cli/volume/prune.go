package volume

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/docker/cli/opts"
	"github.com/docker/go-units"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

func newPruneCommand(c *console.Console) *cobra.Command {
	var all, force bool
	filter := opts.NewFilterOpt()
	cmd := &cobra.Command{
		Use:                   "prune [OPTIONS]",
		Short:                 "Remove unused local volumes",
		Example:               "  minictl volume prune -f\n  minictl volume prune -a --filter label=scratch",
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, _ []string) error {
			f, which := filter.Value(), "anonymous local"
			if all {
				if _, ok := f["all"]; ok {
					return errors.New("conflicting options: cannot specify both --all and --filter all=1")
				}
				f, which = f.Clone().Add("all", "true"), "all local"
			}
			warning := "WARNING! This will remove " + which + " volumes not used by at least one container."
			if ok, err := c.Confirm(ctx, force, warning); !ok {
				return err
			}
			return runPrune(ctx, cl, c.Out, f)
		}),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all", "a", false, "Remove all unused volumes, not just anonymous ones")
	fs.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	fs.Var(&filter, "filter", `Provide filter values (e.g. "label=<label>")`)
	return cmd
}

// pruneClient is what prune needs of the daemon.
type pruneClient interface {
	VolumePrune(ctx context.Context, o client.VolumePruneOptions) (client.VolumePruneResult, error)
}

func runPrune(ctx context.Context, cl pruneClient, out io.Writer, f client.Filters) error {
	res, err := cl.VolumePrune(ctx, client.VolumePruneOptions{Filters: f})
	if err != nil {
		return err
	}
	if len(res.Report.VolumesDeleted) > 0 {
		fmt.Fprintln(out, "Deleted Volumes:")
		for _, name := range res.Report.VolumesDeleted {
			fmt.Fprintln(out, name)
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintln(out, "Total reclaimed space:", units.HumanSize(float64(res.Report.SpaceReclaimed)))
	return nil
}

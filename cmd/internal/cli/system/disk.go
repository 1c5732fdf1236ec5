package system

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/cli/opts"
	"github.com/docker/go-units"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/cmd/internal/cli/container"
	"github.com/minictl/minictl/cmd/internal/cli/image"
)

func newDfCommand(c *console.Console) *cobra.Command {
	var (
		verbose bool
		format  string
	)
	cmd := &cobra.Command{
		Use:                   "df [OPTIONS]",
		Short:                 "Show disk usage",
		Example:               "  minictl system df -v",
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, _ []string) error {
			return runDf(ctx, cl, c.Out, format, verbose)
		}),
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Show detailed information on space usage")
	cmd.Flags().StringVar(&format, "format", "", console.FormatHelp)
	return cmd
}

// dfClient is what df needs of the daemon.
type dfClient interface {
	DiskUsage(ctx context.Context, o client.DiskUsageOptions) (client.DiskUsageResult, error)
}

func runDf(ctx context.Context, cl dfClient, out io.Writer, format string, verbose bool) error {
	du, err := cl.DiskUsage(ctx, client.DiskUsageOptions{Verbose: verbose})
	if err != nil {
		return err
	}
	if du.Images.ActiveCount == 0 { // the client counts only what no two images share, though all of it can go
		du.Images.Reclaimable = du.Images.TotalSize
	}
	if format == "" {
		format = formatter.TableFormatKey
	}
	dc := formatter.DiskUsageContext{
		Context: formatter.Context{Output: out, Format: formatter.NewDiskUsageFormat(format, verbose)}, Verbose: verbose,
		ImageDiskUsage: du.Images, ContainerDiskUsage: du.Containers, VolumeDiskUsage: du.Volumes, BuildCacheDiskUsage: du.BuildCache,
	}
	return dc.Write()
}

type pruneOptions struct {
	all, force, volumes bool
	filter              opts.FilterOpt
}

func newPruneCommand(c *console.Console) *cobra.Command {
	o := pruneOptions{filter: opts.NewFilterOpt()}
	cmd := &cobra.Command{
		Use:                   "prune [OPTIONS]",
		Short:                 "Remove unused data",
		Example:               "  minictl system prune -af",
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, _ []string) error {
			if ok, err := c.Confirm(ctx, o.force, o.warning()); !ok {
				return err
			}
			return runPrune(ctx, cl, c.Out, o)
		}),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.force, "force", "f", false, "Do not prompt for confirmation")
	fs.BoolVarP(&o.all, "all", "a", false, "Remove all unused images not just dangling ones")
	fs.BoolVar(&o.volumes, "volumes", false, "Prune anonymous volumes")
	fs.Var(&o.filter, "filter", `Provide filter values (e.g. "label=<key>=<value>")`)
	return cmd
}

// warning says what will go.
func (o *pruneOptions) warning() string {
	lines := []string{"WARNING! This will remove:", "  - all stopped containers", "  - all networks not used by at least one container"}
	if o.volumes {
		lines = append(lines, "  - all anonymous volumes not used by at least one container")
	}
	images := "  - all dangling images"
	if o.all {
		images = "  - all images without at least one container associated to them"
	}
	return strings.Join(append(lines, images), "\n") + "\n"
}

// runPrune goes in docker's order: what holds others first. It goes on where something cannot be removed: an overlay that
// nobody can decide on is no reason to keep images.
func runPrune(ctx context.Context, cl *client.Client, out io.Writer, o pruneOptions) error {
	f := o.filter.Value()
	freed, failed := container.Prune(ctx, cl, out, f)
	nets, err := cl.NetworkPrune(ctx, client.NetworkPruneOptions{Filters: f})
	failed = errors.Join(failed, err)
	list(out, "Deleted Networks:", nets.Report.NetworksDeleted)
	if o.volumes {
		vols, err := cl.VolumePrune(ctx, client.VolumePruneOptions{Filters: f})
		failed = errors.Join(failed, err)
		list(out, "Deleted Volumes:", vols.Report.VolumesDeleted)
		freed += vols.Report.SpaceReclaimed
	}
	more, err := image.Prune(ctx, cl, out, f, o.all)
	fmt.Fprintln(out, "Total reclaimed space:", units.HumanSize(float64(freed+more)))
	return errors.Join(failed, err)
}

func list(out io.Writer, head string, names []string) {
	if len(names) > 0 {
		fmt.Fprintf(out, "%s\n%s\n\n", head, strings.Join(names, "\n"))
	}
}

package volume

import (
	"context"
	"io"
	"slices"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/cli/opts"
	"github.com/fvbommel/sortorder"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

type listOptions struct {
	quiet  bool
	format string
	filter opts.FilterOpt
}

func newListCommand(c *console.Console) *cobra.Command {
	o := listOptions{filter: opts.NewFilterOpt()}
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List volumes",
		Example: `  minictl volume ls --filter dangling=true
  minictl volume ls --format '{{.Name}} {{.Mountpoint}}'`,
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, _ []string) error {
			if o.format == "" && !o.quiet {
				o.format = c.Config().VolumesFormat
			}
			return runList(ctx, cl, c.Out, o)
		}),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only display volume names")
	fs.StringVar(&o.format, "format", "", console.FormatHelp)
	fs.VarP(&o.filter, "filter", "f", `Provide filter values (e.g. "dangling=true")`)
	return cmd
}

// listClient is what ls needs of the daemon.
type listClient interface {
	VolumeList(ctx context.Context, o client.VolumeListOptions) (client.VolumeListResult, error)
}

// runList sorts by name in natural order (data2 before data10) and leaves the layout to docker's own formatter.
func runList(ctx context.Context, cl listClient, out io.Writer, o listOptions) error {
	res, err := cl.VolumeList(ctx, client.VolumeListOptions{Filters: o.filter.Value()})
	if err != nil {
		return err
	}
	slices.SortFunc(res.Items, func(a, b volume.Volume) int { return sortorder.NaturalCompare(a.Name, b.Name) })
	format := o.format
	if format == "" {
		format = formatter.TableFormatKey
	}
	return formatter.VolumeWrite(formatter.Context{Output: out, Format: formatter.NewVolumeFormat(format, o.quiet)}, res.Items)
}

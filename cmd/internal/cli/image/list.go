package image

import (
	"context"
	"io"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/cli/opts"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

type listOptions struct {
	all, digests, noTrunc, quiet bool
	format, reference            string
	filter                       opts.FilterOpt
}

func newListCommand(c *console.Console) *cobra.Command {
	o := listOptions{filter: opts.NewFilterOpt()}
	cmd := &cobra.Command{
		Use:                   "ls [OPTIONS] [REPOSITORY[:TAG]]",
		Short:                 "List images",
		Example:               "  minictl images\n  minictl images --format '{{.Repository}}:{{.Tag}}'",
		Args:                  console.Between(0, 1),
		ValidArgsFunction:     complete.First(1, complete.Images(c)),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
			if len(args) > 0 {
				o.reference = args[0]
			}
			if o.format == "" {
				o.format = c.Config().ImagesFormat
			}
			return runList(ctx, cl, c.Out, o)
		}),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.all, "all", "a", false, "Show all images (default hides intermediate images)")
	fs.BoolVar(&o.digests, "digests", false, "Show digests")
	fs.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only show image IDs")
	fs.StringVar(&o.format, "format", "", console.FormatHelp)
	fs.VarP(&o.filter, "filter", "f", "Filter output based on conditions provided")
	return cmd
}

// listClient is what ls needs of the daemon.
type listClient interface {
	ImageList(ctx context.Context, o client.ImageListOptions) (client.ImageListResult, error)
}

func runList(ctx context.Context, cl listClient, out io.Writer, o listOptions) error {
	filters := o.filter.Value()
	if o.reference != "" {
		filters.Add("reference", o.reference)
	}
	res, err := cl.ImageList(ctx, client.ImageListOptions{All: o.all, Filters: filters})
	if err != nil {
		return err
	}
	format := o.format
	if format == "" {
		format = formatter.TableFormatKey
	}
	return formatter.ImageWrite(formatter.ImageContext{
		Context: formatter.Context{Output: out, Trunc: !o.noTrunc,
			Format: formatter.NewImageFormat(format, o.quiet, o.digests)},
		Digest: o.digests,
	}, res.Items)
}

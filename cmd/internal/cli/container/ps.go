package container

import (
	"context"
	"fmt"
	"io"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/cli/opts"
	"github.com/docker/cli/templates"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

type psOptions struct {
	all, latest, quiet, size, sizeGiven, noTrunc bool
	last                                         int
	format                                       string
	filter                                       opts.FilterOpt
}

func newPsCommand(c *console.Console) *cobra.Command {
	o := psOptions{filter: opts.NewFilterOpt()}
	cmd := &cobra.Command{
		Use:   "ps [OPTIONS]",
		Short: "List containers",
		Example: `  minictl ps -a
  minictl ps --filter name=bbox --format '{{.Names}}: {{.Networks}}'`,
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.sizeGiven = cmd.Flags().Changed("size")
			if o.format == "" {
				o.format = c.Config().PsFormat
			} else if o.quiet {
				c.Warn([]string{"Ignoring custom format, because both --format and --quiet are set."})
			}
			cl, err := c.Client()
			if err != nil {
				return err
			}
			return runPs(cmd.Context(), cl, c.Out, o)
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.all, "all", "a", false, "Show all containers (default shows just running)")
	fs.VarP(&o.filter, "filter", "f", "Filter output based on conditions provided")
	fs.StringVar(&o.format, "format", "", console.FormatHelp)
	fs.IntVarP(&o.last, "last", "n", -1, "Show n last created containers (includes all states)")
	fs.BoolVarP(&o.latest, "latest", "l", false, "Show the latest created container (includes all states)")
	fs.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only display container IDs")
	fs.BoolVarP(&o.size, "size", "s", false, "Display total file sizes")
	return cmd
}

// listClient is what ps needs of the daemon.
type listClient interface {
	ContainerList(ctx context.Context, o client.ContainerListOptions) (client.ContainerListResult, error)
}

// runPs leaves filtering to the daemon and layout to docker's own formatter, so that columns and template fields are
// exactly docker's.
func runPs(ctx context.Context, cl listClient, out io.Writer, o psOptions) error {
	if o.latest && o.last == -1 {
		o.last = 1
	}
	usesSize, err := checkPsFormat(o.format)
	if err != nil {
		return err
	}
	// Sizes are costly: asked for only when shown.
	if usesSize && !o.quiet && !o.sizeGiven {
		o.size = true
	}
	res, err := cl.ContainerList(ctx, client.ContainerListOptions{
		All: o.all, Limit: o.last, Size: o.size, Filters: o.filter.Value()})
	if err != nil {
		return err
	}
	format := o.format
	if format == "" {
		format = formatter.TableFormatKey
	}
	return formatter.ContainerWrite(formatter.Context{
		Output: out, Trunc: !o.noTrunc, Format: formatter.NewContainerFormat(format, o.quiet, o.size),
	}, res.Items)
}

// checkPsFormat runs the template on nothing, which finds a mistake even when there is no container to list.
func checkPsFormat(format string) (usesSize bool, err error) {
	if format == "" {
		return false, nil
	}
	t, err := templates.Parse(format)
	if err != nil {
		return false, fmt.Errorf("failed to parse template: %w", err)
	}
	probe := formatter.NewContainerContext()
	if err := t.Execute(io.Discard, probe); err != nil {
		return false, fmt.Errorf("failed to execute template: %w", err)
	}
	_, usesSize = probe.FieldsUsed["Size"]
	return usesSize, nil
}

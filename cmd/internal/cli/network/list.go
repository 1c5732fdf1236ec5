package network

import (
	"cmp"
	"context"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/cli/opts"
	"github.com/fvbommel/sortorder"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

const defaultTable = "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}"

type listOptions struct {
	quiet, noTrunc bool
	format         string
	filter         opts.FilterOpt
}

func newListCommand(c *console.Console) *cobra.Command {
	o := listOptions{filter: opts.NewFilterOpt()}
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List networks",
		Example: `  minictl network ls --filter driver=overlay
  minictl network ls --format '{{.Name}} {{.Scope}}'`,
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, _ []string) error {
			if o.format == "" {
				o.format = c.Config().NetworksFormat
			}
			return runList(ctx, cl, c.Out, o)
		}),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only display network IDs")
	fs.BoolVar(&o.noTrunc, "no-trunc", false, "Do not truncate the output")
	fs.StringVar(&o.format, "format", "", console.FormatHelp)
	fs.VarP(&o.filter, "filter", "f", `Provide filter values (e.g. "driver=bridge")`)
	return cmd
}

// listClient is what ls needs of the daemon.
type listClient interface {
	NetworkList(ctx context.Context, o client.NetworkListOptions) (client.NetworkListResult, error)
}

// runList sorts by name in natural order (net2 before net10), as docker does.
func runList(ctx context.Context, cl listClient, out io.Writer, o listOptions) error {
	res, err := cl.NetworkList(ctx, client.NetworkListOptions{Filters: o.filter.Value()})
	if err != nil {
		return err
	}
	slices.SortStableFunc(res.Items, func(a, b network.Summary) int {
		if a.Name == b.Name {
			return cmp.Compare(a.ID, b.ID)
		}
		return sortorder.NaturalCompare(a.Name, b.Name)
	})
	ctxt := formatter.Context{Output: out, Trunc: !o.noTrunc, Format: listFormat(o.format, o.quiet)}
	return ctxt.Write(header(), func(write func(formatter.SubContext) error) error {
		for _, n := range res.Items {
			if err := write(&row{trunc: ctxt.Trunc, n: n}); err != nil {
				return err
			}
		}
		return nil
	})
}

func listFormat(format string, quiet bool) formatter.Format {
	switch {
	case quiet && (format == "" || format == formatter.TableFormatKey):
		return formatter.DefaultQuietFormat
	case format == "" || format == formatter.TableFormatKey:
		return defaultTable
	case format == formatter.RawFormatKey:
		return `network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n`
	}
	return formatter.Format(format)
}

func header() *row {
	return &row{HeaderContext: formatter.HeaderContext{Header: formatter.SubHeaderContext{
		"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "IPv4": "IPV4", "IPv6": "IPV6",
		"Internal": "INTERNAL", "Labels": "LABELS", "CreatedAt": "CREATED AT",
	}}}
}

// row is one network as templates see it; the methods are the fields' names.
type row struct {
	formatter.HeaderContext
	trunc bool
	n     network.Summary
}

// MarshalJSON serves --format json.
func (r *row) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

// ID is 12 digits unless --no-trunc.
func (r *row) ID() string {
	if r.trunc {
		return formatter.TruncateID(r.n.ID)
	}
	return r.n.ID
}

// Name is the network's name.
func (r *row) Name() string { return r.n.Name }

// Driver is the driver's name.
func (r *row) Driver() string { return r.n.Driver }

// Scope is local, or global for a network that all hosts share.
func (r *row) Scope() string { return r.n.Scope }

// IPv4 says whether endpoints get IPv4 addresses.
func (r *row) IPv4() string { return strconv.FormatBool(r.n.EnableIPv4) }

// IPv6 says whether endpoints get IPv6 addresses.
func (r *row) IPv6() string { return strconv.FormatBool(r.n.EnableIPv6) }

// Internal says whether the outside is unreachable.
func (r *row) Internal() string { return strconv.FormatBool(r.n.Internal) }

// CreatedAt is Go's text of the time, as docker's.
func (r *row) CreatedAt() string { return r.n.Created.String() }

// Labels are all labels, sorted.
func (r *row) Labels() string {
	var out []string
	for k, v := range r.n.Labels {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// Label is the value of one label.
func (r *row) Label(name string) string { return r.n.Labels[name] }

// Package node has the commands about the cluster's hosts: ls, inspect, update and rm.
package node

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/cli/opts"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/cmd/internal/cli/clusterapi"
	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/cmd/internal/cli/inspect"
	"github.com/minictl/minictl/cmd/internal/filters"
)

// NewCommand gives minictl node.
func NewCommand(c *console.Console) *cobra.Command {
	cmd := &cobra.Command{Use: "node COMMAND", Short: "Manage the cluster's hosts", Example: "  minictl node ls\n  minictl node rm host3"}
	cmd.AddCommand(newListCommand(c), newInspectCommand(c), newRemoveCommand(c), newUpdateCommand(c))
	return cmd
}

func newInspectCommand(c *console.Console) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:                   "inspect [OPTIONS] self|NODE [NODE...]",
		Short:                 "Display detailed information on one or more nodes",
		Example:               "  minictl node inspect self\n  minictl node inspect -f '{{.Status.Addr}}' host2",
		Args:                  console.AtLeast(1),
		ValidArgsFunction:     complete.Nodes(c),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, refs []string) error {
			return inspect.Write(c.Out, refs, format, Getter(ctx, cl, clusterapi.New(cl)))
		}),
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", inspect.FormatHelp("{{.Status.Addr}}"))
	return cmd
}

func newRemoveCommand(c *console.Console) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] NODE [NODE...]",
		Aliases: []string{"remove"},
		Short:   "Remove one or more hosts that are gone for good from the cluster",
		Long: "Remove one or more hosts that are gone for good from the cluster: their addresses are free again, their\n" +
			"containers' names are forgotten. A host that is alive leaves by itself: minictl cluster leave, on it. One that is in\n" +
			"other hands is cut off with --force; the join tokens and the gossip key that it knows are then worth nothing.",
		Example:               "  minictl node rm host3\n  minictl node rm --force stolen",
		Args:                  console.AtLeast(1),
		ValidArgsFunction:     complete.Nodes(c),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, refs []string) error {
			return c.EachError(refs, "remove nodes", func(ref string) error {
				_, err := cl.NodeRemove(ctx, ref, client.NodeRemoveOptions{Force: force})
				return err
			})
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Remove a host that is alive, too")
	return cmd
}

// nodeClient finds one node.
type nodeClient interface {
	NodeInspect(ctx context.Context, id string, o client.NodeInspectOptions) (client.NodeInspectResult, error)
}

// statusClient lists them, and knows which one we talk to.
type statusClient interface {
	Status(ctx context.Context) (api.ClusterStatus, error)
}

// Getter finds a node for the inspect commands; "self" is the host we talk to.
func Getter(ctx context.Context, cl nodeClient, st statusClient) inspect.Getter {
	return func(ref string) (any, []byte, error) {
		if ref == "self" {
			s, err := st.Status(ctx)
			if err != nil {
				return nil, nil, err
			}
			ref = s.Self
		}
		res, err := cl.NodeInspect(ctx, ref, client.NodeInspectOptions{})
		return res.Node, res.Raw, err
	}
}

type listOptions struct {
	quiet  bool
	format string
	filter opts.FilterOpt
}

func newListCommand(c *console.Console) *cobra.Command {
	o := listOptions{filter: opts.NewFilterOpt()}
	cmd := &cobra.Command{
		Use:                   "ls [OPTIONS]",
		Aliases:               []string{"list"},
		Short:                 "List the cluster's hosts",
		Example:               "  minictl node ls\n  minictl node ls --filter role=voter -q",
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, _ []string) error {
			if o.format == "" {
				o.format = c.Config().NodesFormat
			}
			return runList(ctx, clusterapi.New(cl), c.Out, o)
		}),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only display IDs")
	fs.StringVar(&o.format, "format", "", console.FormatHelp)
	fs.VarP(&o.filter, "filter", "f", "Filter output: id=, name=, role=voter|learner|witness, status=ready|down")
	return cmd
}

// runList takes the cluster's own status: docker's node objects know managers and workers, ours vote or learn.
func runList(ctx context.Context, st statusClient, out io.Writer, o listOptions) error {
	want := filters.Set(o.filter.Value())
	if err := want.Only("id", "name", "role", "status"); err != nil {
		return fmt.Errorf("%w: want id, name, role or status", err)
	}
	s, err := st.Status(ctx)
	if err != nil {
		return err
	}
	if err := checkFilters(want, s.Nodes); err != nil {
		return err
	}
	nodes := slices.DeleteFunc(s.Nodes, func(n api.ClusterNodeStatus) bool { return !matches(want, n) })
	slices.SortStableFunc(nodes, func(a, b api.ClusterNodeStatus) int { return strings.Compare(a.Name, b.Name) })
	ctxt := formatter.Context{Output: out, Format: listFormat(o.format, o.quiet)}
	return ctxt.Write(header(), func(write func(formatter.SubContext) error) error {
		for _, n := range nodes {
			if err := write(&row{n: n, self: n.ID == s.Self}); err != nil {
				return err
			}
		}
		return nil
	})
}

// checkFilters refuses what no node can be, with docker's words. What a node is can be asked for: with an external store
// there are other roles.
func checkFilters(want filters.Set, nodes []api.ClusterNodeStatus) error {
	roles, states := []string{"voter", "learner", "witness"}, []string{"ready", "down"}
	for _, n := range nodes {
		roles, states = append(roles, n.Role), append(states, n.Status)
	}
	for _, f := range []struct {
		name string
		can  []string
		help string
	}{{"role", roles, "voter, learner or witness"}, {"status", states, "ready or down"}} {
		for v := range want[f.name] {
			if !slices.ContainsFunc(f.can, func(can string) bool { return strings.EqualFold(can, v) }) {
				return fmt.Errorf("Invalid %s filter: '%s': want %s", f.name, v, f.help)
			}
		}
	}
	return nil
}

// matches follows docker: id and name fit by their beginning.
func matches(f filters.Set, n api.ClusterNodeStatus) bool {
	return f.Begins("id", n.ID) && f.Begins("name", n.Name) &&
		f.Any("role", func(v string) bool { return strings.EqualFold(n.Role, v) }) &&
		f.Any("status", func(v string) bool { return strings.EqualFold(n.Status, v) })
}

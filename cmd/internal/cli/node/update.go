package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/clusterapi"
	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

// updateOptions are node update's. Docker's --role and --availability have no meaning here, and are unknown flags.
type updateOptions struct {
	add    opts.ListOpts // key=value
	remove []string
}

func newUpdateCommand(c *console.Console) *cobra.Command {
	o := updateOptions{add: opts.NewListOpts(nil)}
	cmd := &cobra.Command{
		Use:                   "update [OPTIONS] self|NODE",
		Short:                 "Change a host's labels",
		Example:               "  minictl node update --label-add rack=7 host2\n  docker node ls --filter node.label=rack=7",
		Args:                  console.Exactly(1),
		ValidArgsFunction:     complete.Nodes(c),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, refs []string) error {
			return runUpdate(ctx, cl, clusterapi.New(cl), c.Out, refs[0], o)
		}),
	}
	fs := cmd.Flags()
	fs.Var(&o.add, "label-add", "Add or change a label (key=value)")
	fs.StringSliceVar(&o.remove, "label-rm", nil, "Remove a label by its key")
	return cmd
}

// updateClient changes one node.
type updateClient interface {
	nodeClient
	NodeUpdate(ctx context.Context, id string, o client.NodeUpdateOptions) (client.NodeUpdateResult, error)
}

func runUpdate(ctx context.Context, cl updateClient, st statusClient, out io.Writer, ref string, o updateOptions) error {
	if o.add.Len()+len(o.remove) == 0 {
		return errors.New("nothing to change: give --label-add or --label-rm")
	}
	id := ref
	if ref == "self" {
		s, err := st.Status(ctx)
		if err != nil {
			return err
		}
		id = s.Self
	}
	res, err := cl.NodeInspect(ctx, id, client.NodeInspectOptions{})
	if err != nil {
		return err
	}
	spec := res.Node.Spec
	labels := maps.Clone(spec.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, opts.ConvertKVStringsToMap(o.add.GetSlice()))
	for _, key := range o.remove {
		if _, ok := labels[key]; !ok {
			return fmt.Errorf("key %s doesn't exist in node's labels", key)
		}
		delete(labels, key)
	}
	spec.Labels = labels
	if _, err := cl.NodeUpdate(ctx, res.Node.ID, client.NodeUpdateOptions{Version: res.Node.Version, Spec: spec}); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, ref)
	return err
}

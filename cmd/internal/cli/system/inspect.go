package system

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/clusterapi"
	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/cmd/internal/cli/container"
	"github.com/minictl/minictl/cmd/internal/cli/image"
	"github.com/minictl/minictl/cmd/internal/cli/inspect"
	"github.com/minictl/minictl/cmd/internal/cli/network"
	"github.com/minictl/minictl/cmd/internal/cli/node"
	"github.com/minictl/minictl/cmd/internal/cli/volume"
)

// kind is a sort of object and the way to find one.
type kind struct {
	name string
	get  inspect.Getter
}

func newInspectCommand(c *console.Console) *cobra.Command {
	var (
		format, only string
		size         bool
	)
	cmd := &cobra.Command{
		Use:                   "inspect [OPTIONS] NAME|ID [NAME|ID...]",
		Short:                 "Return low-level information on containers, images, networks, volumes and nodes",
		Example:               "  minictl inspect bbox1\n  minictl inspect --type network -f '{{.Scope}}' ov_net1",
		Args:                  console.AtLeast(1),
		ValidArgsFunction:     complete.Containers(c, true),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, refs []string) error {
			cl, err := c.Client()
			if err != nil {
				return err
			}
			kinds, err := choose(kinds(cmd.Context(), cl, size), only, cmd.Flags().Changed("type"))
			if err != nil {
				return err
			}
			return inspect.Write(c.Out, refs, format, first(kinds, only != ""))
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&format, "format", "f", "", inspect.FormatHelp("{{.Id}}"))
	fs.StringVar(&only, "type", "", "Only inspect objects of the given type")
	fs.BoolVarP(&size, "size", "s", false, "Display total file sizes if the type is container")
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(
		[]string{"container", "image", "network", "node", "volume"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// kinds are in docker's order: a container's name wins over an image's.
func kinds(ctx context.Context, cl *client.Client, size bool) []kind {
	return []kind{
		{"container", container.Getter(ctx, cl, size)},
		{"image", image.Getter(ctx, cl, nil)},
		{"network", network.Getter(ctx, cl, false)},
		{"volume", volume.Getter(ctx, cl)},
		{"node", node.Getter(ctx, cl, clusterapi.New(cl))},
	}
}

// choose keeps the kind that --type names, or all.
func choose(all []kind, only string, given bool) ([]kind, error) {
	if !given {
		return all, nil
	}
	var names []string
	for _, k := range all {
		names = append(names, k.name)
	}
	i := slices.Index(names, only)
	if i < 0 {
		return nil, fmt.Errorf("unknown type: %q: must be one of \"%s\"", only, strings.Join(names, `", "`))
	}
	return all[i : i+1], nil
}

// first tries the kinds in turn. What a daemon does not know at all (nodes of a single host) counts as not
// found, unless it was asked for by name.
func first(kinds []kind, exact bool) inspect.Getter {
	return func(ref string) (any, []byte, error) {
		for _, k := range kinds {
			v, raw, err := k.get(ref)
			if err == nil || exact || !skippable(err) {
				return v, raw, err
			}
		}
		return nil, nil, fmt.Errorf("error: no such object: %s", ref)
	}
}

// skippable errors say that this kind of object has none of that name.
func skippable(err error) bool {
	return errdefs.IsNotFound(err) || errdefs.IsNotImplemented(err) || errdefs.IsUnavailable(err) ||
		strings.Contains(err.Error(), "not supported") || strings.Contains(err.Error(), "invalid reference format")
}

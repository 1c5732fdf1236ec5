// Package complete offers live names (containers, networks, volumes, images, nodes) to the shell's completion.
package complete

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/console"
)

// timeout keeps a key press from hanging on a daemon that does not answer.
const timeout = 2 * time.Second

// Func is cobra's ValidArgsFunction.
type Func = cobra.CompletionFunc

// None says that nothing can be offered, not even file names.
func None(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// Containers offers container names: all of them, or the running ones.
func Containers(c *console.Console, all bool) Func {
	return names(c, func(ctx context.Context, cl *client.Client) ([]string, error) {
		res, err := cl.ContainerList(ctx, client.ContainerListOptions{All: all})
		return containerNames(res.Items), err
	})
}

func containerNames(items []container.Summary) []string {
	var out []string
	for _, i := range items {
		for _, n := range i.Names {
			out = append(out, strings.TrimPrefix(n, "/"))
		}
	}
	return out
}

// Networks offers network names.
func Networks(c *console.Console) Func {
	return names(c, func(ctx context.Context, cl *client.Client) ([]string, error) {
		res, err := cl.NetworkList(ctx, client.NetworkListOptions{})
		var out []string
		for _, n := range res.Items {
			out = append(out, n.Name)
		}
		return out, err
	})
}

// Volumes offers volume names.
func Volumes(c *console.Console) Func {
	return names(c, func(ctx context.Context, cl *client.Client) ([]string, error) {
		res, err := cl.VolumeList(ctx, client.VolumeListOptions{})
		var out []string
		for _, v := range res.Items {
			out = append(out, v.Name)
		}
		return out, err
	})
}

// VolumeFlag offers what may stand before the first colon of -v: volume names, or, after a slash or a dot, files.
func VolumeFlag(c *console.Console) Func { return beforeColon(Volumes(c), "") }

// CopyPath offers what may stand for a file of cp: a container's name and a colon, or a file of this machine.
func CopyPath(c *console.Console) Func { return beforeColon(Containers(c, true), ":") }

// beforeColon offers a list's names, with end behind each, up to the first colon. After a slash or a dot, or where no
// name fits, it is files.
func beforeColon(list Func, end string) Func {
	return func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		switch {
		case strings.Contains(prefix, ":"):
			return nil, cobra.ShellCompDirectiveNoFileComp
		case strings.HasPrefix(prefix, "/") || strings.HasPrefix(prefix, "."):
			return nil, cobra.ShellCompDirectiveDefault
		}
		found, directive := list(cmd, nil, prefix)
		if len(found) == 0 && end != "" {
			return nil, cobra.ShellCompDirectiveDefault
		}
		for i := range found {
			found[i] += end
		}
		return found, directive | cobra.ShellCompDirectiveNoSpace // more is to follow
	}
}

// Images offers image references by name.
func Images(c *console.Console) Func {
	return names(c, func(ctx context.Context, cl *client.Client) ([]string, error) {
		res, err := cl.ImageList(ctx, client.ImageListOptions{})
		var out []string
		for _, i := range res.Items {
			out = append(out, i.RepoTags...)
		}
		return out, err
	})
}

// Nodes offers node names, and self.
func Nodes(c *console.Console) Func {
	return names(c, func(ctx context.Context, cl *client.Client) ([]string, error) {
		res, err := cl.NodeList(ctx, client.NodeListOptions{})
		out := []string{"self"}
		for _, n := range res.Items {
			out = append(out, n.Description.Hostname)
		}
		return out, err
	})
}

// First limits what to the first n arguments; what comes after is the container's own command line.
func First(n int, what Func) Func {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= n {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return what(cmd, args, prefix)
	}
}

// Then offers first for the first argument and rest for the others.
func Then(first, rest Func) Func {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return first(cmd, args, prefix)
		}
		return rest(cmd, args, prefix)
	}
}

func names(c *console.Console, list func(context.Context, *client.Client) ([]string, error)) Func {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		cl, err := c.Client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
		defer cancel()
		found, err := list(ctx, cl)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		found = slices.DeleteFunc(found, func(n string) bool {
			return !strings.HasPrefix(n, prefix) || slices.Contains(args, n)
		})
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

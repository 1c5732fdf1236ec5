package image

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/platforms"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

type pushOptions struct {
	all, quiet bool
	platform   string
}

func newPushCommand(c *console.Console) *cobra.Command {
	var o pushOptions
	cmd := &cobra.Command{
		Use:                   "push [OPTIONS] NAME[:TAG]",
		Short:                 "Upload an image to a registry",
		Example:               "  minictl push registry.example:5000/team/site:1",
		Args:                  console.Exactly(1),
		ValidArgsFunction:     complete.First(1, complete.Images(c)),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
			return runPush(ctx, cl, c, args[0], o)
		}),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.all, "all-tags", "a", false, "Push all tags of an image to the repository")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress verbose output")
	fs.StringVar(&o.platform, "platform", "", "Push a platform-specific manifest as a single-platform image to the registry")
	return cmd
}

// pushClient is what push needs of the daemon.
type pushClient interface {
	ImagePush(ctx context.Context, ref string, o client.ImagePushOptions) (client.ImagePushResponse, error)
}

func runPush(ctx context.Context, cl pushClient, c *console.Console, name string, o pushOptions) error {
	ref, err := tagged(name, o.all, o.quiet, c.Out)
	if err != nil {
		return err
	}
	po := client.ImagePushOptions{All: o.all}
	if o.platform != "" {
		p, err := platforms.Parse(o.platform)
		if err != nil {
			return err
		}
		po.Platform = &p
	}
	if po.RegistryAuth, err = credentials(c, ref.String()); err != nil {
		return err
	}
	resp, err := cl.ImagePush(ctx, ref.String(), po)
	if err != nil {
		return err
	}
	defer resp.Close()
	if !o.quiet {
		return show(resp, c.Out)
	}
	if err := show(resp, io.Discard); err != nil {
		return err
	}
	fmt.Fprintln(c.Out, ref.String())
	return nil
}

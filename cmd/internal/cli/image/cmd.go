// Package image has the commands about images: pull, load, ls, tag and the like.
package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/docker/cli/opts"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/cmd/internal/cli/inspect"
)

// Commands gives the commands that stand at the top level, such as minictl pull.
func Commands(c *console.Console) []*cobra.Command {
	ls := newListCommand(c)
	ls.Use = "images [OPTIONS] [REPOSITORY[:TAG]]"
	rm := newRemoveCommand(c)
	rm.Use = "rmi [OPTIONS] IMAGE [IMAGE...]"
	return append(shared(c), ls, rm)
}

// NewCommand gives minictl image.
func NewCommand(c *console.Console) *cobra.Command {
	cmd := &cobra.Command{Use: "image COMMAND", Short: "Manage images", Example: "  minictl image ls"}
	cmd.AddCommand(shared(c)...)
	ls := newListCommand(c)
	ls.Aliases = []string{"list"}
	rm := newRemoveCommand(c)
	rm.Aliases = []string{"remove", "rmi"}
	cmd.AddCommand(ls, rm, newInspectCommand(c), newPruneCommand(c))
	return cmd
}

// shared are spelled the same in both places. A command has one parent, so each place gets its own.
func shared(c *console.Console) []*cobra.Command {
	return []*cobra.Command{newPullCommand(c), newLoadCommand(c), newImportCommand(c), newTagCommand(c), newBuildCommand(c), newPushCommand(c), newSaveCommand(c), newHistoryCommand(c)}
}

func newLoadCommand(c *console.Console) *cobra.Command {
	var (
		input, platform string
		quiet           bool
	)
	cmd := &cobra.Command{
		Use:                   "load [OPTIONS]",
		Short:                 "Load an image from a tar archive or STDIN",
		Example:               "  minictl load -i busybox.tar\n  docker save busybox | minictl load",
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, _ []string) error {
			p, err := variant(platform)
			if err != nil {
				return err
			}
			return runLoad(ctx, cl, c, input, quiet, p)
		}),
	}
	cmd.Flags().StringVarP(&input, "input", "i", "", "Read from tar archive file, instead of STDIN")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Suppress the load output")
	cmd.Flags().StringVar(&platform, "platform", "", "Load only the given platform variant (os[/arch[/variant]])")
	return cmd
}

// loadClient is what load needs of the daemon.
type loadClient interface {
	ImageLoad(ctx context.Context, in io.Reader, o ...client.ImageLoadOption) (client.ImageLoadResult, error)
}

// runLoad refuses to wait for an archive that a user would have to type.
func runLoad(ctx context.Context, cl loadClient, c *console.Console, input string, quiet bool, platform *ocispec.Platform) error {
	var in io.Reader = c.In
	if input != "" && input != "-" {
		f, err := os.Open(input)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	} else if c.In.IsTerminal() {
		return errors.New("requested load from stdin, but stdin is a terminal: name the archive with -i FILE")
	}
	// Progress makes sense on a terminal only; what was loaded is said either way.
	o := []client.ImageLoadOption{client.ImageLoadWithQuiet(quiet || !c.Out.IsTerminal())}
	if platform != nil {
		o = append(o, client.ImageLoadWithPlatforms(*platform))
	}
	res, err := cl.ImageLoad(ctx, in, o...)
	if err != nil {
		return err
	}
	defer res.Close()
	return show(res, c.Out)
}

func newImportCommand(c *console.Console) *cobra.Command {
	var (
		changes           = opts.NewListOpts(nil)
		message, platform string
	)
	cmd := &cobra.Command{
		Use:                   "import [OPTIONS] FILE|URL|- [REPOSITORY[:TAG]]",
		Short:                 "Import the contents from a tarball to create a filesystem image",
		Example:               "  tar -C rootfs -c . | minictl import -c 'CMD [\"/bin/sh\"]' - tiny:latest",
		Args:                  console.Between(1, 2),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
			o := client.ImageImportOptions{Message: message, Changes: changes.GetSlice()}
			if platform != "" {
				p, err := platforms.Parse(platform)
				if err != nil {
					return err
				}
				o.Platform = p
			}
			return runImport(ctx, cl, c, args[0], strings.Join(args[1:], ""), o)
		}),
	}
	cmd.Flags().VarP(&changes, "change", "c", "Apply Dockerfile instruction to the created image")
	cmd.Flags().StringVarP(&message, "message", "m", "", "Set commit message for imported image")
	cmd.Flags().StringVar(&platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"),
		"Set platform if server is multi-platform capable")
	return cmd
}

// importClient is what import needs of the daemon.
type importClient interface {
	ImageImport(ctx context.Context, s client.ImageImportSource, ref string, o client.ImageImportOptions) (client.ImageImportResult, error)
}

func runImport(ctx context.Context, cl importClient, c *console.Console, from, ref string, o client.ImageImportOptions) error {
	source := client.ImageImportSource{SourceName: "-"}
	switch {
	case from == "-":
		source.Source = c.In
	case strings.HasPrefix(from, "https://"), strings.HasPrefix(from, "http://"):
		source.SourceName = from // the daemon fetches it
	default:
		f, err := os.Open(from)
		if err != nil {
			return err
		}
		defer f.Close()
		source.Source = f
	}
	res, err := cl.ImageImport(ctx, source, ref, o)
	if err != nil {
		return err
	}
	defer res.Close()
	return show(res, c.Out)
}

func newTagCommand(c *console.Console) *cobra.Command {
	return &cobra.Command{
		Use:                   "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
		Short:                 "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
		Example:               "  minictl tag busybox:latest busybox:stable",
		Args:                  console.Exactly(2),
		ValidArgsFunction:     complete.Images(c),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
			_, err := cl.ImageTag(ctx, client.ImageTagOptions{Source: args[0], Target: args[1]})
			return err
		}),
	}
}

func newInspectCommand(c *console.Console) *cobra.Command {
	var format, platform string
	cmd := &cobra.Command{
		Use:                   "inspect [OPTIONS] IMAGE [IMAGE...]",
		Short:                 "Display detailed information on one or more images",
		Example:               "  minictl image inspect -f '{{.Config.Cmd}}' busybox",
		Args:                  console.AtLeast(1),
		ValidArgsFunction:     complete.Images(c),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, refs []string) error {
			p, err := variant(platform)
			if err != nil {
				return err
			}
			return inspect.Write(c.Out, refs, format, Getter(ctx, cl, p))
		}),
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", inspect.FormatHelp("{{.Id}}"))
	cmd.Flags().StringVar(&platform, "platform", "", "Inspect a specific platform of the multi-platform image")
	return cmd
}

// inspectClient is what looking at one image needs of the daemon.
type inspectClient interface {
	ImageInspect(ctx context.Context, ref string, o ...client.ImageInspectOption) (client.ImageInspectResult, error)
}

// Getter finds an image for the inspect commands; platform nil is the daemon's own.
func Getter(ctx context.Context, cl inspectClient, platform *ocispec.Platform) inspect.Getter {
	return func(ref string) (any, []byte, error) {
		var raw bytes.Buffer
		o := []client.ImageInspectOption{client.ImageInspectWithRawResponse(&raw)}
		if platform != nil {
			o = append(o, client.ImageInspectWithPlatform(platform))
		}
		res, err := cl.ImageInspect(ctx, ref, o...)
		return res.InspectResponse, raw.Bytes(), err
	}
}

// removeClient is what rmi needs of the daemon.
type removeClient interface {
	ImageRemove(ctx context.Context, ref string, o client.ImageRemoveOptions) (client.ImageRemoveResult, error)
}

func newRemoveCommand(c *console.Console) *cobra.Command {
	var force, noPrune bool
	var variants []string
	cmd := &cobra.Command{
		Use:                   "rm [OPTIONS] IMAGE [IMAGE...]",
		Short:                 "Remove one or more images",
		Example:               "  minictl rmi busybox:old",
		Args:                  console.AtLeast(1),
		ValidArgsFunction:     complete.Images(c),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, refs []string) error {
			o := client.ImageRemoveOptions{Force: force, PruneChildren: !noPrune}
			for _, v := range variants {
				p, err := platforms.Parse(v)
				if err != nil {
					return err
				}
				o.Platforms = append(o.Platforms, p)
			}
			return runRemove(ctx, cl, c, refs, o)
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force removal of the image")
	cmd.Flags().BoolVar(&noPrune, "no-prune", false, "Do not delete untagged parents")
	cmd.Flags().StringSliceVar(&variants, "platform", nil, "Remove only the given platform variant (os[/arch[/variant]])")
	return cmd
}

// runRemove tries all images; with force a missing one is a note and not a failure.
func runRemove(ctx context.Context, cl removeClient, c *console.Console, refs []string, o client.ImageRemoveOptions) error {
	var errs []error
	for _, ref := range refs {
		res, err := cl.ImageRemove(ctx, ref, o)
		if err != nil {
			if o.Force && errdefs.IsNotFound(err) {
				fmt.Fprintln(c.Err, err)
				continue
			}
			errs = append(errs, err)
			continue
		}
		for _, d := range res.Items {
			if d.Deleted != "" {
				fmt.Fprintln(c.Out, "Deleted:", d.Deleted)
			} else {
				fmt.Fprintln(c.Out, "Untagged:", d.Untagged)
			}
		}
	}
	return errors.Join(errs...)
}

package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/jsonmessage"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

// Puller is what pulling needs of the daemon.
type Puller interface {
	ImagePull(ctx context.Context, ref string, o client.ImagePullOptions) (client.ImagePullResponse, error)
}

// PullOptions say what is pulled and where its progress goes.
type PullOptions struct {
	Platform string // os[/arch[/variant]]; empty is the daemon's own
	All      bool
	Quiet    bool
	Out      io.Writer
}

func newPullCommand(c *console.Console) *cobra.Command {
	o := PullOptions{Out: c.Out}
	cmd := &cobra.Command{
		Use:   "pull [OPTIONS] NAME[:TAG|@DIGEST]",
		Short: "Download an image from a registry",
		Example: `  minictl pull busybox
  minictl pull --platform linux/arm64 busybox:1.36`,
		Args:                  console.Exactly(1),
		ValidArgsFunction:     complete.First(1, complete.Images(c)),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
			return runPull(ctx, cl, c, args[0], o)
		}),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.All, "all-tags", "a", false, "Download all tagged images in the repository")
	fs.BoolVarP(&o.Quiet, "quiet", "q", false, "Suppress verbose output")
	fs.StringVar(&o.Platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"),
		"Set platform if server is multi-platform capable")
	return cmd
}

// runPull says which tag it took when none was given, and at the end the full name, as docker does.
func runPull(ctx context.Context, cl Puller, c *console.Console, name string, o PullOptions) error {
	ref, err := tagged(name, o.All, o.Quiet, o.Out)
	if err != nil {
		return err
	}
	if err := Pull(ctx, cl, c, ref.String(), o); err != nil {
		return err
	}
	fmt.Fprintln(c.Out, ref.String())
	return nil
}

// tagged gives an image's full name, with the default tag unless all are meant, and says so.
func tagged(name string, all, quiet bool, out io.Writer) (reference.Named, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("image %q: %w", name, err)
	case all && !reference.IsNameOnly(ref):
		return nil, errors.New("tag can't be used with --all-tags/-a")
	case all || !reference.IsNameOnly(ref):
		return ref, nil
	}
	ref = reference.TagNameOnly(ref)
	if t, ok := ref.(reference.Tagged); ok && !quiet {
		fmt.Fprintln(out, "Using default tag:", t.Tag())
	}
	return ref, nil
}

// Pull fetches ref, a full name, with the credentials that docker's configuration file has for its registry. Progress
// goes to o.Out: bars on a terminal, plain lines otherwise, nothing with o.Quiet.
func Pull(ctx context.Context, cl Puller, c *console.Console, ref string, o PullOptions) error {
	var want []ocispec.Platform
	if o.Platform != "" {
		p, err := platforms.Parse(o.Platform)
		if err != nil {
			return err
		}
		want = append(want, p)
	}
	auth, err := credentials(c, ref)
	if err != nil {
		return err
	}
	resp, err := cl.ImagePull(ctx, ref, client.ImagePullOptions{RegistryAuth: auth, All: o.All, Platforms: want})
	if err != nil {
		return err
	}
	defer resp.Close()
	out := o.Out
	if o.Quiet {
		out = io.Discard
	}
	return show(resp, out)
}

// show prints the daemon's progress lines; an error among them is the error.
func show(in io.Reader, out io.Writer) error {
	fd, terminal := terminalOf(out)
	return jsonmessage.DisplayJSONMessagesStream(in, out, fd, terminal, nil)
}

// terminalOf looks through docker's stream wrapper, which knows what it wraps.
func terminalOf(out io.Writer) (uintptr, bool) {
	t, ok := out.(interface {
		FD() uintptr
		IsTerminal() bool
	})
	if !ok {
		return 0, false
	}
	return t.FD(), t.IsTerminal()
}

// credentials gives the encoded X-Registry-Auth header for ref's registry; empty credentials are sent as such.
func credentials(c *console.Console, ref string) (string, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", fmt.Errorf("image %q: %w", ref, err)
	}
	host := reference.Domain(named)
	if host == "docker.io" {
		host = "https://index.docker.io/v1/" // the key docker login has always written
	}
	a, err := c.Config().GetAuthConfig(host)
	if err != nil {
		return "", fmt.Errorf("credentials for %s: %w", host, err)
	}
	return authconfig.Encode(registry.AuthConfig{
		Username: a.Username, Password: a.Password, Auth: a.Auth, ServerAddress: a.ServerAddress,
		IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
	})
}

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/cmd/internal/cli/image"
)

// When --pull fetches the image.
const (
	pullAlways  = "always"
	pullMissing = "missing"
	pullNever   = "never"
)

// createOptions are the flags of run and create that are about the request and not the container.
type createOptions struct {
	name, platform, pull string
	quiet                bool
	image                string
	args                 []string
	flags                *createFlags
}

func (o *createOptions) add(fs *pflag.FlagSet) {
	fs.SetInterspersed(false) // what follows the image is the container's
	fs.StringVar(&o.name, "name", "", "Assign a name to the container")
	fs.StringVar(&o.pull, "pull", pullMissing, `Pull image before running ("always", "missing", "never")`)
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress the pull output")
	fs.StringVar(&o.platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"),
		"Set platform if server is multi-platform capable")
	fs.Bool("help", false, "Print usage") // without -h, which is --hostname here
	o.flags = newCreateFlags(fs)
}

func (o *createOptions) setArgs(args []string) {
	o.image, o.args = args[0], args[1:]
	if len(o.args) == 0 {
		o.args = nil // the image's own command, which an empty list would clear
	}
}

func newCreateCommand(c *console.Console) *cobra.Command {
	var o createOptions
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Create a new container",
		Example: `  minictl create --name web --network ov_net1 -p 80:80 httpd
  minictl start web`,
		Args:                  console.AtLeast(1),
		ValidArgsFunction:     complete.First(1, complete.Images(c)),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.setArgs(args)
			cl, err := c.Client()
			if err != nil {
				return err
			}
			return runCreate(cmd.Context(), cl, c, cmd.Flags(), &o)
		},
	}
	o.add(cmd.Flags())
	completeCreateFlags(c, cmd)
	return cmd
}

// completeCreateFlags offers names where a flag takes one.
func completeCreateFlags(c *console.Console, cmd *cobra.Command) {
	for flag, f := range map[string]complete.Func{
		"network":      complete.Networks(c),
		"volume":       complete.VolumeFlag(c),
		"volumes-from": complete.Containers(c, true),
		"link":         complete.Containers(c, false),
		"pull":         cobra.FixedCompletions([]string{pullAlways, pullMissing, pullNever}, cobra.ShellCompDirectiveNoFileComp),
		"restart": cobra.FixedCompletions([]string{"no", "always", "on-failure", "unless-stopped"},
			cobra.ShellCompDirectiveNoFileComp),
	} {
		_ = cmd.RegisterFlagCompletionFunc(flag, f) // errs only for a flag that does not exist
	}
}

// runCreate prints the ID and nothing else, so that $(minictl create …) is the container.
func runCreate(ctx context.Context, cl createClient, c *console.Console, fs *pflag.FlagSet, o *createOptions) error {
	s, err := o.spec(c, fs)
	if err != nil {
		return console.Exit(exitDaemon, err)
	}
	id, err := create(ctx, cl, c, s, o)
	if err != nil {
		return console.Exit(1, err)
	}
	fmt.Fprintln(c.Out, id)
	return nil
}

// createClient is what creating a container needs of the daemon.
type createClient interface {
	ContainerCreate(ctx context.Context, o client.ContainerCreateOptions) (client.ContainerCreateResult, error)
	image.Puller
}

// spec checks the flags and builds the request; the proxies of docker's configuration file become variables, which
// the user's own override.
func (o *createOptions) spec(c *console.Console, fs *pflag.FlagSet) (*spec, error) {
	switch o.pull {
	case pullAlways, pullMissing, pullNever:
	default:
		return nil, fmt.Errorf("invalid pull option: '%s': must be one of %q, %q or %q",
			o.pull, pullAlways, pullMissing, pullNever)
	}
	s, err := o.flags.build(fs, o.image, o.args)
	if err != nil {
		return nil, err
	}
	s.config.Env = append(proxyEnv(c, s.config.Env), s.config.Env...)
	if s.config.Tty {
		h, w := c.Out.GetTtySize()
		s.host.ConsoleSize = [2]uint{h, w}
	}
	return s, nil
}

// create makes the container, pulling the image when the daemon does not have it. Its warnings go to stderr.
func create(ctx context.Context, cl createClient, c *console.Console, s *spec, o *createOptions) (string, error) {
	named, err := namedImage(s.config.Image)
	if err != nil {
		return "", err
	}
	platform, err := parsePlatform(o.platform)
	if err != nil {
		return "", err
	}
	cid, err := openCIDFile(s.host.ContainerIDFile)
	if err != nil {
		return "", err
	}
	defer cid.close()
	pull := func() error {
		return image.Pull(ctx, cl, c, named.String(), image.PullOptions{Platform: o.platform, Quiet: o.quiet, Out: c.Err})
	}
	if o.pull == pullAlways && named != nil {
		if err := pull(); err != nil {
			return "", err
		}
	}
	if len(s.order) > 1 {
		ctx = console.WithHeader(ctx, api.NetworkOrderHeader, strings.Join(s.order, ","))
	}
	request := client.ContainerCreateOptions{Config: s.config, HostConfig: s.host, NetworkingConfig: s.network,
		Platform: platform, Name: o.name}
	res, err := cl.ContainerCreate(ctx, request)
	if errdefs.IsNotFound(err) && named != nil && o.pull == pullMissing {
		if !o.quiet {
			fmt.Fprintf(c.Err, "Unable to find image '%s' locally\n", reference.FamiliarString(named))
		}
		if err := pull(); err != nil {
			return "", err
		}
		res, err = cl.ContainerCreate(ctx, request)
	}
	if err != nil {
		return "", err
	}
	c.Warn(res.Warnings)
	return res.ID, cid.write(res.ID)
}

// namedImage gives the full name with its tag; nil when image is an ID, which nobody can pull.
func namedImage(image string) (reference.Named, error) {
	ref, err := reference.ParseAnyReference(image)
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", image, err)
	}
	if named, ok := ref.(reference.Named); ok {
		return reference.TagNameOnly(named), nil
	}
	return nil, nil
}

func parsePlatform(s string) (*ocispec.Platform, error) {
	if s == "" {
		return nil, nil
	}
	p, err := platforms.Parse(s)
	if err != nil {
		return nil, err
	}
	return &p, nil
}

// proxyEnv gives the proxy variables of docker's configuration file that env does not set itself.
func proxyEnv(c *console.Console, env []string) []string {
	given := map[string]*string{}
	for _, e := range env {
		given[cutKey(e)] = &e
	}
	var out []string
	for k, v := range c.Config().ParseProxyConfig(c.Host(), nil) {
		if _, set := given[k]; !set && v != nil {
			out = append(out, k+"="+*v)
		}
	}
	return out
}

// cidFile is --cidfile's: made before the container, so that a file that is there already stops everything, and
// removed again when no container came of it.
type cidFile struct {
	path    string
	written bool
}

// openCIDFile creates with O_EXCL: of two commands with one file, one gets it.
func openCIDFile(path string) (*cidFile, error) {
	if path == "" {
		return &cidFile{}, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("create the container ID file: %w", err)
	}
	return &cidFile{path: path}, f.Close()
}

func (f *cidFile) write(id string) error {
	if f.path == "" {
		return nil
	}
	if err := os.WriteFile(f.path, []byte(id), 0o644); err != nil {
		return fmt.Errorf("write the container ID file: %w", err)
	}
	f.written = true
	return nil
}

func (f *cidFile) close() {
	if f.path != "" && !f.written {
		_ = os.Remove(f.path) // nothing depends on it
	}
}

func cutKey(env string) string {
	k, _, _ := strings.Cut(env, "=")
	return k
}

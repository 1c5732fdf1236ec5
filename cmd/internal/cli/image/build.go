package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	dockerbuild "github.com/docker/cli/cli/command/image/build"
	"github.com/docker/cli/opts"
	"github.com/moby/go-archive"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/jsonmessage"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/console"
)

// buildOptions are docker build's flags.
type buildOptions struct {
	tags, labels, args, hosts                    opts.ListOpts
	ulimits                                      *opts.UlimitOpt
	shm                                          opts.MemBytes
	file, target, platform, network, idFile      string
	cacheFrom                                    []string
	quiet, noCache, pull, compress, keep, forced bool
}

func newBuildCommand(c *console.Console) *cobra.Command {
	o := buildOptions{
		tags: opts.NewListOpts(validTag), labels: opts.NewListOpts(opts.ValidateLabel), args: opts.NewListOpts(opts.ValidateEnv),
		hosts: opts.NewListOpts(opts.ValidateExtraHost), ulimits: opts.NewUlimitOpt(&map[string]*container.Ulimit{}),
	}
	cmd := &cobra.Command{
		Use:                   "build [OPTIONS] PATH | URL | -",
		Short:                 "Build an image from a Dockerfile",
		Long:                  "Build an image from a Dockerfile. The daemon has a BuildKit do it: buildkitd must run on its host, or be named with\nminictl daemon --buildkit.",
		Example:               "  minictl build -t site:1 .\n  minictl build -t site:1 -f deploy/Dockerfile --build-arg VERSION=1.2 .",
		Args:                  console.Exactly(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
			return runBuild(ctx, cl, c, args[0], o)
		}),
	}
	fs := cmd.Flags()
	fs.VarP(&o.tags, "tag", "t", `Name and optionally a tag in the "name:tag" format`)
	fs.StringVarP(&o.file, "file", "f", "", `Name of the Dockerfile (Default is "PATH/Dockerfile")`)
	fs.Var(&o.args, "build-arg", "Set build-time variables")
	fs.Var(&o.labels, "label", "Set metadata for an image")
	fs.Var(&o.hosts, "add-host", `Add a custom host-to-IP mapping ("host:ip")`)
	fs.Var(o.ulimits, "ulimit", "Ulimit options")
	fs.Var(&o.shm, "shm-size", `Size of "/dev/shm"`)
	fs.StringVar(&o.target, "target", "", "Set the target build stage to build")
	fs.StringVar(&o.network, "network", "default", "Set the networking mode for the RUN instructions during build")
	fs.StringVar(&o.platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform if server is multi-platform capable")
	fs.StringVar(&o.idFile, "iidfile", "", "Write the image ID to the file")
	fs.StringSliceVar(&o.cacheFrom, "cache-from", nil, "Images to consider as cache sources")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress the build output and print image ID on success")
	fs.BoolVar(&o.noCache, "no-cache", false, "Do not use cache when building the image")
	fs.BoolVar(&o.pull, "pull", false, "Always attempt to pull a newer version of the image")
	fs.BoolVar(&o.compress, "compress", false, "Compress the build context using gzip")
	fs.BoolVar(&o.keep, "rm", true, "Remove intermediate containers after a successful build (there are none)")
	fs.BoolVar(&o.forced, "force-rm", false, "Always remove intermediate containers (there are none)")
	return cmd
}

func validTag(name string) (string, error) {
	_, err := reference.ParseNormalizedNamed(name)
	return name, err
}

// buildClient is what build needs of the daemon.
type buildClient interface {
	ImageBuild(ctx context.Context, in io.Reader, o client.ImageBuildOptions) (client.ImageBuildResult, error)
}

func runBuild(ctx context.Context, cl buildClient, c *console.Console, where string, o buildOptions) error {
	req, err := o.request(c)
	if err != nil {
		return err
	}
	if o.idFile != "" { // a stale one would be taken for this build's
		if err := os.Remove(o.idFile); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	in, dockerfile, done, err := buildContext(c, where, o)
	defer done()
	if err != nil {
		return err
	}
	req.Dockerfile = dockerfile
	res, err := cl.ImageBuild(ctx, in, req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	id, err := showBuild(res.Body, c.Out, o.quiet)
	if err != nil || o.idFile == "" {
		return err
	}
	if id == "" {
		return fmt.Errorf("server did not provide an image ID. Cannot write %s", o.idFile)
	}
	return os.WriteFile(o.idFile, []byte(id), 0o666)
}

// showBuild prints the daemon's lines and gives the image's ID, which a quiet build prints alone.
func showBuild(in io.Reader, out io.Writer, quiet bool) (id string, err error) {
	if quiet {
		var text strings.Builder
		if err := jsonmessage.DisplayJSONMessagesStream(in, &text, 0, false, nil); err != nil {
			return "", err
		}
		_, err := io.WriteString(out, text.String())
		return strings.TrimSpace(text.String()), err
	}
	fd, terminal := terminalOf(out)
	err = jsonmessage.DisplayJSONMessagesStream(in, out, fd, terminal, func(m jsonstream.Message) {
		var r build.Result
		if m.Aux != nil && json.Unmarshal(*m.Aux, &r) == nil {
			id = r.ID
		}
	})
	return id, err
}

// request is the flags as the API has them, with all credentials: only the Dockerfile knows which registries it needs.
func (o buildOptions) request(c *console.Console) (client.ImageBuildOptions, error) {
	cfg := c.Config()
	req := client.ImageBuildOptions{
		Tags: o.tags.GetSlice(), Labels: opts.ConvertKVStringsToMap(o.labels.GetSlice()), ExtraHosts: o.hosts.GetSlice(),
		BuildArgs: cfg.ParseProxyConfig(c.Host(), opts.ConvertKVStringsToMapWithNil(o.args.GetSlice())),
		Ulimits:   o.ulimits.GetList(), ShmSize: o.shm.Value(), Target: o.target, NetworkMode: o.network, CacheFrom: o.cacheFrom,
		SuppressOutput: o.quiet, NoCache: o.noCache, PullParent: o.pull, Remove: o.keep, ForceRemove: o.forced,
		AuthConfigs: map[string]registry.AuthConfig{},
	}
	if o.platform != "" {
		p, err := platforms.Parse(o.platform)
		if err != nil {
			return req, err
		}
		req.Platforms = []ocispec.Platform{p}
	}
	// A helper that fails is asked for registries that this build may never need: docker goes on as well.
	all, _ := cfg.GetAllCredentials()
	for host, a := range all {
		req.AuthConfigs[host] = registry.AuthConfig{
			Username: a.Username, Password: a.Password, Auth: a.Auth, ServerAddress: a.ServerAddress, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
		}
	}
	return req, nil
}

// buildContext is what is sent: a folder without what its .dockerignore names, an archive, a repository. done removes what
// it made, and is to be called after an error, too.
func buildContext(c *console.Console, where string, o buildOptions) (in io.ReadCloser, dockerfile string, done func(), err error) {
	done = func() {}
	kind, err := dockerbuild.DetectContextType(where)
	if err != nil {
		return nil, "", done, err
	}
	if o.file == "-" && kind == dockerbuild.ContextTypeStdin {
		return nil, "", done, errors.New("invalid argument: can't use stdin for both build context and dockerfile")
	}
	dir := where
	switch kind {
	case dockerbuild.ContextTypeStdin:
		in, dockerfile, err = dockerbuild.GetContextFromReader(c.In, o.file)
	case dockerbuild.ContextTypeRemote:
		in, dockerfile, err = dockerbuild.GetContextFromURL(c.Err, where, o.file)
	case dockerbuild.ContextTypeGit:
		if dir, dockerfile, err = dockerbuild.GetContextFromGitURL(where, o.file); err == nil {
			done = func() { _ = os.RemoveAll(dir) }
		}
	default:
		dir, dockerfile, err = dockerbuild.GetContextFromLocalDir(where, o.file)
	}
	if err != nil {
		return nil, "", done, fmt.Errorf("unable to prepare context: %w", err)
	}
	var apart io.ReadCloser // a Dockerfile that is not in the context
	switch {
	case o.file == "-":
		apart = c.In
	case in == nil && strings.HasPrefix(dockerfile, ".."+string(filepath.Separator)):
		if apart, err = os.Open(o.file); err != nil {
			return nil, "", done, err
		}
	}
	if in == nil {
		if in, err = pack(dir, filepath.ToSlash(dockerfile), o.file == "-"); err != nil {
			return nil, "", done, err
		}
	}
	if apart != nil {
		if in, dockerfile, err = dockerbuild.AddDockerfileToBuildContext(apart, in); err != nil {
			return nil, "", done, err
		}
	}
	if o.compress {
		in, err = dockerbuild.Compress(in)
	}
	return in, filepath.ToSlash(dockerfile), done, err
}

// pack makes a tar of a folder.
func pack(dir, dockerfile string, fromStdin bool) (io.ReadCloser, error) {
	excludes, err := dockerbuild.ReadDockerignore(dir)
	if err != nil {
		return nil, err
	}
	if err := dockerbuild.ValidateContextDirectory(dir, excludes); err != nil {
		return nil, fmt.Errorf("checking context: %w", err)
	}
	return archive.TarWithOptions(dir, &archive.TarOptions{
		ExcludePatterns: dockerbuild.TrimBuildFilesFromExcludes(excludes, dockerfile, fromStdin), ChownOpts: &archive.ChownOpts{},
	})
}

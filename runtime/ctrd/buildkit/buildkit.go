// Package buildkit has a BuildKit daemon, which runs elsewhere, build images, and takes in what it made.
package buildkit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/upload/uploadprovider"
	"github.com/moby/buildkit/util/progress/progressui"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/minictl/minictl/runtime/image"
)

// DefaultAddr is where BuildKit's own packages and units serve it.
const DefaultAddr = "unix:///run/buildkit/buildkitd.sock"

// answersIn bounds how long a BuildKit has to answer at all.
const answersIn = 10 * time.Second

// Images is this host's store: what a build may begin with, and where its result goes.
type Images interface {
	Images(ctx context.Context) ([]image.Image, error)
	Load(ctx context.Context, in io.Reader, platform string, p image.Progress) ([]string, error)
	// Blobs are the images' contents.
	Blobs() content.Store
}

// Builder builds images. It dials its BuildKit for each build, so that one may come and go.
type Builder struct {
	where  image.BuildKit // an empty address: DefaultAddr if there is one
	images Images
}

// New makes a builder. An empty address means DefaultAddr whenever its socket exists.
func New(where image.BuildKit, images Images) *Builder { return &Builder{where: where, images: images} }

// Build has an image built from a context, a tar, and takes it in under its names. The error when there is no BuildKit
// is errdefs.ErrNotImplemented; when the one that was named does not answer, errdefs.ErrUnavailable.
func (b *Builder) Build(ctx context.Context, o image.Build, tar io.Reader, p image.Progress) (id string, err error) {
	c, err := b.dial(ctx)
	if err != nil {
		return "", err
	}
	defer c.Close()
	attrs := attrs(o)
	opt := client.SolveOpt{Frontend: "dockerfile.v0", FrontendAttrs: attrs, Session: []session.Attachable{credentials{by: o.Auth}}}
	if o.Remote == "" {
		up := uploadprovider.New()
		attrs["context"] = up.Add(io.NopCloser(tar))
		opt.Session = append(opt.Session, up)
	}
	if o.Network == "host" {
		opt.AllowedEntitlements = []string{"network.host"}
	}
	if !o.Pull {
		here, err := b.images.Images(ctx)
		if err != nil {
			return "", err
		}
		for k, v := range localImages(here) {
			attrs[k] = v
		}
		opt.OCIStores = map[string]content.Store{store: b.images.Blobs()}
	}
	return b.solve(ctx, c, opt, strings.Join(o.Tags, ","), p)
}

// dial makes sure that somebody answers.
func (b *Builder) dial(ctx context.Context) (*client.Client, error) {
	addr := b.where.Addr
	if addr == "" {
		addr = DefaultAddr
		if u, err := url.Parse(addr); err != nil || !exists(u.Path) {
			return nil, None(addr)
		}
	}
	var opts []client.ClientOpt
	if b.where.CA != "" {
		opts = append(opts, client.WithServerConfig(b.where.ServerName, b.where.CA))
	}
	if b.where.Cert != "" {
		opts = append(opts, client.WithCredentials(b.where.Cert, b.where.Key))
	}
	c, err := client.New(ctx, addr, opts...)
	if err != nil {
		return nil, fmt.Errorf("build: BuildKit at %s: %w: %w", addr, err, errdefs.ErrUnavailable)
	}
	ask, cancel := context.WithTimeout(ctx, answersIn)
	defer cancel()
	if _, err := c.ListWorkers(ask); err != nil {
		return nil, errors.Join(fmt.Errorf("build: BuildKit at %s does not answer: %s: start buildkitd, or name another with minictl daemon --buildkit: %w", addr, reason(err), errdefs.ErrUnavailable), c.Close())
	}
	return c, nil
}

// None is the refusal to build on a host without a BuildKit at addr.
func None(addr string) error {
	return errdefs.ErrNotImplemented.WithMessage("building needs a BuildKit daemon, and none serves " + addr +
		": start buildkitd on this host (or name one with \"minictl daemon --buildkit ADDR\"); or build elsewhere: \"docker buildx build -o type=docker . | minictl load\"")
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// solve runs the build and its three streams: progress out, the context in (by the session), the image in.
func (b *Builder) solve(ctx context.Context, c *client.Client, opt client.SolveOpt, names string, p image.Progress) (string, error) {
	pr, pw := io.Pipe()
	opt.Exports = []client.ExportEntry{{
		Type: client.ExporterDocker, Attrs: map[string]string{"name": names},
		Output: func(map[string]string) (io.WriteCloser, error) { return pw, nil },
	}}
	display, err := progressui.NewDisplay(streamWriter{p}, progressui.PlainMode)
	if err != nil {
		return "", fmt.Errorf("build: %w", err)
	}
	var g errgroup.Group
	var refused error // why the image was not taken in
	g.Go(func() error {
		_, refused = b.images.Load(ctx, pr, "", silent{})
		pr.CloseWithError(refused)
		return nil
	})
	lines := make(chan *client.SolveStatus)
	g.Go(func() error {
		// Until the channel closes, whatever becomes of ctx: Solve sends to it to the end.
		_, _ = display.UpdateFrom(context.WithoutCancel(ctx), lines)
		return nil
	})
	res, err := c.Solve(ctx, nil, opt, lines)
	if err != nil {
		pw.CloseWithError(err)
	} else {
		pw.Close()
	}
	_ = g.Wait()
	switch {
	case err != nil && refused != nil && !errors.Is(refused, err) && strings.Contains(err.Error(), refused.Error()):
		return "", fmt.Errorf("build: %w", refused)
	case err != nil:
		return "", buildError(err)
	case refused != nil:
		return "", fmt.Errorf("build: %w", refused)
	}
	return res.ExporterResponse[exptypes.ExporterImageConfigDigestKey], nil
}

// buildError is the builder's own words; a mistake in the Dockerfile is the user's, and not this daemon's failure.
func buildError(err error) error {
	if status.Code(err) == codes.Unavailable {
		return errdefs.ErrUnavailable.WithMessage("build: BuildKit went away: " + reason(err))
	}
	return errors.New(reason(err))
}

// reason leaves gRPC's own words out of an error.
func reason(err error) string {
	text := err.Error()
	if s, ok := status.FromError(err); ok && s.Message() != "" {
		text = s.Message()
	}
	return strings.TrimPrefix(text, "failed to solve: ")
}

// streamWriter makes lines of progress of what the display prints.
type streamWriter struct{ p image.Progress }

// Write implements io.Writer.
func (w streamWriter) Write(b []byte) (int, error) {
	w.p.Stream(string(b))
	return len(b), nil
}

// silent takes the taking-in's own progress: the build says what was made.
type silent struct{}

// Status implements image.Progress.
func (silent) Status(string, string, int64, int64) {}

// Stream implements image.Progress.
func (silent) Stream(string) {}

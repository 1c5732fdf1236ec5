package ctrd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	rules "github.com/minictl/minictl/runtime/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// pullsAtOnce is how many layers of one image come at the same time, docker's default.
const pullsAtOnce = 3

// Pull fetches an image from its registry and unpacks it, telling its progress in docker's words. platform is empty for
// this host's; auth may be nil. What an interrupted pull brought is not fetched again.
func (r *Runtime) Pull(ctx context.Context, ref, platform string, auth *rules.Auth, p rules.Progress) error {
	name, err := rules.ParseName(ref)
	if err != nil {
		return err
	}
	match := platforms.MatchComparer(platforms.Default())
	want := platforms.DefaultSpec()
	if platform != "" {
		if want, err = platforms.Parse(platform); err != nil {
			return fmt.Errorf("pull image: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		match = platforms.Only(want)
	}
	ctx, done, err := r.keepForPull(r.ctx(ctx), name.String())
	if err != nil {
		return fmt.Errorf("pull image: %w", err)
	}
	pl := &pull{r: r, cs: r.client.ContentStore(), name: name, out: &oneAtATime{p: p}, match: match, want: want}
	err = r.withRoom(ctx, func(ctx context.Context) error { return pl.run(ctx, auth) })
	done(err == nil, pl.brought)
	if err != nil {
		return pullError(name, err)
	}
	return nil
}

// pull is one image on its way.
type pull struct {
	r       *Runtime
	cs      content.Store
	name    reference.Named
	out     rules.Progress
	match   platforms.MatchComparer
	want    ocispec.Platform
	fetcher remotes.Fetcher
	brought bool // whether there may be layers worth keeping
}

func (p *pull) run(ctx context.Context, auth *rules.Auth) error {
	resolver := p.r.resolver(p.name, auth)
	resolved, root, err := resolver.Resolve(ctx, p.name.String())
	if err != nil {
		return err
	}
	if p.fetcher, err = resolver.Fetcher(ctx, resolved); err != nil {
		return err
	}
	p.out.Status("Pulling from "+reference.Path(p.name), tagOf(p.name), 0, 0)
	target, err := p.manifest(ctx, root)
	if err != nil {
		return err
	}
	before, _ := p.r.Image(ctx, p.name.String())
	id, err := p.layers(ctx, target)
	if err != nil {
		return err
	}
	known := reference.TrimNamed(p.name).String() + "@" + root.Digest.String()
	if _, err := p.r.setName(ctx, p.name.String(), target, map[string]string{labelRepoDigest: known}); err != nil {
		return err
	}
	p.out.Status("Digest: "+root.Digest.String(), "", 0, 0)
	news := "Status: Downloaded newer image for "
	if before.ID == id {
		news = "Status: Image is up to date for "
	}
	p.out.Status(news+reference.FamiliarString(p.name), "", 0, 0)
	return nil
}

func tagOf(name reference.Named) string {
	switch n := name.(type) {
	case reference.Digested:
		return n.Digest().String()
	case reference.Tagged:
		return n.Tag()
	}
	return ""
}

// manifest fetches down to the manifest of the wanted platform.
func (p *pull) manifest(ctx context.Context, d ocispec.Descriptor) (ocispec.Descriptor, error) {
	for depth := 0; ; depth++ {
		if err := p.fetch(ctx, d); err != nil {
			return d, err
		}
		if !images.IsIndexType(d.MediaType) {
			return d, p.rightPlatform(ctx, d)
		}
		if depth > 2 { // an index of indexes is legal, a loop of them an attack
			return d, fmt.Errorf("index %s: nested too deep: %w", d.Digest, errdefs.ErrInvalidArgument)
		}
		next, err := choose(ctx, p.cs, d, p.match)
		if errdefs.IsNotFound(err) {
			return d, fmt.Errorf("no matching manifest for %s in the manifest list entries: %w", platforms.Format(p.want), errdefs.ErrNotFound)
		}
		if err != nil {
			return d, err
		}
		d = next
	}
}

// rightPlatform fetches the configuration and refuses an image for another platform than the asked for. An image that
// does not say is taken at its name.
func (p *pull) rightPlatform(ctx context.Context, d ocispec.Descriptor) error {
	var m ocispec.Manifest
	if err := readJSON(ctx, p.cs, d, &m); err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	if err := p.fetch(ctx, m.Config); err != nil {
		return err
	}
	var c ocispec.Image
	if err := readJSON(ctx, p.cs, m.Config, &c); err != nil {
		return fmt.Errorf("read image configuration: %w", err)
	}
	if c.Architecture != "" && !p.match.Match(platforms.Normalize(c.Platform)) {
		return fmt.Errorf("image with reference %s was found but its platform (%s) does not match the specified platform (%s): %w",
			reference.FamiliarString(p.name), platforms.Format(c.Platform), platforms.Format(p.want), errdefs.ErrNotFound)
	}
	return nil
}

func (p *pull) fetch(ctx context.Context, d ocispec.Descriptor) error {
	_, err := remotes.FetchHandler(p.cs, p.fetcher)(ctx, d)
	return err
}

// layers downloads a few layers at a time and unpacks each as soon as it and those below it are there.
func (p *pull) layers(ctx context.Context, target ocispec.Descriptor) (string, error) {
	var m ocispec.Manifest
	if err := readJSON(ctx, p.cs, target, &m); err != nil {
		return "", fmt.Errorf("read manifest: %w", err)
	}
	p.brought = true
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(pullsAtOnce + 1) // one more: the goroutine that starts them
	here := make([]chan struct{}, len(m.Layers))
	had := make([]bool, len(m.Layers)) // each is written before its channel is closed
	for i, l := range m.Layers {
		here[i] = make(chan struct{})
		p.out.Status("Pulling fs layer", rules.ShortID(l.Digest.String()), 0, 0)
	}
	g.Go(func() error {
		for i, l := range m.Layers {
			g.Go(func() error {
				defer close(here[i])
				var err error
				had[i], err = p.layer(gctx, l)
				return err
			})
		}
		return nil
	})
	id, err := p.r.assemble(gctx, target, layerHooks{
		ready: func(i int) error {
			select {
			case <-here[i]:
			case <-gctx.Done():
				return context.Cause(gctx)
			}
			if !had[i] {
				p.out.Status("Extracting", rules.ShortID(m.Layers[i].Digest.String()), m.Layers[i].Size, m.Layers[i].Size)
			}
			return nil
		},
		done: func(i int, l ocispec.Descriptor) {
			if !had[i] {
				p.out.Status("Pull complete", rules.ShortID(l.Digest.String()), 0, 0)
			}
		},
	})
	// A failed download is the cause, whatever the unpacking made of it.
	if failed := g.Wait(); failed != nil {
		return "", failed
	}
	return id, err
}

// layer brings one layer, or takes the one that is here under the pull's protection, and tells which.
func (p *pull) layer(ctx context.Context, l ocispec.Descriptor) (had bool, err error) {
	short := rules.ShortID(l.Digest.String())
	asked := false
	counted := remotes.FetcherFunc(func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		asked = true
		rc, err := p.fetcher.Fetch(ctx, d)
		if err != nil {
			return nil, err
		}
		return &counter{ReadCloser: rc, total: d.Size, tell: func(n int64) { p.out.Status("Downloading", short, n, d.Size) }}, nil
	})
	err = persistently(ctx, func(text string) { p.out.Status(text, short, 0, 0) }, func() error {
		_, err := remotes.FetchHandler(p.cs, counted)(ctx, l)
		return err
	})
	switch {
	case err != nil:
		return false, err
	case !asked:
		p.out.Status("Already exists", short, 0, 0)
	default:
		p.out.Status("Verifying Checksum", short, 0, 0)
		p.out.Status("Download complete", short, 0, 0)
	}
	return !asked, nil
}

// counter tells how much of a download has come, ten times a second at most.
type counter struct {
	io.ReadCloser
	n, total int64
	last     time.Time
	tell     func(n int64)
}

// Read implements io.Reader.
func (c *counter) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.n += int64(n)
	if now := time.Now(); now.Sub(c.last) >= 100*time.Millisecond {
		c.last = now
		c.tell(c.n)
	}
	return n, err
}

// Seek implements io.Seeker, so that a download goes on where it was cut: what is skipped is not asked for.
func (c *counter) Seek(offset int64, whence int) (int64, error) {
	s, ok := c.ReadCloser.(io.Seeker)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	n, err := s.Seek(offset, whence)
	if err == nil {
		c.n = n
	}
	return n, err
}

// oneAtATime lets several layers tell their progress.
type oneAtATime struct {
	mu sync.Mutex
	p  rules.Progress
}

// Status implements rules.Progress.
func (o *oneAtATime) Status(status, id string, current, total int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.p.Status(status, id, current, total)
}

// Stream implements rules.Progress.
func (o *oneAtATime) Stream(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.p.Stream(text)
}

// pick is the manifest that d is or leads to, among blobs that are all here.
func pick(ctx context.Context, cs content.Provider, d ocispec.Descriptor, match platforms.MatchComparer) (ocispec.Descriptor, error) {
	for range 3 {
		if !images.IsIndexType(d.MediaType) {
			return bare(d), nil
		}
		next, err := choose(ctx, cs, d, match)
		if err != nil {
			return d, err
		}
		d = next
	}
	return d, fmt.Errorf("index %s: nested too deep: %w", d.Digest, errdefs.ErrInvalidArgument)
}

// choose is the best manifest of an index for a platform.
func choose(ctx context.Context, cs content.Provider, index ocispec.Descriptor, match platforms.MatchComparer) (ocispec.Descriptor, error) {
	var idx ocispec.Index
	if err := readJSON(ctx, cs, index, &idx); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("read index: %w", err)
	}
	found := slices.DeleteFunc(idx.Manifests, func(d ocispec.Descriptor) bool {
		return isAttestation(d) || d.Platform != nil && !match.Match(*d.Platform)
	})
	if len(found) == 0 {
		return ocispec.Descriptor{}, fmt.Errorf("index %s: no manifest for the platform: %w", index.Digest, errdefs.ErrNotFound)
	}
	slices.SortStableFunc(found, func(a, b ocispec.Descriptor) int {
		switch {
		case a.Platform == nil || b.Platform == nil:
			return 0
		case match.Less(*a.Platform, *b.Platform):
			return -1
		case match.Less(*b.Platform, *a.Platform):
			return 1
		}
		return 0
	})
	return bare(found[0]), nil
}

// bare leaves of a descriptor what identifies the blob; annotations of an archive's index are names, which we keep elsewhere.
func bare(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform}
}

package ctrd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	rules "github.com/minictl/minictl/runtime/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// pushesAtOnce is how many layers of one image go at the same time, docker's default.
const pushesAtOnce = 5

// Push sends an image to the registry that its name names, telling its progress in docker's words. With all, every tag
// of the repository goes. auth may be nil.
func (r *Runtime) Push(ctx context.Context, ref string, all bool, auth *rules.Auth, p rules.Progress) error {
	name, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return fmt.Errorf("push: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if _, ok := name.(reference.Digested); ok {
		return fmt.Errorf("cannot push a digest reference: %w", errdefs.ErrInvalidArgument)
	}
	ctx, done, err := r.client.WithLease(r.ctx(ctx))
	if err != nil {
		return fmt.Errorf("push %s: %w", ref, err)
	}
	defer done(context.WithoutCancel(ctx))
	recs, byID, err := r.records(ctx)
	if err != nil {
		return err
	}
	tags := []string{rules.Familiar(reference.TagNameOnly(name).String())}
	if all {
		tags = slices.Sorted(maps.Keys(rules.Tags(listed(byID), reference.TrimNamed(name).String())))
	}
	out := &oneAtATime{p: p}
	pushed := false
	for _, rec := range recs {
		if !slices.Contains(tags, rules.Familiar(rec.Name)) {
			continue
		}
		if !pushed {
			out.Status("The push refers to repository ["+reference.TrimNamed(name).String()+"]", "", 0, 0)
		}
		pushed = true
		if err := r.pushOne(ctx, rec, auth, out); err != nil {
			return err
		}
	}
	if !pushed {
		what := "tag: " + reference.FamiliarString(reference.TagNameOnly(name))
		if all {
			what = "repository: " + reference.FamiliarName(name)
		}
		return errdefs.ErrNotFound.WithMessage("An image does not exist locally with the " + what)
	}
	return nil
}

// pushOne sends what one name means.
func (r *Runtime) pushOne(ctx context.Context, rec record, auth *rules.Auth, out rules.Progress) error {
	name, err := rules.ParseName(rec.Name)
	if err != nil {
		return err
	}
	pusher, err := r.resolver(name, auth).Pusher(ctx, rec.Name)
	if err != nil {
		return pushError(name, err)
	}
	s := &push{cs: r.client.ContentStore(), to: pusher, out: out}
	target := bare(rec.Target)
	if err := s.image(ctx, target); err != nil {
		return pushError(name, err)
	}
	out.Status(fmt.Sprintf("%s: digest: %s size: %d", tagOf(name), target.Digest, target.Size), "", 0, 0)
	known := reference.TrimNamed(name).String() + "@" + target.Digest.String()
	_, err = r.client.ImageService().Update(ctx, images.Image{Name: rec.Name, Target: rec.Target, Labels: map[string]string{labelRepoDigest: known}}, "labels."+labelRepoDigest)
	if err != nil && !errdefs.IsNotFound(err) { // its name was taken away meanwhile
		return fmt.Errorf("keep digest of %s: %w", rules.Familiar(rec.Name), err)
	}
	return nil
}

// push is one image on its way out.
type push struct {
	cs  content.Provider
	to  remotes.Pusher
	out rules.Progress
}

// image sends the layers side by side, then the configuration, and the manifest last: a registry takes one only when it
// has all that it names.
func (s *push) image(ctx context.Context, target ocispec.Descriptor) error {
	var m ocispec.Manifest
	if err := readJSON(ctx, s.cs, target, &m); err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	for _, l := range m.Layers {
		s.out.Status("Preparing", rules.ShortID(l.Digest.String()), 0, 0)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(pushesAtOnce)
	for _, l := range m.Layers {
		g.Go(func() error { return s.layer(gctx, l) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, d := range []ocispec.Descriptor{m.Config, target} {
		if err := s.blob(ctx, d, func(int64) {}); err != nil && !errdefs.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}

func (s *push) layer(ctx context.Context, l ocispec.Descriptor) error {
	short := rules.ShortID(l.Digest.String())
	err := s.blob(ctx, l, func(n int64) { s.out.Status("Pushing", short, n, l.Size) })
	switch {
	case errdefs.IsAlreadyExists(err):
		s.out.Status("Layer already exists", short, 0, 0)
	case err != nil:
		return err
	default:
		s.out.Status("Pushed", short, 0, 0)
	}
	return nil
}

// blob sends one; errdefs.ErrAlreadyExists when the registry has it.
func (s *push) blob(ctx context.Context, d ocispec.Descriptor, tell func(int64)) error {
	ra, err := s.cs.ReaderAt(ctx, d)
	if err != nil {
		return fmt.Errorf("read %s: %w", d.Digest, err)
	}
	defer ra.Close()
	w, err := s.to.Push(ctx, d)
	if err != nil {
		return err
	}
	defer w.Close()
	rd := &counter{ReadCloser: io.NopCloser(content.NewReader(ra)), total: d.Size, tell: tell}
	if err := content.Copy(ctx, w, readerOnly{rd}, d.Size, d.Digest); err != nil && !errors.Is(err, content.ErrReset) {
		return err
	}
	return nil
}

// readerOnly hides what else a reader can do: a seek would spoil the count.
type readerOnly struct{ io.Reader }

// pushError turns a registry's refusal into docker's words.
func pushError(name reference.Named, err error) error {
	if refused(err) {
		return fmt.Errorf("push access denied for %s, repository does not exist or may require 'docker login': denied: requested access to the resource is denied: %w",
			reference.FamiliarName(name), errdefs.ErrPermissionDenied)
	}
	return fmt.Errorf("push %s: %w", reference.FamiliarString(name), withAdvice(reference.Domain(name), err))
}

package ctrd

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	rules "github.com/minictl/minictl/runtime/image"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An image record of containerd's is one name of an image. Ours always target a manifest of one platform, never an
// index, so that what a name means does not depend on which other platforms' parts happen to be here. A record's name is
// a normalized reference, or danglingPrefix and the image's ID when nothing else names it.
const (
	danglingPrefix = "dangling@"
	// labelRepoDigest on a record holds repository@digest as the registry told it at the pull; the digest may be an index's.
	labelRepoDigest = "minictl/repo-digest"
)

// anyPlatform takes every manifest, since our records target one only.
type anyPlatform struct{ platforms.MatchComparer }

// Match implements platforms.Matcher.
func (anyPlatform) Match(ocispec.Platform) bool { return true }

func anyOf() platforms.MatchComparer { return anyPlatform{platforms.Default()} }

// record is one name together with the image it names.
type record struct {
	images.Image
	id string // digest of the image's configuration
}

// records lists every name, and what it names; those whose content is damaged are left out with a warning.
func (r *Runtime) records(ctx context.Context) ([]record, map[string]rules.Image, error) {
	all, err := r.client.ImageService().List(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("list images: %w", err)
	}
	var out []record
	byTarget := map[digest.Digest]rules.Image{}
	byID := map[string]rules.Image{}
	for _, rec := range all {
		img, read := byTarget[rec.Target.Digest]
		if !read {
			if img, err = r.describe(ctx, rec.Target); err != nil {
				r.log.Warn("image cannot be read: pull or load it again", "image", rec.Name, "err", err)
				continue
			}
			byTarget[rec.Target.Digest] = img
		}
		out = append(out, record{rec, img.ID})
		if sum, known := byID[img.ID]; known {
			img = sum
		}
		byID[img.ID] = named(img, rec)
	}
	return out, byID, nil
}

// named adds a record's names to the image it belongs to.
func named(img rules.Image, rec images.Image) rules.Image {
	add := func(names []string, name string) []string {
		if i, found := slices.BinarySearch(names, name); !found {
			names = slices.Insert(names, i, name)
		}
		return names
	}
	if !strings.HasPrefix(rec.Name, danglingPrefix) && !strings.Contains(rec.Name, "@") {
		img.RepoTags = add(img.RepoTags, rules.Familiar(rec.Name))
		if rec.UpdatedAt.After(img.Tagged) {
			img.Tagged = rec.UpdatedAt
		}
	}
	if d := rec.Labels[labelRepoDigest]; d != "" {
		img.RepoDigests = add(img.RepoDigests, rules.Familiar(d))
	}
	return img
}

// describe reads an image without its names.
func (r *Runtime) describe(ctx context.Context, target ocispec.Descriptor) (rules.Image, error) {
	cs := r.client.ContentStore()
	m, err := images.Manifest(ctx, cs, target, anyOf())
	if err != nil {
		return rules.Image{}, fmt.Errorf("read manifest %s: %w", target.Digest, err)
	}
	var d dockerspec.DockerOCIImage
	if err := readJSON(ctx, cs, m.Config, &d); err != nil {
		return rules.Image{}, fmt.Errorf("read image configuration: %w", err)
	}
	c := d.Image
	c.Config = d.Config.ImageConfig
	img := rules.Image{ID: m.Config.Digest.String(), Config: c, Docker: d.Config.DockerOCIImageConfigExt, Target: target, Content: target.Size + m.Config.Size, Labels: c.Config.Labels}
	if c.Created != nil {
		img.Created = *c.Created
	}
	if img.Labels == nil {
		img.Labels = map[string]string{}
	}
	for _, l := range m.Layers {
		img.Content += l.Size
	}
	img.Size = r.imageSize(ctx, m, c)
	return img, nil
}

// imageSize is what the unpacked layers take; for layers that are not unpacked, their compressed size.
func (r *Runtime) imageSize(ctx context.Context, m ocispec.Manifest, c ocispec.Image) int64 {
	sn := r.client.SnapshotService(r.snapshotter)
	var size int64
	for i, l := range m.Layers {
		if i < len(c.RootFS.DiffIDs) {
			// ChainID writes into its argument.
			chain := identity.ChainID(slices.Clone(c.RootFS.DiffIDs[:i+1]))
			if u, err := sn.Usage(ctx, chain.String()); err == nil {
				size += u.Size
				continue
			}
		}
		size += l.Size
	}
	return size
}

// readJSON reads a manifest, an index or a configuration. A hostile archive or registry may call gigabytes so.
func readJSON(ctx context.Context, cs content.Provider, d ocispec.Descriptor, v any) error {
	if d.Size > maxDocument {
		return fmt.Errorf("%s: %d bytes are too many for a manifest or a configuration: %w", d.Digest, d.Size, errdefs.ErrInvalidArgument)
	}
	b, err := content.ReadBlob(ctx, cs, d)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// Images lists this host's images, newest first.
func (r *Runtime) Images(ctx context.Context) ([]rules.Image, error) {
	_, byID, err := r.records(r.ctx(ctx))
	if err != nil {
		return nil, err
	}
	return listed(byID), nil
}

func listed(byID map[string]rules.Image) []rules.Image {
	all := make([]rules.Image, 0, len(byID))
	for _, i := range byID {
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b rules.Image) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// Image finds an image by name, name:tag, name@digest, ID or prefix of an ID. The error for one that is not here is
// docker's text and errdefs.ErrNotFound.
func (r *Runtime) Image(ctx context.Context, ref string) (rules.Image, error) {
	all, err := r.Images(ctx)
	if err != nil {
		return rules.Image{}, err
	}
	img, _, err := rules.Find(all, ref)
	return img, err
}

// resolveImage is Image as containerd's client has it.
func (r *Runtime) resolveImage(ctx context.Context, ref string) (containerd.Image, error) {
	ctx = r.ctx(ctx)
	recs, byID, err := r.records(ctx)
	if err != nil {
		return nil, err
	}
	img, _, err := rules.Find(listed(byID), ref)
	if err != nil {
		return nil, err
	}
	for _, rec := range recs {
		if rec.id == img.ID {
			return containerd.NewImageWithPlatform(r.client, rec.Image, anyOf()), nil
		}
	}
	return nil, rules.NotFound(ref)
}

// Tag gives an image one more name; the name is taken from whichever image had it.
func (r *Runtime) Tag(ctx context.Context, ref, target string) error {
	name, err := rules.ParseName(target)
	if err != nil {
		return fmt.Errorf("tag image: %w", err)
	}
	if _, ok := name.(reference.Digested); ok {
		return fmt.Errorf("tag image: refusing to create a tag with a digest reference: %w", errdefs.ErrInvalidArgument)
	}
	img, err := r.resolveImage(ctx, ref)
	if err != nil {
		return err
	}
	_, err = r.setName(r.ctx(ctx), name.String(), img.Target(), nil)
	return err
}

// setName makes name mean target. The image that had the name stays, dangling, when it was its last one; its ID is given.
func (r *Runtime) setName(ctx context.Context, name string, target ocispec.Descriptor, labels map[string]string) (displaced string, err error) {
	recs, _, err := r.records(ctx)
	if err != nil {
		return "", err
	}
	var old record
	for _, rec := range recs {
		if rec.Name == name {
			old = rec
		}
	}
	is := r.client.ImageService()
	if old.Name != "" && old.Target.Digest != target.Digest {
		displaced = old.id
		if err := r.keepDangling(ctx, recs, old); err != nil {
			return "", err
		}
	}
	rec := images.Image{Name: name, Target: target, Labels: labels}
	if _, err = is.Create(ctx, rec); errdefs.IsAlreadyExists(err) {
		fields := []string{"target"}
		if labels != nil {
			fields = append(fields, "labels")
		}
		_, err = is.Update(ctx, rec, fields...)
	}
	if err != nil {
		return "", fmt.Errorf("name image %s: %w", name, err)
	}
	return displaced, r.dropDangling(ctx, recs, target)
}

// keepDangling names an image by its ID when the given name is the last one it has.
func (r *Runtime) keepDangling(ctx context.Context, recs []record, last record) error {
	if slices.ContainsFunc(recs, func(o record) bool { return o.id == last.id && o.Name != last.Name }) {
		return nil
	}
	rec := images.Image{Name: danglingPrefix + last.id, Target: last.Target}
	if _, err := r.client.ImageService().Create(ctx, rec); err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("keep image %s: %w", last.id, err)
	}
	return nil
}

// dropDangling takes the stand-in name away from an image that has a real one again.
func (r *Runtime) dropDangling(ctx context.Context, recs []record, target ocispec.Descriptor) error {
	for _, rec := range recs {
		if rec.Target.Digest == target.Digest && strings.HasPrefix(rec.Name, danglingPrefix) {
			if err := r.client.ImageService().Delete(ctx, rec.Name); err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("drop name %s: %w", rec.Name, err)
			}
		}
	}
	return nil
}

// RemoveImage takes a name away or deletes an image, with docker's rules; inUse gives the containers made from an image.
func (r *Runtime) RemoveImage(ctx context.Context, ref string, force bool, inUse func(id string) []rules.User) ([]rules.Removed, error) {
	ctx = r.ctx(ctx)
	recs, byID, err := r.records(ctx)
	if err != nil {
		return nil, err
	}
	plan, err := rules.PlanRemoval(listed(byID), ref, force, inUse)
	if err != nil {
		return nil, err
	}
	var mine []record
	for _, rec := range recs {
		if rec.id == plan.Image.ID {
			mine = append(mine, rec)
		}
	}
	stays := func(rec record) bool { return !slices.Contains(plan.Untag, rules.Familiar(rec.Name)) }
	if !plan.Delete && !slices.ContainsFunc(mine, stays) {
		if err := r.keepDangling(ctx, mine[:1], mine[0]); err != nil {
			return nil, err
		}
	}
	for i, rec := range mine {
		if err := r.removeName(ctx, rec, plan, i == len(mine)-1); err != nil {
			return nil, fmt.Errorf("remove image %s: %w", rules.Familiar(rec.Name), err)
		}
	}
	return plan.Steps(), nil
}

// removeName does a removal's part for one of the image's names.
func (r *Runtime) removeName(ctx context.Context, rec record, plan rules.Removal, last bool) error {
	is := r.client.ImageService()
	if !plan.Delete && !slices.Contains(plan.Untag, rules.Familiar(rec.Name)) {
		// The name stays. A digest is no name of its own, but a label beside one.
		if d := rec.Labels[labelRepoDigest]; d != "" && slices.Contains(plan.Untag, rules.Familiar(d)) {
			_, err := is.Update(ctx, images.Image{Name: rec.Name, Target: rec.Target}, "labels")
			return err
		}
		return nil
	}
	var opts []images.DeleteOpt
	if plan.Delete && last {
		// The answer says the image is deleted, so its disk space is free when it comes.
		opts = append(opts, images.SynchronousDelete())
	}
	if err := is.Delete(ctx, rec.Name, opts...); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

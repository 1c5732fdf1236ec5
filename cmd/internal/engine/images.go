package engine

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/events"
	mobyimage "github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/cmd/internal/filters"
	"github.com/minictl/minictl/runtime/image"
)

// ImageList is docker images, newest first.
func (e *Engine) ImageList(ctx context.Context, _ bool, f api.Filters) ([]mobyimage.Summary, error) {
	if err := f.Only("reference", "label", "dangling", "before", "since", "until"); err != nil {
		return nil, err
	}
	images, err := e.rt.Images(ctx)
	if err != nil {
		return nil, err
	}
	bounds, err := e.imageBounds(ctx, f)
	if err != nil {
		return nil, err
	}
	dangling, err := f.Bool("dangling")
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(images, func(a, b image.Image) int { return b.Created.Compare(a.Created) })
	out := []mobyimage.Summary{}
	for _, i := range images {
		if !bounds.contain(i.Created) || !f.Labels("label", i.Config.Config.Labels) || dangling != nil && !isDangling(i, *dangling) {
			continue
		}
		tags, digests := i.RepoTags, i.RepoDigests
		if len(f["reference"]) > 0 {
			if tags, digests = referred(i, f["reference"]); len(tags)+len(digests) == 0 {
				continue
			}
		}
		users := e.imageUsers(i.ID)
		out = append(out, mobyimage.Summary{
			ID: i.ID, RepoTags: tags, RepoDigests: digests, Created: i.Created.Unix(), Size: i.Size,
			Labels: i.Config.Config.Labels, Containers: int64(len(users)), SharedSize: -1, Manifests: manifests(i, users),
		})
	}
	return out, nil
}

// manifests is the one that an image has here: of an image for several platforms only one is taken.
func manifests(i image.Image, users []image.User) []mobyimage.ManifestSummary {
	m := mobyimage.ManifestSummary{
		ID: i.Target.Digest.String(), Available: true, Kind: mobyimage.ManifestKindImage,
		Descriptor: ocispec.Descriptor{MediaType: i.Target.MediaType, Digest: i.Target.Digest, Size: i.Target.Size},
		ImageData:  &mobyimage.ImageProperties{Platform: i.Config.Platform, Containers: []string{}},
	}
	m.Size.Content, m.Size.Total, m.ImageData.Size.Unpacked = i.Content, i.Content+i.Size, i.Size
	for _, u := range users {
		m.ImageData.Containers = append(m.ImageData.Containers, u.ID)
	}
	return []mobyimage.ManifestSummary{m}
}

// isDangling tells whether an image is listed among those without a tag, or among the others. One with nothing but a
// digest is among both, as with docker.
func isDangling(i image.Image, wanted bool) bool {
	if wanted {
		return len(i.RepoTags) == 0
	}
	return len(i.RepoTags)+len(i.RepoDigests) > 0
}

func (e *Engine) imageBounds(ctx context.Context, f api.Filters) (s span, err error) {
	for ref := range f["before"] {
		i, err := e.rt.Image(ctx, ref)
		if err != nil {
			return s, err
		}
		s.before = i.Created
	}
	for ref := range f["since"] {
		i, err := e.rt.Image(ctx, ref)
		if err != nil {
			return s, err
		}
		s.after = i.Created
	}
	for u := range f["until"] {
		if s.before, err = filters.Until(u); err != nil {
			return s, err
		}
	}
	return s, nil
}

// ImageInspect is everything about one image.
func (e *Engine) ImageInspect(ctx context.Context, ref string) (mobyimage.InspectResponse, error) {
	i, err := e.rt.Image(ctx, ref)
	if err != nil {
		return mobyimage.InspectResponse{}, err
	}
	r := mobyimage.InspectResponse{
		ID: i.ID, RepoTags: i.RepoTags, RepoDigests: i.RepoDigests, Author: i.Config.Author, Metadata: mobyimage.Metadata{LastTagTime: i.Tagged},
		Architecture: i.Config.Architecture, Variant: i.Config.Variant, Os: i.Config.OS, OsVersion: i.Config.OSVersion, Size: i.Size,
		Config: &dockerspec.DockerOCIImageConfig{ImageConfig: i.Config.Config, DockerOCIImageConfigExt: i.Docker},
		RootFS: mobyimage.RootFS{Type: i.Config.RootFS.Type}, Manifests: manifests(i, e.imageUsers(i.ID)),
	}
	if !i.Created.IsZero() {
		r.Created = i.Created.Format(time.RFC3339Nano)
	}
	if n := len(i.Config.History); n > 0 {
		r.Comment = i.Config.History[n-1].Comment
	}
	for _, d := range i.Config.RootFS.DiffIDs {
		r.RootFS.Layers = append(r.RootFS.Layers, d.String())
	}
	return r, nil
}

// ImagePull fetches an image from its registry; a name without tag or digest means all of the repository's tags.
func (e *Engine) ImagePull(ctx context.Context, ref, platform, registryAuth string, p api.Progress) error {
	auth, err := image.ParseAuth(registryAuth)
	if err != nil {
		return err
	}
	pull := e.rt.Pull
	if n, err := reference.ParseNormalizedNamed(ref); err == nil && reference.IsNameOnly(n) {
		pull = e.rt.PullAll
	}
	if err := pull(ctx, ref, platform, auth, p); err != nil {
		return err
	}
	e.pulled(ctx, ref)
	return nil
}

// pulled says so: docker calls a pulled image by the reference that was asked for, and names it without the tag.
func (e *Engine) pulled(ctx context.Context, ref string) {
	img, err := e.rt.Image(ctx, ref)
	if err != nil {
		return
	}
	e.imageEvent(image.Familiar(ref), image.Repository(ref), img.Config.Config.Labels, events.ActionPull)
}

// ImageLoad takes images from a docker or OCI archive; platform is empty for this host's, or any.
func (e *Engine) ImageLoad(ctx context.Context, r io.Reader, platform string, p api.Progress) error {
	loaded, err := e.rt.Load(ctx, r, platform, p)
	for _, ref := range loaded {
		e.imageEventOf(ctx, ref, ref, events.ActionLoad)
	}
	return err
}

// ImageImport makes an image of one layer from a tar of a root file system.
func (e *Engine) ImageImport(ctx context.Context, r io.Reader, ref string, changes []string, message, platform string, p api.Progress) error {
	id, err := e.rt.Import(ctx, r, ref, changes, message, platform, p)
	if err != nil {
		return err
	}
	name := ref
	if name == "" {
		name = id
	}
	e.imageEventOf(ctx, id, name, events.ActionImport)
	return nil
}

// ImageTag gives an image one more name.
func (e *Engine) ImageTag(ctx context.Context, ref, target string) error {
	if err := e.rt.Tag(ctx, ref, target); err != nil {
		return err
	}
	e.imageEventOf(ctx, target, image.Familiar(target), events.ActionTag)
	return nil
}

// ImageRemove takes a name from an image, and removes it with its last name.
func (e *Engine) ImageRemove(ctx context.Context, ref string, force, _ bool) ([]mobyimage.DeleteResponse, error) {
	img, _ := e.rt.Image(ctx, ref) // for the events; whether there is one is found below
	removed, err := e.rt.RemoveImage(ctx, ref, force, e.imageUsers)
	if err != nil {
		return nil, err
	}
	out := []mobyimage.DeleteResponse{}
	for _, r := range removed {
		out = append(out, mobyimage.DeleteResponse{Untagged: r.Untagged, Deleted: r.Deleted})
		switch {
		case r.Untagged != "":
			e.imageEvent(img.ID, r.Untagged, img.Config.Config.Labels, events.ActionUnTag)
		case r.Deleted != "":
			e.imageEvent(r.Deleted, r.Deleted, img.Config.Config.Labels, events.ActionDelete)
		}
	}
	return out, nil
}

// imageUsers are the containers, running or not, made from an image.
func (e *Engine) imageUsers(id string) []image.User {
	var out []image.User
	for _, b := range e.all() {
		if b.specCopy().ImageID == id {
			out = append(out, image.User{ID: b.id, Running: b.statusCopy().Active()})
		}
	}
	return out
}

// referred are those of an image's names that fit one of the patterns, as docker images --filter reference does. The
// digests that a repository is known by come with its tags.
func referred(i image.Image, patterns map[string]bool) (tags, digests []string) {
	fits := func(n reference.Named) bool {
		for p := range patterns {
			if ok, err := reference.FamiliarMatch(p, n); err == nil && ok {
				return true
			}
		}
		return false
	}
	repositories := map[string]bool{}
	for _, t := range i.RepoTags {
		if n, err := reference.ParseNormalizedNamed(t); err == nil && fits(n) {
			tags = append(tags, t)
			repositories[n.Name()] = true
		}
	}
	for _, d := range i.RepoDigests {
		if n, err := reference.ParseNormalizedNamed(d); err == nil && (repositories[n.Name()] || fits(n)) {
			digests = append(digests, d)
		}
	}
	return tags, digests
}

// ImageFetch opens what docker import names by its URL; a name without a scheme is plain HTTP's.
func (e *Engine) ImageFetch(ctx context.Context, from string, p api.Progress) (io.ReadCloser, error) {
	if !strings.Contains(from, "://") {
		from = "http://" + from
	}
	u, err := url.Parse(from)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, invalid("import from %q: want a file, -, or a URL with http:// or https://", from)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, invalid("import from %q: %v", u.Redacted(), err)
	}
	p.Status("Downloading from "+u.Redacted(), "", 0, 0)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, invalid("import from %s: %s", u.Redacted(), resp.Status)
	}
	return resp.Body, nil
}

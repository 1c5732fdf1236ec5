package ctrd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/pkg/rootfs"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	rules "github.com/minictl/minictl/runtime/image"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Load takes the images of an archive, docker save's or an OCI layout, plain or compressed. Of an image for several
// platforms it takes the given one, or with an empty platform the one that suits this host best. It gives the names of
// what it took, or the IDs of what had none, also when it fails after that.
func (r *Runtime) Load(ctx context.Context, in io.Reader, platform string, p rules.Progress) (loaded []string, err error) {
	match := anyOf()
	if platform != "" {
		want, err := platforms.Parse(platform)
		if err != nil {
			return nil, fmt.Errorf("load images: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		match = platforms.Only(want)
	}
	ctx, done, err := r.client.WithLease(r.ctx(ctx))
	if err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	defer done(context.WithoutCancel(ctx))
	err = r.withRoom(ctx, func(ctx context.Context) error {
		loaded, err = r.load(ctx, in, match, p)
		return err
	})
	if err != nil {
		return loaded, fmt.Errorf("load images: %w", err)
	}
	return loaded, nil
}

func (r *Runtime) load(ctx context.Context, in io.Reader, match platforms.MatchComparer, p rules.Progress) (loaded []string, err error) {
	index, err := r.ingestArchive(ctx, in)
	if err != nil {
		return nil, err
	}
	var idx ocispec.Index
	if err := readJSON(ctx, r.client.ContentStore(), index, &idx); err != nil {
		return nil, fmt.Errorf("read index: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	for _, m := range idx.Manifests {
		if isAttestation(m) {
			continue
		}
		ref, err := r.loadOne(ctx, m, match, p)
		if err != nil {
			return loaded, err
		}
		loaded = append(loaded, ref)
	}
	if len(loaded) == 0 {
		return nil, fmt.Errorf("the archive holds none: %w", errdefs.ErrInvalidArgument)
	}
	return loaded, nil
}

// ingestArchive stores an archive's blobs and gives its index. The archive is checked on its way.
func (r *Runtime) ingestArchive(ctx context.Context, in io.Reader) (ocispec.Descriptor, error) {
	flat, err := decompress(ctx, in)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer flat.Close()
	pr, pw := io.Pipe()
	checked := make(chan error, 1)
	go func() {
		err := rules.CopyArchive(pw, until{ctx, flat})
		pw.CloseWithError(err)
		checked <- err
	}()
	index, err := archive.ImportIndex(ctx, r.client.ContentStore(), pr)
	pr.CloseWithError(errors.New("the archive was read only in part"))
	if refused := <-checked; refused != nil && errdefs.IsInvalidArgument(refused) {
		return index, refused
	}
	if err != nil {
		return index, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return index, nil
}

// isAttestation tells a build's provenance from an image: both stand in an index's list of manifests.
func isAttestation(d ocispec.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != "" || d.Annotations[images.AnnotationManifestSubject] != ""
}

// loadOne gives the name that the archive had for the image, or its ID.
func (r *Runtime) loadOne(ctx context.Context, d ocispec.Descriptor, match platforms.MatchComparer, p rules.Progress) (ref string, err error) {
	m, err := pick(ctx, r.client.ContentStore(), d, match)
	if err != nil {
		return "", err
	}
	if err := r.suits(ctx, m, match); err != nil {
		return "", err
	}
	id, err := r.assemble(ctx, m, layerHooks{done: func(_ int, l ocispec.Descriptor) {
		p.Status("Loading layer", rules.ShortID(l.Digest.String()), l.Size, l.Size)
	}})
	if err != nil {
		return "", err
	}
	name := archiveName(d.Annotations)
	if name == "" {
		if err := r.nameDangling(ctx, id, m); err != nil {
			return "", err
		}
		p.Stream("Loaded image ID: " + id + "\n")
		return id, nil
	}
	displaced, err := r.setName(ctx, name, m, map[string]string{})
	if err != nil {
		return "", err
	}
	if displaced != "" && displaced != id {
		p.Stream(fmt.Sprintf("The image %s already exists, renaming the old one with ID %s to empty string\n", rules.Familiar(name), displaced))
	}
	p.Stream("Loaded image: " + rules.Familiar(name) + "\n")
	return rules.Familiar(name), nil
}

// suits refuses an image for another platform than the wanted one.
func (r *Runtime) suits(ctx context.Context, target ocispec.Descriptor, match platforms.MatchComparer) error {
	img, err := r.describe(ctx, target)
	if err != nil {
		return err
	}
	if !match.Match(platforms.Normalize(img.Config.Platform)) {
		return fmt.Errorf("image %s is for another platform than the one asked for: %s: %w", rules.ShortID(img.ID), platforms.Format(img.Config.Platform), errdefs.ErrNotFound)
	}
	return nil
}

// archiveName is the name an archive gives a manifest, normalized. The OCI annotation often holds a bare tag, which names
// nothing.
func archiveName(annotations map[string]string) string {
	name := annotations[images.AnnotationImageName]
	if name == "" {
		if name = annotations[ocispec.AnnotationRefName]; !strings.ContainsAny(name, ":/") {
			return ""
		}
	}
	n, err := rules.Normalize(name)
	if err != nil {
		return ""
	}
	return n
}

func (r *Runtime) nameDangling(ctx context.Context, id string, m ocispec.Descriptor) error {
	recs, _, err := r.records(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(recs, func(o record) bool { return o.id == id }) {
		return nil
	}
	_, err = r.setName(ctx, danglingPrefix+id, m, nil)
	return err
}

// layerHooks are called as an image's layers go by, in order. Both may be nil.
type layerHooks struct {
	ready func(i int) error // before a layer is unpacked: waits until its blob is here
	done  func(i int, l ocispec.Descriptor)
}

// assemble unpacks a manifest whose blobs are here (or come, see layerHooks) and ties them together so that containerd's
// garbage collector keeps all as long as one name is left. It gives the image's ID.
func (r *Runtime) assemble(ctx context.Context, target ocispec.Descriptor, h layerHooks) (string, error) {
	cs := r.client.ContentStore()
	var m ocispec.Manifest
	if err := readJSON(ctx, cs, target, &m); err != nil {
		return "", fmt.Errorf("read manifest: %w", err)
	}
	var c ocispec.Image
	if err := readJSON(ctx, cs, m.Config, &c); err != nil {
		return "", fmt.Errorf("read image configuration: %w", err)
	}
	if _, err := images.SetChildrenLabels(cs, images.ChildrenHandler(cs))(ctx, target); err != nil {
		return "", fmt.Errorf("tie image together: %w", err)
	}
	if err := r.unpack(ctx, m, c.RootFS.DiffIDs, h); err != nil {
		return "", err
	}
	return m.Config.Digest.String(), nil
}

// unpack puts every layer onto the one below it in the snapshotter; those already there are left alone.
func (r *Runtime) unpack(ctx context.Context, m ocispec.Manifest, diffs []digest.Digest, h layerHooks) error {
	if len(diffs) != len(m.Layers) {
		return fmt.Errorf("unpack image: %d layers for %d digests in its configuration: %w", len(m.Layers), len(diffs), errdefs.ErrInvalidArgument)
	}
	sn, applier := r.client.SnapshotService(r.snapshotter), r.client.DiffService()
	var chain []digest.Digest
	for i, l := range m.Layers {
		if h.ready != nil {
			if err := h.ready(i); err != nil {
				return err
			}
		}
		layer := rootfs.Layer{Diff: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: diffs[i]}, Blob: l}
		// Clipped, so that ChainID inside never writes over our list.
		if _, err := rootfs.ApplyLayer(ctx, layer, slices.Clip(slices.Clone(chain)), sn, applier); err != nil {
			if f := strange(ctx, r.client.ContentStore(), l); f != "" {
				return fmt.Errorf("unpack layer %s: it is compressed with %s, but images' layers are plain, gzip or zstd: %w", l.Digest, f, errdefs.ErrInvalidArgument)
			}
			return fmt.Errorf("unpack layer %s: %w", l.Digest, err)
		}
		chain = append(chain, diffs[i])
		if h.done != nil {
			h.done(i, l)
		}
	}
	key := "containerd.io/gc.ref.snapshot." + r.snapshotter
	info := content.Info{Digest: m.Config.Digest, Labels: map[string]string{key: identity.ChainID(slices.Clone(chain)).String()}}
	if _, err := r.client.ContentStore().Update(ctx, info, "labels."+key); err != nil {
		return fmt.Errorf("tie layers to image: %w", err)
	}
	return nil
}

// Import makes an image of one layer from a root file system's tar, plain or compressed. ref may be empty.
func (r *Runtime) Import(ctx context.Context, in io.Reader, ref string, changes []string, message, platform string, p rules.Progress) (string, error) {
	name := ""
	var err error
	if ref != "" {
		if name, err = rules.Normalize(ref); err != nil {
			return "", fmt.Errorf("import image: %w", err)
		}
	}
	plat := platforms.DefaultSpec()
	if platform != "" {
		if plat, err = platforms.Parse(platform); err != nil {
			return "", fmt.Errorf("import image: %w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	now := time.Now().UTC()
	c := ocispec.Image{Created: &now, Platform: plat, History: []ocispec.History{{Created: &now, Comment: message}}}
	if err := rules.Change(&c.Config, changes); err != nil {
		return "", fmt.Errorf("import image: %w", err)
	}
	ctx, done, err := r.client.WithLease(r.ctx(ctx))
	if err != nil {
		return "", fmt.Errorf("import image: %w", err)
	}
	defer done(context.WithoutCancel(ctx))
	var id string
	err = r.withRoom(ctx, func(ctx context.Context) (err error) {
		id, err = r.importLayer(ctx, in, name, c)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("import image: %w", err)
	}
	p.Status(id, "", 0, 0)
	return id, nil
}

// importLayer stores layer, configuration and manifest, unpacks and names the image.
func (r *Runtime) importLayer(ctx context.Context, in io.Reader, name string, c ocispec.Image) (string, error) {
	flat, err := decompress(ctx, in)
	if err != nil {
		return "", err
	}
	defer flat.Close()
	layer, err := r.writeStream(ctx, ocispec.MediaTypeImageLayer, until{ctx, flat})
	if err != nil {
		return "", err
	}
	c.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}}
	config, err := r.writeJSON(ctx, ocispec.MediaTypeImageConfig, c)
	if err != nil {
		return "", err
	}
	m, err := r.writeJSON(ctx, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: []ocispec.Descriptor{layer},
	})
	if err != nil {
		return "", err
	}
	id, err := r.assemble(ctx, m, layerHooks{})
	if err != nil {
		// Junk is found out only here, since a layer's bytes are looked at when it is unpacked.
		return "", fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if name == "" {
		return id, r.nameDangling(ctx, id, m)
	}
	_, err = r.setName(ctx, name, m, map[string]string{})
	return id, err
}

// writeStream stores bytes whose digest is not known yet.
func (r *Runtime) writeStream(ctx context.Context, mediaType string, in io.Reader) (ocispec.Descriptor, error) {
	ref := fmt.Sprintf("import-%d", time.Now().UnixNano())
	w, err := content.OpenWriter(ctx, r.client.ContentStore(), content.WithRef(ref))
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("store layer: %w", err)
	}
	defer w.Close()
	n, err := io.Copy(w, in)
	if err != nil {
		_ = w.Close()
		_ = r.client.ContentStore().Abort(context.WithoutCancel(ctx), ref)
		return ocispec.Descriptor{}, fmt.Errorf("store layer: %w", err)
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: w.Digest(), Size: n}
	if err := w.Commit(ctx, n, d.Digest); err != nil && !errdefs.IsAlreadyExists(err) {
		return d, fmt.Errorf("store layer: %w", err)
	}
	return d, nil
}

func (r *Runtime) writeJSON(ctx context.Context, mediaType string, v any) (ocispec.Descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	if err := content.WriteBlob(ctx, r.client.ContentStore(), "import-"+d.Digest.String(), bytes.NewReader(b), d); err != nil {
		return d, fmt.Errorf("store %s: %w", mediaType, err)
	}
	return d, nil
}

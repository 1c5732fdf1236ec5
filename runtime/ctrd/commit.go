package ctrd

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/containerd/v2/pkg/rootfs"
	"github.com/containerd/errdefs"
	rules "github.com/minictl/minictl/runtime/image"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// serials number what this process makes for a moment; together with the time they differ over restarts too.
type serials struct{ n atomic.Int64 }

func (s *serials) next() string {
	return strconv.FormatInt(time.Now().UnixNano(), 36) + "-" + strconv.FormatInt(s.n.Add(1), 36)
}

// CommitOptions are what an image made of a container gets.
type CommitOptions struct {
	// Name of the image; empty leaves it without one.
	Name            string
	Author, Comment string
	// CreatedBy is the container's command, for the history.
	CreatedBy string
	// Config replaces the parent's.
	Config dockerspec.DockerOCIImageConfig
}

// Commit makes an image of a container's files on top of the image it was made from, and gives its ID.
func (r *Runtime) Commit(ctx context.Context, id, imageID string, o CommitOptions) (string, error) {
	name := ""
	if o.Name != "" {
		var err error
		if name, err = rules.Normalize(o.Name); err != nil {
			return "", fmt.Errorf("commit: %w", err)
		}
	}
	ctx, done, err := r.client.WithLease(r.ctx(ctx))
	if err != nil {
		return "", fmt.Errorf("commit: %w", err)
	}
	defer done(context.WithoutCancel(ctx))
	m, c, err := r.parent(ctx, imageID)
	if err != nil {
		return "", fmt.Errorf("commit: %w", err)
	}
	layer, diffID, err := r.diffLayer(ctx, id)
	if err != nil {
		return "", fmt.Errorf("commit: %w", err)
	}
	now := time.Now().UTC()
	c.Created, c.Author, c.Config = &now, o.Author, o.Config
	c.RootFS.DiffIDs = append(slices.Clone(c.RootFS.DiffIDs), diffID)
	c.History = append(slices.Clone(c.History), ocispec.History{Created: &now, CreatedBy: o.CreatedBy, Author: o.Author, Comment: o.Comment})
	newID, err := r.stack(ctx, name, append(m.Layers, layer), c)
	if err != nil {
		return "", fmt.Errorf("commit: %w", err)
	}
	return newID, nil
}

// parent reads an image's manifest and configuration, docker's additions included.
func (r *Runtime) parent(ctx context.Context, imageID string) (m ocispec.Manifest, c dockerspec.DockerOCIImage, err error) {
	img, err := r.resolveImage(ctx, imageID)
	if err != nil {
		return m, c, err
	}
	cs := r.client.ContentStore()
	if err := readJSON(ctx, cs, img.Target(), &m); err != nil {
		return m, c, fmt.Errorf("read manifest: %w", err)
	}
	if err := readJSON(ctx, cs, m.Config, &c); err != nil {
		return m, c, fmt.Errorf("read image configuration: %w", err)
	}
	return m, c, nil
}

// diffLayer writes the container's own layer as a blob.
func (r *Runtime) diffLayer(ctx context.Context, id string) (layer ocispec.Descriptor, diffID digest.Digest, err error) {
	layer, err = rootfs.CreateDiff(ctx, id, r.client.SnapshotService(r.snapshotter), r.client.DiffService())
	if err != nil {
		return layer, "", fmt.Errorf("compare with the image: %w", err)
	}
	info, err := r.client.ContentStore().Info(ctx, layer.Digest)
	if err != nil {
		return layer, "", fmt.Errorf("read layer: %w", err)
	}
	diffID, err = digest.Parse(info.Labels[labels.LabelUncompressed])
	if err != nil {
		return layer, "", fmt.Errorf("read layer's digest: %w", err)
	}
	return layer, diffID, nil
}

// stack writes configuration and manifest, unpacks what is new and names the image.
func (r *Runtime) stack(ctx context.Context, name string, layers []ocispec.Descriptor, c dockerspec.DockerOCIImage) (string, error) {
	config, err := r.writeJSON(ctx, ocispec.MediaTypeImageConfig, c)
	if err != nil {
		return "", err
	}
	for i := range layers {
		layers[i] = ocispec.Descriptor{MediaType: ociLayer(layers[i].MediaType), Digest: layers[i].Digest, Size: layers[i].Size}
	}
	m, err := r.writeJSON(ctx, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers,
	})
	if err != nil {
		return "", err
	}
	id, err := r.assemble(ctx, m, layerHooks{})
	if err != nil {
		return "", err
	}
	if name == "" {
		return id, r.nameDangling(ctx, id, m)
	}
	_, err = r.setName(ctx, name, m, map[string]string{})
	return id, err
}

// ociLayer is the OCI word for docker's: a manifest must not mix the two.
func ociLayer(mediaType string) string {
	switch mediaType {
	case images.MediaTypeDockerSchema2Layer:
		return ocispec.MediaTypeImageLayer
	case images.MediaTypeDockerSchema2LayerGzip:
		return ocispec.MediaTypeImageLayerGzip
	case images.MediaTypeDockerSchema2LayerZstd:
		return ocispec.MediaTypeImageLayerZstd
	}
	return mediaType
}

// Layers are the layers of an image in their order, the lowest first, with what each takes on disk.
func (r *Runtime) Layers(ctx context.Context, img rules.Image) ([]rules.Layer, error) {
	sn := r.client.SnapshotService(r.snapshotter)
	out := make([]rules.Layer, len(img.Config.RootFS.DiffIDs))
	for i := range out {
		// ChainID writes into its argument.
		out[i].Chain = identity.ChainID(slices.Clone(img.Config.RootFS.DiffIDs[:i+1])).String()
		u, err := sn.Usage(r.ctx(ctx), out[i].Chain)
		if err != nil && !errdefs.IsNotFound(err) {
			return nil, fmt.Errorf("size of layer %s: %w", out[i].Chain, err)
		}
		out[i].Size = u.Size
	}
	return out, nil
}

// LayersSize is what all layers of all images take on disk, in bytes; containers' own layers do not count.
func (r *Runtime) LayersSize(ctx context.Context) (int64, error) {
	ctx = r.ctx(ctx)
	sn := r.client.SnapshotService(r.snapshotter)
	var size int64
	err := sn.Walk(ctx, func(ctx context.Context, i snapshots.Info) error {
		if i.Kind != snapshots.KindCommitted {
			return nil
		}
		u, err := sn.Usage(ctx, i.Name)
		size += u.Size
		if errdefs.IsNotFound(err) {
			return nil // collected meanwhile
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("size of layers: %w", err)
	}
	return size, nil
}

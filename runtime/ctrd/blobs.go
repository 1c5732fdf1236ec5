package ctrd

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Blobs are the images' contents for a reader that knows nothing of namespaces.
func (r *Runtime) Blobs() content.Store { return blobStore{r.client.ContentStore(), r} }

// blobStore puts our namespace into each call that reads; a caller's own is for another store.
type blobStore struct {
	content.Store
	r *Runtime
}

// Info implements content.InfoProvider.
func (b blobStore) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	return b.Store.Info(b.r.ctx(ctx), d)
}

// ReaderAt implements content.Provider.
func (b blobStore) ReaderAt(ctx context.Context, d ocispec.Descriptor) (content.ReaderAt, error) {
	return b.Store.ReaderAt(b.r.ctx(ctx), d)
}

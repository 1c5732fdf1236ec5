package engine

import (
	"context"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/minictl/minictl/runtime/ctrd"
	"github.com/minictl/minictl/runtime/image"
	"github.com/minictl/minictl/runtime/tree"
)

// Files is what the engine needs of the runtime to look into containers' and images' files.
type Files interface {
	ProcessFiles(id string, pid int, fn func(*tree.Root) error) error
	StoppedFiles(ctx context.Context, id string, binds []specs.Mount, readOnly bool, fn func(*tree.Root) error) error
	Export(ctx context.Context, id string, w io.Writer) error
	Changes(ctx context.Context, id string, hide func(path string) bool) ([]ctrd.Change, error)
	Commit(ctx context.Context, id, imageID string, o ctrd.CommitOptions) (string, error)
	Usage(ctx context.Context, id string) (int64, error)
	Layers(ctx context.Context, img image.Image) ([]image.Layer, error)
	LayersSize(ctx context.Context) (int64, error)
}

// Registry is what the engine needs of the runtime to give images away.
type Registry interface {
	Save(ctx context.Context, refs []string, w io.Writer) error
	Push(ctx context.Context, ref string, all bool, auth *image.Auth, p image.Progress) error
	Login(ctx context.Context, auth image.Auth) (token string, err error)
	Distribution(ctx context.Context, ref string, auth *image.Auth) (ocispec.Descriptor, []ocispec.Platform, error)
}

package api

import (
	"context"
	"io"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/volume"
)

// FileBackend is what the routes about a container's files need.
type FileBackend interface {
	ContainerStatPath(ctx context.Context, ref, path string) (container.PathStat, error)
	// ContainerArchive calls begin when it has found the path, and writes the tar to what that gives.
	ContainerArchive(ctx context.Context, ref, path string, begin func(container.PathStat) io.Writer) error
	ContainerExtract(ctx context.Context, ref, path string, opts ExtractOptions, r io.Reader) error
	ContainerExport(ctx context.Context, ref string, w io.Writer) error
	ContainerChanges(ctx context.Context, ref string) ([]container.FilesystemChange, error)
	// ContainerCommit gives the new image's ID.
	ContainerCommit(ctx context.Context, ref string, opts CommitOptions) (string, error)
}

// ExtractOptions are PUT /containers/{id}/archive's.
type ExtractOptions struct {
	NoOverwriteDirNonDir, CopyUIDGID bool
}

// CommitOptions are POST /commit's. Ref is empty for an image without a name; Config is nil unless a client sent one.
type CommitOptions struct {
	Ref, Comment, Author string
	Pause                bool
	Changes              []string
	Config               *container.Config
}

// RegistryBackend is what the routes about giving images away need.
type RegistryBackend interface {
	// ImageSave writes nothing unless it has found every image.
	ImageSave(ctx context.Context, refs []string, w io.Writer) error
	// ImagePush sends one tag, or all with an empty one.
	ImagePush(ctx context.Context, name, tag, registryAuth string, p Progress) error
	RegistryLogin(ctx context.Context, auth registry.AuthConfig) (registry.AuthResponse, error)
	DistributionInspect(ctx context.Context, ref, registryAuth string) (registry.DistributionInspect, error)
}

// DiskBackend is what the routes about disk space need.
type DiskBackend interface {
	ContainersPrune(ctx context.Context, f Filters) (container.PruneReport, error)
	ImagesPrune(ctx context.Context, f Filters) (image.PruneReport, error)
	ImageHistory(ctx context.Context, ref string) ([]image.HistoryResponseItem, error)
	// DiskUsage measures the kinds asked for (container, image, volume, build-cache); none asked for are all.
	DiskUsage(ctx context.Context, kinds map[string]bool) (DiskUsage, error)
}

// DiskUsage is GET /system/df's answer up to API 1.51; the types that we use have a newer one only.
type DiskUsage struct {
	LayersSize int64
	Images     []image.Summary
	Containers []container.Summary
	Volumes    []volume.Volume
	BuildCache []struct{} // nothing is built here
}

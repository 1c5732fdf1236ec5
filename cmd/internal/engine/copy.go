package engine

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/runtime/container"
	"github.com/minictl/minictl/runtime/tree"
)

// ContainerStatPath describes one path of a container.
func (e *Engine) ContainerStatPath(ctx context.Context, ref, path string) (mobycontainer.PathStat, error) {
	b, err := e.find(ref)
	if err != nil {
		return mobycontainer.PathStat{}, err
	}
	var out mobycontainer.PathStat
	err = e.files(ctx, b, func(root *tree.Root) (err error) {
		out, err = statPath(root, ref, path)
		return err
	})
	return out, err
}

func statPath(root *tree.Root, ref, path string) (mobycontainer.PathStat, error) {
	s, err := root.Stat(tree.Clean(path))
	if err != nil {
		return mobycontainer.PathStat{}, pathError(err, ref, path)
	}
	return mobycontainer.PathStat{Name: s.Name, Size: s.Size, Mode: s.Mode, Mtime: s.Mtime, LinkTarget: s.LinkTarget}, nil
}

// pathError is docker's for a path that leads nowhere; a path that is nonsense is the client's fault too.
func pathError(err error, ref, path string) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return notFound("Could not find the file %s in container %s", path, ref)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EINVAL):
		return invalid("%v", err)
	}
	return err
}

// ContainerArchive writes a path of a container as a tar to what begin gives, which is called once the path is found.
func (e *Engine) ContainerArchive(ctx context.Context, ref, path string, begin func(mobycontainer.PathStat) io.Writer) error {
	b, err := e.find(ref)
	if err != nil {
		return err
	}
	clean := tree.Clean(path)
	err = e.files(ctx, b, func(root *tree.Root) error {
		st, err := statPath(root, ref, path)
		if err != nil {
			return err
		}
		return root.Pack(ctx, begin(st), clean, tree.PackOptions{Name: tree.ArchiveName(clean)})
	})
	if err == nil {
		e.event(b, events.ActionArchivePath)
	}
	return err
}

// ContainerExtract lays a tar down in a folder of a container.
func (e *Engine) ContainerExtract(ctx context.Context, ref, path string, o api.ExtractOptions, r io.Reader) error {
	b, err := e.find(ref)
	if err != nil {
		return err
	}
	unpack := tree.UnpackOptions{KeepKind: o.NoOverwriteDirNonDir}
	if o.CopyUIDGID {
		if unpack.Owner, err = e.owner(ctx, b); err != nil {
			return err
		}
	}
	err = e.files(ctx, b, func(root *tree.Root) error {
		// A link as last part is followed, hence the slash: what is filled is the folder it leads to.
		if _, err := root.Stat(tree.Clean(path + "/")); err != nil {
			if errors.Is(err, unix.ENOTDIR) {
				return tree.ErrNotDirectory
			}
			return pathError(err, ref, path)
		}
		return root.Unpack(ctx, r, tree.Clean(path), unpack)
	})
	if errors.Is(err, unix.EROFS) {
		return forbidden("container rootfs or the mounted volume is marked read-only: %v", err)
	}
	if err == nil {
		e.event(b, events.ActionExtractToDir)
	}
	return err
}

// owner is whom the container runs as, nil when it does not say.
func (e *Engine) owner(ctx context.Context, b *box) (*tree.Owner, error) {
	spec := b.specCopy()
	if spec.Config.User == "" {
		return nil, nil
	}
	if !b.statusCopy().Running() {
		b.op.Lock() // its root is mounted for a moment, which a start must not do at the same time
		defer b.op.Unlock()
	}
	u, _, err := e.user(ctx, &spec)
	if err != nil {
		return nil, err
	}
	return &tree.Owner{UID: int(u.UID), GID: int(u.GID)}, nil
}

// files opens a container's root for the call of fn: what the process sees when it runs, else its layer with the mounts
// it would get. A container that does not run cannot be started meanwhile.
func (e *Engine) files(ctx context.Context, b *box, fn func(*tree.Root) error) error {
	if st := b.statusCopy(); st.Running() {
		err := e.rt.ProcessFiles(b.id, st.Pid, fn)
		if !errdefs.IsUnavailable(err) {
			return err
		}
		// It ended just now. What cleans up after it needs the lock that is taken below, so wait for that first.
		if ended, werr := b.waitGone(ctx, nil); werr != nil || !ended {
			return errors.Join(err, werr)
		}
	}
	b.op.Lock()
	defer b.op.Unlock()
	spec, st := b.specCopy(), b.statusCopy()
	switch {
	case b.removed:
		return notFound("No such container: %s", b.id)
	case st.Running():
		return e.rt.ProcessFiles(b.id, st.Pid, fn)
	}
	binds, err := e.bindsOf(&spec)
	if err != nil {
		return err
	}
	return e.rt.StoppedFiles(ctx, b.id, binds, spec.HostConfig.ReadonlyRootfs, fn)
}

// bindsOf are the mounts with content of their own that a start would make.
func (e *Engine) bindsOf(s *container.Spec) ([]specs.Mount, error) {
	mounts, err := e.userMounts(s)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(mounts, func(m specs.Mount) bool { return m.Type != "bind" }), nil
}

// ContainerExport writes a container's whole root file system as a tar.
func (e *Engine) ContainerExport(ctx context.Context, ref string, w io.Writer) error {
	b, err := e.find(ref)
	if err != nil {
		return err
	}
	if !b.statusCopy().Running() {
		b.op.Lock()
		defer b.op.Unlock()
	}
	if err := e.rt.Export(ctx, b.id, w); err != nil {
		return err
	}
	e.event(b, events.ActionExport)
	return nil
}

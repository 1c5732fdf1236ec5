package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/runtime/container"
	"github.com/minictl/minictl/runtime/ctrd"
	"github.com/minictl/minictl/runtime/image"
)

// ContainerChanges lists what a container changed in its image's files. What every start makes for its mounts is no
// change.
func (e *Engine) ContainerChanges(ctx context.Context, ref string) ([]mobycontainer.FilesystemChange, error) {
	b, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	changes, err := e.rt.Changes(ctx, b.id, madeForMounts)
	if err != nil {
		return nil, err
	}
	out := []mobycontainer.FilesystemChange{}
	for _, c := range changes {
		kind := mobycontainer.ChangeModify
		switch c.Kind {
		case ctrd.Added:
			kind = mobycontainer.ChangeAdd
		case ctrd.Deleted:
			kind = mobycontainer.ChangeDelete
		}
		out = append(out, mobycontainer.FilesystemChange{Kind: kind, Path: c.Path})
	}
	return out, nil
}

// madeForMounts are the mount points that runc makes in any container.
func madeForMounts(path string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return slices.Contains([]string{"dev", "proc", "sys"}, first) || slices.Contains([]string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}, path)
}

// ContainerCommit makes an image of a container. Its processes stand still meanwhile, unless told otherwise.
func (e *Engine) ContainerCommit(ctx context.Context, ref string, o api.CommitOptions) (_ string, err error) {
	b, err := e.find(ref)
	if err != nil {
		return "", err
	}
	b.op.Lock()
	defer b.op.Unlock()
	spec, st := b.specCopy(), b.statusCopy()
	if b.removed {
		return "", notFound("No such container: %s", ref)
	}
	config, err := commitConfig(spec.Config, o.Config, o.Changes)
	if err != nil {
		return "", err
	}
	if o.Pause && st.State == mobycontainer.StateRunning {
		resume, err := b.freeze(ctx)
		if err != nil {
			return "", err
		}
		defer resume()
	}
	id, err := e.rt.Commit(ctx, b.id, spec.ImageID, ctrd.CommitOptions{
		Name: o.Ref, Author: o.Author, Comment: o.Comment, CreatedBy: strings.Join(spec.Config.Cmd, " "), Config: config,
	})
	if err != nil {
		return "", err
	}
	e.event(b, events.ActionCommit, "comment", o.Comment, "imageID", id, "imageRef", o.Ref)
	return id, nil
}

// freeze stops all processes of a running container for a moment; one that has ended needs none of it.
func (b *box) freeze(ctx context.Context) (resume func(), err error) {
	b.mu.Lock()
	task := b.task
	b.mu.Unlock()
	if task == nil {
		return func() {}, nil
	}
	if err := task.Pause(ctx); err != nil {
		return nil, fmt.Errorf("pause container %s: %w", b.id[:12], err)
	}
	return func() { _ = task.Resume(context.WithoutCancel(ctx)) }, nil
}

// commitConfig is what the client gives, filled up with the container's own, changed as the client says.
func commitConfig(own, given *mobycontainer.Config, changes []string) (dockerspec.DockerOCIImageConfig, error) {
	base := imageConfig(own)
	if given != nil {
		container.Merge(given, base.ImageConfig)
		filled := imageConfig(given)
		if filled.Healthcheck == nil {
			filled.Healthcheck = base.Healthcheck
		}
		if filled.OnBuild == nil {
			filled.OnBuild = base.OnBuild
		}
		if filled.Shell == nil {
			filled.Shell = base.Shell
		}
		base = filled
	}
	if err := image.Change(&base.ImageConfig, changes); err != nil {
		return base, err
	}
	return base, nil
}

// imageConfig is the part of a container's configuration that an image can hold.
func imageConfig(c *mobycontainer.Config) dockerspec.DockerOCIImageConfig {
	out := dockerspec.DockerOCIImageConfig{
		ImageConfig: ocispec.ImageConfig{
			User: c.User, Env: slices.Clone(c.Env), Entrypoint: slices.Clone(c.Entrypoint), Cmd: slices.Clone(c.Cmd), Volumes: map[string]struct{}{},
			WorkingDir: c.WorkingDir, Labels: c.Labels, StopSignal: c.StopSignal, ExposedPorts: map[string]struct{}{},
		},
		DockerOCIImageConfigExt: dockerspec.DockerOCIImageConfigExt{Healthcheck: c.Healthcheck, OnBuild: c.OnBuild, Shell: c.Shell},
	}
	for p := range c.ExposedPorts {
		out.ExposedPorts[p.String()] = struct{}{}
	}
	for v := range c.Volumes {
		out.Volumes[v] = struct{}{}
	}
	return out
}

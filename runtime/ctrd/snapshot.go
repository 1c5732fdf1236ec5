package ctrd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/image-spec/identity"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// labelContainer marks a snapshot with the container it belongs to.
const labelContainer = "minictl/container"

// Create makes a container's record and its writable layer on top of the image's.
func (r *Runtime) Create(ctx context.Context, id, imageID string, labels map[string]string) error {
	ctx = r.ctx(ctx)
	img, err := r.resolveImage(ctx, imageID)
	if err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	if err := r.prepare(ctx, id, img); err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	rec := containers.Container{
		ID: id, Labels: labels, Image: img.Name(),
		Snapshotter: r.snapshotter, SnapshotKey: id,
	}
	if err := r.setSpec(&rec, &specs.Spec{}); err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	if _, err := r.client.ContainerService().Create(ctx, rec); err != nil {
		if !errdefs.IsAlreadyExists(err) {
			_ = r.client.SnapshotService(r.snapshotter).Remove(context.WithoutCancel(ctx), id)
		}
		return fmt.Errorf("create container: %w", err)
	}
	return nil
}

// prepare makes the writable layer. The label keeps it from containerd's garbage
// collector without the two writes that a lease would take.
func (r *Runtime) prepare(ctx context.Context, id string, img containerd.Image) error {
	layers, err := img.RootFS(ctx)
	if err != nil {
		return fmt.Errorf("read image %s: %w", img.Name(), err)
	}
	sn := r.client.SnapshotService(r.snapshotter)
	parent := identity.ChainID(layers).String()
	label := snapshots.WithLabels(map[string]string{
		"containerd.io/gc.root": time.Now().UTC().Format(time.RFC3339),
		labelContainer:          id,
	})
	_, err = sn.Prepare(ctx, id, parent, label)
	if errdefs.IsNotFound(err) {
		// Pulled or imported, never unpacked.
		if err := img.Unpack(ctx, r.snapshotter); err != nil {
			return fmt.Errorf("unpack image %s: %w", img.Name(), err)
		}
		_, err = sn.Prepare(ctx, id, parent, label)
	}
	if err != nil {
		return fmt.Errorf("prepare layer: %w", err)
	}
	return nil
}

// setSpec puts an OCI spec into a container's record, with the present shim.
func (r *Runtime) setSpec(rec *containers.Container, s *specs.Spec) error {
	spec, err := typeurl.MarshalAny(s)
	if err != nil {
		return fmt.Errorf("encode spec: %w", err)
	}
	opts, err := typeurl.MarshalAny(&options.Options{Root: filepath.Join(r.cfg.State, "runc")})
	if err != nil {
		return fmt.Errorf("encode runtime options: %w", err)
	}
	rec.Spec = spec
	rec.Runtime = containers.RuntimeInfo{Name: r.shim, Options: opts}
	return nil
}

// Containers lists the IDs of all containers that have a record.
func (r *Runtime) Containers(ctx context.Context) ([]string, error) {
	all, err := r.client.ContainerService().List(r.ctx(ctx))
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	ids := make([]string, len(all))
	for i, c := range all {
		ids[i] = c.ID
	}
	return ids, nil
}

// Remove removes a container's task, killing it if need be, its record and its
// writable layer. It returns nil when they are absent.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	t, err := r.LoadTask(ctx, id)
	switch {
	case err == nil:
		if err := t.destroy(ctx); err != nil {
			return fmt.Errorf("remove container: %w", err)
		}
	case !errdefs.IsNotFound(err):
		return fmt.Errorf("remove container: %w", err)
	default:
		if err := r.settle(ctx, id); err != nil {
			return fmt.Errorf("remove container: %w", err)
		}
	}
	ctx = r.ctx(ctx)
	if err := r.client.ContainerService().Delete(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove container: %w", err)
	}
	if err := r.client.SnapshotService(r.snapshotter).Remove(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove container's layer: %w", err)
	}
	r.removedLayer()
	return nil
}

// RootFS mounts a container's root for the call of fn. The root of one that has a
// task is mounted already, and mounting it twice would leave overlayfs confused.
func (r *Runtime) RootFS(ctx context.Context, id string, fn func(root string) error) error {
	ctx = r.ctx(ctx)
	if live := r.liveRoot(ctx, id); live != "" {
		return fn(live)
	}
	mounts, err := r.client.SnapshotService(r.snapshotter).Mounts(ctx, id)
	if err != nil {
		return fmt.Errorf("mount root of container: %w", err)
	}
	return mount.WithTempMount(ctx, mounts, fn)
}

// liveRoot is where the root of a container with a task is, "" without one.
func (r *Runtime) liveRoot(ctx context.Context, id string) string {
	if r.server != nil {
		path := filepath.Join(r.bundle(id), "rootfs")
		if mounted, err := mountinfo.Mounted(path); err == nil && mounted {
			return path
		}
		return ""
	}
	// Where an external containerd keeps its bundles is its own affair, and its
	// mounts may be in another namespace; the process has them for certain.
	t, err := r.LoadTask(ctx, id)
	if err != nil || t.Pid() == 0 {
		return ""
	}
	if path := fmt.Sprintf("/proc/%d/root", t.Pid()); exists(path) {
		return path
	}
	return ""
}

// bundle is where an embedded containerd keeps a task's files.
func (r *Runtime) bundle(id string) string {
	return filepath.Join(r.cfg.State, "io.containerd.runtime.v2.task", Namespace, id)
}

// sweep removes writable layers whose container is gone, which a crash between
// the two leaves behind.
func (r *Runtime) sweep(ctx context.Context) error {
	ctx = r.ctx(ctx)
	ids, err := r.Containers(ctx)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, id := range ids {
		known[id] = true
	}
	sn := r.client.SnapshotService(r.snapshotter)
	var orphans []string
	err = sn.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		if id := i.Labels[labelContainer]; id != "" && !known[id] {
			orphans = append(orphans, i.Name)
		}
		return nil
	}, fmt.Sprintf("labels.%q", labelContainer))
	for _, name := range orphans {
		r.log.Info("removed layer without a container", "container", name)
		_ = sn.Remove(ctx, name)
	}
	// Likewise what execs of a killed daemon left.
	_ = os.RemoveAll(r.execDir())
	return errors.Join(err, r.sweepLeases(ctx), collect(ctx, sn))
}

func (r *Runtime) execDir() string { return filepath.Join(r.cfg.State, "exec") }

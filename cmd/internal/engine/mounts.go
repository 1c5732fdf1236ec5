package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/minictl/minictl/runtime/container"
	"github.com/minictl/minictl/runtime/oci"
	"github.com/minictl/minictl/runtime/volume"
)

// resolveMounts says what the new container gets mounted: what other containers have, over that what the flags ask for,
// and volumes where the image wants them. Each volume has its name afterwards.
func (e *Engine) resolveMounts(s *container.Spec) error {
	wished, err := container.Mounts(s.HostConfig)
	if err != nil {
		return err
	}
	var inherited []container.Mount
	for _, v := range s.HostConfig.VolumesFrom {
		ref, readOnly, err := container.VolumesFrom(v)
		if err != nil {
			return err
		}
		other, err := e.find(ref)
		if err != nil {
			return invalid("%v", err) // a 404 would make clients pull the image
		}
		inherited = container.Overlay(inherited, container.Inherit(other.specCopy().Mounts, readOnly))
	}
	mounts := container.Overlay(inherited, wished)
	anonymous, err := container.Anonymous(s.Config, s.HostConfig, mounts)
	if err != nil {
		return err
	}
	s.Mounts = append(mounts, anonymous...)
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if m.Type != mount.TypeVolume {
			continue
		}
		if m.Name == "" {
			m.Name = newID()
		}
		if err := checkVolume(m.Name, m.Options); err != nil {
			return err
		}
	}
	return nil
}

// volumesOf are the container's mounts that are volumes.
func volumesOf(s *container.Spec) []container.Mount {
	return slices.DeleteFunc(slices.Clone(s.Mounts), func(m container.Mount) bool { return m.Type != mount.TypeVolume })
}

// takeVolumes makes the container a user of its volumes, and makes those that do not exist.
func (e *Engine) takeVolumes(s *container.Spec, u *undo) error {
	for _, m := range volumesOf(s) {
		want := volume.Volume{Name: m.Name, Created: time.Now().UTC(), Labels: m.Labels, Options: m.Options}
		if m.Anonymous {
			want.Labels = anonymousLabels(m.Labels)
		}
		want.For = s.ID
		v, made, err := e.obtain(want, s.ID)
		if err != nil {
			return err
		}
		u.add(func(context.Context) {
			e.release(v, s.ID)
			if made {
				e.discard(v)
				e.settleVolume(v, s.ID) // somebody else uses it by now
			}
		})
	}
	return nil
}

func (e *Engine) release(v *held, user string) {
	e.volumes.mu.Lock()
	defer e.volumes.mu.Unlock()
	delete(v.users, user)
}

// discard removes a volume unless somebody uses it.
func (e *Engine) discard(v *held) {
	v.op.Lock()
	defer v.op.Unlock()
	if err := e.removeVolume(v); err != nil && !errdefs.IsConflict(err) && !errdefs.IsNotFound(err) {
		e.log.Error("remove volume", "volume", v.Name, "err", err)
	}
}

// fillVolumes gives empty volumes the content that the image has at their places.
func (e *Engine) fillVolumes(ctx context.Context, s *container.Spec) error {
	// Mounting the container's root costs more than asking whether anything is to be copied.
	todo := slices.DeleteFunc(volumesOf(s), func(m container.Mount) bool { return m.NoCopy || !e.fillable(m.Name) })
	if len(todo) == 0 {
		return nil
	}
	return e.rt.RootFS(ctx, s.ID, func(root string) error {
		for _, m := range todo {
			if err := e.fillVolume(ctx, root, m); err != nil {
				return err
			}
		}
		return nil
	})
}

func (e *Engine) fillable(name string) bool {
	v := e.volumes.find(name)
	if v == nil || !v.Fills() {
		return false
	}
	empty, err := e.volumes.local.Empty(name)
	return err != nil || empty || len(v.Options) > 0 // what is not mounted yet tells nothing
}

func (e *Engine) fillVolume(ctx context.Context, root string, m container.Mount) error {
	v := e.volumes.find(m.Name)
	if v == nil {
		return noSuchVolume(m.Name)
	}
	v.op.Lock()
	defer v.op.Unlock()
	if err := e.volumes.local.Mount(&v.Volume); err != nil {
		return err
	}
	err := e.volumes.local.Fill(ctx, &v.Volume, root, m.Target)
	return errors.Join(err, e.unmountUnused(v))
}

// unmountUnused takes back the mount of a volume's options once no running container has it. v.op must be held.
func (e *Engine) unmountUnused(v *held) error {
	e.volumes.mu.Lock()
	used := len(v.mounted) > 0
	e.volumes.mu.Unlock()
	if used {
		return nil
	}
	return e.volumes.local.Unmount(&v.Volume)
}

// mountVolumes makes the volumes ready for a start. unmountVolumes takes it back, also when it has failed half-way.
func (e *Engine) mountVolumes(s *container.Spec) error {
	for _, m := range volumesOf(s) {
		v := e.volumes.find(m.Name)
		if v == nil {
			return fmt.Errorf("mount volume %s at %s: its record is gone: %w", m.Name, m.Target, errdefs.ErrInternal)
		}
		v.op.Lock()
		err := e.volumes.local.Mount(&v.Volume)
		if err == nil {
			e.volumes.mu.Lock()
			v.mounted[s.ID] = true
			e.volumes.mu.Unlock()
		}
		v.op.Unlock()
		if err != nil {
			return err
		}
		e.volumeEvent(m.Name, events.ActionMount, "container", s.ID, "destination", m.Target,
			"read/write", strconv.FormatBool(!m.ReadOnly), "propagation", m.Propagation)
	}
	return nil
}

// unmountVolumes is what the end of a run means for the container's volumes.
func (e *Engine) unmountVolumes(s *container.Spec) {
	done := map[string]bool{} // a volume may be mounted twice
	for _, m := range volumesOf(s) {
		v := e.volumes.find(m.Name)
		if v == nil || done[m.Name] {
			continue
		}
		done[m.Name] = true
		v.op.Lock()
		e.volumes.mu.Lock()
		was := v.mounted[s.ID]
		delete(v.mounted, s.ID)
		e.volumes.mu.Unlock()
		if was {
			if err := e.unmountUnused(v); err != nil {
				e.log.Error("unmount volume", "volume", m.Name, "err", err)
			}
			e.volumeEvent(m.Name, events.ActionUnmount, "container", s.ID)
		}
		v.op.Unlock()
	}
}

// dropVolumes ends a removed container's use of its volumes. With its anonymous ones it takes those that nobody else
// uses.
func (e *Engine) dropVolumes(s *container.Spec, anonymous bool) {
	for _, m := range volumesOf(s) {
		v := e.volumes.find(m.Name)
		if v == nil {
			continue
		}
		e.release(v, s.ID)
		if anonymous && m.Anonymous {
			e.discard(v)
			continue
		}
		e.settleVolume(v, s.ID)
	}
}

// settleVolume makes a volume outlive the container that it was made for.
func (e *Engine) settleVolume(v *held, user string) {
	v.op.Lock()
	defer v.op.Unlock()
	if v.For != user || v.settled || v.gone {
		return
	}
	record := v.Volume
	record.For = ""
	if err := e.state.put("volumes", v.Name, record); err != nil {
		e.log.Error("keep a volume without its first container", "volume", v.Name, "err", err)
	}
	v.settled = true
}

// userMounts are the binds, volumes, tmpfs and the three files of a container, outer ones first.
func (e *Engine) userMounts(s *container.Spec) ([]specs.Mount, error) {
	mounts := oci.Tmpfs(s.HostConfig)
	etc, err := e.etcFiles(s)
	if err != nil {
		return nil, err
	}
	for _, m := range s.Mounts {
		source := m.Source
		if m.Type == mount.TypeVolume {
			source = e.volumes.local.Path(m.Name)
		} else if err := prepareBind(m); err != nil {
			return nil, err
		}
		bind, err := oci.Bind(m, source, e.cfg.Host)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, bind)
		// A bind of the user's own over one of the three files wins.
		etc = slices.DeleteFunc(etc, func(f specs.Mount) bool { return f.Destination == m.Target })
	}
	oci.SortMounts(mounts)
	return append(mounts, etc...), nil // inside whatever the user has mounted at /etc
}

// mountPoints are the mounts in docker's form.
func (e *Engine) mountPoints(s *container.Spec) []mobycontainer.MountPoint {
	out := []mobycontainer.MountPoint{}
	for _, m := range s.Mounts {
		p := mobycontainer.MountPoint{
			Type: m.Type, Name: m.Name, Source: m.Source, Destination: m.Target, Mode: m.Mode, RW: !m.ReadOnly, Propagation: mount.Propagation(m.Propagation),
		}
		if m.Type == mount.TypeVolume {
			p.Source, p.Driver = e.volumes.local.Path(m.Name), volume.Driver
		}
		out = append(out, p)
	}
	for _, m := range s.HostConfig.Mounts {
		if m.Type == mount.TypeTmpfs {
			out = append(out, mobycontainer.MountPoint{Type: m.Type, Destination: filepath.Clean(m.Target), RW: !m.ReadOnly})
		}
	}
	return out
}

// restoreVolumes reads the records, and who uses what. The containers must be read already.
func (e *Engine) restoreVolumes() error {
	if err := each(e.state, "volumes", func(v volume.Volume) { e.volumes.byName[v.Name] = hold(v) }); err != nil {
		return err
	}
	for _, b := range e.boxes {
		st := b.statusCopy()
		for _, m := range volumesOf(&b.spec) {
			v := e.volumes.byName[m.Name]
			if v == nil {
				e.log.Error("a container's volume has no record", "container", b.id, "volume", m.Name)
				continue
			}
			v.users[b.id] = true
			if st.Running() {
				v.mounted[b.id] = true
			}
		}
	}
	return nil
}

// sweepVolumes finishes what an earlier daemon did not live to finish. The containers must be restored already.
func (e *Engine) sweepVolumes() {
	for _, v := range e.allVolumes() {
		v.op.Lock()
		err := e.sweepVolume(v)
		v.op.Unlock()
		if err != nil {
			e.log.Error("take up a volume", "volume", v.Name, "err", err)
		}
	}
}

// sweepVolume removes, tidies, unmounts or makes again. v.op must be held.
func (e *Engine) sweepVolume(v *held) error {
	// The volume of a container that was removed is settled: this one's has never been, if there is none.
	e.mu.RLock()
	_, created := e.boxes[v.For]
	e.mu.RUnlock()
	if v.Removing || v.For != "" && !created {
		if err := e.removeVolume(v); !errdefs.IsConflict(err) {
			return err
		}
	}
	made, err := e.volumes.local.Ensure(v.Name)
	if made {
		e.log.Warn("a volume's folder was missing and is made anew, empty", "volume", v.Name)
	}
	if err := errors.Join(err, e.volumes.local.Tidy(v.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return e.unmountUnused(v)
}

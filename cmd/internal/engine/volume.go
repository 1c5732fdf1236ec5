package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	mobyvolume "github.com/moby/moby/api/types/volume"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/runtime/volume"
)

// volumes are this host's. Locks are taken in the order box.op, held.op, volumes.mu.
type volumes struct {
	local *volume.Local

	mu     sync.Mutex // guards what follows, and every held's maps
	byName map[string]*held
}

// held is one volume with who holds it.
type held struct {
	volume.Volume // never changes

	op      sync.Mutex      // one step (make, fill, mount, unmount, remove) at a time
	users   map[string]bool // containers that name it, running or not
	mounted map[string]bool // those of them that run
	settled bool            // outlives the container that it was made for; guarded by op
	gone    bool            // removed, being removed, or never made; written with both locks held
}

func newVolumes(dir string) *volumes {
	return &volumes{local: volume.NewLocal(dir), byName: map[string]*held{}}
}

func hold(v volume.Volume) *held {
	return &held{Volume: v, users: map[string]bool{}, mounted: map[string]bool{}}
}

// find gives a volume by its whole name; nil if there is none.
func (t *volumes) find(name string) *held {
	t.mu.Lock()
	defer t.mu.Unlock()
	if v := t.byName[name]; v != nil && !v.gone {
		return v
	}
	return nil
}

// usersOf lists the containers that name a volume.
func (t *volumes) usersOf(v *held) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]string, 0, len(v.users))
	for id := range v.users {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// obtain gives the volume of that name, made if there is none, and makes user (empty: nobody) one of its users before
// anybody can remove it.
func (e *Engine) obtain(want volume.Volume, user string) (v *held, made bool, err error) {
	t := e.volumes
	for {
		t.mu.Lock()
		v := t.byName[want.Name]
		if made = v == nil; made {
			v = hold(want)
			v.op.Lock() // nobody else knows it yet
			t.byName[want.Name] = v
		}
		if user != "" {
			v.users[user] = true // of no weight should it be gone
		}
		t.mu.Unlock()
		if made {
			err := e.makeVolume(v)
			v.op.Unlock()
			return v, true, err
		}
		v.op.Lock() // whoever makes or removes it is done then
		gone := v.gone
		v.op.Unlock()
		if !gone {
			return v, false, nil
		}
	}
}

// makeVolume keeps the record before it makes the folder: what is on the disk always has a name. v.op must be held.
func (e *Engine) makeVolume(v *held) error {
	err := e.state.add("volumes", v.Name, v.Volume)
	if err == nil {
		if _, err = e.volumes.local.Ensure(v.Name); err == nil {
			e.volumeEvent(v.Name, events.ActionCreate)
			return nil
		}
		_ = e.state.delete("volumes", v.Name)
	}
	e.drop(v)
	return fmt.Errorf("create %s: %w", v.Name, err)
}

// drop takes a volume out of the table. v.op must be held.
func (e *Engine) drop(v *held) {
	e.volumes.mu.Lock()
	defer e.volumes.mu.Unlock()
	v.gone = true
	delete(e.volumes.byName, v.Name)
}

func noSuchVolume(name string) error { return notFound("get %s: no such volume", name) }

func inUse(name string, users []string) error {
	return conflict("remove %s: volume is in use - [%s]", name, strings.Join(users, ", "))
}

// VolumeCreate makes a volume, or gives the one that has the name: docker's rule.
func (e *Engine) VolumeCreate(_ context.Context, req mobyvolume.CreateRequest) (mobyvolume.Volume, error) {
	if req.ClusterVolumeSpec != nil {
		return mobyvolume.Volume{}, unsupported("minictl does not support cluster volumes; a volume belongs to one host")
	}
	v := volume.Volume{Name: req.Name, Created: time.Now().UTC(), Labels: req.Labels, Options: req.DriverOpts}
	if v.Name == "" {
		v.Name, v.Labels = newID(), anonymousLabels(req.Labels)
	}
	if req.Driver != "" && req.Driver != volume.Driver {
		return mobyvolume.Volume{}, notFound("create %s: error looking up volume plugin %s: plugin %q not found", v.Name, req.Driver, req.Driver)
	}
	if err := checkVolume(v.Name, v.Options); err != nil {
		return mobyvolume.Volume{}, err
	}
	have, _, err := e.obtain(v, "")
	if err != nil {
		return mobyvolume.Volume{}, err
	}
	return e.volumeView(have), nil
}

// checkVolume refuses what cannot be made.
func checkVolume(name string, options map[string]string) error {
	if err := volume.CheckName(name); err != nil {
		return err
	}
	if err := volume.CheckOptions(options); err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	return nil
}

func anonymousLabels(more map[string]string) map[string]string {
	out := map[string]string{volume.AnonymousLabel: ""}
	for k, v := range more {
		out[k] = v
	}
	return out
}

// volumeView is the volume in docker's form.
func (e *Engine) volumeView(v *held) mobyvolume.Volume {
	return mobyvolume.Volume{
		Name: v.Name, Driver: volume.Driver, Mountpoint: e.volumes.local.Path(v.Name), CreatedAt: v.Created.Format(time.RFC3339),
		Labels: v.Labels, Options: v.Options, Scope: scopeLocal,
	}
}

// VolumeInspect is one volume. Volumes have no IDs: only the whole name finds one.
func (e *Engine) VolumeInspect(_ context.Context, name string) (mobyvolume.Volume, error) {
	v := e.volumes.find(name)
	if v == nil {
		return mobyvolume.Volume{}, noSuchVolume(name)
	}
	return e.volumeView(v), nil
}

// allVolumes gives the volumes by name.
func (e *Engine) allVolumes() []*held {
	e.volumes.mu.Lock()
	defer e.volumes.mu.Unlock()
	var out []*held
	for _, v := range e.volumes.byName {
		if !v.gone {
			out = append(out, v)
		}
	}
	slices.SortFunc(out, func(a, b *held) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// VolumeList is docker volume ls.
func (e *Engine) VolumeList(_ context.Context, f api.Filters) ([]mobyvolume.Volume, error) {
	if err := f.Only("name", "driver", "label", "dangling"); err != nil {
		return nil, err
	}
	dangling, err := f.Bool("dangling")
	if err != nil {
		return nil, err
	}
	out := []mobyvolume.Volume{}
	for _, v := range e.allVolumes() {
		if f.Labels("label", v.Labels) &&
			f.Is("driver", volume.Driver) &&
			f.Named("name", v.Name) &&
			(dangling == nil || *dangling == (len(e.volumes.usersOf(v)) == 0)) {
			out = append(out, e.volumeView(v))
		}
	}
	return out, nil
}

// VolumeRemove removes a volume that no container names, and with it all its content. force makes a volume that is not
// there a success.
func (e *Engine) VolumeRemove(_ context.Context, name string, force bool) error {
	v := e.volumes.find(name)
	if v == nil {
		if force {
			return nil
		}
		return noSuchVolume(name)
	}
	// A volume in use is refused at once, and not after a copy into it has ended.
	if users := e.volumes.usersOf(v); len(users) > 0 {
		return inUse(name, users)
	}
	v.op.Lock()
	defer v.op.Unlock()
	return e.removeVolume(v)
}

// removeVolume marks the record first, so that a daemon that dies meanwhile finishes at its next start. v.op must be held.
func (e *Engine) removeVolume(v *held) error {
	e.volumes.mu.Lock()
	if v.gone {
		e.volumes.mu.Unlock()
		return noSuchVolume(v.Name)
	}
	v.gone = len(v.users) == 0 // from here on obtain waits for what comes of it
	e.volumes.mu.Unlock()
	if !v.gone {
		return inUse(v.Name, e.volumes.usersOf(v))
	}
	record := v.Volume
	record.Removing = true
	err := e.state.put("volumes", v.Name, record)
	if err == nil {
		err = e.volumes.local.Remove(&v.Volume)
	}
	if err == nil {
		err = e.state.delete("volumes", v.Name)
	}
	if err != nil {
		// What is left of it can still be used, and removed again.
		record.Removing = false
		_ = e.state.put("volumes", v.Name, record)
		e.volumes.mu.Lock()
		v.gone = false
		e.volumes.mu.Unlock()
		return err
	}
	e.drop(v)
	e.volumeEvent(v.Name, events.ActionDestroy)
	return nil
}

// VolumePrune removes the volumes that no container names: those without a name of a user's giving, or all.
func (e *Engine) VolumePrune(ctx context.Context, f api.Filters) (mobyvolume.PruneReport, error) {
	r := mobyvolume.PruneReport{VolumesDeleted: []string{}}
	if err := f.Only("all", "label", "label!"); err != nil {
		return r, err
	}
	all, err := f.Truth("all", false)
	if err != nil {
		return r, err
	}
	for _, v := range e.allVolumes() {
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		if !all && !v.Anonymous() || !f.Prunes(v.Labels) || len(e.volumes.usersOf(v)) > 0 {
			continue
		}
		size, err := e.volumes.local.Usage(v.Name)
		if err != nil {
			e.log.Warn("measure a volume", "volume", v.Name, "err", err)
		}
		if err := e.VolumeRemove(ctx, v.Name, true); errdefs.IsConflict(err) {
			continue // a container has come to use it
		} else if err != nil {
			return r, err
		}
		r.VolumesDeleted = append(r.VolumesDeleted, v.Name)
		r.SpaceReclaimed += uint64(size)
	}
	e.pruned(events.VolumeEventType, r.SpaceReclaimed)
	return r, nil
}

func (e *Engine) volumeEvent(name string, action events.Action, more ...string) {
	attrs := map[string]string{"driver": volume.Driver}
	addPairs(attrs, more)
	e.events.Publish(events.Message{Type: events.VolumeEventType, Action: action, Actor: events.Actor{ID: name, Attributes: attrs}})
}

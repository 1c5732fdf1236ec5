package engine

import (
	"context"
	"time"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	mobyimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/volume"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/cmd/internal/filters"
	"github.com/minictl/minictl/runtime/container"
)

// pruneFilter is what all prunes have in common.
type pruneFilter struct {
	f     api.Filters
	until time.Time // zero: any age
}

// newPruneFilter refuses filters that the noun does not have, and an until that is no time.
func newPruneFilter(f api.Filters, more ...string) (pruneFilter, error) {
	p := pruneFilter{f: f}
	if err := f.Only(append(more, "label", "label!", "until")...); err != nil {
		return p, err
	}
	if len(f["until"]) > 1 {
		return p, invalid("more than one until filter specified")
	}
	for u := range f["until"] {
		var err error
		if p.until, err = filters.Until(u); err != nil {
			return p, err
		}
	}
	return p, nil
}

// takes tells whether something with these labels, of that time, is to go.
func (p pruneFilter) takes(labels map[string]string, created time.Time) bool {
	return p.f.Prunes(labels) && (p.until.IsZero() || created.Before(p.until))
}

// ContainersPrune removes the containers that do not run.
func (e *Engine) ContainersPrune(ctx context.Context, f api.Filters) (mobycontainer.PruneReport, error) {
	report := mobycontainer.PruneReport{ContainersDeleted: []string{}}
	p, err := newPruneFilter(f)
	if err != nil {
		return report, err
	}
	for _, b := range e.all() {
		spec, st := b.specCopy(), b.statusCopy()
		if !prunable(st.State) || !p.takes(spec.Config.Labels, spec.Created) {
			continue
		}
		size, _ := e.rt.Usage(ctx, b.id) // one that is half removed has none
		switch err := e.ContainerRemove(ctx, b.id, false, false); {
		case errdefs.IsNotFound(err), errdefs.IsConflict(err): // somebody was faster, or has started it
		case err != nil:
			return report, err
		default:
			report.ContainersDeleted = append(report.ContainersDeleted, b.id)
			report.SpaceReclaimed += uint64(max(size, 0))
		}
	}
	e.pruned(events.ContainerEventType, report.SpaceReclaimed)
	return report, nil
}

func prunable(s mobycontainer.ContainerState) bool {
	return s == mobycontainer.StateCreated || s == mobycontainer.StateExited || s == mobycontainer.StateDead
}

// ImagesPrune removes images that no container is made from: those without a name, or with dangling=false all.
func (e *Engine) ImagesPrune(ctx context.Context, f api.Filters) (mobyimage.PruneReport, error) {
	report := mobyimage.PruneReport{ImagesDeleted: []mobyimage.DeleteResponse{}}
	p, err := newPruneFilter(f, "dangling")
	if err != nil {
		return report, err
	}
	unnamed, err := f.Truth("dangling", true)
	if err != nil {
		return report, err
	}
	before, err := e.rt.LayersSize(ctx)
	if err != nil {
		return report, err
	}
	images, err := e.rt.Images(ctx)
	if err != nil {
		return report, err
	}
	for _, i := range images {
		if len(i.RepoTags) > 0 && unnamed || !p.takes(i.Labels, i.Created) || len(e.imageUsers(i.ID)) > 0 {
			continue
		}
		// Forced, since all of its names are to go; nobody uses it.
		removed, err := e.ImageRemove(ctx, i.ID, true, true)
		if err != nil && !errdefs.IsNotFound(err) {
			return report, err
		}
		report.ImagesDeleted = append(report.ImagesDeleted, removed...)
	}
	if err := e.rt.DropUnfinishedPulls(ctx); err != nil {
		return report, err
	}
	after, err := e.rt.LayersSize(ctx)
	if err != nil {
		return report, err
	}
	report.SpaceReclaimed = uint64(max(before-after, 0))
	e.pruned(events.ImageEventType, report.SpaceReclaimed)
	return report, nil
}

// DiskUsage is docker system df.
func (e *Engine) DiskUsage(ctx context.Context, kinds map[string]bool) (api.DiskUsage, error) {
	du := api.DiskUsage{Volumes: []volume.Volume{}, BuildCache: []struct{}{}}
	wanted := func(kind string) bool { return len(kinds) == 0 || kinds[kind] }
	var err error
	if wanted("image") {
		if du.LayersSize, err = e.rt.LayersSize(ctx); err != nil {
			return du, err
		}
		if du.Images, err = e.imagesWithShares(ctx); err != nil {
			return du, err
		}
	}
	if wanted("container") {
		if du.Containers, err = e.ContainerList(ctx, api.ListOptions{All: true, Size: true}); err != nil {
			return du, err
		}
	}
	if wanted("volume") {
		for _, v := range e.allVolumes() {
			view := e.volumeView(v)
			size, err := e.volumes.local.Usage(v.Name)
			if err != nil {
				e.log.Warn("measure a volume", "volume", v.Name, "err", err)
				size = -1 // docker's word for unknown
			}
			view.UsageData = &volume.UsageData{RefCount: int64(len(e.volumes.usersOf(v))), Size: size}
			du.Volumes = append(du.Volumes, view)
		}
	}
	return du, nil
}

// imagesWithShares lists the images with what of each others have as well.
func (e *Engine) imagesWithShares(ctx context.Context) ([]mobyimage.Summary, error) {
	list, err := e.ImageList(ctx, false, nil)
	if err != nil {
		return nil, err
	}
	shared, err := e.ImageShares(ctx)
	if err != nil {
		return nil, err
	}
	for i := range list {
		list[i].SharedSize = shared[list[i].ID]
	}
	return list, nil
}

// ImageShares are the bytes of each image, by ID, that others have as well.
func (e *Engine) ImageShares(ctx context.Context) (map[string]int64, error) {
	images, err := e.rt.Images(ctx)
	if err != nil {
		return nil, err
	}
	users, sizes := map[string][]string{}, map[string]int64{} // by layer
	for _, i := range images {
		layers, err := e.rt.Layers(ctx, i)
		if err != nil {
			return nil, err
		}
		for _, l := range layers {
			users[l.Chain] = append(users[l.Chain], i.ID)
			sizes[l.Chain] = l.Size
		}
	}
	shared := map[string]int64{}
	for chain, ids := range users {
		if len(ids) > 1 {
			for _, id := range ids {
				shared[id] += sizes[chain]
			}
		}
	}
	return shared, nil
}

// containerSizes are what a container's own layer takes, and that together with its image's; -1 where it is not known.
func (e *Engine) containerSizes(ctx context.Context, s *container.Spec) (own, whole int64) {
	own, err := e.rt.Usage(ctx, s.ID)
	if err != nil {
		return -1, -1
	}
	img, err := e.rt.Image(ctx, s.ImageID)
	if err != nil {
		return own, -1
	}
	return own, own + img.Size
}

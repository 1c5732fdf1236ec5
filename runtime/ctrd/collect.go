package ctrd

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// containerd removes a layer's files a moment after its record (plugins/gc). It forgets to when it ends in between, and
// it overhears a removal that comes while it is at it, until the next change of anything. On a quiet host that can be
// next week, so both are made up for here.

// nudgeAfter is how long after a removal containerd is sure to have collected, if it has heard of it.
const nudgeAfter = 3 * time.Second

// collect has containerd remove the files of all layers whose records are gone: it looks when one more goes.
func collect(ctx context.Context, sn snapshots.Snapshotter) error {
	const name = "minictl/collect"
	if _, err := sn.Prepare(ctx, name, ""); err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("collect removed layers: %w", err)
	}
	if err := sn.Remove(ctx, name); err != nil && !errdefs.IsNotFound(err) { // unless it was collected itself
		return fmt.Errorf("collect removed layers: %w", err)
	}
	return nil
}

// removedLayer has the nudge follow.
func (r *Runtime) removedLayer() {
	select {
	case r.removed <- struct{}{}:
	default: // it will come anyway
	}
}

// nudge changes something of no meaning a while after the last removal: should that have been overheard, it is heard now.
func (r *Runtime) nudge() {
	later := time.NewTimer(0)
	<-later.C
	defer later.Stop()
	for {
		select {
		case <-r.removed:
			later.Reset(nudgeAfter)
			continue
		case <-later.C:
		case <-r.life.Done():
			return
		}
		if err := r.client.NamespaceService().SetLabel(r.ctx(r.life), Namespace, "minictl/nudged", time.Now().UTC().Format(time.RFC3339)); err != nil {
			r.log.Debug("removed layers may stay on the disk until the next change", "err", err)
		}
	}
}

package engine

import (
	"cmp"
	"context"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster"
)

// NodeRemove drops a host that is gone for good: its record, its addresses, its endpoints and its vote. One that is alive
// is refused unless forced: it goes on alone, and the others let nothing of it in any more.
func (e *Engine) NodeRemove(ctx context.Context, ref string, force bool) error {
	m, err := e.member(ref)
	if err != nil {
		return err
	}
	err = e.cl.Remove(ctx, cmp.Or(m.Name, string(m.ID)), force)
	if errdefs.IsUnavailable(err) {
		return e.undecided("remove node "+m.Name, err)
	}
	if err != nil {
		return err
	}
	return e.synced(ctx)
}

// member finds a host by ID, name, start of the ID, or self.
func (e *Engine) member(ref string) (cluster.Member, error) {
	if ref == "self" {
		ref = string(e.cl.Self().ID)
	}
	return pickMember(e.cl.Members(), ref)
}

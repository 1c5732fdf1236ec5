package engine

import (
	"context"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store"
)

// freshTimeout bounds how long a look-up waits for what the cluster has decided and this host has not heard yet.
const freshTimeout = time.Second

// freshPoll is how often a replica that lags is looked at meanwhile.
const freshPoll = 5 * time.Millisecond

// withNetworks calls look with all networks. If it misses one it is called again with those that whoever decides knows:
// a daemon that has just been started may lag behind what it had itself decided a moment before.
func (e *Engine) withNetworks(ctx context.Context, look func(all []*Network) error) error {
	all, err := e.allNetworks(ctx)
	if err != nil {
		return err
	}
	missing := look(all)
	if !errdefs.IsNotFound(missing) {
		return missing
	}
	if err := e.refresh(ctx); err != nil {
		return &unheard{e.undecided(missing.Error()+" on this host, which may not have heard of it", err)}
	}
	if all, err = e.allNetworks(ctx); err != nil {
		return err
	}
	return look(all)
}

// unheard is about what this host does not know, when nobody can be asked whether it is so.
type unheard struct{ undecided error }

// Error says what is missing and who does not answer.
func (u *unheard) Error() string { return u.undecided.Error() }

// Unwrap gives the class: as far as this host knows, there is no such thing.
func (u *unheard) Unwrap() error { return errdefs.ErrNotFound }

// refresh waits until this host knows all networks that are decided. It fails if nobody can tell in time.
func (e *Engine) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, freshTimeout)
	defer cancel()
	ctx, stop := e.cl.Deciding(ctx, patient)
	defer stop()
	_, rev, err := e.globalNetworks(ctx, true)
	for err == nil {
		var have store.Revision
		if _, have, err = e.globalNetworks(ctx, false); err == nil && have >= rev {
			return nil
		}
		select {
		case <-time.After(freshPoll):
		case <-ctx.Done():
			return unavailable("it does not hear in time what the cluster has decided; try again")
		}
	}
	return err
}

// awaitNetworks waits, when the daemon starts, for the networks that its running containers are on: without them their
// endpoints could not be repaired.
func (e *Engine) awaitNetworks(ctx context.Context) {
	all, err := e.allNetworks(ctx)
	if err != nil {
		return
	}
	for _, b := range e.all() {
		for _, ep := range b.statusCopy().Endpoints {
			known := slices.ContainsFunc(all, func(n *Network) bool { return n.ID == ep.NetworkID })
			if ep.OnCluster() && !known {
				_ = e.refresh(ctx) // what is still missing then is not repaired
				return
			}
		}
	}
}

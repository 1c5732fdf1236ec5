package ctrd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
)

const (
	// labelPull on a lease names the image whose pull it protects.
	labelPull = "minictl/pull"
	// pullKept is how long the layers of a pull that did not end well wait for the next attempt.
	pullKept = 24 * time.Hour
	// downloadAttempts is how often a layer is tried, docker's default.
	downloadAttempts = 5
)

// unfinished knows which pulls' leases are in use, by ID. The others are leftovers, of this daemon or an earlier one.
type unfinished struct {
	mu     sync.Mutex
	active map[string]bool
}

func (u *unfinished) begin(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.active == nil {
		u.active = map[string]bool{}
	}
	u.active[id] = true
}

func (u *unfinished) end(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.active, id)
}

func (u *unfinished) has(id string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.active[id]
}

// keepForPull protects what a pull brings. The function it gives is called with the pull's outcome: a pull that brought
// something and failed leaves it to the next attempt, also one after a crash; a pull that succeeded takes along what
// earlier ones of the image left.
func (r *Runtime) keepForPull(ctx context.Context, name string) (context.Context, func(succeeded, brought bool), error) {
	ls := r.client.LeasesService()
	l, err := ls.Create(ctx, leases.WithRandomID(), leases.WithExpiration(pullKept), leases.WithLabels(map[string]string{labelPull: name}))
	if err != nil {
		return ctx, nil, err
	}
	r.pulls.begin(l.ID)
	return leases.WithLease(ctx, l.ID), func(succeeded, brought bool) {
		ctx := context.WithoutCancel(ctx)
		r.pulls.end(l.ID)
		var err error
		switch {
		case succeeded:
			err = r.dropPulls(ctx, func(of string) bool { return of == name })
		case !brought:
			err = ls.Delete(ctx, l)
		}
		if err != nil && !errdefs.IsNotFound(err) {
			r.log.Warn("leftovers of a pull stay for a day", "image", name, "err", err)
		}
	}, nil
}

// dropPulls gives up what ended pulls of certain images left.
func (r *Runtime) dropPulls(ctx context.Context, of func(image string) bool, opts ...leases.DeleteOpt) error {
	ls := r.client.LeasesService()
	all, err := ls.List(ctx)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(l leases.Lease) bool {
		image, ours := l.Labels[labelPull]
		return !ours || r.pulls.has(l.ID) || !of(image)
	})
	for i, l := range all {
		var o []leases.DeleteOpt
		if i == len(all)-1 {
			o = opts
		}
		if err := ls.Delete(ctx, l, o...); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// DropUnfinishedPulls frees the disk of what pulls that did not end well left for the next attempt.
func (r *Runtime) DropUnfinishedPulls(ctx context.Context) error {
	if err := r.dropPulls(r.ctx(ctx), func(string) bool { return true }, leases.SynchronousDelete); err != nil {
		return fmt.Errorf("drop unfinished pulls: %w", err)
	}
	return nil
}

// sweepLeases gives up what operations of a killed daemon protected, save what its pulls brought. A containerd of somebody
// else's may have another daemon of ours at work: there they end by themselves after a day.
func (r *Runtime) sweepLeases(ctx context.Context) error {
	if r.cfg.External != "" {
		return nil
	}
	ls := r.client.LeasesService()
	all, err := ls.List(ctx)
	if err != nil {
		return err
	}
	for _, l := range all {
		if _, kept := l.Labels[labelPull]; kept {
			continue
		}
		if err := ls.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// persistently tries a download again when the network or the registry was at fault, a second later each time.
func persistently(ctx context.Context, tell func(string), try func() error) error {
	for attempt := 1; ; attempt++ {
		err := try()
		if err == nil || attempt == downloadAttempts || ctx.Err() != nil || !passing(err) {
			return err
		}
		for left := attempt; left > 0; left-- {
			plural := "s"
			if left == 1 {
				plural = ""
			}
			tell(fmt.Sprintf("Retrying in %d second%s", left, plural))
			select {
			case <-ctx.Done():
				return err
			case <-time.After(time.Second):
			}
		}
	}
}

// passing tells whether an error may be gone at the next attempt.
func passing(err error) bool {
	var status remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &status) {
		return status.StatusCode >= http.StatusInternalServerError || status.StatusCode == http.StatusTooManyRequests
	}
	var network net.Error
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network)
}

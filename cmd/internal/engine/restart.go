package engine

import (
	"context"
	"slices"
	"sync"
	"time"

	mobycontainer "github.com/moby/moby/api/types/container"

	"github.com/minictl/minictl/runtime/container"
)

// comeback is one container's next automatic start: how long it waits, and how that is called off.
type comeback struct {
	mu     sync.Mutex
	wait   time.Duration // the last one
	cancel context.CancelFunc
}

// reset lets the next wait be the first one again: a user has started the container.
func (c *comeback) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wait = 0
}

// plan lengthens the wait, or starts over after a run that lasted.
func (c *comeback) plan(ran time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wait = container.NextDelay(c.wait, ran)
}

// arm makes the next start one that can be called off. What it gives is for [comeback.over] and ends with ctx.
func (c *comeback) arm(ctx context.Context) armed {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel != nil {
		c.cancel() // there is one next start, never two
	}
	ctx, c.cancel = context.WithCancel(ctx)
	return armed{ctx, c.wait}
}

// armed is a start that waits.
type armed struct {
	ctx  context.Context
	wait time.Duration
}

// over blocks until the wait is over and ready is closed; false when the start was called off before.
func (a armed) over(ready <-chan struct{}) bool {
	timer := time.NewTimer(a.wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-a.ctx.Done():
		return false
	}
	select {
	case <-ready:
	case <-a.ctx.Done():
	}
	return a.ctx.Err() == nil
}

// callOff keeps a start that waits from happening.
func (c *comeback) callOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel != nil {
		c.cancel()
	}
}

// again decides, at the end of a run, whether another follows by itself. What ended while no daemon watched is
// comeBackAll's to decide. b.op must be held.
func (e *Engine) again(b *box, end *container.Status) bool {
	select {
	case <-e.restored:
	default:
		return false
	}
	if !container.StartsAgain(b.specCopy().HostConfig.RestartPolicy, end) {
		return false
	}
	b.comeback.plan(end.FinishedAt.Sub(end.StartedAt))
	return true
}

// comeBack starts a container when its wait is over. b.op need not be held.
func (e *Engine) comeBack(b *box) {
	next := b.comeback.arm(e.ctx)
	e.spawn(func() {
		if !next.over(e.restored) {
			return
		}
		b.op.Lock()
		defer b.op.Unlock()
		// It may have been called off while this waited for the lock.
		if next.ctx.Err() == nil && !b.removed && b.statusCopy().State == mobycontainer.StateRestarting {
			e.startAgain(context.WithoutCancel(e.ctx), b)
		}
	})
}

// startAgain is an automatic start. Docker gives up when one fails; here it counts as a run that has failed, so that the
// containers of a host that comes up before its cluster's leader does are not lost. b.op must be held.
func (e *Engine) startAgain(ctx context.Context, b *box) {
	warnings, err := e.start(ctx, b)
	for _, w := range warnings {
		e.log.Warn("started a container again", "container", b.id, "warning", w)
	}
	if err == nil {
		return
	}
	e.log.Error("start a container again", "container", b.id, "err", err)
	e.startFailed(b, err)
	now := time.Now().UTC()
	end := b.statusCopy()
	end.StartedAt, end.FinishedAt = now, now // it lasted no time at all
	if !e.again(b, &end) {
		e.update(b, func(s *container.Status) { s.State = mobycontainer.StateExited })
		return
	}
	e.update(b, func(s *container.Status) { s.RestartCount++ })
	e.comeBack(b)
}

// callOff ends a back-off for a user who wants the container stopped; false when there is none.
func (e *Engine) callOff(b *box) bool {
	b.op.Lock()
	defer b.op.Unlock()
	if b.removed || b.statusCopy().State != mobycontainer.StateRestarting {
		return false
	}
	b.comeback.callOff()
	e.update(b, func(s *container.Status) { s.State, s.ManuallyStopped = mobycontainer.StateExited, true })
	b.mu.Lock()
	b.answerWaits(false)
	b.mu.Unlock()
	return true
}

// comeBackAll starts, when the daemon has taken up everything, what its policy wants to run.
func (e *Engine) comeBackAll() {
	close(e.restored)
	for _, b := range slices.Backward(e.all()) { // the oldest first: others may join its network
		e.comeBackAtBoot(b)
	}
}

func (e *Engine) comeBackAtBoot(b *box) {
	b.op.Lock() // an end that is noticed just now is decided upon before or after, not in between
	defer b.op.Unlock()
	st := b.statusCopy()
	waits := st.State == mobycontainer.StateRestarting
	if !waits && (st.State != mobycontainer.StateExited || !container.StartsAtBoot(b.specCopy().HostConfig.RestartPolicy, &st)) {
		return
	}
	e.update(b, func(s *container.Status) {
		s.State = mobycontainer.StateRestarting
		if !waits {
			s.RestartCount = 0 // as after a user's start
		}
	})
	e.comeBack(b)
}

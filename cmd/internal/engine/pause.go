package engine

import (
	"context"
	"fmt"

	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/minictl/minictl/runtime/container"
	"github.com/minictl/minictl/runtime/ctrd"
)

// ContainerPause freezes all processes of a container.
func (e *Engine) ContainerPause(ctx context.Context, ref string) error {
	b, err := e.find(ref)
	if err != nil {
		return err
	}
	b.op.Lock()
	defer b.op.Unlock()
	task, err := b.live(ref)
	if err != nil {
		return err
	}
	if b.statusCopy().State == mobycontainer.StatePaused {
		return conflict("container %s is already paused", ref)
	}
	e.stopMonitor(b) // a probe would freeze, too
	if err := task.Pause(ctx); err != nil {
		e.monitorHealth(b, task, false)
		return fmt.Errorf("cannot pause container %s: %w", ref, err)
	}
	e.update(b, func(s *container.Status) { s.State = mobycontainer.StatePaused })
	e.event(b, events.ActionPause)
	return nil
}

// ContainerUnpause lets them go on.
func (e *Engine) ContainerUnpause(ctx context.Context, ref string) error {
	b, err := e.find(ref)
	if err != nil {
		return err
	}
	b.op.Lock()
	defer b.op.Unlock()
	task, err := b.live(ref)
	if err != nil {
		return err
	}
	if b.statusCopy().State != mobycontainer.StatePaused {
		return conflict("container %s is not paused", ref)
	}
	if err := task.Resume(ctx); err != nil {
		return fmt.Errorf("cannot unpause container %s: %w", ref, err)
	}
	e.unpaused(b, task)
	return nil
}

// unpaused makes it a fact that a container goes on.
func (e *Engine) unpaused(b *box, task *ctrd.Task) {
	e.update(b, func(s *container.Status) { s.State = mobycontainer.StateRunning })
	e.monitorHealth(b, task, false)
	e.event(b, events.ActionUnPause)
}

// thaw lets a frozen container act upon the signal that is to end it: until then the signal waits.
func (e *Engine) thaw(ctx context.Context, b *box, task *ctrd.Task) {
	if b.statusCopy().State != mobycontainer.StatePaused {
		return
	}
	if err := task.Resume(ctx); err != nil {
		e.log.Debug("unpause a container that is being stopped", "container", b.id, "err", err)
	}
	b.mu.Lock()
	paused := b.status.State == mobycontainer.StatePaused
	if paused {
		b.status.State = mobycontainer.StateRunning
	}
	b.mu.Unlock()
	if paused {
		e.event(b, events.ActionUnPause)
	}
}

// live gives the task of a running container, or docker's sentence for one that does not run.
func (b *box) live(ref string) (*ctrd.Task, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.status.State == mobycontainer.StateRestarting:
		return nil, conflict("Container %s is restarting, wait until the container is running", ref)
	case b.task == nil || !b.status.Running():
		return nil, conflict("container %s is not running", ref)
	}
	return b.task, nil
}

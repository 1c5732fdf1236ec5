package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"

	"github.com/minictl/minictl/runtime/container"
	"github.com/minictl/minictl/runtime/ctrd"
)

// box is one container on this host.
type box struct {
	id string
	// op lets one life-cycle step (start, the work after an exit, remove) run at a time. It is taken before mu.
	op sync.Mutex

	mu      sync.Mutex // guards what follows
	spec    container.Spec
	status  container.Status
	task    *ctrd.Task
	gone    chan struct{} // closed when the present run has ended and is cleaned up; nil while there is none
	waits   []wait
	late    []*lateStream // attached before start
	removed bool
	// stopping: docker stop ends this run, which is worth an event of its own.
	stopping bool

	comeback comeback
	monitor  monitor
}

// wait is one client that waits for an exit.
type wait struct {
	condition mobycontainer.WaitCondition
	answer    chan mobycontainer.WaitResponse
}

func (b *box) specCopy() container.Spec {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.spec
}

func (b *box) statusCopy() container.Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.status
	s.Endpoints = slices.Clone(s.Endpoints)
	return s // Health is replaced, never changed in place
}

// update changes the status and keeps it. A status that can't be kept is logged, not fatal: the kernel is the truth at
// the next start.
func (e *Engine) update(b *box, change func(*container.Status)) {
	b.mu.Lock()
	change(&b.status)
	removed := b.removed
	b.mu.Unlock()
	if removed {
		return
	}
	if err := e.keep(b); err != nil {
		e.log.Error("keep container's status", "container", b.id, "err", err)
	}
}

// keep writes a container down as it is when its turn to write has come: of several who write at once the last one has all.
func (e *Engine) keep(b *box) error {
	return e.state.write("containers", b.id, func() any {
		b.mu.Lock()
		defer b.mu.Unlock()
		return record{b.spec, b.status}
	})
}

// find resolves what a user calls a container: its full ID, its name, or an unambiguous start of its ID.
func (e *Engine) find(ref string) (*box, error) {
	name := strings.TrimPrefix(ref, "/")
	e.mu.RLock()
	defer e.mu.RUnlock()
	if b, ok := e.boxes[name]; ok {
		return b, nil
	}
	if id, ok := e.names[name]; ok {
		return e.boxes[id], nil
	}
	var found *box
	if name != "" {
		for id, b := range e.boxes {
			if strings.HasPrefix(id, name) {
				if found != nil {
					return nil, fmt.Errorf("multiple IDs found with provided prefix: %s: %w", name, errdefs.ErrInvalidArgument)
				}
				found = b
			}
		}
	}
	if found == nil {
		return nil, notFound("No such container: %s", ref)
	}
	return found, nil
}

// all gives the boxes, newest first: docker's order.
func (e *Engine) all() []*box {
	e.mu.RLock()
	out := make([]*box, 0, len(e.boxes))
	for _, b := range e.boxes {
		out = append(out, b)
	}
	e.mu.RUnlock()
	created := make(map[*box]time.Time, len(out))
	for _, b := range out {
		created[b] = b.specCopy().Created
	}
	slices.SortFunc(out, func(x, y *box) int { return created[y].Compare(created[x]) })
	return out
}

// ContainerWait registers a wait before it returns.
func (e *Engine) ContainerWait(ctx context.Context, ref string, condition mobycontainer.WaitCondition) (<-chan mobycontainer.WaitResponse, error) {
	b, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	if condition == "" {
		condition = mobycontainer.WaitConditionNotRunning
	}
	return b.wait(ctx, condition), nil
}

func (b *box) wait(ctx context.Context, condition mobycontainer.WaitCondition) <-chan mobycontainer.WaitResponse {
	answer := make(chan mobycontainer.WaitResponse, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if condition == mobycontainer.WaitConditionNotRunning && !b.status.Active() && b.gone == nil {
		answer <- exitAnswer(&b.status)
		return answer
	}
	b.waits = append(b.waits, wait{condition, answer})
	context.AfterFunc(ctx, func() { // or they would pile up with a container that runs for months
		b.mu.Lock()
		defer b.mu.Unlock()
		b.waits = slices.DeleteFunc(b.waits, func(w wait) bool { return w.answer == answer })
	})
	return answer
}

func exitAnswer(s *container.Status) mobycontainer.WaitResponse {
	r := mobycontainer.WaitResponse{StatusCode: int64(s.ExitCode)}
	if s.Error != "" {
		r.Error = &mobycontainer.WaitExitError{Message: s.Error}
	}
	return r
}

// drop tells all who wait for anything of a container that it is no more. b.mu must be held.
func (b *box) drop() {
	b.removed = true
	for _, l := range b.late {
		l.fail(nil)
	}
	b.late = nil
	b.answerWaits(true)
}

// answerWaits answers those that wait for an exit, or everybody once the container is removed. b.mu must be held.
func (b *box) answerWaits(removed bool) {
	b.waits = slices.DeleteFunc(b.waits, func(w wait) bool {
		if !removed && w.condition == mobycontainer.WaitConditionRemoved {
			return false
		}
		answer := exitAnswer(&b.status)
		if removed {
			answer.Error = nil // of the removal, which docker's client would report as failed
		}
		w.answer <- answer
		return true
	})
}

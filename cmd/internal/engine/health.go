package engine

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/minictl/minictl/runtime/container"
	"github.com/minictl/minictl/runtime/ctrd"
)

// probeOutput is how much of a probe's output is kept, in bytes: docker's number.
const probeOutput = 4096

// probeFailed is docker's exit code for a probe that could not run or took too long.
const probeFailed = -1

// monitor is one container's health check while that runs.
type monitor struct {
	mu   sync.Mutex
	stop context.CancelFunc
}

// start ends an earlier round and gives the context of a new one.
func (m *monitor) start(ctx context.Context) context.Context {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stop != nil {
		m.stop()
	}
	ctx, m.stop = context.WithCancel(ctx)
	return ctx
}

// end gives false when no check ran.
func (m *monitor) end() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stop == nil {
		return false
	}
	m.stop()
	m.stop = nil
	return true
}

// monitorHealth begins to probe a running container that has a health check. A fresh run begins as "starting"; one that
// was taken up or unpaused goes on with the health it had.
func (e *Engine) monitorHealth(b *box, task *ctrd.Task, fresh bool) {
	spec := b.specCopy()
	check := container.NewCheck(spec.Config)
	if check == nil {
		return
	}
	if fresh || b.statusCopy().Health == nil {
		e.update(b, func(s *container.Status) {
			h := mobycontainer.Health{Status: mobycontainer.Starting}
			if s.Health != nil {
				h.Log = s.Health.Log
			}
			s.Health = &h
		})
	}
	ctx := b.monitor.start(e.ctx)
	e.spawn(func() {
		watchHealth(ctx, check, b.statusCopy, func(ctx context.Context) mobycontainer.HealthcheckResult {
			return e.probe(ctx, b, task, check)
		}, func(r mobycontainer.HealthcheckResult) { e.probed(ctx, b, check, r) })
	})
}

// stopMonitor ends the check of a container that no longer runs. As with docker it counts as unhealthy from then on,
// without an event.
func (e *Engine) stopMonitor(b *box) {
	if !b.monitor.end() {
		return
	}
	e.update(b, func(s *container.Status) {
		if s.Health != nil {
			h := *s.Health
			h.Status = mobycontainer.Unhealthy
			s.Health = &h
		}
	})
}

// watchHealth probes at the check's pace until ctx ends. The wait counts from the end of one probe to the start of the
// next, so a slow one never piles up.
func watchHealth(ctx context.Context, check *container.Check, status func() container.Status,
	probe func(context.Context) mobycontainer.HealthcheckResult, done func(mobycontainer.HealthcheckResult)) {
	next := func() time.Duration {
		s := status()
		if s.Health == nil {
			return check.Interval
		}
		return check.Next(s.Health.Status, time.Since(s.StartedAt))
	}
	timer := time.NewTimer(next())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if r := probe(ctx); ctx.Err() == nil {
			done(r)
		}
		timer.Reset(next())
	}
}

// probed keeps a result. Only what changes the health is written to disk at once: a good container's probes would
// otherwise keep the disk busy. The rest is written with the next change, or when the daemon ends.
func (e *Engine) probed(ctx context.Context, b *box, check *container.Check, r mobycontainer.HealthcheckResult) {
	var before, after mobycontainer.Health
	b.mu.Lock()
	if b.status.Health == nil || ctx.Err() != nil {
		b.mu.Unlock()
		return
	}
	before = *b.status.Health
	after = check.Apply(before, r, b.status.StartedAt)
	b.status.Health = &after
	b.mu.Unlock()
	if before.Status == after.Status && before.FailingStreak == after.FailingStreak {
		return
	}
	e.update(b, func(*container.Status) {})
	if before.Status != after.Status {
		e.event(b, events.Action(fmt.Sprintf("%s: %s", events.ActionHealthStatus, after.Status)))
	}
}

// probe runs the check's command once in the container.
func (e *Engine) probe(ctx context.Context, b *box, task *ctrd.Task, check *container.Check) mobycontainer.HealthcheckResult {
	r := mobycontainer.HealthcheckResult{Start: time.Now().UTC(), ExitCode: probeFailed}
	out := &clippedBuffer{limit: probeOutput}
	code, err := e.runProbe(ctx, b, task, check, out)
	r.End, r.Output = time.Now().UTC(), out.String()
	if err != nil {
		r.Output = strings.TrimSuffix(err.Error()+": "+r.Output, ": ")
		return r
	}
	r.ExitCode = code
	return r
}

func (e *Engine) runProbe(ctx context.Context, b *box, task *ctrd.Task, check *container.Check, out *clippedBuffer) (int, error) {
	x := &execution{id: newID(), containerID: b.id, req: mobycontainer.ExecCreateRequest{Cmd: check.Args}}
	p, err := e.process(b, x, mobycontainer.ExecStartRequest{})
	if err != nil {
		return 0, err
	}
	command := strings.Join(check.Args, " ")
	e.event(b, events.Action("exec_create: "+command), "execID", x.id)
	proc, err := task.Exec(ctx, x.id, p, ctrd.ExecOptions{Stdout: true, Stderr: true})
	if err != nil {
		return 0, execError(err)
	}
	defer func() {
		if err := proc.Delete(context.WithoutCancel(ctx)); err != nil && !errdefs.IsNotFound(err) {
			e.log.Debug("delete health probe", "container", b.id, "err", err)
		}
	}()
	exit := proc.Wait()
	stream := proc.Stream()
	defer stream.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = stdcopy.StdCopy(out, out, stream)
	}()
	if err := proc.Start(ctx); err != nil {
		_ = stream.Close()
		<-read
		return 0, execError(err)
	}
	e.event(b, events.Action("exec_start: "+command), "execID", x.id)
	timer := time.NewTimer(check.Timeout)
	defer timer.Stop()
	select {
	case st := <-exit:
		select { // what the command left behind may hold on to its output
		case <-read:
		case <-timer.C:
		case <-ctx.Done():
		}
		e.event(b, events.ActionExecDie, append(exitAttr(int(st.Code)), "execID", x.id)...)
		return int(st.Code), nil
	case <-timer.C:
		err = unavailable("Health check exceeded timeout (%v)", check.Timeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	e.endProbe(proc, exit)
	return 0, err
}

// endProbe kills a probe that took too long, or whose container has been stopped or paused.
func (e *Engine) endProbe(proc *ctrd.Exec, exit <-chan ctrd.ExitStatus) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), undoTimeout)
	defer cancel()
	if proc.Kill(ctx, syscall.SIGKILL) != nil {
		return // gone already, and its container may be as well
	}
	select {
	case <-exit:
	case <-time.After(time.Second): // one that hangs in the kernel, or is frozen, is left behind
	case <-e.ctx.Done():
	}
}

// clippedBuffer keeps the beginning of what is written to it. It is safe for concurrent use.
type clippedBuffer struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	limit int
	more  bool
}

// Write never fails, so that a talkative probe is not ended by a broken pipe.
func (b *clippedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	room := b.limit - b.buf.Len()
	if len(p) > room {
		b.more = true
	}
	b.buf.Write(p[:min(len(p), room)])
	return len(p), nil
}

// String is what was kept, with an ellipsis if there was more.
func (b *clippedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.buf.String()
	if b.more {
		out = out[:b.limit] + "..."
	}
	return out
}

// healthSummary is the health as lists show it.
func healthSummary(s *container.Status) *mobycontainer.HealthSummary {
	if s.Health == nil {
		return &mobycontainer.HealthSummary{Status: mobycontainer.NoHealthcheck}
	}
	return &mobycontainer.HealthSummary{Status: s.Health.Status, FailingStreak: s.Health.FailingStreak}
}

// keepHealth writes the results that are only in memory: the daemon ends.
func (e *Engine) keepHealth() {
	for _, b := range e.all() {
		if b.statusCopy().Health != nil {
			e.update(b, func(*container.Status) {})
		}
	}
}

package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/sys/signal"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/runtime/container"
	"github.com/minictl/minictl/runtime/ctrd"
)

// stopTimeout is how long stop waits before it kills: docker's.
const stopTimeout = 10 * time.Second

// killTimeout is how long a SIGKILL may take to show before it is an error.
const killTimeout = 10 * time.Second

// clearTimeout is how much longer the clearing up after that may take: on a disk that is overloaded an overlay is not
// unmounted before what others have written is on it.
const clearTimeout = time.Minute

// watch waits for the end of one run and clears up after it.
func (e *Engine) watch(b *box, task *ctrd.Task, exit <-chan ctrd.ExitStatus, gone chan struct{}) {
	var st ctrd.ExitStatus
	select {
	case st = <-exit:
	case <-e.ctx.Done():
		return // the daemon ends; the next one watches on
	}
	b.op.Lock()
	defer b.op.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), undoTimeout)
	defer cancel()
	// The process has ended, so its network can go while runc and the shim clear up: each takes about as long.
	left := make(chan []container.Endpoint, 1)
	go func() { left <- e.leaveAll(ctx, b) }()
	if d, err := task.Delete(ctx); err != nil {
		if !errdefs.IsNotFound(err) {
			e.log.Error("delete task", "container", b.id, "err", err)
		}
	} else if st.Err != nil {
		st = d
	}
	endpoints := <-left
	reach("left")
	e.finished(ctx, b, st, endpoints)
	close(gone)
	if b.specCopy().HostConfig.AutoRemove {
		if err := e.remove(ctx, b); err != nil {
			e.log.Error("remove container after its exit", "container", b.id, "err", err)
		}
	}
}

// finished makes the end of a run, whose network is undone already, a fact: status kept, what leaveAll has left given back,
// waits answered. b.op must be held.
func (e *Engine) finished(ctx context.Context, b *box, st ctrd.ExitStatus, left []container.Endpoint) {
	e.stopMonitor(b)
	e.dropExecs(b.id)
	spec := b.specCopy()
	e.unmountVolumes(&spec)
	at := st.At
	if at.IsZero() {
		at = time.Now()
	}
	end := b.statusCopy()
	end.ExitCode, end.FinishedAt = int(st.Code), at.UTC()
	again := e.again(b, &end)
	b.mu.Lock()
	stopped := b.stopping
	b.stopping = false
	b.mu.Unlock()
	var said []events.Message
	if st.OOM {
		said = append(said, containerEvent(&spec, events.ActionOOM))
	}
	said = append(said, containerEvent(&spec, events.ActionDie, append(exitAttr(int(st.Code)), "execDuration", ranFor(end.StartedAt, at))...))
	if stopped {
		said = append(said, containerEvent(&spec, events.ActionStop))
	}
	e.update(b, func(s *container.Status) {
		s.State, s.Pid, s.ExitCode, s.OOMKilled, s.FinishedAt = mobycontainer.StateExited, 0, int(st.Code), st.OOM, at.UTC()
		s.SandboxPath, s.Endpoints = "", nil
		if again {
			s.State, s.RestartCount = mobycontainer.StateRestarting, s.RestartCount+1
		}
		for _, m := range said { // who sees the one sees the other
			e.events.Publish(m)
		}
	})
	e.releaseLeft(ctx, left) // who waits may want an address, or the network gone
	reach("finished")
	b.mu.Lock()
	b.task, b.gone = nil, nil
	b.answerWaits(false)
	b.mu.Unlock()
	if again {
		e.comeBack(b)
	}
}

// leaveAll takes a container off its networks: first the other hosts forget it, then the kernel objects go, then its
// addresses are free again. So no host ever sends to an address that has moved on. Those that the cluster has given are the
// result's to give back, by releaseLeft, when it is written down that the container has them no more.
func (e *Engine) leaveAll(ctx context.Context, b *box) (left []container.Endpoint) {
	spec, status := b.specCopy(), b.statusCopy()
	e.cfg.Resolver.Remove(b.id)
	reach("leave")
	e.publish(ctx, nil, recordIDs(e.records(&spec, status.Endpoints)))
	reach("leave-told")
	alien := func(ep container.Endpoint) bool { return ep.Driver == netdriver.TypeCNI } // who made it looks for what was inside
	if len(status.Endpoints) > 1 && !slices.ContainsFunc(status.Endpoints, alien) {
		if err := e.cfg.Sandboxes.Unplug(status.SandboxPath); err != nil {
			e.log.Error("unplug container", "container", b.id, "err", err)
		}
	}
	for _, ep := range status.Endpoints {
		n := e.networkOf(ctx, ep)
		e.driverLeave(ctx, n, ep)
		reach("leave-unplugged")
		if n.global() && n.IPAM == "" {
			left = append(left, ep)
		} else {
			e.releaseAddresses(ctx, n, &ep)
		}
		e.networkEvent(n, events.ActionDisconnect, "container", b.id)
	}
	e.cfg.Ports.Release(spec.Name)
	if status.SandboxPath != "" && !spec.HostConfig.NetworkMode.IsContainer() {
		if err := e.cfg.Sandboxes.Remove(status.SandboxPath); err != nil {
			e.log.Error("remove network namespace", "container", b.id, "err", err)
		}
	}
	if spec.HostConfig.IpcMode.IsShareable() {
		e.removeShm(b.id)
	}
	// In memory only: what follows keeps it. Leaving twice after a crash does no harm, but for what is left.
	b.mu.Lock()
	b.status.Endpoints = nil
	b.mu.Unlock()
	e.zones.drop(status.Endpoints)
	return left
}

// releaseLeft gives back what leaveAll has left. A daemon that dies before that leaves addresses that nobody uses, which
// reconcileLeases finds. One that gave them back first, and died before that is written down, would do it again after it has
// started: somebody else may have an address by then, and a host that is cut off does not know.
func (e *Engine) releaseLeft(ctx context.Context, left []container.Endpoint) {
	for _, ep := range left {
		e.releaseAddresses(ctx, e.networkOf(ctx, ep), &ep)
		reach("leave-freed")
	}
}

// networkOf finds an endpoint's network, or remakes enough of a removed one to leave it.
func (e *Engine) networkOf(ctx context.Context, ep container.Endpoint) *Network {
	if n, err := e.findNetwork(ctx, ep.NetworkID); err == nil {
		return n
	}
	n := &Network{ID: ep.NetworkID, Name: ep.NetworkName, Driver: ep.Driver, Scope: scopeLocal}
	if ep.OnCluster() {
		n.Scope = scopeGlobal
	}
	return n
}

// ContainerStop asks the process to end, and ends it when it does not.
func (e *Engine) ContainerStop(ctx context.Context, ref, sig string, timeout *int) error {
	b, err := e.find(ref)
	if err != nil {
		return err
	}
	if e.callOff(b) {
		return nil
	}
	if !b.statusCopy().Running() {
		return &classed{"Container already stopped", errdefs.ErrNotModified}
	}
	return e.halt(ctx, b, sig, timeout)
}

func (e *Engine) halt(ctx context.Context, b *box, sig string, timeout *int) error {
	spec := b.specCopy()
	if sig == "" {
		sig = spec.Config.StopSignal
	}
	s := syscall.SIGTERM
	if sig != "" {
		var err error
		if s, err = signal.ParseSignal(sig); err != nil {
			return invalid("%v", err)
		}
	}
	wait := stopTimeout
	if spec.Config.StopTimeout != nil {
		wait = time.Duration(*spec.Config.StopTimeout) * time.Second
	}
	if timeout != nil {
		wait = time.Duration(*timeout) * time.Second
	}
	b.mu.Lock()
	b.stopping = b.task != nil
	b.mu.Unlock()
	e.update(b, func(s *container.Status) { s.ManuallyStopped = true })
	if err := errors.Join(step("stop"), e.signal(ctx, b, s)); err != nil {
		return err
	}
	// It may have ended by itself just before, and be about to start again.
	defer e.callOff(b)
	var limit <-chan time.Time
	if wait >= 0 { // negative: for ever
		limit = time.After(wait)
	}
	if ended, err := b.waitGone(ctx, limit); ended || err != nil {
		return err
	}
	return e.kill(ctx, b)
}

// kill ends the process and waits until that is cleaned up.
func (e *Engine) kill(ctx context.Context, b *box) error {
	e.update(b, func(s *container.Status) { s.ManuallyStopped = true })
	if err := errors.Join(step("kill"), e.signal(ctx, b, syscall.SIGKILL)); err != nil {
		return err
	}
	defer e.callOff(b) // see halt
	b.mu.Lock()
	task := b.task
	b.mu.Unlock()
	ended, err := b.waitGone(ctx, time.After(killTimeout))
	if ended || err != nil {
		return err
	}
	if task == nil || !task.Exited() {
		return fmt.Errorf("container %s did not end within %s of SIGKILL: its process hangs in the kernel", b.id[:12], killTimeout)
	}
	if ended, err = b.waitGone(ctx, time.After(clearTimeout)); ended || err != nil {
		return err
	}
	return fmt.Errorf("container %s has ended, and what it used is not given back after %s: its disk or a plugin of its networks hangs; the daemon's log says more", b.id[:12], clearTimeout)
}

// waitGone waits for the end of the present run.
func (b *box) waitGone(ctx context.Context, limit <-chan time.Time) (bool, error) {
	b.mu.Lock()
	gone := b.gone
	b.mu.Unlock()
	if gone == nil {
		return true, nil
	}
	select {
	case <-gone:
		return true, nil
	case <-limit:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// signal sends one; a process that is gone already is no error.
func (e *Engine) signal(ctx context.Context, b *box, s syscall.Signal) error {
	b.mu.Lock()
	task := b.task
	b.mu.Unlock()
	if task == nil {
		return nil
	}
	if err := task.Kill(ctx, s, false); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("cannot kill container: %s: %w", b.id[:12], err)
	}
	e.event(b, events.ActionKill, "signal", strconv.Itoa(int(s)))
	if s == syscall.SIGKILL || s == stopSignal(b.specCopy().Config) {
		e.thaw(ctx, b, task)
	}
	return nil
}

// stopSignal is the one that asks a container to end.
func stopSignal(c *mobycontainer.Config) syscall.Signal {
	if s, err := signal.ParseSignal(c.StopSignal); err == nil {
		return s
	}
	return syscall.SIGTERM
}

// ContainerKill sends a signal, SIGKILL unless told otherwise.
func (e *Engine) ContainerKill(ctx context.Context, ref, sig string) error {
	b, err := e.find(ref)
	if err != nil {
		return err
	}
	s := syscall.SIGKILL
	if sig != "" {
		if s, err = signal.ParseSignal(sig); err != nil {
			return invalid("%v", err)
		}
	}
	if e.callOff(b) {
		return nil
	}
	if !b.statusCopy().Running() {
		return conflict("cannot kill container: %s: container %s is not running", ref, b.id)
	}
	if s == syscall.SIGKILL {
		return e.kill(ctx, b)
	}
	// Docker takes every signal for a stop; but a policy that a HUP switches off restarts nothing after a reload.
	if s == stopSignal(b.specCopy().Config) {
		e.update(b, func(s *container.Status) { s.ManuallyStopped = true })
	}
	return e.signal(ctx, b, s)
}

// ContainerRestart stops a container if it runs, and starts it.
func (e *Engine) ContainerRestart(ctx context.Context, ref, sig string, timeout *int) error {
	b, err := e.find(ref)
	if err != nil {
		return err
	}
	if !e.callOff(b) && b.statusCopy().Running() {
		if err := e.halt(ctx, b, sig, timeout); err != nil {
			return err
		}
	}
	if _, err := e.ContainerStart(ctx, b.id); err != nil {
		return err
	}
	e.event(b, events.ActionRestart)
	return nil
}

// ContainerRemove removes a container, and its anonymous volumes if asked to. When it returns, its name and addresses are free and nothing of it is left.
func (e *Engine) ContainerRemove(ctx context.Context, ref string, force, volumes bool) error {
	b, err := e.find(ref)
	if err != nil {
		return err
	}
	if st := b.statusCopy(); st.Active() {
		if !force {
			return conflict("cannot remove container %q: container is %s: stop the container before removing or force remove", "/"+b.specCopy().Name, st.State)
		}
		if !e.callOff(b) && b.statusCopy().Running() {
			if err := e.kill(ctx, b); err != nil {
				return err
			}
		}
	}
	b.op.Lock()
	defer b.op.Unlock()
	if b.removed {
		return nil // --rm was faster
	}
	if b.statusCopy().Active() {
		return conflict("cannot remove container %q: it has been started meanwhile", "/"+b.specCopy().Name)
	}
	b.mu.Lock()
	b.status.RemoveVolumes = volumes
	b.mu.Unlock()
	return e.remove(ctx, b)
}

// spent tells a container that has had the only run that --rm gives it.
func spent(spec *container.Spec, st *container.Status) bool {
	return spec.HostConfig.AutoRemove && st.State == mobycontainer.StateExited
}

// remove removes what is left of a container that does not run. b.op must be held.
func (e *Engine) remove(ctx context.Context, b *box) error {
	if err := step("remove"); err != nil {
		return fmt.Errorf("remove container %s: %w", b.id[:12], err)
	}
	// A restart finishes what has begun here; of one that --rm removes it knows without being told.
	if spec, st := b.specCopy(), b.statusCopy(); !spent(&spec, &st) {
		e.update(b, func(s *container.Status) { s.State = mobycontainer.StateRemoving })
	}
	reach("remove-marked")
	if err := e.rt.Remove(ctx, b.id); err != nil {
		e.update(b, func(s *container.Status) { s.State = mobycontainer.StateDead })
		return fmt.Errorf("remove container %s: %w", b.id[:12], err)
	}
	reach("remove-snapshot")
	if err := os.RemoveAll(e.dir(b.id)); err != nil {
		return fmt.Errorf("remove container %s: %w", b.id[:12], err)
	}
	reach("remove-folder")
	spec := b.specCopy()
	e.dropVolumes(&spec, spec.HostConfig.AutoRemove || b.statusCopy().RemoveVolumes)
	reach("remove-volumes")
	if err := e.state.delete("containers", b.id); err != nil {
		return fmt.Errorf("remove container %s: %w", b.id[:12], err)
	}
	reach("remove-state")
	e.freeAddresses(ctx, &spec)
	e.forget(b)
	e.event(b, events.ActionDestroy)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop()
	return nil
}

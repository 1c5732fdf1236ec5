package ctrd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
)

// killTimeout bounds the wait for a killed container: one in an uninterruptible
// system call can take arbitrarily long.
const killTimeout = 10 * time.Second

// Delete removes a stopped or never started task; its last output is in the log
// by then. It gives the exit status even if the shim has been killed.
func (t *Task) Delete(ctx context.Context) (ExitStatus, error) {
	ctx = t.rt.ctx(ctx)
	req := &tasksapi.DeleteTaskRequest{ContainerID: t.id}
	resp, err := t.rt.client.TaskService().Delete(ctx, req)
	err = errgrpc.ToNative(err)
	if err != nil && !errdefs.IsNotFound(err) {
		status, serr := t.Status(ctx)
		if serr != nil || status != "created" {
			return ExitStatus{}, fmt.Errorf("delete task: %w", err)
		}
		// It never ran anything, so killing it loses nothing.
		if err := t.kill(ctx); err != nil {
			return ExitStatus{}, fmt.Errorf("delete task: %w", err)
		}
		resp, err = t.rt.client.TaskService().Delete(ctx, req)
		if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) {
			return ExitStatus{}, fmt.Errorf("delete task: %w", err)
		}
	}
	// In the usual order, wait before delete, the status is known already.
	if err == nil {
		t.exit.set(ExitStatus{Code: resp.ExitStatus, At: resp.ExitedAt.AsTime()})
	}
	t.forget()
	select {
	case <-t.exit.done:
		return *t.exit.status, nil
	case <-ctx.Done():
		return ExitStatus{}, fmt.Errorf("delete task: %w", ctx.Err())
	}
}

// forget removes what the shim may have left.
func (t *Task) forget() {
	t.rt.mu.Lock()
	if t.rt.tasks[t.id] == t {
		delete(t.rt.tasks, t.id)
	}
	t.rt.mu.Unlock()
	if err := os.Remove(t.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.rt.log.Warn("socket of a deleted task stays", "container", t.id, "err", err)
	}
	t.rt.tidySoon(t.cgroup)
}

// kill ends the process and waits for it.
func (t *Task) kill(ctx context.Context) error {
	if err := t.Kill(ctx, syscall.SIGKILL, true); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	// A frozen process cannot die in cgroup v1.
	if status, err := t.Status(ctx); err == nil && status == "paused" {
		if err := t.Resume(ctx); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	timer := time.NewTimer(killTimeout)
	defer timer.Stop()
	select {
	case <-t.exit.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("process %d did not end within %s of SIGKILL: %w", t.Pid(), killTimeout, errdefs.ErrUnavailable)
	}
}

// destroy kills the task if it runs, and deletes it.
func (t *Task) destroy(ctx context.Context) error {
	select {
	case <-t.exit.done:
	default:
		if err := t.kill(ctx); err != nil {
			return err
		}
	}
	_, err := t.Delete(ctx)
	return err
}

package ctrd

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/minictl/minictl/runtime/shim/wire"
)

// TaskOptions are what a start of a container may differ in.
type TaskOptions struct {
	Spec   *specs.Spec
	LogDir string // "": no log
	// LogMaxSize (bytes) and LogMaxFiles rotate the log; 0: never.
	LogMaxSize  int64
	LogMaxFiles int
	LogCompress bool // the files that are full
	// LogBuffer is how many bytes of output may wait for the disk; 0: none, the container waits.
	LogBuffer int
	// LogAttrs are kept with each line.
	LogAttrs map[string]string
	// StdinOnce ends the container's input with the first client's.
	TTY, OpenStdin, StdinOnce bool
	// Netns is the path of the network namespace; "" leaves it to Spec.
	Netns string
}

// ExitStatus is how a process ended.
type ExitStatus struct {
	// Code is the exit code, 128 + the signal's number for one killed.
	Code uint32
	At   time.Time
	// OOM: the kernel killed a process of the container for want of memory.
	OOM bool
	// Err is set when the code is not the process's own: the shim was killed, or
	// the runtime was closed while waiting.
	Err error
}

// Task is the process of a container, created, running or stopped.
type Task struct {
	id     string
	rt     *Runtime
	task   containerd.Task
	socket string
	tty    bool
	cgroup string
	exit   exit
}

// NewTask runs "runc create": the container's namespaces exist, its process waits
// for Start. The spec is the container's from then on.
func (r *Runtime) NewTask(ctx context.Context, id string, o TaskOptions) (*Task, error) {
	ctx = r.ctx(ctx)
	if err := findRunc(); err != nil {
		return nil, err
	}
	if err := r.settle(ctx, id); err != nil {
		return nil, err
	}
	spec := withNetns(o.Spec, o.Netns)
	c, err := r.client.LoadContainer(ctx, id)
	if err != nil {
		return nil, err
	}
	err = c.Update(ctx, func(_ context.Context, _ *containerd.Client, rec *containers.Container) error {
		return r.setSpec(rec, spec)
	})
	if err != nil {
		return nil, fmt.Errorf("update container: %w", err)
	}
	t := r.newTask(id, spec)
	stdio := wire.Stdio{
		Socket: t.socket, LogDir: o.LogDir, MaxSize: o.LogMaxSize, MaxFiles: o.LogMaxFiles, Compress: o.LogCompress, Buffer: o.LogBuffer, Attrs: o.LogAttrs,
		TTY: o.TTY, Stdin: o.OpenStdin, StdinOnce: o.StdinOnce,
	}
	t.tty = o.TTY
	done := r.cgroups.using(t.cgroup)
	t.task, err = c.NewTask(ctx, func(string) (cio.IO, error) {
		return fixedIO{cio.Config{Terminal: o.TTY, Stdout: stdio.URI()}}, nil
	})
	done()
	if err != nil {
		r.tidySoon(t.cgroup)
		return nil, err
	}
	return r.adopt(t), nil
}

// LoadTask finds a container's task, after a restart of the daemon as well;
// ErrNotFound if there is none.
func (r *Runtime) LoadTask(ctx context.Context, id string) (*Task, error) {
	r.mu.Lock()
	t := r.tasks[id]
	r.mu.Unlock()
	if t != nil {
		return t, nil
	}
	ctx = r.ctx(ctx)
	c, err := r.client.LoadContainer(ctx, id)
	if err != nil {
		return nil, err
	}
	spec, err := c.Spec(ctx)
	if err != nil {
		return nil, err
	}
	t = r.newTask(id, spec)
	if t.task, err = c.Task(ctx, nil); err != nil {
		return nil, err
	}
	return r.adopt(t), nil
}

func (r *Runtime) newTask(id string, spec *specs.Spec) *Task {
	t := &Task{id: id, rt: r, socket: r.socket(id), exit: newExit()}
	if spec.Process != nil {
		t.tty = spec.Process.Terminal
	}
	if spec.Linux != nil {
		t.cgroup = spec.Linux.CgroupsPath
	}
	return t
}

// socket is the path of a container's shim socket: 16 of the ID's characters, so
// that it stays short.
func (r *Runtime) socket(id string) string {
	return filepath.Join(r.cfg.SocketDir, id[:min(16, len(id))]+".sock")
}

// adopt makes t the container's one task value and begins to wait for its end.
func (r *Runtime) adopt(t *Task) *Task {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.tasks[t.id]; known != nil {
		return known
	}
	r.tasks[t.id] = t
	r.waits.Go(func() { t.await(r.ctx(r.life)) })
	return t
}

// await asks the shim for the exit status. The answer comes with the exit, and at
// once for a process that ended before; events, which may be lost, play no part.
func (t *Task) await(ctx context.Context) {
	req := &tasksapi.WaitRequest{ContainerID: t.id}
	retry := time.NewTicker(100 * time.Millisecond)
	defer retry.Stop()
	for {
		resp, err := t.rt.client.TaskService().Wait(ctx, req)
		if err == nil {
			t.exit.set(ExitStatus{Code: resp.ExitStatus, At: resp.ExitedAt.AsTime(), OOM: oomKilled(t.cgroup)})
			return
		}
		// An external containerd may just be restarting, so ask until it says
		// that there is no such task: its shim died, which takes the container along.
		if errdefs.IsNotFound(errgrpc.ToNative(err)) {
			t.exit.set(ExitStatus{Code: 128 + uint32(syscall.SIGKILL), At: time.Now(), Err: fmt.Errorf("the container's shim is gone: %w", err)})
			return
		}
		select {
		case <-ctx.Done():
			t.exit.set(ExitStatus{Code: containerd.UnknownExitStatus, At: time.Now(), Err: ctx.Err()})
			return
		case <-retry.C:
		}
	}
}

// Start lets the created process run. An error's text is runc's own.
func (t *Task) Start(ctx context.Context) error { return t.task.Start(t.rt.ctx(ctx)) }

// Pid is the process's, in the daemon's pid namespace.
func (t *Task) Pid() int { return int(t.task.Pid()) }

// Kill sends a signal to the process, or to all of the container's; ErrNotFound
// when it has ended.
func (t *Task) Kill(ctx context.Context, sig syscall.Signal, all bool) error {
	var opts []containerd.KillOpts
	if all {
		opts = append(opts, containerd.WithKillAll)
	}
	return shimGone(t.task.Kill(t.rt.ctx(ctx), sig, opts...))
}

// shimGone makes ErrNotFound of a connection that the shim has closed: it ends right after its container, and a signal may
// come in between. Only the text has come through containerd's own API.
func shimGone(err error) error {
	if err != nil && strings.HasSuffix(err.Error(), ttrpc.ErrClosed.Error()) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	return err
}

// Wait gives the exit status once, on a channel of the caller's own.
func (t *Task) Wait() <-chan ExitStatus { return t.exit.wait() }

// Resize sets the terminal's size in characters.
func (t *Task) Resize(ctx context.Context, h, w uint32) error {
	return t.task.Resize(t.rt.ctx(ctx), w, h)
}

// Pause freezes all processes of the container.
func (t *Task) Pause(ctx context.Context) error {
	err := t.task.Pause(t.rt.ctx(ctx))
	if err == nil {
		return nil
	}
	// The shim has no class for a process that has just ended.
	if s, serr := t.Status(ctx); serr == nil && s == string(containerd.Stopped) || errdefs.IsNotFound(serr) {
		return fmt.Errorf("container is not running: %w", errdefs.ErrFailedPrecondition)
	}
	return err
}

// Resume is the reverse of Pause.
func (t *Task) Resume(ctx context.Context) error { return t.task.Resume(t.rt.ctx(ctx)) }

// Update changes the limits of the running container.
func (t *Task) Update(ctx context.Context, res *specs.LinuxResources) error {
	return t.task.Update(t.rt.ctx(ctx), containerd.WithResources(res))
}

// Status is "created", "running", "paused", "pausing" or "stopped".
func (t *Task) Status(ctx context.Context) (string, error) {
	s, err := t.task.Status(t.rt.ctx(ctx))
	if err != nil {
		return "", err
	}
	return string(s.Status), nil
}

// Pids lists the container's processes, in the daemon's pid namespace.
func (t *Task) Pids(ctx context.Context) ([]int, error) {
	all, err := t.task.Pids(t.rt.ctx(ctx))
	if err != nil {
		return nil, err
	}
	pids := make([]int, len(all))
	for i, p := range all {
		pids[i] = int(p.Pid)
	}
	return pids, nil
}

// fixedIO gives containerd's client a configuration; the shim does the rest.
type fixedIO struct{ cfg cio.Config }

func (f fixedIO) Config() cio.Config { return f.cfg }
func (f fixedIO) Cancel()            {}
func (f fixedIO) Wait()              {}
func (f fixedIO) Close() error       { return nil }

// withNetns gives a copy of the spec with the path of the network namespace set.
func withNetns(s *specs.Spec, path string) *specs.Spec {
	out := *s
	if out.Root == nil {
		out.Root = &specs.Root{}
	}
	if out.Root.Path == "" { // the bundle's own: containerd mounts it there
		root := *out.Root
		root.Path = "rootfs"
		out.Root = &root
	}
	if path == "" {
		return &out
	}
	linux := specs.Linux{}
	if out.Linux != nil {
		linux = *out.Linux
	}
	var spaces []specs.LinuxNamespace
	for _, ns := range linux.Namespaces {
		if ns.Type != specs.NetworkNamespace {
			spaces = append(spaces, ns)
		}
	}
	linux.Namespaces = append(spaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: path})
	out.Linux = &linux
	return &out
}

// Exited tells whether the process has ended.
func (t *Task) Exited() bool {
	select {
	case <-t.exit.done:
		return true
	default:
		return false
	}
}

// exit is a status that is set once and read by many.
type exit struct {
	done   chan struct{}
	once   *sync.Once
	status *ExitStatus
}

func newExit() exit {
	return exit{done: make(chan struct{}), once: new(sync.Once), status: new(ExitStatus)}
}

func (e exit) set(s ExitStatus) {
	e.once.Do(func() {
		*e.status = s
		close(e.done)
	})
}

func (e exit) wait() <-chan ExitStatus {
	ch := make(chan ExitStatus, 1)
	go func() {
		<-e.done
		ch <- *e.status
	}()
	return ch
}

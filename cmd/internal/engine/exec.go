package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/runtime/ctrd"
	"github.com/minictl/minictl/runtime/oci"
)

// execFailed is the exit code of an exec that never came to its command: docker's.
const execFailed = 126

// execKept is how long an exec can be inspected after its end: docker's least.
const execKept = 5 * time.Minute

// execution is one exec: asked for, then perhaps started, then ended.
type execution struct {
	id, containerID string
	req             mobycontainer.ExecCreateRequest
	keys            []byte // that detach its client

	mu      sync.Mutex
	started bool
	running bool
	code    *int
	ended   time.Time
	pid     int
	proc    *ctrd.Exec
}

// ExecCreate prepares a command in a running container.
func (e *Engine) ExecCreate(_ context.Context, ref string, req mobycontainer.ExecCreateRequest) (string, error) {
	b, err := e.find(ref)
	if err != nil {
		return "", err
	}
	if len(req.Cmd) == 0 {
		return "", invalid("no exec command specified")
	}
	keys, err := escapeKeys(req.DetachKeys)
	if err != nil {
		return "", err
	}
	switch st := b.statusCopy(); {
	case st.State == mobycontainer.StatePaused:
		return "", conflict("container %s is paused, unpause the container before exec", ref)
	case !st.Running():
		return "", conflict("container %s is not running", b.id)
	}
	x := &execution{id: newID(), containerID: b.id, req: req, keys: keys}
	e.mu.Lock()
	maps.DeleteFunc(e.execs, func(_ string, old *execution) bool { return old.endedBefore(time.Now().Add(-execKept)) })
	e.execs[x.id] = x
	e.mu.Unlock()
	e.event(b, events.Action("exec_create: "+strings.Join(req.Cmd, " ")), "execID", x.id)
	return x.id, nil
}

func (e *Engine) findExec(id string) (*execution, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if x, ok := e.execs[id]; ok {
		return x, nil
	}
	return nil, notFound("No such exec instance: %s", id)
}

// dropExecs forgets the execs of a container that has ended.
func (e *Engine) dropExecs(containerID string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, x := range e.execs {
		if x.containerID == containerID {
			x.mu.Lock()
			live := x.running
			x.mu.Unlock()
			if !live {
				delete(e.execs, id)
			}
		}
	}
}

// ExecStart runs it.
func (e *Engine) ExecStart(ctx context.Context, id string, req mobycontainer.ExecStartRequest) (api.Stream, error) {
	x, err := e.findExec(id)
	if err != nil {
		return nil, err
	}
	b, err := e.find(x.containerID)
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	if x.started {
		x.mu.Unlock()
		return nil, conflict("exec command %s is already running", id)
	}
	x.started = true
	x.mu.Unlock()
	b.mu.Lock()
	task := b.task
	b.mu.Unlock()
	if task == nil {
		x.end(execFailed)
		return nil, conflict("container %s is not running", b.id)
	}
	p, err := e.process(b, x, req)
	if err != nil {
		x.end(execFailed)
		return nil, err
	}
	// The command outlives the request that started it.
	ctx = context.WithoutCancel(ctx)
	opts := ctrd.ExecOptions{TTY: x.req.Tty}
	if !req.Detach {
		opts.Stdin, opts.Stdout, opts.Stderr = x.req.AttachStdin, x.req.AttachStdout, x.req.AttachStderr
	}
	proc, err := task.Exec(ctx, id, p, opts)
	if err != nil {
		x.end(startExitCode(err))
		return nil, execError(err)
	}
	exit := proc.Wait()
	if err := proc.Start(ctx); err != nil {
		x.end(startExitCode(err))
		derr := proc.Delete(ctx)
		if errdefs.IsNotFound(derr) {
			derr = nil
		}
		return nil, errors.Join(execError(err), derr)
	}
	x.mu.Lock()
	x.proc, x.running, x.pid = proc, true, proc.Pid()
	x.mu.Unlock()
	e.event(b, events.Action("exec_start: "+strings.Join(x.req.Cmd, " ")), "execID", id)
	ended := make(chan struct{})
	e.spawn(func() { e.watchExec(ctx, b, x, exit, ended) })
	if req.Detach {
		return nil, nil
	}
	left := func() { e.event(b, events.ActionExecDetach, "execID", id) }
	return escapable(&execStream{Stream: proc.Stream(), ended: ended, closed: make(chan struct{})}, x.req.Tty, x.keys, left), nil
}

// execError words a failed exec as docker does: what the command line got wrong is the client's fault.
func execError(err error) error {
	const words = "OCI runtime exec failed: "
	text := words + strings.TrimPrefix(err.Error(), words)
	if startExitCode(err) != 128 {
		return invalid("%s", text)
	}
	return &classed{text, err}
}

func (x *execution) end(code int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.running, x.code, x.pid, x.ended = false, &code, 0, time.Now()
}

func (x *execution) endedBefore(t time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.code != nil && x.ended.Before(t)
}

func (e *Engine) watchExec(ctx context.Context, b *box, x *execution, exit <-chan ctrd.ExitStatus, ended chan struct{}) {
	select {
	case st := <-exit:
		x.end(int(st.Code))
		close(ended) // no client waits for the clearing up
		if err := x.proc.Delete(ctx); err != nil && !errdefs.IsNotFound(err) {
			e.log.Debug("delete exec", "container", b.id, "err", err)
		}
		e.event(b, events.ActionExecDie, "execID", x.id, "exitCode", strconv.Itoa(int(st.Code)))
	case <-e.ctx.Done():
		close(ended)
	}
}

// execStream reads as ended only when the exit code is known: clients ask for it the moment the stream closes.
type execStream struct {
	ctrd.Stream
	ended  <-chan struct{}
	closed chan struct{}
	once   sync.Once
}

// Read gives output.
func (s *execStream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	if err != nil && n == 0 {
		select {
		case <-s.ended:
		case <-s.closed:
		}
	}
	return n, err
}

// Close detaches; the command goes on.
func (s *execStream) Close() error {
	s.once.Do(func() { close(s.closed) })
	return s.Stream.Close()
}

// process is what runc runs.
func (e *Engine) process(b *box, x *execution, req mobycontainer.ExecStartRequest) (*specs.Process, error) {
	spec, status := b.specCopy(), b.statusCopy()
	var files userFiles
	asked := x.req.User
	if asked == "" {
		asked = spec.Config.User
	}
	if oci.NeedsFiles(asked, spec.HostConfig.GroupAdd) || asked == "" {
		var err error
		if files, err = readUserFiles(filepath.Join("/proc", strconv.Itoa(status.Pid), "root")); errors.Is(err, fs.ErrNotExist) {
			return nil, conflict("container %s is not running", b.id) // it has ended a moment ago
		} else if err != nil {
			return nil, fmt.Errorf("look up user: %w", err)
		}
	}
	user, home, err := oci.User(asked, files.passwd, files.group, spec.HostConfig.GroupAdd)
	if err != nil {
		return nil, err
	}
	p, err := oci.Exec(&spec, oci.ExecWish{
		Args: x.req.Cmd, Env: x.req.Env, Cwd: x.req.WorkingDir, TTY: x.req.Tty, User: user, Home: home, Host: e.cfg.Host,
		Privileged: x.req.Privileged,
	})
	if err != nil {
		return nil, err
	}
	size := req.ConsoleSize
	if size == nil {
		size = x.req.ConsoleSize
	}
	if size != nil && x.req.Tty && size[0] > 0 {
		p.ConsoleSize = &specs.Box{Height: size[0], Width: size[1]}
	}
	return p, nil
}

// ExecInspect tells how it is going.
func (e *Engine) ExecInspect(_ context.Context, id string) (mobycontainer.ExecInspectResponse, error) {
	x, err := e.findExec(id)
	if err != nil {
		return mobycontainer.ExecInspectResponse{}, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return mobycontainer.ExecInspectResponse{
		ID: id, Running: x.running, ExitCode: x.code, ContainerID: x.containerID, Pid: x.pid, CanRemove: x.code != nil,
		OpenStdin: x.req.AttachStdin, OpenStdout: x.req.AttachStdout, OpenStderr: x.req.AttachStderr, DetachKeys: []byte(x.req.DetachKeys),
		ProcessConfig: &mobycontainer.ExecProcessConfig{
			Tty: x.req.Tty, Entrypoint: x.req.Cmd[0], Arguments: x.req.Cmd[1:], Privileged: &x.req.Privileged, User: x.req.User,
		},
	}, nil
}

// ExecResize sets its terminal's size.
func (e *Engine) ExecResize(ctx context.Context, id string, height, width uint32) error {
	x, err := e.findExec(id)
	if err != nil {
		return err
	}
	x.mu.Lock()
	proc := x.proc
	x.mu.Unlock()
	if proc == nil {
		return conflict("exec %s is not running", id)
	}
	return proc.Resize(ctx, height, width)
}

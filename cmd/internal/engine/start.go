package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/errgroup"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/runtime/container"
	"github.com/minictl/minictl/runtime/ctrd"
	"github.com/minictl/minictl/runtime/oci"
)

// ContainerStart runs a container. It returns when the process runs and every live host knows its names.
func (e *Engine) ContainerStart(ctx context.Context, ref string) ([]string, error) {
	b, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	b.op.Lock()
	defer b.op.Unlock()
	switch {
	case b.removed:
		return nil, notFound("No such container: %s", ref)
	case b.statusCopy().State == mobycontainer.StatePaused:
		return nil, conflict("cannot start a paused container, try unpause instead")
	case b.statusCopy().Active():
		return nil, &classed{"Container already started", errdefs.ErrNotModified}
	}
	b.comeback.reset()
	if b.statusCopy().RestartCount > 0 {
		e.update(b, func(s *container.Status) { s.RestartCount = 0 })
	}
	warnings, err := e.start(ctx, b)
	if err != nil {
		e.startFailed(b, err)
		if b.specCopy().HostConfig.AutoRemove {
			// docker's client waits for the removal of what --rm never started.
			if rerr := e.remove(context.WithoutCancel(ctx), b); rerr != nil {
				e.log.Error("remove container that did not start", "container", b.id, "err", rerr)
			}
		}
		return nil, err
	}
	return warnings, nil
}

// startFailed keeps why, with docker's exit code for it, and ends what waits for the run that did not come.
func (e *Engine) startFailed(b *box, err error) {
	code := startExitCode(err)
	e.update(b, func(s *container.Status) {
		s.Error, s.ExitCode = err.Error(), code
		s.Pid, s.SandboxPath, s.Endpoints = 0, "", nil
	})
	b.mu.Lock()
	late := b.late
	b.late = nil
	b.answerWaits(false)
	b.mu.Unlock()
	for _, l := range late {
		l.fail(err)
	}
}

// startExitCode is docker's: 127 for a command that is not there, 126 for one that can't be run, 128 for the rest.
func startExitCode(err error) int {
	text := err.Error()
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(text, p) })
	}
	switch {
	case has("executable file not found", "no such file or directory", "system cannot find the file specified"):
		return 127
	case has("permission denied", "is a directory", "not a directory"):
		return 126
	}
	return 128
}

// askedTooMuch tells whether the runtime or the kernel refused what the container asks for, a sysctl or a mount's option
// say, rather than failed at it. Only their words tell.
func askedTooMuch(err error) bool {
	text := err.Error()
	return strings.Contains(text, "OCI runtime create failed") &&
		(strings.HasSuffix(text, syscall.EINVAL.Error()) || strings.Contains(text, "is not in a separate kernel namespace"))
}

// run is one start under way.
type run struct {
	e         *Engine
	b         *box
	spec      container.Spec
	undo      undo
	sandbox   netdriver.Sandbox
	owned     bool // the sandbox is this container's own
	task      *ctrd.Task
	endpoints []container.Endpoint
	resolver  *ResolverSockets
	warnings  []string
}

func (e *Engine) start(ctx context.Context, b *box) (_ []string, err error) {
	r := &run{e: e, b: b, spec: b.specCopy()}
	defer func() {
		if err != nil {
			r.undo.run(ctx)
		}
	}()
	joints, err := e.plan(ctx, &r.spec, nil)
	if err != nil {
		return nil, err
	}
	if err := r.makeSandbox(ctx); err != nil {
		return nil, err
	}
	if err := e.writeEtc(&r.spec, nil); err != nil {
		return nil, err
	}
	r.undo.add(func(context.Context) { e.unmountVolumes(&r.spec) })
	if err := errors.Join(e.mountVolumes(&r.spec), step("mount")); err != nil {
		return nil, err
	}
	// runc's preparations and the network's take about as long as each other: side by side.
	var g errgroup.Group
	var netUndo undo
	g.Go(func() error { return r.makeTask(ctx) })
	g.Go(func() error { return r.makeEndpoints(ctx, joints, &netUndo) })
	err = g.Wait()
	r.undo.steps = append(r.undo.steps, netUndo.steps...)
	if err != nil {
		return nil, err
	}
	if err := e.writeEtc(&r.spec, r.endpoints); err != nil {
		return nil, err
	}
	if err := r.serveNames(ctx); err != nil {
		return nil, err
	}
	if err := r.begin(ctx); err != nil {
		return nil, err
	}
	return r.warnings, nil
}

// makeSandbox gives the container its network namespace, or another container's.
func (r *run) makeSandbox(ctx context.Context) error {
	mode := r.spec.HostConfig.NetworkMode
	switch {
	case mode.IsHost():
		return nil
	case mode.IsContainer():
		other, err := r.e.find(mode.ConnectedContainer())
		if err != nil {
			return err
		}
		st := other.statusCopy()
		if !st.Running() {
			return conflict("cannot join network of a non running container: %s", other.id)
		}
		spec := other.specCopy()
		if spec.HostConfig.NetworkMode.IsHost() {
			return nil
		}
		r.sandbox = netdriver.Sandbox{ID: other.id[:12], Path: st.SandboxPath}
		return nil
	}
	path := filepath.Join(r.e.cfg.ExecRoot, "netns", r.spec.Short())
	if err := step("sandbox"); err != nil {
		return err
	}
	r.undo.add(func(context.Context) { _ = r.e.cfg.Sandboxes.Remove(path) })
	sb, err := r.e.cfg.Sandboxes.Create(ctx, path)
	if err != nil {
		return fmt.Errorf("make network namespace: %w", err)
	}
	reach("sandbox-made")
	r.sandbox, r.owned = sb, true
	return nil
}

func (r *run) makeTask(ctx context.Context) error {
	if r.spec.HostConfig.IpcMode.IsShareable() {
		r.undo.add(func(context.Context) { r.e.removeShm(r.b.id) })
	}
	spec, warnings, err := r.e.ociSpec(ctx, &r.spec, r.sandbox.Path)
	if err != nil {
		return err
	}
	r.warnings = append(r.warnings, warnings...)
	c := r.spec.Config
	o := ctrd.TaskOptions{Spec: spec, TTY: c.Tty, OpenStdin: c.OpenStdin, StdinOnce: c.StdinOnce, Netns: r.sandbox.Path}
	log, err := container.NewLog(&r.spec)
	if err != nil {
		return err
	}
	if !log.None {
		o.LogDir, o.LogMaxSize, o.LogMaxFiles = r.e.logDir(r.b.id), log.MaxSize, log.MaxFiles
		o.LogCompress, o.LogBuffer, o.LogAttrs = log.Compress, log.Buffer, log.Attrs
	}
	if err := step("task"); err != nil {
		return err
	}
	task, err := r.e.rt.NewTask(ctx, r.b.id, o)
	if err != nil {
		return startError(err)
	}
	reach("task-made")
	r.task = task
	r.undo.add(func(ctx context.Context) {
		// A process that has not begun keeps its output open: deleting it would wait for the end of that.
		_ = task.Kill(ctx, syscall.SIGKILL, true)
		_, _ = task.Delete(ctx)
	})
	return nil
}

// startError gives a failed start docker's words around runc's own, and its status: what the command line got wrong is
// the client's fault.
func startError(err error) error {
	text := "failed to create task for container: " + err.Error()
	if startExitCode(err) != 128 || askedTooMuch(err) {
		return invalid("%s", text)
	}
	return fmt.Errorf("failed to create task for container: %w", err)
}

func (r *run) makeEndpoints(ctx context.Context, joints []joint, u *undo) (err error) {
	if joints, err = r.askDeciders(ctx, joints, u); err != nil {
		return err
	}
	for _, j := range joints {
		var ep container.Endpoint
		if j.have != nil {
			ep, err = r.e.settle(ctx, &r.spec, r.sandbox, j, u)
		} else {
			ep, err = r.e.join(ctx, r.b, &r.spec, r.sandbox, j, u)
		}
		if err != nil {
			return err
		}
		r.endpoints = append(r.endpoints, ep)
	}
	if !usesResolver(&r.spec) {
		return nil
	}
	if err := step("resolver"); err != nil {
		return err
	}
	r.resolver, err = r.e.cfg.Sandboxes.OpenResolver(ctx, r.sandbox.Path)
	if err != nil {
		return fmt.Errorf("open the container's resolver: %w", err)
	}
	u.add(func(context.Context) { r.resolver.Close() })
	return nil
}

// askDeciders joins those networks first whose drivers decide where they lead, and plans again with what they say.
func (r *run) askDeciders(ctx context.Context, joints []joint, u *undo) ([]joint, error) {
	var have []container.Endpoint
	for _, j := range joints {
		if !j.undecided() {
			continue
		}
		ep, err := r.e.join(ctx, r.b, &r.spec, r.sandbox, j, u)
		if err != nil {
			return nil, err
		}
		have = append(have, ep)
	}
	if len(have) == 0 {
		return joints, nil
	}
	return r.e.plan(ctx, &r.spec, have)
}

// serveNames starts answering the container's questions. The shim keeps the sockets too, so that questions wait rather
// than fail while the daemon is restarted.
func (r *run) serveNames(ctx context.Context) error {
	if r.resolver == nil {
		return nil
	}
	files, err := r.resolver.Files()
	if err != nil {
		return fmt.Errorf("share the resolver's sockets: %w", err)
	}
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	if err := r.task.StoreFDs(ctx, resolverFDs, files); err != nil {
		return fmt.Errorf("give the shim the resolver's sockets: %w", err)
	}
	reach("resolver-kept")
	b := r.b
	r.undo.add(func(context.Context) { r.e.cfg.Resolver.Remove(b.id) })
	r.e.cfg.Resolver.Add(b.id, r.resolver.UDP, r.resolver.TCP, r.e.viewer(b))
	return nil
}

// begin starts the process, and tells the other hosts at the same time.
func (r *run) begin(ctx context.Context) error {
	e, b := r.e, r.b
	e.update(b, func(s *container.Status) {
		s.SandboxPath, s.Endpoints, s.Error = r.sandbox.Path, r.endpoints, ""
	})
	e.zones.drop(r.endpoints)
	r.undo.add(func(context.Context) { e.zones.drop(r.endpoints) })
	if err := errors.Join(r.connectLate(ctx), step("begin")); err != nil {
		return err
	}
	records := e.records(&r.spec, r.endpoints)
	r.undo.add(func(ctx context.Context) { e.publish(ctx, nil, recordIDs(records)) })
	var g errgroup.Group
	var late []string
	g.Go(func() error {
		if err := step("publish"); err != nil {
			return err
		}
		late = e.publish(ctx, records, nil)
		return nil
	})
	exit := r.task.Wait()
	g.Go(func() error {
		if err := step("start"); err != nil {
			return err
		}
		if err := r.task.Start(ctx); err != nil {
			return startError(err)
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	r.warnings = append(r.warnings, late...)
	reach("began")
	e.started(b, r.task, exit)
	return nil
}

// started makes the run a fact and begins to watch it.
func (e *Engine) started(b *box, task *ctrd.Task, exit <-chan ctrd.ExitStatus) {
	gone := make(chan struct{})
	b.mu.Lock()
	b.task, b.gone = task, gone
	b.mu.Unlock()
	e.update(b, func(s *container.Status) {
		s.State, s.Pid, s.StartedAt, s.ManuallyStopped = mobycontainer.StateRunning, task.Pid(), time.Now().UTC(), false
		s.ExitCode, s.OOMKilled, s.FinishedAt = 0, false, time.Time{}
	})
	e.event(b, events.ActionStart)
	e.monitorHealth(b, task, true)
	e.spawn(func() { e.watch(b, task, exit, gone) })
}

func recordIDs(records []cluster.Record) []string {
	var ids []string
	for _, r := range records {
		ids = append(ids, r.ID)
	}
	return ids
}

func (e *Engine) logDir(id string) string { return filepath.Join(e.dir(id), "log") }

// ociSpec builds the container's runtime specification.
func (e *Engine) ociSpec(ctx context.Context, s *container.Spec, netns string) (*specs.Spec, []string, error) {
	mounts, err := e.userMounts(s)
	if err != nil {
		return nil, nil, err
	}
	user, home, err := e.user(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	w := oci.Wish{Spec: s, User: user, Home: home, Netns: netns, Mounts: mounts, Host: e.cfg.Host}
	if err := e.borrow(s, &w); err != nil {
		return nil, nil, err
	}
	return oci.Build(w)
}

// prepareBind makes a missing source folder for -v, as docker does, and refuses it for --mount.
func prepareBind(b container.Mount) error {
	_, err := os.Stat(b.Source)
	if errors.Is(err, fs.ErrNotExist) && b.Create {
		err = os.MkdirAll(b.Source, 0o755)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return invalid("invalid mount config for type \"bind\": bind source path does not exist: %s", b.Source)
	}
	if err != nil {
		return fmt.Errorf("bind %s: %w", b.Source, err)
	}
	return checkPropagation(b)
}

// checkPropagation refuses what the kernel would silently not do: mounts spread only from where the host shares them.
func checkPropagation(b container.Mount) error {
	shared, slave := strings.HasSuffix(b.Propagation, "shared"), strings.HasSuffix(b.Propagation, "slave")
	if !shared && !slave {
		return nil
	}
	source, err := filepath.EvalSymlinks(b.Source)
	if err != nil {
		return fmt.Errorf("bind %s: %w", b.Source, err)
	}
	all, err := mountinfo.GetMounts(mountinfo.ParentsFilter(source))
	if err != nil {
		return fmt.Errorf("bind %s: %w", b.Source, err)
	}
	var on *mountinfo.Info // the innermost
	for _, m := range all {
		if on == nil || len(m.Mountpoint) >= len(on.Mountpoint) {
			on = m
		}
	}
	switch {
	case on == nil || strings.Contains(on.Optional, "shared:"):
	case shared:
		return invalid("path %s is mounted on %s but it is not a shared mount", b.Source, on.Mountpoint)
	case !strings.Contains(on.Optional, "master:"):
		return invalid("path %s is mounted on %s but it is not a shared or slave mount", b.Source, on.Mountpoint)
	}
	return nil
}

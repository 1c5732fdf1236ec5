package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/minictl/minictl/cmd/internal/failpoint"
	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/runtime/container"
	"github.com/minictl/minictl/runtime/ctrd"
)

// resolverFDs is the name under which a shim keeps its container's resolver sockets.
const resolverFDs = "resolver"

// ResolverSockets are the embedded resolver's, inside one sandbox.
type ResolverSockets struct {
	UDP net.PacketConn
	TCP net.Listener
}

// Files are duplicates of both, UDP first.
func (r *ResolverSockets) Files() ([]*os.File, error) {
	udp, ok1 := r.UDP.(*net.UDPConn)
	tcp, ok2 := r.TCP.(*net.TCPListener)
	if !ok1 || !ok2 {
		return nil, fmt.Errorf("resolver sockets are %T and %T, not kernel sockets", r.UDP, r.TCP)
	}
	u, err := udp.File()
	if err != nil {
		return nil, err
	}
	t, err := tcp.File()
	if err != nil {
		return nil, errors.Join(err, u.Close())
	}
	return []*os.File{u, t}, nil
}

// Close closes both.
func (r *ResolverSockets) Close() { _ = errors.Join(r.UDP.Close(), r.TCP.Close()) }

// socketsOf makes sockets of the files that a shim kept.
func socketsOf(files []*os.File) (*ResolverSockets, error) {
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	if len(files) != 2 {
		return nil, fmt.Errorf("the shim kept %d resolver sockets, not 2", len(files))
	}
	udp, err := net.FilePacketConn(files[0])
	if err != nil {
		return nil, err
	}
	tcp, err := net.FileListener(files[1])
	if err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	return &ResolverSockets{udp, tcp}, nil
}

// Restore takes up what an earlier daemon left: running containers go on, ended ones are cleared up, and whatever
// belongs to nobody is removed.
func (e *Engine) Restore(ctx context.Context) error {
	if err := e.restoreNetworks(); err != nil {
		return err
	}
	e.cfg.Resolver.Hold() // until AnswerNames
	// The rules of before go on serving until every port is stated again.
	e.cfg.Firewall.Hold()
	if err := e.adoptDataPath(ctx); err != nil {
		return err
	}
	if err := each(e.state, "containers", func(r record) {
		b := &box{id: r.Spec.ID, spec: r.Spec, status: r.Status}
		e.boxes[b.id], e.names[r.Spec.Name] = b, b.id
	}); err != nil {
		return err
	}
	if err := e.settleBridge(); err != nil {
		return fmt.Errorf("set up the default bridge: %w", err)
	}
	if err := e.restoreVolumes(); err != nil {
		return err
	}
	if err := e.adoptPlugins(ctx); err != nil {
		return err
	}
	e.awaitNetworks(ctx)
	e.restoreAddresses(ctx)
	for _, b := range e.all() {
		e.restoreBox(ctx, b)
	}
	e.sweep(ctx)
	if err := e.cfg.Firewall.Sync(ctx); err != nil {
		return fmt.Errorf("write the firewall's rules: %w", err)
	}
	e.sweepVolumes()
	e.withdrawRecords(ctx)
	e.spawn(e.reconcileLoop)
	e.spawn(e.nodeLoop)
	e.spawn(e.followRoutes)
	e.spawn(e.repairLoop)
	e.spawn(e.followMTU)
	e.comeBackAll()
	e.spawn(e.pluginLoop)
	return nil
}

// namesTimeout bounds how long containers' questions wait for the records of members whose host is there and whose daemon
// is not: resolvers give up after five seconds, and the earlier daemon has been away for a part of them.
const namesTimeout = 2 * time.Second

// AnswerNames has the resolver answer as soon as this host knows the other hosts' records; it returns at once. A resolver
// that began with what there is would tell a container that a name does not exist which another host has just given away.
// What was known when the last daemon ended is known at once (cluster/others.go), so whoever is not heard in time has lost
// nothing but what is newer than that.
func (e *Engine) AnswerNames() {
	e.spawn(func() {
		ctx, cancel := context.WithTimeout(e.ctx, namesTimeout)
		defer cancel()
		if err := e.cl.CaughtUp(ctx); err != nil && e.ctx.Err() == nil {
			e.log.Warn("names are answered by what this host had of some members before it restarted", "err", err)
		}
		e.cfg.Resolver.Release()
	})
}

// restoreNetworks reads the local networks and makes sure that the predefined ones are among them; see settleBridge for
// the default bridge.
func (e *Engine) restoreNetworks() error {
	if err := each(e.state, "networks", func(n Network) { e.networks[n.ID] = &n }); err != nil {
		return err
	}
	have := map[string]bool{}
	for _, n := range e.networks {
		have[n.Name] = true
		if n.predefined() && n.Driver == netdriver.TypeBridge {
			n.Options[defaultOption] = "true" // older records do not have it
		}
	}
	for name, driver := range map[string]string{network.NetworkHost: netdriver.TypeHost, network.NetworkNone: netdriver.TypeNull} {
		if have[name] {
			continue
		}
		n := &Network{ID: newID(), Name: name, Created: time.Now().UTC(), Scope: scopeLocal, Driver: driver}
		if err := e.keepNetwork(n); err != nil {
			return err
		}
	}
	return nil
}

// restoreBox takes up one container.
func (e *Engine) restoreBox(ctx context.Context, b *box) {
	spec, st := b.specCopy(), b.statusCopy()
	switch {
	case st.State == mobycontainer.StateRemoving || spent(&spec, &st):
		b.op.Lock()
		defer b.op.Unlock()
		if err := e.remove(ctx, b); err != nil {
			e.log.Error("finish the removal of a container", "container", b.id, "err", err)
		}
	case st.Running():
		if err := e.restoreRunning(ctx, b); err != nil {
			e.log.Error("take up a running container", "container", b.id, "err", err)
		}
	default: // perhaps a start that the earlier daemon did not live to finish
		b.op.Lock()
		defer b.op.Unlock()
		if task, err := e.rt.LoadTask(ctx, b.id); err == nil {
			_ = task.Kill(ctx, syscall.SIGKILL, true)
			if _, err := task.Delete(ctx); err != nil {
				e.log.Error("delete the task of an unfinished start", "container", b.id, "err", err)
			}
		}
		if len(st.Endpoints) > 0 || st.SandboxPath != "" {
			left := e.leaveAll(ctx, b)
			e.update(b, func(s *container.Status) { s.SandboxPath, s.Endpoints = "", nil })
			e.releaseLeft(ctx, left)
		}
	}
}

func (e *Engine) restoreRunning(ctx context.Context, b *box) error {
	task, err := e.loadTask(ctx, b)
	if errdefs.IsNotFound(err) {
		// The machine was rebooted, or the shim is gone: nobody can tell the exit code any more.
		b.op.Lock()
		defer b.op.Unlock()
		left := e.leaveAll(ctx, b)
		e.finished(ctx, b, ctrd.ExitStatus{Code: 255, At: time.Now()}, left)
		if b.specCopy().HostConfig.AutoRemove {
			return e.remove(ctx, b)
		}
		return nil
	}
	// Its network comes first: other containers and hosts rely on it, whether or not the process has just ended, and whether or
	// not anybody can say so.
	if err != nil {
		e.log.Warn("a container's task cannot be taken up yet, trying on", "container", b.id, "err", err)
		e.spawn(func() { e.restoreLater(b) })
		return e.rejoin(ctx, b, nil)
	}
	if err := e.rejoin(ctx, b, task); err != nil {
		e.log.Error("repair a container's network", "container", b.id, "err", err)
	}
	gone := make(chan struct{})
	b.mu.Lock()
	b.task, b.gone = task, gone
	b.mu.Unlock()
	if err := e.finishReshape(ctx, b); err != nil {
		e.log.Error("finish a change of a container's networks", "container", b.id, "err", err)
	}
	if b.statusCopy().State == mobycontainer.StateRunning {
		e.monitorHealth(b, task, false)
	}
	exit := task.Wait()
	if st, err := task.Status(ctx); err == nil && st == "stopped" {
		e.watch(b, task, exit, gone) // it ended while nobody watched: a fact before the first question is answered
		return nil
	}
	e.spawn(func() { e.watch(b, task, exit, gone) })
	return nil
}

func (e *Engine) loadTask(ctx context.Context, b *box) (*ctrd.Task, error) {
	if err := failpoint.Hit("load-task"); err != nil {
		return nil, err
	}
	return e.rt.LoadTask(ctx, b.id)
}

// restoreLater takes a container up whose shim does not answer when the daemon starts: it may be busy, or the host may.
func (e *Engine) restoreLater(b *box) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-e.ctx.Done():
			return
		}
		if _, err := e.loadTask(e.ctx, b); err != nil && !errdefs.IsNotFound(err) {
			continue
		}
		if err := e.restoreRunning(e.ctx, b); err != nil {
			e.log.Error("take up a running container", "container", b.id, "err", err)
		}
		return
	}
}

// rejoin makes every endpoint of a running container again: drivers repair what is missing and leave the rest alone. Without
// a task its resolver waits.
func (e *Engine) rejoin(ctx context.Context, b *box, task *ctrd.Task) error {
	spec, st := b.specCopy(), b.statusCopy()
	if spec.HostConfig.NetworkMode.IsContainer() {
		return nil
	}
	sb := netdriver.Sandbox{ID: spec.Short(), Path: st.SandboxPath}
	var errs []error
	now, decided := slices.Clone(st.Endpoints), false
	for i := range now {
		ep := &now[i]
		n := e.networkOf(ctx, *ep)
		decided = decided || n.foreign() || e.plugin(n) != nil
		if !n.global() && !n.foreign() {
			e.holdLocal(n, *ep, b.id)
		}
		var held []netdriver.PortMapping
		for _, p := range ep.Ports {
			held = append(held, netdriver.PortMapping(p))
		}
		if len(held) > 0 && e.plugin(n) == nil {
			errs = append(errs, e.cfg.Ports.Restore(spec.Name, held))
		}
		errs = append(errs, e.driverJoin(ctx, n, ep, sb, nil))
	}
	if decided {
		e.update(b, func(s *container.Status) { s.Endpoints = now })
	}
	if usesResolver(&spec) && task != nil {
		errs = append(errs, e.reserve(ctx, b, task, st.SandboxPath))
	}
	e.publish(ctx, e.records(&spec, st.Endpoints), nil)
	return errors.Join(errs...)
}

// holdLocal makes a local network's addresses those of an endpoint that has them already.
func (e *Engine) holdLocal(n *Network, ep container.Endpoint, containerID string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.leases[n.ID] == nil {
		e.leases[n.ID] = map[netip.Addr]string{}
	}
	for _, p := range ep.Addresses() {
		if e.leases[n.ID][p.Addr()] != containerID { // the container's own for its life
			e.leases[n.ID][p.Addr()] = ep.ID
		}
	}
}

// reserve answers the container's questions again, on the sockets that its shim kept.
func (e *Engine) reserve(ctx context.Context, b *box, task *ctrd.Task, sandbox string) error {
	var sockets *ResolverSockets
	files, err := task.LoadFDs(ctx, resolverFDs)
	if err == nil {
		sockets, err = socketsOf(files)
	}
	if err != nil {
		e.log.Warn("open new resolver sockets", "container", b.id, "err", err)
		if sockets, err = e.cfg.Sandboxes.OpenResolver(ctx, sandbox); err != nil {
			return err
		}
	}
	e.cfg.Resolver.Add(b.id, sockets.UDP, sockets.TCP, e.viewer(b))
	return nil
}

// sweep removes what belongs to no container: a crash between making and remembering leaves such things.
func (e *Engine) sweep(ctx context.Context) {
	e.sweepEndpoints(ctx) // while their sandboxes are there
	ids, err := e.rt.Containers(ctx)
	if err != nil {
		e.log.Error("list containers", "err", err)
	}
	for _, id := range ids {
		if !e.knows(id) {
			e.log.Info("remove a container that nobody knows", "container", id)
			if err := e.rt.Remove(ctx, id); err != nil {
				e.log.Error("remove a container that nobody knows", "container", id, "err", err)
			}
		}
	}
	e.sweepFolders()
	used := map[string]bool{}
	for _, b := range e.all() {
		used[b.statusCopy().SandboxPath] = true
	}
	dir := filepath.Join(e.cfg.ExecRoot, "netns")
	names, err := e.cfg.Sandboxes.List(dir)
	if err != nil {
		e.log.Error("list network namespaces", "err", err)
	}
	for _, name := range names {
		if path := filepath.Join(dir, filepath.Base(name)); !used[path] {
			if err := e.cfg.Sandboxes.Remove(path); err != nil {
				e.log.Error("remove a network namespace that nobody uses", "err", err)
			}
		}
	}
	e.sweepNetworks(ctx)
}

// sweepFolders removes the folders of containers that were never kept, and the shared memory of what does not run.
func (e *Engine) sweepFolders() {
	for _, id := range e.foldersIn(filepath.Join(e.cfg.Root, "containers")) {
		if e.knows(id) {
			continue
		}
		if err := os.RemoveAll(e.dir(id)); err != nil {
			e.log.Error("remove the folder of a container that nobody knows", "container", id, "err", err)
		}
	}
	running := map[string]bool{}
	for _, b := range e.all() {
		running[e.shmDir(b.id)] = b.statusCopy().Running()
	}
	shm := filepath.Join(e.cfg.ExecRoot, "shm")
	for _, id := range e.foldersIn(shm) {
		if !running[filepath.Join(shm, id)] {
			e.removeShm(id)
		}
	}
}

// knows tells whether there is a container of that ID. One that has just been taken up may end while others are.
func (e *Engine) knows(id string) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	_, ok := e.boxes[id]
	return ok
}

func (e *Engine) foldersIn(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.log.Error("look for what nobody uses", "folder", dir, "err", err)
	}
	var names []string
	for _, f := range entries {
		if f.IsDir() {
			names = append(names, f.Name())
		}
	}
	return names
}

// pruner is a driver that can tell its own kernel objects from others'.
type pruner interface {
	Prune(ctx context.Context, keep []netdriver.NetworkID) error
}

// sweepNetworks repairs the bridges that users made, and removes the kernel objects of networks nobody here is on.
func (e *Engine) sweepNetworks(ctx context.Context) {
	all, err := e.allNetworks(ctx)
	if err != nil {
		e.log.Error("list networks", "err", err)
		return
	}
	e.netMu.Lock()
	defer e.netMu.Unlock()
	var keep []netdriver.NetworkID
	for id := range e.attached {
		keep = append(keep, netdriver.NetworkID(id))
	}
	for _, n := range all {
		if e.lazy(n) {
			continue
		}
		keep = append(keep, netdriver.NetworkID(n.ID))
		if err := e.driver(n).Ensure(ctx, n.wish()); err != nil {
			e.log.Error("repair network", "network", n.Name, "err", err)
		}
	}
	for _, d := range e.drivers {
		if p, ok := d.(pruner); ok {
			if err := p.Prune(ctx, keep); err != nil {
				e.log.Error("remove what no network uses", "driver", d.Type(), "err", err)
			}
		}
	}
}

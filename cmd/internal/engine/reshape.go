package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/events"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/runtime/container"
)

// reshaping is one change of a running container's endpoints under way.
//
// What is made is in the container's status before it is in the kernel, and what goes is there until it has gone: a
// daemon that dies in between finds on its next start what to finish.
type reshaping struct {
	e      *Engine
	b      *box
	spec   container.Spec
	sb     netdriver.Sandbox
	before []container.Endpoint
	now    []container.Endpoint
	gone   []container.Endpoint // of now: what no wish stands behind
	fresh  []container.Endpoint // of now: what was made
	undo   undo
}

// reshape makes a running container's endpoints what its wish says. On error they are as before. b.op must be held.
func (e *Engine) reshape(ctx context.Context, b *box) (err error) {
	st := b.statusCopy()
	r := &reshaping{
		e: e, b: b, spec: b.specCopy(), sb: netdriver.Sandbox{ID: b.id[:12], Path: st.SandboxPath},
		before: st.Endpoints, now: slices.Clone(st.Endpoints),
	}
	defer func() {
		if err != nil {
			r.undo.run(ctx)
		}
	}()
	joints, err := e.plan(ctx, &r.spec, r.before)
	if err != nil {
		return err
	}
	undecided := slices.ContainsFunc(joints, func(j joint) bool { return j.undecided() })
	r.undo.add(func(context.Context) {
		r.now = r.before
		r.keep()
		r.e.zones.drop(r.fresh)
	})
	if err := r.make(ctx, joints); err != nil {
		return err
	}
	if undecided {
		if joints, err = e.plan(ctx, &r.spec, r.now); err != nil {
			return err
		}
		if err := r.make(ctx, joints); err != nil {
			return err
		}
	}
	if err := r.lead(ctx, joints); err != nil {
		return err
	}
	if err := errors.Join(r.tellContainer(ctx), step("tell")); err != nil {
		return err
	}
	r.finish(ctx)
	return nil
}

// keep makes the endpoints a fact that outlives the daemon.
func (r *reshaping) keep() {
	r.e.update(r.b, func(s *container.Status) { s.Endpoints = slices.Clone(r.now) })
	r.e.zones.drop(r.now)
}

func (r *reshaping) index(j *joint) int {
	return slices.IndexFunc(r.now, func(ep container.Endpoint) bool {
		return ep.NetworkID == j.network.ID && (ep.Key == "") == (j.key == "")
	})
}

// make makes the endpoints that are missing, none of them with the default route yet.
func (r *reshaping) make(ctx context.Context, joints []joint) error {
	r.gone = slices.Clone(r.now)
	for i := range joints {
		j := &joints[i]
		if at := r.index(j); at >= 0 {
			id := r.now[at].ID
			r.gone = slices.DeleteFunc(r.gone, func(ep container.Endpoint) bool { return ep.ID == id })
			continue
		}
		ep, err := r.e.allot(ctx, r.b, &r.spec, *j, &r.undo)
		if err != nil {
			return err
		}
		ep.Default, ep.Default6 = false, false
		r.now = append(r.now, ep)
		r.fresh = append(r.fresh, ep)
		r.keep()
		reach("endpoint-kept")
		if err := r.e.plug(ctx, j.network, &ep, r.sb, &r.undo); err != nil {
			return err
		}
		if j.decider || j.network.foreign() { // what it is has been decided now
			r.now[len(r.now)-1], r.fresh[len(r.fresh)-1] = ep, ep
			r.keep()
		}
	}
	return nil
}

// lead moves the default routes and the published ports to the endpoints that shall have them.
func (r *reshaping) lead(ctx context.Context, joints []joint) error {
	was := slices.Clone(r.now)
	var ports []container.PortMapping
	reserved := false // the host's ports are this container's already
	for i := range r.now {
		ep := &r.now[i]
		if r.e.holdsPorts(ep) {
			ports, reserved = append(ports, ep.Ports...), reserved || ep.LeadsOutside()
		}
		ep.Default, ep.Default6, ep.Ports = false, false, nil
	}
	for i := range joints {
		j := &joints[i]
		ep := &r.now[r.index(j)]
		ep.Default, ep.Default6 = j.gateway, j.gateway6
		if !j.publishes {
			continue
		}
		if !reserved {
			var err error
			if ports, err = r.e.reservePorts(ctx, &r.spec, *ep, j.ports, &r.undo); err != nil {
				r.now = was
				return err
			}
		}
		ep.Ports = ports
	}
	var changed []int
	for _, loses := range []bool{true, false} { // first: a port of the host leads to one container only
		for i := range r.now {
			now, then := &r.now[i], &was[i]
			less := then.Default && !now.Default || then.Default6 && !now.Default6 || len(then.Ports) > len(now.Ports)
			more := !then.Default && now.Default || !then.Default6 && now.Default6 || len(then.Ports) < len(now.Ports)
			if loses && less || !loses && !less && more {
				changed = append(changed, i)
			}
		}
	}
	if len(changed) == 0 {
		return nil
	}
	r.keep()
	for _, i := range changed {
		n := r.e.networkOf(ctx, was[i])
		r.undo.add(func(ctx context.Context) {
			if err := r.e.driverJoin(ctx, n, &was[i], r.sb, nil); err != nil {
				r.e.log.Error("take a change of the gateway back", "container", r.b.id, "network", n.Name, "err", err)
			}
		})
		if err := errors.Join(step("lead"), r.e.driverJoin(ctx, n, &r.now[i], r.sb, nil)); err != nil {
			return fmt.Errorf("change the gateway to network %s: %w", n.Name, err)
		}
	}
	return nil
}

// tellContainer brings the container's own files and resolver up to its networks.
func (r *reshaping) tellContainer(ctx context.Context) error {
	if err := r.editHosts(); err != nil {
		return err
	}
	after := slices.DeleteFunc(slices.Clone(r.now), r.isGone)
	had, has := resolves(r.before), resolves(after)
	if had == has {
		return nil
	}
	dir := r.e.dir(r.b.id)
	err := r.replace(resolvName, func(old []byte) ([]byte, error) {
		if edited(dir, old) {
			return old, nil
		}
		content, err := r.e.resolvFile(&r.spec, after)
		if err == nil {
			err = writeFile(filepath.Join(dir, resolvDigest), []byte(digestOf(content)))
		}
		return content, err
	})
	if err != nil {
		return err
	}
	if !has {
		return nil // the resolver goes with the endpoints
	}
	return r.openResolver(ctx)
}

// resolves tells whether a container with these endpoints has the embedded resolver; see usesResolver.
func resolves(endpoints []container.Endpoint) bool {
	return slices.ContainsFunc(endpoints, func(ep container.Endpoint) bool { return ep.Key != "" && ep.Key != "bridge" })
}

func (r *reshaping) isGone(ep container.Endpoint) bool {
	return slices.ContainsFunc(r.gone, func(g container.Endpoint) bool { return g.ID == ep.ID })
}

func (r *reshaping) openResolver(ctx context.Context) error {
	e, b := r.e, r.b
	b.mu.Lock()
	task := b.task
	b.mu.Unlock()
	if task == nil {
		return conflict("container %s is not running", b.id)
	}
	sockets, err := e.cfg.Sandboxes.OpenResolver(ctx, r.sb.Path)
	if err != nil {
		return fmt.Errorf("open the container's resolver: %w", err)
	}
	files, err := sockets.Files()
	if err == nil {
		err = task.StoreFDs(ctx, resolverFDs, files)
		for _, f := range files {
			_ = f.Close()
		}
	}
	if err != nil {
		sockets.Close()
		return fmt.Errorf("give the shim the resolver's sockets: %w", err)
	}
	r.undo.add(func(context.Context) { e.cfg.Resolver.Remove(b.id) })
	e.cfg.Resolver.Add(b.id, sockets.UDP, sockets.TCP, e.viewer(b))
	return nil
}

// editHosts takes the lines of what goes out of /etc/hosts and adds those of what came; lines of the user's own stay.
func (r *reshaping) editHosts() error {
	drop := map[string]bool{}
	for _, ep := range r.gone {
		for line := range strings.Lines(hostsLines(&r.spec, ep)) {
			drop[line] = true
		}
	}
	var add []string
	was, err := r.e.hostGateway(r.before)
	if err != nil {
		return err
	}
	now, err := r.e.hostGateway(slices.DeleteFunc(slices.Clone(r.now), r.isGone))
	if err != nil {
		return err
	}
	if was != now {
		for _, h := range r.spec.HostConfig.ExtraHosts {
			if name, ip, _ := strings.Cut(h, ":"); ip == hostGatewayName {
				drop[extraHost(was, name)] = true
				add = append(add, extraHost(now, name))
			}
		}
	}
	for _, ep := range r.fresh {
		add = append(add, hostsLines(&r.spec, ep))
	}
	return r.replace("hosts", func(old []byte) ([]byte, error) { return editLines(old, drop, add), nil })
}

// replace rewrites one of the container's files in place.
func (r *reshaping) replace(name string, change func([]byte) ([]byte, error)) error {
	path := filepath.Join(r.e.dir(r.b.id), name)
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read container's %s: %w", name, err)
	}
	content, err := change(old)
	if err != nil {
		return err
	}
	r.undo.add(func(context.Context) { _ = writeFile(path, old) })
	if err := writeFile(path, content); err != nil {
		return fmt.Errorf("write container's %s: %w", name, err)
	}
	return nil
}

// finish does what can't fail any more: the other hosts learn of what came and forget what goes, before that goes and
// its address is free for others.
func (r *reshaping) finish(ctx context.Context) {
	e, b := r.e, r.b
	after := slices.DeleteFunc(slices.Clone(r.now), r.isGone)
	e.publish(ctx, e.records(&r.spec, after), recordIDs(e.records(&r.spec, r.gone)))
	reach("reshape-told")
	for _, ep := range r.fresh {
		e.networkEvent(e.networkOf(ctx, ep), events.ActionConnect, "container", b.id)
	}
	if !resolves(after) {
		e.cfg.Resolver.Remove(b.id)
	}
	for _, ep := range r.gone {
		e.driverLeave(ctx, e.networkOf(ctx, ep), ep)
	}
	reach("reshape-left")
	r.now = after
	r.keep()
	reach("reshape-kept")
	e.zones.drop(r.gone)
	if !slices.ContainsFunc(after, func(ep container.Endpoint) bool { return ep.LeadsOutside() }) {
		e.cfg.Ports.Release(r.spec.Name)
	}
	for _, ep := range r.gone {
		n := e.networkOf(ctx, ep)
		e.releaseAddresses(ctx, n, &ep)
		e.networkEvent(n, events.ActionDisconnect, "container", b.id)
	}
}

// finishReshape ends a disconnect that an earlier daemon did not live to finish.
func (e *Engine) finishReshape(ctx context.Context, b *box) error {
	spec, st := b.specCopy(), b.statusCopy()
	left := func(ep container.Endpoint) bool { return ep.Key != "" && spec.Networks[ep.Key] == nil }
	if !slices.ContainsFunc(st.Endpoints, left) {
		return nil
	}
	b.op.Lock()
	defer b.op.Unlock()
	return e.reshape(ctx, b)
}

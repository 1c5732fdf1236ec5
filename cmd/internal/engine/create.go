package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/runtime/container"
	"github.com/minictl/minictl/runtime/image"
	"github.com/minictl/minictl/runtime/oci"
)

// ContainerCreate makes a container that does not run yet.
func (e *Engine) ContainerCreate(ctx context.Context, name string, o api.CreateOptions, req mobycontainer.CreateRequest) (resp mobycontainer.CreateResponse, err error) {
	if req.Config == nil {
		return resp, invalid("config cannot be empty in order to create a container")
	}
	img, err := e.rt.Image(ctx, req.Config.Image)
	if err != nil {
		return resp, err
	}
	if err := image.CheckPlatform(img, req.Config.Image, o.Platform); err != nil {
		return resp, err
	}
	spec, err := e.newSpec(name, o, req, img)
	if err != nil {
		return resp, err
	}
	if o.FlatReadOnly {
		container.FlattenReadOnly(spec.Mounts)
	}
	b := &box{id: spec.ID, spec: *spec, status: container.Status{State: mobycontainer.StateCreated}}
	b.op.Lock() // who finds it by its name waits until all of it is there
	defer b.op.Unlock()
	if err := e.claim(b); err != nil {
		return resp, err
	}
	var u undo
	u.add(func(context.Context) { e.discardBox(b) })
	defer func() {
		if err != nil {
			u.run(ctx)
		}
	}()
	if err := e.takeVolumes(&b.spec, &u); err != nil {
		return resp, err
	}
	for _, key := range b.spec.NetworkOrder {
		if err := e.keepAddresses(ctx, &b.spec, key, &u); err != nil {
			return resp, err
		}
	}
	if err := step("create-claim"); err != nil {
		return resp, err
	}
	u.add(func(context.Context) { _ = os.RemoveAll(e.dir(b.id)) })
	if err := os.MkdirAll(e.dir(b.id), 0o710); err != nil {
		return resp, fmt.Errorf("make container's folder: %w", err)
	}
	u.add(func(ctx context.Context) { _ = e.rt.Remove(ctx, b.id) })
	if err := errors.Join(step("create-snapshot"), e.rt.Create(ctx, b.id, img.ID, map[string]string{"minictl/name": spec.Name})); err != nil {
		return resp, err
	}
	if err := errors.Join(step("create-volumes"), e.fillVolumes(ctx, &b.spec)); err != nil {
		return resp, err
	}
	u.add(func(context.Context) { _ = e.state.delete("containers", b.id) })
	if err := errors.Join(e.state.add("containers", b.id, record{b.spec, b.status}), step("create-state")); err != nil {
		return resp, fmt.Errorf("keep container: %w", err)
	}
	e.event(b, events.ActionCreate)
	warnings := oci.Warnings(b.spec.HostConfig)
	if odd := image.ForeignPlatform(img); odd != "" && o.Platform == "" {
		warnings = append(warnings, odd)
	}
	return mobycontainer.CreateResponse{ID: b.id, Warnings: warnings}, nil
}

// newSpec turns a request into the wish that is kept.
func (e *Engine) newSpec(name string, o api.CreateOptions, req mobycontainer.CreateRequest, img image.Image) (*container.Spec, error) {
	c, h := req.Config, req.HostConfig
	if h == nil {
		h = &mobycontainer.HostConfig{}
	}
	if err := container.ValidateShared(c, h); err != nil { // before what the image says joins in
		return nil, err
	}
	container.Merge(c, img.Config.Config)
	container.MergeHealth(c, img.Docker.Healthcheck)
	if c.Shell == nil {
		c.Shell = img.Docker.Shell
	}
	container.DefaultLog(&h.LogConfig, e.cfg.DefaultLog)
	if err := container.Validate(c, h); err != nil {
		return nil, err
	}
	if err := checkCPUs(&h.Resources); err != nil {
		return nil, err
	}
	if err := errors.Join(oci.ValidateDevices(h), oci.ValidateHost(h, e.cfg.Host)); err != nil {
		return nil, err
	}
	if len(c.Entrypoint)+len(c.Cmd) == 0 {
		return nil, invalid("no command specified")
	}
	s := &container.Spec{
		ID: newID(), Name: strings.TrimPrefix(name, "/"), Created: time.Now().UTC(), Image: c.Image, ImageID: img.ID,
		Platform: "linux", Config: c, HostConfig: h,
	}
	if h.NetworkMode.IsContainer() {
		owner, err := e.networkOwner(s)
		if err != nil {
			return nil, invalid("%v", err) // a 404 would make clients pull the image
		}
		c.Hostname, c.Domainname = owner.Config.Hostname, owner.Config.Domainname
	}
	if c.Hostname == "" {
		c.Hostname = s.Short()
		if h.NetworkMode.IsHost() || h.UTSMode.IsHost() {
			c.Hostname = e.cfg.NodeName
		}
	}
	if c.NetworkDisabled {
		h.NetworkMode = network.NetworkNone
	}
	if h.NetworkMode == "" || h.NetworkMode == "default" {
		h.NetworkMode = network.NetworkBridge
	}
	container.FillResources(&h.Resources)
	oci.Fill(h, e.cfg.Host)
	if _, err := container.NewLog(s); err != nil {
		return nil, err
	}
	if _, err := portRequests(s); err != nil {
		return nil, err
	}
	if err := e.resolveMounts(s); err != nil {
		return nil, err
	}
	return s, wishNetworks(s, req.NetworkingConfig, o.NetworkOrder)
}

// wishNetworks orders the wished endpoints: --network's first one, then the others as the client said, then by name (docker's
// API carries no order).
func wishNetworks(s *container.Spec, nc *network.NetworkingConfig, order []string) error {
	mode := s.HostConfig.NetworkMode
	if mode.IsContainer() || mode.IsHost() || mode.IsNone() {
		if nc != nil {
			for key := range nc.EndpointsConfig {
				if key != string(mode) && key != network.NetworkDefault {
					return invalid("conflicting options: a container on network %q cannot join %q as well", mode, key)
				}
			}
		}
		if mode.IsContainer() && len(s.HostConfig.PortBindings) > 0 {
			return invalid("conflicting options: port publishing and the container type network mode")
		}
		return nil
	}
	s.Networks = map[string]*network.EndpointSettings{}
	if nc != nil {
		for key, set := range nc.EndpointsConfig {
			if key == network.NetworkDefault {
				key = network.NetworkBridge
			}
			if set == nil {
				set = &network.EndpointSettings{}
			}
			s.Networks[key] = set
		}
	}
	first := string(mode)
	if _, ok := s.Networks[first]; !ok {
		s.Networks[first] = &network.EndpointSettings{}
	}
	for key, set := range s.Networks {
		if err := checkEndpointWish(key, set); err != nil {
			return err
		}
		if key != first {
			s.NetworkOrder = append(s.NetworkOrder, key)
		}
	}
	place := func(key string) int {
		if i := slices.Index(order, key); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortFunc(s.NetworkOrder, func(a, b string) int { return cmp.Or(cmp.Compare(place(a), place(b)), strings.Compare(a, b)) })
	s.NetworkOrder = slices.Insert(s.NetworkOrder, 0, first)
	return nil
}

func checkEndpointWish(key string, s *network.EndpointSettings) error {
	predefined := key == network.NetworkBridge
	if ip := s.IPAMConfig; ip != nil {
		if predefined && (ip.IPv4Address.IsValid() || ip.IPv6Address.IsValid()) {
			return invalid("user-specified IP address is supported on user-defined networks only")
		}
		if ip.IPv4Address.IsValid() && !ip.IPv4Address.Is4() {
			return invalid("invalid IPv4 address: %s", ip.IPv4Address)
		}
		if ip.IPv6Address.IsValid() && (!ip.IPv6Address.Is6() || ip.IPv6Address.Is4In6()) {
			return invalid("invalid IPv6 address: %s", ip.IPv6Address)
		}
		for _, a := range ip.LinkLocalIPs {
			if !a.IsLinkLocalUnicast() || a.Is4In6() {
				return invalid("invalid link-local IP address %s: it must be one of 169.254.0.0/16 or fe80::/10", a)
			}
		}
	}
	if predefined && len(s.Aliases) > 0 {
		return invalid("network-scoped aliases are only supported for user-defined networks")
	}
	if predefined && len(s.Links) > 0 {
		return invalid("links are only supported for user-defined networks")
	}
	for _, l := range s.Links {
		if _, _, err := parseLink(l); err != nil {
			return err
		}
	}
	return checkDriverOpts(s.DriverOpts)
}

// claim makes the name and the ID the box's own, or says who holds the name.
func (e *Engine) claim(b *box) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if b.spec.Name == "" {
		b.spec.Name = e.freeName()
	}
	if !container.ValidName(b.spec.Name) {
		return invalid("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", b.spec.Name)
	}
	if id, ok := e.names[b.spec.Name]; ok {
		return conflict("Conflict. The container name \"/%s\" is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", b.spec.Name, id)
	}
	e.names[b.spec.Name] = b.id
	e.boxes[b.id] = b
	return nil
}

// discardBox takes a container back that nobody has been told of. b.op must be held.
func (e *Engine) discardBox(b *box) {
	e.forget(b)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop()
}

func (e *Engine) forget(b *box) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.names[b.spec.Name] == b.id {
		delete(e.names, b.spec.Name)
	}
	delete(e.boxes, b.id)
}

// dir is the container's own folder: its logs and the files bound into it.
func (e *Engine) dir(id string) string { return filepath.Join(e.cfg.Root, "containers", id) }

// ContainerRename gives a container another name; a running one is found by it at once on every host.
func (e *Engine) ContainerRename(ctx context.Context, ref, name string) error {
	b, err := e.find(ref)
	if err != nil {
		return err
	}
	name = strings.TrimPrefix(name, "/")
	if !container.ValidName(name) {
		return invalid("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	b.op.Lock()
	defer b.op.Unlock()
	if b.removed {
		return notFound("No such container: %s", ref)
	}
	if name == b.specCopy().Name {
		return invalid("Renaming a container with the same name as its current name")
	}
	e.mu.Lock()
	if id, ok := e.names[name]; ok {
		e.mu.Unlock()
		return conflict("Error when allocating new name: Conflict. The container name \"/%s\" is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", name, id)
	}
	old := b.specCopy().Name
	delete(e.names, old)
	e.names[name] = b.id
	b.mu.Lock()
	b.spec.Name = name
	b.mu.Unlock()
	e.mu.Unlock()
	e.cfg.Ports.Rename(old, name)
	e.update(b, func(s *container.Status) {
		for i := range s.Endpoints {
			s.Endpoints[i].Names = endpointNames(&b.spec, b.spec.Networks[s.Endpoints[i].Key])
		}
	})
	e.event(b, events.ActionRename, "oldName", "/"+old)
	return e.republish(ctx, b)
}

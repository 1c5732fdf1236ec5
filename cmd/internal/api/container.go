package api

import (
	"context"
	"net/http"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// containerRoutes are the container's life, and its streams in container_stream.go.
func (s *server) containerRoutes() []route {
	return []route{
		{"GET", "/containers/json", s.containerList},
		{"POST", "/containers/create", s.containerCreate},
		{"GET", "/containers/{id}/json", s.containerInspect},
		{"POST", "/containers/{id}/start", s.containerStart},
		{"POST", "/containers/{id}/stop", s.containerStop},
		{"POST", "/containers/{id}/restart", s.containerRestart},
		{"POST", "/containers/{id}/kill", s.containerKill},
		{"POST", "/containers/{id}/rename", s.containerRename},
		{"POST", "/containers/{id}/resize", s.containerResize},
		{"POST", "/containers/{id}/pause", s.containerPause},
		{"POST", "/containers/{id}/unpause", s.containerUnpause},
		{"POST", "/containers/{id}/update", s.containerUpdate},
		{"GET", "/containers/{id}/top", s.containerTop},
		{"GET", "/containers/{id}/stats", s.containerStats},
		{"DELETE", "/containers/{id}", s.containerRemove},
		{"POST", "/containers/{id}/wait", s.containerWait},
		{"POST", "/containers/{id}/attach", s.containerAttach},
		{"GET", "/containers/{id}/logs", s.containerLogs},
	}
}

// containerList ignores the long-dead before and since: docker made filters of them.
func (s *server) containerList(w http.ResponseWriter, c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	limit, err := c.number("limit")
	if err != nil {
		return err
	}
	opts := ListOptions{All: c.flag("all"), Size: c.flag("size"), Filters: f}
	if limit != nil && *limit > 0 {
		opts.Limit = *limit
	}
	list, err := s.Container.ContainerList(c.Context(), opts)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, orEmpty(list))
}

// createBody adds to today's request the field that moved away from it: before API 1.44 a container had one MAC address.
type createBody struct {
	container.CreateRequest
	MacAddress network.HardwareAddr
}

// request gives the body in today's form, with no part nil.
func (b *createBody) request() (container.CreateRequest, error) {
	req := b.CreateRequest
	if req.Config == nil {
		return req, invalid("config cannot be empty in order to create a container")
	}
	if req.HostConfig == nil {
		req.HostConfig = &container.HostConfig{}
	}
	if req.NetworkingConfig == nil {
		req.NetworkingConfig = &network.NetworkingConfig{}
	}
	if req.NetworkingConfig.EndpointsConfig == nil {
		req.NetworkingConfig.EndpointsConfig = map[string]*network.EndpointSettings{}
	}
	if len(b.MacAddress) > 0 {
		b.moveMAC(req)
	}
	return req, nil
}

// moveMAC puts the container's MAC address on the network that NetworkMode names, unless that has one of its own.
func (b *createBody) moveMAC(req container.CreateRequest) {
	mode := req.HostConfig.NetworkMode
	if mode == "" {
		mode = network.NetworkDefault
	}
	ends := req.NetworkingConfig.EndpointsConfig
	if ends[string(mode)] == nil {
		ends[string(mode)] = &network.EndpointSettings{}
	}
	if len(ends[string(mode)].MacAddress) == 0 {
		ends[string(mode)].MacAddress = b.MacAddress
	}
}

// containerCreate must not answer 404 for anything but a missing image: docker run takes it for one, and pulls.
func (s *server) containerCreate(w http.ResponseWriter, c *call) error {
	name := c.text("name")
	if c.query.Has("name") && name != "" {
		if err := checkContainerName(name); err != nil {
			return err
		}
	}
	if err := c.checkJSON(); err != nil {
		return err
	}
	if c.ContentLength == 0 {
		return invalid("invalid JSON: got EOF while reading request body")
	}
	var body createBody
	if err := c.body(w, &body); err != nil {
		return err
	}
	req, err := body.request()
	if err != nil {
		return err
	}
	o := CreateOptions{Platform: c.text("platform"), NetworkOrder: networkOrder(c.Header)}
	if err := c.downgrade(req, &o); err != nil {
		return err
	}
	ctx, cancel := c.detached()
	defer cancel()
	res, err := s.Container.ContainerCreate(ctx, name, o, req)
	if err != nil {
		return err
	}
	res.Warnings = orEmpty(res.Warnings)
	return writeJSON(w, http.StatusCreated, res)
}

// containerInspect adds what today's types have dropped.
func (s *server) containerInspect(w http.ResponseWriter, c *call) error {
	info, err := s.Container.ContainerInspect(c.Context(), c.name, c.flag("size"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, withLegacyNetwork(info))
}

// containerStart answers 204, or 304 when it runs already. The text of a failure decides docker run's exit code.
func (s *server) containerStart(w http.ResponseWriter, c *call) error {
	// Long ago start took a HostConfig. Ignoring one would start a container other than the client asked for; a JSON
	// object that says anything has at least 7 characters.
	if c.ContentLength > 7 || c.ContentLength == -1 {
		return invalid("starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	if c.text("checkpoint") != "" {
		return notImplemented("starting from a checkpoint is not supported; start the container without --checkpoint")
	}
	ctx, cancel := c.detached()
	defer cancel()
	if _, err := s.Container.ContainerStart(ctx, c.name); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// containerStop returns when the container has stopped; t is in seconds, negative for ever, absent the container's own.
func (s *server) containerStop(w http.ResponseWriter, c *call) error {
	timeout, err := c.number("t")
	if err != nil {
		return err
	}
	return c.do(w, http.StatusNoContent, func(ctx context.Context) error {
		return s.Container.ContainerStop(ctx, c.name, c.text("signal"), timeout)
	})
}

// containerRestart takes the same parameters as stop.
func (s *server) containerRestart(w http.ResponseWriter, c *call) error {
	timeout, err := c.number("t")
	if err != nil {
		return err
	}
	return c.do(w, http.StatusNoContent, func(ctx context.Context) error {
		return s.Container.ContainerRestart(ctx, c.name, c.text("signal"), timeout)
	})
}

// containerKill sends a signal, by default KILL; the back end knows the names.
func (s *server) containerKill(w http.ResponseWriter, c *call) error {
	return c.do(w, http.StatusNoContent, func(ctx context.Context) error { return s.Container.ContainerKill(ctx, c.name, c.text("signal")) })
}

// containerRename checks the new name by the rule for create.
func (s *server) containerRename(w http.ResponseWriter, c *call) error {
	name := c.text("name")
	if name == "" {
		return invalid("Neither old nor new names may be empty")
	}
	if err := checkContainerName(name); err != nil {
		return err
	}
	return c.do(w, http.StatusNoContent, func(ctx context.Context) error { return s.Container.ContainerRename(ctx, c.name, name) })
}

// containerResize sets the terminal's size in characters. Docker run repeats it until the container runs.
func (s *server) containerResize(w http.ResponseWriter, c *call) error {
	height, err := c.size("h", "height")
	if err != nil {
		return err
	}
	width, err := c.size("w", "width")
	if err != nil {
		return err
	}
	if err := s.Container.ContainerResize(c.Context(), c.name, height, width); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// containerRemove takes volumes along with v=1. Links are older than networks; nothing here makes any.
func (s *server) containerRemove(w http.ResponseWriter, c *call) error {
	if c.flag("link") {
		return notImplemented("removing a link is not supported; use \"docker network disconnect\" instead")
	}
	return c.do(w, http.StatusNoContent, func(ctx context.Context) error {
		return s.Container.ContainerRemove(ctx, c.name, c.flag("force"), c.flag("v"))
	})
}

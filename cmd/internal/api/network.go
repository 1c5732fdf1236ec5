package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/network"
)

// networkRoutes are networks by name, ID or prefix of one.
func (s *server) networkRoutes() []route {
	return []route{
		{"GET", "/networks", s.networkList},
		{"POST", "/networks/create", s.networkCreate},
		{"POST", "/networks/prune", s.networkPrune},
		{"GET", "/networks/{id}", s.networkInspect},
		{"DELETE", "/networks/{id}", s.networkRemove},
		{"POST", "/networks/{id}/connect", s.networkConnect},
		{"POST", "/networks/{id}/disconnect", s.networkDisconnect},
	}
}

// networkList answers a bare array.
func (s *server) networkList(w http.ResponseWriter, c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	list, err := s.Network.NetworkList(c.Context(), f)
	if err != nil {
		return err
	}
	out := make([]legacyNetwork, 0, len(list))
	for _, n := range list {
		out = append(out, legacyNetwork{Summary: n, Containers: map[string]network.EndpointResource{}})
	}
	return writeJSON(w, http.StatusOK, out)
}

// networkInspect is also what docker network rm asks first.
func (s *server) networkInspect(w http.ResponseWriter, c *call) error {
	info, err := s.Network.NetworkInspect(c.Context(), c.name, c.text("scope"), c.flag("verbose"))
	if err != nil {
		return err
	}
	if info.Containers == nil {
		info.Containers = map[string]network.EndpointResource{}
	}
	return writeJSON(w, http.StatusOK, info)
}

// networkCreate answers 201 with the ID; unknown options come back as a warning, bad values as a 400.
func (s *server) networkCreate(w http.ResponseWriter, c *call) error {
	var req network.CreateRequest
	if err := c.body(w, &req); err != nil {
		return err
	}
	if err := checkNetworkName(req.Name); err != nil {
		return err
	}
	ctx, cancel := c.detached()
	defer cancel()
	res, err := s.Network.NetworkCreate(ctx, req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, res)
}

// networkRemove answers 204; a network in use or predefined is the back end's 403.
func (s *server) networkRemove(w http.ResponseWriter, c *call) error {
	return c.do(w, http.StatusNoContent, func(ctx context.Context) error { return s.Network.NetworkRemove(ctx, c.name) })
}

// networkConnect answers 200 without a body, running container or not.
func (s *server) networkConnect(w http.ResponseWriter, c *call) error {
	var req network.ConnectRequest
	if err := c.body(w, &req); err != nil {
		return err
	}
	if err := checkRef("container", req.Container); err != nil {
		return err
	}
	return c.do(w, http.StatusOK, func(ctx context.Context) error { return s.Network.NetworkConnect(ctx, c.name, req) })
}

// networkDisconnect with Force works for a container that is gone.
func (s *server) networkDisconnect(w http.ResponseWriter, c *call) error {
	var req network.DisconnectRequest
	if err := c.body(w, &req); err != nil {
		return err
	}
	if err := checkRef("container", req.Container); err != nil {
		return err
	}
	return c.do(w, http.StatusOK, func(ctx context.Context) error { return s.Network.NetworkDisconnect(ctx, c.name, req) })
}

// networkPrune removes what no container uses, and names it.
func (s *server) networkPrune(w http.ResponseWriter, c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	ctx, cancel := c.detached()
	defer cancel()
	report, err := s.Network.NetworkPrune(ctx, f)
	if err != nil {
		return err
	}
	report.NetworksDeleted = orEmpty(report.NetworksDeleted)
	return writeJSON(w, http.StatusOK, report)
}

// checkRef refuses an empty name in a body: as a prefix it would fit everything.
func checkRef(noun, ref string) error {
	if strings.TrimSpace(ref) == "" {
		return invalid("invalid %s name or ID: value is empty", noun)
	}
	return nil
}

package api

import (
	"context"
	"net/http"

	"github.com/moby/moby/api/types/volume"
)

// volumeRoutes are volumes by name; they have no IDs.
func (s *server) volumeRoutes() []route {
	return []route{
		{"GET", "/volumes", s.volumeList},
		{"POST", "/volumes/create", s.volumeCreate},
		{"POST", "/volumes/prune", s.volumePrune},
		{"GET", "/volumes/{name}", s.volumeInspect},
		{"DELETE", "/volumes/{name}", s.volumeRemove},
	}
}

// volumeList answers an object, unlike the other lists.
func (s *server) volumeList(w http.ResponseWriter, c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	list, err := s.Volume.VolumeList(c.Context(), f)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, volume.ListResponse{Volumes: orEmpty(list), Warnings: []string{}})
}

// volumeInspect answers null for labels and options that nobody gave, as docker does.
func (s *server) volumeInspect(w http.ResponseWriter, c *call) error {
	v, err := s.Volume.VolumeInspect(c.Context(), c.name)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v)
}

// volumeCreate answers 201 with the volume, also when it was there already. An empty name asks for one of our making.
func (s *server) volumeCreate(w http.ResponseWriter, c *call) error {
	var req volume.CreateRequest
	if err := c.body(w, &req); err != nil {
		return err
	}
	ctx, cancel := c.detached()
	defer cancel()
	v, err := s.Volume.VolumeCreate(ctx, req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, v)
}

// volumeRemove answers 204; a volume in use is the back end's 409.
func (s *server) volumeRemove(w http.ResponseWriter, c *call) error {
	return c.do(w, http.StatusNoContent, func(ctx context.Context) error { return s.Volume.VolumeRemove(ctx, c.name, c.flag("force")) })
}

// volumePrune took all unused volumes before API 1.42, and since then those without a name unless asked for all.
func (s *server) volumePrune(w http.ResponseWriter, c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	if !c.since(42) {
		if f == nil {
			f = Filters{}
		}
		f["all"] = map[string]bool{"true": true}
	}
	ctx, cancel := c.detached()
	defer cancel()
	report, err := s.Volume.VolumePrune(ctx, f)
	if err != nil {
		return err
	}
	report.VolumesDeleted = orEmpty(report.VolumesDeleted)
	return writeJSON(w, http.StatusOK, report)
}

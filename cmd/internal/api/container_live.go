package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/moby/moby/api/types/container"
)

// containerPause freezes a container's processes.
func (s *server) containerPause(w http.ResponseWriter, c *call) error {
	return c.do(w, http.StatusNoContent, func(ctx context.Context) error { return s.Container.ContainerPause(ctx, c.name) })
}

// containerUnpause lets them go on.
func (s *server) containerUnpause(w http.ResponseWriter, c *call) error {
	return c.do(w, http.StatusNoContent, func(ctx context.Context) error { return s.Container.ContainerUnpause(ctx, c.name) })
}

// containerUpdate changes limits and restart policy.
func (s *server) containerUpdate(w http.ResponseWriter, c *call) error {
	var u container.UpdateConfig
	if err := c.body(w, &u); err != nil {
		return err
	}
	if u.PidsLimit != nil && *u.PidsLimit == 0 && !c.since(40) {
		u.PidsLimit = nil // clients of before API 1.40 had no way not to send it
	}
	ctx, cancel := c.detached()
	defer cancel()
	resp, err := s.Container.ContainerUpdate(ctx, c.name, u)
	if err != nil {
		return err
	}
	resp.Warnings = orEmpty(resp.Warnings)
	return writeJSON(w, http.StatusOK, resp)
}

// containerTop lists processes, by default as ps -ef does.
func (s *server) containerTop(w http.ResponseWriter, c *call) error {
	top, err := s.Container.ContainerTop(c.Context(), c.name, c.text("ps_args"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, top)
}

// containerStats streams JSON documents unless told otherwise; docker's default for stream is true. Whatever can go wrong
// does so before the first sample.
func (s *server) containerStats(w http.ResponseWriter, c *call) error {
	stream := !c.query.Has("stream") || c.flag("stream")
	oneShot := c.flag("one-shot")
	if stream && oneShot {
		return invalid("cannot have stream=true and one-shot=true")
	}
	out := &flushWriter{w: w}
	enc := json.NewEncoder(out)
	begun := false
	return s.Container.ContainerStats(c.Context(), c.name, stream, oneShot, func(r container.StatsResponse) error {
		if !begun {
			w.Header().Set("Content-Type", "application/json")
			out.begin()
			begun = true
		}
		return enc.Encode(r)
	})
}

package api

import (
	"net/http"

	"github.com/moby/moby/api/types/common"
	"github.com/moby/moby/api/types/container"
)

// execRoutes are docker exec: create, start, look.
func (s *server) execRoutes() []route {
	return []route{
		{"POST", "/containers/{id}/exec", s.execCreate},
		{"POST", "/exec/{id}/start", s.execStart},
		{"POST", "/exec/{id}/resize", s.execResize},
		{"GET", "/exec/{id}/json", s.execInspect},
	}
}

// execCreate only notes the command; a container that is not running is the back end's 409.
func (s *server) execCreate(w http.ResponseWriter, c *call) error {
	var req container.ExecCreateRequest
	if err := c.body(w, &req); err != nil {
		return err
	}
	if len(req.Cmd) == 0 {
		return invalid("No exec command specified")
	}
	ctx, cancel := c.detached()
	defer cancel()
	id, err := s.Exec.ExecCreate(ctx, c.name, req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, common.IDResponse{ID: id})
}

// execStart answers 101 before the process starts, as docker does: a client that got anything else says "unable to
// upgrade" instead of the reason. So a failed start is told in the stream, and by ExecInspect's exit code.
func (s *server) execStart(w http.ResponseWriter, c *call) error {
	var req container.ExecStartRequest
	if err := c.body(w, &req); err != nil {
		return err
	}
	info, err := s.Exec.ExecInspect(c.Context(), c.name)
	if err != nil {
		return err
	}
	if info.ProcessConfig != nil {
		req.Tty = info.ProcessConfig.Tty // it was fixed at create; some clients do not repeat it here
	}
	if !req.Tty || !c.since(42) {
		req.ConsoleSize = nil
	}
	if req.Detach {
		return s.execDetached(w, c, req)
	}
	ctx, cancel := c.streaming()
	defer cancel()
	conn, err := hijack(w, c, c.streamType(req.Tty))
	if err != nil {
		return err
	}
	stream, err := s.Exec.ExecStart(ctx, c.name, req)
	if err != nil {
		s.Log.Debug("exec did not start", "exec", clip(c.name), "err", err)
		_, _ = conn.Write(frame(req.Tty, stdoutFrame, message(err)+"\r\n"))
		_ = conn.Close()
		return nil
	}
	conn.pump(ctx, stream, true)
	return nil
}

// execDetached answers when the process runs; a failure has its status, since nothing was upgraded.
func (s *server) execDetached(w http.ResponseWriter, c *call, req container.ExecStartRequest) error {
	ctx, cancel := c.detached()
	defer cancel()
	stream, err := s.Exec.ExecStart(ctx, c.name, req)
	if err != nil {
		return err
	}
	if stream != nil {
		_ = stream.Close()
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// execResize sets the terminal's size in characters.
func (s *server) execResize(w http.ResponseWriter, c *call) error {
	height, err := c.size("h", "height")
	if err != nil {
		return err
	}
	width, err := c.size("w", "width")
	if err != nil {
		return err
	}
	if err := s.Exec.ExecResize(c.Context(), c.name, height, width); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// execInspect is where clients read the exit code when the stream has ended.
func (s *server) execInspect(w http.ResponseWriter, c *call) error {
	info, err := s.Exec.ExecInspect(c.Context(), c.name)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, info)
}

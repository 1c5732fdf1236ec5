package api

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"

	"github.com/moby/moby/api/types/container"
)

// fileRoutes are a container's files, and images made of them.
func (s *server) fileRoutes() []route {
	return []route{
		{"HEAD", "/containers/{id}/archive", s.archiveStat},
		{"GET", "/containers/{id}/archive", s.archiveGet},
		{"PUT", "/containers/{id}/archive", s.archivePut},
		{"GET", "/containers/{id}/export", s.containerExport},
		{"GET", "/containers/{id}/changes", s.containerChanges},
		{"POST", "/commit", s.commit},
	}
}

// pathStatHeader carries what is known of a path beside its archive: base64 of JSON.
const pathStatHeader = "X-Docker-Container-Path-Stat"

func setPathStat(w http.ResponseWriter, st container.PathStat) error {
	js, err := json.Marshal(st)
	if err != nil {
		return err
	}
	w.Header().Set(pathStatHeader, base64.StdEncoding.EncodeToString(js))
	return nil
}

// path reads the parameter that all archive routes need.
func (c *call) path() (string, error) {
	p := c.text("path")
	if p == "" {
		return "", invalid("missing parameter: path")
	}
	return p, nil
}

func (s *server) archiveStat(w http.ResponseWriter, c *call) error {
	path, err := c.path()
	if err != nil {
		return err
	}
	st, err := s.Files.ContainerStatPath(c.Context(), c.name, path)
	if err != nil {
		return err
	}
	return setPathStat(w, st)
}

// archiveGet sends the header before the archive, whose length nobody knows yet.
func (s *server) archiveGet(w http.ResponseWriter, c *call) error {
	path, err := c.path()
	if err != nil {
		return err
	}
	return s.Files.ContainerArchive(c.Context(), c.name, path, func(st container.PathStat) io.Writer {
		w.Header().Set("Content-Type", "application/x-tar")
		_ = setPathStat(w, st) // no field of it can fail
		return w
	})
}

// archivePut takes an archive of any length as the body; its type does not matter.
func (s *server) archivePut(w http.ResponseWriter, c *call) error {
	path, err := c.path()
	if err != nil {
		return err
	}
	opts := ExtractOptions{NoOverwriteDirNonDir: c.flag("noOverwriteDirNonDir"), CopyUIDGID: c.flag("copyUIDGID")}
	if err := s.Files.ContainerExtract(c.Context(), c.name, path, opts, c.Body); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *server) containerExport(w http.ResponseWriter, c *call) error {
	w.Header().Set("Content-Type", "application/octet-stream")
	return s.Files.ContainerExport(c.Context(), c.name, w)
}

func (s *server) containerChanges(w http.ResponseWriter, c *call) error {
	list, err := s.Files.ContainerChanges(c.Context(), c.name)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, orEmpty(list))
}

// commit pauses the container unless told otherwise; clients before API 1.13 did not say.
func (s *server) commit(w http.ResponseWriter, c *call) error {
	var config *container.Config
	if err := c.body(w, &config); err != nil {
		return err
	}
	opts := CommitOptions{
		Comment: c.text("comment"), Author: c.text("author"), Changes: c.query["changes"], Config: config,
		Pause: !c.query.Has("pause") || c.flag("pause"),
	}
	if repo := c.text("repo"); repo != "" {
		ref, err := joinTag(repo, c.text("tag"))
		if err != nil {
			return err
		}
		opts.Ref = ref
	}
	if c.text("container") == "" {
		return invalid("missing parameter: container")
	}
	ctx, cancel := c.detached()
	defer cancel()
	id, err := s.Files.ContainerCommit(ctx, c.text("container"), opts)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, container.CommitResponse{ID: id})
}

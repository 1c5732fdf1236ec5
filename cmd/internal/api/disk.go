package api

import (
	"net/http"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/image"
)

// diskRoutes measure disk space and free it.
func (s *server) diskRoutes() []route {
	return []route{
		{"GET", "/system/df", s.diskUsage},
		{"POST", "/containers/prune", s.containersPrune},
		{"POST", "/images/prune", s.imagesPrune},
		{"POST", "/build/prune", s.buildPrune},
		{"GET", "/images/{name...}/history", s.imageHistory},
	}
}

func (s *server) diskUsage(w http.ResponseWriter, c *call) error {
	kinds := map[string]bool{}
	for _, k := range c.query["type"] {
		switch k {
		case "container", "image", "volume", "build-cache":
			kinds[k] = true
		default:
			return invalid("unknown object type: %s", clip(k))
		}
	}
	du, err := s.Disk.DiskUsage(c.Context(), kinds)
	if err != nil {
		return err
	}
	out := struct {
		DiskUsage
		Images []legacySummary
	}{DiskUsage: du}
	if du.Images != nil {
		out.Images = summaries(c, du.Images)
	}
	return writeJSON(w, http.StatusOK, out)
}

func (s *server) containersPrune(w http.ResponseWriter, c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	ctx, cancel := c.detached()
	defer cancel()
	report, err := s.Disk.ContainersPrune(ctx, f)
	if err != nil {
		return err
	}
	report.ContainersDeleted = orEmpty(report.ContainersDeleted)
	return writeJSON(w, http.StatusOK, report)
}

func (s *server) imagesPrune(w http.ResponseWriter, c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	ctx, cancel := c.detached()
	defer cancel()
	report, err := s.Disk.ImagesPrune(ctx, f)
	if err != nil {
		return err
	}
	report.ImagesDeleted = orEmpty(report.ImagesDeleted)
	return writeJSON(w, http.StatusOK, report)
}

// buildPrune frees nothing, since nothing is built here: docker system prune asks for it in any case.
func (s *server) buildPrune(w http.ResponseWriter, _ *call) error {
	return writeJSON(w, http.StatusOK, build.CachePruneReport{CachesDeleted: []string{}})
}

func (s *server) imageHistory(w http.ResponseWriter, c *call) error {
	if err := s.ofPlatform(c, "platform", c.name); err != nil {
		return err
	}
	list, err := s.Disk.ImageHistory(c.Context(), c.name)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, orEmpty[image.HistoryResponseItem](list))
}

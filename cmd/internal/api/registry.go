package api

import (
	"net/http"

	"github.com/moby/moby/api/types/registry"
)

// registryRoutes give images away, and ask registries.
func (s *server) registryRoutes() []route {
	return []route{
		{"GET", "/images/get", s.imagesSave},
		{"GET", "/images/{name...}/get", s.imageSave},
		{"POST", "/images/{name...}/push", s.imagePush},
		{"POST", "/auth", s.registryLogin},
		{"GET", "/distribution/{name...}/json", s.distributionInspect},
	}
}

func (s *server) imagesSave(w http.ResponseWriter, c *call) error {
	if len(c.query["names"]) == 0 {
		return invalid("missing parameter: names")
	}
	for _, name := range c.query["names"] {
		if err := s.ofPlatform(c, "platform", name); err != nil {
			return err
		}
	}
	w.Header().Set("Content-Type", "application/x-tar")
	return s.Registry.ImageSave(c.Context(), c.query["names"], w)
}

func (s *server) imageSave(w http.ResponseWriter, c *call) error {
	if err := s.ofPlatform(c, "platform", c.name); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	return s.Registry.ImageSave(c.Context(), []string{c.name}, w)
}

// imagePush ignores the body: once it held the credentials, now the header does.
func (s *server) imagePush(w http.ResponseWriter, c *call) error {
	tag := c.text("tag")
	ref, err := joinTag(c.name, tag)
	if err != nil {
		return err
	}
	if err := s.ofPlatform(c, "platform", ref); err != nil {
		return err
	}
	p := newProgress(w, s.message)
	return p.finish(s.Registry.ImagePush(c.Context(), c.name, tag, c.Header.Get(registry.AuthHeader), p))
}

func (s *server) registryLogin(w http.ResponseWriter, c *call) error {
	var auth registry.AuthConfig
	if err := c.body(w, &auth); err != nil {
		return err
	}
	res, err := s.Registry.RegistryLogin(c.Context(), auth)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, res)
}

func (s *server) distributionInspect(w http.ResponseWriter, c *call) error {
	if _, err := joinTag(c.name, ""); err != nil {
		return err
	}
	res, err := s.Registry.DistributionInspect(c.Context(), c.name, c.Header.Get(registry.AuthHeader))
	if err != nil {
		return err
	}
	res.Platforms = orEmpty(res.Platforms)
	return writeJSON(w, http.StatusOK, res)
}

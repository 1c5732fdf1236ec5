package api

import (
	"net/http"
	"strings"

	"github.com/distribution/reference"
)

// imageRoutes are images by name, tag, digest or ID. Names hold slashes, hence {name...}.
func (s *server) imageRoutes() []route {
	return []route{
		{"POST", "/images/create", s.imageCreate},
		{"POST", "/images/load", s.imageLoad},
		{"GET", "/images/json", s.imageList},
		{"GET", "/images/{name...}/json", s.imageInspect},
		{"POST", "/images/{name...}/tag", s.imageTag},
		{"DELETE", "/images/{name...}", s.imageRemove},
	}
}

// imageCreate is docker pull with fromImage and docker import without.
func (s *server) imageCreate(w http.ResponseWriter, c *call) error {
	if from := c.text("fromImage"); from != "" {
		ref, err := joinTag(from, c.text("tag"))
		if err != nil {
			return err
		}
		p := newProgress(w)
		return p.finish(s.Image.ImagePull(c.Context(), ref, c.text("platform"), c.Header.Get("X-Registry-Auth"), p))
	}
	switch src := c.text("fromSrc"); src {
	case "-":
	case "":
		return invalid("missing parameter: fromImage (to pull) or fromSrc (to import)")
	default:
		return notImplemented("importing from a URL is not supported; use \"curl -fsSL %s | docker import -\" instead", clip(src))
	}
	ref := ""
	if repo := c.text("repo"); repo != "" {
		var err error
		if ref, err = joinTag(repo, c.text("tag")); err != nil {
			return err
		}
	}
	p := newProgress(w)
	return p.finish(s.Image.ImageImport(c.Context(), c.Body, ref, c.query["changes"], c.text("message"), c.text("platform"), p))
}

// imageLoad takes a tar archive of any size as the body; its type does not matter.
func (s *server) imageLoad(w http.ResponseWriter, c *call) error {
	p := newProgress(w)
	return p.finish(s.Image.ImageLoad(c.Context(), c.Body, c.flag("quiet"), p))
}

// imageList lists what this host has.
func (s *server) imageList(w http.ResponseWriter, c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	list, err := s.Image.ImageList(c.Context(), c.flag("all"), f)
	if err != nil {
		return err
	}
	for i := range list {
		list[i].RepoTags, list[i].RepoDigests = orEmpty(list[i].RepoTags), orEmpty(list[i].RepoDigests)
	}
	return writeJSON(w, http.StatusOK, orEmpty(list))
}

// imageInspect answers 404 for a missing image, which makes compose pull it.
func (s *server) imageInspect(w http.ResponseWriter, c *call) error {
	info, err := s.Image.ImageInspect(c.Context(), c.name)
	if err != nil {
		return err
	}
	info.RepoTags, info.RepoDigests = orEmpty(info.RepoTags), orEmpty(info.RepoDigests)
	return writeJSON(w, http.StatusOK, info)
}

// imageTag answers 201 without a body.
func (s *server) imageTag(w http.ResponseWriter, c *call) error {
	target, err := joinTag(c.text("repo"), c.text("tag"))
	if err != nil {
		return err
	}
	ctx, cancel := c.detached()
	defer cancel()
	if err := s.Image.ImageTag(ctx, c.name, target); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

// imageRemove deletes untagged parents as well, unless noprune says otherwise.
func (s *server) imageRemove(w http.ResponseWriter, c *call) error {
	ctx, cancel := c.detached()
	defer cancel()
	list, err := s.Image.ImageRemove(ctx, c.name, c.flag("force"), !c.flag("noprune"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, orEmpty(list))
}

// joinTag makes one reference of the two parameters; a digest comes in the tag's place.
func joinTag(name, tag string) (string, error) {
	ref := name
	switch {
	case strings.Contains(tag, ":"):
		ref += "@" + tag
	case tag != "":
		ref += ":" + tag
	}
	if _, err := reference.ParseNormalizedNamed(ref); err != nil {
		return "", invalid("invalid reference format: %s: %v", shown(ref), err)
	}
	return ref, nil
}

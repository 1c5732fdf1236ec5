package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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
		p := newProgress(w, s.message)
		return p.finish(s.Image.ImagePull(c.Context(), ref, c.text("platform"), c.Header.Get("X-Registry-Auth"), p))
	}
	src := c.text("fromSrc")
	if src == "" {
		return invalid("missing parameter: fromImage (to pull) or fromSrc (to import)")
	}
	ref := ""
	if repo := c.text("repo"); repo != "" {
		var err error
		if ref, err = joinTag(repo, c.text("tag")); err != nil {
			return err
		}
	}
	p := newProgress(w, s.message)
	var in io.Reader = c.Body
	if src != "-" {
		far, err := s.Image.ImageFetch(c.Context(), src, p)
		if err != nil {
			return p.finish(err)
		}
		defer far.Close()
		in = far
	}
	return p.finish(s.Image.ImageImport(c.Context(), in, ref, c.query["changes"], c.text("message"), c.text("platform"), p))
}

// imageLoad takes a tar archive of any size as the body; its type does not matter.
func (s *server) imageLoad(w http.ResponseWriter, c *call) error {
	platform, err := c.platform("platform")
	if err != nil {
		return err
	}
	p := newProgress(w, s.message)
	return p.finish(s.Image.ImageLoad(c.Context(), c.Body, platform, p))
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
	if c.since(42) && c.flag("shared-size") {
		shares, err := s.Image.ImageShares(c.Context())
		if err != nil {
			return err
		}
		for i := range list {
			list[i].SharedSize = shares[list[i].ID]
		}
	}
	return writeJSON(w, http.StatusOK, summaries(c, list))
}

// imageInspect answers 404 for a missing image, which makes compose pull it.
func (s *server) imageInspect(w http.ResponseWriter, c *call) error {
	all := c.since(48) && c.flag("manifests")
	if all && c.text("platform") != "" {
		return invalid("conflicting options: manifests and platform options cannot both be set")
	}
	if err := s.ofPlatform(c, "platform", c.name); err != nil {
		return err
	}
	info, err := s.Image.ImageInspect(c.Context(), c.name)
	if err != nil {
		return err
	}
	if !all {
		info.Manifests = nil
	}
	info.RepoTags, info.RepoDigests = orEmpty(info.RepoTags), orEmpty(info.RepoDigests)
	return writeJSON(w, http.StatusOK, withLegacyFields(c, info))
}

// imageTag answers 201 without a body.
func (s *server) imageTag(w http.ResponseWriter, c *call) error {
	target, err := joinTag(c.text("repo"), c.text("tag"))
	if err != nil {
		return err
	}
	return c.do(w, http.StatusCreated, func(ctx context.Context) error { return s.Image.ImageTag(ctx, c.name, target) })
}

// imageRemove deletes untagged parents as well, unless noprune says otherwise.
func (s *server) imageRemove(w http.ResponseWriter, c *call) error {
	if err := s.ofPlatform(c, "platforms", c.name); err != nil {
		return err
	}
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

// platform reads the parameter in which clients name one of an image's platforms, as JSON; empty without it.
func (c *call) platform(key string) (string, error) {
	switch given := c.query[key]; len(given) {
	case 0:
		return "", nil
	case 1:
		var p ocispec.Platform
		if err := json.Unmarshal([]byte(given[0]), &p); err != nil || p.OS == "" || p.Architecture == "" {
			return "", invalid("invalid platform %s: want JSON with os and architecture", shown(given[0]))
		}
		return platforms.FormatAll(p), nil
	}
	return "", notImplemented("more than one platform is not supported; images here have one")
}

// ofPlatform refuses when a client asks for another platform of an image than the one it has here.
func (s *server) ofPlatform(c *call, key, ref string) error {
	text, err := c.platform(key)
	if err != nil || text == "" {
		return err
	}
	want, err := platforms.Parse(text)
	if err != nil {
		return invalid("invalid platform %s: %v", shown(text), err)
	}
	info, err := s.Image.ImageInspect(c.Context(), ref)
	if err != nil {
		return err
	}
	has := ocispec.Platform{OS: info.Os, Architecture: info.Architecture, Variant: info.Variant, OSVersion: info.OsVersion}
	if !platforms.Only(want).Match(has) {
		return errdefs.ErrNotFound.WithMessage("image with reference " + ref + " was found but does not provide the specified platform (" + platforms.Format(want) + ")")
	}
	return nil
}

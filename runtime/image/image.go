// Package image holds docker's rules about images: how names are read and shown, which image a user means, what may be
// removed, what an import's changes do, which archives are refused. It knows neither containerd nor the network.
package image

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is one image of this host, however many names it has.
type Image struct {
	// ID is the digest of the image's configuration, such as sha256:1f2e…: the same on every host.
	ID string
	// RepoTags are its names as docker shows them (busybox:latest), sorted; none for a dangling image.
	RepoTags []string
	// RepoDigests name it by the digest a registry knows it by (busybox@sha256:…), sorted; none if it was never pulled.
	RepoDigests []string
	// Created is when it was built, zero when it does not say.
	Created time.Time
	// Tagged is when it was last given a name here, zero when it never was.
	Tagged time.Time
	// Size is what its unpacked layers take on disk, in bytes.
	Size int64
	// Config is the OCI image configuration: command, environment, exposed ports, labels, platform, history.
	Config ocispec.Image
	// Docker is what docker adds to that: the health check, the shell.
	Docker dockerspec.DockerOCIImageConfigExt
	// Target describes its manifest.
	Target ocispec.Descriptor
	// Content is what its manifest, configuration and layers take as they came, most often compressed, in bytes.
	Content int64
	// Labels are the configuration's, never nil.
	Labels map[string]string
}

// Layer is one layer of an image.
type Layer struct {
	Chain string // digest of the layer and all those below it: the same for images that share them
	Size  int64  // what it takes on disk, in bytes
}

// Progress takes one line of a long operation's progress.
type Progress interface {
	// Status is a line such as ("Pulling fs layer", "4abcf2066143", 0, 0); bytes, total 0 means unknown.
	Status(status, id string, current, total int64)
	// Stream is plain text, such as "Loaded image: busybox:latest\n".
	Stream(text string)
}

// Removed is one step of a removal, as DELETE /images answers it; exactly one field is set.
type Removed struct {
	Untagged string // a name, docker's short form
	Deleted  string // an ID
}

// Auth is what a client gave for a registry, in the X-Registry-Auth header's words.
type Auth struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	ServerAddress string `json:"serveraddress"`
	IdentityToken string `json:"identitytoken"` // an OAuth refresh token
	RegistryToken string `json:"registrytoken"` // a bearer token, used as it is
}

// ParseAuth reads an X-Registry-Auth header: base64url JSON, where older clients leave out the padding or use the
// standard alphabet. Empty text, and an empty object, mean no credentials: nil.
func ParseAuth(header string) (*Auth, error) {
	if header == "" {
		return nil, nil
	}
	js, err := decodeHeader(header)
	if err != nil {
		return nil, err
	}
	var a Auth
	if err := json.Unmarshal(js, &a); err != nil {
		return nil, fmt.Errorf("read registry credentials: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if a.Username == "" && a.Password == "" && a.IdentityToken == "" && a.RegistryToken == "" {
		return nil, nil
	}
	return &a, nil
}

// ParseAuths reads an X-Registry-Config header, base64url JSON of credentials by their registry's address, which a build
// may need any of. Empty text means none.
func ParseAuths(header string) (map[string]Auth, error) {
	js, err := decodeHeader(header)
	if err != nil || len(js) == 0 {
		return nil, err
	}
	var all map[string]Auth
	if err := json.Unmarshal(js, &all); err != nil {
		return nil, fmt.Errorf("read registry credentials: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return all, nil
}

// decodeHeader takes every way in which clients write base64.
func decodeHeader(header string) ([]byte, error) {
	text := strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(header), "=")
	js, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("read registry credentials: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return js, nil
}

// ShortID is what docker shows of an ID or digest: the first twelve hex digits.
func ShortID(id string) string {
	_, hex, ok := strings.Cut(id, ":")
	if !ok {
		hex = id
	}
	return hex[:min(12, len(hex))]
}

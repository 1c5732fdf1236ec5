// Package bake makes small but real container images, as files that "docker load" takes, without a registry or a build
// tool. The same inputs give the same bytes.
package bake

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	_ "crypto/sha256" // go-digest takes what is linked in
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Epoch is the time of everything in the images: a fixed day, so that bytes never change.
func Epoch() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

// Image is an image before it is written in some form.
type Image struct {
	Names  []string // such as busybox:latest; none is legal
	Config ocispec.ImageConfig
	Arch   string   // such as amd64
	Layers [][]byte // uncompressed tars, the lowest first
}

// File is one entry of a layer.
type File struct {
	Path string // without a leading slash; a folder ends with one
	Mode int64  // permission bits, 1777 included
	Body []byte
	Link string // a hard link to this path instead of a body
}

// Layer packs files into a tar in the given order, owned by root. Parent folders are not made up: list them.
func Layer(files []File) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.Path, Mode: f.Mode, Size: int64(len(f.Body)), ModTime: Epoch(), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		switch {
		case f.Link != "":
			h.Typeflag, h.Linkname = tar.TypeLink, f.Link
		case f.Path[len(f.Path)-1] == '/':
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.Path, err)
		}
		if _, err := w.Write(f.Body); err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.Path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// config is the image's configuration blob.
func (i Image) config() ([]byte, error) {
	created := Epoch()
	c := ocispec.Image{Created: &created, Platform: ocispec.Platform{OS: "linux", Architecture: i.Arch}, Config: i.Config}
	c.RootFS.Type = "layers"
	for _, l := range i.Layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromBytes(l))
		c.History = append(c.History, ocispec.History{Created: &created, CreatedBy: "minictl's testing/images"})
	}
	return json.Marshal(c)
}

// ID is what docker calls the image's ID.
func (i Image) ID() (string, error) {
	c, err := i.config()
	return digest.FromBytes(c).String(), err
}

// Save writes images the way "docker save" did up to version 24: a manifest.json, and a folder with a tar per layer.
func Save(w io.Writer, images ...Image) error {
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	var manifest []entry
	var files []File
	add := func(f File) {
		// Images share layers; an archive holds each once.
		if !slices.ContainsFunc(files, func(o File) bool { return o.Path == f.Path }) {
			files = append(files, f)
		}
	}
	for _, i := range images {
		c, err := i.config()
		if err != nil {
			return err
		}
		e := entry{Config: digest.FromBytes(c).Encoded() + ".json", RepoTags: i.Names}
		for _, l := range i.Layers {
			dir := digest.FromBytes(l).Encoded() + "/"
			add(File{Path: dir, Mode: 0o755})
			add(File{Path: dir + "layer.tar", Mode: 0o644, Body: l})
			e.Layers = append(e.Layers, dir+"layer.tar")
		}
		add(File{Path: e.Config, Mode: 0o644, Body: c})
		manifest = append(manifest, e)
	}
	m, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	add(File{Path: "manifest.json", Mode: 0o644, Body: m})
	b, err := Layer(files)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// Blobs are an image as a registry holds it: gzipped layers, configuration and manifest by digest.
type Blobs struct {
	Manifest ocispec.Descriptor
	ByDigest map[digest.Digest][]byte
}

// Layers are the digests of an image's layers, the lowest first.
func (b Blobs) Layers() ([]string, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(b.ByDigest[b.Manifest.Digest], &m); err != nil {
		return nil, err
	}
	var out []string
	for _, l := range m.Layers {
		out = append(out, l.Digest.String())
	}
	return out, nil
}

// Blobs gives the image's blobs in OCI's media types.
func (i Image) Blobs() (Blobs, error) {
	out := Blobs{ByDigest: map[digest.Digest][]byte{}}
	put := func(mediaType string, b []byte) ocispec.Descriptor {
		d := digest.FromBytes(b)
		out.ByDigest[d] = b
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
	}
	c, err := i.config()
	if err != nil {
		return out, err
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	m.Config = put(ocispec.MediaTypeImageConfig, c)
	for _, l := range i.Layers {
		var z bytes.Buffer
		zw := gzip.NewWriter(&z)
		if _, err := zw.Write(l); err != nil {
			return out, err
		}
		if err := zw.Close(); err != nil {
			return out, err
		}
		m.Layers = append(m.Layers, put(ocispec.MediaTypeImageLayerGzip, z.Bytes()))
	}
	b, err := json.Marshal(m)
	if err != nil {
		return out, err
	}
	out.Manifest = put(ocispec.MediaTypeImageManifest, b)
	out.Manifest.Platform = &ocispec.Platform{OS: "linux", Architecture: i.Arch}
	return out, nil
}

// Index joins images of several platforms under one index.
func Index(images ...Image) (Blobs, error) {
	out := Blobs{ByDigest: map[digest.Digest][]byte{}}
	idx := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, i := range images {
		b, err := i.Blobs()
		if err != nil {
			return out, err
		}
		for d, blob := range b.ByDigest {
			out.ByDigest[d] = blob
		}
		idx.Manifests = append(idx.Manifests, b.Manifest)
	}
	js, err := json.Marshal(idx)
	if err != nil {
		return out, err
	}
	d := digest.FromBytes(js)
	out.ByDigest[d] = js
	out.Manifest = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: d, Size: int64(len(js))}
	return out, nil
}

// Layout writes blobs as an OCI layout in a tar. The name, when given, is the annotation that docker and buildkit write.
func Layout(w io.Writer, name string, b Blobs) error {
	top := b.Manifest
	if name != "" {
		top.Annotations = map[string]string{"io.containerd.image.name": name, ocispec.AnnotationRefName: path.Base(name)}
	}
	idx, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{top}})
	if err != nil {
		return err
	}
	files := []File{
		{Path: "oci-layout", Mode: 0o644, Body: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{Path: "index.json", Mode: 0o644, Body: idx},
		{Path: "blobs/", Mode: 0o755}, {Path: "blobs/sha256/", Mode: 0o755},
	}
	var digests []digest.Digest
	for d := range b.ByDigest {
		digests = append(digests, d)
	}
	slices.Sort(digests) // a map's order is no order
	for _, d := range digests {
		files = append(files, File{Path: "blobs/sha256/" + d.Encoded(), Mode: 0o644, Body: b.ByDigest[d]})
	}
	out, err := Layer(files)
	if err != nil {
		return err
	}
	_, err = w.Write(out)
	return err
}

package bake

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestBusyboxIsWholeAndReproducible(t *testing.T) {
	bin, err := FindBusybox(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	bake := func() (Image, []byte) {
		t.Helper()
		img, err := Busybox(t.Context(), bin)
		if err != nil {
			t.Fatal(err)
		}
		httpd, err := HTTPD(img)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := Save(&b, img, httpd); err != nil {
			t.Fatal(err)
		}
		return httpd, b.Bytes()
	}
	httpd, first := bake()
	if _, second := bake(); !bytes.Equal(first, second) {
		t.Error("the same inputs gave other bytes")
	}
	want := map[string]tar.Header{
		"bin/busybox":        {Mode: 0o755},
		"bin/sh":             {Mode: 0o755, Linkname: "bin/busybox"},
		"usr/sbin/httpd":     {Mode: 0o755, Linkname: "bin/busybox"},
		"sbin/ip":            {Mode: 0o755, Linkname: "bin/busybox"},
		"tmp/":               {Mode: 0o1777},
		"root/":              {Mode: 0o700},
		"etc/passwd":         {Mode: 0o644},
		"var/www/index.html": {Mode: 0o644},
	}
	for _, l := range httpd.Layers {
		r := tar.NewReader(bytes.NewReader(l))
		for {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if w, ok := want[h.Name]; ok && w.Mode == h.Mode && w.Linkname == h.Linkname && h.Uid == 0 && h.ModTime.Equal(Epoch()) {
				delete(want, h.Name)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("missing or different: %v", want)
	}
}

func TestIndexHoldsEveryPlatformOnce(t *testing.T) {
	layer, err := Layer([]File{{Path: "a", Body: []byte("a")}})
	if err != nil {
		t.Fatal(err)
	}
	idx, err := Index(Image{Arch: "amd64", Layers: [][]byte{layer}}, Image{Arch: "arm64", Layers: [][]byte{layer}})
	if err != nil {
		t.Fatal(err)
	}
	// One shared layer; a configuration and a manifest each; the index.
	if n := len(idx.ByDigest); n != 6 {
		t.Errorf("%d blobs, want 6", n)
	}
}

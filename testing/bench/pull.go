package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/minictl/minictl/testing/images/bake"
	"github.com/minictl/minictl/testing/lab"
	"github.com/minictl/minictl/testing/registry"
)

// The image that is pulled: pullLayers layers of pullFiles files of pullFile bytes, 300 MB, half of it zeros.
const (
	pullLayers  = 6
	pullFiles   = 50
	pullFile    = 1_000_000
	pullRepeats = 3
)

// pull times the pull of a large image, unpacking included, beside containerd's own client, whose daemon is docker's.
func (b *bench) pull() error {
	if err := b.cluster(); err != nil {
		return err
	}
	addr, ca, err := b.registry()
	if err != nil {
		return err
	}
	name := addr + "/bench/large:1"
	p, err := b.turns(pullRepeats, func(e *engine) (float64, error) {
		if e.name != ourName {
			return ctrPull(e, name, ca)
		}
		c, err := e.run("pull", "-q", name)
		if err != nil {
			return 0, err
		}
		_, err = e.run("rmi", name)
		return c.wall.Seconds(), errors.Join(err, awaitCollected(e.host))
	})
	if err != nil {
		return err
	}
	f := versus(fmt.Sprintf("pull and unpack an image of %d MB (beside it: `ctr`)", pullLayers*pullFiles*pullFile/1_000_000), p, 1)
	f.format = "%.2f s"
	b.table.add(f)
	return nil
}

// awaitCollected waits until the daemon has deleted the layers of a removed image, which it does some time after: what is
// still there would not be pulled again.
func awaitCollected(h *lab.Host) error {
	ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
	defer cancel()
	return await(ctx, func() error {
		blobs, err := filepath.Glob(h.Path("/var/lib/minictl/containerd/io.containerd.content.v1.content/blobs/sha256/*"))
		for _, b := range blobs {
			if st, serr := os.Stat(b); serr == nil && st.Size() > pullFiles*pullFile/2 {
				return fmt.Errorf("%s has not been deleted", b)
			}
		}
		return err
	})
}

// ctrPull gives the seconds that containerd's own client takes. It talks to the registry itself, so it must run in the host.
func ctrPull(e *engine, name, ca string) (float64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
	defer cancel()
	ctr := []string{filepath.Join(e.dir, "usr/bin/ctr"), "-a", peerContainer, "-n", "bench", "images"}
	begin := time.Now()
	_, errs, code := e.host.Run(ctx, append(ctr, "pull", "--tlscacert", ca, name)...)
	took := time.Since(begin).Seconds()
	if code == 0 {
		_, errs, code = e.host.Run(ctx, append(ctr, "rm", "--sync", name)...)
	}
	if code != 0 {
		return 0, fmt.Errorf("ctr: exit status %d: %s", code, errs)
	}
	return took, nil
}

// registry starts one on a machine of its own and pushes the image to it. host1 trusts it; ca is the path of its
// authority's certificate.
func (b *bench) registry() (addr, ca string, err error) {
	far := b.lab.Client("registry")
	addr = far.Addr().String() + ":5000"
	ctx := context.Background()
	reg, err := registry.Prepare(ctx, far.Dir(), registry.Options{Listen: addr, TLS: true, Dial: b.h1.Dial})
	if err != nil {
		return "", "", err
	}
	far.Start(reg.Args()...)
	if err := reg.Await(nil); err != nil {
		return "", "", err
	}
	certs := b.h1.Path("/etc/docker/certs.d/" + addr)
	ca = filepath.Join(far.Dir(), "ca.crt")
	err = errors.Join(os.MkdirAll(certs, 0o755), os.WriteFile(filepath.Join(certs, "ca.crt"), reg.CA, 0o644), os.WriteFile(ca, reg.CA, 0o644))
	if err != nil {
		return "", "", err
	}
	blobs, err := largeImage()
	if err != nil {
		return "", "", err
	}
	return addr, ca, reg.Push(ctx, "bench/large", "1", blobs)
}

// largeImage is the same one every time.
func largeImage() (bake.Blobs, error) {
	noise := rand.NewChaCha8([32]byte{})
	img := bake.Image{Arch: runtime.GOARCH, Config: ocispec.ImageConfig{Cmd: []string{"/none"}}}
	for l := range pullLayers {
		files := []bake.File{{Path: fmt.Sprintf("layer%d/", l), Mode: 0o755}}
		for f := range pullFiles {
			body := make([]byte, pullFile)
			if _, err := noise.Read(body[:pullFile/2]); err != nil {
				return bake.Blobs{}, err
			}
			files = append(files, bake.File{Path: fmt.Sprintf("layer%d/file%d", l, f), Mode: 0o644, Body: body})
		}
		layer, err := bake.Layer(files)
		if err != nil {
			return bake.Blobs{}, err
		}
		img.Layers = append(img.Layers, layer)
	}
	return img.Blobs()
}

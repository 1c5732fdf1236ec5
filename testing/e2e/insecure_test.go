package e2e

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/minictl/minictl/testing/images/bake"
	"github.com/minictl/minictl/testing/lab"
	"github.com/minictl/minictl/testing/registry"
)

// plainRegistry runs a registry without TLS on a machine of its own, with a gate before it.
func plainRegistry(t *testing.T, l *lab.Lab, h *lab.Host) (r *registry.Registry, g *registry.Gate, addr string) {
	t.Helper()
	far := l.Client("registry")
	r, err := registry.Prepare(t.Context(), t.TempDir(), registry.Options{Listen: far.Addr().String() + ":5001", Dial: h.Dial})
	if err != nil {
		t.Fatal(err)
	}
	far.Start(r.Args()...)
	if err := r.Await(nil); err != nil {
		t.Fatal(err)
	}
	g = r.Gate()
	addr = far.Addr().String() + ":5000"
	var ln net.Listener
	if err := far.Do(func() (err error) { ln, err = net.Listen("tcp", addr); return err }); err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: g, ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	return r, g, addr
}

// layered is an image of a few layers that hold a file each, for one architecture.
func layered(t *testing.T, arch string, bodies ...string) bake.Image {
	t.Helper()
	img := bake.Image{Arch: arch}
	img.Config.Cmd = []string{"cmd"}
	for _, b := range bodies {
		layer, err := bake.Layer([]bake.File{{Path: "f-" + b[:1], Mode: 0o644, Body: []byte(b)}})
		if err != nil {
			t.Fatal(err)
		}
		img.Layers = append(img.Layers, layer)
	}
	return img
}

// TestInsecureRegistry pulls over plain HTTP where the operator allowed it, all platforms' ways, and goes on with a pull
// that a crash interrupted.
func TestInsecureRegistry(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := l.Host("host1")
	reg, gate, addr := plainRegistry(t, l, h)
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	mine, foreign := layered(t, runtime.GOARCH, "a one", "b two"), layered(t, other, "c foreign")
	idx, err := bake.Index(foreign, mine)
	if err != nil {
		t.Fatal(err)
	}
	if err := reg.Push(t.Context(), "library/multi", "1", idx); err != nil {
		t.Fatal(err)
	}
	name := addr + "/library/multi:1"
	h.Daemon()
	for _, c := range clients() {
		_, errs, code := c.try(h, "pull", name)
		if code != 1 {
			t.Errorf("%s: code %d", c.name, code)
		}
		wantMatch(t, c.name, errs, "server gave HTTP response to HTTPS client.*--insecure-registry "+addr)
	}
	h.StopDaemon()
	fails(t, h, 1, "insecure registry .*'://'", "daemon", "--insecure-registry", "http://"+addr)
	fails(t, h, 1, "invalid mirror", "daemon", "--registry-mirror", "nothing")
	h.Daemon("--insecure-registry", "192.168.66.0/24", "--registry-mirror", "http://"+addr)
	wantMatch(t, "info", h.MustDocker("info"), `(?s)Insecure Registries:.*192\.168\.66\.0/24.*Registry Mirrors:\s+http://`+addr)
	digest := idx.Manifest.Digest.String()
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			out := c.must(h, "pull", name)
			for _, want := range []string{"1: Pulling from library/multi", "Digest: " + digest, "Status: Downloaded newer image for " + name, "\n" + name} {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
			id := func() string {
				return strings.TrimSpace(c.must(h, "images", "-q", "--no-trunc", addr+"/library/multi"))
			}
			want, err := mine.ID()
			if err != nil {
				t.Fatal(err)
			}
			if got := id(); got != want {
				t.Errorf("this platform's image is %s, want %s", got, want)
			}
			wantMatch(t, "digests", c.must(h, "images", "--digests"), `(?m)^`+addr+`/library/multi +1 +`+digest+` +\w{12} `)
			wantMatch(t, "inspect", c.must(h, "image", "inspect", "-f", "{{.RepoDigests}}", name), regexp.QuoteMeta("["+addr+"/library/multi@"+digest+"]"))
			wantMatch(t, "again", c.must(h, "pull", name), "Status: Image is up to date for "+name)
			c.must(h, "pull", "--platform", "linux/"+other, name)
			if want, err = foreign.ID(); err != nil || id() != want {
				t.Errorf("the other platform's image is %s, want %s, %v", id(), want, err)
			}
			wantMatch(t, "its platform", c.must(h, "image", "inspect", "-f", "{{.Os}}/{{.Architecture}}", name), "linux/"+other)
			_, errs, _ := c.try(h, "pull", "--platform", "linux/s390x", name)
			wantMatch(t, "no such platform", errs, "no matching manifest for linux/s390x in the manifest list entries")
			_, errs, _ = c.try(h, "pull", addr+"/library/multi:9")
			wantMatch(t, "no such tag", errs, "manifest for "+addr+"/library/multi:9 not found: manifest unknown: manifest unknown")
			_, errs, _ = c.try(h, "pull", "192.168.66.1:1/x")
			wantMatch(t, "unreachable", errs, "connection refused")
			c.must(h, "rmi", name)
			c.must(h, "image", "prune", "-f") // this platform's, which lost its name

			byDigest := addr + "/library/multi@" + digest
			c.must(h, "pull", byDigest)
			wantMatch(t, "by digest", c.must(h, "images", "--digests"), `(?m)^`+addr+`/library/multi +<none> +`+digest+` +\w{12} `)
			wantMatch(t, "rmi by digest", c.must(h, "rmi", byDigest), `(?s)Untagged: `+byDigest+`.*Deleted: sha256:`)

			c.must(h, "pull", "-a", addr+"/library/multi")
			c.must(h, "rmi", name)
			// The mirror has what the hub is asked for.
			wantMatch(t, "mirror", c.must(h, "pull", "multi:1"), "Status: Downloaded newer image for multi:1")
			c.must(h, "rmi", "multi:1")
		})
	}
	t.Run("crash", func(t *testing.T) {
		img := layered(t, runtime.GOARCH, "d first", "e second")
		b, err := img.Blobs()
		if err != nil {
			t.Fatal(err)
		}
		layers, err := b.Layers()
		if err != nil {
			t.Fatal(err)
		}
		if err := reg.Push(t.Context(), "crash", "1", b); err != nil {
			t.Fatal(err)
		}
		name := addr + "/crash:1"
		release := gate.Hold(layers[1])
		defer release()
		ended := make(chan string, 1)
		go func() { _, errs, _ := h.Minictl("pull", name); ended <- errs }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := gate.Await(ctx, func() bool { return len(gate.Asked(layers[1])) > 0 }); err != nil {
			t.Fatal(err)
		}
		l.Eventually(soon, func() error { // the first layer lies in the store
			if _, err := os.Stat(h.Path(filepath.Join("/var/lib/minictl/containerd/io.containerd.content.v1.content/blobs/sha256", strings.TrimPrefix(layers[0], "sha256:")))); err != nil {
				return err
			}
			return nil
		})
		h.KillDaemon()
		wantMatch(t, "the client", <-ended, ".")
		release()
		h.RestartDaemon()
		h.MustMinictl("pull", name)
		if n := len(gate.Asked(layers[0])); n != 1 {
			t.Errorf("the finished layer was fetched %d times", n)
		}
	})
}

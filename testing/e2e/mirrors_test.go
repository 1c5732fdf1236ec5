package e2e

import (
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/minictl/minictl/testing/images/bake"
	"github.com/minictl/minictl/testing/lab"
)

// TestMirrors: mirrors that are not there, have nothing or are broken are asked in their order, and then docker.io itself.
func TestMirrors(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h, hub := l.Host("host1"), l.Client("hub")
	l.Name("docker.io", hub.Addr())
	l.Name("registry-1.docker.io", hub.Addr())
	image, err := layered(t, runtime.GOARCH, "a one", "b two").Blobs()
	if err != nil {
		t.Fatal(err)
	}
	var asked roll
	serve := func(port string, handler http.Handler) (mirror string) {
		t.Helper()
		var ln net.Listener
		addr := hub.Addr().String() + ":" + port
		if err := hub.Do(func() (err error) { ln, err = net.Listen("tcp", addr); return err }); err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.add(port)
			handler.ServeHTTP(w, r)
		}), ReadHeaderTimeout: time.Minute}
		go func() { _ = srv.Serve(ln) }()
		t.Cleanup(func() { _ = srv.Close() })
		return "http://" + addr
	}
	only := func(status int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "{}", status) })
	}
	serve("80", static(image)) // without TLS, as --insecure-registry allows
	h.Daemon("--insecure-registry", "192.168.66.0/24", "--registry-mirror", "http://"+hub.Addr().String()+":1",
		"--registry-mirror", serve("81", only(http.StatusNotFound)), "--registry-mirror", serve("82", only(http.StatusInternalServerError)))
	for _, c := range clients() {
		asked.reset()
		out, errs, code := c.try(h, "pull", "multi:1")
		if got := asked.first(); code != 0 || got != "81 82 80" {
			t.Errorf("%s: code %d, asked %s: %s", c.name, code, got, errs)
			continue
		}
		wantMatch(t, c.name, out, "Status: Downloaded newer image for multi:1")
		c.must(h, "rmi", "multi:1")
	}
}

// static is a registry that holds one image, whatever it is called.
func static(b bake.Blobs) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		manifest := strings.Contains(r.URL.Path, "/manifests/")
		d := digest.Digest(name)
		if manifest && !strings.Contains(name, ":") {
			d = b.Manifest.Digest
		}
		blob, ok := b.ByDigest[d]
		switch {
		case !ok && name != "":
			http.NotFound(w, r)
			return
		case manifest:
			w.Header().Set("Content-Type", b.Manifest.MediaType)
			w.Header().Set("Docker-Content-Digest", d.String())
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(blob)))
	})
}

// roll keeps who was asked.
type roll struct {
	mu  sync.Mutex
	all []string
}

func (l *roll) add(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, s)
}

func (l *roll) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = nil
}

// first gives each once, in the order in which they came first.
func (l *roll) first() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, s := range l.all {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return strings.Join(out, " ")
}

// Package clitest runs the whole command line against a scripted daemon on a socket, for tests.
package clitest

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/cli/cli/config"

	"github.com/minictl/minictl/cmd/internal/cli"
)

// Patience bounds every wait of a test on something that must happen.
const Patience = 10 * time.Second

// Request is one request that the daemon got, without the API version in its path.
type Request struct {
	Method, Path string
	Query        url.Values
	Header       http.Header
	Body         string
}

// Daemon answers as its handlers say; what has none is a 404 with docker's body.
type Daemon struct {
	Host string
	mux  *http.ServeMux
	mu   sync.Mutex
	seen []Request
	news chan struct{} // closed and renewed at every request
}

// Start serves on a fresh socket until the test ends.
func Start(t testing.TB) *Daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "cli") // t.TempDir's names can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{Host: "unix://" + l.Addr().String(), mux: http.NewServeMux(), news: make(chan struct{})}
	srv := &http.Server{Handler: http.HandlerFunc(d.serve)}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	d.mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Api-Version", "1.51")
		w.Header().Set("Ostype", "linux")
		io.WriteString(w, "OK")
	})
	d.mux.HandleFunc("/", Fail(http.StatusNotFound, "page not found"))
	return d
}

func (d *Daemon) serve(w http.ResponseWriter, r *http.Request) {
	if _, rest, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/"); ok && strings.HasPrefix(r.URL.Path, "/v1.") {
		r.URL.Path, r.URL.RawPath = "/"+rest, ""
	}
	if r.URL.Path != "/_ping" {
		var body []byte
		if r.ContentLength != 0 && r.Header.Get("Upgrade") == "" {
			body, _ = io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		d.mu.Lock()
		d.seen = append(d.seen, Request{r.Method, r.URL.Path, r.URL.Query(), r.Header, string(body)})
		close(d.news)
		d.news = make(chan struct{})
		d.mu.Unlock()
	}
	d.mux.ServeHTTP(w, r)
}

// Handle answers pattern ("GET /containers/{id}/json") with h.
func (d *Daemon) Handle(pattern string, h http.HandlerFunc) { d.mux.HandleFunc(pattern, h) }

// Requests gives what has been asked so far, as "METHOD path".
func (d *Daemon) Requests() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for _, r := range d.seen {
		out = append(out, r.Method+" "+r.Path)
	}
	return out
}

// Find waits for a request to method and path, and gives the last one.
func (d *Daemon) Find(t testing.TB, method, path string) Request {
	t.Helper()
	return d.FindWhere(t, method+" "+path, func(r Request) bool { return r.Method == method && r.Path == path })
}

// FindWhere waits for a request that ok accepts, and gives the last one.
func (d *Daemon) FindWhere(t testing.TB, what string, ok func(Request) bool) Request {
	t.Helper()
	deadline := time.After(Patience)
	for {
		d.mu.Lock()
		for _, r := range slices.Backward(d.seen) {
			if ok(r) {
				d.mu.Unlock()
				return r
			}
		}
		news := d.news
		d.mu.Unlock()
		select {
		case <-news:
		case <-deadline:
			t.Fatalf("no request %s; there were %q", what, d.Requests())
		}
	}
}

// JSON answers with body as it is.
func JSON(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// Fail answers with docker's error body.
func Fail(status int, message string) http.HandlerFunc {
	return JSON(status, `{"message":`+quote(message)+`}`)
}

// Empty answers with a status alone.
func Empty(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
}

// Hijack upgrades the connection and hands it to serve; it is closed afterwards.
func Hijack(serve func(conn net.Conn, in io.Reader)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"+
			"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
		serve(conn, rw)
	}
}

// Frame is docker's multiplexed frame: stream 1 is stdout, 2 stderr.
func Frame(stream byte, text string) string {
	n := len(text)
	return string([]byte{stream, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) + text
}

// Result is what a command line did.
type Result struct {
	Out, Err string
	Code     int
}

// Run runs args with an empty standard input.
func Run(t testing.TB, d *Daemon, args ...string) Result {
	t.Helper()
	return RunInput(t, d, "", args...)
}

// RunInput runs args with the given standard input. Docker's configuration is an empty folder.
func RunInput(t testing.TB, d *Daemon, in string, args ...string) Result {
	t.Helper()
	config.SetDir(t.TempDir())
	return run(d, in, args)
}

// RunConfig runs args with docker's configuration folder dir.
func RunConfig(t testing.TB, d *Daemon, dir string, args ...string) Result {
	t.Helper()
	config.SetDir(dir)
	return run(d, "", args)
}

func run(d *Daemon, in string, args []string) Result {
	var out, errs bytes.Buffer
	code := cli.Main(context.Background(), append([]string{"--host", d.Host}, args...),
		cli.Streams{In: io.NopCloser(strings.NewReader(in)), Out: &out, Err: &errs})
	return Result{out.String(), errs.String(), code}
}

// Log gives every request so far.
func (d *Daemon) Log() []Request {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.seen)
}

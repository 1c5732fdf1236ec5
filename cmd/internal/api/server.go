package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// Config is what the API serves. All back ends are needed.
type Config struct {
	Log       *slog.Logger
	Container ContainerBackend
	Exec      ExecBackend
	Network   NetworkBackend
	Volume    VolumeBackend
	Image     ImageBackend
	Files     FileBackend
	Registry  RegistryBackend
	Disk      DiskBackend
	Build     BuildBackend
	System    SystemBackend
	Cluster   ClusterBackend
	// Witness says, on a host that only votes, why everything about containers is refused. Nil: nothing is.
	Witness func() string
	// Explain gives what a user has to know to get past an error, beside its own text; "": nothing. Nil: never anything.
	Explain func(error) string
}

// server holds the back ends for the handlers; it has no state of its own.
type server struct {
	Config
	routes []route
	page   http.Handler
}

// New gives the whole API, the web page included. Serve it with Serve, or by any http.Server that speaks HTTP/1.1:
// attach and exec take over the connection, which HTTP/2 does not allow.
func New(cfg Config) http.Handler {
	s := &server{Config: cfg, page: newPage(cfg)}
	s.routes = s.table()
	return s
}

// ServeHTTP finds the route, and turns an error or a panic into an answer.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w}
	defer s.recoverPanic(rec, r)
	h := rec.Header()
	h.Set("Server", "minictl (linux)")
	h.Set("Api-Version", DefaultVersion)
	h.Set("Ostype", "linux")
	h.Set("Docker-Experimental", "false")
	if err := s.dispatch(rec, r); err != nil {
		s.fail(rec, r, err)
	}
}

// dispatch checks the version before the path, as docker does, so that a client learns what is wrong with all its calls.
func (s *server) dispatch(w http.ResponseWriter, r *http.Request) error {
	text, segs := splitPath(r.URL.Path)
	version, err := negotiate(text)
	if err != nil {
		return err
	}
	row, name := find(s.routes, r.Method, segs)
	if row == nil {
		writeError(w, http.StatusNotFound, "page not found")
		return nil
	}
	if s.Witness != nil && !slices.Contains([]string{"_ping", "version", "info", "events", "cluster", "swarm", "nodes"}, segs[0]) {
		return fmt.Errorf("%s: %w", s.Witness(), errdefs.ErrNotImplemented)
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return invalid("invalid query: %s", clip(err.Error()))
	}
	for key, values := range query {
		if holdsNUL(key) || slices.ContainsFunc(values, func(v string) bool { return holdsNUL(v) }) {
			return invalid("invalid query: parameter %s holds a NUL character", shown(key))
		}
	}
	return row.serve(w, &call{Request: r, name: name, version: version, query: query})
}

// fail answers with the error's status, or cuts the connection when the answer has begun, so that a client does not
// take half an answer for a whole one.
func (s *server) fail(w *recorder, r *http.Request, err error) {
	status := httpStatus(err)
	known := status == http.StatusNotImplemented || status == http.StatusServiceUnavailable // whom it concerns is told
	if status >= http.StatusInternalServerError && !known {
		s.Log.Error("request failed", "method", r.Method, "path", clip(r.URL.Path), "status", status, "err", err)
	} else {
		s.Log.Debug("request refused", "method", r.Method, "path", clip(r.URL.Path), "status", status, "err", err)
	}
	if w.begun {
		panic(http.ErrAbortHandler)
	}
	writeError(w, status, s.message(err))
}

// message is an error's text, and what the host has to say about it.
func (s *server) message(err error) string {
	text := message(err)
	if s.Explain != nil {
		if more := s.Explain(err); more != "" {
			text += "; " + more
		}
	}
	return text
}

// recoverPanic keeps one broken request from taking the daemon, and every container's network, with it.
func (s *server) recoverPanic(w *recorder, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p) // net/http's own way to drop a connection
	}
	s.Log.Error("request panicked", "method", r.Method, "path", clip(r.URL.Path), "err", p, "stack", string(debug.Stack()))
	if w.begun {
		panic(http.ErrAbortHandler)
	}
	writeError(w, http.StatusInternalServerError, "internal error; the daemon's log has the details")
}

// recorder remembers whether the answer has begun. http.ResponseController reaches Flush and Hijack through Unwrap.
type recorder struct {
	http.ResponseWriter
	begun bool
}

// WriteHeader notes that the answer has begun.
func (w *recorder) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

// Write notes that the answer has begun.
func (w *recorder) Write(b []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// shutdownGrace is how long calls may take to end once serving stops.
const shutdownGrace = 5 * time.Second

// Serve serves h on l until ctx ends, and returns when the last call has, hijacked ones included. It closes l. Streams
// (attach, logs, events, wait) end at once; other calls get shutdownGrace.
func Serve(ctx context.Context, log *slog.Logger, l net.Listener, h http.Handler) error {
	soft, stop := context.WithCancel(ctx)
	defer stop()
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var calls sync.WaitGroup
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			calls.Add(1)
			defer calls.Done()
			h.ServeHTTP(w, r)
		}),
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(context.WithValue(soft, softStop{}, soft), hardStop{}, hard)
		},
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	var err error
	select {
	case err = <-failed:
		err = fmt.Errorf("serve API on %s: %w", l.Addr(), err)
		stop()
	case <-ctx.Done():
		grace, done := context.WithTimeout(hard, shutdownGrace)
		_ = srv.Shutdown(grace) // what is left after the grace is cut below
		done()
		<-failed
	}
	cut()
	_ = srv.Close()
	calls.Wait()
	return err
}

package registry

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
)

// Gate stands before a registry, writes down what is asked of it, and can cut answers short.
type Gate struct {
	proxy *httputil.ReverseProxy

	mu    sync.Mutex
	asked []Request
	cut   map[string]int64         // by digest: bytes of its blob that pass
	held  map[string]chan struct{} // by digest: closed when its answer may pass
	now   int                      // answers with a blob that are under way
	most  int
	news  chan struct{} // closed and made anew whenever something is asked or answered
}

// Request is one that came to a Gate.
type Request struct {
	Method, Path, Range string
}

// Gate makes one. Like a registry, it serves what comes from the listener of the caller's choice.
func (r *Registry) Gate() *Gate {
	g := &Gate{proxy: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: r.Addr}), cut: map[string]int64{}, held: map[string]chan struct{}{}, news: make(chan struct{})}
	if d := r.opts.Dial; d != nil {
		g.proxy.Transport = &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) { return d(ctx, network, addr) }}
	}
	return g
}

// Cut lets only so many bytes of a blob's answer pass from now on; then the connection breaks. -1 lets all pass again.
func (g *Gate) Cut(digest string, bytes int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if bytes < 0 {
		delete(g.cut, digest)
		return
	}
	g.cut[digest] = bytes
}

// Hold keeps the answers with these blobs back until the function that it gives is called.
func (g *Gate) Hold(digests ...string) (release func()) {
	held := make(chan struct{})
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, d := range digests {
		g.held[d] = held
	}
	return sync.OnceFunc(func() { close(held) })
}

// UnderWay is how many blobs are being asked for now, and the most there have been at the same time.
func (g *Gate) UnderWay() (now, most int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now, g.most
}

// Await waits until a condition about what was asked is met.
func (g *Gate) Await(ctx context.Context, met func() bool) error {
	for {
		g.mu.Lock()
		news := g.news
		g.mu.Unlock()
		if met() {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tell wakes those who wait; the caller holds the lock.
func (g *Gate) tell() {
	close(g.news)
	g.news = make(chan struct{})
}

// Asked gives the requests for a blob or manifest, oldest first, and forgets none.
func (g *Gate) Asked(digest string) []Request {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []Request
	for _, r := range g.asked {
		if strings.HasSuffix(r.Path, "/"+digest) {
			out = append(out, r)
		}
	}
	return out
}

// ServeHTTP implements http.Handler.
func (g *Gate) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	_, digest, blob := strings.Cut(req.URL.Path, "/blobs/")
	blob = blob && req.Method == http.MethodGet
	g.mu.Lock()
	g.asked = append(g.asked, Request{req.Method, req.URL.Path, req.Header.Get("Range")})
	limit, cut := g.cut[digest]
	held := g.held[digest]
	if blob {
		g.now++
		g.most = max(g.most, g.now)
	}
	g.tell()
	g.mu.Unlock()
	if !blob {
		g.proxy.ServeHTTP(w, req)
		return
	}
	defer func() {
		g.mu.Lock()
		g.now--
		g.tell()
		g.mu.Unlock()
	}()
	if held != nil {
		select {
		case <-held:
		case <-req.Context().Done():
			return
		}
	}
	if cut {
		if limit == 0 {
			panic(http.ErrAbortHandler)
		}
		w = &short{ResponseWriter: w, left: limit}
	}
	g.proxy.ServeHTTP(w, req)
}

// short breaks the connection after some bytes.
type short struct {
	http.ResponseWriter
	left int64
}

// Write implements io.Writer.
func (s *short) Write(b []byte) (int, error) {
	if int64(len(b)) < s.left {
		s.left -= int64(len(b))
		return s.ResponseWriter.Write(b)
	}
	_, _ = s.ResponseWriter.Write(b[:s.left])
	_ = http.NewResponseController(s.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

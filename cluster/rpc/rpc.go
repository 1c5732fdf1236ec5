package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/containerd/errdefs"
)

// MaxBody bounds a request or response: the record snapshots of a full cluster are some megabytes.
const MaxBody = 64 << 20

// What strangers get, of whom nothing is known yet: room for one transaction's worth, and half a minute for question and
// answer, since net/http breaks the call off when its ReadTimeout ends.
const (
	strangersBody = 1 << 20
	strangersTime = 30 * time.Second
)

const pathPrefix = "/v1/"

// Server answers the calls that arrive on one listener.
type Server struct {
	mux  *http.ServeMux
	http *http.Server
	body int64 // bytes of the largest request
	done chan struct{}
}

type peerKey struct{}

// NewServer makes a server without calls. peer tells who is at the other end of a connection.
func NewServer(peer func(net.Conn) string, log *slog.Logger) *Server {
	mux := http.NewServeMux()
	return &Server{mux: mux, body: MaxBody, done: make(chan struct{}), http: &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // broken connections, nothing else
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, peer(c))
		},
	}}
}

// ForStrangers bounds what a caller can take whom the transport has not recognised. It returns s.
func (s *Server) ForStrangers() *Server {
	s.body, s.http.ReadTimeout, s.http.IdleTimeout = strangersBody, strangersTime, strangersTime
	return s
}

// Peer tells, in a call's context, which node called.
func Peer(ctx context.Context) string {
	id, _ := ctx.Value(peerKey{}).(string)
	return id
}

// Handle registers fn under a call's name, before Serve.
func Handle[Req, Resp any](s *Server, name string, fn func(context.Context, Req) (Resp, error)) {
	s.mux.HandleFunc("POST "+pathPrefix+name, func(w http.ResponseWriter, r *http.Request) {
		var req Req
		b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.body))
		if err == nil {
			err = decode(b, &req)
		}
		if err != nil {
			respond(w, http.StatusBadRequest, toError(fmt.Errorf("read request %s: %w: %w", name, err, errdefs.ErrInvalidArgument)))
			return
		}
		resp, err := fn(r.Context(), req)
		if err != nil {
			respond(w, http.StatusInternalServerError, toError(err))
			return
		}
		respond(w, http.StatusOK, resp)
	})
}

func respond(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"class":"unknown","message":"response could not be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(b)
}

func decode(b []byte, v any) error {
	if len(bytes.TrimSpace(b)) == 0 {
		return errors.New("empty body")
	}
	return json.Unmarshal(b, v)
}

// Serve answers until the listener or the server is closed.
func (s *Server) Serve(l net.Listener) {
	defer close(s.done)
	s.http.Serve(l)
}

// Close ends Serve and breaks off the calls in progress.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	if errors.Is(err, net.ErrClosed) { // its connections may have been closed under it
		return nil
	}
	return err
}

// Dialer opens a connection to a node.
type Dialer func(ctx context.Context, id string) (net.Conn, error)

// Client calls other nodes over connections that it keeps open.
type Client struct {
	http      *http.Client
	transport *http.Transport
}

// NewClient makes a client.
func NewClient(dial Dialer) *Client {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			id, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return dial(ctx, id)
		},
		MaxIdleConnsPerHost: 8,
		DisableCompression:  true,
	}
	return &Client{transport: t, http: &http.Client{Transport: t}}
}

// Close drops the idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Call calls name on node id. An error that the node answered is an *Error; one without an answer is
// errdefs.ErrUnavailable, or ctx's. idempotent calls are repeated once by the HTTP client if a connection that was kept
// open turns out to be dead.
func Call[Req, Resp any](ctx context.Context, c *Client, id, name string, req Req, idempotent bool) (resp Resp, err error) {
	b, err := json.Marshal(req)
	if err != nil {
		return resp, fmt.Errorf("call %s: %w", name, err)
	}
	hr, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+id+pathPrefix+name, bytes.NewReader(b))
	if err != nil {
		return resp, fmt.Errorf("call %s on node %s: %w", name, id, err)
	}
	hr.Header.Set("Content-Type", "application/json")
	if idempotent {
		hr.Header["X-Idempotency-Key"] = nil // net/http's word for it: present, and not sent
	}
	res, err := c.http.Do(hr)
	if err != nil {
		if ctx.Err() != nil {
			return resp, fmt.Errorf("call %s on node %s: %w", name, id, ctx.Err())
		}
		return resp, fmt.Errorf("call %s on node %s: %w: %w", name, id, err, errdefs.ErrUnavailable)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, MaxBody+1))
	switch {
	case err != nil:
		return resp, fmt.Errorf("call %s on node %s: %w: %w", name, id, err, errdefs.ErrUnavailable)
	case len(body) > MaxBody:
		return resp, fmt.Errorf("call %s on node %s: response above %d bytes: %w", name, id, MaxBody, errdefs.ErrInvalidArgument)
	case res.StatusCode != http.StatusOK:
		return resp, decodeError(body, res.StatusCode)
	}
	if err := decode(body, &resp); err != nil {
		return resp, fmt.Errorf("call %s on node %s: read response: %w", name, id, err)
	}
	return resp, nil
}

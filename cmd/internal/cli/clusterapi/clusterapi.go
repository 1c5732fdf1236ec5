// Package clusterapi calls /cluster/*, the part of the daemon's API that moby's client does not know, over the same
// connection as everything else.
package clusterapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/errdefs/pkg/errhttp"
	"github.com/moby/moby/api/types/common"
	"github.com/moby/moby/client"

	"github.com/minictl/minictl/cmd/internal/api"
)

// Dialer is the one thing we need of moby's client.
type Dialer interface {
	Dialer() func(context.Context) (net.Conn, error)
}

// Client calls the routes.
type Client struct {
	http *http.Client
	host Dialer
}

// New makes a client of the daemon that d reaches.
func New(d Dialer) *Client {
	dial := d.Dialer()
	return &Client{host: d, http: &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableKeepAlives: true, // one request an invocation
	}}}
}

// Init makes this host the first of a cluster.
func (c *Client) Init(ctx context.Context, req api.ClusterInitRequest) (out api.ClusterInitResponse, err error) {
	err = c.do(ctx, http.MethodPost, "/cluster/init", nil, req, &out)
	return out, err
}

// Join brings this host into a cluster.
func (c *Client) Join(ctx context.Context, req api.ClusterJoinRequest) (out api.ClusterJoinResponse, err error) {
	err = c.do(ctx, http.MethodPost, "/cluster/join", nil, req, &out)
	return out, err
}

// Leave takes this host out of its cluster.
func (c *Client) Leave(ctx context.Context, force bool) error {
	q := url.Values{}
	if force {
		q.Set("force", "1")
	}
	return c.do(ctx, http.MethodPost, "/cluster/leave", q, nil, nil)
}

// Token gives what another host needs to join; rotate makes the former one worthless.
func (c *Client) Token(ctx context.Context, rotate bool) (out api.ClusterToken, err error) {
	if rotate {
		err = c.do(ctx, http.MethodPost, "/cluster/token", url.Values{"rotate": {"1"}}, nil, &out)
		return out, err
	}
	err = c.do(ctx, http.MethodGet, "/cluster/token", nil, nil, &out)
	return out, err
}

// Status gives the cluster as this host sees it.
func (c *Client) Status(ctx context.Context) (out api.ClusterStatus, err error) {
	err = c.do(ctx, http.MethodGet, "/cluster/status", nil, nil, &out)
	return out, err
}

// Recover makes this host decide for the cluster, or says what that would mean.
func (c *Client) Recover(ctx context.Context, req api.ClusterRecoverRequest) (out api.ClusterRecoverResponse, err error) {
	err = c.do(ctx, http.MethodPost, "/cluster/recover", nil, req, &out)
	return out, err
}

// Rejoin gives up this side of a cluster that was taken over on both.
func (c *Client) Rejoin(ctx context.Context, req api.ClusterRejoinRequest) error {
	return c.do(ctx, http.MethodPost, "/cluster/rejoin", nil, req, nil)
}

// Find tells the host where another member is now.
func (c *Client) Find(ctx context.Context, req api.ClusterFindRequest) error {
	return c.do(ctx, http.MethodPost, "/cluster/find", nil, req, nil)
}

// Backup gives what the cluster has decided, secrets included, as it is to be given to Restore. The caller closes it.
func (c *Client) Backup(ctx context.Context) (io.ReadCloser, error) {
	return c.send(ctx, http.MethodGet, "/cluster/backup", nil, nil)
}

// Restore makes the daemon's host the one that wrote the backup.
func (c *Client) Restore(ctx context.Context, req api.ClusterRestoreRequest, backup io.Reader) (out api.ClusterRestoreResponse, err error) {
	q := url.Values{}
	for key, v := range map[string]string{"advertise-addr": req.AdvertiseAddr, "data-path-addr": req.DataPathAddr} {
		if v != "" {
			q.Set(key, v)
		}
	}
	body, err := c.send(ctx, http.MethodPost, "/cluster/restore", q, backup)
	if err != nil {
		return out, err
	}
	defer body.Close()
	return out, decode(body, "/cluster/restore", &out)
}

// RotateCA begins to replace the cluster's certificate authority, or with finish ends what was begun, without waiting.
func (c *Client) RotateCA(ctx context.Context, finish bool) error {
	q := url.Values{}
	if finish {
		q.Set("finish", "1")
	}
	return c.do(ctx, http.MethodPost, "/cluster/ca", q, nil, nil)
}

// Rotation tells how far that is.
func (c *Client) Rotation(ctx context.Context) (out api.ClusterRotation, err error) {
	err = c.do(ctx, http.MethodGet, "/cluster/ca", nil, nil, &out)
	return out, err
}

// do makes one request of JSON, and reads the answer into out unless that is nil.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode %s: %w", path, err)
		}
		body = bytes.NewReader(b)
	}
	answer, err := c.send(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer answer.Close()
	if out == nil {
		return nil
	}
	return decode(answer, path, out)
}

func decode(r io.Reader, path string, out any) error {
	if err := json.NewDecoder(r).Decode(out); err != nil {
		return fmt.Errorf("read the daemon's answer to %s: %w", path, err)
	}
	return nil
}

// send makes one request. The paths are unversioned: these routes are ours and come with the same binary.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, body io.Reader) (io.ReadCloser, error) {
	u := url.URL{Scheme: "http", Host: client.DummyHost, Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, unwrapURL(err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		defer resp.Body.Close()
		return nil, refusal(resp)
	}
	return resp.Body, nil
}

// refusal has docker's wording and the class of the status code.
func refusal(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var e common.ErrorResponse
	if json.Unmarshal(b, &e) != nil || e.Message == "" {
		e.Message = strings.TrimSpace(string(b))
	}
	if e.Message == "" {
		e.Message = resp.Status
	}
	return &daemonError{text: "Error response from daemon: " + e.Message, class: errhttp.ToNative(resp.StatusCode)}
}

// daemonError has docker's words in its text and errdefs' class beneath, as the errors of moby's client have.
type daemonError struct {
	text  string
	class error
}

func (e *daemonError) Error() string { return e.text }

// Unwrap gives the error's class, for errdefs.Is….
func (e *daemonError) Unwrap() error { return e.class }

// unwrapURL drops `Get "http://…/cluster/status":` from a failed request's text.
func unwrapURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

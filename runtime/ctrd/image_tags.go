package ctrd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	rules "github.com/minictl/minictl/runtime/image"
)

// maxTags bounds the tags of a repository that are pulled at one go.
const maxTags = 10000

// PullAll is Pull for every tag of a repository.
func (r *Runtime) PullAll(ctx context.Context, repository, platform string, auth *rules.Auth, p rules.Progress) error {
	name, err := reference.ParseNormalizedNamed(repository)
	if err != nil {
		return fmt.Errorf("pull image: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	name = reference.TrimNamed(name)
	tags, err := r.tags(ctx, name, auth)
	if err != nil {
		return pullError(name, err)
	}
	for _, t := range tags {
		tagged, err := reference.WithTag(name, t)
		if err != nil {
			return fmt.Errorf("pull %s: the registry names a tag %q: %w", reference.FamiliarName(name), t, err)
		}
		if err := r.Pull(ctx, tagged.String(), platform, auth, p); err != nil {
			return err
		}
	}
	return nil
}

// tags asks a registry for those of a repository, page by page.
func (r *Runtime) tags(ctx context.Context, name reference.Named, auth *rules.Auth) ([]string, error) {
	h, err := r.registryHost(reference.Domain(name), auth)
	if err != nil {
		return nil, err
	}
	ctx = docker.ContextWithAppendPullRepositoryScope(ctx, reference.Path(name))
	at := &url.URL{Scheme: h.Scheme, Host: h.Host, Path: h.Path + "/" + reference.Path(name) + "/tags/list"}
	var all []string
	for at != nil && len(all) < maxTags {
		page, next, err := tagsPage(ctx, h, at)
		if err != nil {
			return nil, err
		}
		if all = append(all, page...); len(page) == 0 {
			break
		}
		at = next
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no tags: %w", errdefs.ErrNotFound)
	}
	return all, nil
}

// tagsPage reads one page and where the next one is, nil after the last.
func tagsPage(ctx context.Context, h docker.RegistryHost, at *url.URL) (tags []string, next *url.URL, err error) {
	resp, err := get(ctx, h, at.String())
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, nil, errdefs.ErrNotFound
	default:
		return nil, nil, remoteerrors.NewUnexpectedStatusErr(resp)
	}
	var body struct{ Tags []string }
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxDocument)).Decode(&body); err != nil {
		return nil, nil, fmt.Errorf("read tags: %w", err)
	}
	return body.Tags, nextPage(at, resp.Header.Get("Link")), nil
}

// nextPage reads a header such as </v2/x/tags/list?last=b&n=100>; rel="next". It never leads to another host, which would
// get our credentials.
func nextPage(at *url.URL, link string) *url.URL {
	ref, rest, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	if !ok || !strings.Contains(rest, "next") {
		return nil
	}
	next, err := at.Parse(ref)
	if err != nil || next.Host != at.Host || next.Scheme != at.Scheme {
		return nil
	}
	return next
}

// get asks once more after a challenge.
func get(ctx context.Context, h docker.RegistryHost, at string) (*http.Response, error) {
	for last := false; ; last = true {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
		if err != nil {
			return nil, err
		}
		for k, v := range h.Header {
			req.Header[k] = v
		}
		if h.Authorizer != nil {
			if err := h.Authorizer.Authorize(ctx, req); err != nil {
				return nil, err
			}
		}
		resp, err := h.Client.Do(req)
		if err != nil || resp.StatusCode != http.StatusUnauthorized || last || h.Authorizer == nil {
			return resp, err
		}
		resp.Body.Close()
		if err := h.Authorizer.AddResponses(ctx, []*http.Response{resp}); err != nil {
			return nil, err
		}
	}
}

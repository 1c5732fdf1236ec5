package ctrd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	rules "github.com/minictl/minictl/runtime/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// hub is the address under which docker's clients keep the credentials of the default registry.
const hub = "https://index.docker.io/v1/"

// refused tells whether a registry said no to who asked, not to what was asked.
func refused(err error) bool {
	var status remoteerrors.ErrUnexpectedStatus
	return errors.Is(err, docker.ErrInvalidAuthorization) || errdefs.IsUnauthorized(err) ||
		errors.As(err, &status) && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden)
}

// registryAddress is the host, with its port if any, that a login is for.
func registryAddress(server string) string {
	if server == "" || server == hub || server == "docker.io" || server == "index.docker.io" {
		return "docker.io"
	}
	_, after, found := strings.Cut(server, "://")
	if !found {
		after = server
	}
	host, _, _ := strings.Cut(after, "/")
	return host
}

// Login asks a registry whether it takes these credentials. The error for no is errdefs.ErrUnauthenticated. The token,
// if the registry gave one, stands for the password from then on.
func (r *Runtime) Login(ctx context.Context, auth rules.Auth) (token string, err error) {
	host := registryAddress(auth.ServerAddress)
	h, err := r.registryHost(host, &auth)
	if err != nil {
		return "", err
	}
	if h.Authorizer == nil {
		return "", errdefs.ErrInvalidArgument.WithMessage("a registry token is no login: give a user name and a password")
	}
	// Registries that are open to reading would take any credentials here, were it not for the challenge to them.
	url := h.Scheme + "://" + h.Host + h.Path + "/"
	var seen []*http.Response
	for range 2 {
		resp, err := ask(ctx, h, url)
		if err != nil {
			return "", loginError(url, withAdvice(host, err))
		}
		seen = append(seen, resp)
		switch resp.StatusCode {
		case http.StatusOK:
			return "", nil
		case http.StatusUnauthorized:
			if len(seen) == 1 {
				if err := h.Authorizer.AddResponses(ctx, seen); err != nil {
					return "", loginError(url, err)
				}
				continue
			}
		}
		return "", loginRefused(url, resp.Status)
	}
	return "", loginRefused(url, "401 Unauthorized")
}

func loginRefused(url, status string) error {
	return errdefs.ErrUnauthenticated.WithMessage(fmt.Sprintf("login attempt to %s failed with status: %s", url, status))
}

// loginError gives a refusal its class: the token server's is one too.
func loginError(url string, err error) error {
	if refused(err) || strings.Contains(err.Error(), "401") {
		return errdefs.ErrUnauthenticated.WithMessage(fmt.Sprintf("Get %q: unauthorized: incorrect username or password", url))
	}
	return fmt.Errorf("log in: %w", err)
}

// ask does one request and reads nothing of its answer but the status.
func ask(ctx context.Context, h docker.RegistryHost, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if err := h.Authorizer.Authorize(ctx, req); err != nil {
		return nil, err
	}
	resp, err := h.Client.Do(req)
	if err != nil {
		return nil, err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 4096))
	return resp, resp.Body.Close()
}

// Distribution asks a registry what a name means there, without taking anything here.
func (r *Runtime) Distribution(ctx context.Context, ref string, auth *rules.Auth) (ocispec.Descriptor, []ocispec.Platform, error) {
	name, err := rules.ParseName(ref)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	resolver := r.resolver(name, auth)
	resolved, root, err := resolver.Resolve(ctx, name.String())
	if err != nil {
		return root, nil, distributionError(name, err)
	}
	f, err := resolver.Fetcher(ctx, resolved)
	if err != nil {
		return root, nil, distributionError(name, err)
	}
	found, err := platformsOf(ctx, f, root)
	if err != nil {
		return root, nil, distributionError(name, err)
	}
	return ocispec.Descriptor{MediaType: root.MediaType, Digest: root.Digest, Size: root.Size}, found, nil
}

func distributionError(name reference.Named, err error) error {
	if refused(err) {
		return errdefs.ErrUnauthenticated.WithMessage("denied: requested access to the resource is denied")
	}
	return pullError(name, err)
}

// platformsOf reads them of an index, or of the one image's configuration.
func platformsOf(ctx context.Context, f remotes.Fetcher, root ocispec.Descriptor) ([]ocispec.Platform, error) {
	out := []ocispec.Platform{}
	if images.IsIndexType(root.MediaType) {
		var idx ocispec.Index
		if err := fetchJSON(ctx, f, root, &idx); err != nil {
			return nil, err
		}
		for _, m := range idx.Manifests {
			if m.Platform != nil && !isAttestation(m) {
				out = append(out, *m.Platform)
			}
		}
		return out, nil
	}
	var m ocispec.Manifest
	if err := fetchJSON(ctx, f, root, &m); err != nil {
		return nil, err
	}
	var c ocispec.Image
	if err := fetchJSON(ctx, f, m.Config, &c); err != nil {
		return nil, err
	}
	if c.OS != "" {
		out = append(out, c.Platform)
	}
	return out, nil
}

// maxDocument bounds a manifest, an index or a configuration, in bytes; registries take no manifest above 4 MB.
const maxDocument = 8 << 20

// fetchJSON reads a blob that is checked against its digest.
func fetchJSON(ctx context.Context, f remotes.Fetcher, d ocispec.Descriptor, v any) error {
	rc, err := f.Fetch(ctx, d)
	if err != nil {
		return err
	}
	defer rc.Close()
	b, err := io.ReadAll(io.LimitReader(rc, maxDocument))
	if err != nil {
		return err
	}
	if d.Digest.Algorithm().FromBytes(b) != d.Digest {
		return fmt.Errorf("%s: the registry sent something else", d.Digest)
	}
	return json.Unmarshal(b, v)
}

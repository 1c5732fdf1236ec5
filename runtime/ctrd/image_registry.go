package ctrd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	rules "github.com/minictl/minictl/runtime/image"
)

// certsDirs hold a folder per registry (host or host:port) with *.crt files of further authorities, docker's convention.
var certsDirs = []string{"/etc/minictl/certs.d", "/etc/docker/certs.d"}

// resolver speaks to the registry of one image.
func (r *Runtime) resolver(name reference.Named, auth *rules.Auth) remotes.Resolver {
	header := http.Header{"User-Agent": []string{"minictl"}}
	return docker.NewResolver(docker.ResolverOptions{
		Headers: header,
		Hosts:   func(host string) ([]docker.RegistryHost, error) { return registryHosts(host, header, auth) },
	})
}

// registryHosts says how a registry is reached. On loopback that is TLS with any certificate or else plain HTTP, as
// docker has it; anywhere else TLS with a certificate we trust.
func registryHosts(host string, header http.Header, auth *rules.Auth) ([]docker.RegistryHost, error) {
	local, err := docker.MatchLocalhost(host)
	if err != nil {
		return nil, fmt.Errorf("registry %q: %w: %w", host, err, errdefs.ErrInvalidArgument)
	}
	conf := &tls.Config{InsecureSkipVerify: local}
	if !local {
		if conf.RootCAs, err = authorities(certsDirs, host); err != nil {
			return nil, err
		}
	}
	var transport http.RoundTripper = docker.DefaultHTTPTransport(conf)
	if local {
		transport = docker.NewHTTPFallback(transport)
	}
	client := &http.Client{Transport: transport}
	h := docker.RegistryHost{
		Client: client, Host: host, Scheme: "https", Path: "/v2",
		Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve | docker.HostCapabilityPush,
		Authorizer:   docker.NewDockerAuthorizer(docker.WithAuthClient(client), docker.WithAuthHeader(header), docker.WithAuthCreds(credentials(auth))),
	}
	if host == "docker.io" {
		h.Host = "registry-1.docker.io"
	}
	if auth != nil && auth.RegistryToken != "" {
		h.Authorizer = nil
		h.Header = http.Header{"Authorization": []string{"Bearer " + auth.RegistryToken}}
	}
	return []docker.RegistryHost{h}, nil
}

// credentials answers a registry's challenge; an empty user name marks an OAuth refresh token.
func credentials(auth *rules.Auth) func(string) (string, string, error) {
	return func(string) (string, string, error) {
		switch {
		case auth == nil:
			return "", "", nil
		case auth.IdentityToken != "":
			return "", auth.IdentityToken, nil
		}
		return auth.Username, auth.Password, nil
	}
}

// authorities are the system's plus those an operator laid down for this registry; nil means the system's alone.
func authorities(dirs []string, host string) (*x509.CertPool, error) {
	var files []string
	for _, dir := range dirs {
		found, err := filepath.Glob(filepath.Join(dir, host, "*.crt"))
		if err != nil {
			return nil, fmt.Errorf("registry %q: %w", host, err)
		}
		files = append(files, found...)
	}
	if len(files) == 0 {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, f := range files {
		pem, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("read registry's certificate: %w", err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read registry's certificate: %s holds none in PEM: %w", f, errdefs.ErrInvalidArgument)
		}
	}
	return pool, nil
}

// pullError turns a registry's refusal into docker's words; the class decides the HTTP status.
func pullError(name reference.Named, err error) error {
	familiar := reference.FamiliarString(name)
	var status remoteerrors.ErrUnexpectedStatus
	switch {
	case errors.Is(err, docker.ErrInvalidAuthorization) && strings.Contains(err.Error(), "no basic auth credentials"):
		// Without a class, as docker answers it: on a 401 its CLI would ask for a login in the middle of a script.
		return fmt.Errorf("pull %s: no basic auth credentials", familiar)
	case errors.As(err, &status) && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden),
		errors.Is(err, docker.ErrInvalidAuthorization), errdefs.IsUnauthorized(err):
		return denied(name)
	case errdefs.IsNotFound(err) && strings.Contains(err.Error(), "matching manifest"),
		errdefs.IsNotFound(err) && strings.Contains(err.Error(), "does not match the specified platform"):
		return err
	case errdefs.IsNotFound(err):
		return manifestUnknown(familiar)
	}
	return fmt.Errorf("pull %s: %w", familiar, err)
}

func manifestUnknown(familiar string) error {
	return fmt.Errorf("manifest for %s not found: manifest unknown: manifest unknown: %w", familiar, errdefs.ErrNotFound)
}

// denied is what a registry says of a repository that is private and of one that does not exist alike.
func denied(name reference.Named) error {
	return fmt.Errorf("pull access denied for %s, repository does not exist or may require 'docker login': denied: requested access to the resource is denied: %w",
		reference.FamiliarName(name), errdefs.ErrNotFound)
}

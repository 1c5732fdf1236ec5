package ctrd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	rules "github.com/minictl/minictl/runtime/image"
)

// certsDirs hold a folder per registry (host or host:port) with docker's conventions: *.crt are further authorities, X.cert
// with X.key is this host's own certificate.
var certsDirs = []string{"/etc/minictl/certs.d", "/etc/docker/certs.d"}

// resolver speaks to the registry of one image.
func (r *Runtime) resolver(name reference.Named, auth *rules.Auth) remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{
		Headers: userAgent(),
		Hosts: func(host string) ([]docker.RegistryHost, error) {
			h, err := r.registryHost(host, auth)
			if err != nil {
				return nil, err
			}
			all, err := r.mirrors(host)
			return append(all, h), err
		},
	})
}

func userAgent() http.Header { return http.Header{"User-Agent": []string{"minictl"}} }

// mirrors are asked before a registry is; only docker.io has some. They get no credentials: those are docker.io's.
func (r *Runtime) mirrors(host string) ([]docker.RegistryHost, error) {
	if host != "docker.io" {
		return nil, nil
	}
	var out []docker.RegistryHost
	for _, m := range r.cfg.Registries.Mirrors {
		u, err := rules.Mirror(m)
		if err != nil {
			return nil, err
		}
		h, err := r.registryHost(u.Host, nil)
		if err != nil {
			return nil, err
		}
		h.Scheme, h.Path = u.Scheme, path.Join("/", u.Path, "v2")
		h.Capabilities = docker.HostCapabilityPull | docker.HostCapabilityResolve
		out = append(out, h)
	}
	return out, nil
}

// insecure tells whether a registry's certificate is not looked at: on loopback, as docker has it, and where the operator
// said so.
func (r *Runtime) insecure(host string) (bool, error) {
	local, err := docker.MatchLocalhost(host)
	if err != nil {
		return false, fmt.Errorf("registry %q: %w: %w", host, err, errdefs.ErrInvalidArgument)
	}
	return local || r.cfg.Registries.IsInsecure(host, lookup), nil
}

// lookup gives a registry's addresses; none when its name is not known, which the request itself will say.
func lookup(name string) []netip.Addr {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return nil
	}
	return found
}

// registryHost says how a registry is reached: by TLS with a certificate we trust; an insecure one by TLS with any
// certificate or else by plain HTTP.
func (r *Runtime) registryHost(host string, auth *rules.Auth) (docker.RegistryHost, error) {
	insecure, err := r.insecure(host)
	if err != nil {
		return docker.RegistryHost{}, err
	}
	conf, err := registryTLS(certsDirs, host)
	if err != nil {
		return docker.RegistryHost{}, err
	}
	conf.InsecureSkipVerify = insecure
	var transport http.RoundTripper = docker.DefaultHTTPTransport(conf)
	if insecure {
		transport = docker.NewHTTPFallback(transport)
	}
	client := &http.Client{Transport: transport}
	h := docker.RegistryHost{
		Client: client, Host: host, Scheme: "https", Path: "/v2",
		Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve | docker.HostCapabilityPush,
		Authorizer:   docker.NewDockerAuthorizer(docker.WithAuthClient(client), docker.WithAuthHeader(userAgent()), docker.WithAuthCreds(credentials(auth))),
	}
	if host == "docker.io" {
		h.Host = "registry-1.docker.io"
	}
	if auth != nil && auth.RegistryToken != "" {
		h.Authorizer = nil
		h.Header = http.Header{"Authorization": []string{"Bearer " + auth.RegistryToken}}
	}
	return h, nil
}

// registryTLS is what an operator laid down for a registry.
func registryTLS(dirs []string, host string) (*tls.Config, error) {
	pool, err := authorities(dirs, host)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{RootCAs: pool}
	for _, dir := range dirs {
		found, err := filepath.Glob(filepath.Join(dir, host, "*.cert"))
		if err != nil {
			return nil, fmt.Errorf("registry %q: %w", host, err)
		}
		for _, file := range found {
			key := strings.TrimSuffix(file, ".cert") + ".key"
			own, err := tls.LoadX509KeyPair(file, key)
			if errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("missing key %s for client certificate %s. CA certificates must use the extension .crt: %w", key, file, errdefs.ErrInvalidArgument)
			}
			if err != nil {
				return nil, fmt.Errorf("read client certificate %s: %w: %w", file, err, errdefs.ErrInvalidArgument)
			}
			conf.Certificates = append(conf.Certificates, own)
		}
	}
	return conf, nil
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
	switch {
	case errors.Is(err, docker.ErrInvalidAuthorization) && strings.Contains(err.Error(), "no basic auth credentials"):
		// Without a class, as docker answers it: on a 401 its CLI would ask for a login in the middle of a script.
		return fmt.Errorf("pull %s: no basic auth credentials", familiar)
	case refused(err):
		return denied(name)
	case errdefs.IsNotFound(err) && strings.Contains(err.Error(), "matching manifest"),
		errdefs.IsNotFound(err) && strings.Contains(err.Error(), "does not match the specified platform"):
		return err
	case errdefs.IsNotFound(err):
		return manifestUnknown(familiar)
	}
	return fmt.Errorf("pull %s: %w", familiar, withAdvice(reference.Domain(name), err))
}

// withAdvice says what to do about a registry that is not reached for want of trust.
func withAdvice(host string, err error) error {
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: put its authority's certificate into /etc/minictl/certs.d/%s/ca.crt, or start the daemon with --insecure-registry %s", err, host, host)
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fmt.Errorf("%w: the registry has no TLS: start the daemon with --insecure-registry %s to use it all the same", err, host)
	}
	return err
}

func manifestUnknown(familiar string) error {
	return fmt.Errorf("manifest for %s not found: manifest unknown: manifest unknown: %w", familiar, errdefs.ErrNotFound)
}

// denied is what a registry says of a repository that is private and of one that does not exist alike.
func denied(name reference.Named) error {
	return fmt.Errorf("pull access denied for %s, repository does not exist or may require 'docker login': denied: requested access to the resource is denied: %w",
		reference.FamiliarName(name), errdefs.ErrNotFound)
}

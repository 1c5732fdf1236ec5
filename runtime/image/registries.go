package image

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Registries say which registries are reached otherwise than by TLS with a certificate this host trusts.
type Registries struct {
	// Insecure are registries (host or host:port) and networks (CIDR) of registries whose certificate is not checked, and
	// to which plain HTTP is spoken where they have no TLS. Loopback always is.
	Insecure []string
	// Mirrors are URLs, such as https://mirror.example, that are asked for docker.io's images before docker.io is.
	Mirrors []string
}

// Check refuses entries that mean nothing; the class is errdefs.ErrInvalidArgument.
func (r Registries) Check() error {
	for _, e := range r.Insecure {
		if _, err := netip.ParsePrefix(e); err == nil {
			continue
		}
		if strings.Contains(e, "://") {
			return fmt.Errorf("insecure registry %s should not contain '://': give host or host:port: %w", e, errdefs.ErrInvalidArgument)
		}
		if e == "" || strings.HasPrefix(e, "-") || strings.ContainsAny(e, "/?#@ \t\n") {
			return fmt.Errorf("insecure registry %q: want host, host:port or a network such as 10.0.0.0/8: %w", e, errdefs.ErrInvalidArgument)
		}
	}
	for _, m := range r.Mirrors {
		if _, err := Mirror(m); err != nil {
			return err
		}
	}
	return nil
}

// Mirror reads one of Mirrors.
func Mirror(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("invalid mirror: %q is not a valid URI: %w", text, errdefs.ErrInvalidArgument)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return nil, fmt.Errorf("invalid mirror: %q: want http://host[:port] or https://host[:port]: %w", text, errdefs.ErrInvalidArgument)
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return nil, fmt.Errorf("invalid mirror: %q: query, fragment, or user name in the URI: %w", u.Redacted(), errdefs.ErrInvalidArgument)
	}
	return u, nil
}

// IsInsecure tells whether a registry, host or host:port, is in the list, by its name or by one of its addresses. lookup
// finds those of a name, and is asked only when the list holds networks.
func (r Registries) IsInsecure(host string, lookup func(name string) []netip.Addr) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.Trim(host, "[]")
	}
	if slices.Contains(r.Insecure, host) {
		return true
	}
	var addrs []netip.Addr
	asked := false
	for _, e := range r.Insecure {
		network, err := netip.ParsePrefix(e)
		if err != nil {
			continue
		}
		if a, err := netip.ParseAddr(name); err == nil {
			addrs, asked = []netip.Addr{a}, true
		}
		if !asked {
			addrs, asked = lookup(name), true
		}
		if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return network.Contains(a.Unmap()) }) {
			return true
		}
	}
	return false
}

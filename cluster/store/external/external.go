// Package external opens the store that an address such as
// etcd://192.168.1.20:2379/minictl names.
package external

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store/consul"
	"github.com/minictl/minictl/cluster/store/etcd"
	"github.com/minictl/minictl/cluster/store/journal"
	"github.com/minictl/minictl/cluster/store/zk"
)

// Schemes of addresses.
const (
	Etcd   = "etcd"
	Consul = "consul"
	ZK     = "zk"
)

// defaultPrefix is where the keys are if the address has no path.
const defaultPrefix = "minictl"

// Spec is an address, checked.
type Spec struct {
	Scheme string
	journal.Address
}

// Remote is a connection to the store, with its end.
type Remote interface {
	journal.Remote
	Close() error
}

// Parse reads SCHEME://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]]...[/PATH] and
// options of dockerd's names: kv.cacertfile, kv.certfile, kv.keyfile (PEM
// files; any of them means TLS) and kv.path, another way to say PATH.
func Parse(address string, options map[string]string) (Spec, error) {
	scheme, rest, ok := strings.Cut(address, "://")
	port := map[string]string{Etcd: "2379", Consul: "8500", ZK: "2181"}[scheme]
	if !ok || port == "" {
		return Spec{}, invalid("%q: want etcd://HOST:PORT[/PATH], consul:// or zk://", redact(address))
	}
	s := Spec{Scheme: scheme}
	authority, path, _ := strings.Cut(rest, "/")
	if i := strings.LastIndex(authority, "@"); i >= 0 {
		var err error
		if s.User, s.Password, err = userOf(authority[:i]); err != nil {
			return Spec{}, err
		}
		authority = authority[i+1:]
	}
	for host := range strings.SplitSeq(authority, ",") {
		host, err := hostPort(host, port)
		if err != nil {
			return Spec{}, err
		}
		s.Hosts = append(s.Hosts, host)
	}
	if err := s.setPrefix(path, options["kv.path"]); err != nil {
		return Spec{}, err
	}
	return s, s.setTLS(options)
}

func invalid(format string, a ...any) error {
	return fmt.Errorf("cluster store "+format+": %w", append(a, errdefs.ErrInvalidArgument)...)
}

// redact hides a password in an address that could not be read.
func redact(address string) string {
	if i := strings.LastIndex(address, "@"); i >= 0 {
		return "...@" + address[i+1:]
	}
	return address
}

func userOf(info string) (user, password string, err error) {
	u, p, _ := strings.Cut(info, ":")
	user, err = url.PathUnescape(u)
	if err == nil {
		password, err = url.PathUnescape(p)
	}
	if err != nil || user == "" {
		return "", "", invalid("address: what stands before the @ is not USER:PASSWORD; write %%40 for an @ and the like")
	}
	return user, password, nil
}

func hostPort(s, port string) (string, error) {
	host, given, err := net.SplitHostPort(s)
	if err != nil {
		host, given = strings.Trim(s, "[]"), port
	}
	if n, err := strconv.ParseUint(given, 10, 16); err != nil || n == 0 || host == "" || strings.ContainsAny(host, "/@ \t\n[]") ||
		strings.Contains(host, ":") && net.ParseIP(host) == nil {
		return "", invalid("address: %q is not HOST:PORT", s)
	}
	return net.JoinHostPort(host, given), nil
}

func (s *Spec) setPrefix(path, option string) error {
	path, option = strings.Trim(path, "/"), strings.Trim(option, "/")
	if path != "" && option != "" && path != option {
		return invalid("address has the path %s, and kv.path is %s: leave one out", path, option)
	}
	s.Prefix = cmp.Or(path, option, defaultPrefix)
	for name := range strings.SplitSeq(s.Prefix, "/") {
		plain := !strings.ContainsFunc(name, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r))
		})
		if name == "" || name == "." || name == ".." || !plain {
			return invalid("path %q: want names of letters, digits, - _ . between slashes", s.Prefix)
		}
	}
	return nil
}

func (s *Spec) setTLS(options map[string]string) error {
	ca, cert, key := options["kv.cacertfile"], options["kv.certfile"], options["kv.keyfile"]
	for name := range options {
		if !slices.Contains([]string{"kv.cacertfile", "kv.certfile", "kv.keyfile", "kv.path"}, name) {
			return invalid("option %s is not supported: there are kv.cacertfile, kv.certfile, kv.keyfile and kv.path", name)
		}
	}
	if (cert == "") != (key == "") {
		return invalid("options kv.certfile and kv.keyfile go together")
	}
	if ca == "" && cert == "" {
		return nil
	}
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return fmt.Errorf("cluster store option kv.cacertfile: %w", err)
		}
		s.TLS.RootCAs = x509.NewCertPool()
		if !s.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return invalid("option kv.cacertfile: no certificate in %s", ca)
		}
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return fmt.Errorf("cluster store options kv.certfile, kv.keyfile: %w", err)
		}
		s.TLS.Certificates = []tls.Certificate{pair}
	}
	return nil
}

// String is the address as people may see it: without user and password.
func (s Spec) String() string {
	return s.Scheme + "://" + strings.Join(s.Hosts, ",") + "/" + s.Prefix
}

// Dial makes a connection; it does not wait for an answer.
func (s Spec) Dial() (Remote, error) {
	switch s.Scheme {
	case Etcd:
		return etcd.New(s.Address), nil
	case Consul:
		return consul.New(s.Address)
	case ZK:
		return zk.New(s.Address), nil
	}
	return nil, errors.New("no such store: " + s.Scheme)
}

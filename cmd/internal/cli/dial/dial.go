// Package dial finds the daemon that a command line means and how it is reached: by flags, environment or one of
// docker's contexts, over a socket, TCP, TLS or ssh.
package dial

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	clicontext "github.com/docker/cli/cli/context"
	"github.com/docker/cli/cli/context/docker"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"
)

// DefaultHost is where the daemon listens when nothing says otherwise.
const DefaultHost = "unix:///run/minictl/minictl.sock"

// Environment variables. DOCKER_HOST and DOCKER_CONTEXT are not read: on a machine that has docker as well they mean the
// other engine. Docker's DOCKER_TLS_VERIFY and DOCKER_CERT_PATH are, for they only say how, never whom.
const (
	HostEnv    = "MINICTL_HOST"
	ContextEnv = "MINICTL_CONTEXT"
)

// Options are the flags that say where the daemon is.
type Options struct {
	Host, Context string
	ConfigDir     string // docker's configuration folder
	tls, verify   bool
	ca, cert, key string
	flags         *pflag.FlagSet
}

// AddFlags binds the options to flags, named as docker's.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	o.flags = fs
	certs := cmp.Or(os.Getenv(client.EnvOverrideCertPath), config.Dir())
	fs.StringVarP(&o.Host, "host", "H", o.Host, "Daemon socket to connect to: unix://, tcp:// or ssh:// (env "+HostEnv+")")
	fs.StringVarP(&o.Context, "context", "c", "",
		"Name of the context to use to connect to the daemon (overrides "+HostEnv+` and "minictl context use")`)
	fs.StringVar(&o.ConfigDir, "config", config.Dir(), "Location of docker's client config files")
	fs.BoolVar(&o.tls, "tls", false, "Use TLS; implied by --tlsverify")
	fs.BoolVar(&o.verify, "tlsverify", os.Getenv(client.EnvTLSVerify) != "", "Use TLS and verify the remote")
	fs.StringVar(&o.ca, "tlscacert", filepath.Join(certs, "ca.pem"), "Trust certs signed only by this CA")
	fs.StringVar(&o.cert, "tlscert", filepath.Join(certs, "cert.pem"), "Path to TLS certificate file")
	fs.StringVar(&o.key, "tlskey", filepath.Join(certs, "key.pem"), "Path to TLS key file")
}

// Target is a daemon and the way to it.
type Target struct {
	Host string       // as the user gave it, for messages
	Opts []client.Opt // for the client
}

// Resolve finds the daemon. The first of these that is given decides: --host, --context, MINICTL_HOST, MINICTL_CONTEXT,
// the context chosen by "minictl context use", and last this machine's own socket.
func (o *Options) Resolve(cfg *configfile.ConfigFile) (Target, error) {
	if o.Host != "" && o.Context != "" {
		return Target{}, errors.New("conflicting options: cannot specify both --host and --context")
	}
	if name := o.ContextName(cfg); name != DefaultContext {
		return fromContext(name)
	}
	return o.direct(o.DefaultHost())
}

// DefaultHost is where the default context leads.
func (o *Options) DefaultHost() string { return cmp.Or(o.Host, os.Getenv(HostEnv), DefaultHost) }

// direct leads to an address that was given without a context. TLS that only the environment wishes for is not for a
// socket of this machine or ssh.
func (o *Options) direct(host string) (Target, error) {
	ep := docker.Endpoint{EndpointMeta: docker.EndpointMeta{Host: host}}
	isTCP := strings.HasPrefix(host, "tcp://")
	if !isTCP && (o.changed("tls") || o.changed("tlsverify")) {
		return Target{}, fmt.Errorf("host %q: TLS is for tcp:// hosts only: leave --tls and --tlsverify out", host)
	}
	if isTCP && o.wantsTLS() {
		data, err := o.tlsData()
		if err != nil {
			return Target{}, err
		}
		ep.TLSData, ep.SkipTLSVerify = data, !o.verify
	}
	return to(ep)
}

// wantsTLS is docker's rule: --tlsverify in any form asks for TLS, --tlsverify=false for TLS without verification.
func (o *Options) wantsTLS() bool { return o.tls || o.verify || o.changed("tlsverify") }

func (o *Options) changed(flag string) bool { return o.flags != nil && o.flags.Changed(flag) }

// tlsData reads the three files. One in its default place may be missing, except for the CA when it is to verify with.
func (o *Options) tlsData() (*clicontext.TLSData, error) {
	given := func(flag, path string) string {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) && !o.changed(flag) {
			return ""
		}
		return path
	}
	ca := given("tlscacert", o.ca)
	if ca == "" && o.verify {
		return nil, fmt.Errorf("there is no CA to verify the daemon with at %s: name one with --tlscacert", o.ca)
	}
	return clicontext.TLSDataFromFiles(ca, given("tlscert", o.cert), given("tlskey", o.key))
}

// to makes the client's options for an endpoint.
func to(ep docker.Endpoint) (Target, error) {
	t := Target{Host: ep.Host}
	u, err := url.Parse(ep.Host)
	if err != nil {
		return t, badHost(ep.Host, err)
	}
	if u.Scheme == "ssh" {
		dialer, err := sshDialer(u)
		if err != nil {
			return t, badHost(ep.Host, err)
		}
		t.Opts = []client.Opt{
			client.WithHTTPClient(&http.Client{Transport: &http.Transport{DialContext: dialer}}),
			client.WithHost("http://minictl.invalid"), client.WithDialContext(dialer),
		}
		return t, nil
	}
	if t.Opts, err = ep.ClientOpts(); err != nil {
		return t, badHost(ep.Host, err)
	}
	if _, err := client.New(t.Opts...); err != nil {
		return t, badHost(ep.Host, err)
	}
	return t, nil
}

func badHost(host string, err error) error {
	return fmt.Errorf("host %q: %w: want unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST", host, err)
}

package config

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/docker/go-connections/tlsconfig"
	"github.com/spf13/pflag"
)

// TLS says how tcp:// hosts are secured.
type TLS struct {
	On, Verify    bool
	CA, Cert, Key string // files
	// What was said, on the command line or in the file: an explicit no is a decision, silence is not.
	onSaid, verifySaid bool
}

func (t *TLS) flags(f *pflag.FlagSet) {
	f.BoolVar(&t.On, "tls", false, "use TLS on tcp:// hosts; implied by --tlsverify")
	f.BoolVar(&t.Verify, "tlsverify", false, "use TLS on tcp:// hosts and let in only clients with a certificate of --tlscacert's")
	f.StringVar(&t.CA, "tlscacert", filepath.Join(Folder, "ca.pem"), "trust certificates signed only by this CA")
	f.StringVar(&t.Cert, "tlscert", filepath.Join(Folder, "cert.pem"), "path to TLS certificate file")
	f.StringVar(&t.Key, "tlskey", filepath.Join(Folder, "key.pem"), "path to TLS key file")
}

func (t *TLS) given(f *pflag.FlagSet) { t.onSaid, t.verifySaid = said(f, "tls"), said(f, "tlsverify") }

// used is dockerd's rule: --tlsverify in any form asks for TLS.
func (t TLS) used() bool { return t.On || t.Verify || t.verifySaid }

// Server is the settings for tcp:// hosts; nil is plain text.
func (t TLS) Server() (*tls.Config, error) {
	if !t.used() {
		return nil, nil
	}
	o := tlsconfig.Options{CertFile: t.Cert, KeyFile: t.Key}
	if t.Verify {
		o.CAFile, o.ClientAuth, o.ExclusiveRootPools = t.CA, tls.RequireAndVerifyClientCert, true
	}
	c, err := tlsconfig.Server(o)
	if err != nil {
		return nil, fmt.Errorf("TLS for tcp:// hosts: %w", err)
	}
	return c, nil
}

// Ports of tcp:// hosts that name none: docker's.
const (
	plainPort = "2375"
	tlsPort   = "2376"
)

// Host is one place where the API is served.
type Host struct {
	Proto string // unix, tcp, or fd: sockets that systemd opened
	Addr  string // path, host:port, or the sockets' name; empty is all of them
}

// String is the URL.
func (h Host) String() string { return h.Proto + "://" + h.Addr }

// Listeners are the hosts, parsed. complete has checked them.
func (c Config) Listeners() ([]Host, error) {
	var out []Host
	for _, text := range c.Hosts {
		h, err := parseHost(text, c.TLS.used())
		if err != nil {
			return nil, fmt.Errorf("--host %q: %w", text, err)
		}
		out = append(out, h)
	}
	return out, nil
}

func parseHost(text string, secured bool) (Host, error) {
	proto, addr, ok := strings.Cut(text, "://")
	h := Host{proto, addr}
	switch {
	case ok && proto == "unix":
		if !filepath.IsAbs(addr) {
			return h, errors.New("want an absolute path: unix:///PATH")
		}
		return h, nil
	case ok && proto == "fd":
		return h, nil
	case ok && proto == "tcp":
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			host, port = strings.Trim(addr, "[]"), ""
		}
		if strings.ContainsAny(host, "/?#@") || host == "" && addr == "" {
			return h, errors.New("want tcp://ADDRESS:PORT, for example tcp://0.0.0.0:2376")
		}
		standard := plainPort
		if secured {
			standard = tlsPort
		}
		h.Addr = net.JoinHostPort(host, cmp.Or(port, standard))
		return h, nil
	}
	return h, errors.New("want unix:///PATH, tcp://ADDRESS:PORT or fd://")
}

// checkHosts refuses what would hand this host to the network: whoever reaches the API is root here.
func (c *Config) checkHosts() error {
	hosts, err := c.Listeners()
	if err != nil {
		return err
	}
	for _, h := range hosts {
		if h.Proto != "tcp" {
			continue
		}
		if err := c.TLS.Protects(h.Addr); err != nil {
			return fmt.Errorf("--host %s: %w", h, err)
		}
	}
	return nil
}

// Protects refuses an address that others can reach, unless clients have to show a certificate or the user has said
// that they need not.
func (t TLS) Protects(addr string) error {
	host, _, _ := net.SplitHostPort(addr)
	if a, err := netip.ParseAddr(host); host == "localhost" || err == nil && a.IsLoopback() {
		return nil
	}
	switch {
	case t.Verify, t.verifySaid, t.onSaid && !t.On:
		return nil
	case t.On:
		return errors.New("whoever reaches it is root on this host: add --tlsverify, or say --tlsverify=false if that is meant")
	}
	return errors.New("whoever reaches it is root on this host: add --tlsverify with --tlscacert, --tlscert and --tlskey; " +
		"bind it to 127.0.0.1 and come in by ssh (minictl -H ssh://USER@HOST needs no --host here at all); or say --tls=false if that is meant")
}

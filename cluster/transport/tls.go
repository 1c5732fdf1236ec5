package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/identity"
)

// ErrForeign says that a host presented another cluster's authority than the token names.
var ErrForeign = errors.New("another cluster")

// serverConfig asks for a client certificate unless the caller offers nothing but joining. Each handshake gets a
// configuration with one protocol only, so that the decision about the certificate and the protocol negotiated cannot
// differ.
func (t *Transport) serverConfig() *tls.Config {
	cred := t.cred.Load()
	base := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{cred.Cert},
		SessionTicketsDisabled: true, // connections last; a resumed session would skip the look at the certificate
		Time:                   t.cfg.Now,
	}
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		for _, name := range hello.SupportedProtos {
			p := Protocol(name)
			if _, known := t.listeners[p]; !known {
				continue
			}
			c := base.Clone()
			c.GetConfigForClient = nil
			c.NextProtos = []string{name}
			switch p {
			case Join:
			case Renew:
				c.ClientAuth = tls.RequireAnyClientCert // its key is all that counts
			default:
				c.ClientAuth = tls.RequireAndVerifyClientCert
				c.ClientCAs = pool(cred)
				c.VerifyConnection = func(s tls.ConnectionState) error {
					return checkKey(s, s.PeerCertificates[0].Subject.CommonName)
				}
			}
			return c, nil
		}
		if len(hello.SupportedProtos) == 0 {
			return nil, errors.New("no protocol named")
		}
		c := base.Clone()
		c.GetConfigForClient = nil
		c.NextProtos = []string{string(RPC)} // none of the caller's: it gets the alert that says so
		return c, nil
	}
	return base
}

func (t *Transport) clientConfig(id string, p Protocol) *tls.Config {
	cred := t.cred.Load()
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cred.Cert},
		RootCAs:      pool(cred),
		ServerName:   id,
		NextProtos:   []string{string(p)},
		Time:         t.cfg.Now,
		// The ID is a hash of the key, so the key proves it even where no authority is agreed upon.
		InsecureSkipVerify: p == Renew,
		VerifyConnection:   func(s tls.ConnectionState) error { return checkKey(s, id) },
	}
}

// pool holds the authorities that count: two while one replaces the other.
func pool(cred *identity.Credentials) *x509.CertPool {
	p := x509.NewCertPool()
	for _, root := range cred.Roots {
		p.AddCert(root)
	}
	return p
}

// checkKey wants the other end's key to be that of node id. A certificate that says so is not enough: every member, also
// one that was removed, has had the authority's key.
func checkKey(s tls.ConnectionState, id string) error {
	got, err := identity.IDOf(s.PeerCertificates[0].PublicKey)
	if err != nil {
		return err
	}
	if got != id {
		return fmt.Errorf("the key is that of node %s, not of node %s: %w", got, id, errdefs.ErrPermissionDenied)
	}
	return nil
}

// otherRelease puts a refused protocol (RFC 7301, alert 120) into words.
func otherRelease(p Protocol, err error) error {
	if !strings.Contains(err.Error(), "no application protocol") {
		return err
	}
	return fmt.Errorf("it does not speak %s, so it is of another release: upgrade minictl on the older of the two hosts: %w: %w", p, err, errdefs.ErrNotImplemented)
}

// DialJoin connects a host that is no member to the member at addr. The connection is good only if that member's
// authority has the given digest (see identity.Token), and its certificate is good now; ErrForeign if it has another.
func DialJoin(ctx context.Context, w Wire, addr string, digest [32]byte, now time.Time) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := w.Dial(ctx, netip.Addr{}, addr)
	if err != nil { // which names the address
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrUnavailable)
	}
	tc := tls.Client(conn, &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{string(Join)},
		// The usual verification needs a root and a name, and there is only a digest to go by: VerifyConnection does it.
		InsecureSkipVerify: true,
		VerifyConnection:   func(cs tls.ConnectionState) error { return verifyDigest(cs.PeerCertificates, digest, now) },
	})
	if err := tc.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("dial %s: %w: %w", addr, otherRelease(Join, err), errdefs.ErrUnavailable)
	}
	return tc, nil
}

// verifyDigest wants a leaf signed by the authority with that digest, and the authority in the chain.
func verifyDigest(chain []*x509.Certificate, digest [32]byte, now time.Time) error {
	if len(chain) < 2 {
		return fmt.Errorf("it shows no authority: %w", ErrForeign)
	}
	i := slices.IndexFunc(chain[1:], func(c *x509.Certificate) bool { return identity.Digest(c) == digest })
	if i < 0 {
		return ErrForeign
	}
	pool := x509.NewCertPool()
	pool.AddCert(chain[1+i])
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now}); err != nil {
		return fmt.Errorf("its certificate is not good: %w", err)
	}
	return nil
}

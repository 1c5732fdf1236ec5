package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"
)

const (
	caLifetime   = 10 * 365 * 24 * time.Hour
	certLifetime = 90 * 24 * time.Hour
	renewBefore  = 30 * 24 * time.Hour
	// A host's clock may be behind the signer's: by a day, if somebody set it by hand and mistook the date.
	backdate = 25 * time.Hour
)

// Authority signs the cluster's node certificates.
type Authority struct {
	Cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes the authority of a new cluster.
func NewAuthority(cluster string, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make cluster authority: %w", err)
	}
	serial, err := serial()
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "minictl cluster " + cluster},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make cluster authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make cluster authority: %w", err)
	}
	return &Authority{Cert: cert, key: key}, nil
}

type authorityJSON struct {
	Cert []byte // DER
	Key  []byte // PKCS #8 DER
}

// MarshalJSON is the form in which the cluster's store keeps the authority, private key included.
func (a *Authority) MarshalJSON() ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, fmt.Errorf("encode cluster authority: %w", err)
	}
	return json.Marshal(authorityJSON{Cert: a.Cert.Raw, Key: key})
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (a *Authority) UnmarshalJSON(b []byte) error {
	var j authorityJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return fmt.Errorf("decode cluster authority: %w", err)
	}
	cert, err := x509.ParseCertificate(j.Cert)
	if err != nil {
		return fmt.Errorf("decode cluster authority: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(j.Key)
	if err != nil {
		return fmt.Errorf("decode cluster authority: %w", err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || !ec.PublicKey.Equal(cert.PublicKey) {
		return fmt.Errorf("decode cluster authority: key and certificate do not belong together: %w", errdefs.ErrDataLoss)
	}
	a.Cert, a.key = cert, ec
	return nil
}

// Request is what a new host sends to be signed (PKCS #10, DER). It proves possession of the key; it names nothing,
// because the ID follows from the key.
func (n *Node) Request() ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, n.key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return der, nil
}

// Sign gives out a node certificate (DER), valid 90 days from now, for the key that made the request, and the node ID
// that follows from it. Nothing the request says about names is believed.
func (a *Authority) Sign(request []byte, now time.Time) (cert []byte, id string, err error) {
	csr, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return nil, "", fmt.Errorf("sign node certificate: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, "", fmt.Errorf("sign node certificate: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if _, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok {
		return nil, "", fmt.Errorf("sign node certificate: key type %T: %w", csr.PublicKey, errdefs.ErrInvalidArgument)
	}
	if id, err = IDOf(csr.PublicKey); err != nil {
		return nil, "", err
	}
	serial, err := serial()
	if err != nil {
		return nil, "", err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: id},
		DNSNames:     []string{id}, // what a dialling node verifies: it dials IDs, not addresses
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(certLifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if cert, err = x509.CreateCertificate(rand.Reader, tmpl, a.Cert, csr.PublicKey, a.key); err != nil {
		return nil, "", fmt.Errorf("sign node certificate: %w", err)
	}
	return cert, id, nil
}

func serial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	return n, nil
}

// Credentials are what a member shows to and expects of other members.
type Credentials struct {
	ID   string
	Cert tls.Certificate // the leaf and, for joining hosts that check its digest, the authority
	CA   *x509.Certificate
	// Roots are the authorities that other members' certificates may be of: CA, and while one authority replaces another,
	// both.
	Roots []*x509.Certificate
}

// Credentials joins the node's key with the certificate that the authority ca (DER) gave out for it.
func (n *Node) Credentials(cert, ca []byte) (*Credentials, error) {
	leaf, err := x509.ParseCertificate(cert)
	if err != nil {
		return nil, fmt.Errorf("read node certificate: %w", err)
	}
	if !n.key.PublicKey.Equal(leaf.PublicKey) {
		return nil, fmt.Errorf("read node certificate: it is for another key: %w", errdefs.ErrInvalidArgument)
	}
	root, err := x509.ParseCertificate(ca)
	if err != nil {
		return nil, fmt.Errorf("read cluster authority: %w", err)
	}
	if err := leaf.CheckSignatureFrom(root); err != nil {
		return nil, fmt.Errorf("read node certificate: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return &Credentials{
		ID:   n.ID,
		Cert: tls.Certificate{Certificate: [][]byte{cert, ca}, PrivateKey: n.key, Leaf: leaf},
		CA:   root, Roots: []*x509.Certificate{root},
	}, nil
}

// Accepting gives credentials that accept these authorities (DER) as well.
func (c *Credentials) Accepting(roots [][]byte) (*Credentials, error) {
	next := *c
	next.Roots = []*x509.Certificate{c.CA}
	for _, der := range roots {
		root, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("read cluster authority: %w", err)
		}
		if !slices.ContainsFunc(next.Roots, root.Equal) {
			next.Roots = append(next.Roots, root)
		}
	}
	return &next, nil
}

// Issue gives a node whose key is at hand its credentials.
func (a *Authority) Issue(n *Node, now time.Time) (*Credentials, error) {
	csr, err := n.Request()
	if err != nil {
		return nil, err
	}
	cert, _, err := a.Sign(csr, now)
	if err != nil {
		return nil, err
	}
	return n.Credentials(cert, a.Cert.Raw)
}

// Same tells whether o is the same certificate and accepts the same authorities.
func (c *Credentials) Same(o *Credentials) bool {
	return c.Cert.Leaf.Equal(o.Cert.Leaf) && slices.EqualFunc(c.Roots, o.Roots, (*x509.Certificate).Equal)
}

// Due tells whether the certificate should be replaced: it ends within 30 days, or has ended.
func (c *Credentials) Due(now time.Time) bool { return c.Cert.Leaf.NotAfter.Sub(now) < renewBefore }

// Save keeps the certificates beside the key.
func (c *Credentials) Save(dir string) error {
	var roots [][]byte
	for _, root := range c.Roots {
		roots = append(roots, root.Raw)
	}
	if err := writePEM(filepath.Join(dir, caFile), "CERTIFICATE", roots...); err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, certFile), "CERTIFICATE", c.Cert.Certificate[0])
}

// LoadCredentials reads what Save wrote.
func (n *Node) LoadCredentials(dir string) (*Credentials, error) {
	var der [2][][]byte
	for i, name := range []string{certFile, caFile} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("read certificate: %w", err)
		}
		for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
			der[i] = append(der[i], block.Bytes)
		}
		if len(der[i]) == 0 {
			return nil, fmt.Errorf("read certificate %s: not PEM: %w", filepath.Join(dir, name), errdefs.ErrDataLoss)
		}
	}
	// A crash between the two files may have left the certificate of another authority than the first.
	var all error
	for _, ca := range der[1] {
		cred, err := n.Credentials(der[0][0], ca)
		if err == nil {
			return cred.Accepting(der[1])
		}
		all = errors.Join(all, err)
	}
	return nil, all
}

// Digest identifies an authority by the SHA-256 of its certificate.
func Digest(ca *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(ca.Raw) }

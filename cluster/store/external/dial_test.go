package external

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/minictl/minictl/cluster/store/journal"
	"github.com/minictl/minictl/testing/extstore"
)

// certificate writes a self-signed one for 127.0.0.1, which is its own authority, and its key.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", keyDER)
}

// TestTLS: a real etcd that lets nobody in without a certificate.
func TestTLS(t *testing.T) {
	cert, key := certificate(t)
	addr := extstore.FreeAddr(t)
	args := extstore.Etcd(t.TempDir(), addr)
	for i, a := range args {
		if a == "http://"+addr {
			args[i] = "https://" + addr
		}
	}
	extstore.Start(t, addr, slices.Concat(args, []string{"--cert-file", cert, "--key-file", key, "--trusted-ca-file", cert, "--client-cert-auth"})...)
	for name, c := range map[string]struct {
		options map[string]string
		ok      bool
	}{
		"with a certificate":    {map[string]string{"kv.cacertfile": cert, "kv.certfile": cert, "kv.keyfile": key}, true},
		"without a certificate": {map[string]string{"kv.cacertfile": cert}, false},
		"without TLS":           {nil, false},
	} {
		s, err := Parse("etcd://"+addr, c.options)
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Dial()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		if c.ok { // as long as a busy machine needs
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		}
		if err := r.Put(ctx, journal.KV{Key: "head", Value: []byte(name)}); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		_ = r.Close()
	}
}

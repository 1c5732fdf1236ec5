// Package registry starts a real registry (Debian's docker-registry, the reference implementation) for tests of pulling:
// plain or TLS, open, with basic auth, or behind a token server.
package registry

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/minictl/minictl/testing/images/bake"
)

// TB is the part of testing.TB that a registry needs.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Options say what kind of registry it is.
type Options struct {
	// Listen is host:port; empty means a free port of 127.0.0.1.
	Listen string
	// TLS gives it a certificate for Listen's host, signed by Registry.CA.
	TLS bool
	// User and Password turn basic auth on.
	User, Password string
	// Dial is how Push reaches it when it runs in another network namespace; nil means from here.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Registry is a registry's configuration on disk, and the registry itself once it runs.
type Registry struct {
	Addr string // host:port, the first part of its images' names
	CA   []byte // PEM of the authority that signed its certificate; nil without TLS

	opts   Options
	config string
	bin    string
	client *http.Client
}

// Prepare writes a registry's configuration into dir without starting it: Args is the command line that does, to run it
// in a lab's host, say. dir must live as long as the registry.
func Prepare(ctx context.Context, dir string, o Options) (*Registry, error) {
	bin, err := binary(ctx)
	if err != nil {
		return nil, err
	}
	if o.Listen == "" {
		if o.Listen, err = freePort(); err != nil {
			return nil, err
		}
	}
	r := &Registry{Addr: o.Listen, opts: o, bin: bin, config: filepath.Join(dir, "config.yml")}
	transport := &http.Transport{DialContext: o.Dial}
	r.client = &http.Client{Transport: transport}
	text := fmt.Sprintf("version: 0.1\nlog: {level: warn, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}\nhttp:\n  addr: %q\n",
		filepath.Join(dir, "data"), o.Listen)
	if o.TLS {
		pool, err := r.certify(dir)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
		text += fmt.Sprintf("  tls: {certificate: %q, key: %q}\n", filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	}
	if o.User != "" {
		hash, err := bcrypt.GenerateFromPassword([]byte(o.Password), bcrypt.MinCost)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, "htpasswd"), []byte(o.User+":"+string(hash)+"\n"), 0o600); err != nil {
			return nil, err
		}
		text += fmt.Sprintf("auth: {htpasswd: {realm: lab, path: %q}}\n", filepath.Join(dir, "htpasswd"))
	}
	return r, os.WriteFile(r.config, []byte(text), 0o600)
}

// Args is the registry's command line.
func (r *Registry) Args() []string { return []string{r.bin, "serve", r.config} }

// Start runs a registry on this machine's loopback until the test ends.
func Start(tb TB, dir string, o Options) *Registry {
	tb.Helper()
	r, err := Prepare(context.Background(), dir, o)
	if err != nil {
		tb.Fatalf("registry: %v", err)
	}
	var log bytes.Buffer
	args := r.Args()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		tb.Fatalf("registry: start: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	if err := r.Await(done); err != nil {
		_ = cmd.Process.Kill()
		err = errors.Join(err, <-done)
		done <- err
		tb.Fatalf("registry: %v\n%s", err, log.String())
	}
	return r
}

// Await polls until the registry answers anything at all; a value on ended, which may be nil, means that it never will.
func (r *Registry) Await(ended chan error) error {
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := r.client.Get(r.url("/v2/"))
		if err == nil {
			return resp.Body.Close()
		}
		select {
		case why := <-ended:
			ended <- why
			return fmt.Errorf("ended at start: %w", err)
		case <-deadline.C:
			return fmt.Errorf("does not answer: %w", err)
		case <-tick.C:
		}
	}
}

func (r *Registry) url(path string) string {
	scheme := "http"
	if r.opts.TLS {
		scheme = "https"
	}
	return (&url.URL{Scheme: scheme, Host: r.Addr}).String() + path
}

// Push uploads an image under repository:tag, such as team/app and 1.0.
func (r *Registry) Push(ctx context.Context, repository, tag string, b bake.Blobs) error {
	for d, blob := range b.ByDigest {
		if manifestType(blob) != "" {
			continue
		}
		resp, err := r.do(ctx, http.MethodPost, r.url("/v2/"+repository+"/blobs/uploads/"), "", nil, http.StatusAccepted)
		if err != nil {
			return err
		}
		to, err := resp.Location()
		if err != nil {
			return err
		}
		q := to.Query()
		q.Set("digest", d.String())
		to.RawQuery = q.Encode()
		if _, err := r.do(ctx, http.MethodPut, to.String(), "application/octet-stream", blob, http.StatusCreated); err != nil {
			return err
		}
	}
	// Manifests after the blobs they name, the index after the manifests.
	for _, kind := range []string{"manifest", "index"} {
		for d, blob := range b.ByDigest {
			mediaType := manifestType(blob)
			if (mediaType == indexType) != (kind == "index") || mediaType == "" {
				continue
			}
			ref := d.String()
			if d == b.Manifest.Digest {
				ref = tag
			}
			if _, err := r.do(ctx, http.MethodPut, r.url("/v2/"+repository+"/manifests/"+ref), mediaType, blob, http.StatusCreated); err != nil {
				return err
			}
		}
	}
	return nil
}

const (
	indexType = "application/vnd.oci.image.index.v1+json"
	imageType = "application/vnd.oci.image.manifest.v1+json"
)

// manifestType is a manifest's or index's media type, "" for any other blob: both begin with their version and type.
func manifestType(blob []byte) string {
	head := blob[:min(len(blob), 120)]
	if !bytes.HasPrefix(head, []byte(`{"schemaVersion":2`)) {
		return ""
	}
	if bytes.Contains(head, []byte(indexType)) {
		return indexType
	}
	return imageType
}

func (r *Registry) do(ctx context.Context, method, to, mediaType string, body []byte, want int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, to, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	if r.opts.User != "" {
		req.SetBasicAuth(r.opts.User, r.opts.Password)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != want {
		return nil, fmt.Errorf("%s %s: %s: %s", method, to, resp.Status, text)
	}
	return resp, nil
}

// certify makes a certificate that is its own authority, and gives the pool that trusts it.
func (r *Registry) certify(dir string) (*x509.CertPool, error) {
	host, _, err := net.SplitHostPort(r.Addr)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab registry"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		t.IPAddresses = []net.IP{ip}
	} else {
		t.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	r.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.CA)
	return pool, errors.Join(
		os.WriteFile(filepath.Join(dir, "cert.pem"), r.CA, 0o600),
		os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
}

// binary finds docker-registry in PATH or in the user's cache, where it is fetched to at first use.
func binary(ctx context.Context) (string, error) {
	if p, err := exec.LookPath("docker-registry"); err == nil {
		return p, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find docker-registry: %w", err)
	}
	dir := filepath.Join(cache, "minictl-testing", "docker-registry")
	bin := filepath.Join(dir, "usr", "bin", "docker-registry")
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	// Unpacked beside its place and renamed, since several tests may come here at once.
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	if err := bake.FetchDebian(ctx, fresh, "docker-registry"); err != nil {
		return "", err
	}
	if err := os.Rename(fresh, dir); err != nil && !errors.Is(err, os.ErrExist) && !errors.Is(err, syscall.ENOTEMPTY) {
		return "", err
	}
	return bin, nil
}

func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

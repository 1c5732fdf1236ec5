package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
)

// IDLength is the number of characters of a node ID: base 36, as docker's swarm node IDs are.
const IDLength = 25

const (
	keyFile  = "node.key"
	certFile = "node.crt"
	caFile   = "ca.crt"
)

// Node is a host's own key and the ID that follows from it.
type Node struct {
	ID  string
	key *ecdsa.PrivateKey
}

// NewNode makes a key. Nothing is written; see Load.
func NewNode() (*Node, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make node key: %w", err)
	}
	return nodeOf(key)
}

func nodeOf(key *ecdsa.PrivateKey) (*Node, error) {
	id, err := IDOf(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	return &Node{ID: id, key: key}, nil
}

// IDOf derives the node ID from a public key: the first 25 base-36 digits of its SHA-256, 129 bits.
func IDOf(pub any) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("derive node ID: %w", err)
	}
	sum := sha256.Sum256(der)
	text := new(big.Int).SetBytes(sum[:]).Text(36)
	for len(text) < IDLength { // only a hash below 36^-25 of its range gets here
		text = "0" + text
	}
	return text[:IDLength], nil
}

// Load reads the host's key from dir and makes one at the first start.
func Load(dir string) (*Node, error) {
	b, err := os.ReadFile(filepath.Join(dir, keyFile))
	if errors.Is(err, fs.ErrNotExist) {
		n, err := NewNode()
		if err != nil {
			return nil, err
		}
		return n, n.Save(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read node key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("read node key %s: not PEM: %w", filepath.Join(dir, keyFile), errdefs.ErrDataLoss)
	}
	n, err := ParseKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, keyFile), err)
	}
	return n, nil
}

// Key is the private key (PKCS #8 DER): whoever has it is this node.
func (n *Node) Key() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(n.key)
	if err != nil {
		return nil, fmt.Errorf("encode node key: %w", err)
	}
	return der, nil
}

// ParseKey is the inverse of Key.
func ParseKey(der []byte) (*Node, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("read node key: %w: %w", err, errdefs.ErrDataLoss)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read node key: %T instead of an ECDSA key: %w", key, errdefs.ErrDataLoss)
	}
	return nodeOf(ec)
}

// Save makes dir this node's: the next Load gives it back.
func (n *Node) Save(dir string) error {
	der, err := n.Key()
	if err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, keyFile), "PRIVATE KEY", der)
}

// Remove deletes key and certificates; the next Load makes a new identity. Nil if they are absent.
func Remove(dir string) error {
	var errs []error
	for _, name := range []string{certFile, caFile, keyFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func writePEM(path, kind string, ders ...[]byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	var text []byte
	for _, der := range ders {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	}
	return WriteFile(path, text)
}

// WriteFile replaces path with mode 0600 so that a crash leaves the old or the new content, never half of it.
func WriteFile(path string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // CreateTemp makes 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}

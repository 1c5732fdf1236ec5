package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/minictl/minictl/cluster/identity"
)

// forged is what somebody can make who has the authority's key, as every member has: a certificate of their own key in
// another node's name.
func forged(t *testing.T, ca *identity.Authority, id string) *identity.Credentials {
	t.Helper()
	b, err := json.Marshal(ca)
	if err != nil {
		t.Fatal(err)
	}
	var secret struct{ Key []byte }
	if err := json.Unmarshal(b, &secret); err != nil {
		t.Fatal(err)
	}
	signer, err := x509.ParsePKCS8PrivateKey(secret.Key)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: id}, DNSNames: []string{id},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, ca.Cert, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &identity.Credentials{
		ID: id, CA: ca.Cert, Roots: []*x509.Certificate{ca.Cert},
		Cert: tls.Certificate{Certificate: [][]byte{der, ca.Cert.Raw}, PrivateKey: key, Leaf: leaf},
	}
}

// TestForgedIdentity: the authority's key does not make anybody another node, neither as caller nor as called.
func TestForgedIdentity(t *testing.T) {
	ca, peers, fence := authority(t), book{}, Fence{Cluster: "c", Epoch: "1.a"}
	_, victim := member(t, ca, fence, peers)
	b, bID := member(t, ca, fence, peers)
	thief, thiefID := member(t, ca, fence, peers)
	delete(peers, thiefID) // it was removed
	thief.SetCredentials(forged(t, ca, victim))
	for _, p := range []Protocol{RPC, Raft, Gossip, Rejoin, Renew} {
		if _, err := thief.Dial(t.Context(), bID, p); err == nil {
			t.Errorf("%s: taken for the node in whose name the certificate is", p)
		}
	}
	if n := b.count(); n != 0 {
		t.Errorf("%d connections", n)
	}
	for _, p := range []Protocol{RPC, Renew} {
		_, err := b.DialAddr(t.Context(), victim, thief.Addr().String(), p)
		if err == nil || !strings.Contains(err.Error(), "the key is that of node") {
			t.Errorf("%s to a forger: %v", p, err)
		}
	}
}

// TestRenewProtocol: with no authority in common, two members know each other by their keys, and say one thing only.
func TestRenewProtocol(t *testing.T) {
	peers, fence := book{}, Fence{Cluster: "c", Epoch: "1.a"}
	b, bID := member(t, authority(t), fence, peers)
	slept, sleptID := member(t, authority(t), Fence{Cluster: "c", Epoch: "0.x"}, peers)
	untrusted := make(chan string, 4)
	slept.cfg.Untrusted = func(node string) { untrusted <- node }
	if _, err := slept.Dial(t.Context(), bID, RPC); err == nil {
		t.Error("another authority's certificate is accepted")
	}
	if got := <-untrusted; got != bID {
		t.Errorf("untrusted: %q", got)
	}
	go slept.Dial(context.WithoutCancel(t.Context()), bID, Renew)
	in, err := b.Listener(Renew).Accept()
	if err != nil {
		t.Fatal(err)
	}
	if peer := in.(*Conn).Peer; peer != sleptID {
		t.Errorf("peer %s, want %s", peer, sleptID)
	}
	delete(peers, sleptID)
	if _, err := slept.Dial(t.Context(), bID, Renew); err == nil || !strings.Contains(err.Error(), "not a member") {
		t.Errorf("a removed node: %v", err)
	}
	stranger, _ := member(t, authority(t), Fence{Cluster: "d", Epoch: "1.a"}, peers)
	if _, err := stranger.Dial(t.Context(), bID, Renew); err == nil || !strings.Contains(err.Error(), "another cluster") {
		t.Errorf("another cluster's node: %v", err)
	}
	if _, err := b.DialAddr(t.Context(), sleptID, b.Addr().String(), Renew); err == nil {
		t.Error("any key is taken for that of the node that was meant")
	}
}

// TestClock: certificates are judged by the clock that the transport was given.
func TestClock(t *testing.T) {
	ca, peers, fence := authority(t), book{}, Fence{Cluster: "c", Epoch: "1.a"}
	a, _ := member(t, ca, fence, peers)
	_, bID := member(t, ca, fence, peers)
	a.cfg.Now = func() time.Time { return time.Now().Add(100 * 24 * time.Hour) }
	if _, err := a.Dial(t.Context(), bID, RPC); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("a hundred days later: %v", err)
	}
}

// TestAnotherRelease: what a host of another release speaks is refused with a sentence, and what it says beyond what this
// one knows is no obstacle.
func TestAnotherRelease(t *testing.T) {
	ca, peers, fence := authority(t), book{}, Fence{Cluster: "c", Epoch: "1.a"}
	a, _ := member(t, ca, fence, peers)
	b, bID := member(t, ca, fence, peers)
	for _, p := range []Protocol{"minictl-rpc/2", "minictl-raft/2"} {
		_, err := a.Dial(t.Context(), bID, p)
		if err == nil || !strings.Contains(err.Error(), "upgrade minictl on the older") || !strings.Contains(err.Error(), string(p)) {
			t.Errorf("%s: %v", p, err)
		}
	}
	conn, err := tls.Dial("tcp", b.Addr().String(), a.clientConfig(bID, RPC))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := writeFrame(conn, map[string]any{"cluster": "c", "epoch": "1.a", "release": 7}); err != nil {
		t.Fatal(err)
	}
	go b.Listener(RPC).Accept()
	var got answer
	if err := readFrame(conn, &got); err != nil || got.Refused != "" {
		t.Errorf("%+v, %v", got, err)
	}
}

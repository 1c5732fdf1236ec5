package identity

import (
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func TestIdentitySurvivesARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "identity")
	first, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if first.ID != again.ID || len(first.ID) != IDLength {
		t.Fatalf("IDs %q and %q", first.ID, again.ID)
	}
	info, err := os.Stat(filepath.Join(dir, keyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("key file: mode %v, err %v", info.Mode(), err)
	}
	if err := Remove(dir); err != nil {
		t.Fatal(err)
	}
	fresh, err := Load(dir)
	if err != nil || fresh.ID == first.ID {
		t.Fatalf("after Remove: ID %q (was %q), err %v", fresh.ID, first.ID, err)
	}
}

func TestDamagedKeyIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, keyFile), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); !errdefs.IsDataLoss(err) {
		t.Fatalf("err = %v, want data loss: a new key would be a new node", err)
	}
}

func TestSignBelievesOnlyTheKey(t *testing.T) {
	now := time.Now()
	ca, node := authority(t, now), newNode(t)
	csr, err := node.Request()
	if err != nil {
		t.Fatal(err)
	}
	der, id, err := ca.Sign(csr, now)
	if err != nil || id != node.ID {
		t.Fatalf("id %q, want %q; err %v", id, node.ID, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if cert.Subject.CommonName != id || cert.VerifyHostname(id) != nil || cert.IsCA {
		t.Fatalf("certificate: %+v", cert.Subject)
	}
	if d := now.Sub(cert.NotBefore); d < 24*time.Hour || d > 26*time.Hour {
		t.Errorf("NotBefore is %v back", d)
	}
	if d := cert.NotAfter.Sub(now); d < 89*24*time.Hour || d > 91*24*time.Hour {
		t.Errorf("valid for %v", d)
	}
	csr[len(csr)-1] ^= 1 // the signature that proves possession of the key
	if _, _, err := ca.Sign(csr, now); !errdefs.IsInvalidArgument(err) {
		t.Errorf("forged request: err = %v", err)
	}
}

func TestCredentialsRoundTrip(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	ca, node := authority(t, now), newNode(t)
	csr, _ := node.Request()
	der, _, err := ca.Sign(csr, now)
	if err != nil {
		t.Fatal(err)
	}
	cred, err := node.Credentials(der, ca.Cert.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := cred.Save(dir); err != nil {
		t.Fatal(err)
	}
	back, err := node.LoadCredentials(dir)
	if err != nil || !back.Cert.Leaf.Equal(cred.Cert.Leaf) || !back.CA.Equal(cred.CA) {
		t.Fatalf("loaded %+v, err %v", back, err)
	}
	if _, err := newNode(t).Credentials(der, ca.Cert.Raw); !errdefs.IsInvalidArgument(err) {
		t.Errorf("another's key: err = %v", err)
	}
	if _, err := node.Credentials(der, authority(t, now).Cert.Raw); !errdefs.IsInvalidArgument(err) {
		t.Errorf("another authority: err = %v", err)
	}
}

func TestAuthorityRoundTrip(t *testing.T) {
	ca := authority(t, time.Now())
	b, err := json.Marshal(ca)
	if err != nil {
		t.Fatal(err)
	}
	var back Authority
	if err := json.Unmarshal(b, &back); err != nil || !back.Cert.Equal(ca.Cert) || !back.key.Equal(ca.key) {
		t.Fatalf("err %v", err)
	}
}

func TestTokenText(t *testing.T) {
	ca := authority(t, time.Now())
	tok, err := NewToken(ca.Cert, time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	text := tok.String()
	if back, err := ParseToken(" " + text + "\n"); err != nil || back != tok {
		t.Fatalf("ParseToken(%q) = %+v, %v", text, back, err)
	}
	parts := strings.Split(text, "-")
	for name, bad := range map[string]string{
		"empty":           "",
		"swarm's":         "SWMTKN-1-abc-def",
		"cut off":         text[:len(text)-len(parts[3])-1],
		"digest shorter":  strings.Replace(text, parts[1], parts[1][1:], 1),
		"upper case":      strings.ToUpper(text),
		"secret damaged":  strings.Replace(text, parts[2], parts[2][:25]+"1", 1),
		"expiry negative": strings.TrimSuffix(text, parts[3]) + "-1",
		"expiry too big":  strings.TrimSuffix(text, parts[3]) + strings.Repeat("z", 20),
		"a letter more":   text + "a",
		"a letter less":   text[:len(text)-1],
	} {
		if _, err := ParseToken(bad); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "minictl cluster token") {
			t.Errorf("%s: err = %v", name, err)
		}
	}
	if _, err := ParseToken(text[:len(text)-1]); err == nil || !strings.HasPrefix(err.Error(), "this join token is damaged (its last part") {
		t.Errorf("a letter less: %v", err)
	}
}

func TestTokenExpiry(t *testing.T) {
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	tok := Token{Expires: at}
	if err := tok.CheckExpiry(at.Add(-time.Second)); err != nil {
		t.Errorf("a second before: %v", err)
	}
	err := tok.CheckExpiry(at.Add(3 * time.Hour))
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "3h0m0s ago (2026-11-24T12:00:00Z)") ||
		!strings.Contains(err.Error(), "minictl cluster token --rotate") {
		t.Errorf("three hours after: %v", err)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("MCTL1-a-b-c")
	f.Add(Token{Secret: "aaaaaaaaaaaaaaaaaaaaaaaaaa", Expires: time.Unix(1, 0)}.String())
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := ParseToken(text)
		if err == nil && tok.String() != strings.TrimSpace(text) {
			t.Fatalf("%q reads as %q", text, tok)
		}
	})
}

func FuzzAuthorityJSON(f *testing.F) {
	f.Add([]byte(`{"Cert":"AA==","Key":"AA=="}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a Authority
		if err := a.UnmarshalJSON(b); err == nil && a.key == nil {
			t.Fatal("no error and no key")
		}
	})
}

func authority(t *testing.T, now time.Time) *Authority {
	t.Helper()
	ca, err := NewAuthority("test", now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func newNode(t *testing.T) *Node {
	t.Helper()
	n, err := NewNode()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

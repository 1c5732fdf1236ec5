package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// Prefix and version of a token's text, so that one is recognised in a shell history or a leaked log.
const tokenPrefix = "MCTL1"

// TokenLifetime is how long a new token admits hosts.
const TokenLifetime = 24 * time.Hour

const secretBytes = 16

// The years 2000 and 2200 in Unix seconds. A token that ends outside of them lacks a digit, or has one too many. The clock is
// not asked: it may be wrong on a host that joins.
const (
	firstExpiry = 946684800
	lastExpiry  = 7258118400
)

// Lower-case base 32 (RFC 4648) without padding: survives being read aloud and selected with a double click.
func encoding() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

// Token lets a host into a cluster. Its digest lets the host recognise the cluster before it shows the secret.
type Token struct {
	Digest  [sha256.Size]byte // of the authority's certificate
	Secret  string
	Expires time.Time // whole seconds
}

// NewToken makes a token for the cluster of authority ca.
func NewToken(ca *x509.Certificate, expires time.Time) (Token, error) {
	b := make([]byte, secretBytes)
	if _, err := rand.Read(b); err != nil {
		return Token{}, fmt.Errorf("make join token: %w", err)
	}
	return Token{Digest: Digest(ca), Secret: encoding().EncodeToString(b), Expires: expires.UTC().Truncate(time.Second)}, nil
}

// ID names the token in the store; it gives the secret away to nobody.
func (t Token) ID() string {
	sum := sha256.Sum256([]byte(t.Secret))
	return hex.EncodeToString(sum[:8])
}

// SecretIs compares in constant time.
func (t Token) SecretIs(secret string) bool {
	return subtle.ConstantTimeCompare([]byte(t.Secret), []byte(secret)) == 1
}

// String is the text for the command line: MCTL1-<digest, base 32>-<secret>-<expiry, Unix seconds in base 36>.
func (t Token) String() string {
	return strings.Join([]string{tokenPrefix, encoding().EncodeToString(t.Digest[:]), t.Secret, strconv.FormatInt(t.Expires.Unix(), 36)}, "-")
}

// ParseToken reads String's form. It does not look at the clock; see CheckExpiry.
func ParseToken(text string) (Token, error) {
	bad := func(why string) (Token, error) {
		return Token{}, fmt.Errorf("this is not a join token (%s): paste the line that `minictl cluster token` prints on a member: %w", why, errdefs.ErrInvalidArgument)
	}
	damaged := func(part string) (Token, error) {
		return Token{}, fmt.Errorf("this join token is damaged (its %s part is not as it was made): copy it again, the whole line that `minictl cluster token` prints on a member: %w", part, errdefs.ErrInvalidArgument)
	}
	parts := strings.Split(strings.TrimSpace(text), "-")
	if parts[0] != tokenPrefix {
		return bad("it does not begin with " + tokenPrefix)
	}
	if len(parts) != 4 {
		return bad(fmt.Sprintf("%d parts instead of 4", len(parts)))
	}
	var t Token
	digest, err := encoding().DecodeString(parts[1])
	if err != nil || len(digest) != len(t.Digest) || encoding().EncodeToString(digest) != parts[1] {
		return damaged("second")
	}
	copy(t.Digest[:], digest)
	secret, err := encoding().DecodeString(parts[2])
	if err != nil || len(secret) != secretBytes || encoding().EncodeToString(secret) != parts[2] {
		return damaged("third")
	}
	t.Secret = parts[2]
	seconds, err := strconv.ParseInt(parts[3], 36, 64)
	if err != nil || seconds < firstExpiry || seconds > lastExpiry || strconv.FormatInt(seconds, 36) != parts[3] {
		return damaged("last")
	}
	t.Expires = time.Unix(seconds, 0).UTC()
	return t, nil
}

// CheckExpiry says since when the token is of no use any more and how to get another.
func (t Token) CheckExpiry(now time.Time) error {
	if now.Before(t.Expires) {
		return nil
	}
	return fmt.Errorf("this join token expired %s ago (%s): run `minictl cluster token --rotate` on a member for a new one: %w",
		now.Sub(t.Expires).Round(time.Second), t.Expires.Format(time.RFC3339), errdefs.ErrFailedPrecondition)
}

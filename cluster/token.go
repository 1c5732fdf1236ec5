package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/identity"
	"github.com/minictl/minictl/cluster/store"
)

// tokenValue is a join token in the Store.
type tokenValue struct {
	Secret  string    `json:"secret"`
	Expires time.Time `json:"expires"`
}

// Token gives the text that lets hosts join, and until when. With rotate, or when there is no token that is still good,
// it makes a new one, good for 24 hours, and all earlier ones admit nobody any more.
func (c *Cluster) Token(ctx context.Context, rotate bool) (string, time.Time, error) {
	if err := c.errExternal("token"); err != nil {
		return "", time.Time{}, err
	}
	s := c.session()
	if s == nil {
		return "", time.Time{}, fmt.Errorf("get join token: nobody can join this host's cluster of one: run `minictl cluster init` first: %w", errdefs.ErrFailedPrecondition)
	}
	if !rotate {
		tokens, err := c.tokens(ctx)
		if err != nil {
			return "", time.Time{}, err
		}
		var best identity.Token
		for _, t := range tokens {
			if t.Expires.After(best.Expires) {
				best = t
			}
		}
		if best.CheckExpiry(c.now()) == nil {
			best.Digest = identity.Digest(s.tr.Credentials().CA)
			return best.String(), best.Expires, nil
		}
	}
	t, err := identity.NewToken(s.tr.Credentials().CA, c.now().Add(identity.TokenLifetime))
	if err != nil {
		return "", time.Time{}, err
	}
	b, err := json.Marshal(tokenValue{Secret: t.Secret, Expires: t.Expires})
	if err != nil {
		return "", time.Time{}, err
	}
	if _, err := c.store.Txn(ctx, store.Txn{Then: []store.Op{
		{Key: prefixToken, Prefix: true},
		{Key: prefixToken + t.ID(), Value: b},
	}}); err != nil {
		return "", time.Time{}, fmt.Errorf("make join token: %w", err)
	}
	return t.String(), t.Expires, nil
}

// tokens reads all there are, without their digest.
func (c *Cluster) tokens(ctx context.Context) ([]identity.Token, error) {
	pairs, _, err := c.store.Range(ctx, prefixToken, true)
	if err != nil {
		return nil, err
	}
	var out []identity.Token
	for _, p := range pairs {
		var v tokenValue
		if err := json.Unmarshal(p.Value, &v); err != nil {
			c.log.Warn("ignored join token", "key", p.Key, "err", err)
			continue
		}
		out = append(out, identity.Token{Secret: v.Secret, Expires: v.Expires})
	}
	return out, nil
}

package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/identity"
	"github.com/minictl/minictl/cluster/rpc"
	"github.com/minictl/minictl/cluster/store"
)

// Keys of the Store. What is being introduced lies beside what is in use until every member has it.
const (
	keyNextCA = "ca-next"
	keyRoots  = "ca-roots"
	keyFresh  = "gossip-fresh"
)

// roots are the authorities that count. Without them it is the one that signs alone, in generation 0.
type roots struct {
	Generation uint64   `json:"generation"` // grows with every change: a member that slept takes a newer one over, never an older
	Roots      [][]byte `json:"roots"`      // DER
}

// trust is what a member has in use, as digests: who has not yet what is being introduced holds the next step up.
type trust struct {
	Keys   []string `json:"keys"`   // of gossip, the one that encrypts first
	Roots  []string `json:"roots"`  // authorities it accepts
	Issuer string   `json:"issuer"` // of its certificate
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

func digests(bs [][]byte) []string {
	var out []string
	for _, b := range bs {
		out = append(out, digest(b))
	}
	return out
}

// trusts says what this host has in use.
func (c *Cluster) trusts() (trust, error) {
	s := c.session()
	if s == nil {
		return trust{}, fmt.Errorf("this host is not listening: %w", errdefs.ErrUnavailable)
	}
	cred := s.tr.Credentials()
	t := trust{Keys: digests(c.snapshotState().Keys), Issuer: digest(cred.CA.Raw)}
	for _, root := range cred.Roots {
		t.Roots = append(t.Roots, digest(root.Raw))
	}
	return t, nil
}

// secrets are what the Store says of keys and authorities, with the revisions that a step depends upon.
type secrets struct {
	keys              [][]byte
	fresh             string // digest of the key that is being introduced; empty: none is
	ca                *identity.Authority
	next              *identity.Authority // nil: none is being introduced
	roots             roots
	gossip, authority []store.Cond
}

func (c *Cluster) readSecrets(ctx context.Context, fresh bool) (secrets, error) {
	var s secrets
	var next *identity.Authority
	read := func(cond *[]store.Cond, key string, v any) error {
		p, ok, err := store.Get(ctx, c.store, key, fresh)
		if err == nil && ok {
			err = json.Unmarshal(p.Value, v)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", key, err)
		}
		*cond = append(*cond, store.Cond{Key: key, Rev: p.Rev})
		return nil
	}
	err := errors.Join(
		read(&s.gossip, keyGossip, &s.keys), read(&s.gossip, keyFresh, &s.fresh),
		read(&s.authority, keyCA, &s.ca), read(&s.authority, keyNextCA, &next), read(&s.authority, keyRoots, &s.roots),
	)
	if err != nil {
		return s, err
	}
	if s.ca == nil || len(s.keys) == 0 {
		return s, fmt.Errorf("read the cluster's authority and keys: they are not there: %w", errdefs.ErrUnavailable)
	}
	s.next = next
	if len(s.roots.Roots) == 0 {
		s.roots.Roots = [][]byte{s.ca.Cert.Raw}
	}
	return s, nil
}

// under tells whether something is being introduced.
func (s secrets) under() bool { return s.fresh != "" || s.next != nil || len(s.roots.Roots) > 1 }

// change is a step of a rotation: what to write, and who has to have what before.
type change struct {
	what string
	cond []store.Cond
	put  map[string]any
	del  []string
	has  func(trust) bool
}

// plan gives the next step for keys and for authorities. First everybody accepts the new one, then it is used, then the
// old one goes.
func (s secrets) plan() []change {
	var out []change
	all := digests(s.keys)
	haveKeys := func(t trust) bool { return slices.Equal(t.Keys, all) }
	i := slices.Index(all, s.fresh)
	switch {
	case s.fresh == "" || i < 0:
	case i > 0:
		rest := slices.Delete(slices.Clone(s.keys), i, i+1)
		out = append(out, change{what: "encrypt with the new gossip key", cond: s.gossip, has: haveKeys,
			put: map[string]any{keyGossip: append([][]byte{s.keys[i]}, rest...)}})
	default:
		out = append(out, change{what: "drop the old gossip key", cond: s.gossip, has: haveKeys,
			put: map[string]any{keyGossip: s.keys[:1]}, del: []string{keyFresh}})
	}
	switch ca := digest(s.ca.Cert.Raw); {
	case s.next != nil:
		next := digest(s.next.Cert.Raw)
		out = append(out, change{what: "sign with the new authority", cond: s.authority,
			put: map[string]any{keyCA: s.next, keyRoots: s.roots.after(s.roots.Roots)}, del: []string{keyNextCA},
			has: func(t trust) bool { return slices.Contains(t.Roots, next) }})
	case len(s.roots.Roots) > 1:
		out = append(out, change{what: "drop the old authority", cond: s.authority,
			put: map[string]any{keyRoots: s.roots.after([][]byte{s.ca.Cert.Raw})},
			has: func(t trust) bool { return t.Issuer == ca }})
	}
	return out
}

func (r roots) after(next [][]byte) roots { return roots{Generation: r.Generation + 1, Roots: next} }

// apply writes one step, unless somebody else has.
func (c *Cluster) apply(ctx context.Context, ch change) error {
	t := store.Txn{If: ch.cond}
	for key, v := range ch.put {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("encode %s: %w", key, err)
		}
		t.Then = append(t.Then, store.Op{Key: key, Value: b})
	}
	for _, key := range ch.del {
		t.Then = append(t.Then, store.Op{Key: key, Delete: true})
	}
	_, err := c.store.Txn(ctx, t)
	return err
}

// Authority is the certificate of who signs the members', as this host's replica of the Store has it; nil for a host that is
// alone.
func (c *Cluster) Authority(ctx context.Context) (*x509.Certificate, error) {
	if !c.Clustered() {
		return nil, nil
	}
	s, err := c.readSecrets(ctx, false)
	if err != nil {
		return nil, err
	}
	return s.ca.Cert, nil
}

// RotateAuthority begins to replace the cluster's certificate authority: whoever has the key of the old one, a host that
// was removed for example, can vouch for nobody any more when it is done. Join tokens made before are good no more.
func (c *Cluster) RotateAuthority(ctx context.Context) error {
	if !c.Clustered() {
		return fmt.Errorf("rotate authority: this host is a cluster of its own: %w", errdefs.ErrFailedPrecondition)
	}
	next, err := identity.NewAuthority(c.ID(), c.now())
	if err != nil {
		return err
	}
	for {
		s, err := c.readSecrets(ctx, true)
		if err != nil {
			return fmt.Errorf("rotate authority: %w", err)
		}
		accepted := s.roots.Roots
		if s.next != nil { // it never signed anything
			accepted = slices.DeleteFunc(slices.Clone(accepted), func(der []byte) bool { return bytes.Equal(der, s.next.Cert.Raw) })
		}
		err = c.apply(ctx, change{cond: s.authority, put: map[string]any{
			keyNextCA: next, keyRoots: s.roots.after(append(slices.Clone(accepted), next.Cert.Raw)),
		}})
		if err == nil {
			c.log.Info("rotating the cluster's authority", "next", digest(next.Cert.Raw))
		}
		if !errdefs.IsConflict(err) {
			return err
		}
	}
}

// rotateKeys begins to replace the gossip key.
func (c *Cluster) rotateKeys(ctx context.Context) error {
	key := make([]byte, gossipKeyBytes)
	rand.Read(key)
	for {
		s, err := c.readSecrets(ctx, true)
		if err != nil {
			return err
		}
		err = c.apply(ctx, change{cond: s.gossip, put: map[string]any{keyGossip: append(slices.Clone(s.keys), key), keyFresh: digest(key)}})
		if !errdefs.IsConflict(err) {
			return err
		}
	}
}

// Rotation tells whether a key or an authority is being replaced, and which live members have not done the step that all
// wait for.
func (c *Cluster) Rotation(ctx context.Context) (under bool, waiting []string, err error) {
	s, err := c.readSecrets(ctx, false)
	if err != nil || !s.under() {
		return false, nil, err
	}
	plan := s.plan()
	for name, t := range c.askTrust(ctx) {
		if t == nil || slices.ContainsFunc(plan, func(ch change) bool { return !ch.has(*t) }) {
			waiting = append(waiting, name)
		}
	}
	slices.Sort(waiting)
	return true, waiting, nil
}

// FinishRotation takes every step that is left without waiting for anybody. Members that have not followed renew their
// certificates when they find that theirs are good no more.
func (c *Cluster) FinishRotation(ctx context.Context) error {
	for {
		s, err := c.readSecrets(ctx, true)
		if err != nil {
			return fmt.Errorf("finish rotation: %w", err)
		}
		plan := s.plan()
		if len(plan) == 0 {
			return nil
		}
		for _, ch := range plan {
			if err := c.apply(ctx, ch); err != nil && !errdefs.IsConflict(err) {
				return fmt.Errorf("%s: %w", ch.what, err)
			}
		}
	}
}

// askTrust asks this host and all live members what they have in use; nil is who does not answer.
func (c *Cluster) askTrust(ctx context.Context) map[string]*trust {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out := map[string]*trust{}
	own, err := c.trusts()
	if err == nil {
		out[c.Self().Name] = &own
	}
	s := c.session()
	if s == nil {
		return out
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, n := range c.live() {
		wg.Go(func() {
			t, err := rpc.Call[struct{}, trust](ctx, s.client, string(n.ID), callTrust, struct{}{}, true)
			mu.Lock()
			defer mu.Unlock()
			out[n.Name] = &t
			if err != nil {
				out[n.Name] = nil
			}
		})
	}
	wg.Wait()
	return out
}

// keepRotating lets the leader take the next step as soon as every live member has done the one before.
func (c *Cluster) keepRotating(ctx context.Context) {
	everySecond(ctx, func() (done bool) {
		if c.session() != nil && c.decider().IsLeader() {
			c.rotateOn(ctx)
		}
		return false
	})
}

func (c *Cluster) rotateOn(ctx context.Context) {
	s, err := c.readSecrets(ctx, false)
	if err != nil || !s.under() {
		return
	}
	all := c.askTrust(ctx)
	for _, ch := range s.plan() {
		ready := true
		for _, t := range all {
			ready = ready && t != nil && ch.has(*t)
		}
		if !ready {
			continue
		}
		switch err := c.apply(ctx, ch); {
		case err == nil:
			c.log.Info("rotation goes on", "step", ch.what)
		case !errdefs.IsConflict(err):
			c.log.Warn("cannot go on with a rotation", "step", ch.what, "err", err)
		}
	}
}

// watchAuthority makes this host accept and use what the Store says.
func (c *Cluster) watchAuthority(batches <-chan []store.Event) {
	for batch := range batches {
		if !slices.ContainsFunc(batch, func(e store.Event) bool { return strings.HasPrefix(e.Pair.Key, keyCA) }) {
			continue
		}
		c.op.Lock()
		if err := c.renewRunning(c.now()); err != nil && c.ctx.Err() == nil {
			c.log.Warn("cannot follow the cluster's authority", "err", err)
		}
		c.op.Unlock()
	}
}

// renewRequest is what a member says whose certificate is good no more. Both ends have proved to have the keys that their
// IDs are made of; the authority does not come into it.
type renewRequest struct {
	Request    []byte `json:"request"` // to be signed, PKCS #10
	Generation uint64 `json:"generation"`
}

type renewReply struct {
	Certificate []byte   `json:"certificate"` // DER
	Authority   []byte   `json:"authority"`   // DER
	Roots       roots    `json:"roots"`
	Keys        [][]byte `json:"keys"`
}

// serveRenew gives a member that missed a rotation a certificate of the present authority.
func (c *Cluster) serveRenew(ctx context.Context, r renewRequest) (renewReply, error) {
	s, err := c.readSecrets(ctx, false)
	if err != nil {
		return renewReply{}, err
	}
	if s.roots.Generation <= r.Generation {
		return renewReply{}, fmt.Errorf("renew certificate: this host knows no newer authority: %w", errdefs.ErrFailedPrecondition)
	}
	cert, id, err := s.ca.Sign(r.Request, c.now())
	if err != nil {
		return renewReply{}, err
	}
	if peer := rpc.Peer(ctx); peer != id {
		return renewReply{}, fmt.Errorf("node %s may not have a certificate of node %s: %w", peer, id, errdefs.ErrPermissionDenied)
	}
	c.log.Info("renewed a member's certificate", "node", id, "name", c.nameOf(NodeID(id)))
	return renewReply{Certificate: cert, Authority: s.ca.Cert.Raw, Roots: s.roots, Keys: s.keys}, nil
}

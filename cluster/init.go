package cluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/identity"
	"github.com/minictl/minictl/cluster/store"
)

const gossipKeyBytes = 32 // AES-256

// errClustered is what Init and Join say on a host that is a member.
func (c *Cluster) errClustered(verb string) error {
	if c.snapshotState().Leaving {
		return fmt.Errorf("%s cluster: this host is still leaving cluster %s, since its daemon ended in the middle of that: try again in a moment, or run `minictl cluster leave --force`: %w", verb, c.ID(), errdefs.ErrUnavailable)
	}
	return fmt.Errorf("%s cluster: this host is a node of cluster %s already: run `minictl cluster leave` first: %w", verb, c.ID(), errdefs.ErrFailedPrecondition)
}

// Init opens this host's cluster of one for others. What it has decided so far, networks for example, stays.
func (c *Cluster) Init(ctx context.Context, o InitOptions) error {
	if err := c.begin("init"); err != nil {
		return err
	}
	defer c.op.Unlock()
	if err := c.errExternal("init"); err != nil {
		return err
	}
	if c.Clustered() {
		return c.errClustered("init")
	}
	self := o.node(c.Self())
	if err := self.check(); err != nil {
		return fmt.Errorf("init cluster: %w", err)
	}
	before := c.snapshotState()
	if err := c.found(ctx, self); err != nil {
		c.stopSession()
		c.restoreState(before)
		return fmt.Errorf("init cluster: %w", err)
	}
	c.noteInterfaces()
	return nil
}

// found makes authority, keys and the first node record, and listens.
func (c *Cluster) found(ctx context.Context, self Node) error {
	now := c.now()
	ca, err := identity.NewAuthority(c.ID(), now)
	if err != nil {
		return err
	}
	cred, err := ca.Issue(c.node, now)
	if err != nil {
		return err
	}
	if err := cred.Save(c.files.identity()); err != nil {
		return err
	}
	if err := c.cfg.Step("init-credentials"); err != nil {
		return err
	}
	key := make([]byte, gossipKeyBytes)
	rand.Read(key)
	c.mu.Lock()
	c.st.Self, c.st.Keys, c.st.Clustered = self, [][]byte{key}, true
	c.st.Nodes, c.nodes = []Node{self}, map[NodeID]Node{self.ID: self}
	c.mu.Unlock()
	if err := c.startSession(cred); err != nil { // before the Store is written: the address may be wrong
		return err
	}
	if err := c.cfg.Step("init-listening"); err != nil {
		return err
	}
	tok, err := identity.NewToken(ca.Cert, now.Add(identity.TokenLifetime))
	if err != nil {
		return err
	}
	if err := c.writeFoundation(ctx, self, ca, key, tok); err != nil {
		return err
	}
	if err := c.cfg.Step("init-founded"); err != nil {
		return err
	}
	return c.saveState()
}

func (c *Cluster) writeFoundation(ctx context.Context, self Node, ca *identity.Authority, key []byte, tok identity.Token) error {
	var ops []store.Op
	for _, kv := range []struct {
		key   string
		value any
	}{
		{keyCA, ca},
		{keyGossip, [][]byte{key}},
		{prefixToken + tok.ID(), tokenValue{Secret: tok.Secret, Expires: tok.Expires}},
		{nodeKey(self.ID), self},
		{nameKey(self.Name), self.ID},
	} {
		b, err := json.Marshal(kv.value)
		if err != nil {
			return fmt.Errorf("encode %s: %w", kv.key, err)
		}
		ops = append(ops, store.Op{Key: kv.key, Value: b})
	}
	_, err := c.store.Txn(ctx, store.Txn{Then: ops})
	return err
}

// snapshotState and restoreState undo a step that failed half way.
func (c *Cluster) snapshotState() state {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.st
}

func (c *Cluster) restoreState(st state) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.st = st
	c.nodes = map[NodeID]Node{}
	for _, n := range st.Nodes {
		c.nodes[n.ID] = n
	}
}

// changeState changes what cluster.json says, and what is so in memory once it is on disk.
func (c *Cluster) changeState(change func(st *state)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.st
	change(&st)
	if err := c.files.save(st); err != nil {
		return err
	}
	c.st = st
	return nil
}

func (c *Cluster) saveState() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.files.save(c.st)
}

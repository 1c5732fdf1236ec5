package cluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/gossip"
	"github.com/minictl/minictl/cluster/identity"
	"github.com/minictl/minictl/cluster/raft"
	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/store/external"
	"github.com/minictl/minictl/cluster/store/journal"
)

// External is a store outside the cluster that decides instead of its hosts.
type External struct {
	Name string // its address, as people may see it
	Dial func() (external.Remote, error)
	// Advertise gives this host's addresses for the others. It is asked again until it can: at boot the interface may not be up.
	Advertise func() (InitOptions, error)
}

const (
	keyCluster = "cluster"
	// enlistPause is between two attempts to come into the cluster of a store that does not answer.
	enlistPause = time.Second
)

// founding is what the key cluster says.
type founding struct {
	Cluster string `json:"cluster"`
	Epoch   string `json:"epoch"`
}

func decodeFounding(b []byte) (founding, error) {
	var f founding
	if err := json.Unmarshal(b, &f); err != nil {
		return f, fmt.Errorf("decode the cluster's identity: %w: %w", err, errdefs.ErrDataLoss)
	}
	if f.Cluster == "" || f.Epoch == "" {
		return f, fmt.Errorf("decode the cluster's identity: it is incomplete: %w", errdefs.ErrDataLoss)
	}
	return f, nil
}

// ExternalStore is the address of the store that decides; empty if the cluster's hosts do.
func (c *Cluster) ExternalStore() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.st.Store
}

// StoreError says why nothing can be decided now, where an external store decides; nil if it can, or the hosts do.
func (c *Cluster) StoreError() error {
	if e, ok := c.decider().(*outside); ok {
		return e.Usable()
	}
	return nil
}

// errExternal is what commands for a cluster of raft's say on a host whose daemon has been given an external store.
func (c *Cluster) errExternal(verb string) error {
	if c.cfg.External == nil {
		return nil
	}
	return fmt.Errorf("%s cluster: this host's daemon was started with --cluster-store %s: hosts come into that cluster by being started so, without init, join or token. For a cluster without that store start the daemon without the flag: %w",
		verb, c.cfg.External.Name, errdefs.ErrFailedPrecondition)
}

// outside is the backend of a host whose cluster's decisions are made elsewhere. No host leads, so each may do what
// otherwise the leader alone can.
type outside struct {
	*journal.Store
	remote external.Remote
}

var _ backend = (*outside)(nil)

func (c *Cluster) openExternal(id NodeID) (backend, error) {
	r, err := c.cfg.External.Dial()
	if err != nil {
		return nil, fmt.Errorf("cluster store %s: %w", c.cfg.External.Name, err)
	}
	return &outside{remote: r, Store: journal.Open(journal.Config{
		Remote: r, Name: c.cfg.External.Name, By: string(id), File: c.files.external(), Log: c.log.With("component", "store"),
	})}, nil
}

// Leader implements backend: the store is nobody's, and there or not.
func (o *outside) Leader() (string, bool) { return "", o.Usable() == nil }

// Err implements backend; StoreError tells what keeps this host from following.
func (*outside) Err() error { return nil }

// IsLeader implements backend.
func (*outside) IsLeader() bool { return true }

// AddLearner implements backend: nobody votes.
func (*outside) AddLearner(context.Context, string) error { return nil }

// Promote implements backend.
func (*outside) Promote(context.Context, string) error { return nil }

// Demote implements backend.
func (*outside) Demote(context.Context, string) error { return nil }

// RemoveNode implements backend.
func (*outside) RemoveNode(context.Context, string) error { return nil }

// TransferLeadership implements backend.
func (*outside) TransferLeadership(context.Context, string) error { return nil }

// LeaderChanged implements backend.
func (*outside) LeaderChanged() <-chan struct{} { return nil }

// LastContact implements backend: no host leads that could be heard.
func (*outside) LastContact() time.Time { return time.Time{} }

// LastLeader implements backend.
func (*outside) LastLeader() string { return "" }

// Prospect implements backend.
func (o *outside) Prospect() raft.Prospect {
	if o.Usable() != nil {
		return raft.Hopeless
	}
	return raft.Answered
}

// Unapplied implements backend: the replica follows the store, and does not know how far it is behind.
func (*outside) Unapplied() uint64 { return 0 }

// LocalTxn implements backend: no host asks another.
func (*outside) LocalTxn(context.Context, store.Txn) (store.Revision, error) {
	return 0, errNotAsked()
}

// LocalRange implements backend.
func (*outside) LocalRange(context.Context, string) ([]store.Pair, store.Revision, error) {
	return nil, 0, errNotAsked()
}

func errNotAsked() error {
	return fmt.Errorf("this cluster's decisions are made by an external store, not by this host: %w", errdefs.ErrFailedPrecondition)
}

// Configuration implements backend.
func (*outside) Configuration() []raft.Peer { return nil }

// Close implements backend.
func (o *outside) Close() error { return errors.Join(o.Store.Close(), o.remote.Close()) }

// chooseStore compares who decided until now with who shall. A host is never taken from one store to another with what
// it knows: it would bring along what the other has not decided.
func (c *Cluster) chooseStore(ctx context.Context) error {
	x, was := c.cfg.External, c.st.Store
	switch {
	case x == nil && was == "", x != nil && was == x.Name:
		return nil
	case x == nil && c.st.Clustered:
		return fmt.Errorf("the decisions of this host's cluster are made by %s: start the daemon with --cluster-store and that address; to take this host out of the cluster, run `minictl cluster leave` then: %w", was, errdefs.ErrFailedPrecondition)
	case was != "" && c.st.Clustered:
		if err := c.sameJournal(ctx); err != nil {
			return err
		}
	case c.st.Clustered:
		return fmt.Errorf("the decisions of this host's cluster are made by its own hosts, not by %s: to move this host, start the daemon without --cluster-store, run `minictl cluster leave`, and start it with --cluster-store again: %w", x.Name, errdefs.ErrFailedPrecondition)
	case was == "":
		if err := c.dropClusterOfOne(ctx); err != nil {
			return err
		}
	default: // it was never a member of the former one
		if err := removeFile(c.files.external()); err != nil {
			return err
		}
	}
	c.st.Store = ""
	if x != nil {
		c.st.Store = x.Name
	}
	return c.files.save(c.st)
}

// sameJournal accepts another address of the store that has decided until now.
func (c *Cluster) sameJournal(ctx context.Context) error {
	b, err := c.openExternal(c.st.Self.ID)
	if err != nil {
		return err
	}
	err = errors.Join(b.(*outside).Sync(ctx), b.Close())
	if err == nil {
		return nil
	}
	return fmt.Errorf("the decisions of this host's cluster are made by %s, and it is not certain that %s is the same store: start the daemon with --cluster-store and the former address; to move this host, run `minictl cluster leave` then, and start it with the new one: %w (%w)",
		c.st.Store, c.cfg.External.Name, err, errdefs.ErrFailedPrecondition)
}

// dropClusterOfOne forgets what this host has decided alone, which must not be networks.
func (c *Cluster) dropClusterOfOne(ctx context.Context) error {
	if _, err := os.Stat(c.files.raft()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	b, err := raft.Open(ctx, raft.Config{Dir: c.files.raft(), NodeID: string(c.st.Self.ID), Log: c.log.With("component", "raft"), Bootstrap: true})
	if err != nil {
		return err
	}
	if err := errors.Join(noNetworks(ctx, b), b.Close()); err != nil {
		return fmt.Errorf("use cluster store %s: %w (start the daemon without --cluster-store for that)", c.cfg.External.Name, err)
	}
	return os.RemoveAll(c.files.raft())
}

// startExternal takes part in the store's cluster, or goes on trying while the store or this host's address is not there.
func (c *Cluster) startExternal() error {
	if c.Clustered() {
		c.readdress()
		if err := c.listen(); err != nil {
			c.log.Warn("cannot take part in the cluster yet, trying again", "err", err)
			c.wg.Go(func() { c.listenLater(c.ctx) })
		}
		self := describe(c.Self())
		self.Version = c.cfg.Version
		c.mu.Lock()
		c.st.Self = self
		c.mu.Unlock()
		c.wg.Go(func() {
			c.writeSelf(c.ctx, self)
			c.warnIfRemoved(c.ctx)
		})
		return nil
	}
	err := c.enlist(c.ctx)
	if err == nil || !mayPass(err) {
		return err
	}
	c.log.Warn("cannot come into the cluster yet, trying again", "store", c.ExternalStore(), "err", err)
	c.wg.Go(func() { c.enlistLater(c.ctx) })
	return nil
}

// warnIfRemoved tells an operator why nobody talks to this host.
func (c *Cluster) warnIfRemoved(ctx context.Context) {
	if _, ok, err := store.Get(ctx, c.store, nodeKey(c.Self().ID), true); err == nil && !ok {
		c.log.Error("this host was removed from the cluster: run `minictl cluster leave --force` on it and restart its daemon to come in again", "store", c.ExternalStore())
	}
}

// mayPass tells whether it makes sense to try again without anybody doing anything here.
func mayPass(err error) bool {
	return !errdefs.IsAlreadyExists(err) && !errdefs.IsInvalidArgument(err) && !errdefs.IsDataLoss(err)
}

// readdress takes over the address that this host has now.
func (c *Cluster) readdress() {
	o, err := c.cfg.External.Advertise()
	if err != nil {
		c.log.Warn("this host's address is not there yet; its former one is kept", "err", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := o.node(c.st.Self)
	now.Joined = c.st.Self.Joined
	c.st.Self, c.nodes[now.ID] = now, now
	if err := c.files.save(c.st); err != nil {
		c.log.Warn("cannot remember this host's address", "err", err)
	}
}

func (c *Cluster) enlistLater(ctx context.Context) {
	tick := time.NewTicker(enlistPause)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		c.op.Lock()
		var err error
		if ctx.Err() == nil {
			err = c.enlist(ctx)
		}
		c.op.Unlock()
		if err == nil {
			return
		}
		if now := err.Error(); now != said && c.StoreError() == nil {
			c.log.Warn("cannot come into the cluster yet", "store", c.ExternalStore(), "err", err)
			said = now
		}
	}
}

// enlist makes this host a member of the cluster in the store, which it founds if there is none.
func (c *Cluster) enlist(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	o, err := c.cfg.External.Advertise()
	if err != nil {
		return err
	}
	self := o.node(c.Self())
	if err := self.check(); err != nil {
		return err
	}
	f, ca, err := c.findOrFound(ctx)
	if err != nil {
		return err
	}
	cred, err := ca.Issue(c.node, c.now())
	if err != nil {
		return err
	}
	if err := cred.Save(c.files.identity()); err != nil {
		return err
	}
	if err := c.register(ctx, self); err != nil {
		return err
	}
	before := c.snapshotState()
	if err := c.belong(ctx, f, self); err != nil {
		return err
	}
	if err := c.startSession(cred); err != nil {
		c.restoreState(before)
		return errors.Join(err, c.saveState())
	}
	c.greet(ctx)
	c.events.add(event{members: true})
	c.log.Info("this host is a member of the cluster in the store", "store", c.ExternalStore(), "cluster", f.Cluster)
	return nil
}

// findOrFound reads who the cluster is. Of hosts that find none at once, one founds it and the others find that.
func (c *Cluster) findOrFound(ctx context.Context) (founding, *identity.Authority, error) {
	for {
		p, ok, err := store.Get(ctx, c.store, keyCluster, true)
		if err != nil {
			return founding{}, nil, err
		}
		if ok {
			f, err := decodeFounding(p.Value)
			if err != nil {
				return f, nil, err
			}
			ca, err := c.authority(ctx)
			return f, ca, err
		}
		if err := c.foundOutside(ctx); err != nil && !errdefs.IsConflict(err) {
			return founding{}, nil, err
		}
	}
}

func (c *Cluster) foundOutside(ctx context.Context) error {
	ca, err := identity.NewAuthority(c.ID(), c.now())
	if err != nil {
		return err
	}
	key := make([]byte, gossipKeyBytes)
	rand.Read(key)
	t := store.Txn{If: []store.Cond{{Key: keyCluster}}}
	for _, kv := range []struct {
		key   string
		value any
	}{
		{keyCluster, founding{Cluster: c.ID(), Epoch: c.Epoch()}},
		{keyCA, ca},
		{keyGossip, [][]byte{key}},
	} {
		b, err := json.Marshal(kv.value)
		if err != nil {
			return fmt.Errorf("encode %s: %w", kv.key, err)
		}
		t.Then = append(t.Then, store.Op{Key: kv.key, Value: b})
	}
	_, err = c.store.Txn(ctx, t)
	return err
}

// belong writes down which cluster this host is a member of; the replica has all that is needed.
func (c *Cluster) belong(ctx context.Context, f founding, self Node) error {
	p, ok, err := store.Get(ctx, c.store, keyGossip, false)
	if err != nil || !ok {
		return fmt.Errorf("read gossip keys: there are none (%w): %w", errOr(err), errdefs.ErrDataLoss)
	}
	var keys [][]byte
	if err := json.Unmarshal(p.Value, &keys); err != nil || len(keys) == 0 {
		return fmt.Errorf("read gossip keys: %w: %w", errOr(err), errdefs.ErrDataLoss)
	}
	pairs, _, err := c.store.Range(ctx, prefixNode, false)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.st.Cluster, c.st.Epoch, c.st.Clustered, c.st.Self, c.st.Keys = f.Cluster, f.Epoch, true, self, keys
	c.st.Nodes, c.nodes = nil, map[NodeID]Node{}
	for _, p := range pairs {
		if n, err := decodeNode(p.Value); err == nil {
			c.st.Nodes = append(c.st.Nodes, n)
			c.nodes[n.ID] = n
		}
	}
	return c.files.save(c.st)
}

func errOr(err error) error {
	if err == nil {
		return errors.New("nothing is there")
	}
	return err
}

// greet calls the members that are there, and takes their records, so that names resolve when Open returns. Who does not
// answer in time is met by gossip later.
func (c *Cluster) greet(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	self, s := c.Self().ID, c.session()
	var peers []gossip.Peer
	for id, n := range c.known() {
		if id != self && n.Addr != (netip.AddrPort{}) {
			peers = append(peers, gossip.Peer{ID: string(id), Addr: n.Addr})
		}
	}
	if len(peers) == 0 {
		return
	}
	if _, err := s.gossip.Join(ctx, peers); err != nil {
		c.log.Debug("some members do not answer yet", "err", err)
	}
	for _, n := range c.live() {
		if err := c.fetch(ctx, s.client, n.ID, nil); err == nil {
			return
		}
	}
}

// leaveExternal removes every trace of this host from the store, and tells the others.
func (c *Cluster) leaveExternal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	if err := c.forget(ctx, c.Self().ID); err != nil {
		return err
	}
	if s := c.session(); s != nil && len(c.live()) > 0 {
		if err := s.gossip.Leave(leaveNotice); err != nil {
			c.log.Debug("leave gossip", "err", err) // they notice in seconds, and the node record is gone
		}
	}
	return nil
}

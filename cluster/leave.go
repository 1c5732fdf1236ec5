package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/identity"
	"github.com/minictl/minictl/cluster/records"
	"github.com/minictl/minictl/cluster/rpc"
	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/transport"
)

// opsPerTxn keeps one transaction small beside store.MaxTxn, whatever the keys' length.
const opsPerTxn = 1000

// leaveNotice is how long a leaving host waits until one other has heard it.
const leaveNotice = time.Second

// leaveTimeout bounds what the others are given to let this host go.
const leaveTimeout = 10 * time.Second

// Leave takes this host out of its cluster: the others drop its node record, the addresses it held and its endpoint
// records, and it is alone afterwards, with a new identity and an empty Store. Without force it fails, and nothing has
// changed, if the others cannot be told.
func (c *Cluster) Leave(ctx context.Context, force bool) error {
	if err := c.begin("leave"); err != nil {
		return err
	}
	defer c.op.Unlock()
	if !c.Clustered() {
		return fmt.Errorf("leave cluster: this host is not in a cluster with others: %w", errdefs.ErrFailedPrecondition)
	}
	if err := c.cfg.Step("leave-cluster"); err != nil {
		return fmt.Errorf("leave cluster: %w", err)
	}
	if err := c.passOn(ctx); err != nil {
		if !force {
			return fmt.Errorf("leave cluster: %w: to leave without the others' knowledge use --force", err)
		}
		c.log.Warn("leaving, and the others may not know all that was made on the side that this host has given up", "err", err)
	}
	c.leaving.Store(true)
	defer c.leaving.Store(false)
	goodbye := c.sayGoodbye
	if c.ExternalStore() != "" {
		goodbye = c.leaveExternal
	}
	err := c.setLeaving(true)
	if err == nil || force {
		err = errors.Join(err, goodbye(ctx))
	}
	if err != nil {
		if !force {
			return errors.Join(fmt.Errorf("leave cluster: %w: to leave without the others' knowledge use --force", err), c.setLeaving(false))
		}
		c.log.Warn("left the cluster without the others' knowledge", "err", err)
	}
	_ = c.cfg.Step("leave-said") // nothing goes back from here, whoever still waits for it
	return c.depart()
}

// passOn tells the others of what only this host may know, from a side that it has given up.
func (c *Cluster) passOn(ctx context.Context) error {
	if len(c.known()) <= 1 || c.ExternalStore() != "" {
		return nil
	}
	epoch, given := c.Epoch(), c.snapshotState().Given
	ctx, cancel := c.settling(ctx, leaveTimeout)
	defer cancel()
	if err := c.introduce(ctx); err != nil {
		return err
	}
	untold, err := c.Before(ctx)
	if err == nil && len(untold) > 0 {
		err = fmt.Errorf("the others have not heard yet of %d networks that were made on this host's side before a takeover: try again in a few seconds: %w", len(untold), errdefs.ErrUnavailable)
	}
	if err != nil || len(given) == 0 {
		return err
	}
	return c.changeTakeover(ctx, epoch, func(t *Takeover, _ *store.Txn) (bool, error) {
		t.know(given)
		return true, nil
	})
}

// depart is what is left of a Leave once the others know.
func (c *Cluster) depart() error {
	c.stopSession()
	if err := c.closeBackend(); err != nil {
		c.log.Warn("close the cluster's store", "err", err)
	}
	_ = c.cfg.Step("leave-closed")
	return c.startAfresh()
}

// setLeaving notes that the others may have been told: a daemon that dies before it is alone goes on with it.
func (c *Cluster) setLeaving(on bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.st.Leaving = on
	return c.files.save(c.st)
}

// finishLeave ends a Leave that an earlier daemon did not live to finish, as soon as one of the others has heard of it:
// it forgets this host, or does not know it any more.
func (c *Cluster) finishLeave(ctx context.Context) {
	everySecond(ctx, func() (done bool) {
		if !c.op.TryLock() { // Close waits for this goroutine
			return false
		}
		defer c.op.Unlock()
		if ctx.Err() != nil || !c.snapshotState().Leaving {
			return true
		}
		if !c.forgotten(ctx) {
			return false
		}
		if err := c.depart(); err != nil {
			c.log.Error("finish leaving the cluster, trying on", "err", err)
			return true
		}
		c.log.Info("left the cluster, as an earlier daemon had begun to")
		return true
	})
}

// forgotten asks the others one by one to drop this host.
func (c *Cluster) forgotten(ctx context.Context) bool {
	s, self, others := c.session(), c.Self().ID, c.known()
	delete(others, self)
	if len(others) == 0 {
		return true
	}
	if s == nil {
		return false
	}
	for id := range others {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		_, err := rpc.Call[memberRequest, appliedBody](call, s.client, string(id), callForget, memberRequest{ID: self}, true)
		cancel()
		if hasForgotten(err) {
			return true
		}
		c.log.Debug("cannot finish leaving the cluster yet", "node", id, "err", err)
	}
	return false
}

// hasForgotten tells from a member's answer to callForget whether it knows this host no more: it says so, or does not let it in.
// One that has gone on without this host, after a takeover, does not let it in and waits for it.
func hasForgotten(err error) bool {
	var answered *rpc.Error
	return err == nil || errdefs.IsPermissionDenied(err) && !errors.As(err, &answered) && !errors.Is(err, transport.ErrFenced)
}

// sayGoodbye removes every trace of this host from what the others know.
func (c *Cluster) sayGoodbye(ctx context.Context) error {
	self := c.Self()
	if len(c.known()) <= 1 {
		return nil // the last one: nobody to tell
	}
	s := c.session()
	if s == nil || len(c.live()) == 0 {
		return fmt.Errorf("no other member is alive: %w", errdefs.ErrUnavailable)
	}
	if c.decider().IsLeader() { // the vote first: if nobody can take it over, nothing has changed
		ctx, cancel := c.settling(ctx, leaveTimeout)
		defer cancel()
		if err := c.yield(ctx); err != nil {
			return err
		}
	}
	ctx, cancel := c.settling(ctx, leaveTimeout)
	defer cancel()
	if err := c.askForget(ctx, s.client, self.ID); err != nil {
		return err
	}
	if err := s.gossip.Leave(leaveNotice); err != nil {
		c.log.Debug("leave gossip", "err", err) // they notice in seconds, and the node record is gone
	}
	return nil
}

// askForget has another member drop this host, for once it is dropped nobody listens to it any more.
func (c *Cluster) askForget(ctx context.Context, client *rpc.Client, self NodeID) error {
	for {
		to, ok := c.Leader()
		if live := c.live(); (!ok || to == self) && len(live) > 0 {
			to = live[0].ID
		}
		_, err := rpc.Call[memberRequest, appliedBody](ctx, client, string(to), callForget, memberRequest{ID: self}, true)
		if hasForgotten(err) {
			return nil
		}
		select { // an heir may not know yet that it leads
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// Remove drops a node that is gone for good, named by name or ID: its record, its addresses and endpoint records, its
// part in the Store. A node that is alive must leave by itself; with force it is dropped all the same, and takes part in
// nothing from then on. What it knew and others could be deceived with goes too: join tokens at once, the gossip key as
// soon as every live member has another. It has had the authority's key as well, with which it can vouch for keys but
// makes none of them a member: see RotateAuthority.
func (c *Cluster) Remove(ctx context.Context, node string, force bool) error {
	if err := c.begin("change"); err != nil {
		return err
	}
	defer c.op.Unlock()
	members := c.Members()
	i := slices.IndexFunc(members, func(m Member) bool { return m.Name == node || string(m.ID) == node })
	if i < 0 {
		return fmt.Errorf("remove node %s: no such node: %w", node, errdefs.ErrNotFound)
	}
	m := members[i]
	if err := c.mayRemove(m, members, force); err != nil {
		return fmt.Errorf("remove node %s: %w", node, err)
	}
	steps := []func() error{
		func() error { _, err := c.onLeader(ctx, callRemove, memberRequest{ID: m.ID}, c.removePeer); return err },
		func() error { return c.forget(ctx, m.ID) },
		func() error {
			_, err := c.store.Txn(ctx, store.Txn{Then: []store.Op{{Key: prefixToken, Prefix: true}}})
			return err
		},
		func() error { return c.rotateKeys(ctx) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("remove node %s: %w", node, err)
		}
	}
	c.awaitUnknown(ctx, m.ID)
	return nil
}

// awaitUnknown waits a little until this host has heard from its replica that a node is no more, so that it is not listed
// by the next command.
func (c *Cluster) awaitUnknown(ctx context.Context, id NodeID) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for {
		c.mu.Lock()
		_, ok := c.nodes[id]
		news := c.news
		c.mu.Unlock()
		if !ok {
			return
		}
		select {
		case <-news:
		case <-ctx.Done():
			return
		}
	}
}

// mayRemove says why a node is not removed.
func (c *Cluster) mayRemove(m Member, members []Member, force bool) error {
	met := slices.ContainsFunc(c.Estranged(), func(e Estranged) bool { return e.ID == m.ID })
	switch {
	case m.ID == c.Self().ID:
		return fmt.Errorf("it is this host: run `minictl cluster leave`: %w", errdefs.ErrFailedPrecondition)
	case m.Alive && !force:
		return fmt.Errorf("it is alive: run `minictl cluster leave` on it, or, if it is in other hands, remove it with --force: %w", errdefs.ErrFailedPrecondition)
	case met && !force:
		return fmt.Errorf("it was met a moment ago, on another side of this cluster: let it join again first, or, if it is in other hands, remove it with --force: %w", errdefs.ErrFailedPrecondition)
	case m.Alive && m.Voter && !slices.ContainsFunc(members, func(o Member) bool { return o.Voter && o.ID != m.ID }):
		return fmt.Errorf("it is alive and decides alone: switch it off, and run `minictl cluster recover` here first: %w", errdefs.ErrFailedPrecondition)
	}
	return nil
}

// forget deletes a node's records from the Store: addresses first, so that a crash half way leaves a node that can leave
// again; and once more those that it asked for before the others had heard that it is none of them.
func (c *Cluster) forget(ctx context.Context, id NodeID) error {
	ops, err := c.addressesOf(ctx, id)
	if err != nil {
		return err
	}
	nodes, _, err := c.store.Range(ctx, nodeKey(id), true)
	if err != nil {
		return fmt.Errorf("drop node: %w", err)
	}
	for _, p := range nodes {
		if n, err := decodeNode(p.Value); err == nil && n.ID == id {
			ops = append(ops, store.Op{Key: nameKey(n.Name), Delete: true})
		}
	}
	ops = append(ops, store.Op{Key: nodeSpecKey(id), Delete: true}, store.Op{Key: nodeKey(id), Delete: true})
	if err := c.drop(ctx, ops); err != nil {
		return err
	}
	if ops, err = c.addressesOf(ctx, id); err != nil {
		return err
	}
	return c.drop(ctx, ops)
}

// addressesOf deletes, when it is carried out, the addresses that a node holds.
func (c *Cluster) addressesOf(ctx context.Context, id NodeID) (ops []store.Op, err error) {
	pairs, _, err := c.store.Range(ctx, prefixAddress, true)
	if err != nil {
		return nil, fmt.Errorf("free addresses: %w", err)
	}
	for _, p := range pairs {
		var v struct {
			Node NodeID `json:"node"`
		}
		if json.Unmarshal(p.Value, &v) == nil && v.Node == id {
			ops = append(ops, store.Op{Key: p.Key, Delete: true})
		}
	}
	return ops, nil
}

// drop carries out any number of deletions.
func (c *Cluster) drop(ctx context.Context, ops []store.Op) error {
	for len(ops) > 0 {
		n := min(len(ops), opsPerTxn)
		if _, err := c.store.Txn(ctx, store.Txn{Then: ops[:n]}); err != nil {
			return fmt.Errorf("drop node: %w", err)
		}
		ops = ops[n:]
	}
	return nil
}

// startAfresh makes this host a new cluster of one, now, or as soon as it can be.
func (c *Cluster) startAfresh() error {
	closed := c.decider()
	err := c.forgetAll()
	if err != nil {
		c.comeBack(closed, c.forgetAll)
		return fmt.Errorf("leave cluster: %w", err)
	}
	return nil
}

func (c *Cluster) forgetAll() error {
	st, err := c.files.reset()
	if err != nil {
		return err
	}
	_ = c.cfg.Step("leave-afresh")
	node, err := identity.Load(c.files.identity())
	if err != nil {
		return err
	}
	st.Incarnation = nextIncarnation(0, time.Now())
	st.Self = describe(Node{ID: NodeID(node.ID), Name: c.cfg.Name, Version: c.cfg.Version, Witness: c.cfg.Witness})
	c.mu.Lock()
	c.st, c.node = st, node
	c.nodes = map[NodeID]Node{}
	c.mu.Unlock()
	gone := c.pub.restart(node.ID, st.Incarnation)
	if err := c.openStore(); err != nil {
		return err
	}
	c.applied(c.ctx, gone)
	c.events.add(event{members: true})
	return nil
}

// restart empties the table for a host that is somebody else now, and names the networks that had records.
func (p *publisher) restart(self string, incarnation uint64) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var networks []string
	for _, owner := range p.table.Owners() {
		networks = append(networks, p.table.Drop(owner)...)
	}
	p.table = records.New(self, incarnation, nil)
	return networks
}

// dropOthers forgets all other hosts' records.
func (p *publisher) dropOthers() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, owner := range p.table.Owners() {
		p.table.Drop(owner)
	}
}

// serveForget drops a node that leaves, or one whose join failed half way. A host may ask this for itself only.
func (c *Cluster) serveForget(ctx context.Context, r memberRequest, peer string) (appliedBody, error) {
	if peer != string(r.ID) {
		return appliedBody{}, fmt.Errorf("node %s may not remove node %s: %w", peer, r.ID, errdefs.ErrPermissionDenied)
	}
	if _, err := c.onLeader(ctx, callRemove, memberRequest{ID: r.ID}, c.removePeer); err != nil {
		return appliedBody{}, err
	}
	return appliedBody{}, c.forget(ctx, r.ID)
}

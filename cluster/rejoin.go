package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/identity"
	"github.com/minictl/minictl/cluster/rpc"
	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/transport"
)

// metFor is how long a meeting with a member of another epoch counts: it is tried every few seconds.
const metFor = 15 * time.Second

// meeting is a member that was met and whose epoch is not this host's.
type meeting struct {
	node  NodeID
	fence transport.Fence
	addr  netip.AddrPort // where it says it listens; invalid: it did not say
	at    time.Time
}

// Estranged is a member that is there and takes no part in what this host takes part in.
type Estranged struct {
	ID    NodeID
	Epoch string
	How   transport.Relation // Behind, Ahead or Split
}

// Estranged lists those that were met lately, by node ID.
func (c *Cluster) Estranged() []Estranged {
	c.mu.Lock()
	defer c.mu.Unlock()
	own := c.st.fence()
	var out []Estranged
	for _, m := range c.met {
		if c.sess != nil && c.sess.gossip.Alive(string(m.node)) {
			continue // it takes part since
		}
		if r := own.Compare(m.fence); r != transport.Same && time.Since(m.at) < metFor {
			out = append(out, Estranged{m.node, m.fence.Epoch, r})
		}
	}
	slices.SortFunc(out, func(a, b Estranged) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// meet is told of a member with another fence.
func (c *Cluster) meet(ctx context.Context, m meeting) {
	c.mu.Lock()
	own, old := c.st.fence(), c.met[m.node]
	if c.met == nil {
		c.met = map[NodeID]meeting{}
	}
	c.met[m.node] = m
	c.mu.Unlock()
	first := old.fence.Epoch != m.fence.Epoch || m.at.Sub(old.at) > metFor
	switch own.Compare(m.fence) {
	case transport.Ahead:
		c.followTakeover(ctx, m.node)
	case transport.Split:
		if first {
			c.log.Error("both sides of this cluster were taken over: run `minictl cluster rejoin` on the hosts of one side",
				"node", m.node, "name", c.nameOf(m.node), "there", m.fence.Epoch, "here", own.Epoch)
		}
	case transport.Behind:
		if first {
			c.log.Info("a member is from before the takeover, and is told to join again", "node", m.node, "name", c.nameOf(m.node))
		}
	}
}

// followTakeover joins again what has gone on without this host. Somebody decided that; this host only follows.
func (c *Cluster) followTakeover(ctx context.Context, via NodeID) {
	if !c.op.TryLock() {
		return // it is met again
	}
	var r rejoined
	var err error
	if ctx.Err() == nil && c.Clustered() {
		r, err = c.rejoin(ctx, via, false)
	}
	c.op.Unlock()
	if err != nil {
		c.log.Warn("cannot join again after a takeover, trying on", "node", via, "name", c.nameOf(via), "err", err)
		return
	}
	c.settleAgain(ctx, r)
}

// Rejoin gives up what this side of a cluster that was taken over twice has decided, and joins the other side. via names
// a member of it, by name or ID; it may be empty if there is only one other side. After an error this host is on either side,
// and if that is the other one it goes on by itself.
func (c *Cluster) Rejoin(ctx context.Context, via string) error {
	r, err := c.giveUp(ctx, via)
	if err != nil {
		return err
	}
	c.settleAgain(ctx, r)
	return nil
}

func (c *Cluster) giveUp(ctx context.Context, via string) (rejoined, error) {
	if err := c.begin("rejoin"); err != nil {
		return rejoined{}, err
	}
	defer c.op.Unlock()
	if err := c.errExternal("rejoin"); err != nil {
		return rejoined{}, err
	}
	to, err := c.otherSide(via)
	if err != nil {
		return rejoined{}, fmt.Errorf("rejoin cluster: %w", err)
	}
	r, err := c.rejoin(ctx, to, true)
	if err != nil {
		return rejoined{}, fmt.Errorf("rejoin cluster: %w", err)
	}
	return r, nil
}

// rejoined is a host that has joined, or joined again, and waits for what it must know.
type rejoined struct {
	session *session // nil: it cannot listen yet
	backend backend
	admitReply
}

// settleAgain waits until a host that has joined again knows all it must. Meanwhile it may have to follow others: whom it has
// joined may be given up in turn.
func (c *Cluster) settleAgain(ctx context.Context, r rejoined) {
	if r.session == nil {
		return // listenLater goes on
	}
	ctx, cancel := c.settling(ctx, settleTimeout)
	defer cancel()
	if err := c.settle(ctx, r); err != nil {
		c.log.Warn("joined again, and not all is known here yet", "err", err) // ensureMember goes on
	}
}

func (c *Cluster) otherSide(via string) (NodeID, error) {
	var to []Estranged
	var names []string
	epochs := map[string]bool{}
	for _, e := range c.Estranged() {
		if e.How == transport.Behind || via != "" && via != string(e.ID) && via != c.nameOf(e.ID) {
			continue
		}
		to = append(to, e)
		names = append(names, c.nameOf(e.ID))
		epochs[e.Epoch] = true
	}
	switch {
	case len(to) == 0 && via != "":
		return "", fmt.Errorf("%s is not met on another side of this cluster: %w", via, errdefs.ErrFailedPrecondition)
	case len(to) == 0:
		return "", fmt.Errorf("no host is met on another side of this cluster: there is nothing to join again: %w", errdefs.ErrFailedPrecondition)
	case len(epochs) > 1:
		return "", fmt.Errorf("there are several other sides: name a host of the one to join: %s: %w", strings.Join(names, ", "), errdefs.ErrInvalidArgument)
	}
	return to[0].ID, nil
}

// rejoinRequest is what a host from before a takeover says, over a protocol that carries nothing else.
type rejoinRequest struct {
	Fence   transport.Fence `json:"fence"`
	Discard bool            `json:"discard,omitempty"` // the operator has said so: this side's own takeover is given up
}

// rejoin replaces this host's replica by the one of the members that went on without it. Its identity, its endpoint
// records and whatever runs stay. What it had decided alone is kept until the daemon has looked at it (Before).
func (c *Cluster) rejoin(ctx context.Context, via NodeID, discard bool) (rejoined, error) {
	ctx, cancel := c.settling(ctx, settleTimeout)
	defer cancel()
	r, err := c.askRejoin(ctx, via, discard)
	if err != nil {
		return rejoined{}, err
	}
	if err := c.keepBefore(ctx); err != nil { // what can be seen to fail is to fail before anything is closed
		return rejoined{}, err
	}
	c.log.Warn("joining again after a takeover", "before", c.Epoch(), "epoch", r.Epoch, "node", via, "name", c.nameOf(via))
	c.stopSession()
	c.suspendOthers(ctx)
	closed := c.decider()
	if err := c.changeSides(ctx, r); err != nil {
		c.comeBack(closed, c.openStore)
		return rejoined{}, err
	}
	c.resume()
	return rejoined{c.session(), c.decider(), r}, nil
}

// changeSides puts an empty replica of the side that went on in the place of this host's. After an error the store is closed,
// and cluster.json names the side that this host is on.
func (c *Cluster) changeSides(ctx context.Context, r admitReply) error {
	if err := c.closeBackend(); err != nil {
		c.log.Warn("close the cluster's store", "err", err)
	}
	// All that was ever acknowledged: nothing comes any more.
	err := c.step("rejoin-keep", func() error { return c.keepBefore(ctx) })
	if err == nil {
		err = c.step("rejoin-adopt", func() error { return c.adoptEpoch(r) })
		c.suspendOthers(ctx) // there are some that this host did not know
	}
	if err != nil { // this host stays what it is, and has its networks
		return errors.Join(err, c.saveBefore(nil))
	}
	return c.step("rejoin-replica", c.openStore)
}

// keepBefore writes down what this side has, but addresses: those are the hosts' that have them.
func (c *Cluster) keepBefore(ctx context.Context) error {
	networks, _, err := c.decider().Range(ctx, prefixNetwork, false)
	if err != nil {
		return err
	}
	nodes, _, err := c.decider().Range(ctx, prefixNodes, false)
	if err != nil {
		return err
	}
	return c.saveBefore(slices.Concat(networks, nodes))
}

// openStore opens the store that cluster.json names, after what that says is to be done first.
func (c *Cluster) openStore() error {
	if err := c.saveState(); err != nil {
		return err
	}
	if err := c.finishEpoch(c.ctx); err != nil {
		return err
	}
	return c.reopenBackend(c.ctx, !c.Clustered())
}

// reopen opens a store in the place of the closed one, now, or as soon as it can be.
func (c *Cluster) reopen() error {
	closed := c.decider()
	err := c.openStore()
	if err != nil {
		c.comeBack(closed, c.openStore)
	}
	return err
}

// comeBack makes this host take part again after its store was closed and no other could be opened, for want of room on
// the disk, say: open is tried until it succeeds, or another operation has opened one.
func (c *Cluster) comeBack(closed backend, open func() error) {
	c.wg.Go(func() {
		everySecond(c.ctx, func() (done bool) {
			if !c.op.TryLock() {
				return false
			}
			defer c.op.Unlock()
			if c.ctx.Err() != nil || c.decider() != closed {
				return true
			}
			if err := open(); err != nil {
				c.log.Warn("cannot open the cluster's store again, trying on", "err", err)
				return false
			}
			if c.Clustered() {
				c.resume()
			}
			return true
		})
	})
}

func (c *Cluster) askRejoin(ctx context.Context, via NodeID, discard bool) (admitReply, error) {
	s := c.session()
	if s == nil {
		return admitReply{}, fmt.Errorf("this host is not listening: %w", errdefs.ErrUnavailable)
	}
	client := rpc.NewClient(func(ctx context.Context, id string) (net.Conn, error) {
		if addr := c.metAt(via); addr.IsValid() {
			return s.tr.DialAddr(ctx, id, addr.String(), transport.Rejoin)
		}
		return s.tr.Dial(ctx, id, transport.Rejoin)
	})
	defer client.Close()
	own := c.snapshotState().fence()
	r, err := rpc.Call[rejoinRequest, admitReply](ctx, client, string(via), callRejoin, rejoinRequest{own, discard}, true)
	if err != nil {
		return admitReply{}, err
	}
	if err := r.check(); err != nil {
		return admitReply{}, err
	}
	if theirs := (transport.Fence{Cluster: r.Cluster, Epoch: r.Epoch, Past: r.Past}); own.Compare(theirs) != transport.Ahead {
		return admitReply{}, fmt.Errorf("node %s does not know epoch %s of this host: %w", c.nameOf(via), own.Epoch, errdefs.ErrFailedPrecondition)
	}
	return r, nil
}

// metAt is where a member of another epoch said it listens: what this host's table says of it is from before.
func (c *Cluster) metAt(id NodeID) netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.met[id].addr
}

// adoptEpoch makes this host one of those that went on. From here a crash leaves a host without a replica that asks for
// one.
func (c *Cluster) adoptEpoch(r admitReply) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.st
	st.Given = append(slices.Clone(st.Given), sideLeft{st.Epoch, store.Revision(c.backend.AppliedIndex())})
	st.Epoch, st.Past, st.Keys, st.Nodes, st.Rejoining, st.Unnoted = r.Epoch, r.Past, r.Keys, r.Nodes, true, false
	st.Authority, st.Taken = r.Roots.Generation, nil
	if err := c.files.save(st); err != nil {
		return err
	}
	c.st, c.met = st, nil
	c.nodes = map[NodeID]Node{}
	for _, n := range r.Nodes {
		c.nodes[n.ID] = n
	}
	return nil
}

func (c *Cluster) dropReplica() error {
	if err := os.RemoveAll(c.files.raft()); err != nil {
		return err
	}
	// A failure is no harm: it is dropped again, the next time: nothing has been received yet
	return c.changeState(func(st *state) { st.Rejoining = false })
}

// serveRejoin lets a member from before a takeover in again. Any member can, as long as somebody decides.
func (c *Cluster) serveRejoin(ctx context.Context, r rejoinRequest) (admitReply, error) {
	peer := NodeID(rpc.Peer(ctx))
	st := c.snapshotState()
	own := st.fence()
	if st.Unnoted {
		return admitReply{}, fmt.Errorf("let node %s join again: this host's takeover is not noted yet: %w", c.nameOf(peer), errdefs.ErrUnavailable)
	}
	switch own.Compare(r.Fence) {
	case transport.Behind:
	case transport.Split:
		if !r.Discard {
			return admitReply{}, own.Check(r.Fence)
		}
	default:
		return admitReply{}, fmt.Errorf("node %s has nothing to join again: %w", peer, errdefs.ErrFailedPrecondition)
	}
	if err := c.absorb(ctx, peer, r.Fence); err != nil {
		return admitReply{}, fmt.Errorf("let node %s join again: %w", c.nameOf(peer), err)
	}
	c.log.Info("let a member from before a takeover join again", "node", peer, "name", c.nameOf(peer))
	return c.welcome(ctx)
}

// absorb notes that a host is back, and that its epochs are past: those who are still in one of them follow.
func (c *Cluster) absorb(ctx context.Context, peer NodeID, theirs transport.Fence) error {
	var past []string
	err := c.changeTakeover(ctx, c.Epoch(), func(t *Takeover, txn *store.Txn) (bool, error) {
		past = nil
		epochs, err := c.readFresh(ctx, keyEpochs, &past)
		if err != nil {
			return false, err
		}
		past = addEpochs(addEpochs(past, theirs.Past...), theirs.Epoch)
		t.Missing = slices.DeleteFunc(t.Missing, func(id NodeID) bool { return id == peer })
		if !slices.Contains(t.Settling, peer) {
			t.Settling = append(t.Settling, peer)
		}
		value, err := json.Marshal(past)
		txn.If, txn.Then = append(txn.If, epochs), append(txn.Then, store.Op{Key: keyEpochs, Value: value})
		return true, err
	})
	if err == nil {
		c.addPast(past)
	}
	return err
}

// carried encodes what replaces a key's value, with what a newer daemon has put there.
func (c *Cluster) carried(ctx context.Context, key string, v any) (json.RawMessage, error) {
	p, _, err := store.Get(ctx, c.store, key, false)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return store.Carry(p.Value, v)
}

// readFresh decodes a key's value, if there is one, and gives the condition that it has not changed.
func (c *Cluster) readFresh(ctx context.Context, key string, v any) (store.Cond, error) {
	p, ok, err := store.Get(ctx, c.store, key, true)
	if err == nil && ok {
		err = json.Unmarshal(p.Value, v)
	}
	if err != nil {
		return store.Cond{}, fmt.Errorf("read %s: %w", key, err)
	}
	return store.Cond{Key: key, Rev: p.Rev}, nil
}

func (f files) before() string { return f.dir + "/before.json" }

// BeforePair is a network or a node that this host knew on a side that it has given up.
type BeforePair struct {
	store.Pair

	Epoch string `json:"epoch,omitempty"` // that side's
	asked string // the epoch in which Before gave it
}

// saveBefore keeps what this side has, in the place of what it had a moment ago. What was kept of other sides stays, but for
// what this one has too.
func (c *Cluster) saveBefore(pairs []store.Pair) error {
	epoch := c.Epoch()
	return c.changeBefore(func(old []BeforePair) []BeforePair {
		old = slices.DeleteFunc(old, func(o BeforePair) bool {
			return o.Epoch == epoch || slices.ContainsFunc(pairs, func(p store.Pair) bool { return p.Key == o.Key })
		})
		for _, p := range pairs {
			old = append(old, BeforePair{Pair: p, Epoch: epoch})
		}
		return old
	})
}

// changeBefore replaces the list by what is made of it.
func (c *Cluster) changeBefore(change func([]BeforePair) []BeforePair) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	list, err := c.files.loadBefore()
	if err != nil {
		return err
	}
	if list = change(list); len(list) == 0 {
		return removeFile(c.files.before())
	}
	b, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("keep what this host had decided: %w", err)
	}
	return identity.WriteFile(c.files.before(), b)
}

func (f files) loadBefore() ([]BeforePair, error) {
	b, err := os.ReadFile(f.before())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var out []BeforePair
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		return nil, fmt.Errorf("read what this host had decided: %w", err)
	}
	return out, nil
}

// Before gives the networks that this host knew before it joined again after a takeover and that the other side never
// has: the daemon decides what becomes of them, and says ForgetBefore.
func (c *Cluster) Before(ctx context.Context) ([]BeforePair, error) {
	list, err := c.before(func(p BeforePair) bool { return !p.isNode() })
	epoch := c.Epoch()
	if err != nil || len(list) == 0 {
		return nil, err
	}
	b := c.decider()
	var t Takeover
	last, err := c.readFresh(ctx, keyTakeover, &t)
	if err != nil {
		return nil, err
	}
	if err := b.WaitApplied(ctx, uint64(last.Rev)); err != nil { // what is forgotten is to be in this host's replica
		return nil, err
	}
	known := slices.DeleteFunc(slices.Clone(list), func(p BeforePair) bool { return !t.has(p) })
	list = slices.DeleteFunc(list, t.has)
	for i := range list {
		list[i].asked = epoch
	}
	return list, c.forgetBefore(known)
}

// before gives some of what this host knew on the sides that it has given up. What it has of the present one is there for
// the moment in which that is given up.
func (c *Cluster) before(some func(BeforePair) bool) ([]BeforePair, error) {
	list, err := c.files.loadBefore()
	now := c.Epoch()
	return slices.DeleteFunc(list, func(p BeforePair) bool { return p.Epoch == now || !some(p) }), err
}

// isNode tells what is a node's: its record, its name, what people wish of it.
func (p BeforePair) isNode() bool { return strings.HasPrefix(p.Key, prefixNodes) }

// ForgetBefore ends what Before gave them for, here and for those who come with the same ones later: somebody may have
// removed them by then. Others may have come since.
func (c *Cluster) ForgetBefore(ctx context.Context, seen []BeforePair) error {
	list, err := c.before(func(p BeforePair) bool { return slices.ContainsFunc(seen, p.is) })
	if err != nil || len(list) == 0 {
		return err
	}
	err = c.changeTakeover(ctx, seen[0].asked, func(t *Takeover, _ *store.Txn) (bool, error) {
		for _, p := range list {
			t.add(p.Key)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	return c.forgetBefore(list)
}

func (c *Cluster) forgetBefore(gone []BeforePair) error {
	return c.changeBefore(func(old []BeforePair) []BeforePair { return without(old, gone) })
}

func without(list, gone []BeforePair) []BeforePair {
	return slices.DeleteFunc(list, func(p BeforePair) bool { return slices.ContainsFunc(gone, p.is) })
}

func (p BeforePair) is(o BeforePair) bool {
	return p.Key == o.Key && p.Rev == o.Rev && p.Epoch == o.Epoch
}

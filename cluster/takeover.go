package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/raft"
	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/transport"
)

// Keys of the Store.
const (
	keyTakeover = "takeover"
	keyEpochs   = "epochs"
)

// calm is how long those who decide must have been silent before a takeover: a host that is restarted, or a blip, must
// not end in two halves.
const calm = 5 * time.Second

// maxPast bounds how many epochs a cluster remembers; whoever has slept through more joins like a stranger.
const maxPast = 64

// Takeover is the last one that the cluster remembers.
type Takeover struct {
	Epoch   string    `json:"epoch"`
	Node    NodeID    `json:"node"` // who took over
	At      time.Time `json:"at"`
	Missing []NodeID  `json:"missing"` // who has not come back since
	// Settling are those that have, and whose addresses are not all known here yet.
	Settling []NodeID `json:"settling,omitempty"`
	// Networks are the keys that were known at this takeover and at those before it: one that is not among them, and that
	// somebody comes back with, was made on the other side.
	Networks []string `json:"networks,omitempty"`
	// Nodes are the members that were known then, likewise.
	Nodes []NodeID `json:"nodes,omitempty"`
	// Decided tells, by epoch that was left behind, the last revision of it that this side has heard of, at a takeover or by who
	// has come over since: what is of that one or an earlier one, and is not known here, was removed.
	Decided map[string]store.Revision `json:"decided,omitempty"`
}

// has tells of a network or a node of a side that was given up whether this side has looked at it already: it has it, or has
// removed it.
func (t Takeover) has(p BeforePair) bool {
	switch last, ok := t.Decided[p.Epoch]; {
	case ok && p.Rev <= last:
		return true
	case strings.HasPrefix(p.Key, prefixNode):
		return slices.Contains(t.Nodes, NodeID(strings.TrimPrefix(p.Key, prefixNode)))
	}
	return slices.Contains(t.Networks, p.Key)
}

// add notes what is not to be looked at again when others come with it.
func (t *Takeover) add(key string) {
	if id, ok := strings.CutPrefix(key, prefixNode); ok {
		t.Nodes = insert(t.Nodes, NodeID(id))
	} else {
		t.Networks = insert(t.Networks, key)
	}
}

func insert[S ~[]E, E cmp.Ordered](sorted S, e E) S {
	if i, there := slices.BinarySearch(sorted, e); !there {
		return slices.Insert(sorted, i, e)
	}
	return sorted
}

// know notes how much of some epochs this side has heard of.
func (t *Takeover) know(sides []sideLeft) {
	for _, side := range sides {
		if t.Decided == nil {
			t.Decided = map[string]store.Revision{}
		}
		t.Decided[side.Epoch] = max(t.Decided[side.Epoch], side.Decided)
	}
}

// Recovery is what a takeover by this host would mean.
type Recovery struct {
	Missing []Member // who decides and does not answer
	Others  []Member // the other hosts that are down: what they have stays theirs
	Lag     uint64   // entries that this host has received and that may have been decided
}

// Recover makes this host the one that decides, after those that did are gone. What it knows is what the cluster has
// decided from then on; the hosts that are missing keep their addresses. Whoever comes back from before the takeover is
// kept out until it has joined again, which it does by itself. It is refused while somebody decides, or soon will.
func (c *Cluster) Recover(ctx context.Context) error {
	if err := c.begin("recover"); err != nil {
		return err
	}
	defer c.op.Unlock()
	if err := c.errExternal("recover"); err != nil {
		return err
	}
	if _, err := c.mayRecover(ctx, time.Now()); err != nil {
		return err
	}
	before := c.snapshotState()
	if err := c.takeOver(ctx); err != nil {
		return fmt.Errorf("recover cluster: %w", err)
	}
	c.log.Warn("this host has taken the cluster over", "before", before.Epoch, "epoch", c.Epoch())
	return nil
}

// Recoverable says what Recover would mean, or why it is refused.
func (c *Cluster) Recoverable(ctx context.Context) (Recovery, error) {
	if err := c.errExternal("recover"); err != nil {
		return Recovery{}, err
	}
	return c.mayRecover(ctx, time.Now())
}

func (c *Cluster) mayRecover(ctx context.Context, now time.Time) (Recovery, error) {
	refuse := func(format string, args ...any) (Recovery, error) {
		return Recovery{}, fmt.Errorf("recover cluster: %s: %w", fmt.Sprintf(format, args...), errdefs.ErrFailedPrecondition)
	}
	if !c.Clustered() {
		return refuse("this host is a cluster of its own and decides for itself")
	}
	b, self := c.decider(), c.Self().ID
	if err := b.Usable(); err != nil { // its copy may be of another side, or not what the others have decided
		return refuse("this host's copy of what the cluster has decided cannot be used: %v: the daemon's log says more", err)
	}
	if no := c.Refused(); no != "" {
		return refuse("the others are there, and do not let this host take part: %s", no)
	}
	leader, led := b.Leader()
	r, last := Recovery{Lag: b.Unapplied()}, b.LastContact()
	switch {
	case led && leader == string(self):
		return refuse("this host decides for the cluster already")
	case led && b.Prospect() == raft.Answered:
		return refuse("%s decides for the cluster and answers", c.nameOf(NodeID(leader)))
	}
	if c.snapshotState().Rejoining || len(b.Configuration()) == 0 {
		return refuse("this host has not received yet what the cluster has decided: bring the others back or, if they are gone for good, run `minictl cluster leave --force` here, and join the hosts anew")
	}
	voters, up := 0, 0
	for _, m := range c.Members() {
		if m.Voter {
			voters++
		}
		switch {
		case m.Voter && m.Alive:
			up++
		case m.Voter:
			r.Missing = append(r.Missing, m)
		case !m.Alive:
			r.Others = append(r.Others, m)
		}
	}
	opened := c.openedAt()
	silent := now.Sub(later(last, opened))
	heard := fmt.Sprintf("a leader was heard %s ago", silent.Round(time.Second))
	if last.Before(opened) {
		heard = fmt.Sprintf("this host has listened for %s only", silent.Round(time.Second))
	}
	again := fmt.Sprintf("try again in %s", (calm - silent + time.Second).Truncate(time.Second))
	switch {
	case voters == 1 && up == 1 && !c.isVoter(self) && silent < calm:
		return refuse("%s: the host that decides may be restarting; %s", heard, again)
	case up > voters/2 && silent < 2*calm:
		return refuse("%d of the %d hosts that decide are up and will agree on a leader in a few seconds", up, voters)
	case silent < calm:
		return refuse("%s: the others may be about to answer; %s", heard, again)
	}
	if who, how, ok := c.decidesElsewhere(ctx); ok {
		return refuse("%s decides for the cluster, %s, and this host does not hear it: look at the link from here to %s", who, how, who)
	}
	return r, nil
}

// decidesElsewhere asks the members that this host hears for a leader that it does not.
func (c *Cluster) decidesElsewhere(ctx context.Context) (who, how string, ok bool) {
	for id, r := range c.askLive(ctx, callTimeout) {
		switch leader := NodeID(r.Leader); leader {
		case "", c.Self().ID:
		case id:
			return c.nameOf(id), "and answers", true
		default:
			return c.nameOf(leader), "as " + c.nameOf(id) + " says", true
		}
	}
	return "", "", false
}

// openedAt is when the replica was opened: before that nobody could be heard.
func (c *Cluster) openedAt() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opened
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (c *Cluster) isVoter(id NodeID) bool {
	return slices.Contains(c.decider().Configuration(), raft.Peer{ID: string(id), Voter: true})
}

// takeOver fences the past off before anything else: a crash half way leaves a host that finishes with its next start.
func (c *Cluster) takeOver(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout) // its end half way would be a crash
	defer cancel()
	decided := c.decider().AppliedIndex()
	c.mu.Lock()
	before := c.st
	c.st = before.nextEpoch()
	c.st.Recovering, c.st.Unnoted = true, true
	c.st.Taken = append(slices.Clone(before.Taken), sideLeft{before.Epoch, store.Revision(decided)})
	err := c.files.save(c.st)
	if err != nil {
		c.st = before
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	c.stopSession()
	c.suspendOthers(ctx)
	if err := c.closeBackend(); err != nil {
		c.log.Warn("close the cluster's store", "err", err)
	}
	if err := c.reopen(); err != nil { // it makes this host's copy the only one, now or later: the others are fenced off
		return err
	}
	err = c.noteTakeover(ctx)
	if err != nil {
		c.wg.Go(func() { c.noteLater(c.ctx) })
	}
	if lerr := c.listen(); lerr != nil {
		c.log.Warn("cannot listen yet, trying again", "err", lerr)
		c.wg.Go(func() { c.listenLater(c.ctx) })
	}
	return err
}

// recoverReplica makes this host's copy of the Store the only one.
func (c *Cluster) recoverReplica(ctx context.Context) error {
	c.mu.Lock()
	self := c.st.Self.ID
	c.mu.Unlock()
	if err := raft.Recover(ctx, raft.Config{Dir: c.files.raft(), NodeID: string(self), Log: c.log.With("component", "raft")}); err != nil {
		return err
	}
	return c.changeState(func(st *state) { st.Recovering = false })
}

// noteLater has a takeover noted that was not, for want of a disk or because the daemon died.
func (c *Cluster) noteLater(ctx context.Context) {
	if !c.snapshotState().Unnoted {
		return
	}
	everySecond(ctx, func() (done bool) {
		if !c.op.TryLock() {
			return false
		}
		defer c.op.Unlock()
		if ctx.Err() != nil || !c.snapshotState().Unnoted {
			return true
		}
		if !c.decider().IsLeader() {
			return false
		}
		ctx, cancel := c.settling(ctx, callTimeout)
		defer cancel()
		if err := c.noteTakeover(ctx); err != nil {
			c.log.Warn("a takeover is not noted yet, trying on", "err", err)
			return false
		}
		return true
	})
}

// noteTakeover tells the hosts that follow what has happened. Until then nobody may come back: who did would be noted as
// missing. The caller holds op: the Store must be this epoch's.
func (c *Cluster) noteTakeover(ctx context.Context) error {
	var is Takeover
	last, err := c.readFresh(ctx, keyTakeover, &is)
	if err != nil {
		return err
	}
	st := c.snapshotState()
	if is.Epoch != st.Epoch { // else it is done, and not written down
		if err := c.writeTakeover(ctx, st, last); err != nil {
			return err
		}
	}
	return c.changeState(func(st *state) { st.Unnoted, st.Taken = false, nil })
}

func (c *Cluster) writeTakeover(ctx context.Context, st state, last store.Cond) error {
	t := Takeover{Epoch: st.Epoch, Node: st.Self.ID, At: time.Now().UTC().Truncate(time.Second)}
	t.Settling = []NodeID{t.Node} // it may have been given addresses that it has not heard of otherwise
	if old, ok := c.lastTakeover(ctx); ok {
		t.Networks, t.Nodes, t.Decided = old.Networks, old.Nodes, old.Decided
	}
	nodes, _, err := c.store.Range(ctx, prefixNode, true)
	if err != nil {
		return err
	}
	for id := range c.decodeNodes(nodes) {
		t.add(nodeKey(id))
		if id != t.Node {
			t.Missing = append(t.Missing, id)
		}
	}
	slices.Sort(t.Missing)
	networks, _, err := c.store.Range(ctx, prefixNetwork, true)
	if err != nil {
		return err
	}
	for _, p := range networks {
		t.add(p.Key)
	}
	t.know(st.Taken)
	return c.putAll(ctx, []store.Cond{last}, map[string]any{keyTakeover: t, keyEpochs: st.Past})
}

// putAll writes values as JSON, on conditions.
func (c *Cluster) putAll(ctx context.Context, cond []store.Cond, values map[string]any) error {
	t := store.Txn{If: cond}
	for key, v := range values {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("encode %s: %w", key, err)
		}
		t.Then = append(t.Then, store.Op{Key: key, Value: b})
	}
	_, err := c.store.Txn(ctx, t)
	return err
}

// lastTakeover is what this host's replica knows of one.
func (c *Cluster) lastTakeover(ctx context.Context) (t Takeover, ok bool) {
	p, ok, err := store.Get(ctx, c.store, keyTakeover, false)
	if err != nil || !ok || json.Unmarshal(p.Value, &t) != nil {
		return Takeover{}, false
	}
	return t, true
}

// Cautious tells that a host from before a takeover is still missing, or has not said yet that it is Settled. It may have
// decided more than this side knows: what is given out meanwhile should be what it would have given last.
func (c *Cluster) Cautious() bool {
	t, ok := c.lastTakeover(c.ctx)
	return c.snapshotState().Unnoted || ok && len(c.members(t.Missing))+len(c.members(t.Settling)) > 0
}

// members are those of a list that are members still.
func (c *Cluster) members(list []NodeID) []NodeID {
	nodes := c.known()
	return slices.DeleteFunc(slices.Clone(list), func(id NodeID) bool { _, here := nodes[id]; return !here })
}

// notMissing has a transaction note that a host is not waited for: it has given up what it had, and joins.
func (c *Cluster) notMissing(ctx context.Context, id NodeID, txn *store.Txn) error {
	var t Takeover
	last, err := c.readFresh(ctx, keyTakeover, &t)
	is := func(o NodeID) bool { return o == id }
	if err != nil || !slices.ContainsFunc(slices.Concat(t.Missing, t.Settling), is) {
		return err
	}
	t.Missing, t.Settling = slices.DeleteFunc(t.Missing, is), slices.DeleteFunc(t.Settling, is)
	value, err := c.carried(ctx, keyTakeover, t)
	txn.If, txn.Then = append(txn.If, last), append(txn.Then, store.Op{Key: keyTakeover, Value: value})
	return err
}

// Settled notes that all that this host has, also from before a takeover, is in the Store. epoch is the one in which it was
// looked at: in another one something may be missing.
func (c *Cluster) Settled(ctx context.Context, epoch string) error {
	if err := c.introduce(ctx); err != nil {
		return err
	}
	untold, err := c.files.loadBefore()
	if err != nil {
		return err
	}
	given := slices.DeleteFunc(slices.Clone(c.snapshotState().Given), func(side sideLeft) bool {
		return slices.ContainsFunc(untold, func(p BeforePair) bool { return p.Epoch == side.Epoch })
	})
	err = c.changeTakeover(ctx, epoch, func(t *Takeover, _ *store.Txn) (bool, error) {
		i := slices.Index(t.Settling, c.Self().ID)
		if i >= 0 {
			t.Settling = slices.Delete(t.Settling, i, i+1)
		}
		t.know(given)
		return i >= 0 || len(given) > 0, nil
	})
	if err != nil || len(given) == 0 {
		return err
	}
	return c.changeState(func(st *state) {
		st.Given = slices.DeleteFunc(slices.Clone(st.Given), func(side sideLeft) bool { return slices.Contains(given, side) })
	})
}

// changeTakeover replaces what the Store says of the last takeover by what change makes of it, in one transaction with what
// change adds to that; only as long as this host is in an epoch, and until its replica has it. change is asked again if
// somebody else was faster; false: there is nothing to change.
func (c *Cluster) changeTakeover(ctx context.Context, epoch string, change func(*Takeover, *store.Txn) (bool, error)) error {
	for {
		b := c.decider()
		var t Takeover
		last, err := c.readFresh(ctx, keyTakeover, &t)
		if err != nil {
			return err
		}
		if err := c.stillIn(epoch); err != nil {
			return err
		}
		txn := store.Txn{If: []store.Cond{last}}
		if changed, err := change(&t, &txn); err != nil {
			return err
		} else if !changed {
			return b.WaitApplied(ctx, uint64(last.Rev)) // an earlier try may have changed it
		}
		value, err := c.carried(ctx, keyTakeover, t)
		if err != nil {
			return err
		}
		txn.Then = append(txn.Then, store.Op{Key: keyTakeover, Value: value})
		rev, err := c.store.Txn(ctx, txn)
		if errdefs.IsConflict(err) {
			continue
		}
		if err != nil {
			return err
		}
		if err := c.stillIn(epoch); err != nil {
			return err
		}
		return b.WaitApplied(ctx, uint64(rev))
	}
}

func (c *Cluster) stillIn(epoch string) error {
	if now := c.Epoch(); now != epoch {
		return fmt.Errorf("this host was in epoch %s, and is in %s: %w", epoch, now, errdefs.ErrUnavailable)
	}
	return nil
}

// introduceLater has this side told of the nodes that only this host knows, if the daemon does not come to that (Settled):
// they are refused until then.
func (c *Cluster) introduceLater(ctx context.Context) {
	everySecond(ctx, func() (done bool) {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		err := c.introduce(call)
		if err != nil {
			c.log.Debug("cannot tell yet who joined on the side that was given up", "err", err)
		}
		return err == nil
	})
}

// introduce tells this side of the nodes that this host knows from the side that it has given up and that joined there: they
// are members, and missing like those that were known when this side took over. Who was removed here is told of no more.
func (c *Cluster) introduce(ctx context.Context) error {
	epoch := c.Epoch()
	list, err := c.before(BeforePair.isNode)
	if err != nil || len(list) == 0 {
		return err
	}
	var told []Node
	err = c.changeTakeover(ctx, epoch, func(t *Takeover, txn *store.Txn) (bool, error) {
		told = nil
		if len(t.Nodes) == 0 {
			return false, nil // an earlier release has taken over, and has not said whom it knew
		}
		members, _, err := c.store.Range(ctx, prefixNodes, true)
		if err != nil {
			return false, err
		}
		there := func(key string) bool {
			return slices.ContainsFunc(members, func(p store.Pair) bool { return p.Key == key })
		}
		changed := false
		for _, p := range list {
			n, err := decodeNode(p.Value)
			if err != nil || p.Key != nodeKey(n.ID) || t.has(p) {
				continue // a NodeSpec, for one
			}
			changed = true
			t.add(p.Key)
			switch name := nameKey(n.Name); {
			case there(p.Key): // it has joined here, as the same one
			case there(name): // its host has joined here anew, as it was told to, or another in its place
				c.log.Warn("a node of the side that was given up is not told of: another member has its name", "node", n.ID, "name", n.Name)
			default:
				if err := addNode(txn, n, list); err != nil {
					return false, err
				}
				members = append(members, store.Pair{Key: name}) // two of them may have had it, one after the other
				t.Missing = append(t.Missing, n.ID)
				told = append(told, n)
			}
		}
		return changed, nil
	})
	if err != nil {
		return err
	}
	for _, n := range told {
		c.log.Info("a node joined on the side that was given up, and is waited for", "node", n.ID, "name", n.Name)
	}
	return c.forgetBefore(list)
}

// addNode makes a node a member, with what people wished of it on its side.
func addNode(txn *store.Txn, n Node, list []BeforePair) error {
	id, err := json.Marshal(n.ID)
	if err != nil {
		return fmt.Errorf("encode node: %w", err)
	}
	txn.If = append(txn.If, store.Cond{Key: nodeKey(n.ID)}, store.Cond{Key: nameKey(n.Name)})
	txn.Then = append(txn.Then, store.Op{Key: nameKey(n.Name), Value: id})
	for _, p := range list {
		if p.Key == nodeKey(n.ID) || p.Key == nodeSpecKey(n.ID) {
			txn.Then = append(txn.Then, store.Op{Key: p.Key, Value: p.Value})
		}
	}
	return nil
}

// suspendOthers takes every other host for dead until it is heard again.
func (c *Cluster) suspendOthers(ctx context.Context) {
	self := c.Self().ID
	for id := range c.known() {
		if id != self {
			c.setAlive(ctx, id, false)
		}
	}
	c.events.add(event{members: true})
}

// fence is this host's place in time.
func (st state) fence() transport.Fence {
	return transport.Fence{Cluster: st.Cluster, Epoch: st.Epoch, Past: st.Past}
}

// nextEpoch is the state after a takeover.
func (st state) nextEpoch() state {
	st.Past = addEpochs(st.Past, st.Epoch)
	st.Epoch = epochAfter(st.Epoch)
	return st
}

func epochAfter(epoch string) string {
	counter, _, _ := strings.Cut(epoch, ".")
	n, _ := strconv.ParseUint(counter, 10, 64) // a damaged one counts as the oldest; the random part tells them apart
	return fmt.Sprintf("%d.%s", n+1, randomHex(4))
}

// addEpochs appends what is not there yet, and forgets the oldest of too many.
func addEpochs(past []string, more ...string) []string {
	past = slices.Clone(past)
	for _, e := range more {
		if !slices.Contains(past, e) {
			past = append(past, e)
		}
	}
	return past[max(len(past)-maxPast, 0):]
}

// watchEpochs follows what the cluster has left behind, so that this host recognises who comes from there.
func (c *Cluster) watchEpochs(batches <-chan []store.Event) {
	for batch := range batches {
		for _, e := range batch {
			var past []string
			if e.Pair.Key == keyEpochs && !e.Deleted && json.Unmarshal(e.Pair.Value, &past) == nil {
				c.addPast(past)
			}
		}
	}
}

func (c *Cluster) addPast(more []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	more = slices.DeleteFunc(slices.Clone(more), func(e string) bool { return e == c.st.Epoch })
	next := addEpochs(c.st.Past, more...)
	if slices.Equal(next, c.st.Past) {
		return
	}
	c.st.Past = next
	if c.sess != nil {
		c.sess.tr.SetFence(c.st.fence())
	}
	if err := c.files.save(c.st); err != nil {
		c.log.Warn("cannot remember the cluster's epochs", "err", err)
	}
}

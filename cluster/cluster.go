package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/identity"
	"github.com/minictl/minictl/cluster/records"
	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/transport"
)

// Config is what a daemon tells its cluster.
type Config struct {
	Dir     string // everything this package keeps
	Name    string // of this host, unique in a cluster; default: the host name
	Version string // of the daemon
	Log     *slog.Logger
	// Applied is called after other hosts' records of these networks have changed, and before the host that changed them
	// gets its acknowledgement: when its Publish returns, this host answers names and sends packets accordingly. Nil: no.
	Applied func(ctx context.Context, networks []string) error
	// MembersChanged is called after a member came, went, failed or changed. Never concurrently with itself. Nil: no.
	MembersChanged func()
	// Addresses lets this host follow its interfaces to other addresses; nil: it waits for those it had.
	Addresses Addresses
	// Now is the clock that certificates and join tokens go by; nil: time.Now.
	Now func() time.Time
	// Step is called at each step of Init, Join and Leave, and of admitting a host; its error makes the step fail. Tests
	// set it. Nil: no.
	Step func(name string) error
	// Witness makes this host one that votes and runs no containers.
	Witness bool
	// External is the store that decides instead of the hosts; nil: there is none.
	External *External
	// Wire is the network that members meet on; nil: the kernel's.
	Wire transport.Wire
}

// Cluster is this host's part of its cluster. All methods may be called concurrently.
type Cluster struct {
	cfg   Config
	log   *slog.Logger
	files files
	store *stable

	ctx    context.Context // of the goroutines, ends with Close
	cancel context.CancelFunc
	// ending ends before ctx does: Close waits for the operation that has begun, and that waits for other hosts no more.
	ending context.Context
	end    context.CancelFunc
	wg     sync.WaitGroup

	op opLock // one Init, Join, Leave or Close at a time

	mu      sync.Mutex
	st      state
	node    *identity.Node
	backend backend
	streams *streams
	sess    *session // nil while nothing listens
	nodes   map[NodeID]Node
	news    chan struct{} // closed at the next change of nodes
	closed  bool

	toldRoutes bool               // see SetRoutes; guarded by mu
	opened     time.Time          // the replica; guarded by mu
	met        map[NodeID]meeting // members of other epochs; guarded by mu
	no         refusal            // guarded by mu

	pub publisher

	silent atomic.Int64 // until when the learner of two hosts is not waited for, Unix nanoseconds

	events  *events
	leaving atomic.Bool // keepVoters must not undo what Leave does
}

// Open resumes what Dir says: a cluster of one, which is what an empty Dir becomes, or membership in a cluster of
// several. It does not wait for other members.
func Open(ctx context.Context, cfg Config) (*Cluster, error) {
	if cfg.Name == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("open cluster: %w", err)
		}
		cfg.Name = name
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Wire == nil {
		cfg.Wire = transport.Kernel{}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open cluster: %w", err)
	}
	if cfg.Step == nil {
		cfg.Step = func(string) error { return nil }
	}
	c := &Cluster{cfg: cfg, log: cfg.Log.With("component", "cluster"), files: files{cfg.Dir}, op: newOpLock(), news: make(chan struct{}), nodes: map[NodeID]Node{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.ending, c.end = context.WithCancel(c.ctx)
	c.events = newEvents(c)
	c.pub.init()
	if err := c.load(ctx); err != nil {
		c.cancel()
		return nil, fmt.Errorf("open cluster: %w", err)
	}
	c.store = newStable(c.backend)
	c.store.told = c.awaitLearner
	if err := c.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("open cluster: %w", err), c.Close())
	}
	return c, nil
}

// load reads files and opens the replica.
func (c *Cluster) load(ctx context.Context) (err error) {
	if c.st, err = c.files.load(); err != nil {
		return err
	}
	if c.node, err = identity.Load(c.files.identity()); err != nil {
		return err
	}
	c.st.Incarnation = nextIncarnation(c.st.Incarnation, time.Now())
	if !c.st.Clustered {
		c.st.Self = describe(Node{ID: NodeID(c.node.ID), Name: c.cfg.Name, Version: c.cfg.Version, Witness: c.cfg.Witness})
	}
	if c.st.Self.ID != NodeID(c.node.ID) {
		return fmt.Errorf("%s is of node %s, the key in %s of node %s: %w", c.files.state(), c.st.Self.ID, c.files.identity(), c.node.ID, errdefs.ErrDataLoss)
	}
	if err := c.files.save(c.st); err != nil {
		return err
	}
	if err := c.finishEpoch(ctx); err != nil {
		return err
	}
	own, err := c.files.loadRecords()
	if err != nil {
		c.log.Warn("own endpoint records lost; they return as they are published", "err", err)
	}
	c.pub.table = records.New(c.node.ID, c.st.Incarnation, own)
	for _, n := range c.st.Nodes {
		c.nodes[n.ID] = n
	}
	if err := c.chooseStore(ctx); err != nil {
		return err
	}
	c.backend, c.streams, err = c.openBackend(ctx, c.st.Self.ID, !c.st.Clustered)
	return err
}

// finishEpoch ends a change of the epoch that an earlier daemon did not live to finish.
func (c *Cluster) finishEpoch(ctx context.Context) error {
	st := c.snapshotState()
	switch {
	case st.Rejoining:
		return c.dropReplica()
	case st.Recovering:
		return c.recoverReplica(ctx)
	}
	return nil
}

// start begins the goroutines that live as long as the Cluster, and listens if this host is a member of a cluster.
func (c *Cluster) start() error {
	watch, err := c.store.Watch(c.ctx, prefixNode)
	if err != nil {
		return err
	}
	keys, err := c.store.Watch(c.ctx, keyGossip)
	if err != nil {
		return err
	}
	epochs, err := c.store.Watch(c.ctx, keyEpochs)
	if err != nil {
		return err
	}
	authority, err := c.store.Watch(c.ctx, keyCA)
	if err != nil {
		return err
	}
	c.wg.Go(func() { c.watchAuthority(authority) })
	c.wg.Go(func() { c.keepRotating(c.ctx) })
	c.wg.Go(func() { c.keepAddress(c.ctx) })
	c.wg.Go(func() { c.watchNodes(watch) })
	c.wg.Go(func() { c.watchEpochs(epochs) })
	c.wg.Go(func() { c.watchKeys(keys) })
	c.wg.Go(func() { c.events.run(c.ctx) })
	c.wg.Go(func() { c.keepVoters(c.ctx) })
	c.wg.Go(func() { c.watchRoles(c.ctx) })
	c.wg.Go(func() { c.keepCertificate(c.ctx) })
	c.wg.Go(func() { c.keepOthers(c.ctx) })
	c.resumeOthers()
	switch {
	case c.ExternalStore() != "":
		return c.startExternal()
	case c.Clustered():
		c.resume()
	}
	return nil
}

// resume listens again after a restart. At boot the advertised address may not be there yet: then it is tried until it
// is, and the daemon starts all the same.
func (c *Cluster) resume() {
	err := c.listen()
	if err != nil {
		c.log.Warn("cannot take part in the cluster yet, trying again", "err", err)
		c.wg.Go(func() { c.listenLater(c.ctx) })
	}
	c.wg.Go(func() { c.noteLater(c.ctx) })
	c.wg.Go(func() { c.introduceLater(c.ctx) })
	c.wg.Go(func() {
		if c.snapshotState().Leaving {
			c.finishLeave(c.ctx)
			return
		}
		c.ensureMember(c.ctx)
		c.refreshSelf(c.ctx)
	})
}

func (c *Cluster) listenLater(ctx context.Context) {
	everySecond(ctx, func() (done bool) {
		if !c.op.TryLock() { // Close waits for this goroutine
			return false
		}
		defer c.op.Unlock()
		return !c.Clustered() || c.session() != nil || ctx.Err() != nil || c.listen() == nil
	})
}

// everySecond looks each second whether there is something to do, until that is done for good or ctx ends.
func everySecond(ctx context.Context, look func() (done bool)) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if look() {
			return
		}
	}
}

// listen starts the session of the cluster that cluster.json names.
func (c *Cluster) listen() error {
	cred, err := c.node.LoadCredentials(c.files.identity())
	if err != nil {
		return err
	}
	if cred, err = c.renewed(cred, c.now()); err != nil {
		return err
	}
	return c.startSession(cred)
}

// Close stops taking part. Other members see this host fail, and its records come back with the next Open: a daemon's
// restart is not a Leave.
func (c *Cluster) Close() error {
	c.end()
	c.op.Lock()
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		c.op.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	c.handOver(c.ctx)
	c.cancel()
	c.store.close()
	c.stopSession()
	err := c.backend.Close()
	c.op.Unlock() // a goroutine that waits for its turn must get it, to see that it ends
	c.wg.Wait()
	return err
}

// begin starts an operation that changes what this host is a member of; the caller ends it with c.op.Unlock.
func (c *Cluster) begin(what string) error {
	c.op.Lock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		c.op.Unlock()
		return fmt.Errorf("%s cluster: it is closed: %w", what, errdefs.ErrFailedPrecondition)
	}
	return nil
}

func (c *Cluster) now() time.Time { return c.cfg.Now() }

// Clustered tells whether this host is in a cluster that others can join; false while it is a cluster of one.
func (c *Cluster) Clustered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.st.Clustered
}

// ID is the cluster's UUID.
func (c *Cluster) ID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.st.Cluster
}

// Epoch is "<counter>.<random>"; an operator's takeover of the cluster changes it.
func (c *Cluster) Epoch() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.st.Epoch
}

// Self is this host's own node record; it has no addresses while the host is alone.
func (c *Cluster) Self() Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.st.Self
}

// Store is what all hosts of the cluster agree on. It stays the same value when Join or Leave put the host into another
// cluster; watchers see the difference.
func (c *Cluster) Store() store.Store { return c.store }

// Leader is the node that orders the Store's transactions; ok is false while there is none.
func (c *Cluster) Leader() (NodeID, bool) {
	id, ok := c.decider().Leader()
	return NodeID(id), ok
}

// Members lists all nodes of the cluster by name, this host among them.
func (c *Cluster) Members() []Member {
	b, sess := c.decider(), c.session()
	voters := map[NodeID]bool{}
	for _, p := range b.Configuration() {
		voters[NodeID(p.ID)] = p.Voter
	}
	leader, led := b.Leader()
	self := c.Self()
	nodes := c.known()
	nodes[self.ID] = self
	members := make([]Member, 0, len(nodes))
	for id, n := range nodes {
		members = append(members, Member{
			Node: n, Voter: voters[id], Leader: led && leader == string(id),
			Alive:     id == self.ID || sess != nil && sess.gossip.Alive(string(id)),
			Endpoints: c.pub.count(id),
		})
	}
	slices.SortFunc(members, func(a, b Member) int {
		if d := strings.Compare(a.Name, b.Name); d != 0 {
			return d
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	return members
}

// known copies the members this host knows.
func (c *Cluster) known() map[NodeID]Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.nodes)
}

func (c *Cluster) decider() backend {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.backend
}

func (c *Cluster) session() *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sess
}

// live lists the other members that gossip thinks alive.
func (c *Cluster) live() []Node {
	sess, self := c.session(), c.Self().ID
	if sess == nil {
		return nil
	}
	var out []Node
	for id, n := range c.known() {
		if id != self && sess.gossip.Alive(string(id)) {
			out = append(out, n)
		}
	}
	return out
}

// nameOf is what people call a node.
func (c *Cluster) nameOf(id NodeID) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n, ok := c.nodes[id]; ok && n.Name != "" {
		return n.Name
	}
	return string(id)
}

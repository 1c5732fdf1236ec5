package cluster

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/gossip"
	"github.com/minictl/minictl/cluster/identity"
	"github.com/minictl/minictl/cluster/rpc"
	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/transport"
)

// JoinOptions say which cluster to join and this host's addresses in it.
type JoinOptions struct {
	Token  string
	Remote string // HOST or HOST:PORT of any member
	InitOptions
}

// settleTimeout bounds what a joining host does between its admission and its membership.
const settleTimeout = 20 * time.Second

// settling bounds what waits for other hosts: by a time, and by the end of this daemon.
func (c *Cluster) settling(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	stop := context.AfterFunc(c.ending, cancel)
	return ctx, func() { stop(); cancel() }
}

// joinAttempts is how often it calls the member that admitted it, each time for as long as gossip waits for a stream.
const joinAttempts = 5

// joinPause is until it asks again when nobody leads.
const joinPause = 200 * time.Millisecond

// Join makes this host a node of another cluster. When it returns, both know each other: the Store and the endpoint
// records are here, this host's node record is there. It is refused while this host has global networks of its own, and
// puts everything back if it fails.
func (c *Cluster) Join(ctx context.Context, o JoinOptions) error {
	if err := c.begin("join"); err != nil {
		return err
	}
	defer c.op.Unlock()
	if err := c.errExternal("join"); err != nil {
		return err
	}
	if c.Clustered() {
		return c.errClustered("join")
	}
	tok, err := identity.ParseToken(o.Token)
	if err != nil {
		return fmt.Errorf("join cluster: %w", err)
	}
	if err := tok.CheckExpiry(c.now()); err != nil {
		return fmt.Errorf("join cluster: %w", err)
	}
	if err := c.checkNoNetworks(ctx); err != nil {
		return fmt.Errorf("join cluster: %w", err)
	}
	self := o.node(c.Self())
	if err := self.check(); err != nil {
		return fmt.Errorf("join cluster: %w", err)
	}
	reply, cred, err := c.askAdmission(ctx, remoteAddr(o.Remote), tok, self)
	if err == nil && reply.Copy { // a machine that was cloned from a member, or both from one image
		c.log.Warn("another host has this one's key: it gets one of its own", "was", self.ID)
		if err := c.closeOwn(ctx); err != nil {
			return errors.Join(fmt.Errorf("join cluster: %w", err), c.reopen())
		}
		if err := c.startAfresh(); err != nil {
			return fmt.Errorf("join cluster: %w", err)
		}
		self.ID = c.Self().ID
		reply, cred, err = c.askAdmission(ctx, remoteAddr(o.Remote), tok, self)
		if err == nil && reply.Copy {
			err = fmt.Errorf("the member at %s takes a new key for an old one: %w", o.Remote, errdefs.ErrInternal)
		}
	}
	if err != nil {
		return fmt.Errorf("join cluster: %w", err)
	}
	before := c.snapshotState()
	ctx, cancel := c.settling(ctx, settleTimeout)
	defer cancel()
	if err := c.enter(ctx, reply, cred); err != nil {
		return errors.Join(fmt.Errorf("join cluster: %w", err), c.goBack(before, reply.Member))
	}
	c.noteInterfaces()
	c.log.Info("joined cluster", "cluster", reply.Cluster, "nodes", len(reply.Nodes))
	return nil
}

// checkNoNetworks refuses to throw away what this host has decided alone.
func (c *Cluster) checkNoNetworks(ctx context.Context) error { return noNetworks(ctx, c.store) }

func noNetworks(ctx context.Context, s store.Store) error {
	pairs, _, err := s.Range(ctx, prefixNetwork, false)
	if err != nil || len(pairs) == 0 {
		return err
	}
	var names []string
	for _, p := range pairs {
		var v struct{ Name string }
		if json.Unmarshal(p.Value, &v) != nil || v.Name == "" {
			v.Name = strings.TrimPrefix(p.Key, prefixNetwork)
		}
		names = append(names, v.Name)
	}
	slices.Sort(names)
	list := strings.Join(names, " ")
	return fmt.Errorf("this host has global networks of its own (%s), which would be lost: run `minictl network rm %s` first: %w", list, list, errdefs.ErrFailedPrecondition)
}

// closeOwn closes the store of a host that is alone, unless a network has been made in it since it was last looked at.
func (c *Cluster) closeOwn(ctx context.Context) error {
	return errors.Join(c.closeBackend(), noNetworks(ctx, c.decider()))
}

func remoteAddr(remote string) string {
	remote = strings.TrimSpace(remote)
	if _, _, err := net.SplitHostPort(remote); err == nil {
		return remote
	}
	return net.JoinHostPort(strings.Trim(remote, "[]"), strconv.Itoa(ControlPort))
}

// askAdmission recognises the cluster by the token's digest, then shows the token's secret and this host's key.
func (c *Cluster) askAdmission(ctx context.Context, addr string, tok identity.Token, self Node) (admitReply, *identity.Credentials, error) {
	fail := func(err error) (admitReply, *identity.Credentials, error) { return admitReply{}, nil, err }
	var invalid x509.CertificateInvalidError
	conn, err := transport.DialJoin(ctx, c.cfg.Wire, addr, tok.Digest, c.now())
	switch {
	case errors.Is(err, transport.ErrForeign):
		return fail(fmt.Errorf("this token is of another cluster than the one at %s, from before its authority was replaced, or mistyped: run `minictl cluster token` there: %w", addr, errdefs.ErrPermissionDenied))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fail(fmt.Errorf("the clocks of this host (%s) and of the member at %s are more than a day apart, or its certificate has ended: set the clocks right: %w",
			c.now().Format(time.RFC3339), addr, err))
	case err != nil:
		return fail(fmt.Errorf("no member of a cluster answers at %s: is that its --advertise-addr, and is port 7946 (tcp and udp) open? %w", addr, err))
	}
	csr, err := c.node.Request()
	if err != nil {
		conn.Close()
		return fail(err)
	}
	client := rpc.NewClient(func(context.Context, string) (net.Conn, error) { return conn, nil })
	defer conn.Close()
	reply, err := rpc.Call[admitRequest, admitReply](ctx, client, "member", callAdmit, admitRequest{Secret: tok.Secret, Request: csr, Node: self}, false)
	if err != nil {
		return fail(err)
	}
	if reply.Copy {
		return reply, nil, nil
	}
	if err := reply.check(); err != nil {
		return fail(err)
	}
	cred, err := c.node.Credentials(reply.Certificate, reply.Authority)
	if err != nil {
		return fail(err)
	}
	if identity.Digest(cred.CA) != tok.Digest {
		return fail(fmt.Errorf("the member at %s shows one authority and gives out another: %w", addr, errdefs.ErrPermissionDenied))
	}
	cred, err = cred.Accepting(reply.Roots.Roots)
	return reply, cred, err
}

// enter replaces the cluster of one by the one that has admitted this host.
func (c *Cluster) enter(ctx context.Context, r admitReply, cred *identity.Credentials) error {
	if err := c.step("join-credentials", func() error { return cred.Save(c.files.identity()) }); err != nil {
		return err
	}
	if err := c.step("join-close", func() error { return c.closeOwn(ctx) }); err != nil {
		return err
	}
	if err := c.step("join-drop", func() error { return os.RemoveAll(c.files.raft()) }); err != nil {
		return err
	}
	if err := c.step("join-adopt", func() error { return c.adoptState(r) }); err != nil {
		return err
	}
	if err := c.step("join-listen", func() error { return c.startSession(cred) }); err != nil {
		return err
	}
	if err := c.step("join-replica", func() error { return c.reopenBackend(ctx, false) }); err != nil {
		return err
	}
	if err := c.step("join-settle", func() error { return c.settle(ctx, rejoined{c.session(), c.decider(), r}) }); err != nil {
		return err
	}
	return c.cfg.Step("join-done")
}

// step does one step of a longer work.
func (c *Cluster) step(name string, do func() error) error {
	if err := c.cfg.Step(name); err != nil {
		return err
	}
	return do()
}

func (c *Cluster) adoptState(r admitReply) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(r.Nodes, func(n Node) bool { return n.ID == c.st.Self.ID })
	if i < 0 {
		return fmt.Errorf("the member's answer does not name this host: %w", errdefs.ErrInvalidArgument)
	}
	c.st.Cluster, c.st.Epoch, c.st.Past, c.st.Clustered = r.Cluster, r.Epoch, r.Past, true
	c.st.Self, c.st.Keys, c.st.Nodes, c.st.Authority = r.Nodes[i], r.Keys, r.Nodes, r.Roots.Generation
	c.nodes = map[NodeID]Node{}
	for _, n := range r.Nodes {
		c.nodes[n.ID] = n
	}
	return c.files.save(c.st)
}

func (c *Cluster) closeBackend() error { return c.decider().Close() }

// reopenBackend puts a new replica in the place of the closed one.
func (c *Cluster) reopenBackend(ctx context.Context, bootstrap bool) error {
	b, s, err := c.openBackend(ctx, c.Self().ID, bootstrap)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.backend, c.streams = b, s
	c.mu.Unlock()
	c.store.replace(b)
	return nil
}

// settle makes the new node a follower and waits until both sides know all they must of each other.
func (c *Cluster) settle(ctx context.Context, r rejoined) error {
	s, self := r.session, c.Self().ID
	var first, others []gossip.Peer
	for _, n := range r.Nodes {
		p := gossip.Peer{ID: string(n.ID), Addr: n.Addr}
		switch {
		case n.ID == r.Member:
			first = append(first, p)
		case n.ID != self && slices.Contains(r.Alive, n.ID):
			others = append(others, p)
		}
	}
	steps := []func() error{
		func() error {
			for {
				reply, err := rpc.Call[memberRequest, appliedBody](ctx, s.client, string(r.Member), callLearner, memberRequest{ID: self}, true)
				if err == nil {
					return r.backend.WaitApplied(ctx, reply.Index)
				}
				// Other hosts that join at the same moment make voters of learners, which may change the leader.
				if !errdefs.IsUnavailable(err) || c.session() != s {
					return err
				}
				select {
				case <-time.After(joinPause):
				case <-ctx.Done():
					return err
				}
			}
		},
		func() (err error) {
			for range joinAttempts { // a member on a busy host may take longer than gossip waits for a stream
				if _, err = s.gossip.Join(ctx, first); err == nil || ctx.Err() != nil || c.session() != s {
					break
				}
			}
			return err
		},
		func() error { // they hear of this host from the first one too; asked directly, they know at once
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			s.gossip.Join(short, others)
			return nil
		},
		func() error { return c.fetch(ctx, s.client, r.Member, nil) },
	}
	errs := make(chan error, len(steps))
	for _, step := range steps {
		go func() { errs <- step() }()
	}
	var all []error
	for range steps {
		all = append(all, <-errs)
	}
	c.doubtUnheard(c.known()) // their records came with the others'
	if err := errors.Join(all...); err != nil {
		return err
	}
	c.noticed(ctx, s, append(first, others...))
	return nil
}

// noticed waits until the others count this host among the living, so that what they publish the moment after is known here
// too. Who does not answer soon is not waited for: its records come by gossip.
func (c *Cluster) noticed(ctx context.Context, s *session, others []gossip.Peer) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, p := range others {
		wg.Go(func() {
			if _, err := rpc.Call[struct{}, struct{}](ctx, s.client, p.ID, callMet, struct{}{}, true); err != nil {
				c.log.Debug("a member has not met this host yet", "node", p.ID, "err", err)
			}
		})
	}
	wg.Wait()
}

// goBack makes this host alone again after a Join that failed half way. The member that admitted it is told, so that no
// ghost stays there; if it cannot be told, the next Join of this host takes the record over.
func (c *Cluster) goBack(before state, member NodeID) error {
	if s := c.session(); s != nil {
		ctx, cancel := context.WithTimeout(c.ctx, callTimeout)
		_, err := rpc.Call[memberRequest, appliedBody](ctx, s.client, string(member), callForget, memberRequest{ID: c.Self().ID}, true)
		cancel()
		if err != nil {
			c.log.Warn("cannot take the failed join back there", "node", member, "err", err)
		}
	}
	c.stopSession()
	c.closeBackend()
	before.Rejoining = c.Clustered() || noNetworks(c.ctx, c.decider()) == nil // drop the replica: what it has decided alone stays
	c.restoreState(before)
	c.pub.dropOthers()
	return c.reopen()
}

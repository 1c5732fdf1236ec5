package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/gossip"
	"github.com/minictl/minictl/cluster/identity"
	"github.com/minictl/minictl/cluster/records"
	"github.com/minictl/minictl/cluster/rpc"
	"github.com/minictl/minictl/cluster/transport"
)

// authorizeWait is how long a node that this host does not know yet is given to turn up in its replica: another member
// may have admitted it a moment ago.
const authorizeWait = time.Second

// session is what runs while this host listens: the port, and who is served on it.
type session struct {
	tr     *transport.Transport
	calls  *rpc.Server
	joins  *rpc.Server
	again  *rpc.Server // of hosts from before a takeover
	renew  *rpc.Server // of hosts whose certificate is good no more
	client *rpc.Client
	gossip *gossip.Gossip
	wg     sync.WaitGroup
}

// startSession opens the port and begins to gossip. Callers hold op, or are Open.
func (c *Cluster) startSession(cred *identity.Credentials) (err error) {
	c.mu.Lock()
	self, fence, keys := c.st.Self, c.st.fence(), c.st.Keys
	c.mu.Unlock()
	s := &session{}
	s.tr, err = transport.Listen(c.ctx, transport.Config{
		Addr: self.Addr, Credentials: cred, Fence: fence, Peers: peers{c}, Log: c.log, Now: c.now, Wire: c.cfg.Wire,
		Met: func(node string, theirs transport.Fence, addr netip.AddrPort) {
			c.events.add(event{met: &meeting{NodeID(node), theirs, addr, time.Now()}})
		},
		Untrusted: func(node string) { id := NodeID(node); c.events.add(event{untrusted: &id}) },
		Refused:   c.refused,
	})
	if err != nil {
		return err
	}
	s.client = rpc.NewClient(func(ctx context.Context, id string) (net.Conn, error) { return s.tr.Dial(ctx, id, transport.RPC) })
	peer := func(conn net.Conn) string { return conn.(*transport.Conn).Peer }
	s.calls, s.joins = rpc.NewServer(peer, c.log), rpc.NewServer(peer, c.log).ForStrangers()
	s.again, s.renew = rpc.NewServer(peer, c.log), rpc.NewServer(peer, c.log)
	c.handleCalls(s.calls)
	rpc.Handle(s.joins, callAdmit, c.admit)
	rpc.Handle(s.again, callRejoin, c.serveRejoin)
	rpc.Handle(s.renew, callRenew, c.serveRenew)
	s.wg.Go(func() { s.again.Serve(s.tr.Listener(transport.Rejoin)) })
	s.wg.Go(func() { s.renew.Serve(s.tr.Listener(transport.Renew)) })
	s.wg.Go(func() { s.calls.Serve(s.tr.Listener(transport.RPC)) })
	s.wg.Go(func() { s.joins.Serve(s.tr.Listener(transport.Join)) })
	s.wg.Go(func() { c.acceptRaft(s.tr.Listener(transport.Raft)) })
	s.gossip, err = gossip.Start(gossip.Config{
		ID: string(self.ID), Addr: self.Addr, Keys: keys,
		Meta:    gossip.Meta{Cluster: fence.Cluster, Epoch: fence.Epoch, Name: self.Name, Version: self.Version},
		Network: network{s.tr}, Layer: layer{c}, Log: c.log.With("component", "gossip"),
	})
	if err != nil {
		c.closeSession(s)
		return err
	}
	c.setSession(s)
	return nil
}

// setSession makes a session the present one. Members may have been faster: what gossip has said of them until now was said by
// none that anybody knew, and is not said again.
func (c *Cluster) setSession(s *session) {
	c.mu.Lock()
	c.sess = s
	c.mu.Unlock()
	for id := range c.known() {
		if id != c.Self().ID && s.gossip.Alive(string(id)) {
			c.events.add(event{up: id})
		}
	}
}

// stopSession closes the port and waits for all that was served on it.
func (c *Cluster) stopSession() {
	c.mu.Lock()
	s := c.sess
	c.sess = nil
	c.mu.Unlock()
	if s != nil {
		c.closeSession(s)
	}
}

func (c *Cluster) closeSession(s *session) {
	var errs []error
	if s.gossip != nil {
		errs = append(errs, s.gossip.Stop())
	}
	errs = append(errs, s.tr.Close(), s.calls.Close(), s.joins.Close(), s.again.Close(), s.renew.Close())
	s.client.Close()
	s.wg.Wait()
	if err := errors.Join(errs...); err != nil {
		c.log.Warn("close cluster port", "err", err)
	}
}

// acceptRaft hands the connections of raft to whichever backend is open.
func (c *Cluster) acceptRaft(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		c.mu.Lock()
		s := c.streams
		c.mu.Unlock()
		s.deliver(conn)
	}
}

func (c *Cluster) dialRaft(ctx context.Context, id string) (net.Conn, error) {
	s := c.session()
	if s == nil {
		return nil, fmt.Errorf("dial node %s: this host is alone: %w", id, errdefs.ErrUnavailable)
	}
	return s.tr.Dial(ctx, id, transport.Raft)
}

// peers tells the transport who is a member.
type peers struct{ c *Cluster }

// Authorize implements transport.Peers.
func (p peers) Authorize(ctx context.Context, id string, addr netip.AddrPort) error {
	if err := p.awaitNode(ctx, id); err != nil {
		return err
	}
	s := p.c.session()
	if s == nil || !addr.IsValid() {
		return nil
	}
	if up, ok := s.gossip.Address(id); id == string(p.c.Self().ID) || ok && up != addr {
		return p.c.errCopy(NodeID(id))
	}
	return nil
}

// awaitNode waits a little for a node that is not known yet.
func (p peers) awaitNode(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, authorizeWait)
	defer cancel()
	if _, ok := p.c.known()[NodeID(id)]; !ok {
		p.c.askMembers(ctx, NodeID(id))
	}
	for {
		p.c.mu.Lock()
		_, ok := p.c.nodes[NodeID(id)]
		news := p.c.news
		p.c.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("node %s is not a member of this cluster, or no longer: run `minictl cluster leave --force` on it and join it again: %w", id, errdefs.ErrPermissionDenied)
		}
	}
}

// askMembers asks the members that this host knows whether there is another. While this host slept, others may have come of
// whom one leads now: what it does not let in can tell it nothing. With a leader the own replica knows best. Gossip need not
// hear whom it asks: its key may have changed since.
func (c *Cluster) askMembers(ctx context.Context, id NodeID) {
	s, self := c.session(), c.Self().ID
	if _, led := c.Leader(); led || s == nil || c.ExternalStore() != "" {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var asked sync.WaitGroup
	var first sync.Once
	for _, n := range c.known() {
		if n.ID == self {
			continue
		}
		asked.Go(func() {
			r, err := rpc.Call[struct{}, rangeReply](ctx, s.client, string(n.ID), callMembers, struct{}{}, true)
			if err != nil {
				c.log.Debug("a member does not tell who else is one", "node", n.ID, "err", err)
				return
			}
			if _, here := c.decodeNodes(r.Pairs)[id]; here {
				first.Do(func() {
					cancel() // one is enough
					c.log.Info("a member is told of by another: this host was away when it came", "node", id, "by", n.ID)
					c.setNodes(r.Pairs)
				})
			}
		})
	}
	asked.Wait()
}

// Address implements transport.Peers. A member that has moved is heard by gossip before its record can change: the leader
// must find it for that.
func (p peers) Address(id string) (netip.AddrPort, bool) {
	if s := p.c.session(); s != nil {
		if addr, ok := s.gossip.Address(id); ok {
			return addr, true
		}
	}
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	n, ok := p.c.nodes[NodeID(id)]
	return n.Addr, ok && n.Addr.IsValid()
}

// network gives gossip its part of the transport.
type network struct{ tr *transport.Transport }

func (n network) Dial(ctx context.Context, id, addr string) (net.Conn, error) {
	return n.tr.DialAddr(ctx, id, addr, transport.Gossip)
}
func (n network) Streams() net.Listener   { return n.tr.Listener(transport.Gossip) }
func (n network) Packets() net.PacketConn { return n.tr.Packets() }

// layer is what gossip tells and asks.
type layer struct{ c *Cluster }

// MemberUp implements gossip.Layer.
func (l layer) MemberUp(id string) { l.c.events.add(event{up: NodeID(id)}) }

// MemberDown implements gossip.Layer.
func (l layer) MemberDown(id string) { l.c.events.add(event{down: NodeID(id)}) }

// versions is what two members tell each other of the record snapshots they have.
type versions struct {
	From     NodeID                     `json:"from"`
	Versions map[string]records.Version `json:"versions"`
}

func decodeVersions(b []byte) (versions, error) {
	var v versions
	if err := json.Unmarshal(b, &v); err != nil {
		return versions{}, fmt.Errorf("decode record versions: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if v.From == "" {
		return versions{}, fmt.Errorf("decode record versions: no sender: %w", errdefs.ErrInvalidArgument)
	}
	return v, nil
}

// State implements gossip.Layer.
func (l layer) State() []byte {
	b, err := json.Marshal(versions{From: l.c.Self().ID, Versions: l.c.pub.digest()})
	if err != nil {
		return nil
	}
	return b
}

// StateFrom implements gossip.Layer.
func (l layer) StateFrom(b []byte) {
	v, err := decodeVersions(b)
	if err != nil {
		l.c.log.Warn("ignored gossip state", "err", err)
		return
	}
	l.c.events.add(event{versions: &v})
}

// Peers implements gossip.Layer.
func (l layer) Peers() []gossip.Peer {
	var out []gossip.Peer
	for id, n := range l.c.known() {
		out = append(out, gossip.Peer{ID: string(id), Addr: n.Addr})
	}
	return out
}

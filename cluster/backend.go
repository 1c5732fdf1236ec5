package cluster

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/minictl/minictl/cluster/raft"
	"github.com/minictl/minictl/cluster/store"
)

// backend is what this package uses of the raft backend.
type backend interface {
	store.Store
	Leader() (id string, ok bool)
	IsLeader() bool
	AddLearner(ctx context.Context, id string) error
	Promote(ctx context.Context, id string) error
	Demote(ctx context.Context, id string) error
	RemoveNode(ctx context.Context, id string) error
	TransferLeadership(ctx context.Context, id string) error
	LeaderChanged() <-chan struct{}
	LastContact() time.Time
	LastLeader() string
	Prospect() raft.Prospect
	Unapplied() uint64
	AppliedIndex() uint64
	WaitApplied(ctx context.Context, index uint64) error
	LocalTxn(ctx context.Context, t store.Txn) (store.Revision, error)
	LocalRange(ctx context.Context, prefix string) ([]store.Pair, store.Revision, error)
	Configuration() []raft.Peer
	Err() error
	Usable() error
	Close() error
}

// openBackend opens this host's replica. bootstrap makes it the only voter of a new cluster if the folder is empty.
func (c *Cluster) openBackend(ctx context.Context, id NodeID, bootstrap bool) (backend, *streams, error) {
	s := newStreams(c)
	if c.ExternalStore() != "" {
		b, err := c.openExternal(id)
		return b, s, err
	}
	b, err := raft.Open(ctx, raft.Config{
		Dir: c.files.raft(), NodeID: string(id), Log: c.log.With("component", "raft"),
		Stream: s, Bootstrap: bootstrap, Forward: forwarder{c},
	})
	if err != nil {
		return nil, nil, err
	}
	c.mu.Lock()
	c.opened = time.Now()
	c.mu.Unlock()
	return b, s, nil
}

// streams is raft's way to other hosts. It exists while the host is alone as well, so that Init has nothing to reopen:
// then nobody can be dialled and nobody calls.
type streams struct {
	c     *Cluster
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newStreams(c *Cluster) *streams {
	return &streams{c: c, conns: make(chan net.Conn), done: make(chan struct{})}
}

// Dial implements raft.StreamLayer.
func (s *streams) Dial(ctx context.Context, id string) (net.Conn, error) {
	return s.c.dialRaft(ctx, id)
}

// Listener implements raft.StreamLayer.
func (s *streams) Listener() net.Listener { return s }

// Accept implements net.Listener.
func (s *streams) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (s *streams) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

// Addr implements net.Listener; nobody needs it.
func (s *streams) Addr() net.Addr { return &net.TCPAddr{} }

// deliver gives raft a connection that a member has opened.
func (s *streams) deliver(c net.Conn) {
	select {
	case s.conns <- c:
	case <-s.done:
		c.Close()
	}
}

package raft

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/minictl/minictl/cluster/store"
)

// fabric is a network in memory, and the hosts on it.
type fabric struct {
	t   testing.TB
	dir string

	mu        sync.Mutex
	hosts     map[string]*Backend // running
	listeners map[string]*listener
	cut       map[[2]string]bool // links that carry nothing, both directions listed
	conns     map[net.Conn][2]string
	held      map[string]chan struct{} // hosts that read nothing until it is closed, as if stopped
	late      map[[2]string]int        // what arrived at a held host (first) from another, and is not read

	loseAnswers atomic.Int32 // every n-th forwarded transaction loses its answer
	forwarded   atomic.Int32
	written     atomic.Int64 // messages written to connections
}

func newFabric(t testing.TB) *fabric {
	t.Helper()
	f := &fabric{t: t, dir: t.TempDir(), hosts: map[string]*Backend{}, listeners: map[string]*listener{},
		cut: map[[2]string]bool{}, conns: map[net.Conn][2]string{}, held: map[string]chan struct{}{}, late: map[[2]string]int{}}
	t.Cleanup(func() {
		for _, id := range f.ids() {
			f.stop(id)
		}
	})
	return f
}

// newCluster starts hosts n1, n2, ... of which the first voters vote.
func newCluster(t testing.TB, hosts, voters int) *fabric {
	t.Helper()
	f := newFabric(t)
	f.grow(hosts, voters)
	return f
}

// grow is newCluster's on a network without hosts.
func (f *fabric) grow(hosts, voters int) {
	t := f.t
	t.Helper()
	leader := f.start("n1", true)
	for i := 2; i <= hosts; i++ {
		id := fmt.Sprintf("n%d", i)
		f.start(id, false)
		waitLeader(t, leader)
		if err := leader.AddLearner(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if i <= voters {
			if err := leader.Promote(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, id := range f.ids() {
		waitLeader(t, f.host(id))
	}
}

func (f *fabric) start(id string, bootstrap bool) *Backend {
	f.t.Helper()
	f.mu.Lock()
	l := &listener{node: id, conns: make(chan net.Conn), done: make(chan struct{})}
	f.listeners[id] = l
	f.mu.Unlock()
	b, err := Open(context.Background(), Config{
		Dir: filepath.Join(f.dir, id), NodeID: id, Log: testLog(f.t), Bootstrap: bootstrap,
		Stream: &layer{f, id, l}, Forward: &forwarder{f, id},
	})
	if err != nil {
		f.t.Fatalf("start %s: %v", id, err)
	}
	f.mu.Lock()
	f.hosts[id] = b
	f.mu.Unlock()
	return b
}

// stop closes a host. To the others it is as good as dead: connections break
// and nobody listens.
func (f *fabric) stop(id string) {
	f.t.Helper()
	f.mu.Lock()
	b := f.hosts[id]
	delete(f.hosts, id)
	delete(f.listeners, id)
	f.mu.Unlock()
	if err := b.Close(); err != nil {
		f.t.Errorf("stop %s: %v", id, err)
	}
}

func (f *fabric) host(id string) *Backend {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hosts[id]
}

func (f *fabric) ids() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ids []string
	for i := 1; i < 100; i++ {
		if id := fmt.Sprintf("n%d", i); f.hosts[id] != nil {
			ids = append(ids, id)
		}
	}
	return ids
}

func (f *fabric) stores() []store.Store {
	var all []store.Store
	for _, id := range f.ids() {
		all = append(all, f.host(id))
	}
	return all
}

// isolate cuts a host off from all others, or connects it again.
func (f *fabric) isolate(id string, off bool) {
	var others []string
	for i := 1; i < 100; i++ {
		others = append(others, fmt.Sprintf("n%d", i))
	}
	f.part(id, off, others...)
}

// part cuts a host off from some others, or connects it again.
func (f *fabric) part(id string, off bool, others ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, other := range others {
		f.cut[[2]string{id, other}], f.cut[[2]string{other, id}] = off, off
	}
	for c, link := range f.conns {
		if f.cut[link] {
			_ = c.Close()
			delete(f.conns, c)
		}
	}
}

// hold lets whatever arrives at a host wait until release, and is no hindrance to what it sends.
func (f *fabric) hold(id string) (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	gate := make(chan struct{})
	f.held[id] = gate
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.held, id)
		close(gate)
	})
}

// arrived counts what waits at a held host and came from another.
func (f *fabric) arrived(id, from string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.late[[2]string{id, from}]
}

func (f *fabric) linked(a, b string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.cut[[2]string{a, b}]
}

// layer is one host's StreamLayer.
type layer struct {
	f    *fabric
	node string
	l    *listener
}

func (y *layer) Listener() net.Listener { return y.l }

func (y *layer) Dial(ctx context.Context, node string) (net.Conn, error) {
	y.f.mu.Lock()
	l, cut := y.f.listeners[node], y.f.cut[[2]string{y.node, node}]
	y.f.mu.Unlock()
	if l == nil || cut {
		return nil, fmt.Errorf("dial %s: connection refused", node)
	}
	here, there := net.Pipe()
	select {
	case l.conns <- &heldConn{there, y.f, [2]string{node, y.node}}:
		y.f.mu.Lock()
		defer y.f.mu.Unlock()
		y.f.conns[here] = [2]string{y.node, node}
		return &countedConn{&heldConn{here, y.f, [2]string{y.node, node}}, &y.f.written}, nil
	case <-l.done:
		return nil, fmt.Errorf("dial %s: connection refused", node)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// heldConn is read by a host that may be held.
type heldConn struct {
	net.Conn
	f    *fabric
	link [2]string // who reads, who wrote
}

func (c *heldConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.f.mu.Lock()
	gate := c.f.held[c.link[0]]
	if gate != nil && err == nil {
		c.f.late[c.link]++
		c.f.mu.Unlock()
		<-gate
		c.f.mu.Lock()
		c.f.late[c.link]--
	}
	c.f.mu.Unlock()
	return n, err
}

type countedConn struct {
	net.Conn
	n *atomic.Int64
}

func (c *countedConn) Write(p []byte) (int, error) {
	c.n.Add(1)
	return c.Conn.Write(p)
}

type listener struct {
	node  string
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *listener) Addr() net.Addr { return nodeAddr(l.node) }

// forwarder calls the other host's backend as an RPC server would.
type forwarder struct {
	f    *fabric
	node string
}

var errLost = errors.New("connection reset")

func (w *forwarder) peer(leader string) (*Backend, error) {
	b := w.f.host(leader)
	if b == nil || !w.f.linked(w.node, leader) {
		return nil, fmt.Errorf("dial %s: connection refused: %w", leader, errdefs.ErrUnavailable)
	}
	return b, nil
}

func (w *forwarder) Txn(ctx context.Context, leader string, t store.Txn) (store.Revision, error) {
	b, err := w.peer(leader)
	if err != nil {
		return 0, err
	}
	rev, err := b.LocalTxn(ctx, t)
	if n := w.f.loseAnswers.Load(); n > 0 && w.f.forwarded.Add(1)%n == 0 {
		return 0, fmt.Errorf("call %s: %w (%w)", leader, errLost, errdefs.ErrUnavailable)
	}
	return rev, err
}

func (w *forwarder) Range(ctx context.Context, leader, prefix string) ([]store.Pair, store.Revision, error) {
	b, err := w.peer(leader)
	if err != nil {
		return nil, 0, err
	}
	return b.LocalRange(ctx, prefix)
}

// eventually polls until ok, for at most ten seconds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// waitLeader waits until b knows a leader, by its channel, and returns its ID.
func waitLeader(t testing.TB, b *Backend) string {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		changed := b.LeaderChanged()
		if id, ok := b.Leader(); ok {
			return id
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s knows no leader after 10 s", b.node)
		}
	}
}

// checkLeaks fails when goroutines started after it was called still run at
// the end of the test. It is registered before anything else is.
func checkLeaks(t testing.TB) {
	t.Helper()
	before := goroutines()
	t.Cleanup(func() {
		var left []string
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
			if left = goroutines(); len(left) <= len(before) {
				return
			}
		}
		t.Errorf("%d goroutines were left behind:\n%s", len(left)-len(before), strings.Join(left, "\n\n"))
	})
}

// goroutines lists those that belong to raft, bbolt or this module.
func goroutines() []string {
	buf := make([]byte, 1<<20)
	var ours []string
	for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "testing.tRunner") || strings.Contains(g, "testing.runTests") {
			continue
		}
		// A raft that is shut down leaves a barrier unanswered that it had just taken, and nobody can take it back.
		if strings.Contains(g, "raft.(*deferError).Error") && strings.Contains(g, "raft.await[") {
			continue
		}
		if strings.Contains(g, "hashicorp/raft") || strings.Contains(g, "bbolt") || strings.Contains(g, "minictl/cluster") {
			ours = append(ours, g)
		}
	}
	return ours
}

// Package zk makes a ZooKeeper ensemble the place of a journal. It is the only
// importer of ZooKeeper's client.
package zk

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/go-zookeeper/zk"

	"github.com/minictl/minictl/cluster/store/journal"
)

// sessionTimeout is how long a server that has gone without a word is believed in.
const sessionTimeout = 10 * time.Second

// Remote is a journal.Remote. A key is a node of that path; its version is one
// more than ZooKeeper's, which begins at 0.
type Remote struct {
	address journal.Address
	root    string
	acl     []zk.ACL

	mu    sync.Mutex
	conn  *zk.Conn      // nil until it is needed first
	known bool          // the user has been introduced to the ensemble
	news  chan struct{} // closed when the session's state changes

	pending watch // the last that was set; the zero value: none
}

var _ journal.Remote = (*Remote)(nil)

// New does not connect yet. Close it.
func New(a journal.Address) *Remote {
	r := &Remote{address: a, root: "/" + a.Prefix, acl: zk.WorldACL(zk.PermAll), news: make(chan struct{})}
	if a.User != "" {
		r.acl = zk.AuthACL(zk.PermAll)
	}
	return r
}

// Close ends the session.
func (r *Remote) Close() error {
	r.mu.Lock()
	conn := r.conn
	r.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
	return nil
}

// session waits for one.
func (r *Remote) session(ctx context.Context) (*zk.Conn, error) {
	for {
		conn, known, news, err := r.connect()
		if err != nil {
			return nil, err
		}
		if conn.State() == zk.StateHasSession {
			if known || r.address.User == "" {
				return conn, nil
			}
			return conn, r.introduce(ctx, conn)
		}
		select {
		case <-news:
		case <-ctx.Done():
			return nil, fmt.Errorf("no session with %s: %w", strings.Join(r.address.Hosts, ","), ctx.Err())
		}
	}
}

func (r *Remote) connect() (*zk.Conn, bool, <-chan struct{}, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn == nil {
		conn, _, err := zk.Connect(r.address.Hosts, sessionTimeout, zk.WithLogger(silent{}), zk.WithLogInfo(false),
			zk.WithDialer(r.dial), zk.WithEventCallback(r.heard))
		if err != nil {
			return nil, false, nil, err
		}
		r.conn = conn
	}
	return r.conn, r.known, r.news, nil
}

func (r *Remote) heard(zk.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.news)
	r.news = make(chan struct{})
}

func (r *Remote) dial(network, addr string, timeout time.Duration) (net.Conn, error) {
	d := &net.Dialer{Timeout: timeout}
	if r.address.TLS == nil {
		conn, err := d.Dial(network, addr)
		if err != nil {
			return nil, err
		}
		return &greeted{Conn: conn}, nil
	}
	conf := r.address.TLS.Clone()
	if host, _, err := net.SplitHostPort(addr); err == nil && conf.ServerName == "" {
		conf.ServerName = host
	}
	conn, err := tls.DialWithDialer(d, network, addr, conf)
	if err != nil {
		return nil, err
	}
	return &greeted{Conn: conn}, nil
}

// helloTimeout is how long a server may take to answer the first word. The
// client would wait more than a minute before it tries the next one.
const helloTimeout = 3 * time.Second

// greeted is a connection with a time limit for the first answer.
type greeted struct {
	net.Conn
	answered atomic.Bool
}

// SetReadDeadline implements net.Conn.
func (g *greeted) SetReadDeadline(t time.Time) error {
	if limit := time.Now().Add(helloTimeout); !g.answered.Load() && t.After(limit) {
		t = limit
	}
	return g.Conn.SetReadDeadline(t)
}

// Read implements net.Conn.
func (g *greeted) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	if n > 0 {
		g.answered.Store(true)
	}
	return n, err
}

// introduce shows the password; the client repeats that by itself when it
// connects again.
func (r *Remote) introduce(ctx context.Context, conn *zk.Conn) error {
	_, err := await(ctx, func() (struct{}, error) {
		return struct{}{}, conn.AddAuth("digest", []byte(r.address.User+":"+r.address.Password))
	})
	if err == nil {
		r.mu.Lock()
		r.known = true
		r.mu.Unlock()
	}
	return err
}

// silent drops what the client logs: the journal tells what matters.
type silent struct{}

// Printf implements zk.Logger.
func (silent) Printf(string, ...any) {}

// await waits for a call that knows no context no longer than ctx; the call
// itself ends with its connection at the latest.
func await[T any](ctx context.Context, call func() (T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	done := make(chan answer, 1)
	go func() {
		v, err := call()
		done <- answer{v, err}
	}()
	select {
	case a := <-done:
		return a.v, a.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

func (r *Remote) path(key string) string { return path.Join(r.root, key) }

type node struct {
	value   []byte
	version uint64
}

// Get implements journal.Remote. A server answers reads from what it has. A
// transaction that only asks is put in order with all others and answered by
// the same server when it has got that far, so what is read after it is no
// older.
func (r *Remote) Get(ctx context.Context, key string) ([]byte, uint64, error) {
	conn, err := r.session(ctx)
	if err != nil {
		return nil, 0, err
	}
	n, err := await(ctx, func() (node, error) {
		if _, err := conn.Multi(&zk.CheckVersionRequest{Path: "/", Version: -1}); err != nil {
			return node{}, err
		}
		b, stat, err := conn.Get(r.path(key))
		if errors.Is(err, zk.ErrNoNode) {
			return node{}, nil
		}
		if err != nil {
			return node{}, err
		}
		return node{b, versionOf(stat)}, nil
	})
	return n.value, n.version, err
}

func versionOf(s *zk.Stat) uint64 { return uint64(s.Version) + 1 }

// Swap implements journal.Remote.
func (r *Remote) Swap(ctx context.Context, version uint64, head, entry journal.KV) (uint64, error) {
	conn, err := r.session(ctx)
	if err != nil {
		return 0, err
	}
	var ops []any
	if version == 0 {
		ops = append(ops, &zk.CreateRequest{Path: r.path(head.Key), Data: head.Value, Acl: r.acl})
	} else {
		ops = append(ops, &zk.SetDataRequest{Path: r.path(head.Key), Data: head.Value, Version: int32(version - 1)})
	}
	if entry.Key != "" {
		ops = append(ops, &zk.CreateRequest{Path: r.path(entry.Key), Data: entry.Value, Acl: r.acl})
	}
	return await(ctx, func() (uint64, error) {
		if version == 0 {
			if err := r.makeParents(conn); err != nil {
				return 0, err
			}
		}
		answers, err := conn.Multi(ops...)
		return swapped(version, answers, err)
	})
}

// swapped makes one answer of ZooKeeper's several.
func swapped(version uint64, answers []zk.MultiResponse, err error) (uint64, error) {
	for _, a := range answers {
		switch {
		case errors.Is(a.Error, zk.ErrBadVersion), errors.Is(a.Error, zk.ErrNodeExists), errors.Is(a.Error, zk.ErrNoNode):
			return 0, fmt.Errorf("%w (%w)", a.Error, errdefs.ErrConflict)
		case a.Error != nil && err == nil:
			err = a.Error
		}
	}
	switch {
	case errors.Is(err, zk.ErrBadVersion), errors.Is(err, zk.ErrNodeExists), errors.Is(err, zk.ErrNoNode):
		return 0, fmt.Errorf("%w (%w)", err, errdefs.ErrConflict)
	case err != nil:
		return 0, err
	case len(answers) == 0:
		return 0, zk.ErrUnknown
	case version == 0:
		return 1, nil
	}
	return versionOf(answers[0].Stat), nil
}

// makeParents makes the nodes that the others stand below.
func (r *Remote) makeParents(conn *zk.Conn) error {
	made := ""
	for name := range strings.SplitSeq(strings.Trim(r.root, "/"), "/") {
		made += "/" + name
		if err := r.makeNode(conn, made); err != nil {
			return err
		}
	}
	for _, dir := range []string{"log", "snapshot"} {
		if err := r.makeNode(conn, r.path(dir)); err != nil {
			return err
		}
	}
	return nil
}

func (r *Remote) makeNode(conn *zk.Conn, path string) error {
	ok, _, err := conn.Exists(path)
	if ok || err != nil {
		return err
	}
	if _, err = conn.Create(path, nil, 0, r.acl); errors.Is(err, zk.ErrNodeExists) {
		return nil
	}
	return err
}

// Put implements journal.Remote.
func (r *Remote) Put(ctx context.Context, kv journal.KV) error {
	conn, err := r.session(ctx)
	if err != nil {
		return err
	}
	_, err = await(ctx, func() (struct{}, error) {
		_, err := conn.Create(r.path(kv.Key), kv.Value, 0, r.acl)
		if errors.Is(err, zk.ErrNoNode) {
			if err = r.makeParents(conn); err == nil {
				_, err = conn.Create(r.path(kv.Key), kv.Value, 0, r.acl)
			}
		}
		if errors.Is(err, zk.ErrNodeExists) {
			_, err = conn.Set(r.path(kv.Key), kv.Value, -1)
		}
		return struct{}{}, err
	})
	return err
}

// Keys implements journal.Remote.
func (r *Remote) Keys(ctx context.Context, prefix string) ([]string, error) {
	conn, err := r.session(ctx)
	if err != nil {
		return nil, err
	}
	return await(ctx, func() ([]string, error) {
		names, _, err := conn.Children(r.path(prefix))
		if errors.Is(err, zk.ErrNoNode) {
			return nil, nil
		}
		var keys []string
		for _, n := range names {
			keys = append(keys, prefix+n)
		}
		return keys, err
	})
}

// Delete implements journal.Remote.
func (r *Remote) Delete(ctx context.Context, keys ...string) error {
	conn, err := r.session(ctx)
	if err != nil {
		return err
	}
	_, err = await(ctx, func() (struct{}, error) {
		for _, k := range keys {
			if err := conn.Delete(r.path(k), -1); err != nil && !errors.Is(err, zk.ErrNoNode) {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	return err
}

// watch is one that has been set and not fired yet.
type watch struct {
	key     string
	version uint64
	fired   <-chan zk.Event
}

// Wait implements journal.Remote by ZooKeeper's watch, which fires once. One
// that was waited for in vain is waited for again: the client never takes a
// watch back, and a new one every few seconds would pile up for ever.
func (r *Remote) Wait(ctx context.Context, key string, version uint64) error {
	conn, err := r.session(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	w := r.pending
	r.mu.Unlock()
	if w.fired == nil || w.key != key || w.version != version {
		if w, err = r.watch(ctx, conn, key); err != nil || w.version != version {
			return err
		}
	}
	select {
	case e := <-w.fired:
		r.mu.Lock()
		r.pending = watch{}
		r.mu.Unlock()
		return e.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Remote) watch(ctx context.Context, conn *zk.Conn, key string) (watch, error) {
	w, err := await(ctx, func() (watch, error) {
		there, stat, fired, err := conn.ExistsW(r.path(key))
		w := watch{key: key, fired: fired}
		if err == nil && there {
			w.version = versionOf(stat)
		}
		return w, err
	})
	if err == nil {
		r.mu.Lock()
		r.pending = w
		r.mu.Unlock()
	}
	return w, err
}

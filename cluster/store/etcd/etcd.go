// Package etcd makes an etcd cluster (its v3 API) the place of a journal. It
// is the only importer of etcd's client.
package etcd

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/minictl/minictl/cluster/store/journal"
)

// A server that has gone without a word is noticed after this; etcd refuses to
// be asked more often.
const (
	keepAlive   = 5 * time.Second
	dialTimeout = 3 * time.Second
)

// Remote is a journal.Remote. The version of a key is its ModRevision.
type Remote struct {
	conf   clientv3.Config
	prefix string

	mu     sync.Mutex
	client *clientv3.Client // nil until it is needed first
}

var _ journal.Remote = (*Remote)(nil)

// New does not connect yet. Close it.
func New(a journal.Address) *Remote {
	return &Remote{prefix: a.Prefix + "/", conf: clientv3.Config{
		Endpoints: a.Hosts, TLS: a.TLS, Username: a.User, Password: a.Password,
		DialTimeout: dialTimeout, DialKeepAliveTime: keepAlive, DialKeepAliveTimeout: keepAlive,
		MaxUnaryRetries: 2, // the journal tries again by itself
		Logger:          zap.NewNop(),
	}}
}

// connect makes the client: with a password that means to ask for a token,
// which fails while no server is there.
func (r *Remote) connect() (*clientv3.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client == nil {
		c, err := clientv3.New(r.conf)
		if err != nil {
			return nil, err
		}
		r.client = c
	}
	return r.client, nil
}

// Close ends the connections.
func (r *Remote) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client == nil {
		return nil
	}
	return r.client.Close()
}

// Get implements journal.Remote: etcd's reads are linearizable unless told otherwise.
func (r *Remote) Get(ctx context.Context, key string) ([]byte, uint64, error) {
	c, err := r.connect()
	if err != nil {
		return nil, 0, err
	}
	resp, err := c.Get(ctx, r.prefix+key)
	if err != nil || len(resp.Kvs) == 0 {
		return nil, 0, err
	}
	return resp.Kvs[0].Value, uint64(resp.Kvs[0].ModRevision), nil
}

// Swap implements journal.Remote. A key that does not exist has revision 0.
func (r *Remote) Swap(ctx context.Context, version uint64, head, entry journal.KV) (uint64, error) {
	c, err := r.connect()
	if err != nil {
		return 0, err
	}
	puts := []clientv3.Op{clientv3.OpPut(r.prefix+head.Key, string(head.Value))}
	if entry.Key != "" {
		puts = append(puts, clientv3.OpPut(r.prefix+entry.Key, string(entry.Value)))
	}
	resp, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(r.prefix+head.Key), "=", int64(version))).Then(puts...).Commit()
	if err != nil {
		return 0, err
	}
	if !resp.Succeeded {
		return 0, errdefs.ErrConflict
	}
	return uint64(resp.Header.Revision), nil
}

// Put implements journal.Remote.
func (r *Remote) Put(ctx context.Context, kv journal.KV) error {
	c, err := r.connect()
	if err != nil {
		return err
	}
	_, err = c.Put(ctx, r.prefix+kv.Key, string(kv.Value))
	return err
}

// Keys implements journal.Remote.
func (r *Remote) Keys(ctx context.Context, prefix string) ([]string, error) {
	c, err := r.connect()
	if err != nil {
		return nil, err
	}
	resp, err := c.Get(ctx, r.prefix+prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, kv := range resp.Kvs {
		keys = append(keys, string(kv.Key[len(r.prefix):]))
	}
	return keys, nil
}

// Delete implements journal.Remote.
func (r *Remote) Delete(ctx context.Context, keys ...string) error {
	c, err := r.connect()
	if err != nil {
		return err
	}
	var ops []clientv3.Op
	for _, k := range keys {
		ops = append(ops, clientv3.OpDelete(r.prefix+k))
	}
	_, err = c.Txn(ctx).Then(ops...).Commit()
	return err
}

// Wait implements journal.Remote by a watch that begins right after the version.
func (r *Remote) Wait(ctx context.Context, key string, version uint64) error {
	c, err := r.connect()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel() // ends the watch
	from := int64(version) + 1
	if version == 0 { // a watch from revision 1 may tell of what was there long ago
		resp, err := c.Get(ctx, r.prefix+key)
		if err != nil || len(resp.Kvs) > 0 {
			return err
		}
		from = resp.Header.Revision + 1
	}
	for resp := range c.Watch(ctx, r.prefix+key, clientv3.WithRev(from)) {
		switch err := resp.Err(); {
		case errors.Is(err, rpctypes.ErrCompacted): // so it has changed, long ago
			return nil
		case err != nil:
			return err
		case len(resp.Events) > 0:
			return nil
		}
	}
	return ctx.Err()
}

// Package consul makes the key/value store of Consul the place of a journal.
// It is the only importer of Consul's client, which also takes its settings
// from the environment: CONSUL_HTTP_TOKEN and the like.
package consul

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/consul/api"

	"github.com/minictl/minictl/cluster/store/journal"
)

// Remote is a journal.Remote. The version of a key is its ModifyIndex.
type Remote struct {
	prefix  string
	clients []*api.Client // one for each agent
	turn    atomic.Uint64 // of the agent that is asked
}

var _ journal.Remote = (*Remote)(nil)

// New does not connect yet. Close it.
func New(a journal.Address) (*Remote, error) {
	r := &Remote{prefix: a.Prefix + "/"}
	for _, host := range a.Hosts {
		conf := api.DefaultConfig()
		conf.Address, conf.Scheme = host, "http"
		if a.TLS != nil {
			conf.Scheme, conf.Transport.TLSClientConfig = "https", a.TLS
		}
		if a.User != "" {
			conf.HttpAuth = &api.HttpBasicAuth{Username: a.User, Password: a.Password}
		}
		conf.HttpClient = &http.Client{Transport: conf.Transport}
		c, err := api.NewClient(conf)
		if err != nil {
			return nil, fmt.Errorf("consul at %s: %w", host, err)
		}
		r.clients = append(r.clients, c)
	}
	return r, nil
}

// Close does nothing: there is no connection but while a question is asked.
func (r *Remote) Close() error { return nil }

// ask puts a question to one agent. After a failure the next question goes to
// the next one.
func (r *Remote) ask(question func(*api.Client) error) error {
	n := r.turn.Load()
	err := question(r.clients[n%uint64(len(r.clients))])
	if err != nil && !errdefs.IsConflict(err) {
		r.turn.CompareAndSwap(n, n+1)
	}
	return err
}

// Get implements journal.Remote.
func (r *Remote) Get(ctx context.Context, key string) (value []byte, version uint64, err error) {
	err = r.ask(func(c *api.Client) error {
		q := &api.QueryOptions{RequireConsistent: true}
		p, _, err := c.KV().Get(r.prefix+key, q.WithContext(ctx))
		if p != nil {
			value, version = p.Value, p.ModifyIndex
		}
		return err
	})
	return value, version, err
}

// Swap implements journal.Remote. Index 0 asks for the key to be absent.
func (r *Remote) Swap(ctx context.Context, version uint64, head, entry journal.KV) (now uint64, err error) {
	ops := api.KVTxnOps{{Verb: api.KVCAS, Key: r.prefix + head.Key, Value: head.Value, Index: version}}
	if entry.Key != "" {
		ops = append(ops, &api.KVTxnOp{Verb: api.KVSet, Key: r.prefix + entry.Key, Value: entry.Value})
	}
	err = r.ask(func(c *api.Client) error {
		ok, resp, _, err := c.KV().Txn(ops, (&api.QueryOptions{}).WithContext(ctx))
		switch {
		case err != nil:
			return err
		case !ok && len(resp.Errors) > 0 && resp.Errors[0].OpIndex == 0:
			return errdefs.ErrConflict // nothing but the index can be wrong with it
		case !ok || len(resp.Results) == 0:
			return fmt.Errorf("write %s: %s", entry.Key, reason(resp))
		}
		now = resp.Results[0].ModifyIndex
		return nil
	})
	return now, err
}

func reason(resp *api.KVTxnResponse) string {
	if len(resp.Errors) == 0 {
		return "the answer is empty"
	}
	return resp.Errors[0].What
}

// Put implements journal.Remote.
func (r *Remote) Put(ctx context.Context, kv journal.KV) error {
	return r.ask(func(c *api.Client) error {
		_, err := c.KV().Put(&api.KVPair{Key: r.prefix + kv.Key, Value: kv.Value}, (&api.WriteOptions{}).WithContext(ctx))
		return err
	})
}

// Keys implements journal.Remote.
func (r *Remote) Keys(ctx context.Context, prefix string) (keys []string, err error) {
	err = r.ask(func(c *api.Client) error {
		all, _, err := c.KV().Keys(r.prefix+prefix, "", (&api.QueryOptions{}).WithContext(ctx))
		for _, k := range all {
			keys = append(keys, k[len(r.prefix):])
		}
		return err
	})
	return keys, err
}

// Delete implements journal.Remote. A transaction takes 64 operations.
func (r *Remote) Delete(ctx context.Context, keys ...string) error {
	var ops api.KVTxnOps
	for _, k := range keys {
		ops = append(ops, &api.KVTxnOp{Verb: api.KVDelete, Key: r.prefix + k})
	}
	return r.ask(func(c *api.Client) error {
		ok, resp, _, err := c.KV().Txn(ops, (&api.QueryOptions{}).WithContext(ctx))
		if err == nil && !ok {
			err = fmt.Errorf("delete: %s", reason(resp))
		}
		return err
	})
}

// Wait implements journal.Remote by a blocking query, which ends when the
// index has grown, and sometimes for no reason.
func (r *Remote) Wait(ctx context.Context, key string, version uint64) error {
	q := &api.QueryOptions{WaitIndex: version}
	if left, ok := ctx.Deadline(); ok {
		q.WaitTime = max(time.Until(left), time.Millisecond)
	}
	return r.ask(func(c *api.Client) error {
		if version == 0 { // an absent key has the index of its surroundings
			p, meta, err := c.KV().Get(r.prefix+key, (&api.QueryOptions{}).WithContext(ctx))
			if err != nil || p != nil {
				return err
			}
			q.WaitIndex = meta.LastIndex
		}
		_, _, err := c.KV().Get(r.prefix+key, q.WithContext(ctx))
		if ctx.Err() != nil {
			return nil // not the agent's fault
		}
		return err
	})
}

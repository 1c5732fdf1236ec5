package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store"
)

// prefixNodeSpec is where the Store has the NodeSpecs, by node.
const prefixNodeSpec = "node-spec/"

func nodeSpecKey(id NodeID) string { return prefixNodeSpec + string(id) }

// NodeSpec is what people wish of a node. A Node is its owner's to write; this is anybody's, so the Store decides between
// two who write at once. It ends with the node's membership.
type NodeSpec struct {
	Labels map[string]string `json:"labels,omitempty"`

	Rev store.Revision `json:"-"` // of the key it was read from; 0: never written
}

// NodeSpecs gives the specs that were written, as this host's replica of the Store has them.
func NodeSpecs(ctx context.Context, s store.Store) (map[NodeID]NodeSpec, error) {
	pairs, _, err := s.Range(ctx, prefixNodeSpec, false)
	if err != nil {
		return nil, fmt.Errorf("read nodes' labels: %w", err)
	}
	out := make(map[NodeID]NodeSpec, len(pairs))
	for _, p := range pairs {
		spec := NodeSpec{Rev: p.Rev}
		if err := json.Unmarshal(p.Value, &spec); err != nil {
			return nil, fmt.Errorf("read %s: %w: %w", p.Key, err, errdefs.ErrDataLoss)
		}
		out[NodeID(strings.TrimPrefix(p.Key, prefixNodeSpec))] = spec
	}
	return out, nil
}

// CountNodes counts the nodes, as this host's replica of the Store has them. Members comes to the same a moment later: while
// a replica takes up what has been decided before, it lists who has been removed since.
func CountNodes(ctx context.Context, s store.Store) (int, error) {
	pairs, _, err := s.Range(ctx, prefixNode, false)
	if err != nil {
		return 0, fmt.Errorf("count nodes: %w", err)
	}
	return len(pairs), nil
}

// prefixNodes is where all begins that the Store has about nodes.
const prefixNodes = "node"

// WatchNodes tells of every change of a node's record or spec, and once at the beginning; see store.Store.
func WatchNodes(ctx context.Context, s store.Store) (<-chan []store.Event, error) {
	return s.Watch(ctx, prefixNodes)
}

// PutNodeSpec writes a member's spec if the present one is the revision that spec.Rev names: otherwise ErrConflict, and the
// caller looks again. ErrNotFound: no such member.
func PutNodeSpec(ctx context.Context, s store.Store, id NodeID, spec NodeSpec) error {
	old, _, err := store.Get(ctx, s, nodeSpecKey(id), true) // if it is not that revision, nothing is written
	if err != nil {
		return fmt.Errorf("change node %s: %w", id, err)
	}
	value, err := store.Carry(old.Value, spec)
	if err != nil {
		return err
	}
	for {
		node, here, err := store.Get(ctx, s, nodeKey(id), true)
		if err != nil {
			return fmt.Errorf("change node %s: %w", id, err)
		}
		if !here {
			return fmt.Errorf("node %s not found: %w", id, errdefs.ErrNotFound)
		}
		_, err = s.Txn(ctx, store.Txn{
			// With the node's own record as a condition, no spec is left behind by a removal at the same time.
			If:   []store.Cond{{Key: node.Key, Rev: node.Rev}, {Key: nodeSpecKey(id), Rev: spec.Rev}},
			Then: []store.Op{{Key: nodeSpecKey(id), Value: value}},
		})
		if err == nil {
			return nil
		}
		var conflict *store.ConflictError
		if !errors.As(err, &conflict) || conflict.Key != node.Key {
			return fmt.Errorf("change node %s: %w", id, err)
		}
	}
}

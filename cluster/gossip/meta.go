package gossip

import (
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/memberlist"
)

// Meta is what a member shows to all others without being asked.
type Meta struct {
	Cluster string `json:"c"`
	Epoch   string `json:"e"`
	Name    string `json:"n"`
	Version string `json:"v,omitempty"`
}

// encode fails rather than show half of itself.
func (m Meta) encode() ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode gossip metadata: %w", err)
	}
	if len(b) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("encode gossip metadata: %d bytes, at most %d: shorten the node's name: %w", len(b), memberlist.MetaMaxSize, errdefs.ErrInvalidArgument)
	}
	return b, nil
}

// DecodeMeta reads a member's metadata.
func DecodeMeta(b []byte) (Meta, error) {
	var m Meta
	if err := json.Unmarshal(b, &m); err != nil {
		return Meta{}, fmt.Errorf("decode gossip metadata: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if m.Cluster == "" || m.Epoch == "" {
		return Meta{}, fmt.Errorf("decode gossip metadata: no cluster or epoch: %w", errdefs.ErrInvalidArgument)
	}
	return m, nil
}

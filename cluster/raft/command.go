package raft

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/minictl/minictl/cluster/store"
)

// commandVersion is what this daemon writes and the newest it understands.
const commandVersion = 1

// command is a transaction as it lies in the log. The names are short because
// there are many of them; the log of a cluster can still be read with a pager.
type command struct {
	Version int         `json:"v"`
	ID      string      `json:"id"`
	If      []condition `json:"if,omitempty"`
	Then    []operation `json:"then,omitempty"`
}

type condition struct {
	Key string         `json:"k"`
	Rev store.Revision `json:"r"`
}

type operation struct {
	Key    string `json:"k"`
	Value  []byte `json:"v,omitempty"` // base64
	Delete bool   `json:"d,omitempty"`
	Prefix bool   `json:"p,omitempty"`
}

func encodeCommand(t store.Txn) ([]byte, error) {
	c := command{Version: commandVersion, ID: t.ID}
	for _, x := range t.If {
		c.If = append(c.If, condition(x))
	}
	for _, x := range t.Then {
		c.Then = append(c.Then, operation(x))
	}
	return json.Marshal(c)
}

// decodeCommand refuses with ErrNotImplemented what a newer daemon wrote, and
// with ErrDataLoss what no daemon wrote. Both stop the replica.
func decodeCommand(b []byte) (store.Txn, error) {
	var c command
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields() // an unknown field is an unknown meaning
	if err := d.Decode(&c); err != nil || c.Version != commandVersion {
		return store.Txn{}, refuse(b, err)
	}
	t := store.Txn{ID: c.ID}
	for _, x := range c.If {
		t.If = append(t.If, store.Cond(x))
	}
	for _, x := range c.Then {
		t.Then = append(t.Then, store.Op(x))
	}
	if err := t.Validate(); err != nil {
		return store.Txn{}, fmt.Errorf("decode command: %w: %w", err, errdefs.ErrDataLoss)
	}
	return t, nil
}

// refuse says why a command is not understood.
func refuse(b []byte, cause error) error {
	var head struct {
		Version int `json:"v"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return fmt.Errorf("decode command: %w: %w", err, errdefs.ErrDataLoss)
	}
	if head.Version != commandVersion {
		return fmt.Errorf("decode command: it has version %d and this daemon knows %d; upgrade minictl on this host: %w",
			head.Version, commandVersion, errdefs.ErrNotImplemented)
	}
	return fmt.Errorf("decode command: %w; upgrade minictl on this host: %w", cause, errdefs.ErrNotImplemented)
}

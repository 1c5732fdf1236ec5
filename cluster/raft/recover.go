package raft

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	hraft "github.com/hashicorp/raft"
)

// Recover makes the host with this Dir the only voter and only member of its
// cluster. It is an operator's way out when the voters are gone for good. The
// backend must be closed, and opened again afterwards.
//
// What this host has in its log counts as agreed on from now on; what the lost
// voters agreed on without it is gone. Nothing here keeps them from coming
// back and going on as before: whoever recovers must fence them off, so that
// no connection of theirs is accepted again.
func Recover(ctx context.Context, c Config) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	path := filepath.Join(c.Dir, "raft.db")
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("recover store: this host has no copy of it: %w (%w)", err, errdefs.ErrFailedPrecondition)
	}
	state := newFSM()
	logs, err := openLog(path, c.NodeID, state.index)
	if err != nil {
		return err
	}
	defer logs.Close()
	conf := raftConfig(c.NodeID, c.Log)
	snaps, err := hraft.NewFileSnapshotStoreWithLogger(c.Dir, keepSnapshots, conf.Logger)
	if err != nil {
		return fmt.Errorf("recover store: %w", err)
	}
	alone, _ := newTransport(c.NodeID, nil, conf.Logger)
	err = hraft.RecoverCluster(conf, state, logs, logs, snaps, alone, onlyVoter(c.NodeID))
	if failed := state.failed(); failed != nil {
		err = failed
	}
	if err != nil {
		return fmt.Errorf("recover store in %s: %w", c.Dir, err)
	}
	return nil
}

// onlyVoter is the configuration of a cluster of one.
func onlyVoter(node string) hraft.Configuration {
	return hraft.Configuration{Servers: []hraft.Server{{ID: hraft.ServerID(node), Address: hraft.ServerAddress(node)}}}
}

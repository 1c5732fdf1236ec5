package raft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	hraft "github.com/hashicorp/raft"
	"github.com/minictl/minictl/cluster/store"
)

// Config is what Open needs.
type Config struct {
	Dir    string       // this node's own directory; made if absent
	NodeID string       // never changes for a Dir; doubles as raft's server address
	Log    *slog.Logger // nil: nothing is logged

	// Stream connects to the other hosts; Close closes its listener. Nil means
	// alone: no network, and nothing listens. A host that becomes part of a
	// cluster is closed and opened again with a Stream.
	Stream StreamLayer

	// Bootstrap makes a new cluster of this one host if Dir holds none yet. A
	// host that is to join a cluster opens without, and waits for the leader's
	// AddLearner.
	Bootstrap bool

	// Forward carries transactions and fresh reads to the leader. Nil: only
	// the leader can answer them.
	Forward Forwarder
}

// Forwarder asks another host. What the leader answers must arrive with its
// errdefs class; a host that cannot be reached is ErrUnavailable. The other
// end calls LocalTxn and LocalRange.
type Forwarder interface {
	// Txn has the leader apply t. t.ID is set and must be passed on.
	Txn(ctx context.Context, leader string, t store.Txn) (store.Revision, error)
	// Range reads the leader's state.
	Range(ctx context.Context, leader, prefix string) ([]store.Pair, store.Revision, error)
}

// Peer is one member of raft's configuration.
type Peer struct {
	ID    string
	Voter bool // false: a learner, which follows but is not asked
}

// Backend is a store.Store that a cluster's hosts keep among themselves.
type Backend struct {
	node    string
	log     *slog.Logger
	forward Forwarder
	opened  time.Time

	fsm   *fsm
	logs  *logStore
	trans hraft.Transport
	raft  *hraft.Raft

	leader   leadership
	nudges   *nudger
	confirms *confirmer

	ctx     context.Context // ends when the backend closes
	cancel  context.CancelFunc
	running sync.WaitGroup // the backend's own goroutines
	asked   questions      // to raft
	logged  logged
	gone    chan struct{} // closed when raft answers no more
	close   func() error
}

var _ store.Store = (*Backend)(nil)

// Open starts this host's part of the store. It returns as soon as the replica
// can be read: after a restart that is the newest state this host knows to be
// agreed on, whether or not a leader is there. A cluster of one has its leader
// within milliseconds; Txn and fresh Range wait for it by themselves.
//
// ctx bounds Open alone. Damaged files are ErrDataLoss, files of another node
// or of a newer daemon ErrFailedPrecondition.
func Open(ctx context.Context, c Config) (*Backend, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if c.NodeID == "" || c.Dir == "" {
		return nil, fmt.Errorf("open store: no directory or no node ID: %w", errdefs.ErrInvalidArgument)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	b := &Backend{node: c.NodeID, log: c.Log.With("component", "raft"), forward: c.Forward, opened: time.Now()}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.gone = make(chan struct{})
	b.close = sync.OnceValue(b.shutdown)
	b.fsm = newFSM()
	if err := b.start(c); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// start builds the parts from the disk upwards.
func (b *Backend) start(c Config) error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	var err error
	if b.logs, err = openLog(filepath.Join(c.Dir, "raft.db"), c.NodeID, b.fsm.index); err != nil {
		return err
	}
	conf := raftConfig(b.node, b.log)
	snaps, err := hraft.NewFileSnapshotStoreWithLogger(c.Dir, keepSnapshots, conf.Logger)
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	b.trans, _ = newTransport(c.NodeID, c.Stream, conf.Logger)
	if err := b.bootstrap(conf, snaps, c.Bootstrap); err != nil {
		return err
	}
	if err := b.recall(snaps); err != nil {
		return fmt.Errorf("open store in %s: %w", c.Dir, err)
	}
	if b.raft, err = hraft.NewRaft(conf, b.fsm, b.logs, b.logs, snaps, b.trans); err != nil {
		return fmt.Errorf("open store in %s: %w", c.Dir, err)
	}
	b.nudges, b.confirms = newNudger(b), newConfirmer(b)
	b.leader.init()
	b.running.Go(b.watchLeader)
	b.running.Go(b.watchReplica)
	b.running.Go(b.saveApplied)
	return b.elect()
}

func raftConfig(node string, log *slog.Logger) *hraft.Config {
	conf := hraft.DefaultConfig()
	conf.LocalID = hraft.ServerID(node)
	// One nanosecond more than elect will set: raft looks at its timer again
	// when the time-out shrinks.
	conf.HeartbeatTimeout = heartbeatTimeout + 1
	conf.ElectionTimeout = electionTimeout + 1
	conf.LeaderLeaseTimeout = leaseTimeout
	conf.CommitTimeout = commitTimeout
	conf.MaxAppendEntries = batchEntries
	conf.BatchApplyCh = true // concurrent transactions share one write to disk
	conf.SnapshotThreshold = snapshotEvery
	conf.SnapshotInterval = snapshotCheck
	conf.TrailingLogs = trailingEntries
	conf.ShutdownOnRemove = false // whoever removes this host closes it
	conf.NoLegacyTelemetry = true
	conf.NoSnapshotRestoreOnStart = true // recall does it
	conf.Logger = newLogger(log)
	return conf
}

// bootstrap makes the first configuration: this host, the only voter.
func (b *Backend) bootstrap(conf *hraft.Config, snaps hraft.SnapshotStore, wanted bool) error {
	if !wanted {
		return nil
	}
	had, err := hraft.HasExistingState(b.logs, b.logs, snaps)
	if err != nil || had {
		return err
	}
	if err := hraft.BootstrapCluster(conf, b.logs, b.logs, snaps, b.trans, onlyVoter(b.node)); err != nil {
		return fmt.Errorf("make a new cluster: %w", err)
	}
	return nil
}

// recall brings the replica to the newest state this host knows to be agreed
// on, before raft starts and without asking anybody: the newest snapshot and
// the entries that were applied after it. Raft applies those entries again
// when a leader confirms them; the replica takes each only once.
//
// Raft has a setting for the same (RestoreCommittedLogs), which in v1.8.0
// forgets the configuration entries among those it restores.
func (b *Backend) recall(snaps hraft.SnapshotStore) error {
	metas, err := snaps.List()
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	first := uint64(0)
	if len(metas) > 0 {
		// Only the newest will do: the log continues from there.
		meta, r, err := snaps.Open(metas[0].ID)
		if err != nil {
			return fmt.Errorf("open snapshot %s: %w: %w", metas[0].ID, err, errdefs.ErrDataLoss)
		}
		defer r.Close()
		if err := b.fsm.Restore(r); err != nil {
			return fmt.Errorf("snapshot %s: %w", metas[0].ID, err)
		}
		first = meta.Index + 1
	}
	return b.logs.Applied(first, func(entry *hraft.Log) { b.fsm.Apply(entry) })
}

// elect makes the only voter of a cluster leader now: there is nobody whose
// heartbeat it could wait for. Lowering the time-out makes raft look at its
// timer, find that no leader was ever heard, and call the election.
func (b *Backend) elect() error {
	if !b.onlyVoter() {
		return nil
	}
	conf := b.raft.ReloadableConfig()
	conf.HeartbeatTimeout, conf.ElectionTimeout = heartbeatTimeout, electionTimeout
	return b.raft.ReloadConfig(conf)
}

// watchReplica ends raft when the replica can follow no further, or the disk
// keeps nothing any more: a member that votes and acknowledges but does not
// apply or remember would be counted on in vain. Reading goes on.
func (b *Backend) watchReplica() {
	select {
	case <-b.logs.db.Lost():
		b.fsm.fail(b.logs.db.Err())
	case <-b.fsm.dead:
	case <-b.ctx.Done():
		return
	}
	b.log.Error("store stopped, this host no longer follows the cluster's decisions", "err", b.fsm.failed())
	_ = b.raft.Shutdown().Error() // logs for itself
}

// saveApplied keeps the disk's idea of what was applied not far behind.
func (b *Backend) saveApplied() {
	saved := b.fsm.index()
	for {
		next := b.fsm.index() + 1
		if saved+1 == next { // nothing new: sleep until there is
			if b.fsm.wait(b.ctx, next) != nil {
				return
			}
		}
		select {
		case <-time.After(saveAfter):
		case <-b.ctx.Done():
			return
		}
		saved = b.fsm.index()
		if err := b.logs.SaveApplied(saved); err != nil {
			b.log.Warn("cannot note on disk what was applied", "err", err)
		}
	}
}

// Close stops taking part, ends every watch and closes the files. The replica
// can still be read. A leader that has voters to follow it should hand over
// first (TransferLeadership), or they wait for the heartbeat time-out.
func (b *Backend) Close() error { return b.close() }

func (b *Backend) shutdown() error {
	b.cancel()
	var errs []error
	if b.raft != nil {
		b.nudges.close()
		b.confirms.close()
		b.answered()
		errs = append(errs, b.raft.Shutdown().Error())
	}
	close(b.gone)
	if t, ok := b.trans.(hraft.WithClose); ok {
		errs = append(errs, t.Close()) // raft closes it too, but not the second time it is shut down
	}
	b.running.Wait()
	errs = append(errs, b.fsm.mem.Close())
	if b.logs != nil && b.logs.db != nil {
		if b.raft != nil && b.logs.db.Err() == nil {
			errs = append(errs, b.logs.SaveApplied(b.fsm.index()))
		}
		errs = append(errs, b.logs.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// Err says why this host's replica follows no further (a command of a newer
// daemon, a disk that lost what was written); nil while it does.
func (b *Backend) Err() error { return b.fsm.failed() }

// AppliedIndex is the number of the last transaction that this host's replica
// holds. It counts refused transactions too, so it may be above the revision.
func (b *Backend) AppliedIndex() uint64 { return b.fsm.index() }

// Unapplied counts the entries that this host has received and does not know to be agreed on.
func (b *Backend) Unapplied() uint64 {
	last, applied := b.raft.LastIndex(), b.raft.AppliedIndex()
	return max(last, applied) - applied
}

// WaitApplied returns when the replica holds transaction index, which may be a
// revision or another host's AppliedIndex.
func (b *Backend) WaitApplied(ctx context.Context, index uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.ctx, cancel)()
	if err := b.fsm.wait(ctx, index); err != nil {
		return errors.Join(b.Usable(), err)
	}
	return nil
}

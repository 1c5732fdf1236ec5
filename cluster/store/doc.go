// Package store defines the Store: a small, ordered, transactional map of
// strings to bytes that every host of a cluster agrees on.
//
// # What it is for
//
// Decisions, and nothing else: which networks exist, which address belongs to
// whom, which keys and tokens are valid. Facts that change often and have one
// owner (endpoint records, liveness) travel by gossip and never pass through
// here, because every write costs one round of agreement and one write to disk.
//
// # Words
//
//   - A key is a path without a leading slash, "address/9f3a/10.0.1.2". The
//     slash means nothing to the store; a prefix is a prefix of bytes, so
//     callers end a prefix with "/" unless they mean otherwise.
//   - A value is opaque. By convention it is JSON.
//   - A [Revision] numbers the states of the whole store. It grows with every
//     transaction that changes something, though not necessarily by one.
//   - A [Pair] carries the revision of its last write. That number is what a
//     condition compares: it is the version of the key.
//   - The leader is the host that orders the transactions. A replica is what
//     this host has applied so far: a true past state, never a mixture.
//
// # Changing something: read, decide, compare and swap
//
// There are no locks. A caller reads, decides, and says in [Txn] what it had
// read; a conflict means that somebody was faster, and the caller starts over:
//
//	for {
//		pairs, _, err := s.Range(ctx, "address/9f3a/", true)
//		...
//		addr := lowestFree(pairs)
//		_, err = s.Txn(ctx, store.Txn{
//			If:   []store.Cond{{Key: "address/9f3a/" + addr}}, // Rev 0: nobody has it
//			Then: []store.Op{{Key: "address/9f3a/" + addr, Value: owner}},
//		})
//		if !errdefs.IsConflict(err) {
//			return addr, err
//		}
//	}
//
// A transaction is applied whole or not at all, in the same order on every
// host, and readers never see half of it.
//
// # When the answer gets lost
//
// ErrUnavailable from Txn means that no leader answered. It does not mean that
// nothing happened: the leader may have died between writing and answering. A
// caller that must know asks again with the same [Txn.ID]; the store applies a
// transaction with an ID it remembers only once and repeats the first answer.
// Within one call of Txn a backend does this by itself.
//
// # Reading
//
// Range with fresh false reads this host's replica: always answered, never
// waits for the network, possibly behind. Range with fresh true is
// linearizable: it sees every transaction whose Txn returned before the Range
// began, on whatever host. Watch follows the replica.
//
// # Backends
//
// memstore (one process, no disk) is the reference; cluster/raft is what a
// cluster runs; journal, with etcd, consul or zk below it, is for those who
// have one of these and want it to decide. Every backend must pass the suite in storetest; a difference
// between two backends is a bug in one of them or a missing check in the suite.
package store

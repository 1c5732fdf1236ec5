// Package journal is a store.Store in somebody else's store: etcd, Consul or
// ZooKeeper, whatever can be a [Remote].
//
// # One journal, not one key per key
//
// The external store holds a journal of transactions. Every host reads it in
// order into a replica of its own (a memstore, as under cluster/raft), and who
// wants to change something appends an entry on condition that the journal has
// not grown since. The external store thus decides one thing only, the order,
// and all else is the same code on every host: conditions, prefix deletes,
// remembered IDs, watches, reads while the store is away.
//
// Why not a key of the external store for each key here: no two of them agree
// on what a transaction may hold. etcd takes 128 operations and 1.5 MiB, Consul
// 64 operations and 512 KiB, ZooKeeper 1 MiB; only etcd deletes by prefix
// within a transaction, and none of them remembers a transaction's ID. Leaving
// a cluster of 50 hosts frees a thousand addresses in one transaction.
//
// # What lies in the external store
//
// Below the prefix of the store's address:
//
//	head                           the number of the last entry, the journal's name, which snapshot there is
//	log/<number>                   one transaction; or, if it is large, the names of its parts
//	log/<number>.<name>.<part>     parts of an entry
//	snapshot/<number>.<name>.<part>  the state after an entry, in parts
//
// All values are JSON. head is what everybody compares and watches: an entry is
// written in one step with the head that counts it, so the number of an entry
// is the [store.Revision] of what it changed. Once there are a few hundred
// entries, whoever wrote the last one writes a snapshot, points head to it,
// and deletes the entries before it. What a crash leaves of that, the next
// snapshot takes away: every key carries the number below which it is useless.
//
// # When it is not there
//
// A host calls every few seconds. Once a call has failed, transactions and
// fresh reads are refused at once with ErrUnavailable, naming the store, until
// it answers again. The replica is kept in a file, so that it can be read after
// a restart without the store.
//
// A store that was emptied, or set back to an older state, is not followed:
// what was decided here would be decided twice. That is
// ErrFailedPrecondition, until the store's content is back.
package journal

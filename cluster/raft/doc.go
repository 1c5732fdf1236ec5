// Package raft is the store that a cluster keeps within itself: hashicorp/raft
// over the hosts' own connections, a log in bbolt, the state in memory.
//
// # On disk
//
// Dir belongs to one node for ever; a node that changes its identity starts
// with an empty one.
//
//	Dir/
//	├── raft.db                      bbolt; one writer, locked while open
//	│   └── v1                       bucket: the schema's version
//	│       ├── node                 ► the node ID, text
//	│       ├── applied              ► 8 bytes, big endian: entries up to here were applied, hence agreed on
//	│       ├── log                  bucket
//	│       │   └── <index, 8 bytes> ► crc32c (4) | term (8) | type (1) | appended at, ns (8) | len (4) | data | extensions
//	│       └── stable               bucket
//	│           └── <name>           ► crc32c (4) | value: raft's term and vote
//	└── snapshots/<term>-<index>-<ms>/
//	    ├── meta.json                hashicorp's: index, term, members, size, crc64
//	    └── state.bin                ours: JSON lines, see snapshot.go
//
// Numbers are big endian so that keys sort. Every checksum covers the record's
// key as well, so that a record in another's place is noticed. The log has no
// holes except in front of a snapshot's index.
//
// On a host that alone decides the file is larger than what is in it: the rest
// is for removals while the disk is full (makeRoom).
//
// The version is the bucket's name: a daemon that finds only buckets it does
// not know refuses to start rather than begin a second history beside the
// first. Whoever changes a record's layout adds bucket v2 and a migration that
// runs in one bbolt transaction in openLog.
//
// # In the log
//
// A command is JSON with a version (command.go). A version this daemon does
// not know, or a field it does not know, stops the replica where it is:
// skipping it would make this host's state differ from the others' for ever.
//
// # Time
//
// See timing.go for every time-out and what it costs.
package raft

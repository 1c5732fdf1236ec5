// Package cluster makes one cluster of several hosts: who is a member, what all agree on (the Store), who is alive, and
// where the endpoints of the global networks are.
//
// A host that was never told anything is a cluster of one: its Store works at once and nothing listens on the network.
// Init opens port 7946 and lets others in; Join enters another's cluster and forgets the one of one; Leave goes back.
//
// What is where, in Config.Dir:
//
//	cluster.json   this host's place: cluster, epoch, its own node record, the members it knows, the gossip keys
//	records.json   the endpoint records of this host
//	before.json    the networks it knew before it joined again after a takeover, until the daemon has looked at them
//	identity/      its key and certificates (package identity)
//	raft/          its replica of the Store (package raft)
//	store.json     the same where an external store decides (package store/journal)
//
// With Config.External a store outside the cluster decides instead of raft. Then there is no Init and no Join: hosts
// find the cluster in that store, or found it there, and sign themselves in. Who can read the store is trusted with all
// of it, the authority's key included.
//
// Keys of the Store that this package writes; all values are JSON:
//
//	node/<id>          a Node
//	cluster            UUID and epoch, in an external store only
//	node-name/<name>   the ID of the node of that name: names are unique
//	ca                 the authority, private key included, so that any member can admit a host
//	token/<id>         a join token
//	takeover           the last Takeover, if there ever was one
//	epochs             the epochs before the present one
//	gossip-keys        the keys of the gossip packets, the first one encrypts
//
// Whoever writes address/<network>/<ip> puts the owning node's ID into the value as "node": Leave frees those.
package cluster

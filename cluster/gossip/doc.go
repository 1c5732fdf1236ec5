// Package gossip tells which members of the cluster are alive. It is the only importer of hashicorp/memberlist.
//
// Members probe each other with UDP packets under a rotating key; a host that answers neither directly, nor through
// others, nor over TCP is marked dead within five seconds. Members are named by node ID. Each shows, in the few hundred
// bytes of metadata that memberlist spreads, its cluster and epoch (see transport.Fence) and its name; a packet of
// another cluster or epoch is ignored. memberlist forgets dead members after a while, so this package tries every known
// but absent peer again for ever: a partition heals whatever its length (see the field's bug reports about split
// gossip that never healed).
//
// Every now and then, and at each join, two members exchange a small state of the layer above over TCP: the versions of
// the record snapshots they have, as back-up for updates that were not delivered.
package gossip

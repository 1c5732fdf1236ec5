// Package records replicates who is where on the global networks: one versioned snapshot of endpoint records per owning
// host, merged by rules that need no order of messages. It is pure: no goroutines, no clock, no network.
//
// Only its owner writes a snapshot. An Update carries a whole snapshot or the difference between two versions of it; a
// Table takes an Update if it is newer than what it has, and asks for the whole if the difference does not start at the
// version it has. Nothing is ever merged record by record, so there are no tombstones and nothing to converge: two
// tables that hold the same version of a snapshot hold the same records. A failed owner's snapshot is suspended (its
// records say Alive false) and comes back with the owner, unchanged or newer.
//
// Versions are pairs: the incarnation grows with every start of the owner's daemon, the counter with every change. An
// owner that meets a version of its own beyond its present one (its files were lost or restored from a backup) takes an
// incarnation above it, see Table.Outdo.
package records

package raft

import "time"

// Every duration of this backend, and what moving it costs.
const (
	// heartbeatTimeout is how long a follower does without its leader before
	// it wants another. With heartbeats as leadingTimeout says, a host may be
	// stuck for half a second on a busy machine without an election. Raft looks
	// only once per one to two of these, so a death is noticed after one to
	// three: 0.8 to 2.4 s.
	heartbeatTimeout = 800 * time.Millisecond

	// leadingTimeout is a leader's own heartbeatTimeout, which nothing but its
	// heartbeats depends on: one every tenth to fifth of it, 120 to 240 ms.
	// They are most of what an idle cluster does.
	leadingTimeout = heartbeatTimeout * 3 / 2

	// electionTimeout is how long a candidate waits for votes before it asks
	// again; raft does not allow it to be shorter than heartbeatTimeout.
	electionTimeout = heartbeatTimeout

	// leaseTimeout is how long a leader that does not hear from a majority
	// still calls itself one. Below heartbeatTimeout, so that there is no
	// leader rather than two, at the price of a step down when all followers
	// are stuck for as long.
	leaseTimeout = 700 * time.Millisecond

	// electionGrace is how long after losing its leader a host keeps its
	// callers waiting for the next: three heartbeat time-outs until the death
	// is noticed elsewhere, and two rounds of voting.
	electionGrace = 3*heartbeatTimeout + 2*2*electionTimeout

	// contactGrace is how long after Open a host waits to hear from the only
	// voter, which sends heartbeats to all it knows several times a second
	// and redials a host that was away with a growing pause.
	contactGrace = 2 * time.Second

	// silence is how long a leader may say nothing until this host does not
	// count on its answer: four of the heartbeats at their slowest.
	silence = 600 * time.Millisecond

	// commitTimeout is how often an idle leader repeats its commit index to
	// each follower. Raft's default of 50 ms is how followers learn it at all;
	// here nudge.go tells them, and this is only the second chance.
	commitTimeout = time.Second

	// ioTimeout bounds one exchange with a peer, dialling included. A peer
	// that lost power holds its connection up for as long.
	ioTimeout = 3 * time.Second

	// saveAfter is how long it may take until the disk knows how far this host
	// has applied (see logStore.SaveApplied): one small write a second while
	// there is traffic, none without.
	saveAfter = time.Second

	// answerGrace is what a backend that closes gives raft to answer what it was
	// asked. Without a majority there is nothing to wait for, but who knows that.
	answerGrace = 50 * time.Millisecond

	// retryPause is before the second attempt to reach a leader that refused;
	// it doubles up to maxPause.
	retryPause = 20 * time.Millisecond
	maxPause   = 160 * time.Millisecond
)

// Sizes.
const (
	// batchEntries is how many entries go into one write or one message.
	batchEntries = 64

	// snapshotEvery is how many new entries make a snapshot worth while, and
	// snapshotCheck how often raft counts them. A restart reads the entries
	// behind the last snapshot one by one, about 10 µs each.
	snapshotEvery = 1024
	snapshotCheck = 20 * time.Second

	// trailingEntries stay in the log behind a snapshot for followers that
	// were away briefly.
	trailingEntries = 1024

	// keepSnapshots is how many lie on the disk: the newest, and the one
	// before it, which may just be on its way to a follower.
	keepSnapshots = 2
)

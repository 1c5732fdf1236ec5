package raft

import (
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"
)

// leadership is what this host believes about the leader.
type leadership struct {
	mu      sync.Mutex
	id      string        // "" when there is none
	term    uint64        // in which id was noted
	since   time.Time     // of id
	last    string        // who led last, also when nobody does
	heard   bool          // there was one since Open
	changed chan struct{} // closed when id changes
	ready   chan struct{} // closed when this host, leading in term, has applied all before it
	isReady bool
	leading bool // what pace was told last
}

func (l *leadership) init() {
	l.changed, l.ready, l.since = make(chan struct{}), make(chan struct{}), time.Now()
}

// Leader returns the ID of the host that orders the transactions, as far as
// this host knows. ok is false when it knows none.
func (b *Backend) Leader() (id string, ok bool) {
	_, leader := b.raft.LeaderWithID()
	return string(leader), leader != ""
}

// IsLeader says whether this host believes to be the leader. Another may
// already know better; a transaction finds out.
func (b *Backend) IsLeader() bool { return b.raft.State() == hraft.Leader }

// LeaderChanged returns a channel that is closed at the next change of what
// Leader returns. To miss none, get the channel first and ask Leader after it.
func (b *Backend) LeaderChanged() <-chan struct{} {
	b.leader.mu.Lock()
	defer b.leader.mu.Unlock()
	return b.leader.changed
}

// watchLeader keeps b.leader true. Raft reports most changes to observers, but
// clears a leader that steps down silently; that one shows in LeaderCh.
func (b *Backend) watchLeader() {
	seen := make(chan hraft.Observation, 16)
	o := hraft.NewObserver(seen, false, func(o *hraft.Observation) bool {
		switch o.Data.(type) {
		case hraft.LeaderObservation, hraft.RaftState:
			return true
		}
		return false
	})
	b.raft.RegisterObserver(o)
	defer b.raft.DeregisterObserver(o)
	for {
		b.noteLeader()
		select {
		case <-seen:
		case <-b.raft.LeaderCh():
		case <-b.ctx.Done():
			return
		}
	}
}

// noteLeader compares what raft says with what was known.
func (b *Backend) noteLeader() {
	id, _ := b.Leader()
	term := b.raft.CurrentTerm()
	l := &b.leader
	l.mu.Lock()
	defer l.mu.Unlock()
	// Another's reign between two of this host's may be too short to be seen;
	// the term tells.
	if id == l.id && (id != b.node || term == l.term) {
		return
	}
	if id == "" {
		b.log.Info("no leader", "last", l.id)
	} else {
		b.log.Info("new leader", "node", id)
	}
	l.id, l.term, l.since, l.heard = id, term, time.Now(), l.heard || id != ""
	if id != "" {
		l.last = id
	}
	close(l.changed)
	l.changed = make(chan struct{})
	b.pace(id == b.node)
	if l.isReady {
		l.ready, l.isReady = make(chan struct{}), false
	}
	if id == b.node {
		ready := l.ready
		b.running.Go(func() { b.prepareToLead(ready) })
	}
}

// pace sets the time-outs of a leader, or those of all others. Raft shortens a wait that has begun. The caller holds the
// leadership's lock.
func (b *Backend) pace(leading bool) {
	if leading == b.leader.leading {
		return
	}
	b.leader.leading = leading
	conf := b.raft.ReloadableConfig()
	conf.HeartbeatTimeout, conf.ElectionTimeout = heartbeatTimeout, electionTimeout
	if leading {
		conf.HeartbeatTimeout, conf.ElectionTimeout = leadingTimeout, leadingTimeout
	}
	if err := b.raft.ReloadConfig(conf); err != nil { // both are valid
		b.log.Warn("cannot change raft's time-outs", "err", err)
	}
}

// prepareToLead waits until this host has applied everything that earlier
// leaders promised; from then on its replica answers fresh reads.
func (b *Backend) prepareToLead(ready chan struct{}) {
	// A barrier that raft takes while it shuts down is never answered: the wait ends with the backend.
	if err := awaitFuture(b.ctx, b, func() hraft.Future { return b.raft.Barrier(0) }); err != nil {
		return // leadership was lost again; the next term has its own barrier
	}
	b.nudges.tell()
	l := &b.leader
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ready == ready && !l.isReady {
		close(ready)
		l.isReady = true
	}
}

// expected says whether a leader can be hoped for, and until when.
func (b *Backend) expected() (until time.Time, who string) {
	b.leader.mu.Lock()
	since := b.leader.since
	b.leader.mu.Unlock()
	switch voters := b.voters(); {
	case len(voters) == 0:
		return b.opened.Add(contactGrace), "this host is not part of a cluster yet"
	case len(voters) > 1:
		return since.Add(electionGrace), "no majority of the voters " + list(voters) + " can be reached"
	case voters[0] == b.node:
		who := "this host is the only voter and cannot elect itself"
		if err := b.logs.room(); err != nil {
			who += ": " + err.Error()
		}
		return since.Add(electionGrace), who
	default:
		return b.opened.Add(contactGrace), "host " + voters[0] + ", the only voter, does not answer"
	}
}

// LastContact is when this host last heard a leader other than itself, or ceased to lead; zero if never since Open.
func (b *Backend) LastContact() time.Time { return b.raft.LastContact() }

// LastLeader is who led last, as far as this host knows; "" if there was nobody since Open.
func (b *Backend) LastLeader() string {
	b.leader.mu.Lock()
	defer b.leader.mu.Unlock()
	return b.leader.last
}

// Prospect is what a question that is put now may hope for.
type Prospect int

// The prospects.
const (
	Answered Prospect = iota // somebody leads and was heard a moment ago, or will lead at once
	Doubtful                 // the leader has fallen silent: it may be busy, it may be dead
	Hopeless                 // there is no leader
)

// Prospect tells, without asking anybody, whether a question has a chance. A leader's silence shows much earlier than raft
// gives the leader up.
func (b *Backend) Prospect() Prospect {
	leader, known := b.Leader()
	l := &b.leader
	l.mu.Lock()
	since, heard := l.since, l.heard
	l.mu.Unlock()
	voters := b.voters()
	switch {
	case known && leader == b.node:
		return Answered // it steps down by itself when it hears no majority
	case known && time.Since(since) > silence && time.Since(b.raft.LastContact()) > silence:
		return Doubtful
	case known, len(voters) == 1 && voters[0] == b.node: // that elects itself within milliseconds
		return Answered
	case heard || time.Since(b.opened) > contactGrace:
		return Hopeless
	}
	return Answered // it is too early to say
}

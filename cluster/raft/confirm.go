package raft

import (
	"context"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"
)

// confirmer finds out for fresh reads whether this host still leads: a majority
// of the voters has to answer a question that was put after the read began.
//
// Raft's own VerifyLeader is not enough. It counts whatever answer arrives
// next, also to a heartbeat that was sent before: a host that was stopped for
// seconds finds such answers waiting when it goes on, while the others have
// another leader. And it counts the answers of learners.
//
// A question is a heartbeat as raft sends them. All reads that begin while one
// is on its way to a voter share the next.
type confirmer struct {
	b *Backend

	mu      sync.Mutex
	closed  bool
	begun   uint64 // number of the newest read
	waiting int    // reads that are not answered yet
	voices  map[string]*voice
	news    chan struct{} // closed when a voter has answered
}

// voice is one voter's. At most one goroutine asks it.
type voice struct {
	busy  bool
	heard uint64 // what it answered last was asked after this read had begun
}

func newConfirmer(b *Backend) *confirmer {
	return &confirmer{b: b, voices: map[string]*voice{}, news: make(chan struct{})}
}

// close makes no more goroutines begin; whoever closes waits for the others.
func (c *confirmer) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// confirm returns nil when this host led after confirm was called, if its term
// is the same before and after. lost is closed when it has lost its leadership.
func (c *confirmer) confirm(ctx context.Context, lost <-chan struct{}) error {
	c.mu.Lock()
	c.begun++
	read := c.begun
	c.waiting++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.waiting--
	}()
	for {
		confirmed, news := c.poll(read, c.b.voters())
		if confirmed {
			return nil
		}
		select {
		case <-news:
		case <-lost:
			return hraft.ErrLeadershipLost
		case <-ctx.Done():
			return ctx.Err()
		case <-c.b.ctx.Done():
			return hraft.ErrRaftShutdown
		}
	}
}

// poll counts the voters that have answered since a read began, and has those
// asked that have not.
func (c *confirmer) poll(read uint64, voters []string) (confirmed bool, news <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	yes := 0
	for _, id := range voters {
		v := c.voices[id]
		if v == nil {
			v = &voice{}
			c.voices[id] = v
		}
		switch {
		case id == c.b.node || v.heard >= read:
			yes++
		case !v.busy && !c.closed:
			v.busy = true
			c.b.running.Go(func() { c.ask(id, v) })
		}
	}
	return 2*yes > len(voters), c.news
}

// ask puts questions to one voter as long as there are reads that it has not
// been asked for.
func (c *confirmer) ask(id string, v *voice) {
	for pause := retryPause; ; {
		c.mu.Lock()
		read := c.begun // noted before the question is sent
		if v.busy = c.waiting > 0 && v.heard < read && !c.closed; !v.busy {
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		if c.question(id) {
			c.mu.Lock()
			v.heard = read
			close(c.news)
			c.news = make(chan struct{})
			c.mu.Unlock()
			pause = retryPause
			continue
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, maxPause)
		case <-c.b.ctx.Done():
		}
	}
}

// question has a voter say whether it takes this host for the leader.
func (c *confirmer) question(id string) bool {
	req, err := c.b.heartbeat()
	if err != nil {
		return false
	}
	var resp hraft.AppendEntriesResponse
	err = c.b.trans.AppendEntries(hraft.ServerID(id), hraft.ServerAddress(id), req, &resp)
	return err == nil && resp.Success
}

// heartbeat is what a leader may always say: that it is one, in this term.
func (b *Backend) heartbeat() (*hraft.AppendEntriesRequest, error) {
	// The term must be one in which this host led: to use another leader's
	// would forge its voice. Terms only grow, so if it is the same before and
	// after, it was this host's at the moment in between.
	term := b.raft.CurrentTerm()
	if !b.IsLeader() || b.raft.CurrentTerm() != term {
		return nil, hraft.ErrLeadershipLost
	}
	self := []byte(b.node)
	return &hraft.AppendEntriesRequest{
		RPCHeader: hraft.RPCHeader{ProtocolVersion: hraft.ProtocolVersionMax, ID: self, Addr: self},
		Term:      term,
		Leader:    self, //nolint:staticcheck // deprecated, but raft still reads it from older members
	}, nil
}

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/minictl/minictl/cluster/records"
)

// A daemon's restart is no host's death: its containers run on, and the kernel goes on sending their packets. So the names
// and rows of a host whose daemon is away stay while the host itself says so, by refusing connections to its control port.
// And a daemon that starts begins with the other hosts' records as it last had them: until it has heard the others again it
// would otherwise take the rows of their containers out of the kernel, and tell its own that their names do not exist.
const (
	// restartGrace is how long a host may do without a daemon before its containers are taken for dead: an upgrade takes
	// seconds, and where the daemon does not come back nobody withdraws the names of what ends.
	restartGrace = time.Minute
	// meetGrace is how long after its start a daemon waits for members that listen: if they were its own they would have
	// met by then.
	meetGrace = 5 * time.Second
	// probeTimeout bounds the question whether a host is there; the answer comes from its kernel.
	probeTimeout = 500 * time.Millisecond
	// savePause is how many times as long as writing the other hosts' records took it rests: a few take no time and are on
	// disk in a moment, ten thousand never keep a processor busy.
	savePause = 20
)

// loadOthers reads the records of the other hosts that were alive; unreadable ones are none, as they come again.
func (f files) loadOthers() ([]records.Update, error) {
	b, err := os.ReadFile(f.others())
	if errors.Is(err, fs.ErrNotExist) { // the first start of a member, or of this release
		return nil, nil
	}
	var all []records.Update
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("read other hosts' records: %w", err)
	}
	return all, nil
}

// saveOthers replaces them, without waiting for the disk: after a power failure the others have newer ones.
func (f files) saveOthers(all []records.Update) error {
	b, err := json.Marshal(all)
	if err == nil {
		err = os.WriteFile(f.others()+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(f.others()+".new", f.others())
	}
	if err != nil {
		return fmt.Errorf("write other hosts' records: %w", err)
	}
	return nil
}

// resumeOthers takes the members for what they were when the last daemon wrote it down, and doubts all of them: those that
// were alive still are, unless they do not answer; the others are dead until gossip hears of them.
func (c *Cluster) resumeOthers() {
	all, err := c.files.loadOthers()
	if err != nil {
		c.log.Warn("other hosts' records lost; they come again from them", "err", err)
	}
	members := c.known()
	delete(members, c.Self().ID)
	had := c.pub.resume(all, members)
	for id := range members {
		refusing := time.Duration(0)
		if had[id] {
			refusing = restartGrace
		}
		c.wg.Go(func() { c.doubt(c.ctx, id, refusing, meetGrace) })
	}
}

// resume fills a fresh table with the members' records, and tells which of them had any. The others are suspended.
func (p *publisher) resume(all []records.Update, members map[NodeID]Node) (had map[NodeID]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	had = map[NodeID]bool{}
	for _, u := range all {
		if _, member := members[NodeID(u.Owner)]; !member {
			continue
		}
		if _, err := p.table.Merge(u); err == nil { // a damaged one comes again
			had[NodeID(u.Owner)] = true
		}
	}
	for id := range members {
		if !had[id] {
			p.table.SetAlive(string(id), false)
		}
	}
	return had
}

// keepOthers writes the other hosts' records down after they have changed, and once more at the end.
func (c *Cluster) keepOthers(ctx context.Context) {
	for {
		select {
		case <-c.pub.changed:
		case <-ctx.Done():
			c.writeOthers()
			return
		}
		began := time.Now()
		c.writeOthers()
		select {
		case <-time.After(savePause * time.Since(began)):
		case <-ctx.Done():
		}
	}
}

func (c *Cluster) writeOthers() {
	if !c.Clustered() {
		return
	}
	if err := c.files.saveOthers(c.pub.living()); err != nil {
		c.log.Warn("cannot remember other hosts' records", "err", err)
	}
}

// doubtUnheard doubts those of some members that gossip has not heard: of one that it has never heard it does not say that it is
// down.
func (c *Cluster) doubtUnheard(members map[NodeID]Node) {
	s := c.session()
	for id := range members {
		if s != nil && id != c.Self().ID && !s.gossip.Alive(string(id)) {
			c.wg.Go(func() { c.doubt(c.ctx, id, restartGrace, meetGrace) })
		}
	}
}

// doubt asks whether a member that gossip does not hear is gone, and has its records hidden if it is. One whose host refuses
// connections has so long to come back, one that takes them has listening, and one that is silent twice is gone.
func (c *Cluster) doubt(ctx context.Context, id NodeID, refusing, listening time.Duration) {
	began := time.Now()
	for silent := 0; ; {
		s := c.session()
		if ctx.Err() != nil || s != nil && s.gossip.Alive(string(id)) {
			return
		}
		patience := time.Duration(0)
		switch err := c.probe(ctx, id); {
		case err == nil:
			patience, silent = listening, 0
		case errors.Is(err, syscall.ECONNREFUSED):
			patience, silent = refusing, 0
			listening = max(listening, refusing) // what listens after that has just been started, and is not met yet
		case silent == 0: // on a busy host an answer may come late, once
			silent++
			continue
		}
		if time.Since(began) >= patience {
			c.events.add(event{gone: id})
			return
		}
		select {
		case <-time.After(probeTimeout):
		case <-ctx.Done():
		}
	}
}

// probe connects to a member's control port.
func (c *Cluster) probe(ctx context.Context, id NodeID) error {
	addr, ok := peers{c}.Address(string(id))
	if !ok {
		return fmt.Errorf("node %s has no address", id)
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := c.cfg.Wire.Dial(ctx, c.Self().Addr.Addr(), addr.String())
	if err != nil {
		return err
	}
	return conn.Close()
}

// CaughtUp returns when this host has, of every other member, the records that it has now, or knows that the member is
// gone. The error is ctx's. A daemon that has just started does not know before that which names there are.
func (c *Cluster) CaughtUp(ctx context.Context) error {
	for {
		waits, news := c.pub.unsettled(c.known(), c.Self().ID)
		if len(waits) == 0 {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("wait for the records of %d members: %w", len(waits), ctx.Err())
		}
	}
}

// shows tells whether a host's records are there and not hidden.
func (p *publisher) shows(id NodeID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.table.Alive(string(id)) && slices.Contains(p.table.Owners(), string(id))
}

// living are the other hosts' snapshots, less those of the dead.
func (p *publisher) living() []records.Update {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := []records.Update{}
	for _, owner := range p.table.Owners() {
		if u, ok := p.table.Full(owner); ok && p.table.Alive(owner) {
			all = append(all, u)
		}
	}
	return all
}

// unsettled are the members that neither have told their records since this daemon began nor are known to be gone; news is
// closed when that may have changed.
func (p *publisher) unsettled(nodes map[NodeID]Node, self NodeID) (ids []NodeID, news <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range nodes {
		if id != self && !p.settled[id] {
			ids = append(ids, id)
		}
	}
	return ids, p.news
}

func (p *publisher) settle(id NodeID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settled[id] = true
	p.tell()
}

// tell wakes CaughtUp and keepOthers. Callers hold mu.
func (p *publisher) tell() {
	close(p.news)
	p.news = make(chan struct{})
	select {
	case p.changed <- struct{}{}:
	default: // it looks soon
	}
}

package cluster

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/minictl/minictl/cluster/rpc"
)

// callTimeout bounds what this host asks of another by itself, with no user waiting.
const callTimeout = 2 * time.Second

// event is one thing heard from gossip, or a member to bring up to date.
type event struct {
	up, down NodeID
	gone     NodeID // it is down, and so is its host
	versions *versions
	behind   NodeID // it did not acknowledge the newest own records
	met      *meeting
	// untrusted is a member with which this host has no authority in common; empty: some other host says so.
	untrusted *NodeID
	members   bool // only tell that the members changed
}

// events takes what gossip says without making it wait, and acts upon it in order.
type events struct {
	c    *Cluster
	wake chan struct{}

	mu    sync.Mutex
	queue []event
	// behind are the members that are being brought up to date; what a channel takes has it done once more.
	behind map[NodeID]chan struct{}
}

func newEvents(c *Cluster) *events {
	return &events{c: c, wake: make(chan struct{}, 1), behind: map[NodeID]chan struct{}{}}
}

func (e *events) add(ev event) {
	e.mu.Lock()
	e.queue = append(e.queue, ev)
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default: // somebody woke it already and it has not looked yet
	}
}

func (e *events) take() []event {
	e.mu.Lock()
	defer e.mu.Unlock()
	q := e.queue
	e.queue = nil
	return q
}

// run acts until ctx ends. Calls to other members run beside it: a slow one must not delay the news of the others.
func (e *events) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-e.wake:
		case <-ctx.Done():
			return
		}
		changed := false
		for _, ev := range e.take() {
			changed = changed || ev.up != "" || ev.down != "" || ev.gone != "" || ev.members
			e.act(ctx, &wg, ev)
		}
		if changed && e.c.cfg.MembersChanged != nil {
			e.c.cfg.MembersChanged()
		}
	}
}

func (e *events) act(ctx context.Context, wg *sync.WaitGroup, ev event) {
	c := e.c
	switch {
	case ev.up != "":
		if s := c.session(); s == nil || !s.gossip.Alive(string(ev.up)) {
			return // said by a session that has ended, or it is down again: who comes is told of anew
		}
		c.log.Info("member is up", "node", ev.up, "name", c.nameOf(ev.up))
		c.mu.Lock()
		delete(c.met, ev.up)
		c.mu.Unlock()
		c.setAlive(ctx, ev.up, true)
		e.bring(wg, ev.up, func(more <-chan struct{}) { c.catchUp(ctx, ev.up, more) })
	case ev.down != "":
		c.log.Warn("member is down", "node", ev.down, "name", c.nameOf(ev.down))
		if s := c.session(); s != nil {
			s.tr.Drop(string(ev.down)) // calls to it fail now instead of timing out
		}
		wg.Go(func() { c.doubt(ctx, ev.down, restartGrace, 0) })
	case ev.gone != "":
		if s := c.session(); s == nil || !s.gossip.Alive(string(ev.gone)) { // it may have come back this moment
			c.setAlive(ctx, ev.gone, false)
			c.pub.settle(ev.gone)
		}
	case ev.behind != "":
		e.bring(wg, ev.behind, func(more <-chan struct{}) { c.catchUp(ctx, ev.behind, more) })
	case ev.untrusted != nil:
		wg.Go(func() { c.renewVia(ctx, *ev.untrusted) })
	case ev.met != nil:
		wg.Go(func() { c.meet(ctx, *ev.met) })
	case ev.versions != nil:
		wg.Go(func() { c.compare(ctx, *ev.versions) })
	}
}

// bring has catchUp run for a member, one at a time: what changed meanwhile goes with one run more, however often it was
// asked for.
func (e *events) bring(wg *sync.WaitGroup, id NodeID, catchUp func(more <-chan struct{})) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if more := e.behind[id]; more != nil {
		select {
		case more <- struct{}{}:
		default:
		}
		return
	}
	more := make(chan struct{}, 1)
	e.behind[id] = more
	again := func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		select {
		case <-more:
			return true
		default:
			delete(e.behind, id)
			return false
		}
	}
	wg.Go(func() {
		catchUp(more)
		for again() {
			catchUp(more)
		}
	})
}

func (c *Cluster) setAlive(ctx context.Context, id NodeID, alive bool) {
	c.applied(ctx, c.pub.setAlive(id, alive))
}

// applied tells the daemon that records of these networks changed.
func (c *Cluster) applied(ctx context.Context, networks []string) error {
	if len(networks) == 0 || c.cfg.Applied == nil {
		return nil
	}
	err := c.cfg.Applied(ctx, networks)
	if err != nil {
		c.log.Warn("could not apply other hosts' endpoints", "networks", networks, "err", err)
	}
	return err
}

// errListening says that gossip has begun and the session is not complete yet: a member may be faster.
var errListening = errors.New("this host does not listen yet")

// catchUp sends a member the own records and takes its own, a few times while it is alive and does not answer; what comes
// by more ends the pause between two.
func (c *Cluster) catchUp(ctx context.Context, id NodeID, more <-chan struct{}) {
	for pause := 100 * time.Millisecond; pause < 10*time.Second; pause *= 2 {
		s := c.session()
		if s != nil && !s.gossip.Alive(string(id)) {
			return // MemberUp starts anew
		}
		err := errListening
		if s != nil {
			call, cancel := context.WithTimeout(ctx, callTimeout)
			err = errors.Join(c.pushFull(call, s.client, id), c.fetch(call, s.client, id, []string{string(id)}))
			cancel()
		}
		if err == nil {
			c.pub.setLate(id, false)
			c.pub.settle(id)
			return
		}
		c.log.Debug("member does not take records", "node", id, "err", err)
		select {
		case <-time.After(pause):
		case <-more:
		case <-ctx.Done():
			return
		}
	}
}

// compare acts upon the versions another member has: fetches what is newer there, and outdoes what is said to be this
// host's own and is not.
func (c *Cluster) compare(ctx context.Context, v versions) {
	s := c.session()
	if s == nil {
		return
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if c.pub.outdo(v.Versions[string(c.Self().ID)]) {
		for _, n := range c.live() {
			c.events.add(event{behind: n.ID})
		}
	}
	if missing := c.pub.missing(v.Versions); len(missing) > 0 {
		if err := c.fetch(call, s.client, v.From, missing); err != nil {
			c.log.Debug("could not fetch records", "node", v.From, "err", err)
		}
	}
}

// fetch takes the snapshots of some owners from a member.
func (c *Cluster) fetch(ctx context.Context, client *rpc.Client, from NodeID, owners []string) error {
	reply, err := rpc.Call[snapshotsRequest, snapshotsReply](ctx, client, string(from), callSnapshots, snapshotsRequest{Owners: owners}, true)
	if err != nil {
		return err
	}
	for _, u := range reply.Updates {
		if u.Owner == string(c.Self().ID) {
			continue
		}
		if _, err := c.merge(ctx, u); err != nil {
			c.log.Warn("ignored records", "node", from, "owner", u.Owner, "err", err)
		}
	}
	return nil
}

package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/minictl/minictl/cluster/records"
	"github.com/minictl/minictl/cluster/rpc"
)

// applyTimeout bounds the daemon's work on one change of another host's records. It goes on when the sender has given
// up waiting, since its records have been taken.
const applyTimeout = 10 * time.Second

// publisher guards the table of records.
type publisher struct {
	mu      sync.Mutex
	table   *records.Table
	owners  map[string]*sync.Mutex // held while one owner's change is merged and applied
	late    map[NodeID]bool        // members that have not taken what they were sent: nobody waits for them until they have
	settled map[NodeID]bool        // members that have told their records since this daemon began, or are gone

	news    chan struct{} // closed at the next change of settled and of other hosts' records
	changed chan struct{} // keepOthers looks now
}

func (p *publisher) init() {
	p.owners, p.late, p.settled = map[string]*sync.Mutex{}, map[NodeID]bool{}, map[NodeID]bool{}
	p.news, p.changed = make(chan struct{}), make(chan struct{}, 1)
}

func (p *publisher) isLate(id NodeID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.late[id]
}

func (p *publisher) setLate(id NodeID, late bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if late {
		p.late[id] = true
	} else {
		delete(p.late, id)
	}
}

// owner locks one owner's changes against each other: an acknowledgement of a version must mean that every version up
// to it has been applied, not only merged by a call that is still at it.
func (p *publisher) owner(id string) (unlock func()) {
	p.mu.Lock()
	m := p.owners[id]
	if m == nil {
		m = &sync.Mutex{}
		p.owners[id] = m
	}
	p.mu.Unlock()
	m.Lock()
	return m.Unlock
}

func (p *publisher) digest() map[string]records.Version {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.table.Digest()
}

func (p *publisher) missing(digest map[string]records.Version) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.table.Missing(digest)
}

func (p *publisher) outdo(v records.Version) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.table.Outdo(v)
}

func (p *publisher) count(id NodeID) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.table.Count(string(id))
}

func (p *publisher) setAlive(id NodeID, alive bool) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.tell()
	return p.table.SetAlive(string(id), alive)
}

func (p *publisher) full(owner string) (records.Update, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.table.Full(owner)
}

// Publish changes this host's own records. It returns when every member that is alive has taken the change over and its
// daemon has acted upon it, or when ctx ends: missing names those that had not by then; they get the records as soon as
// they answer, and are not waited for until then. Records that are so already cost nothing.
func (c *Cluster) Publish(ctx context.Context, put []Record, del []string) (missing []string, err error) {
	self := string(c.Self().ID)
	c.pub.mu.Lock()
	u, changed := c.pub.table.Change(put, del)
	if changed {
		full, _ := c.pub.table.Full(self)
		err = c.files.saveRecords(full.Put)
	}
	c.pub.mu.Unlock()
	if !changed {
		return nil, nil
	}
	s, live := c.session(), c.live()
	if s == nil || len(live) == 0 {
		return nil, err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, n := range live {
		wg.Go(func() {
			if !c.pub.isLate(n.ID) {
				perr := c.push(ctx, s.client, n.ID, u)
				if perr == nil {
					return
				}
				c.pub.setLate(n.ID, true)
				c.log.Debug("records not acknowledged", "node", n.ID, "err", perr)
			}
			c.events.add(event{behind: n.ID})
			mu.Lock()
			missing = append(missing, n.Name)
			mu.Unlock()
		})
	}
	wg.Wait()
	slices.Sort(missing)
	return missing, err
}

// push sends a member one update of the own records, and the whole if it has not what the update builds upon.
func (c *Cluster) push(ctx context.Context, client *rpc.Client, id NodeID, u records.Update) error {
	for range 3 { // the difference, the whole, the whole under a new incarnation
		reply, err := rpc.Call[records.Update, recordsReply](ctx, client, string(id), callRecords, u, true)
		if err != nil {
			return err
		}
		switch {
		case c.pub.outdo(reply.Have):
			for _, n := range c.live() { // everybody holds that version of the past
				if n.ID != id {
					c.events.add(event{behind: n.ID})
				}
			}
		case !reply.NeedFull:
			return nil
		}
		u, _ = c.pub.full(u.Owner)
	}
	return fmt.Errorf("node %s does not accept records of this host", id)
}

func (c *Cluster) pushFull(ctx context.Context, client *rpc.Client, id NodeID) error {
	u, ok := c.pub.full(string(c.Self().ID))
	if !ok {
		return nil
	}
	return c.push(ctx, client, id, u)
}

// merge takes over another host's update and has the daemon act upon it before it returns.
func (c *Cluster) merge(ctx context.Context, u records.Update) (records.Outcome, error) {
	defer c.pub.owner(u.Owner)()
	c.pub.mu.Lock()
	out, err := c.pub.table.Merge(u)
	c.pub.tell()
	c.pub.mu.Unlock()
	if err != nil {
		return out, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTimeout)
	defer cancel()
	return out, c.applied(ctx, out.Networks)
}

// Records lists the endpoints of a network on all hosts, this one included, by address. Those of a host that is no member
// are not among them: another member may have passed them on before it heard that the host was removed.
func (c *Cluster) Records(network string) []Owned {
	c.pub.mu.Lock()
	list := c.pub.table.Network(network)
	c.pub.mu.Unlock()
	nodes, self := c.known(), c.Self()
	nodes[self.ID] = self
	out := make([]Owned, 0, len(list))
	for _, r := range list {
		if n, ok := nodes[NodeID(r.Owner)]; ok {
			out = append(out, Owned{Record: r.Record, Owner: n.ID, VTEP: n.DataPath, Alive: r.Alive})
		}
	}
	return out
}

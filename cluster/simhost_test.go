package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/transport"
)

// simHost is one host of a simulation: its daemon, and what its engine and its operators do, one after the other.
type simHost struct {
	sim   *simulation
	index int
	cfg   Config
	addr  netip.AddrPort

	mu      sync.Mutex
	cluster *Cluster // nil while it is down
	handled bool     // somebody is at the machine, which is down: to boot it, or to drop it from the cluster
	outside bool     // it is to be made a member again
	leaving bool     // it is about to forget all it knows

	turn   chan struct{} // full while its own work is done, which is what all below is for
	rng    *rand.Rand
	holds  map[string]simHold
	tried  map[string]bool // addresses; under sim.mu
	epoch  string          // in which holds were last compared with the Store
	serial int
	seen   int // as strange, in a row
	led    int // by nobody, in a row
}

// simHold is an address that the host was told it has.
type simHold struct {
	rev   store.Revision
	owner string // the key's value
}

// simOwner is that value, as far as the cluster reads it, and what makes it another one each time.
type simOwner struct {
	Node   NodeID `json:"node"`
	Name   string `json:"name"`
	Serial int    `json:"serial"`
}

func ownerName(value string) string {
	var o simOwner
	_ = json.Unmarshal([]byte(value), &o) // of nobody then
	return o.Name
}

func (h *simHost) up() *Cluster {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cluster
}

// handle takes the machine in hand if it is down and nobody else does; done is for when that ends.
func (h *simHost) handle() (done func(c *Cluster), ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cluster != nil || h.handled {
		return nil, false
	}
	h.handled = true
	return func(c *Cluster) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.cluster, h.handled = c, false
	}, true
}

// boot starts the daemon if it is down.
func (h *simHost) boot() error {
	done, ok := h.handle()
	if !ok {
		return nil
	}
	c, err := Open(context.Background(), h.cfg)
	done(c)
	return err
}

// end takes the daemon away from its users.
func (h *simHost) end() *Cluster {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.cluster
	h.cluster = nil
	return c
}

func (h *simHost) isOutside() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.outside
}

func (h *simHost) setOutside(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.outside = on
}

func (h *simHost) isLeaving() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.leaving
}

func (h *simHost) setLeaving(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leaving = on
}

func (h *simHost) another() *simHost {
	all := h.sim.hosts
	return all[(h.index+1+h.rng.IntN(len(all)-1))%len(all)]
}

func (h *simHost) join(ctx context.Context, via *simHost) error {
	c, v := h.up(), via.up()
	if c == nil || v == nil {
		return errdefs.ErrUnavailable
	}
	token, _, err := v.Token(ctx, false)
	if err != nil {
		return err
	}
	return c.Join(ctx, JoinOptions{Token: token, Remote: via.addr.String(), InitOptions: InitOptions{Advertise: h.addr, MTU: 1500}})
}

// use is what users and operators of the host do.
func (h *simHost) use(ctx context.Context) {
	for ctx.Err() == nil {
		sleep(ctx, time.Duration(h.rng.IntN(4000))*time.Millisecond)
		call, cancel := context.WithTimeout(ctx, 3*time.Second)
		h.turn <- struct{}{}
		if c := h.up(); c != nil && ctx.Err() == nil {
			h.mend(call, c, false)
			h.act(call, c)
		}
		<-h.turn
		cancel()
	}
}

func (h *simHost) act(ctx context.Context, c *Cluster) {
	switch n := h.rng.IntN(100); {
	case h.isOutside():
	case n < 45:
		h.take(ctx, c)
	case n < 70 && len(h.holds) > 0:
		held := slices.Sorted(maps.Keys(h.holds))
		h.giveBack(ctx, c, held[h.rng.IntN(len(held))])
	case n < 78:
		h.found(ctx, c)
	case n < 82:
		h.takeOver(ctx, c)
	case n < 84:
		h.leave(ctx, c)
	case n < 87:
		h.remove(ctx, c, h.another())
	default:
		h.look(ctx, c, fmt.Sprintf("10.0.0.%d", 2+h.rng.IntN(10)))
	}
}

func simKey(addr string) string { return prefixAddress + simNetwork + "/" + addr }

// take gets the lowest address that this host's replica thinks free. While a host from before a takeover is missing, which
// may have given those to others, it takes one from a part of the network that is its epoch's.
func (h *simHost) take(ctx context.Context, c *Cluster) {
	pairs, _, err := c.Store().Range(ctx, simKey(""), false)
	if err != nil {
		return
	}
	taken := map[string]bool{}
	for _, p := range pairs {
		taken[p.Key] = true
	}
	a := netip.MustParseAddr("10.0.0.2")
	if c.Cautious() {
		var random uint16
		_, digits, _ := strings.Cut(c.Epoch(), ".")
		fmt.Sscanf(digits, "%4x", &random)
		a = netip.AddrFrom4([4]byte{10, byte(random>>8) | 1, byte(random), 2})
	}
	for taken[simKey(a.String())] {
		a = a.Next()
	}
	h.serial++
	owner, err := json.Marshal(simOwner{c.Self().ID, h.cfg.Name, h.serial})
	if err != nil {
		h.sim.t.Error(err)
	}
	if addr := a.String(); h.claim(ctx, c, addr, string(owner)) {
		h.sim.hold(h, addr)
		h.publish(ctx, c, []Record{h.record(addr)}, nil)
	}
}

// claim asks for an address's key.
func (h *simHost) claim(ctx context.Context, c *Cluster, addr, owner string) bool {
	var rev store.Revision
	h.sim.mu.Lock()
	h.tried[addr] = true
	h.sim.mu.Unlock()
	answer := h.sim.call(h.index, c, simCall{addr, "take", owner}, func() (simAnswer, error) {
		var err error
		rev, err = c.Store().Txn(ctx, store.Txn{If: []store.Cond{{Key: simKey(addr)}}, Then: []store.Op{{Key: simKey(addr), Value: []byte(owner)}}})
		return simAnswer{ok: err == nil}, err
	})
	if answer.ok {
		h.holds[addr] = simHold{rev, owner}
	}
	return answer.ok
}

func (h *simHost) record(addr string) Record {
	r := record(addr, simNetwork, 0)
	r.Address = netip.MustParseAddr(addr)
	return r
}

func (h *simHost) publish(ctx context.Context, c *Cluster, put []Record, del []string) {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if _, err := c.Publish(ctx, put, del); err != nil && h.up() == c {
		h.sim.t.Errorf("%s publishes: %v", h.cfg.Name, err)
	}
}

// giveBack withdraws the record, then the claim, and only then asks for the key to be deleted.
func (h *simHost) giveBack(ctx context.Context, c *Cluster, addr string) {
	x := h.holds[addr]
	h.publish(ctx, c, nil, []string{addr})
	h.sim.letGo(addr)
	delete(h.holds, addr)
	h.free(ctx, c, addr, x)
}

func (h *simHost) free(ctx context.Context, c *Cluster, addr string, x simHold) {
	answer := h.sim.call(h.index, c, simCall{addr, "give back", x.owner}, func() (simAnswer, error) {
		_, err := c.Store().Txn(ctx, store.Txn{If: []store.Cond{{Key: simKey(addr), Rev: x.rev}}, Then: []store.Op{{Key: simKey(addr), Delete: true}}})
		return simAnswer{ok: err == nil}, err
	})
	if !answer.ok && !answer.unknown && c.Epoch() == h.epoch {
		h.sim.t.Errorf("%s gives %s back: it was another's", h.cfg.Name, addr)
	}
}

// look reads what the leader says.
func (h *simHost) look(ctx context.Context, c *Cluster, addr string) {
	h.sim.call(h.index, c, simCall{addr, "read", ""}, func() (simAnswer, error) {
		p, ok, err := store.Get(ctx, c.Store(), simKey(addr), true)
		return simAnswer{ok: ok, owner: string(p.Value)}, err
	})
}

// found makes a network.
func (h *simHost) found(ctx context.Context, c *Cluster) {
	h.serial++
	key, epoch := fmt.Sprintf("%s%s-%d", prefixNetwork, h.cfg.Name, h.serial), c.Epoch()
	_, err := c.Store().Txn(ctx, store.Txn{If: []store.Cond{{Key: key}}, Then: []store.Op{{Key: key, Value: []byte("{}")}}})
	if err == nil {
		h.sim.mu.Lock()
		h.sim.networks[key] = epoch
		h.sim.mu.Unlock()
		h.sim.count("networks")
	}
}

// takeOver is what an operator does who has been without a leader for long enough.
func (h *simHost) takeOver(ctx context.Context, c *Cluster) {
	err := c.Recover(ctx)
	switch {
	case err == nil:
		h.sim.count("takeovers")
	case !errdefs.IsFailedPrecondition(err) && ctx.Err() == nil && h.up() == c:
		h.sim.t.Errorf("%s takes over: %v", h.cfg.Name, err)
	}
}

// leave empties the host and takes it out of the cluster.
func (h *simHost) leave(ctx context.Context, c *Cluster) {
	// Without the last one who knows them, those from before a takeover do not find the cluster any more; and what only this
	// host knows would go with it.
	if len(c.Members()) == 1 || c.Cautious() || !h.reconciled(ctx, c) {
		return
	}
	for _, addr := range slices.Sorted(maps.Keys(h.holds)) {
		h.giveBack(ctx, c, addr)
	}
	defer h.sim.wipe(h, c)()
	h.setLeaving(true) // what only this host knows, and one that is given up meanwhile, nobody knows soon
	defer h.setLeaving(false)
	if err := c.Leave(ctx, false); err != nil {
		return
	}
	h.sim.count("leaves")
	h.setOutside(true)
}

// remove drops a host whose machine is switched off, and its containers with it.
func (h *simHost) remove(ctx context.Context, c *Cluster, other *simHost) {
	if c.Cautious() {
		return
	}
	done, ok := other.handle()
	if !ok {
		return
	}
	defer done(nil)
	select {
	case other.turn <- struct{}{}:
	default:
		return
	}
	defer func() { <-other.turn }()
	other.giveUp()
	h.sim.forgive(other)
	defer h.sim.wipe(other, c)()
	other.setOutside(true) // it is set up anew, whatever comes of this
	if err := c.Remove(ctx, other.cfg.Name, false); err == nil {
		h.sim.count("node rms")
	}
}

// clearOut removes those who are down and are no host any more: their removal failed, or they left on a side that was given
// up. It takes over from those who decided alone and are among them.
func (h *simHost) clearOut(ctx context.Context, c *Cluster) {
	if _, led := c.Leader(); !led {
		h.takeOver(ctx, c)
	}
	for _, m := range c.Members() {
		is := func(o *simHost) bool { return o.cluster.Self().ID == m.ID }
		if m.Alive || slices.ContainsFunc(h.sim.hosts, is) {
			continue
		}
		booked := h.sim.wipeAll(c)
		if c.Remove(ctx, string(m.ID), false) == nil {
			h.sim.count("clear outs")
		}
		booked()
	}
}

// giveUp is the end of all endpoints of the host.
func (h *simHost) giveUp() {
	for addr := range h.holds {
		h.sim.letGo(addr)
	}
	clear(h.holds)
	h.epoch = "" // what has a key is to be freed
}

// mend does what an engine does by itself, and the operator of a host that is not in the cluster, or on the side that is to
// be given up.
func (h *simHost) mend(ctx context.Context, c *Cluster, healed bool) {
	var stale []string
	for _, r := range c.Records(simNetwork) {
		if _, held := h.holds[r.ID]; !held && r.Owner == c.Self().ID {
			stale = append(stale, r.ID)
		}
	}
	h.publish(ctx, c, nil, stale)
	switch {
	case h.isOutside():
		h.comeBack(ctx, c)
	case healed && h.strange(c):
		h.setOutside(true)
	case healed && h.leaderless(c):
		h.setOutside(len(c.decider().Configuration()) == 0) // its cluster was lost before it had told this host anything
		h.takeOver(ctx, c)
	case healed || h.rng.IntN(4) == 0:
		h.rejoin(ctx, c, healed)
	}
	if healed {
		h.epoch = "" // what nobody answered may have been done since
	}
	if healed && h == h.sim.inside() {
		h.clearOut(ctx, c)
	}
	if !h.isOutside() {
		h.reconciled(ctx, c)
	}
}

// comeBack makes a host a member that is none any more.
func (h *simHost) comeBack(ctx context.Context, c *Cluster) {
	if c.Clustered() {
		h.giveUp()
		h.sim.forgive(h)
		booked := h.sim.wipe(h, c) // those who hear of it free what it had
		err := c.Leave(ctx, true)
		booked()
		if err != nil {
			return
		}
	}
	via := h.another()
	if via.isOutside() || h.join(ctx, via) != nil {
		return
	}
	h.sim.count("came back")
	h.setOutside(false)
	h.epoch = ""
}

// strange tells, of a host that has been seen like that for a while, that it and those where the operator sits do not know
// each other: it was removed, or all whom it knew have left, on one side.
func (h *simHost) strange(c *Cluster) bool {
	in := h.sim.inside()
	knows := func(c *Cluster, o *simHost) bool {
		return slices.ContainsFunc(c.Members(), func(m Member) bool { return m.ID == o.cluster.Self().ID })
	}
	known := slices.ContainsFunc(h.sim.hosts, func(o *simHost) bool {
		return o != h && !o.isOutside() && o.cluster.Epoch() == in.cluster.Epoch() && knows(c, o) && knows(o.cluster, h)
	})
	if known || h == in {
		h.seen = 0
	} else {
		h.seen++
	}
	return h.seen > 20
}

// leaderless tells, of a host that has been seen like that for a while, that nobody decides for it: those who did have left
// on the other side.
func (h *simHost) leaderless(c *Cluster) bool {
	if _, ok := c.Leader(); ok {
		h.led = 0
	}
	h.led++
	return h.led > 20
}

// rejoin gives one of two sides up: when all is healed, those that are not the first host's.
func (h *simHost) rejoin(ctx context.Context, c *Cluster, healed bool) {
	for _, e := range c.Estranged() {
		if e.How == transport.Split && (!healed || e.Epoch == h.sim.inside().cluster.Epoch()) {
			if c.Rejoin(ctx, string(e.ID)) == nil {
				h.sim.count("rejoins")
			}
			return
		}
	}
}

// reconciled compares what the host holds with what the Store says, as an engine does, once in each epoch.
func (h *simHost) reconciled(ctx context.Context, c *Cluster) bool {
	epoch := c.Epoch()
	if epoch == h.epoch {
		return true
	}
	if !h.bringNetworks(ctx, c) {
		return false
	}
	pairs, _, err := c.Store().Range(ctx, simKey(""), true)
	if err != nil {
		return false
	}
	keys := map[string]store.Pair{}
	for _, p := range pairs {
		keys[strings.TrimPrefix(p.Key, simKey(""))] = p
	}
	for addr, p := range keys {
		if _, held := h.holds[addr]; !held && ownerName(string(p.Value)) == h.cfg.Name {
			h.free(ctx, c, addr, simHold{p.Rev, string(p.Value)})
		}
	}
	all := true
	for addr, x := range h.holds {
		p, there := keys[addr]
		if there && string(p.Value) == x.owner {
			h.holds[addr] = simHold{p.Rev, x.owner}
			continue
		}
		if there && ownerName(string(p.Value)) == h.cfg.Name { // it was this host's before, on the other side
			h.free(ctx, c, addr, simHold{p.Rev, string(p.Value)})
		}
		all = h.claim(ctx, c, addr, x.owner) && all // it was given out on another side; or it is the key of a host that is no more
	}
	if !all || c.Settled(ctx, epoch) != nil || c.Epoch() != epoch {
		return false
	}
	h.epoch = epoch
	return true
}

// bringNetworks makes what this host knows from another side the cluster's.
func (h *simHost) bringNetworks(ctx context.Context, c *Cluster) bool {
	pairs, err := c.Before(ctx)
	if err != nil {
		return false
	}
	for _, p := range pairs {
		_, err := c.Store().Txn(ctx, store.Txn{If: []store.Cond{{Key: p.Key}}, Then: []store.Op{{Key: p.Key, Value: p.Value}}})
		if err != nil && !errdefs.IsConflict(err) {
			return false
		}
	}
	return c.ForgetBefore(ctx, pairs) == nil
}

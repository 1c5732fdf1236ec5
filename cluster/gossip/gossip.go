package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/memberlist"
)

// Peer is another member and where to find it.
type Peer struct {
	ID   string
	Addr netip.AddrPort
}

// Layer is what uses the gossip. Its methods must not block: memberlist calls most of them with its locks held.
type Layer interface {
	// MemberUp, MemberDown: the member was found alive, has failed or left.
	MemberUp(id string)
	MemberDown(id string)
	// State is what the other side of a push/pull gets, StateFrom what it sent.
	State() []byte
	StateFrom(b []byte)
	// Peers lists all members there should be, for ever: those that are not alive are tried again and again.
	Peers() []Peer
}

// Config describes a member.
type Config struct {
	ID      string
	Addr    netip.AddrPort // to advertise
	Meta    Meta
	Keys    [][]byte // AES keys; the first one encrypts, all decrypt
	Network Network
	Layer   Layer
	Log     *slog.Logger
}

// Timings. A dead host is noticed by the next probe of any member (1 s at most with few members, less with many),
// suspected after one interval, and dead after suspicionMult intervals (times log10 n above 10 members): 3.5 s with few
// members, under 5 s with 50.
const (
	probeInterval = 500 * time.Millisecond
	probeTimeout  = 250 * time.Millisecond
	suspicionMult = 4
	streamTimeout = 2 * time.Second
	pushPull      = 15 * time.Second
	retryMin      = 500 * time.Millisecond
	retryMax      = 4 * time.Second
	retryIdle     = 2 * time.Second // nobody is absent
)

// News goes to gossipNodes others every gossipInterval: 8 times in all is as often as memberlist has one of fifty members
// pass it on, so two rounds reach them all. Rounds wake every host, also when there is no news.
const (
	gossipInterval = 200 * time.Millisecond
	gossipNodes    = 8
)

// Gossip is one running member.
type Gossip struct {
	cfg     Config
	list    *memberlist.Memberlist
	keyring *memberlist.Keyring
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	meta    []byte

	mu      sync.Mutex
	stopped bool // the Layer hears nothing any more
	alive   map[string]netip.AddrPort
	came    chan struct{} // closed when somebody has come
}

// Start begins to listen and to look for the peers. Stop ends it.
func Start(cfg Config) (*Gossip, error) {
	if len(cfg.Keys) == 0 {
		return nil, fmt.Errorf("start gossip: no key: %w", errdefs.ErrInvalidArgument)
	}
	keyring, err := memberlist.NewKeyring(cfg.Keys, cfg.Keys[0])
	if err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	meta, err := cfg.Meta.encode()
	if err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	g := &Gossip{cfg: cfg, keyring: keyring, meta: meta, alive: map[string]netip.AddrPort{}, came: make(chan struct{})}
	if g.list, err = memberlist.Create(g.listConfig()); err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	g.wg.Go(func() { g.retry(ctx) })
	return g, nil
}

func (g *Gossip) listConfig() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = g.cfg.ID
	c.Transport = newFabric(g.cfg.Network, g.cfg.Addr)
	c.AdvertiseAddr, c.AdvertisePort = g.cfg.Addr.Addr().String(), int(g.cfg.Addr.Port())
	c.BindPort = int(g.cfg.Addr.Port())
	c.Keyring = g.keyring
	// Sealed into every packet and stream: what is from before a takeover is not even read.
	c.Label = g.cfg.Meta.Cluster + "/" + g.cfg.Meta.Epoch
	c.Logger = newLogger(g.cfg.Log)
	c.ProbeInterval, c.ProbeTimeout = probeInterval, probeTimeout
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = suspicionMult, 1
	c.AwarenessMaxMultiplier = 2 // a busy host may probe at half speed, no slower: five seconds are promised
	c.TCPTimeout = streamTimeout
	c.PushPullInterval = pushPull
	c.GossipInterval, c.GossipNodes = gossipInterval, gossipNodes
	c.DeadNodeReclaimTime = time.Nanosecond // a dead member may come back with another address at once: the ID is its key
	c.RequireNodeNames = true
	d := delegate{g}
	c.Delegate, c.Events, c.Alive, c.Conflict = d, d, d, d
	return c
}

// Join exchanges state with the given peers, at once and in parallel. It returns how many answered, and the last error
// if none did.
func (g *Gossip) Join(ctx context.Context, peers []Peer) (int, error) {
	type result struct {
		n   int
		err error
	}
	results := make(chan result, len(peers))
	g.mu.Lock()
	if g.stopped {
		g.mu.Unlock()
		return 0, fmt.Errorf("join gossip: it has stopped: %w", errdefs.ErrUnavailable)
	}
	for _, p := range peers {
		g.wg.Go(func() {
			n, err := g.list.Join([]string{p.ID + "/" + p.Addr.String()})
			results <- result{n, err}
		})
	}
	g.mu.Unlock()
	joined, last := 0, error(nil)
	for range peers {
		select {
		case r := <-results:
			joined += r.n
			if r.err != nil {
				last = r.err
			}
		case <-ctx.Done():
			return joined, fmt.Errorf("join gossip: %w", ctx.Err())
		}
	}
	if joined == 0 && last != nil {
		return 0, fmt.Errorf("join gossip: %w: %w", inLine(last), errdefs.ErrUnavailable)
	}
	return joined, nil
}

// inLine joins what memberlist writes as a list of several lines.
func inLine(err error) error {
	var list interface{ WrappedErrors() []error }
	if !errors.As(err, &list) {
		return err
	}
	var all []string
	for _, e := range list.WrappedErrors() {
		all = append(all, e.Error())
	}
	return errors.New(strings.Join(all, "; "))
}

// retry calls every known peer that is not alive, with pauses that grow to a few seconds while nobody answers.
func (g *Gossip) retry(ctx context.Context) {
	pause := retryMin
	timer := time.NewTimer(0) // a daemon that is started again is missed already
	defer timer.Stop()
	// Jitter keeps the members of a healed partition from calling each other in step.
	for ; ; timer.Reset(pause/2 + rand.N(pause)) {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		absent := g.absent()
		if len(absent) == 0 {
			pause = retryIdle
			continue
		}
		n, err := g.Join(ctx, absent)
		if n > 0 || pause == retryIdle {
			pause = retryMin
			continue
		}
		g.cfg.Log.Debug("absent members do not answer", "count", len(absent), "err", err)
		pause = min(2*pause, retryMax)
	}
}

func (g *Gossip) absent() []Peer {
	peers := g.cfg.Layer.Peers()
	g.mu.Lock()
	defer g.mu.Unlock()
	var absent []Peer
	for _, p := range peers {
		if _, ok := g.alive[p.ID]; !ok && p.ID != g.cfg.ID {
			absent = append(absent, p)
		}
	}
	return absent
}

// Alive tells whether a member is; this host is always.
func (g *Gossip) Alive(id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.alive[id]
	return ok || id == g.cfg.ID
}

// Await waits until a member is alive. The error is ctx's.
func (g *Gossip) Await(ctx context.Context, id string) error {
	for {
		g.mu.Lock()
		_, ok := g.alive[id]
		came := g.came
		g.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-came:
		case <-ctx.Done():
			return fmt.Errorf("wait for member %s: %w", id, ctx.Err())
		}
	}
}

// Address is where a member that is alive says it listens; ok is false for any other, this host among them.
func (g *Gossip) Address(id string) (addr netip.AddrPort, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	addr, ok = g.alive[id]
	return addr, ok
}

// SetKeys changes the keyring: the first key encrypts from now on.
func (g *Gossip) SetKeys(keys [][]byte) error {
	if len(keys) == 0 {
		return fmt.Errorf("change gossip keys: none given: %w", errdefs.ErrInvalidArgument)
	}
	for _, k := range keys {
		if err := g.keyring.AddKey(k); err != nil {
			return fmt.Errorf("change gossip keys: %w", err)
		}
	}
	if err := g.keyring.UseKey(keys[0]); err != nil {
		return fmt.Errorf("change gossip keys: %w", err)
	}
	for _, old := range g.keyring.GetKeys() {
		if !contains(keys, old) {
			if err := g.keyring.RemoveKey(old); err != nil {
				return fmt.Errorf("change gossip keys: %w", err)
			}
		}
	}
	return nil
}

func contains(keys [][]byte, key []byte) bool {
	for _, k := range keys {
		if string(k) == string(key) {
			return true
		}
	}
	return false
}

// Leave tells the others that this host goes on purpose; within the time-out, somebody has heard it.
func (g *Gossip) Leave(timeout time.Duration) error {
	if err := g.list.Leave(timeout); err != nil {
		return fmt.Errorf("leave gossip: %w", err)
	}
	return nil
}

// Stop falls silent, closes the network's streams and packets and waits for what Start began. The Layer hears nothing after
// it: memberlist's timers run on, and would tell whoever gossips next for this host that a member is down.
func (g *Gossip) Stop() error {
	g.mu.Lock()
	g.stopped = true
	g.mu.Unlock()
	g.cancel()
	err := g.list.Shutdown()
	g.wg.Wait()
	return err
}

// delegate hears memberlist's calls.
type delegate struct{ g *Gossip }

func (d delegate) NodeMeta(int) []byte                        { return d.g.meta }
func (d delegate) NotifyMsg([]byte)                           {}
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte { return nil }
func (d delegate) LocalState(bool) []byte                     { return d.g.cfg.Layer.State() }
func (d delegate) MergeRemoteState(b []byte, _ bool)          { d.g.cfg.Layer.StateFrom(b) }

// NotifyAlive keeps members of other clusters and epochs out, whoever relays the news of them.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	m, err := DecodeMeta(n.Meta)
	if err != nil {
		return err
	}
	if own := d.g.cfg.Meta; m.Cluster != own.Cluster || m.Epoch != own.Epoch {
		return fmt.Errorf("node %s (%s) is of cluster %s, epoch %s, not of %s, epoch %s", n.Name, m.Name, m.Cluster, m.Epoch, own.Cluster, own.Epoch)
	}
	return nil
}

func (d delegate) NotifyJoin(n *memberlist.Node) {
	if n.Name == d.g.cfg.ID {
		return
	}
	addr, _ := netip.AddrFromSlice(n.Addr)
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	if d.g.stopped {
		return
	}
	d.g.alive[n.Name] = netip.AddrPortFrom(addr.Unmap(), n.Port)
	close(d.g.came)
	d.g.came = make(chan struct{})
	d.g.cfg.Layer.MemberUp(n.Name)
}

func (d delegate) NotifyLeave(n *memberlist.Node) {
	if n.Name == d.g.cfg.ID {
		return
	}
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	if d.g.stopped {
		return
	}
	delete(d.g.alive, n.Name)
	d.g.cfg.Layer.MemberDown(n.Name)
}

func (d delegate) NotifyUpdate(*memberlist.Node) {}

// NotifyConflict: one ID at two addresses means that a host was cloned together with its key.
func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	d.g.cfg.Log.Warn("two hosts hold one node's key: was one cloned from the other?",
		"node", existing.Name, "addr", existing.Address(), "other", other.Address())
}

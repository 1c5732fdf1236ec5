package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store"
)

// TestSimulation has clusters of several hosts allocate addresses and publish endpoints while links are cut and hosts
// crash, in virtual time and a network in memory. No address is ever held twice; what was acknowledged stays; the store's
// history has an order that explains it; and when all is healed every host has every other's records.
//
// MINICTL_SIM_SEED takes another seed than 1. The plan of faults is the same again; how goroutines interleave is not.
// MINICTL_SIM_HOSTS makes it one cluster of that size; 50 hosts keep a processor busy for minutes.
func TestSimulation(t *testing.T) {
	t.Parallel()
	seed, err := strconv.ParseUint(os.Getenv("MINICTL_SIM_SEED"), 10, 64)
	if err != nil {
		seed = 1
	}
	sizes := []int{2, 3, 5}
	if n, err := strconv.Atoi(os.Getenv("MINICTL_SIM_HOSTS")); err == nil {
		sizes = []int{n}
	}
	for i, nodes := range sizes {
		seed := seed + uint64(i)
		t.Run(fmt.Sprintf("%d hosts, seed %d", nodes, seed), func(t *testing.T) {
			dir := memDir(t)
			var s *simulation
			synctest.Test(t, func(t *testing.T) { s = simulate(t, dir, seed, nodes) })
			s.linear(t) // outside: the search has a time limit, and in there time stands still
		})
	}
}

// memDir is a folder in memory: fifty hosts that each wait for a disk prove nothing more.
func memDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "minictl-sim")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// simHost is one host of a simulation.
type simHost struct {
	cfg  Config
	addr netip.AddrPort

	mu      sync.Mutex
	cluster *Cluster // nil while it is down
	holds   map[string]store.Revision
	unsure  map[string]bool // addresses about which there was no clear answer
}

func (h *simHost) up() *Cluster {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cluster
}

// simulation is what all goroutines of one share.
type simulation struct {
	t     *testing.T
	net   *memNet
	hosts []*simHost
	began time.Time
	ended time.Duration

	mu      sync.Mutex
	holders map[string]int // by address: who was told that it has it
	history []porcupine.Operation
	did     map[string]int
}

const simNetwork = "n1"

func simulate(t *testing.T, dir string, seed uint64, nodes int) *simulation {
	s := &simulation{t: t, net: newMemNet(), began: time.Now(), holders: map[string]int{}, did: map[string]int{}}
	defer s.closeAll()
	for i := range nodes {
		s.add(dir, i)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var users, faults sync.WaitGroup
	for i := range s.hosts {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		users.Go(func() { s.use(ctx, rng, i) })
	}
	faults.Go(func() { s.harm(ctx, rand.New(rand.NewPCG(seed, 1<<32))) })
	time.Sleep(2 * time.Minute) //nolint:forbidigo // of the bubble
	cancel()
	users.Wait()
	faults.Wait()
	s.heal()
	s.check()
	s.ended = time.Since(s.began)
	t.Logf("%d hosts, seed %d: %v", nodes, seed, s.did)
	return s
}

// add boots a host and joins it to the first.
func (s *simulation) add(dir string, i int) {
	h := &simHost{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}), ControlPort), holds: map[string]store.Revision{}, unsure: map[string]bool{}}
	h.cfg = Config{
		Dir: filepath.Join(dir, fmt.Sprint(i)), Name: fmt.Sprintf("host%02d", i+1), Version: "test",
		Log: slog.New(slog.DiscardHandler), Wire: memWire{s.net, h.addr.Addr()},
	}
	if os.Getenv("CLUSTER_TEST_LOG") != "" {
		h.cfg.Log = testLog(s.t, h.cfg.Name)
	}
	s.hosts = append(s.hosts, h)
	if err := h.boot(); err != nil {
		s.t.Fatal(err)
	}
	if i == 0 {
		if err := h.cluster.Init(s.t.Context(), InitOptions{Advertise: h.addr, MTU: 1500}); err != nil {
			s.t.Fatal(err)
		}
		return
	}
	token, _, err := s.hosts[0].cluster.Token(s.t.Context(), false)
	if err == nil {
		err = h.cluster.Join(s.t.Context(), JoinOptions{Token: token, Remote: s.hosts[0].addr.String(), InitOptions: InitOptions{Advertise: h.addr, MTU: 1500}})
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (h *simHost) boot() error {
	c, err := Open(context.Background(), h.cfg)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cluster = c
	return err
}

// crash is the end of a daemon that cannot say goodbye: it is cut off first.
func (s *simulation) crash(h *simHost) {
	h.mu.Lock()
	c := h.cluster
	h.cluster = nil
	h.mu.Unlock()
	if c == nil {
		return
	}
	s.cutOff(h, true)
	if err := c.Close(); err != nil {
		s.t.Errorf("close %s: %v", h.cfg.Name, err)
	}
	s.cutOff(h, false)
}

func (s *simulation) cutOff(h *simHost, on bool) {
	for _, o := range s.hosts {
		if o != h {
			s.net.cut(h.addr.Addr(), o.addr.Addr(), on)
			s.net.cut(o.addr.Addr(), h.addr.Addr(), on)
		}
	}
}

func (s *simulation) closeAll() {
	s.healNet()
	var wg sync.WaitGroup
	for _, h := range s.hosts {
		wg.Go(func() {
			if c := h.up(); c != nil {
				c.Close()
			}
		})
	}
	wg.Wait()
	time.Sleep(time.Minute) //nolint:forbidigo // of the bubble: what waits for a timer ends
}

func (s *simulation) healNet() {
	for _, a := range s.hosts {
		s.cutOff(a, false)
	}
}

func (s *simulation) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.did[what]++
}

// harm cuts links and crashes hosts, each for some seconds.
func (s *simulation) harm(ctx context.Context, rng *rand.Rand) {
	for ctx.Err() == nil {
		h := s.hosts[rng.IntN(len(s.hosts))]
		wait := time.Duration(1+rng.IntN(10000)) * time.Millisecond
		switch n := rng.IntN(10); {
		case n < 3:
			side := rng.Uint64()
			s.count("partitions")
			for i, a := range s.hosts {
				for j, b := range s.hosts {
					s.net.cut(a.addr.Addr(), b.addr.Addr(), side>>(i%64)&1 != side>>(j%64)&1)
				}
			}
		case n < 4: // one direction of one host
			s.count("one-way cuts")
			for _, o := range s.hosts {
				s.net.cut(h.addr.Addr(), o.addr.Addr(), o != h)
			}
		case n < 6:
			s.healNet()
		case h.up() == nil:
			if err := h.boot(); err != nil {
				s.t.Errorf("%s: %v", h.cfg.Name, err)
			}
		default:
			s.count("crashes")
			s.crash(h)
		}
		sleep(ctx, wait)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// use allocates, publishes and gives back on one host, as its engine would.
func (s *simulation) use(ctx context.Context, rng *rand.Rand, i int) {
	h := s.hosts[i]
	for ctx.Err() == nil {
		sleep(ctx, time.Duration(rng.IntN(4000))*time.Millisecond)
		c := h.up()
		if c == nil || ctx.Err() != nil {
			continue
		}
		call, cancel := context.WithTimeout(ctx, 3*time.Second)
		switch n := rng.IntN(10); {
		case n < 5:
			s.take(call, c, i)
		case n < 8 && len(h.holds) > 0:
			held := slices.Sorted(maps.Keys(h.holds))
			s.giveBack(call, c, i, held[rng.IntN(len(held))])
		default:
			s.look(call, c, i, fmt.Sprintf("10.0.0.%d", 2+rng.IntN(10)))
		}
		cancel()
	}
}

func simKey(addr string) string { return prefixAddress + simNetwork + "/" + addr }

// take gets the lowest address that this host's replica thinks free.
func (s *simulation) take(ctx context.Context, c *Cluster, i int) {
	pairs, _, err := c.Store().Range(ctx, simKey(""), false)
	if err != nil {
		return
	}
	taken := map[string]bool{}
	for _, p := range pairs {
		taken[p.Key] = true
	}
	n := 2
	for taken[simKey(fmt.Sprintf("10.0.0.%d", n))] && n < 250 {
		n++
	}
	addr, h := fmt.Sprintf("10.0.0.%d", n), s.hosts[i]
	owner := fmt.Sprintf("host%d-%d", i, time.Since(s.began))
	var rev store.Revision
	answer := s.call(i, simCall{addr, "take", owner}, func() (simAnswer, error) {
		rev, err = c.Store().Txn(ctx, store.Txn{If: []store.Cond{{Key: simKey(addr)}}, Then: []store.Op{{Key: simKey(addr), Value: []byte(owner)}}})
		return simAnswer{ok: err == nil}, err
	})
	if answer.unknown {
		h.unsure[addr] = true
	}
	if !answer.ok {
		return
	}
	s.mu.Lock()
	if other, held := s.holders[addr]; held {
		s.t.Errorf("host %d and host %d have the address %s", other, i, addr)
	}
	s.holders[addr] = i
	s.mu.Unlock()
	h.holds[addr] = rev
	s.publish(ctx, c, i, []Record{record(addr, simNetwork, byte(n))}, nil)
}

func (s *simulation) publish(ctx context.Context, c *Cluster, i int, put []Record, del []string) {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if _, err := c.Publish(ctx, put, del); err != nil && s.hosts[i].up() == c {
		s.t.Errorf("host %d publishes: %v", i, err)
	}
}

// giveBack withdraws the record, then the claim, and only then asks for the key to be deleted.
func (s *simulation) giveBack(ctx context.Context, c *Cluster, i int, addr string) {
	h := s.hosts[i]
	rev := h.holds[addr]
	s.publish(ctx, c, i, nil, []string{addr})
	s.mu.Lock()
	delete(s.holders, addr)
	s.mu.Unlock()
	delete(h.holds, addr)
	answer := s.call(i, simCall{addr, "give back", ""}, func() (simAnswer, error) {
		_, err := c.Store().Txn(ctx, store.Txn{If: []store.Cond{{Key: simKey(addr), Rev: rev}}, Then: []store.Op{{Key: simKey(addr), Delete: true}}})
		return simAnswer{ok: err == nil}, err
	})
	if answer.unknown {
		h.unsure[addr] = true
	}
	if !answer.ok && !answer.unknown {
		s.t.Errorf("host %d gives %s back: it was another's", i, addr)
	}
}

// look reads what the leader says.
func (s *simulation) look(ctx context.Context, c *Cluster, i int, addr string) {
	s.call(i, simCall{addr, "read", ""}, func() (simAnswer, error) {
		p, ok, err := store.Get(ctx, c.Store(), simKey(addr), true)
		return simAnswer{ok: ok, owner: string(p.Value)}, err
	})
}

type simCall struct{ addr, op, owner string }

type simAnswer struct {
	ok, unknown bool
	owner       string
}

// call books a call for the history.
func (s *simulation) call(client int, in simCall, do func() (simAnswer, error)) simAnswer {
	began := time.Since(s.began)
	out, err := do()
	if err != nil && !errdefs.IsConflict(err) {
		out = simAnswer{unknown: true}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.did[in.op]++
	if out.unknown {
		s.did[in.op+" without an answer"]++
		if in.op == "read" {
			return out
		}
	}
	s.history = append(s.history, porcupine.Operation{ClientId: client, Input: in, Output: out, Call: int64(began), Return: int64(time.Since(s.began))})
	return out
}

// heal ends all faults and boots who is down.
func (s *simulation) heal() {
	s.healNet()
	for _, h := range s.hosts {
		if h.up() == nil {
			if err := h.boot(); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// check wants everything whole within a minute of virtual time.
func (s *simulation) check() {
	var err error
	for range 600 {
		if err = s.whole(); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond) //nolint:forbidigo // of the bubble
	}
	if err != nil {
		s.t.Errorf("a minute after healing: %v", err)
	}
}

func (s *simulation) whole() error {
	var errs []error
	want := s.published()
	leader := ""
	for i, h := range s.hosts {
		l, ok := h.cluster.Leader()
		if i == 0 {
			leader = string(l)
		}
		if !ok || string(l) != leader {
			errs = append(errs, fmt.Errorf("%s follows %q, %s %q", h.cfg.Name, l, s.hosts[0].cfg.Name, leader))
		}
		voters := 0
		for _, m := range h.cluster.Members() {
			if !m.Alive {
				errs = append(errs, fmt.Errorf("%s sees %s down", h.cfg.Name, m.Name))
			}
			if m.Voter {
				voters++
			}
		}
		if voters != votersFor(len(s.hosts)) {
			errs = append(errs, fmt.Errorf("%s sees %d voters", h.cfg.Name, voters))
		}
		var got []string
		for _, r := range h.cluster.Records(simNetwork) {
			got = append(got, fmt.Sprintf("%s at %s %v", r.Address, r.VTEP, r.Alive))
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			errs = append(errs, fmt.Errorf("%s has the records %v, want %v", h.cfg.Name, got, want))
		}
	}
	if len(errs) == 0 {
		errs = append(errs, s.keys())
	}
	return errors.Join(errs...)
}

// published is what all hosts have told.
func (s *simulation) published() []string {
	var out []string
	for _, h := range s.hosts {
		for addr := range h.holds {
			out = append(out, fmt.Sprintf("%s at %s true", addr, h.addr.Addr()))
		}
	}
	slices.Sort(out)
	return out
}

// keys wants every address that somebody holds to have a key, and no other, but for those about which nobody was told.
func (s *simulation) keys() error {
	pairs, _, err := s.hosts[0].cluster.Store().Range(s.t.Context(), simKey(""), true)
	if err != nil {
		return err
	}
	held, unsure := map[string]bool{}, map[string]bool{}
	for _, h := range s.hosts {
		for a := range h.holds {
			held[a] = true
		}
		maps.Copy(unsure, h.unsure)
	}
	var errs []error
	for _, p := range pairs {
		a := strings.TrimPrefix(p.Key, simKey(""))
		if !held[a] && !unsure[a] {
			errs = append(errs, fmt.Errorf("%s has a key and no holder", a))
		}
		delete(held, a)
	}
	for a := range held {
		errs = append(errs, fmt.Errorf("%s has a holder and no key", a))
	}
	return errors.Join(errs...)
}

// linear looks for an order of all calls that explains every answer; what nobody answered may have been, or not.
func (s *simulation) linear(t *testing.T) {
	for i := range s.history {
		if s.history[i].Output.(simAnswer).unknown {
			s.history[i].Return = int64(s.ended)
		}
	}
	if res := porcupine.CheckOperationsTimeout(addressModel(), s.history, time.Minute); res == porcupine.Illegal {
		t.Errorf("the store's history of %d calls: %v", len(s.history), res)
	}
}

// addressModel is an address and who has it.
func addressModel() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			by := map[string][]porcupine.Operation{}
			for _, c := range history {
				a := c.Input.(simCall).addr
				by[a] = append(by[a], c)
			}
			return slices.Collect(maps.Values(by))
		},
		Init: func() any { return "" },
		Step: func(state, input, output any) (bool, any) {
			owner, in, out := state.(string), input.(simCall), output.(simAnswer)
			switch {
			case in.op == "read":
				return out.owner == owner, owner
			case in.op == "take" && owner == "":
				return out.ok || out.unknown, in.owner
			case in.op == "take":
				return !out.ok, owner
			case out.ok:
				return owner != "", ""
			default: // a give-back without an answer
				return true, ""
			}
		},
	}
}

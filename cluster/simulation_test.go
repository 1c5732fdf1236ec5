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

// TestSimulation has clusters of several hosts allocate addresses, found networks and publish endpoints while links are cut,
// hosts crash, take the cluster over, leave, are removed and join again, in virtual time and a network in memory. No address
// is ever held twice; what was acknowledged stays; each epoch's history has an order that explains it; and when all is
// healed the hosts are one cluster, in which every host has every other's records.
//
// MINICTL_SIM_SEED takes another seed than 1. The plan of faults is the same again; how goroutines interleave is not.
// MINICTL_SIM_HOSTS makes it one cluster of that size; 50 hosts keep a processor busy for minutes.
func TestSimulation(t *testing.T) {
	t.Parallel()
	seed, err := strconv.ParseUint(os.Getenv("MINICTL_SIM_SEED"), 10, 64)
	if err != nil {
		seed = 1
	}
	sizes := []int{2, 3, 4, 5, 7}
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

// simulation is what all goroutines of one share.
type simulation struct {
	t     *testing.T
	net   *memNet
	hosts []*simHost
	began time.Time
	ended time.Duration
	first string // epoch

	mu       sync.Mutex
	holders  map[string]int    // by address: who was told that it has it
	networks map[string]string // acknowledged, by key: the epoch they were made in
	history  map[simPart][]porcupine.Operation
	did      map[string]int

	changed func(*simHost) // asked when a host's members have changed; may be nil
}

const simNetwork = "n1"

func simulate(t *testing.T, dir string, seed uint64, nodes int) *simulation {
	s := &simulation{t: t, net: newMemNet(), began: time.Now(), holders: map[string]int{}, networks: map[string]string{}, history: map[simPart][]porcupine.Operation{}, did: map[string]int{}}
	defer s.closeAll()
	for i := range nodes {
		s.add(dir, seed, i)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var users, faults sync.WaitGroup
	for _, h := range s.hosts {
		users.Go(func() { h.use(ctx) })
	}
	faults.Go(func() { s.harm(ctx, rand.New(rand.NewPCG(seed, 1<<32))) })
	time.Sleep(2 * time.Minute) //nolint:forbidigo // of the bubble
	cancel()
	users.Wait()
	faults.Wait()
	s.heal()
	s.ended = time.Since(s.began)
	t.Logf("%d hosts, seed %d: %v", nodes, seed, s.did)
	return s
}

// add boots a host and joins it to the first.
func (s *simulation) add(dir string, seed uint64, i int) {
	h := &simHost{
		sim: s, index: i, rng: rand.New(rand.NewPCG(seed, uint64(i))), turn: make(chan struct{}, 1), tried: map[string]bool{}, holds: map[string]simHold{},
		addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}), ControlPort),
	}
	h.cfg = Config{
		Dir: filepath.Join(dir, fmt.Sprint(i)), Name: fmt.Sprintf("host%02d", i+1), Version: "test",
		Log: slog.New(slog.DiscardHandler), Wire: memWire{s.net, h.addr.Addr()},
		MembersChanged: func() {
			if s.changed != nil {
				s.changed(h)
			}
		},
	}
	if os.Getenv("CLUSTER_TEST_LOG") != "" {
		h.cfg.Log = testLog(s.t, h.cfg.Name)
	}
	s.hosts = append(s.hosts, h)
	err := h.boot()
	switch {
	case err != nil:
	case i == 0:
		err = h.cluster.Init(s.t.Context(), InitOptions{Advertise: h.addr, MTU: 1500})
	default:
		err = h.join(s.t.Context(), s.hosts[0])
	}
	if err != nil {
		s.t.Fatal(err)
	}
	h.epoch = h.cluster.Epoch()
	if i == 0 {
		s.first = h.epoch
	}
}

// crash is the end of a daemon that cannot say goodbye: it is cut off first.
func (s *simulation) crash(h *simHost) {
	c := h.end()
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
	s.net.change(func(cuts map[link]bool) {
		for _, o := range s.hosts {
			if o != h {
				cuts[link{h.addr.Addr(), o.addr.Addr()}], cuts[link{o.addr.Addr(), h.addr.Addr()}] = on, on
			}
		}
	})
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
	s.net.change(func(cuts map[link]bool) { clear(cuts) })
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
			s.net.change(func(cuts map[link]bool) {
				for i, a := range s.hosts {
					for j, b := range s.hosts {
						cuts[link{a.addr.Addr(), b.addr.Addr()}] = side>>(i%64)&1 != side>>(j%64)&1
					}
				}
			})
		case n < 4: // one direction of one host
			s.count("one-way cuts")
			s.net.change(func(cuts map[link]bool) {
				for _, o := range s.hosts {
					cuts[link{h.addr.Addr(), o.addr.Addr()}] = o != h
				}
			})
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

// heal ends all faults, boots who is down, and waits until all are one cluster again.
func (s *simulation) heal() {
	s.healNet()
	for _, h := range s.hosts {
		if err := h.boot(); err != nil {
			s.t.Fatal(err)
		}
	}
	healed := time.Now()
	err := s.await(s.whole)
	s.did["ms until whole"] = int(time.Since(healed).Milliseconds())
	if err == nil {
		err = s.await(s.kept)
	}
	if err != nil {
		s.t.Errorf("after healing: %v\n%s", err, s.tell())
	}
}

// tell says how each host sees the cluster.
func (s *simulation) tell() string {
	var b strings.Builder
	for _, h := range s.hosts {
		c := h.cluster
		fmt.Fprintf(&b, "%s %s epoch %s, outside %v, refused %q, estranged %+v:\n", h.cfg.Name, c.Self().ID, c.Epoch(), h.isOutside(), c.Refused(), c.Estranged())
		for _, m := range c.Members() {
			fmt.Fprintf(&b, "    %s %s alive %v voter %v leader %v\n", m.Name, m.ID, m.Alive, m.Voter, m.Leader)
		}
	}
	return b.String()
}

// simPatience is what a healed cluster may take, in virtual time, in which no host is ever busy; most of it is that of the
// operators, who look at a host for some rounds before they do what it asks for. A round waits so long for a host.
const (
	simPatience = 2 * time.Minute
	simRound    = time.Second
)

// await lets every host's engine and operator do their work until it is so.
func (s *simulation) await(ok func() error) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), simPatience)
	defer cancel()
	for {
		s.beginAgain()
		var all sync.WaitGroup
		round, done := context.WithTimeout(ctx, simRound)
		for _, h := range s.hosts {
			all.Go(func() { h.mend(round, h.cluster, true) })
		}
		all.Wait()
		done()
		err := ok()
		if err == nil || ctx.Err() != nil {
			return err
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

// beginAgain has the first host make a cluster for all when all have left theirs: some were removed, and who remained had
// lost those that it followed.
func (s *simulation) beginAgain() {
	first := s.hosts[0]
	if first.cluster.Clustered() || slices.ContainsFunc(s.hosts, func(h *simHost) bool { return !h.isOutside() }) {
		return
	}
	if err := first.cluster.Init(s.t.Context(), InitOptions{Advertise: first.addr, MTU: 1500}); err != nil {
		s.t.Error(err)
	}
	first.setOutside(false)
	first.epoch = ""
	s.count("begun again")
}

// inside is the first host that is in a cluster: it is where an operator sits when all is healed.
func (s *simulation) inside() *simHost {
	i := max(slices.IndexFunc(s.hosts, func(h *simHost) bool { return !h.isOutside() }), 0)
	return s.hosts[i]
}

// whole wants one cluster of all hosts, in which every host knows what every other has published.
func (s *simulation) whole() error {
	var errs []error
	want := s.published()
	first := s.hosts[0].cluster
	leader, _ := first.Leader()
	for _, h := range s.hosts {
		l, ok := h.cluster.Leader()
		if !ok || l != leader || h.cluster.Epoch() != first.Epoch() {
			errs = append(errs, fmt.Errorf("%s follows %q in %s, %s %q in %s", h.cfg.Name, l, h.cluster.Epoch(), s.hosts[0].cfg.Name, leader, first.Epoch()))
		}
		members, voters := h.cluster.Members(), 0
		for _, m := range members {
			if !m.Alive {
				errs = append(errs, fmt.Errorf("%s sees %s down", h.cfg.Name, m.Name))
			}
			if m.Voter {
				voters++
			}
		}
		if len(members) != len(s.hosts) || voters != votersFor(len(s.hosts)) {
			errs = append(errs, fmt.Errorf("%s sees %d members, %d voters", h.cfg.Name, len(members), voters))
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

// kept wants the key of every address that somebody holds, no other, and every network that was acknowledged.
func (s *simulation) kept() error {
	st := s.hosts[0].cluster.Store()
	pairs, _, err := st.Range(s.t.Context(), simKey(""), true)
	if err != nil {
		return err
	}
	owners := map[string]string{}
	for _, h := range s.hosts {
		for a, x := range h.holds {
			owners[a] = x.owner
		}
	}
	var errs []error
	for _, p := range pairs {
		a := strings.TrimPrefix(p.Key, simKey(""))
		if owners[a] != string(p.Value) {
			errs = append(errs, fmt.Errorf("%s has the key of %s, should have that of %q", a, p.Value, owners[a]))
		}
		delete(owners, a)
	}
	for a, owner := range owners {
		errs = append(errs, fmt.Errorf("%s is %s's and has no key", a, owner))
	}
	for key, epoch := range s.networks {
		_, ok, err := store.Get(s.t.Context(), st, key, true)
		if err == nil && !ok {
			err = fmt.Errorf("%s, made in epoch %s, is not there", key, epoch)
		}
		errs = append(errs, err)
	}
	if s.hosts[0].cluster.Cautious() {
		errs = append(errs, fmt.Errorf("%s thinks that hosts from before a takeover are missing: %+v", s.hosts[0].cfg.Name, s.hosts[0].cluster.Standing()))
	}
	return errors.Join(errs...)
}

// hold books that a host was told it has an address.
func (s *simulation) hold(h *simHost, addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, held := s.holders[addr]; held {
		s.t.Errorf("%s and %s have the address %s:%s", s.hosts[other].cfg.Name, h.cfg.Name, addr, s.story(func(p simPart) bool { return p.addr == addr }))
	}
	s.holders[addr] = h.index
}

func (s *simulation) letGo(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.holders, addr)
}

// forgive expects no more those networks that nobody but a host knows that is given up.
func (s *simulation) forgive(lost *simHost) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := map[string]bool{}
	for _, h := range s.hosts {
		c := h.up()
		if h == lost || c == nil || h.isOutside() || h.isLeaving() { // who is to come in again anew knows nothing then
			continue
		}
		pairs, _, _ := c.Store().Range(s.t.Context(), prefixNetwork, false)
		before, _ := c.files.loadBefore()
		for _, p := range pairs {
			known[p.Key] = true
		}
		for _, p := range before {
			known[p.Key] = true
		}
	}
	maps.DeleteFunc(s.networks, func(key, _ string) bool { return !known[key] })
}

type simCall struct{ addr, op, owner string }

type simAnswer struct {
	ok, unknown bool
	owner       string
}

// simPart is what has a history of its own: an address in an epoch.
type simPart struct{ epoch, addr string }

// call books a call for the history of the caller's epoch. If that changed meanwhile, nobody knows in which it was answered.
func (s *simulation) call(client int, c *Cluster, in simCall, do func() (simAnswer, error)) simAnswer {
	epoch, began := c.Epoch(), time.Since(s.began)
	out, err := do()
	if err != nil && !errdefs.IsConflict(err) {
		out = simAnswer{unknown: true}
	}
	booked, now := out, c.Epoch()
	if now != epoch {
		booked = simAnswer{unknown: true}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.did[in.op]++
	if out.unknown {
		s.did[in.op+" without an answer"]++
	}
	s.book(client, epoch, in, booked, began)
	if now != epoch {
		s.book(client, now, in, booked, began)
	}
	return out
}

func (s *simulation) book(client int, epoch string, in simCall, out simAnswer, began time.Duration) {
	part := simPart{epoch, in.addr}
	s.history[part] = append(s.history[part], porcupine.Operation{ClientId: client, Input: in, Output: out, Call: int64(began), Return: int64(time.Since(s.began))})
}

// wipe books that the cluster may free all that a host has.
func (s *simulation) wipe(h *simHost, c *Cluster) (end func()) {
	epoch, began := c.Epoch(), time.Since(s.began)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for addr := range h.tried {
			s.book(h.index, epoch, simCall{addr, "wipe", h.cfg.Name}, simAnswer{unknown: true}, began)
		}
	}
}

// wipeAll books it of a node that no host is any more; its name may be any host's.
func (s *simulation) wipeAll(c *Cluster) (end func()) {
	var ends []func()
	for _, h := range s.hosts {
		ends = append(ends, s.wipe(h, c))
	}
	return func() {
		for _, end := range ends {
			end()
		}
	}
}

// linear looks for an order of all calls that explains every answer; what nobody answered may have been, or not.
func (s *simulation) linear(t *testing.T) {
	t.Helper()
	for part, calls := range s.history {
		for i := range calls {
			if calls[i].Output.(simAnswer).unknown {
				calls[i].Return = int64(s.ended)
			}
		}
		init := unseen
		if part.epoch == s.first {
			init = ""
		}
		if res := porcupine.CheckOperationsTimeout(addressModel(init), calls, time.Minute); res == porcupine.Illegal {
			t.Errorf("no order explains the history of %s in epoch %s:%s", part.addr, part.epoch, s.story(func(p simPart) bool { return p == part }))
		}
	}
}

// story is a part of the history as lines.
func (s *simulation) story(of func(simPart) bool) string {
	var b strings.Builder
	for part, calls := range s.history {
		for _, c := range calls {
			if of(part) {
				fmt.Fprintf(&b, "\n%8.3f %8.3f %s %s: %+v: %+v", time.Duration(c.Call).Seconds(), time.Duration(c.Return).Seconds(), part.epoch, s.hosts[c.ClientId].cfg.Name, c.Input, c.Output)
			}
		}
	}
	return b.String()
}

// unseen is an address of which nothing is known yet: its epoch began with what a takeover found.
const unseen = "?"

// addressModel is an address and who has it.
func addressModel(init string) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return init },
		Step: func(state, input, output any) (bool, any) {
			owner, in, out := state.(string), input.(simCall), output.(simAnswer)
			free, mine := owner == "" || owner == unseen, owner == in.owner || owner == unseen
			switch {
			case in.op == "read" && out.unknown:
				return true, owner
			case in.op == "read":
				return owner == unseen || out.owner == owner, out.owner
			case in.op == "wipe" && ownerName(owner) == in.owner:
				return true, ""
			case in.op == "take" && out.ok:
				return free, in.owner
			case in.op == "take" && out.unknown && free:
				return true, in.owner
			case in.op == "take" && !out.unknown: // somebody has it
				return owner != "", owner
			case in.op == "give back" && out.ok:
				return mine, ""
			case in.op == "give back" && out.unknown && mine:
				return true, ""
			case in.op == "give back" && !out.unknown:
				return owner != in.owner, owner
			}
			return true, owner // it changes nothing
		},
	}
}

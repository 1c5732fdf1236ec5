package cluster

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/transport"
)

// cards are a host's interfaces in a test.
type cards struct {
	mu   sync.Mutex
	card map[string]netip.Addr
}

func (c *cards) set(name string, a netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.card[name] = a
}

func (c *cards) Interface(a netip.Addr) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, has := range c.card {
		if has == a {
			return name, true
		}
	}
	return "", false
}

func (c *cards) Address(name string, _ netip.Addr) (netip.Addr, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.card[name]
	return a, ok && a.IsValid()
}

// carded gives a host that is open and alone interfaces.
func carded(t *testing.T, h *host) *cards {
	t.Helper()
	c := &cards{card: map[string]netip.Addr{"eth0": h.addr.Addr()}}
	h.close(t)
	h.cfg.Addresses, h.cfg.Wire = c, cardWire{cards: c}
	h.open(t)
	return c
}

// cardWire is the wire of a machine of its own: the loopback interface has every address there is, and answers for all.
type cardWire struct {
	transport.Kernel
	cards *cards
}

func (w cardWire) Listen(ctx context.Context, addr netip.AddrPort) (net.Listener, net.PacketConn, error) {
	if _, here := w.cards.Interface(addr.Addr()); !here {
		return nil, nil, syscall.EADDRNOTAVAIL
	}
	return w.Kernel.Listen(ctx, addr)
}

func (w cardWire) Dial(ctx context.Context, from netip.Addr, to string) (net.Conn, error) {
	if _, here := w.cards.Interface(from); from.IsValid() && !here {
		return nil, syscall.EADDRNOTAVAIL
	}
	conn, err := w.Kernel.Dial(ctx, from, to)
	if errors.Is(err, syscall.ECONNREFUSED) {
		err = syscall.EHOSTUNREACH // a machine that is not there refuses nothing
	}
	return conn, err
}

// heard wants all hosts to see each other, and everybody's records where their owner is.
func heard(t *testing.T, network string, hosts ...*host) {
	t.Helper()
	var want []string
	at := map[NodeID]netip.Addr{}
	for _, h := range hosts {
		want = append(want, h.cfg.Name)
		at[h.Self().ID] = h.addr.Addr()
	}
	slices.Sort(want)
	for _, h := range hosts {
		eventually(t, h.cfg.Name+" hears all", func() bool {
			got := map[NodeID]netip.Addr{}
			for _, r := range h.Records(network) {
				if r.Alive {
					got[r.Owner] = r.VTEP
				}
			}
			return h.alive() == strings.Join(want, " ") && maps.Equal(got, at)
		})
	}
}

// TestAddressChanges: DHCP gives a host another address, while its daemon runs and while it does not; the host that decides
// as well. The others follow, records' tunnel ends too.
func TestAddressChanges(t *testing.T) {
	t.Parallel()
	a, b := newHost(t, "a"), newHost(t, "b")
	cardsA, cardsB := carded(t, a), carded(t, b)
	a.init(t)
	b.join(t, a)
	converse(t, a, b)
	heard(t, "n", a, b)
	noted := func(h *host) func() bool {
		return func() bool { return h.snapshotState().Interfaces[h.addr.Addr()] == "eth0" }
	}
	for name, move := range map[string]struct {
		h *host
		c *cards
	}{"the learner": {b, cardsB}, "who decides": {a, cardsA}} {
		eventually(t, name+" notes its interface", noted(move.h))
		applied := a.appliedCount("n") + b.appliedCount("n")
		move.h.addr = freePort(t)
		move.c.set("eth0", move.h.addr.Addr())
		heard(t, "n", a, b)
		converse(t, a, b)
		if a.appliedCount("n")+b.appliedCount("n") == applied {
			t.Errorf("%s moved, and nobody was told that packets go elsewhere", name)
		}
		eventually(t, name+" notes its interface", noted(move.h))

		move.h.close(t)
		move.h.addr = freePort(t)
		move.c.set("eth0", move.h.addr.Addr())
		move.h.open(t)
		heard(t, "n", a, b)
		converse(t, a, b)
	}
	eventually(t, "the record says so", func() bool {
		p, ok, err := store.Get(t.Context(), a.Store(), nodeKey(b.Self().ID), true)
		return err == nil && ok && strings.Contains(string(p.Value), b.addr.String())
	})
}

// TestAddressChangesAtOnce: a host is given another address the moment after it has founded or joined a cluster.
func TestAddressChangesAtOnce(t *testing.T) {
	t.Parallel()
	a, b := newHost(t, "a"), newHost(t, "b")
	atA, atB := carded(t, a), carded(t, b)
	a.init(t)
	a.addr = freePort(t)
	atA.set("eth0", a.addr.Addr())
	eventually(t, "a follows", func() bool { return a.Self().Addr == a.addr && a.session() != nil })
	b.join(t, a)
	b.addr = freePort(t)
	atB.set("eth0", b.addr.Addr())
	eventually(t, "b follows", func() bool { return b.Self().Addr == b.addr })
	agree(t, a, b)
}

// TestAllAddressesChange: all hosts get other addresses at once, as from another DHCP server, while their daemons are
// stopped. None knows where another is; told so on one of them, all are one cluster again.
func TestAllAddressesChange(t *testing.T) {
	t.Parallel()
	hosts := []*host{newHost(t, "a"), newHost(t, "b"), newHost(t, "c")}
	var at []*cards
	for _, h := range hosts {
		at = append(at, carded(t, h))
	}
	a, b, c := hosts[0], hosts[1], hosts[2]
	a.init(t)
	b.join(t, a)
	c.join(t, a)
	converse(t, a, b)
	for _, h := range hosts {
		eventually(t, h.cfg.Name+" notes its interface", func() bool { return h.snapshotState().Interfaces[h.addr.Addr()] == "eth0" })
	}
	for _, h := range hosts {
		h.close(t)
	}
	for i, h := range hosts {
		h.addr = freePort(t)
		at[i].set("eth0", h.addr.Addr())
	}
	for _, h := range hosts {
		h.open(t)
	}
	for _, h := range hosts {
		eventually(t, h.cfg.Name+" is where it is, alone", func() bool { return h.Self().Addr == h.addr && h.alive() == h.cfg.Name })
	}
	for _, bad := range []struct {
		node, addr string
		is         func(error) bool
	}{
		{"d", b.addr.String(), errdefs.IsNotFound}, {"a", b.addr.String(), errdefs.IsNotFound}, {"b", "b", errdefs.IsInvalidArgument},
		{"b", b.addr.Addr().String() + ":99999", func(err error) bool {
			return errdefs.IsInvalidArgument(err) && strings.Contains(err.Error(), `"99999" is no port`)
		}},
		{"b", freePort(t).String(), errdefs.IsUnavailable}, {"b", c.addr.String(), errdefs.IsUnavailable},
	} {
		if err := a.Find(t.Context(), bad.node, bad.addr); !bad.is(err) {
			t.Errorf("find %s at %s: %v", bad.node, bad.addr, err)
		}
	}
	for _, h := range []*host{b, c} {
		eventually(t, "a finds "+h.cfg.Name, func() bool { return a.Find(t.Context(), h.cfg.Name, h.addr.Addr().String()) == nil })
	}
	for _, h := range hosts {
		// Raft calls those that it has not reached for a while every ten seconds, and no sooner.
		within(t, 5*time.Minute, h.cfg.Name+" sees all, and is heard by who decides", func() bool {
			_, err := h.Store().Txn(t.Context(), store.Txn{Then: []store.Op{{Key: "heard", Value: []byte(h.cfg.Name)}}})
			return h.alive() == "a b c" && err == nil
		})
	}
	converse(t, a, b)
	converse(t, c, b)
}

// TestCopyOfAMember: a machine is cloned with its data, and both run. The one that came first goes on undisturbed, the
// other is refused and told what to do; done, it is a node of its own.
func TestCopyOfAMember(t *testing.T) {
	t.Parallel()
	a, b := newHost(t, "a"), newHost(t, "b")
	carded(t, b)
	a.init(t)
	b.join(t, a)
	eventually(t, "b notes its interface", func() bool { return len(b.snapshotState().Interfaces) > 0 })
	b.close(t)
	copied := newHost(t, "b-copy")
	copied.close(t)
	if err := os.RemoveAll(copied.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(copied.cfg.Dir, os.DirFS(b.cfg.Dir)); err != nil {
		t.Fatal(err)
	}
	b.open(t)
	heardBy := func() bool { return a.alive() == "a b" && b.alive() == "a b" }
	eventually(t, "b is back", heardBy)
	copied.cfg.Addresses = &cards{card: map[string]netip.Addr{"eth0": copied.addr.Addr()}}
	copied.open(t)
	if copied.Self().ID != b.Self().ID {
		t.Fatal("not a copy")
	}
	eventually(t, "the copy is told", func() bool {
		said := copied.Refused()
		return strings.Contains(said, "node b ("+b.addr.Addr().String()+") is up, and this host has its key") && strings.Contains(said, "minictl cluster leave --force") &&
			strings.HasSuffix(said, "and join it") // no class of an error
	})
	converse(t, a, b)
	if n, ok := a.session().gossip.Address(string(b.Self().ID)); !heardBy() || !ok || n != b.addr {
		t.Errorf("a sees %q, b at %v", a.alive(), n)
	}
	if err := copied.Leave(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	copied.join(t, a)
	eventually(t, "three", func() bool { return a.alive() == "a b b-copy" && b.alive() == "a b b-copy" })
}

// TestCopiedBeforeJoining: two machines come from one image on which a daemon had run. The second gets a key of its own
// when it joins.
func TestCopiedBeforeJoining(t *testing.T) {
	t.Parallel()
	a, image := newHost(t, "a"), newHost(t, "image")
	image.close(t)
	a.init(t)
	var all []*host
	for _, name := range []string{"x", "y"} {
		h := newHost(t, name)
		h.close(t)
		if err := os.CopyFS(filepath.Join(h.cfg.Dir, "new"), os.DirFS(image.cfg.Dir)); err != nil {
			t.Fatal(err)
		}
		h.cfg.Dir = filepath.Join(h.cfg.Dir, "new")
		h.open(t)
		all = append(all, h)
	}
	if all[0].Self().ID != all[1].Self().ID {
		t.Fatal("not from one image")
	}
	for _, h := range all {
		h.join(t, a)
	}
	if all[0].Self().ID == all[1].Self().ID || len(a.Members()) != 3 {
		t.Errorf("%v", names(a.Members()))
	}
	converse(t, a, all[0], all[1])
	all[1].close(t)
	all[1].open(t)
	eventually(t, "y is back", func() bool { return a.alive() == "a x y" })
}

// TestJoinsAtOnce lets five hosts join at the same moment, through whoever is there.
func TestJoinsAtOnce(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	token := a.token(t)
	var wg sync.WaitGroup
	all := []*host{a, b}
	for i, name := range []string{"c", "d", "e", "f", "g"} {
		h, via := newHost(t, name), all[i%2]
		all = append(all, h)
		wg.Go(func() {
			if err := h.Join(t.Context(), h.options(token, via)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	wg.Wait()
	for _, h := range all {
		seen := map[string]bool{} // not all at one time: a busy machine lets one look dead for a moment
		eventually(t, h.cfg.Name+" sees all", func() bool {
			for _, m := range h.Members() {
				seen[m.Name] = seen[m.Name] || m.Alive
			}
			return len(seen) == len(all) && !slices.Contains(slices.Collect(maps.Values(seen)), false)
		})
	}
	eventually(t, "five vote", func() bool {
		voters := 0
		for _, m := range a.Members() {
			if m.Voter {
				voters++
			}
		}
		return voters == 5
	})
	converse(t, all...)
}

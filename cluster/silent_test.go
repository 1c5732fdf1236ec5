package cluster

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minictl/minictl/cluster/raft"
	"github.com/minictl/minictl/cluster/store"
)

// addVoters boots hosts, and returns when all of them vote.
func (s *simulation) addVoters(dir string, hosts int) {
	for i := range hosts {
		s.add(dir, 1, i)
	}
	eventually(s.t, "all vote", func() bool {
		heirs := s.hosts[0].cluster.heirs(0)
		return len(heirs) == hosts-1 && !slices.ContainsFunc(heirs, func(p raft.Peer) bool { return !p.Voter })
	})
}

// TestRolesAreNews: hosts become voters some time after they have joined, when nothing else changes; every host's daemon hears
// of it.
func TestRolesAreNews(t *testing.T) {
	t.Parallel()
	dir := memDir(t)
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		told := map[string]int{} // how many voted when a host's daemon was told last
		s := &simulation{t: t, net: newMemNet(), began: time.Now(), did: map[string]int{}, changed: func(h *simHost) {
			mu.Lock()
			defer mu.Unlock()
			told[h.cfg.Name] = 0
			if c := h.up(); c != nil {
				for _, m := range c.Members() {
					if m.Voter {
						told[h.cfg.Name]++
					}
				}
			}
		}}
		defer s.closeAll()
		for i := range 3 {
			s.add(dir, 1, i)
		}
		pass(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		for _, h := range s.hosts {
			if told[h.cfg.Name] != 3 {
				t.Errorf("%s was told of %d voters", h.cfg.Name, told[h.cfg.Name])
			}
		}
	})
}

// TestDeafHeir: the first host that the leader would hand over to hears what it is told and cannot answer, and nobody has
// noticed yet. The leader leaves all the same: there is another.
func TestDeafHeir(t *testing.T) {
	dir := memDir(t)
	synctest.Test(t, func(t *testing.T) {
		s := &simulation{t: t, net: newMemNet(), began: time.Now(), did: map[string]int{}}
		defer s.closeAll()
		s.addVoters(dir, 5) // four of whom go on deciding when one of them is deaf
		leader := s.hosts[0].cluster
		heir := leader.heirs(0)[0].ID
		s.net.change(func(cuts map[link]bool) {
			for _, h := range s.hosts {
				if string(h.cluster.Self().ID) != heir {
					continue
				}
				for _, o := range s.hosts {
					cuts[link{h.addr.Addr(), o.addr.Addr()}] = o != h
				}
			}
		})
		if err := leader.Leave(t.Context(), false); err != nil {
			t.Error(err)
		}
	})
}

// TestLeaveBesideADead: one of three voters has died a moment ago, and nobody has noticed yet, when another leaves. Those who
// remain go on deciding.
func TestLeaveBesideADead(t *testing.T) {
	dir := memDir(t)
	synctest.Test(t, func(t *testing.T) {
		s := &simulation{t: t, net: newMemNet(), began: time.Now(), did: map[string]int{}}
		defer s.closeAll()
		s.addVoters(dir, 3)
		leader, leaves, dies := s.hosts[0].cluster, s.hosts[1].cluster, s.hosts[2]
		s.cutOff(dies, true)
		if err := leaves.Leave(t.Context(), false); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := leader.Store().Txn(ctx, store.Txn{Then: []store.Op{{Key: "x"}}}); err != nil {
			t.Error(err)
		}
	})
}

// TestMemberSilentDuringJoin: the member that admits a host is not heard again. The host is alone as before, with a store.
func TestMemberSilentDuringJoin(t *testing.T) {
	dir := memDir(t)
	synctest.Test(t, func(t *testing.T) {
		s := &simulation{t: t, net: newMemNet(), began: time.Now(), did: map[string]int{}}
		defer s.closeAll()
		s.add(dir, 1, 0)
		a := s.hosts[0]
		b := &simHost{sim: s, index: 1, addr: netip.AddrPortFrom(netip.MustParseAddr("10.9.0.2"), ControlPort)}
		b.cfg = a.cfg
		b.cfg.Dir, b.cfg.Name, b.cfg.Wire = filepath.Join(dir, "1"), "host02", memWire{s.net, b.addr.Addr()}
		b.cfg.Step = func(step string) error {
			if step == "join-settle" {
				s.net.change(func(cuts map[link]bool) {
					cuts[link{a.addr.Addr(), b.addr.Addr()}], cuts[link{b.addr.Addr(), a.addr.Addr()}] = true, true
				})
			}
			return nil
		}
		if err := b.boot(); err != nil {
			t.Fatal(err)
		}
		s.hosts = append(s.hosts, b)
		if err := b.join(t.Context(), a); err == nil {
			t.Error("joined whom it does not hear")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := b.cluster.Store().Txn(ctx, store.Txn{Then: []store.Op{{Key: "x", Value: []byte("1")}}}); err != nil {
			t.Errorf("alone again: %v", err)
		}
	})
}

package cluster

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/store/external"
	"github.com/minictl/minictl/cluster/store/journal"
	"github.com/minictl/minictl/cluster/store/journal/journaltest"
)

// remote is an external store in memory.
type remote struct{ *journaltest.Remote }

// Close implements external.Remote.
func (remote) Close() error { return nil }

// together makes hosts write for the first time at the same moment: each has found an empty store.
type together struct {
	remote
	ready *sync.WaitGroup
	once  sync.Once
}

// Swap waits for the others' first.
func (t *together) Swap(ctx context.Context, version uint64, head, entry journal.KV) (uint64, error) {
	t.once.Do(func() {
		t.ready.Done()
		t.ready.Wait()
	})
	return t.remote.Swap(ctx, version, head, entry)
}

const storeName = "etcd://192.0.2.1:2379/minictl"

// outsideHost is a host whose daemon will be given an external store; open starts it.
func outsideHost(t *testing.T, name string, r *journaltest.Remote) *host {
	t.Helper()
	h := &host{addr: freePort(t), applied: map[string]int{}, members: make(chan struct{}, 1)}
	h.cfg = Config{Dir: t.TempDir(), Name: name, Version: "test", Log: testLog(t, name), Applied: h.apply, MembersChanged: func() {
		select {
		case h.members <- struct{}{}:
		default:
		}
	}}
	h.cfg.External = h.external(storeName, r)
	return h
}

func (h *host) external(name string, r *journaltest.Remote) *External {
	return &External{
		Name:      name,
		Dial:      func() (external.Remote, error) { return remote{r}, nil },
		Advertise: func() (InitOptions, error) { return InitOptions{Advertise: h.addr, MTU: 1500}, nil },
	}
}

func outsidePair(t *testing.T) (a, b *host, r *journaltest.Remote) {
	t.Helper()
	r = &journaltest.Remote{}
	a, b = outsideHost(t, "a", r), outsideHost(t, "b", r)
	a.open(t)
	b.open(t)
	return a, b, r
}

func (h *host) reopen(t *testing.T) {
	t.Helper()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h.open(t)
}

// TestExternalFoundsOnce: hosts that come at the same moment are in one cluster, and all is decided for all.
func TestExternalFoundsOnce(t *testing.T) {
	t.Parallel()
	r := &journaltest.Remote{}
	var hosts []*host
	var wg, ready sync.WaitGroup
	ready.Add(3)
	for _, name := range []string{"a", "b", "c"} {
		h := outsideHost(t, name, r)
		h.cfg.External.Dial = func() (external.Remote, error) { return &together{remote: remote{r}, ready: &ready}, nil }
		hosts = append(hosts, h)
		wg.Go(func() { h.open(t) })
	}
	wg.Wait()
	for _, h := range hosts {
		if !h.Clustered() || h.ID() != hosts[0].ID() || h.Epoch() != hosts[0].Epoch() {
			t.Fatalf("%s is in cluster %s, a in %s", h.cfg.Name, h.ID(), hosts[0].ID())
		}
		if h.ExternalStore() != storeName {
			t.Errorf("store is %q", h.ExternalStore())
		}
		eventually(t, h.cfg.Name+" sees all alive", func() bool { return h.alive() == "a b c" })
	}
	a, b, c := hosts[0], hosts[1], hosts[2]
	if missing, err := b.Publish(t.Context(), []Record{record("e1", "n1", 2)}, nil); err != nil || missing != nil {
		t.Fatalf("publish: %v, %v", missing, err)
	}
	if got := c.Records("n1"); len(got) != 1 || got[0].VTEP != b.addr.Addr() {
		t.Errorf("c's records: %+v", got)
	}
	put(t, a, "network/n1", `{"name":"n1"}`)
	if err := a.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, h := range hosts {
		if !has(t, h, "network/n1", false) {
			t.Errorf("%s has not got the network when a's Synced returned", h.cfg.Name)
		}
	}
	late := outsideHost(t, "late", r)
	late.open(t)
	eventually(t, "late sees all alive and knows their endpoints", func() bool { return late.alive() == "a b c late" && len(late.Records("n1")) == 1 })
}

// TestExternalAway: without the store, restart included, a host knows what it knew and decides nothing.
func TestExternalAway(t *testing.T) {
	t.Parallel()
	a, b, r := outsidePair(t)
	put(t, a, "network/n1", "{}")
	if err := a.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Down(true)
	b.reopen(t)
	if !has(t, b, "network/n1", false) {
		t.Error("the replica is lost with the store")
	}
	_, err := b.Store().Txn(t.Context(), store.Txn{Then: []store.Op{{Key: "network/n2"}}})
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), storeName) {
		t.Errorf("txn without the store: %v", err)
	}
	if err := b.StoreError(); !errdefs.IsUnavailable(err) {
		t.Errorf("store error: %v", err)
	}
	eventually(t, "the hosts see each other", func() bool { return a.alive() == "a b" && b.alive() == "a b" })
	if missing, err := b.Publish(t.Context(), []Record{record("e1", "n1", 2)}, nil); err != nil || missing != nil {
		t.Errorf("publish without the store: %v, %v", missing, err)
	}
	r.Down(false)
	eventually(t, "the store answers again", func() bool { return b.StoreError() == nil })
	put(t, b, "network/n2", "{}")
}

// TestExternalComesLate: a host may start before the store, and before its own address.
func TestExternalComesLate(t *testing.T) {
	t.Parallel()
	r := &journaltest.Remote{}
	r.Down(true)
	h := outsideHost(t, "h", r)
	h.open(t)
	if h.Clustered() {
		t.Fatal("a member of what is not there")
	}
	_, err := h.Store().Txn(t.Context(), store.Txn{Then: []store.Op{{Key: "network/n"}}})
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), storeName) {
		t.Errorf("txn before the store is there: %v", err)
	}
	r.Down(false)
	select {
	case <-h.members:
	case <-time.After(20 * time.Second):
		t.Fatal("it never came in")
	}
	if !h.Clustered() || h.alive() != "h" {
		t.Errorf("clustered %v, alive %q", h.Clustered(), h.alive())
	}
}

// TestExternalCloseWhileComingIn: a host that is still trying ends when it is told to.
func TestExternalCloseWhileComingIn(t *testing.T) {
	t.Parallel()
	h := outsideHost(t, "h", &journaltest.Remote{})
	calls, trying := 0, make(chan struct{})
	h.cfg.External.Advertise = func() (InitOptions, error) {
		if calls++; calls == 2 {
			close(trying)
		}
		if calls > 1 { // the next try is due before the end can be seen
			<-time.After(enlistPause + enlistPause/2)
		}
		return InitOptions{}, errdefs.ErrUnavailable
	}
	c, err := Open(t.Context(), h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	<-trying
	closed := make(chan error, 1)
	go func() { closed <- c.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
}

// TestExternalNeedsNoJoin: the commands for a cluster of raft's say what to do instead.
func TestExternalNeedsNoJoin(t *testing.T) {
	t.Parallel()
	h, _, _ := outsidePair(t)
	_, _, token := h.Token(t.Context(), false)
	for name, err := range map[string]error{"init": h.Init(t.Context(), InitOptions{Advertise: h.addr}), "join": h.Join(t.Context(), JoinOptions{}), "token": token} {
		if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "--cluster-store "+storeName) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestExternalLeaveAndRemove: both leave nothing of a host in the store, and who left comes in again as another.
func TestExternalLeaveAndRemove(t *testing.T) {
	t.Parallel()
	a, b, r := outsidePair(t)
	c := outsideHost(t, "c", r)
	c.open(t)
	for _, h := range []*host{b, c} {
		put(t, h, "address/n1/"+h.cfg.Name, `{"node":"`+string(h.Self().ID)+`"}`)
	}
	left := b.Self().ID
	if err := b.Leave(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if b.Clustered() || b.ExternalStore() != "" || b.Self().ID == left {
		t.Errorf("after leaving: clustered %v, store %q", b.Clustered(), b.ExternalStore())
	}
	put(t, b, "x", "alone")
	eventually(t, "a sees b gone", func() bool { return a.alive() == "a c" && !has(t, a, nodeKey(left), true) })
	if has(t, a, "address/n1/b", true) || has(t, a, nameKey("b"), true) || has(t, a, "x", true) {
		t.Error("b is still in the store, or has written to it")
	}
	if err := b.Init(t.Context(), InitOptions{Advertise: b.addr}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("init between leaving and the next start: %v", err)
	}
	b.reopen(t)
	if got := b.alive(); !strings.Contains(got, "b") || b.ID() != a.ID() || has(t, b, "x", true) {
		t.Errorf("b came again, sees %q", got)
	}
	gone := c.Self().ID
	if err := a.Remove(t.Context(), "c", false); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a live node was removed: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "c is seen dead", func() bool { return a.alive() == "a b" })
	if err := a.Remove(t.Context(), "c", false); err != nil {
		t.Fatal(err)
	}
	if has(t, a, nodeKey(gone), true) || has(t, a, "address/n1/c", true) {
		t.Error("c is still in the store")
	}
}

// TestExternalLeaveWhileAway needs force.
func TestExternalLeaveWhileAway(t *testing.T) {
	t.Parallel()
	a, _, r := outsidePair(t)
	r.Down(true)
	if err := a.Leave(t.Context(), false); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "--force") || !a.Clustered() {
		t.Errorf("leave: %v, clustered %v", err, a.Clustered())
	}
	if err := a.Leave(t.Context(), true); err != nil || a.Clustered() {
		t.Errorf("leave by force: %v, clustered %v", err, a.Clustered())
	}
}

// TestExternalNameTaken: the second host of a name does not start, and is told what to do.
func TestExternalNameTaken(t *testing.T) {
	t.Parallel()
	a, _, r := outsidePair(t)
	twin := outsideHost(t, "a", r)
	_, err := Open(t.Context(), twin.cfg)
	if !errdefs.IsAlreadyExists(err) || !strings.Contains(err.Error(), "--node-name") {
		t.Errorf("open: %v", err)
	}
	if got := a.alive(); got != "a b" {
		t.Errorf("a sees %q", got)
	}
}

// TestExternalNewAddress: a host that comes back with another address is found there.
func TestExternalNewAddress(t *testing.T) {
	t.Parallel()
	a, b, _ := outsidePair(t)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b.addr = freePort(t)
	b.open(t)
	eventually(t, "a knows b's new address", func() bool { return a.known()[b.Self().ID].Addr == b.addr })
	eventually(t, "both are alive", func() bool { return a.alive() == "a b" && b.alive() == "a b" })
}

// TestExternalChange: from one kind of store to another a host goes only when nothing gets lost, and is told the way.
func TestExternalChange(t *testing.T) {
	t.Parallel()
	r, other := &journaltest.Remote{}, &journaltest.Remote{}
	founded := outsideHost(t, "other", other)
	founded.open(t)
	raft := newHost(t, "raft")
	raft.init(t)
	networks := newHost(t, "networks")
	put(t, networks, "network/n1", `{"name":"n1"}`)
	alone := newHost(t, "alone")
	member := outsideHost(t, "member", r)
	member.open(t)
	moved := outsideHost(t, "moved", r)
	moved.open(t)
	never := outsideHost(t, "never", &journaltest.Remote{})
	never.cfg.External.Advertise = func() (InitOptions, error) { return InitOptions{}, errdefs.ErrUnavailable }
	never.open(t)
	for _, c := range []struct {
		name  string
		host  *host
		store *External
		want  string // of the error; empty: it starts
	}{
		{"from raft", raft, raft.external(storeName, r), "without --cluster-store, run `minictl cluster leave`"},
		{"from a cluster of one with networks", networks, networks.external(storeName, r), "minictl network rm n1"},
		{"from a cluster of one", alone, alone.external(storeName, r), ""},
		{"to raft", member, nil, "start the daemon with --cluster-store"},
		{"to another store", member, member.external("etcd://192.0.2.2:2379/minictl", other), "not certain that etcd://192.0.2.2:2379/minictl is the same store"},
		{"to an empty store", member, member.external("etcd://192.0.2.2:2379/minictl", &journaltest.Remote{}), "not certain"},
		{"to another address of the store", moved, moved.external("etcd://192.0.2.3:2379/minictl", r), ""},
		{"to raft, never having been a member", never, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.host.Close(); err != nil {
				t.Fatal(err)
			}
			cfg := c.host.cfg
			cfg.External = c.store
			cl, err := Open(t.Context(), cfg)
			if c.want != "" {
				if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("open: %v, want %q", err, c.want)
				}
				c.host.open(t) // as before nothing is lost
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			name := ""
			if c.store != nil {
				name = c.store.Name
			}
			if cl.ExternalStore() != name || cl.Clustered() != (c.store != nil) {
				t.Errorf("store %q, clustered %v", cl.ExternalStore(), cl.Clustered())
			}
		})
	}
}

func FuzzDecodeFounding(f *testing.F) {
	f.Add([]byte(`{"cluster":"c","epoch":"1.a"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if x, err := decodeFounding(b); err == nil && (x.Cluster == "" || x.Epoch == "") {
			t.Errorf("%+v was accepted", x)
		}
	})
}

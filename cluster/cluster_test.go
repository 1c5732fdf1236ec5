package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/records"
	"github.com/minictl/minictl/cluster/store"
)

// host is a daemon's cluster in a test, on an address of its own of the loopback interface.
type host struct {
	*Cluster
	cfg  Config
	addr netip.AddrPort

	mu      sync.Mutex
	applied map[string]int
	members chan struct{}
}

func newHost(t *testing.T, name string) *host {
	t.Helper()
	h := &host{addr: freePort(t), applied: map[string]int{}, members: make(chan struct{}, 1)}
	h.cfg = Config{Dir: t.TempDir(), Name: name, Version: "test", Log: testLog(t, name), Applied: h.apply, MembersChanged: func() {
		select {
		case h.members <- struct{}{}:
		default:
		}
	}}
	h.open(t)
	return h
}

func (h *host) open(t *testing.T) {
	t.Helper()
	c, err := Open(t.Context(), h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.Cluster = c
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close %s: %v", h.cfg.Name, err)
		}
	})
}

func (h *host) apply(_ context.Context, networks []string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range networks {
		h.applied[n]++
	}
	return nil
}

func (h *host) appliedCount(network string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.applied[network]
}

func (h *host) init(t *testing.T) {
	t.Helper()
	if err := h.Init(t.Context(), InitOptions{Advertise: h.addr, MTU: 1500}); err != nil {
		t.Fatal(err)
	}
}

func (h *host) options(token string, via *host) JoinOptions {
	return JoinOptions{Token: token, Remote: via.addr.String(), InitOptions: InitOptions{Advertise: h.addr}}
}

func (h *host) join(t *testing.T, via *host) {
	t.Helper()
	if err := h.Join(t.Context(), h.options(via.token(t), via)); err != nil {
		t.Fatal(err)
	}
}

func (h *host) token(t *testing.T) string {
	t.Helper()
	tok, expires, err := h.Token(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if d := time.Until(expires); d < 23*time.Hour || d > 25*time.Hour {
		t.Fatalf("token good for %v", d)
	}
	return tok
}

// alive lists the names of the live members as this host sees them.
func (h *host) alive() string {
	var names []string
	for _, m := range h.Members() {
		if m.Alive {
			names = append(names, m.Name)
		}
	}
	return strings.Join(names, " ")
}

// freePort is the control port on one of the 16 million loopback addresses: a port number that was free a moment ago may
// be taken, for TCP or UDP, by whatever else runs here.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, byte(1 + rand.N(254)), byte(rand.N(256)), byte(1 + rand.N(254))}), ControlPort)
}

func testLog(t *testing.T, name string) *slog.Logger {
	if os.Getenv("CLUSTER_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("host", name)
}

// eventually asks again until it is so.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	within(t, time.Minute, what, ok)
}

// within is eventually with a bound of its own.
func within(t *testing.T, bound time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(bound)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", bound, what)
		}
	}
}

func record(id, network string, last byte) Record {
	return Record{ID: id, Network: network, Container: "c-" + id, Name: id, Names: []string{id}, Address: netip.AddrFrom4([4]byte{10, 0, 0, last}), PrefixLen: 24, MAC: "02:42:0a:00:00:02"}
}

func TestAloneNothingListensAndTheStoreWorks(t *testing.T) {
	t.Parallel()
	h := newHost(t, "alone")
	if h.Clustered() || h.session() != nil {
		t.Fatal("a fresh host is in a cluster")
	}
	if _, err := h.Store().Txn(t.Context(), store.Txn{Then: []store.Op{{Key: "network/a", Value: []byte(`{}`)}}}); err != nil {
		t.Fatal(err)
	}
	if missing, err := h.Publish(t.Context(), []Record{record("e1", "a", 2)}, nil); err != nil || missing != nil {
		t.Fatalf("publish alone: %v, %v", missing, err)
	}
	if m := h.Members(); len(m) != 1 || !m[0].Alive || !m[0].Voter || m[0].Name != "alone" || m[0].Endpoints != 1 || m[0].CPUs == 0 {
		t.Errorf("members: %+v", m)
	}
	id, cluster := h.Self().ID, h.ID()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h.open(t)
	if h.Self().ID != id || h.ID() != cluster {
		t.Error("another identity after a restart")
	}
	if p, ok, err := store.Get(t.Context(), h.Store(), "network/a", true); err != nil || !ok || string(p.Value) != "{}" {
		t.Errorf("after a restart: %+v, %v, %v", p, ok, err)
	}
	if got := h.Records("a"); len(got) != 1 || got[0].ID != "e1" || !got[0].Alive {
		t.Errorf("own records after a restart: %+v", got)
	}
}

func TestInitJoinPublish(t *testing.T) {
	t.Parallel()
	a, b := newHost(t, "a"), newHost(t, "b")
	if _, err := a.Store().Txn(t.Context(), store.Txn{Then: []store.Op{{Key: "network/n1", Value: []byte(`{"name":"n1"}`)}}}); err != nil {
		t.Fatal(err)
	}
	a.init(t)
	watch, err := b.Store().Watch(t.Context(), "network/")
	if err != nil {
		t.Fatal(err)
	}
	if first := <-watch; len(first) != 0 {
		t.Fatalf("b begins with %v", first)
	}
	if _, err := a.Publish(t.Context(), []Record{record("e1", "n1", 2)}, nil); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	b.join(t, a)
	t.Logf("joined in %v", time.Since(start))
	for _, h := range []*host{a, b} {
		if got := h.alive(); got != "a b" {
			t.Errorf("%s sees %q alive", h.cfg.Name, got)
		}
		if l, ok := h.Leader(); !ok || l != a.Self().ID {
			t.Errorf("%s: leader %s, %v", h.cfg.Name, l, ok)
		}
	}
	if got := b.Records("n1"); len(got) != 1 || got[0].VTEP != a.addr.Addr() || got[0].Owner != a.Self().ID {
		t.Errorf("b's records after joining: %+v", got)
	}
	if batch := <-watch; len(batch) != 1 || batch[0].Pair.Key != "network/n1" {
		t.Errorf("b's watcher: %v", batch)
	}
	start = time.Now()
	missing, err := b.Publish(t.Context(), []Record{record("e2", "n1", 3)}, nil)
	if err != nil || len(missing) > 0 {
		t.Fatalf("publish: %v, %v", missing, err)
	}
	t.Logf("first publish in %v", time.Since(start))
	start = time.Now()
	const rounds = 50
	for i := range rounds {
		if missing, err := b.Publish(t.Context(), []Record{record("e2", "n1", byte(4+i))}, nil); err != nil || missing != nil {
			t.Fatalf("publish: %v, %v", missing, err)
		}
		if got := a.Records("n1"); len(got) != 2 || got[1].Address.As4()[3] != byte(4+i) {
			t.Fatalf("a's records when b's publish returned: %+v", got)
		}
	}
	t.Logf("publish in %v", time.Since(start)/rounds)
	if a.appliedCount("n1") != rounds+1 {
		t.Errorf("a applied n1 %d times", a.appliedCount("n1"))
	}
	if _, err := b.Store().Txn(t.Context(), store.Txn{Then: []store.Op{{Key: "x", Value: []byte("1")}}}); err != nil {
		t.Fatal(err)
	}
	if err := b.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = b.Store().Txn(t.Context(), store.Txn{If: []store.Cond{{Key: "x"}}, Then: []store.Op{{Key: "x"}}})
	if !errdefs.IsConflict(err) || !strings.Contains(fmt.Sprint(err), `"x"`) {
		t.Errorf("conflict across hosts: %v", err)
	}
	if !slices.Equal([]string{"a", "b"}, names(a.Members())) {
		t.Errorf("members %v", names(a.Members()))
	}
}

func names(ms []Member) []string {
	var out []string
	for _, m := range ms {
		out = append(out, m.Name)
	}
	return out
}

// What another member still tells of a host that was removed meanwhile must not bring its names back.
func TestRecordsOfNoMemberAreHidden(t *testing.T) {
	t.Parallel()
	h := newHost(t, "a")
	h.init(t)
	u := records.Update{Owner: "gone", Version: records.Version{Incarnation: 1, Counter: 1}, Full: true, Put: []Record{record("e1", "n1", 2)}}
	if _, err := h.merge(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	if got := h.Records("n1"); len(got) > 0 {
		t.Errorf("%+v", got)
	}
}

package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"

	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/store/memstore"
	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/netdrivertest"
	"github.com/minictl/minictl/runtime/container"
)

// lone is in no cluster until it comes into one.
type lone struct {
	*fakeCluster
	in bool
}

func (c *lone) Clustered() bool                                 { return c.in }
func (c *lone) Init(context.Context, cluster.InitOptions) error { c.in = true; return nil }
func (c *lone) Join(context.Context, cluster.JoinOptions) error { c.in = true; return nil }
func (c *lone) Leave(context.Context, bool) error               { c.in = false; return nil }

// noTunnel is a kernel without VXLAN.
type noTunnel struct{ fakeOverlay }

func (noTunnel) SetDataPath(_ context.Context, d netdriver.DataPath) error {
	if d.Addr.IsValid() {
		return errdefs.ErrNotImplemented
	}
	return nil
}

// outside moves the test to a network namespace with an address that others could reach it by.
func outside(t *testing.T) netip.Addr {
	t.Helper()
	netdrivertest.NewNS(t)
	netdrivertest.MustRun(t, "", "ip link add eth0 type veth peer name peer0")
	netdrivertest.MustRun(t, "", "ip addr add 192.0.2.1/24 dev eth0")
	return netip.MustParseAddr("192.0.2.1")
}

// A host without a data path is not left in a cluster, where a second try would be refused.
func TestClusterWithoutADataPath(t *testing.T) {
	e := newHost(t, memstore.New(), "a")
	c := &lone{fakeCluster: e.cl.(*fakeCluster)}
	at := outside(t)
	c.self.DataPath = at
	e.cl, e.cfg.Overlay = c, noTunnel{}
	if _, err := e.ClusterInit(t.Context(), api.ClusterInitRequest{AdvertiseAddr: at.String()}); !errdefs.IsNotImplemented(err) || c.in {
		t.Errorf("init: %v, in the cluster: %v", err, c.in)
	}
	if _, err := e.ClusterJoin(t.Context(), api.ClusterJoinRequest{Token: "t", Remote: at.String(), AdvertiseAddr: at.String()}); !errdefs.IsNotImplemented(err) || c.in {
		t.Errorf("join: %v, in the cluster: %v", err, c.in)
	}
}

// stuckOverlay has a network that cannot be set up.
type stuckOverlay struct {
	fakeOverlay
	peers int // how often some were stated
}

func (*stuckOverlay) SetDataPath(context.Context, netdriver.DataPath) error {
	return errdefs.ErrUnavailable
}

func (o *stuckOverlay) SetPeers(context.Context, netdriver.NetworkID, []netdriver.Peer) error {
	o.peers++
	return nil
}

// One network that cannot be set up keeps no other from hearing that a member has come.
func TestOneNetworkStuck(t *testing.T) {
	e := newHost(t, memstore.New(), "a")
	o := &stuckOverlay{}
	e.cfg.Overlay = o
	e.attached["other"] = map[string]bool{"e1": true}
	if err := e.adoptDataPath(t.Context()); !errdefs.IsUnavailable(err) {
		t.Error(err)
	}
	if o.peers != 1 {
		t.Errorf("peers were stated %d times", o.peers)
	}
}

// An address that only this host reaches is refused before anything is done.
func TestClusterOnLoopback(t *testing.T) {
	e := newHost(t, memstore.New(), "a")
	c := &lone{fakeCluster: e.cl.(*fakeCluster)}
	c.self.DataPath = netip.MustParseAddr("127.0.0.1")
	e.cl, e.cfg.Overlay = c, noTunnel{}
	for _, addr := range []string{"lo", "127.0.0.1", "127.0.0.1:7000"} {
		_, err := e.ClusterJoin(t.Context(), api.ClusterJoinRequest{Token: "t", Remote: "192.0.2.1", AdvertiseAddr: addr})
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "127.0.0.1 is a loopback address") || !strings.Contains(err.Error(), "--advertise-addr") {
			t.Errorf("join at %s: %v", addr, err)
		}
	}
	_, err := e.ClusterJoin(t.Context(), api.ClusterJoinRequest{Token: "t", Remote: "192.0.2.1", AdvertiseAddr: outside(t).String(), DataPathAddr: "lo"})
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "give --data-path-addr") {
		t.Errorf("data path: %v", err)
	}
	if _, err := initOptions("lo", "", 0); err != nil { // as docker swarm init --advertise-addr 127.0.0.1
		t.Errorf("the first of a cluster: %v", err)
	}
}

// Nodes that were removed long ago are listed while the log is replayed, and are no part of the cluster.
func TestJoinedCountsWhoIsThere(t *testing.T) {
	st := memstore.New()
	e := newHost(t, st, "a")
	e.cl.(*fakeCluster).members = make([]cluster.Member, 5)
	for _, key := range []string{"node/a", "node/b", "node/c", "node-spec/b", "node-name/a"} {
		if _, err := st.Txn(t.Context(), store.Txn{Then: []store.Op{{Key: key, Value: []byte("{}")}}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := e.joined(t.Context()).Nodes; got != 3 {
		t.Errorf("%d nodes", got)
	}
}

// firm does not let a host go, so that a test sees only what comes before.
type firm struct {
	*fakeCluster
	asked int
}

// errFirm is its answer.
type errFirm struct{}

func (errFirm) Error() string { return "stay" }

func (c *firm) Leave(context.Context, bool) error { c.asked++; return errFirm{} }

// The last host of a cluster takes the cluster's networks with it: docker's last manager is refused, too.
func TestLastOneLeaves(t *testing.T) {
	e := newHost(t, memstore.New(), "a")
	c := &firm{fakeCluster: e.cl.(*fakeCluster)}
	c.members = []cluster.Member{{Node: c.self}}
	e.cl = c
	if err := e.ClusterLeave(t.Context(), false); !errors.Is(err, errFirm{}) {
		t.Errorf("without networks: %v", err)
	}
	for _, name := range []string{"ov2", "ov1"} {
		if err := e.createGlobal(t.Context(), &Network{ID: newID(), Name: name, Driver: "overlay", Scope: scopeGlobal, Created: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	c.asked = 0
	err := e.ClusterLeave(t.Context(), false)
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "minictl network rm ov1 ov2") || !strings.Contains(err.Error(), "--force") || c.asked != 0 {
		t.Errorf("with networks: %v, asked %d times", err, c.asked)
	}
	if err := e.ClusterLeave(t.Context(), true); !errors.Is(err, errFirm{}) {
		t.Errorf("with force: %v", err)
	}
	c.members = append(c.members, cluster.Member{Node: cluster.Node{ID: "b"}})
	if err := e.ClusterLeave(t.Context(), false); !errors.Is(err, errFirm{}) {
		t.Errorf("with another host: %v", err)
	}
}

// Containers that take all of their time to end take it together, and one that cannot be ended keeps none of the others.
func TestLeaveStopsAtOnce(t *testing.T) {
	e := newHost(t, memstore.New(), "a")
	c := &firm{fakeCluster: e.cl.(*fakeCluster)}
	e.cl = c
	var boxes []*box
	hour := 3600
	for i := range 3 {
		b := newBox(t, e, fmt.Sprint("web", i))
		b.status = container.Status{State: mobycontainer.StateRunning, Endpoints: []container.Endpoint{{ID: newID(), NetworkID: "n", Driver: netdriver.TypeOverlay, Key: "k"}}}
		b.gone = make(chan struct{})
		b.spec.Config.StopTimeout = &hour
		boxes = append(boxes, b)
	}
	boxes[0].spec.Config.StopSignal = "NOPE"
	left := make(chan error)
	go func() { left <- e.ClusterLeave(t.Context(), true) }()
	eventually(t, "both are asked to end", func() bool {
		return boxes[1].statusCopy().ManuallyStopped && boxes[2].statusCopy().ManuallyStopped
	})
	close(boxes[1].gone)
	close(boxes[2].gone)
	if err := <-left; !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "NOPE") || c.asked != 0 {
		t.Errorf("%v, asked %d times", err, c.asked)
	}
}

// mute has no leader to ask for a token.
type mute struct{ *fakeCluster }

func (mute) Token(context.Context, bool) (string, time.Time, error) {
	return "", time.Time{}, fmt.Errorf("read token/: no leader: no majority of the voters 15ew2geu: %w", errdefs.ErrUnavailable)
}

// Who is asked for a token that nobody can give names whom it takes, and not by an ID.
func TestTokenWithoutALeader(t *testing.T) {
	e := newHost(t, memstore.New(), "a")
	c := e.cl.(*fakeCluster)
	c.missing = true
	c.members = []cluster.Member{{Node: cluster.Node{ID: "15ew2geu", Name: "h2", Addr: netip.MustParseAddrPort("192.0.2.2:7946")}, Voter: true}}
	e.cl = mute{c}
	_, err := e.ClusterToken(t.Context(), false)
	if !errdefs.IsUnavailable(err) || !strings.HasPrefix(err.Error(), "get join token: h2 (192.0.2.2), which decides") || strings.Contains(err.Error(), "15ew") {
		t.Error(err)
	}
}

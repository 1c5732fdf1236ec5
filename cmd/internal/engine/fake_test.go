package engine

import (
	"cmp"
	"context"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/firewall"
	"github.com/minictl/minictl/netdriver/ipam"
	"github.com/minictl/minictl/netdriver/overlay"
)

// fakeCluster is one host's part of a cluster whose decisions are kept in one store in memory.
type fakeCluster struct {
	st       store.Store
	self     cluster.Node
	records  []cluster.Owned
	members  []cluster.Member
	missing  bool   // nobody decides
	epoch    string // none: 1
	cautious bool
	before   []cluster.BeforePair
	refused  string

	own        []cluster.Record
	publishing func() // before a record is there
}

func (c *fakeCluster) CaughtUp(context.Context) error                  { return nil }
func (c *fakeCluster) Init(context.Context, cluster.InitOptions) error { return nil }
func (c *fakeCluster) Join(context.Context, cluster.JoinOptions) error { return nil }
func (c *fakeCluster) Leave(context.Context, bool) error               { return nil }
func (c *fakeCluster) Token(context.Context, bool) (string, time.Time, error) {
	return "", time.Time{}, nil
}
func (c *fakeCluster) Authority(context.Context) (*x509.Certificate, error) { return nil, nil }
func (c *fakeCluster) Clustered() bool                                      { return true }
func (c *fakeCluster) ID() string                                           { return "cluster" }
func (c *fakeCluster) Epoch() string                                        { return cmp.Or(c.epoch, "1") }
func (c *fakeCluster) Self() cluster.Node                                   { return c.self }
func (c *fakeCluster) Members() []cluster.Member                            { return c.members }
func (c *fakeCluster) Leader() (cluster.NodeID, bool)                       { return c.self.ID, true }
func (c *fakeCluster) ExternalStore() string                                { return "" }
func (c *fakeCluster) StoreError() error                                    { return nil }
func (c *fakeCluster) Store() store.Store                                   { return c.st }
func (c *fakeCluster) Publish(_ context.Context, put []cluster.Record, del []string) ([]string, error) {
	if c.publishing != nil {
		c.publishing()
	}
	c.own = slices.DeleteFunc(c.own, func(r cluster.Record) bool {
		return slices.Contains(del, r.ID) || slices.ContainsFunc(put, func(p cluster.Record) bool { return p.ID == r.ID })
	})
	c.own = append(c.own, put...)
	return nil, nil
}
func (c *fakeCluster) OwnRecords() []cluster.Record               { return slices.Clone(c.own) }
func (c *fakeCluster) SetRoutes([]netip.Prefix)                   {}
func (c *fakeCluster) SetMTU(int)                                 {}
func (c *fakeCluster) Remove(context.Context, string, bool) error { return nil }
func (c *fakeCluster) Records(string) []cluster.Owned             { return c.records }
func (c *fakeCluster) Deciding(ctx context.Context, _ time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if c.missing {
		cancel()
	}
	return ctx, cancel
}
func (c *fakeCluster) Standing() cluster.Standing {
	return cluster.Standing{Decides: !c.missing, Since: time.Now()}
}
func (c *fakeCluster) Lags(context.Context) map[cluster.NodeID]uint64 { return nil }
func (c *fakeCluster) Recoverable(context.Context) (cluster.Recovery, error) {
	return cluster.Recovery{}, nil
}
func (c *fakeCluster) Recover(context.Context) error { return nil }
func (c *fakeCluster) Backup(context.Context) (cluster.Backup, error) {
	return cluster.Backup{}, nil
}
func (c *fakeCluster) Restore(context.Context, cluster.Backup, cluster.InitOptions) error { return nil }
func (c *fakeCluster) RotateAuthority(context.Context) error                              { return nil }
func (c *fakeCluster) FinishRotation(context.Context) error                               { return nil }
func (c *fakeCluster) Rotation(context.Context) (bool, []string, error)                   { return false, nil, nil }
func (c *fakeCluster) Refused() string                                                    { return c.refused }
func (c *fakeCluster) Stopped() error                                                     { return nil }
func (c *fakeCluster) Rejoin(context.Context, string) error                               { return nil }
func (c *fakeCluster) Find(context.Context, string, string) error                         { return nil }
func (c *fakeCluster) Cautious() bool                                                     { return c.cautious }
func (c *fakeCluster) Before(context.Context) ([]cluster.BeforePair, error)               { return c.before, nil }
func (c *fakeCluster) ForgetBefore(context.Context, []cluster.BeforePair) error {
	c.before = nil
	return nil
}
func (c *fakeCluster) Settled(context.Context, string) error { return nil }
func (c *fakeCluster) Synced(context.Context) error          { return nil }

// fakeOverlay accepts every network.
type fakeOverlay struct{}

func (fakeOverlay) Type() string                                    { return netdriver.TypeOverlay }
func (fakeOverlay) Check(netdriver.Network) error                   { return nil }
func (fakeOverlay) Ensure(context.Context, netdriver.Network) error { return nil }
func (fakeOverlay) Remove(context.Context, netdriver.Network) error { return nil }
func (fakeOverlay) Join(context.Context, netdriver.Network, netdriver.Endpoint, netdriver.Sandbox) (netdriver.Attachment, error) {
	return netdriver.Attachment{}, nil
}
func (fakeOverlay) Leave(context.Context, netdriver.Network, netdriver.Endpoint) error { return nil }
func (fakeOverlay) SetPeers(context.Context, netdriver.NetworkID, []netdriver.Peer) error {
	return nil
}
func (fakeOverlay) SetDataPath(context.Context, netdriver.DataPath) error { return nil }
func (fakeOverlay) AskedVNI(n netdriver.Network) (uint32, error) {
	return new(overlay.Driver).AskedVNI(n)
}

// newHost is an engine that can decide on networks and addresses, and nothing else.
func newHost(t *testing.T, st store.Store, name string) *Engine {
	t.Helper()
	rules := firewall.New(slog.New(slog.DiscardHandler))
	rules.Hold() // no kernel's
	e, err := New(Config{
		Root: t.TempDir(), NodeName: name, GatewayBridge: "mini_gwbridge", Log: slog.New(slog.DiscardHandler), Overlay: fakeOverlay{}, Firewall: rules,
		Cluster: &fakeCluster{st: st, self: cluster.Node{ID: cluster.NodeID(name), Name: name}},
		Routes:  func() ([]netip.Prefix, error) { return []netip.Prefix{netip.MustParsePrefix("10.0.2.0/24")}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// lan is a global network's subnet.
func lan(t *testing.T, prefix string) []netdriver.Subnet {
	t.Helper()
	s, err := ipam.Validate(netdriver.Subnet{Prefix: netip.MustParsePrefix(prefix)})
	if err != nil {
		t.Fatal(err)
	}
	return []netdriver.Subnet{s}
}

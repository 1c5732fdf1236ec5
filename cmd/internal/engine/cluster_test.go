package engine

import (
	"context"
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/cluster/store/memstore"
	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/netdriver"
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

// A host without a data path is not left in a cluster, where a second try would be refused.
func TestClusterWithoutADataPath(t *testing.T) {
	e := newHost(t, memstore.New(), "a")
	c := &lone{fakeCluster: e.cl.(*fakeCluster)}
	c.self.DataPath = netip.MustParseAddr("127.0.0.1")
	e.cl, e.cfg.Overlay = c, noTunnel{}
	if _, err := e.ClusterInit(t.Context(), api.ClusterInitRequest{AdvertiseAddr: "127.0.0.1"}); !errdefs.IsNotImplemented(err) || c.in {
		t.Errorf("init: %v, in the cluster: %v", err, c.in)
	}
	if _, err := e.ClusterJoin(t.Context(), api.ClusterJoinRequest{Token: "t", Remote: "127.0.0.1", AdvertiseAddr: "127.0.0.1"}); !errdefs.IsNotImplemented(err) || c.in {
		t.Errorf("join: %v, in the cluster: %v", err, c.in)
	}
}

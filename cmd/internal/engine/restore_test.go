package engine

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/minictl/minictl/cluster/store/memstore"
	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/ipam"
	"github.com/minictl/minictl/runtime/container"
)

func TestAddressesAreTakenUpBesideAnEnd(t *testing.T) {
	e := newHost(t, memstore.New(), "a")
	n := &Network{ID: "n1", Scope: scopeLocal, Subnets: lan(t, "10.1.0.0/24")}
	pool := ipam.Pools(n.Subnets)[0]
	var wg sync.WaitGroup
	for i := range 100 {
		a, err := pool.Lowest(func(a netip.Addr) bool { return a.As4()[3] < byte(i+10) })
		if err != nil {
			t.Fatal(err)
		}
		ep := container.Endpoint{ID: newID(), NetworkID: n.ID, Driver: netdriver.TypeBridge, Address: netip.PrefixFrom(a, 24)}
		wg.Go(func() { e.holdLocal(n, ep, "c") })
		wg.Go(func() { e.releaseAddress(t.Context(), n, a, ep.ID) })
	}
	wg.Wait()
}

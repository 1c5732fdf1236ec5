package none_test

import (
	"context"
	"testing"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/host"
	"github.com/minictl/minictl/netdriver/netdrivertest"
	"github.com/minictl/minictl/netdriver/none"
)

// TestNothingChanges runs the two drivers that make nothing.
func TestNothingChanges(t *testing.T) {
	netdrivertest.NewNS(t)
	s := netdrivertest.NewSandbox(t, netdrivertest.Dir(t), "box")
	listing := func() string { return netdrivertest.Listing(t, "") + netdrivertest.Listing(t, s.Path) }
	before, ctx := listing(), context.Background()
	for want, d := range map[string]netdriver.Driver{netdriver.TypeNull: none.New(), netdriver.TypeHost: host.New()} {
		n, e := netdriver.Network{Name: want}, netdriver.Endpoint{Interface: "eth0"}
		at, err := d.Join(ctx, n, e, s)
		if err != nil || at.Interface != "" || at.Decided != nil || d.Type() != want {
			t.Errorf("%s: %+v, %v", d.Type(), at, err)
		}
		for _, err := range []error{d.Check(n), d.Ensure(ctx, n), d.Leave(ctx, n, e), d.Remove(ctx, n)} {
			if err != nil {
				t.Errorf("%s: %v", want, err)
			}
		}
		if got := listing(); got != before {
			t.Errorf("%s leaves\n%s", want, got)
		}
	}
}

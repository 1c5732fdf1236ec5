package ipam

import (
	"math"
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
)

func TestPools(t *testing.T) {
	first, second, six := subnet("10.0.0.0/30", "10.0.0.1", ""), subnet("10.9.0.0/30", "10.9.0.1", ""), subnet("fd00::/64", "fd00::1", "")
	pools := Pools([]netdriver.Subnet{six, first, second})
	if len(pools) != 2 || pools[0].Is6() || !pools[1].Is6() || len(pools[0]) != 2 || pools[0].Family() != "IPv4" || pools[1].Family() != "IPv6" {
		t.Fatalf("pools: %v", pools)
	}
	used := map[netip.Addr]bool{}
	has := func(a netip.Addr) bool { return used[a] }
	for _, want := range []string{"10.0.0.2", "10.9.0.2"} {
		if a, err := pools[0].Highest(has); err != nil || a.String() != "10.9.0.2" {
			t.Errorf("the highest: %s, %v", a, err)
		}
		a, err := pools[0].Lowest(has)
		if err != nil || a.String() != want {
			t.Errorf("%s, %v; want %s", a, err, want)
		}
		used[a] = true
	}
	if a, err := pools[0].Lowest(has); !errdefs.IsResourceExhausted(err) {
		t.Errorf("full: %s, %v", a, err)
	}
	if a, err := pools[0].Highest(has); !errdefs.IsResourceExhausted(err) {
		t.Errorf("full: %s, %v", a, err)
	}
	if s, ok := pools[0].Holding(netip.MustParseAddr("10.9.0.3")); !ok || s.Prefix != second.Prefix {
		t.Errorf("holding: %v, %v", s, ok)
	}
	for a, class := range map[string]func(error) bool{
		"10.9.0.2": func(err error) bool { return err == nil }, "10.9.0.1": errdefs.IsPermissionDenied, "10.8.0.2": errdefs.IsInvalidArgument, "fd00::2": errdefs.IsInvalidArgument,
	} {
		if err := pools[0].Check(netip.MustParseAddr(a)); !class(err) {
			t.Errorf("%s: %v", a, err)
		}
	}
	if n := pools[0].Total(); n != 2 {
		t.Errorf("%d addresses", n)
	}
	if n := append(pools[1], six).Total(); n != math.MaxInt {
		t.Errorf("%d addresses", n)
	}
}

func TestULA(t *testing.T) {
	a, b := ULA("one"), ULA("two")
	if a == b || a != ULA("one") || a.Base.Bits() != 48 || a.Base.Addr().As16()[0] != 0xfd || !a.Base.Addr().IsPrivate() || a.Base != a.Base.Masked() {
		t.Errorf("%v, %v", a, b)
	}
	p, err := NextPool([]Block{a}, nil)
	if err != nil || p.Bits() != 64 || p.Addr() != a.Base.Addr() {
		t.Errorf("the first subnet: %s, %v", p, err)
	}
}

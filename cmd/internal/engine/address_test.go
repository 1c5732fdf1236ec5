package engine

import (
	"net/netip"
	"testing"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/ipam"
)

// TestNextAddressPassesOver: whoever lost a race for the lowest address tries a little further, as long as there is more.
func TestNextAddressPassesOver(t *testing.T) {
	e := &Engine{cl: &fakeCluster{}}
	pool := ipam.Pool{netdriver.Subnet{Prefix: netip.MustParsePrefix("10.0.0.0/29"), Gateway: netip.MustParseAddr("10.0.0.1")}}
	held := map[netip.Addr]lease{netip.MustParseAddr("10.0.0.3"): {}}
	for skip, want := range map[int]string{0: "10.0.0.2", 1: "10.0.0.4", 2: "10.0.0.5", 8: "10.0.0.6"} {
		if got, err := e.nextAddress(pool, held, skip); err != nil || got.String() != want {
			t.Errorf("past %d: %v, %v, want %s", skip, got, err, want)
		}
	}
	if skipAfter(0) != 0 {
		t.Error("who lost no race does not get the lowest")
	}
	for lost := range 100 {
		if got := skipAfter(lost); got < 0 || got > maxSkip {
			t.Errorf("lost %d: %d", lost, got)
		}
	}
}

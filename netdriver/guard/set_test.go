package guard_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/minictl/minictl/netdriver/guard"
	"github.com/minictl/minictl/netdriver/netdrivertest"
	"github.com/minictl/minictl/netdriver/nl"
)

func TestSetAndClear(t *testing.T) {
	netdrivertest.NewNS(t)
	wish := guard.Wish{
		MAC:       net.HardwareAddr{0x02, 0x42, 10, 0, 0, 2},
		Addresses: []netip.Addr{netip.MustParseAddr("fd00::2"), netip.MustParseAddr("10.0.0.2")},
	}
	netdrivertest.MustRun(t, "", "ip link add port type veth peer name eth0")
	c, err := nl.Here()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l, err := c.Link("port")
	if err != nil {
		t.Fatal(err)
	}
	listed := func() string { return netdrivertest.MustRun(t, "", "tc filter show dev port ingress") }
	const name = "minictl 02:42:0a:00:00:02 10.0.0.2 fd00::2 direct-action"
	for _, w := range []guard.Wish{wish, wish, {MAC: wish.MAC}, wish} {
		if err := guard.Set(c, l.Index, w); err != nil {
			t.Fatal(err)
		}
		got := listed()
		if strings.Contains(got, name) != (len(w.Addresses) > 0) || strings.Count(got, "direct-action") != 1 {
			t.Errorf("%v:\n%s", w, got)
		}
	}
	for range 2 {
		if err := guard.Clear(c, l.Index); err != nil {
			t.Fatal(err)
		}
		if got := listed(); got != "" {
			t.Errorf("left behind:\n%s", got)
		}
	}
	if err := guard.Set(c, l.Index, guard.Wish{}); err == nil {
		t.Error("a port without a MAC is guarded")
	}
	// A filter of somebody else stays.
	netdrivertest.MustRun(t, "", "tc filter add dev port ingress prio 9 protocol ip u32 match u32 0 0 flowid 1:1")
	if err := guard.Clear(c, l.Index); err != nil {
		t.Fatal(err)
	}
	if got := listed(); !strings.Contains(got, "u32") {
		t.Errorf("another's filter is gone:\n%s", got)
	}
}

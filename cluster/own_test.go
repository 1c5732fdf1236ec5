package cluster

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"

	"github.com/minictl/minictl/cluster/store"
)

// routesOf is what one host knows of another's routes.
func routesOf(h *host, id NodeID) string {
	for _, m := range h.Members() {
		if m.ID == id {
			b, _ := json.Marshal(m.Routes) // prefixes always encode
			return string(b)
		}
	}
	return "no such member"
}

func TestRoutesReachEveryHost(t *testing.T) {
	alone := newHost(t, "alone")
	alone.SetRoutes([]netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")})
	if got := routesOf(alone, alone.Self().ID); got != `["10.9.0.0/16"]` {
		t.Errorf("alone: %s", got)
	}
	a, b := pair(t)
	lists := [][]netip.Prefix{
		{netip.MustParsePrefix("10.2.0.0/16"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.2.0.0/16")},
		{netip.MustParsePrefix("10.3.0.0/16")}, nil,
	}
	for i, want := range []string{`["10.1.0.0/16","10.2.0.0/16"]`, `["10.3.0.0/16"]`, `null`} {
		kept := slices.Clone(lists[i])
		b.SetRoutes(lists[i])
		if !slices.Equal(kept, lists[i]) {
			t.Error("the caller's list was changed")
		}
		eventually(t, "a knows "+want, func() bool { return routesOf(a, b.Self().ID) == want })
	}
	rev := func() store.Revision {
		_, rev, err := a.Store().Range(t.Context(), "", true)
		if err != nil {
			t.Fatal(err)
		}
		return rev
	}
	before := rev()
	b.SetRoutes(nil)
	if after := rev(); after != before {
		t.Errorf("the same routes cost %d revisions", after-before)
	}
}

// TestMTUReachesEveryHost: what a host's data path carries is known everywhere, by the host itself at once, and outlives
// the daemon.
func TestMTUReachesEveryHost(t *testing.T) {
	a, b := pair(t)
	mtuOf := func(h *host) int {
		for _, m := range h.Members() {
			if m.ID == b.Self().ID {
				return m.MTU
			}
		}
		return 0
	}
	b.SetMTU(1400)
	if got := mtuOf(b); got != 1400 || b.Self().MTU != 1400 {
		t.Errorf("its own: %d, %d", got, b.Self().MTU)
	}
	eventually(t, "the other host knows", func() bool { return mtuOf(a) == 1400 })
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b.open(t)
	if got := b.Self().MTU; got != 1400 {
		t.Errorf("after a restart: %d", got)
	}
}

func TestOwnRecordsOutliveTheDaemon(t *testing.T) {
	h := newHost(t, "host")
	if _, err := h.Publish(t.Context(), []Record{record("e1", "n1", 2), record("e2", "n1", 3)}, nil); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h.open(t)
	if got := len(h.OwnRecords()); got != 2 {
		t.Errorf("%d records", got)
	}
	if _, err := h.Publish(t.Context(), nil, []string{"e1"}); err != nil {
		t.Fatal(err)
	}
	if got := h.OwnRecords(); len(got) != 1 || got[0].ID != "e2" {
		t.Errorf("left: %+v", got)
	}
}

package records

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"
)

func rec(id, network string, host byte) Record {
	return Record{ID: id, Network: network, Container: "c" + id, Name: "n" + id, Address: netip.AddrFrom4([4]byte{10, 0, 0, host}), PrefixLen: 24, MAC: "02:42:0a:00:00:02"}
}

func TestDeltaThenFull(t *testing.T) {
	a, b := New("a", 7, nil), New("b", 1, nil)
	u1, _ := a.Change([]Record{rec("1", "net1", 2)}, nil)
	u2, _ := a.Change([]Record{rec("2", "net2", 3)}, nil)

	out, err := b.Merge(u2) // arrives first: its base is unknown
	if err != nil || !out.NeedFull || len(b.Network("net2")) != 0 {
		t.Fatalf("difference without base: %+v, %v", out, err)
	}
	full, _ := a.Full("a")
	out, err = b.Merge(full)
	if err != nil || !slices.Equal(out.Networks, []string{"net1", "net2"}) || out.Have != u2.Version {
		t.Fatalf("whole: %+v, %v", out, err)
	}
	if out, err = b.Merge(u1); err != nil || len(out.Networks) > 0 || out.NeedFull {
		t.Fatalf("late difference: %+v, %v", out, err)
	}
	u3, _ := a.Change([]Record{rec("1", "net1", 9)}, []string{"2", "unknown"})
	out, err = b.Merge(u3)
	if err != nil || !slices.Equal(out.Networks, []string{"net1", "net2"}) {
		t.Fatalf("change and deletion: %+v, %v", out, err)
	}
	want := []Owned{{Record: rec("1", "net1", 9), Owner: "a", Alive: true}}
	if got := b.Network("net1"); !reflect.DeepEqual(got, want) {
		t.Errorf("net1 on b: %+v", got)
	}
	if _, changed := a.Change([]Record{rec("1", "net1", 9)}, []string{"2"}); changed {
		t.Error("nothing changed, yet a version was made")
	}
}

func TestSuspendedNotDeleted(t *testing.T) {
	a, b := New("a", 1, nil), New("b", 1, nil)
	a.Change([]Record{rec("1", "net1", 2)}, nil)
	if _, err := b.Merge(mustFull(t, a)); err != nil {
		t.Fatal(err)
	}
	if got := b.SetAlive("a", false); !slices.Equal(got, []string{"net1"}) {
		t.Fatalf("suspending changed %v", got)
	}
	if got := b.SetAlive("a", false); got != nil {
		t.Errorf("suspending twice changed %v", got)
	}
	if got := b.Network("net1"); len(got) != 1 || got[0].Alive {
		t.Fatalf("suspended: %+v", got)
	}
	if got := b.SetAlive("a", true); !slices.Equal(got, []string{"net1"}) || !b.Network("net1")[0].Alive {
		t.Fatalf("restored: %v, %+v", got, b.Network("net1"))
	}
	if got := b.Drop("a"); !slices.Equal(got, []string{"net1"}) || len(b.Network("net1")) != 0 {
		t.Fatalf("dropped: %v", got)
	}
}

func TestSuspensionPrecedesTheFirstSnapshot(t *testing.T) {
	a, b := New("a", 1, nil), New("b", 1, nil)
	u, _ := a.Change([]Record{rec("1", "net1", 2)}, nil)
	b.SetAlive("a", false)
	if out, err := b.Merge(mustFull(t, a)); err != nil || out.Have != u.Version {
		t.Fatalf("%+v, %v", out, err)
	}
	if got := b.Network("net1"); len(got) != 1 || got[0].Alive {
		t.Fatalf("a third host's relay made a dead owner live: %+v", got)
	}
}

func TestRestartKeepsRecordsAndOutdoesItself(t *testing.T) {
	a, b := New("a", 5, nil), New("b", 1, nil)
	a.Change([]Record{rec("1", "net1", 2)}, nil)
	if _, err := b.Merge(mustFull(t, a)); err != nil {
		t.Fatal(err)
	}
	lost := New("a", 1, nil) // a's files are gone and its clock was set back
	if _, err := b.Merge(mustFull(t, lost)); err != nil || len(b.Network("net1")) != 1 {
		t.Fatalf("an old incarnation won: err %v", err)
	}
	if !lost.Outdo(b.Digest()["a"]) || lost.Outdo(b.Digest()["a"]) {
		t.Fatal("Outdo must say true once")
	}
	if lost.Outdo(Version{Incarnation: 1<<64 - 1}) {
		t.Error("a claim that cannot be outdone was believed")
	}
	if out, err := b.Merge(mustFull(t, lost)); err != nil || !slices.Equal(out.Networks, []string{"net1"}) || len(b.Network("net1")) != 0 {
		t.Fatalf("after Outdo: %+v, %v", out, err)
	}
	again := New("a", 8, []Record{rec("9", "net9", 9)})
	if u, ok := again.Full("a"); !ok || len(u.Put) != 1 {
		t.Fatalf("restored records: %+v", u)
	}
}

func TestForgedUpdates(t *testing.T) {
	ok := Version{Incarnation: 1, Counter: 2}
	for name, u := range map[string]Update{
		"own name":          {Owner: "b", Version: ok, Full: true},
		"no owner":          {Version: ok, Full: true},
		"no version":        {Owner: "a", Full: true},
		"no room above":     {Owner: "a", Version: Version{1<<62 + 1, 0}, Full: true},
		"backwards":         {Owner: "a", Version: ok, Base: Version{1, 2}},
		"other incarnation": {Owner: "a", Version: ok, Base: Version{2, 1}},
		"deleting whole":    {Owner: "a", Version: ok, Full: true, Del: []string{"x"}},
		"no network":        {Owner: "a", Version: ok, Full: true, Put: []Record{rec("1", "", 2)}},
		"twice":             {Owner: "a", Version: ok, Full: true, Put: []Record{rec("1", "n", 2), rec("1", "n", 3)}},
		"no address":        {Owner: "a", Version: ok, Full: true, Put: []Record{{ID: "1", Network: "n"}}},
		"long prefix":       {Owner: "a", Version: ok, Full: true, Put: []Record{{ID: "1", Network: "n", Address: netip.MustParseAddr("10.0.0.1"), PrefixLen: 33}}},
	} {
		b := New("b", 1, nil)
		if _, err := b.Merge(u); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: err = %v", name, err)
		}
		if len(b.Owners()) != 0 {
			t.Errorf("%s: left %v", name, b.Owners())
		}
	}
}

// TestAnyOrderAgrees walks 3 hosts through random changes, lost and reordered updates, restarts and failures, and asks
// after every step for the invariants, at the end for agreement.
func TestAnyOrderAgrees(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		names := []string{"a", "b", "c"}
		tables := map[string]*Table{}
		for _, n := range names {
			tables[n] = New(n, 1, nil)
		}
		var wire []Update
		pick := func(label string) string { return rapid.SampledFrom(names).Draw(rt, label) }
		rt.Repeat(map[string]func(*rapid.T){
			"change": func(rt *rapid.T) {
				n := pick("host")
				id := n + fmt.Sprint(rapid.IntRange(0, 4).Draw(rt, "id"))
				var u Update
				var changed bool
				if rapid.Bool().Draw(rt, "delete") {
					u, changed = tables[n].Change(nil, []string{id})
				} else {
					u, changed = tables[n].Change([]Record{rec(id, "net", byte(rapid.IntRange(2, 5).Draw(rt, "address")))}, nil)
				}
				if changed {
					wire = append(wire, u)
				}
			},
			"deliver": func(rt *rapid.T) { // any update ever sent, to anybody, again and again
				if len(wire) == 0 {
					rt.Skip("nothing sent")
				}
				u, to := wire[rapid.IntRange(0, len(wire)-1).Draw(rt, "update")], pick("to")
				if to == u.Owner {
					return
				}
				if out, err := tables[to].Merge(u); err != nil {
					rt.Fatalf("merge: %v", err)
				} else if out.NeedFull {
					full, _ := tables[u.Owner].Full(u.Owner)
					if _, err := tables[to].Merge(full); err != nil {
						rt.Fatalf("merge whole: %v", err)
					}
				}
			},
			"fail":    func(rt *rapid.T) { tables[pick("viewer")].SetAlive(pick("owner"), false) },
			"return":  func(rt *rapid.T) { tables[pick("viewer")].SetAlive(pick("owner"), true) },
			"forget":  func(rt *rapid.T) { tables[pick("viewer")].Drop(pick("owner")) },
			"restart": func(rt *rapid.T) { n := pick("host"); tables[n] = restart(tables[n], n) },
			"": func(rt *rapid.T) {
				for n, tab := range tables {
					if err := tab.checkInvariants(); err != nil {
						rt.Fatalf("%s: %v", n, err)
					}
				}
			},
		})
		syncAll(rt, tables)
		want := tables["a"].Network("net")
		for _, n := range names {
			if got := tables[n].Network("net"); !reflect.DeepEqual(got, want) {
				rt.Fatalf("%s has %+v, a has %+v", n, got, want)
			}
		}
	})
}

func restart(old *Table, self string) *Table {
	own := old.owners[self]
	return New(self, own.version.Incarnation+1, slices.Collect(maps.Values(own.records)))
}

// syncAll is what push/pull does in the end: everybody alive, every digest compared.
func syncAll(t *rapid.T, tables map[string]*Table) {
	for range 2 {
		for to, tab := range tables {
			for from, other := range tables {
				tab.SetAlive(from, true)
				for _, owner := range tab.Missing(other.Digest()) {
					u, _ := other.Full(owner)
					if _, err := tab.Merge(u); err != nil {
						t.Fatalf("%s from %s: %v", to, from, err)
					}
				}
			}
		}
	}
}

func mustFull(t *testing.T, tab *Table) Update {
	t.Helper()
	u, ok := tab.Full(tab.self)
	if !ok {
		t.Fatal("no snapshot")
	}
	return u
}

func FuzzDecodeUpdate(f *testing.F) {
	tab := New("a", 3, nil)
	u, _ := tab.Change([]Record{rec("1", "n", 2)}, nil)
	b, _ := json.Marshal(u)
	f.Add(b)
	full, _ := tab.Full("a")
	b, _ = json.Marshal(full)
	f.Add(b)
	f.Add([]byte(`{"owner":"a","version":{"i":1,"c":1},"del":["x"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := DecodeUpdate(b)
		if err != nil {
			return
		}
		tab := New("self", 1, nil)
		if _, err := tab.Merge(u); err != nil && u.Owner != "self" {
			t.Fatalf("decoded, then refused: %v", err)
		}
		if err := tab.checkInvariants(); err != nil {
			t.Fatal(err)
		}
	})
}

package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"github.com/minictl/minictl/netdriver"
)

// TestApart: two sides of a cluster that give addresses apart give neither what those who don't give, nor one another's.
func TestApart(t *testing.T) {
	for _, c := range []struct {
		what        string
		s           netdriver.Subnet
		first, last string // where it begins for whatever side
		places      int    // that a hundred sides begin at, at least
	}{
		{"a /24", subnet("10.0.0.0/24", "10.0.0.1", ""), "10.0.0.64", "10.0.0.191", 50},
		{"a /16", subnet("10.1.0.0/16", "10.1.0.1", ""), "10.1.64.0", "10.1.191.255", 95},
		{"a prefix inside a byte", subnet("10.0.0.0/21", "10.0.0.1", ""), "10.0.2.0", "10.0.5.255", 90},
		{"a range", subnet("10.0.0.0/24", "10.0.0.1", "10.0.0.128/26"), "10.0.0.144", "10.0.0.175", 20},
		{"a /29", subnet("10.0.0.0/29", "10.0.0.1", ""), "10.0.0.2", "10.0.0.5", 4},
		{"a /30", subnet("10.0.0.0/30", "10.0.0.1", ""), "10.0.0.2", "10.0.0.2", 1},
		{"a /31", subnet("10.0.0.0/31", "10.0.0.0", ""), "10.0.0.1", "10.0.0.1", 1},
		{"a /32", subnet("10.0.0.7/32", "", ""), "10.0.0.7", "10.0.0.7", 1},
		{"IPv6", subnet("fd00::/64", "fd00::1", ""), "fd00::4000:0:0:0", "fd00::bfff:ffff:ffff:ffff", 100},
	} {
		seen := map[netip.Addr]bool{}
		for i := range 100 {
			a, err := Pool{c.s}.Apart(fmt.Sprint("2.", i), func(netip.Addr) bool { return false })
			if err != nil || a.Compare(netip.MustParseAddr(c.first)) < 0 || a.Compare(netip.MustParseAddr(c.last)) > 0 {
				t.Errorf("%s: %s, %v; want one from %s to %s", c.what, a, err, c.first, c.last)
			}
			seen[a] = true
		}
		if len(seen) < c.places {
			t.Errorf("%s: %d places for 100 sides, want %d", c.what, len(seen), c.places)
		}
	}
}

// TestApartGivesAll: one after another they are all that Lowest gives, whatever the subnet.
func TestApartGivesAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pool := Pool{drawSubnet(t), drawSubnet(t)}
		seed := rapid.String().Draw(t, "seed")
		all := func(next func(used func(netip.Addr) bool) (netip.Addr, error)) (out []netip.Addr) {
			has := map[netip.Addr]bool{}
			for {
				a, err := next(func(a netip.Addr) bool { return has[a] })
				if err != nil {
					if !errdefs.IsResourceExhausted(err) {
						t.Fatal(err)
					}
					slices.SortFunc(out, netip.Addr.Compare)
					return out
				}
				has[a] = true
				out = append(out, a)
			}
		}
		want := all(pool.Lowest)
		got := all(func(used func(netip.Addr) bool) (netip.Addr, error) { return pool.Apart(seed, used) })
		if !slices.Equal(got, want) {
			t.Fatalf("apart: %v\nlowest: %v", got, want)
		}
	})
}

// TestApartGoesOn: what follows the first one is behind it, then before it, and only then near the ends, where others give from.
func TestApartGoesOn(t *testing.T) {
	pool, used := Pool{subnet("10.0.0.0/24", "10.0.0.1", "")}, map[netip.Addr]bool{}
	next := func() netip.Addr {
		a, err := pool.Apart("2.1234abcd", func(a netip.Addr) bool { return used[a] })
		if err != nil {
			t.Fatal(err)
		}
		used[a] = true
		return a
	}
	first := next()
	run := func(from netip.Addr, step func(netip.Addr) netip.Addr, to string) {
		t.Helper()
		for a := from; a != netip.MustParseAddr(to); a = step(a) {
			if got := next(); got != a {
				t.Fatalf("%s, want %s", got, a)
			}
		}
	}
	run(first.Next(), netip.Addr.Next, "10.0.0.192")
	run(first.Prev(), netip.Addr.Prev, "10.0.0.63")
	run(netip.MustParseAddr("10.0.0.192"), netip.Addr.Next, "10.0.0.255")
	run(netip.MustParseAddr("10.0.0.63"), netip.Addr.Prev, "10.0.0.1")
}

func TestBlocksApart(t *testing.T) {
	for _, c := range []struct {
		what   string
		blocks []Block
		half   string // where it begins for whatever side
		places int    // that a hundred sides begin at, at least
	}{
		{"overlays", DefaultOverlay(), "10.128.0.0/9", 98},
		{"the last of several", DefaultLocal(), "192.168.128.0/17", 7},
		{"IPv6", []Block{block("fd00::/48", 64)}, "fd00:0:0:8000::/49", 98},
		{"a range of two", []Block{block("10.20.0.0/23", 24)}, "10.20.1.0/24", 1},
		{"a range of one has no half", []Block{block("10.20.0.0/24", 24)}, "10.20.0.0/24", 1},
	} {
		half, seen := netip.MustParsePrefix(c.half), map[netip.Prefix]bool{}
		for i := range 100 {
			blocks := BlocksApart(c.blocks, fmt.Sprint("2.", i))
			p, err := NextPool(blocks, nil)
			if err != nil || !half.Overlaps(p) || p.Bits() < half.Bits() {
				t.Fatalf("%s: %s, %v; want one of %s", c.what, p, err, half)
			}
			seen[p] = true
			taken := []netip.Prefix{p}
			for n := 2; n <= 4; n++ { // the next ones are behind it, as long as there are some in that half
				q, err := NextPool(blocks, taken)
				if last := taken[len(taken)-1]; err == nil && half.Contains(lastOf(last).Next()) && q.Addr() != lastOf(last).Next() {
					t.Errorf("%s: %s, %v after %s", c.what, q, err, last)
					break
				}
				taken = append(taken, q)
			}
			first, _ := NextPool(c.blocks, nil)
			if p, err = NextPool(blocks, []netip.Prefix{half}); half.Overlaps(first) != (err != nil) || err == nil && p != first {
				t.Errorf("%s: %s, %v when that half is full, want %s", c.what, p, err, first)
			}
		}
		if len(seen) < c.places {
			t.Errorf("%s: %d places for 100 sides, want %d", c.what, len(seen), c.places)
		}
	}
	if got := BlocksApart(nil, "2.1234abcd"); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

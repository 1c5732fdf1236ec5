package ipam

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"github.com/minictl/minictl/netdriver"
)

func subnet(prefix, gateway, rng string, aux ...string) netdriver.Subnet {
	s := netdriver.Subnet{Prefix: netip.MustParsePrefix(prefix)}
	if gateway != "" {
		s.Gateway = netip.MustParseAddr(gateway)
	}
	if rng != "" {
		s.Range = netip.MustParsePrefix(rng)
	}
	for _, a := range aux {
		if s.Aux == nil {
			s.Aux = map[string]netip.Addr{}
		}
		s.Aux[a] = netip.MustParseAddr(a)
	}
	return s
}

func TestLowest(t *testing.T) {
	for _, c := range []struct {
		what string
		s    netdriver.Subnet
		used string
		want string // every address in order, as many as there are, at most five
	}{
		{"a /24", subnet("10.0.0.0/24", "10.0.0.1", ""), "", "10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6"},
		{"holes are filled first", subnet("10.0.0.0/24", "10.0.0.1", ""), "10.0.0.2 10.0.0.4", "10.0.0.3 10.0.0.5 10.0.0.6 10.0.0.7 10.0.0.8"},
		{"a gateway at the end", subnet("10.0.0.0/29", "10.0.0.6", ""), "", "10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5"},
		{"auxiliary addresses", subnet("10.0.0.0/29", "10.0.0.1", "", "10.0.0.2", "10.0.0.5"), "", "10.0.0.3 10.0.0.4 10.0.0.6"},
		{"a /30", subnet("10.0.0.0/30", "10.0.0.1", ""), "", "10.0.0.2"},
		{"a /31 has no address to spare", subnet("10.0.0.0/31", "10.0.0.0", ""), "", "10.0.0.1"},
		{"a /31 without a gateway", subnet("10.0.0.0/31", "", ""), "", "10.0.0.0 10.0.0.1"},
		{"a /32", subnet("10.0.0.7/32", "", ""), "", "10.0.0.7"},
		{"a /32 that is its gateway", subnet("10.0.0.7/32", "10.0.0.7", ""), "", ""},
		{"a range", subnet("10.0.0.0/24", "10.0.0.1", "10.0.0.64/30"), "", "10.0.0.64 10.0.0.65 10.0.0.66 10.0.0.67"},
		{"a range at the end", subnet("10.0.0.0/24", "10.0.0.1", "10.0.0.252/30"), "", "10.0.0.252 10.0.0.253 10.0.0.254"},
		{"a range at the beginning", subnet("10.0.0.0/24", "10.0.0.1", "10.0.0.0/30"), "", "10.0.0.2 10.0.0.3"},
		{"the end of the address space", subnet("255.255.255.252/30", "255.255.255.253", ""), "", "255.255.255.254"},
		{"IPv6", subnet("fd00::/64", "fd00::1", ""), "fd00::2", "fd00::3 fd00::4 fd00::5 fd00::6 fd00::7"},
		{"an IPv6 /126 has no broadcast address", subnet("fd00::/126", "fd00::1", ""), "", "fd00::2 fd00::3"},
		{"an IPv6 /127", subnet("fd00::/127", "fd00::", ""), "", "fd00::1"},
		{"the end of IPv6", subnet("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127", "", ""), "",
			"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
	} {
		used := map[netip.Addr]bool{}
		for _, u := range strings.Fields(c.used) {
			used[netip.MustParseAddr(u)] = true
		}
		var got []string
		var err error
		for len(got) < 5 {
			var a netip.Addr
			if a, err = Lowest(c.s, func(a netip.Addr) bool { return used[a] }); err != nil {
				break
			}
			used[a] = true
			got = append(got, a.String())
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
		if len(got) < 5 && !errdefs.IsResourceExhausted(err) {
			t.Errorf("%s: exhausted with %v", c.what, err)
		}
	}
}

// drawSubnet draws a valid subnet small enough to look at every address of.
func drawSubnet(t *rapid.T) netdriver.Subnet {
	bits, base := rapid.IntRange(22, 32).Draw(t, "bits"), netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "base")))
	if rapid.Bool().Draw(t, "v6") {
		bits, base = bits+96, netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "base6")))
		if base.Is4In6() {
			t.Skip("not an IPv6 address")
		}
	}
	s := netdriver.Subnet{Prefix: netip.PrefixFrom(base, bits).Masked()}
	all := every(s.Prefix)
	if rapid.Bool().Draw(t, "with range") {
		at := rapid.SampledFrom(all).Draw(t, "range")
		s.Range = netip.PrefixFrom(at, rapid.IntRange(bits, base.BitLen()).Draw(t, "range bits")).Masked()
	}
	if rapid.Bool().Draw(t, "with gateway") {
		s.Gateway = rapid.SampledFrom(all).Draw(t, "gateway")
	}
	s.Aux = rapid.MapOf(rapid.StringN(1, 3, 3), rapid.SampledFrom(all)).Draw(t, "aux")
	return s
}

func every(p netip.Prefix) (all []netip.Addr) {
	for a := p.Masked().Addr(); a.IsValid() && p.Contains(a); a = a.Next() {
		all = append(all, a)
	}
	return all
}

// Given out until exhausted, the addresses are exactly those that a plain reading of the rules allows, in order, none
// twice; and Check and Usage agree.
func TestLowestAgainstPlainRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSubnet(t)
		all := every(s.Prefix)
		taken := map[netip.Addr]bool{}
		for _, a := range rapid.SliceOf(rapid.SampledFrom(all)).Draw(t, "taken") {
			taken[a] = true
		}
		var want []netip.Addr
		allowed := 0
		for i, a := range all {
			reserved := a == s.Gateway || len(all) > 2 && (i == 0 || i == len(all)-1 && a.Is4())
			for _, x := range s.Aux {
				reserved = reserved || a == x
			}
			if ok := Check(s, a) == nil; ok == reserved {
				t.Fatalf("Check(%s) allows: %v, rules: %v", a, ok, !reserved)
			}
			inRange := !s.Range.IsValid() || s.Range.Contains(a)
			if !reserved && inRange {
				allowed++
				if !taken[a] {
					want = append(want, a)
				}
			}
		}
		for _, w := range want {
			a, err := Lowest(s, func(a netip.Addr) bool { return taken[a] })
			if err != nil || a != w {
				t.Fatalf("got %s, %v; want %s", a, err, w)
			}
			taken[a] = true
		}
		if a, err := Lowest(s, func(a netip.Addr) bool { return taken[a] }); !errdefs.IsResourceExhausted(err) {
			t.Fatalf("got %s, %v of an exhausted subnet", a, err)
		}
		if total, free := Usage(s, 1); total != allowed || free != max(allowed-1, 0) {
			t.Fatalf("usage %d, %d of %d", total, free, allowed)
		}
	})
}

func TestCheck(t *testing.T) {
	s := subnet("10.0.0.0/24", "10.0.0.1", "10.0.0.128/25", "10.0.0.9")
	for _, c := range []struct {
		addr, text string
		is         func(error) bool
	}{
		{"10.0.0.2", "", nil}, // outside the range: a wish is not bound by it
		{"10.0.0.200", "", nil},
		{"::ffff:10.0.0.2", "", nil},
		{"10.0.1.2", "no configured subnet contains IP address 10.0.1.2", errdefs.IsInvalidArgument},
		{"fd00::1", "no configured subnet contains IP address fd00::1", errdefs.IsInvalidArgument},
		{"10.0.0.0", "Address already in use", errdefs.IsPermissionDenied},
		{"10.0.0.255", "Address already in use", errdefs.IsPermissionDenied},
		{"10.0.0.1", "Address already in use", errdefs.IsPermissionDenied},
		{"10.0.0.9", "Address already in use", errdefs.IsPermissionDenied},
	} {
		err := Check(s, netip.MustParseAddr(c.addr))
		if c.is == nil && err != nil || c.is != nil && (err == nil || !c.is(err) || err.Error() != c.text) {
			t.Errorf("%s: %v", c.addr, err)
		}
	}
	if err := Check(s, netip.Addr{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no address: %v", err)
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		s                 netdriver.Subnet
		used, total, free int
	}{
		{subnet("10.0.0.0/24", "10.0.0.1", ""), 3, 253, 250},
		{subnet("10.0.0.0/24", "10.0.0.1", "10.0.0.128/25"), 0, 127, 127},
		{subnet("10.0.0.0/30", "10.0.0.1", ""), 5, 1, 0},
		{subnet("10.0.0.0/8", "10.0.0.1", ""), 0, 1<<24 - 3, 1<<24 - 3},
		{subnet("fd00::/64", "fd00::1", ""), 7, math.MaxInt, math.MaxInt},
		{netdriver.Subnet{}, 0, 0, 0},
	} {
		if total, free := Usage(c.s, c.used); total != c.total || free != c.free {
			t.Errorf("%v: %d, %d", c.s, total, free)
		}
	}
}

func TestMAC(t *testing.T) {
	for addr, want := range map[string]string{
		"10.0.0.2": "02:42:0a:00:00:02", "::ffff:10.0.0.2": "02:42:0a:00:00:02", "172.18.255.254": "02:42:ac:12:ff:fe",
		"fd00::1:2": "02:42:00:01:00:02",
	} {
		if got := MAC(netip.MustParseAddr(addr)).String(); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
	if MAC(netip.Addr{}) != nil {
		t.Error("no address has a MAC")
	}
}

func BenchmarkLowestOfFullSlash16(b *testing.B) {
	s := subnet("10.0.0.0/16", "10.0.0.1", "")
	last := netip.MustParseAddr("10.0.255.254")
	used := map[netip.Addr]struct{}{}
	for a := s.Prefix.Addr(); a != last; a = a.Next() {
		used[a] = struct{}{}
	}
	for b.Loop() {
		if a, err := Lowest(s, func(a netip.Addr) bool { _, ok := used[a]; return ok }); err != nil || a != last {
			b.Fatal(a, err)
		}
	}
}

func TestHighest(t *testing.T) {
	for _, c := range []struct {
		what  string
		s     netdriver.Subnet
		taken []string
		want  string
	}{
		{"the broadcast address is nobody's", subnet("10.0.0.0/24", "10.0.0.1", ""), nil, "10.0.0.254"},
		{"the next one", subnet("10.0.0.0/24", "10.0.0.1", ""), []string{"10.0.0.254"}, "10.0.0.253"},
		{"a gateway at the end", subnet("10.0.0.0/24", "10.0.0.254", ""), nil, "10.0.0.253"},
		{"the range's end", subnet("10.0.0.0/24", "10.0.0.1", "10.0.0.64/26"), nil, "10.0.0.127"},
		{"an auxiliary address", subnet("10.0.0.0/29", "10.0.0.1", "", "10.0.0.6"), nil, "10.0.0.5"},
		{"the last of the address space", subnet("255.255.255.254/31", "255.255.255.254", ""), nil, "255.255.255.255"},
		{"none left", subnet("0.0.0.0/30", "0.0.0.1", ""), []string{"0.0.0.2"}, ""},
	} {
		got, err := Highest(c.s, func(a netip.Addr) bool { return slices.Contains(c.taken, a.String()) })
		if c.want == "" {
			if !errdefs.IsResourceExhausted(err) {
				t.Errorf("%s: %s, %v", c.what, got, err)
			}
		} else if err != nil || got.String() != c.want {
			t.Errorf("%s: %s, %v; want %s", c.what, got, err, c.want)
		}
	}
}

func TestReserveSize(t *testing.T) {
	for _, c := range []struct {
		prefix      string
		hosts, want int
	}{
		{"10.0.0.0/24", 1, 0}, {"10.0.0.0/24", 2, 8}, {"10.0.0.0/24", 7, 8}, {"10.0.0.0/24", 8, 7}, {"10.0.0.0/24", 50, 1}, {"10.0.0.0/24", 64, 0},
		{"10.0.0.0/28", 2, 1}, {"10.0.0.0/29", 2, 0}, {"10.0.0.0/31", 2, 0}, {"10.0.0.0/16", 1000, 8}, {"fd00::/64", 50, 8},
	} {
		s, err := Validate(netdriver.Subnet{Prefix: netip.MustParsePrefix(c.prefix)})
		if err != nil {
			t.Fatal(err)
		}
		if got := (Pool{s}).ReserveSize(c.hosts); got != c.want {
			t.Errorf("%s, %d hosts: %d, want %d", c.prefix, c.hosts, got, c.want)
		}
	}
}

package ipam

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"
)

func block(base string, size int) Block { return Block{netip.MustParsePrefix(base), size} }

func TestBlocks(t *testing.T) {
	for _, c := range []struct {
		bases []string
		size  int
		want  string
	}{
		{nil, 0, ""},
		{[]string{"10.20.0.0/16", "192.168.7.9/24"}, 26, ""}, // host bits are masked away
		{[]string{"10.20.0.0/29"}, 29, ""},
		{[]string{"10.20.0.0/16"}, 15, "invalid subnet size 15 for pool 10.20.0.0/16: must be from 16 to 29"},
		{[]string{"10.20.0.0/16"}, 30, "invalid subnet size 30 for pool 10.20.0.0/16: must be from 16 to 29"},
		{[]string{"10.20.0.0/16"}, -1, "invalid subnet size -1 for pool 10.20.0.0/16: must be from 16 to 29"},
		{[]string{"fd00::/48"}, 56, ""},
		{[]string{"fd00::/64"}, 24, "invalid subnet size 24 for pool fd00::/64: must be from 64 to 125"},
		{[]string{"fd00::/48", "fd00:0:0:1::/64"}, 64, "base pools fd00::/48 and fd00:0:0:1::/64 overlap"},
		{[]string{"10.20.0.0/16", "10.20.3.0/24"}, 24, "base pools 10.20.0.0/16 and 10.20.3.0/24 overlap"},
	} {
		var bases []netip.Prefix
		for _, b := range c.bases {
			bases = append(bases, netip.MustParsePrefix(b))
		}
		got, err := Blocks(bases, c.size)
		if c.want != "" {
			if err == nil || err.Error() != c.want || !errdefs.IsInvalidArgument(err) {
				t.Errorf("%v /%d: %v, want %q", c.bases, c.size, err, c.want)
			}
			continue
		}
		if err != nil || len(got) != len(bases) {
			t.Errorf("%v /%d: %v, %v", c.bases, c.size, got, err)
		}
		for _, b := range got {
			if p, err := NextPool([]Block{b}, nil); err != nil || p.Addr() != b.Base.Addr() || p.Bits() != c.size {
				t.Errorf("%v: %v, %v", b, p, err)
			}
		}
	}
	mixed, err := Blocks([]netip.Prefix{netip.MustParsePrefix("fd00::/48"), netip.MustParsePrefix("10.20.0.0/16"), netip.MustParsePrefix("fd01::/80")}, 26)
	if want := "[{fd00::/48 64} {10.20.0.0/16 26} {fd01::/80 80}]"; err != nil || fmt.Sprint(mixed) != want {
		t.Errorf("both families: %v, %v, want %s", mixed, err, want)
	}
	if _, err := Blocks([]netip.Prefix{{}}, 24); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no prefix: %v", err)
	}
}

func TestNextPool(t *testing.T) {
	for _, c := range []struct {
		what   string
		blocks []Block
		taken  []string
		want   string
	}{
		{"the first overlay", DefaultOverlay(), nil, "10.0.0.0/24"},
		{"the second", DefaultOverlay(), []string{"10.0.0.0/24"}, "10.0.1.0/24"},
		{"a hole", DefaultOverlay(), []string{"10.0.2.0/24", "10.0.0.0/24"}, "10.0.1.0/24"},
		{"a corner of one is enough", DefaultOverlay(), []string{"10.0.0.200/32"}, "10.0.1.0/24"},
		{"a host's LAN is jumped over", DefaultOverlay(), []string{"10.0.0.0/16", "10.0.7.0/24", "10.1.0.0/24"}, "10.1.1.0/24"},
		{"a default route takes nothing", DefaultOverlay(), []string{"0.0.0.0/0", "::/0"}, "10.0.0.0/24"},
		{"a VPN's half of everything does", DefaultOverlay(), []string{"0.0.0.0/1"}, ""},
		{"all taken", DefaultOverlay(), []string{"10.0.0.0/8"}, ""},
		{"host bits in what is taken", DefaultOverlay(), []string{"10.0.0.77/24"}, "10.0.1.0/24"},
		{"the first local", DefaultLocal(), nil, "172.18.0.0/16"},
		{"docker's order", DefaultLocal(), []string{"172.18.0.0/16", "172.19.0.0/16"}, "172.20.0.0/16"},
		{"the last of the big ones", DefaultLocal(), []string{"172.16.0.0/12"}, "192.168.0.0/20"},
		{"around a home network", DefaultLocal(), []string{"172.16.0.0/12", "192.168.1.0/24"}, "192.168.16.0/20"},
		{"IPv6", []Block{block("fd00::/48", 64)}, []string{"fd00::/63"}, "fd00:0:0:2::/64"},
		{"the end of the address space", []Block{block("255.255.255.0/24", 25)}, []string{"255.255.255.0/25"}, "255.255.255.128/25"},
		{"and beyond", []Block{block("255.255.255.0/24", 25)}, []string{"255.255.255.0/24"}, ""},
		{"sizes that do not fit", []Block{block("10.0.0.0/24", 16), block("10.0.0.0/24", 33), block("10.9.0.0/24", 24)}, nil, "10.9.0.0/24"},
	} {
		var taken []netip.Prefix
		for _, s := range c.taken {
			taken = append(taken, netip.MustParsePrefix(s))
		}
		got, err := NextPool(c.blocks, taken)
		if c.want == "" {
			if !errdefs.IsResourceExhausted(err) {
				t.Errorf("%s: %s, %v", c.what, got, err)
			}
		} else if err != nil || got.String() != c.want {
			t.Errorf("%s: %s, %v; want %s", c.what, got, err, c.want)
		}
	}
}

// NextPool finds what trying each subnet in turn finds.
func TestNextPoolAgainstTryingAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v6 := rapid.Bool().Draw(t, "v6")
		draw := func(lo int, what string) netip.Prefix {
			b := rapid.SliceOfN(rapid.Byte(), 2, 2).Draw(t, what)
			bits := rapid.IntRange(lo, 28).Draw(t, what+" bits")
			if v6 {
				return netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 1: b[0] & 3, 2: b[1]}), bits)
			}
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, b[0] & 3, b[1], 0}), bits)
		}
		var blocks []Block
		for i := range rapid.IntRange(1, 3).Draw(t, "blocks") {
			base := draw(14, fmt.Sprint("base", i)).Masked()
			blocks = append(blocks, Block{base, rapid.IntRange(base.Bits(), min(base.Bits()+10, 28)).Draw(t, "size")})
		}
		var taken []netip.Prefix
		for i := range rapid.IntRange(0, 12).Draw(t, "n") {
			taken = append(taken, draw(8, fmt.Sprint("taken", i)))
		}
		want := tryAll(blocks, taken)
		if got, err := NextPool(blocks, taken); got != want || (err == nil) != want.IsValid() {
			t.Fatalf("%v without %v: got %s, %v; want %s", blocks, taken, got, err, want)
		}
	})
}

func tryAll(blocks []Block, taken []netip.Prefix) netip.Prefix {
	for _, b := range blocks {
		for at := b.Base.Addr(); b.Base.Contains(at); {
			c := netip.PrefixFrom(at, b.Size)
			free := true
			for _, x := range taken {
				free = free && !x.Overlaps(c)
			}
			if free {
				return c
			}
			at = lastOf(c).Next()
		}
	}
	return netip.Prefix{}
}

func TestNextPoolIsTheLast(t *testing.T) {
	var taken []netip.Prefix
	for i := range 1<<16 - 1 {
		taken = append(taken, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24))
	}
	got, err := NextPool(DefaultOverlay(), taken)
	if err != nil || got.String() != "10.255.255.0/24" {
		t.Fatal(got, err)
	}
}

func BenchmarkNextPool(b *testing.B) {
	var taken []netip.Prefix
	for i := range 5000 {
		taken = append(taken, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24))
	}
	for b.Loop() {
		if _, err := NextPool(DefaultOverlay(), taken); err != nil {
			b.Fatal(err)
		}
	}
}

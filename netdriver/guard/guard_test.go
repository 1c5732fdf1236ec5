package guard

import (
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

var wish = Wish{
	MAC:       net.HardwareAddr{0x02, 0x42, 10, 0, 0, 2},
	Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.77"), netip.MustParseAddr("fd00::2")},
}

const (
	own     = "ffffffffffff 02420a000002 "
	other   = "ffffffffffff 02420a000003 "
	own4    = "0a000002"
	other4  = "0a000003"
	own6    = "fd000000000000000000000000000002"
	other6  = "fd000000000000000000000000000003"
	ownLL   = "fe80000000000000004 20afffe000002" // spaces mean nothing
	otherLL = "fe80000000000000004 20afffe000003"
	none6   = "00000000000000000000000000000000"
	all6    = "ff020000000000000000000000000001"
)

func arp(src, sha, spa string) string {
	return src + "0806 0001 0800 06 04 0002" + sha + spa + "000000000000 0a000009"
}
func ip4(src, saddr string) string {
	return src + "0800 4500001c 00000000 40110000" + saddr + "0a000009 00010002 00080000"
}
func ip6(src, next, hops, saddr, body string) string {
	return src + "86dd 60000000 0018" + next + hops + saddr + all6 + body
}
func nd(kind, target string) string { return kind + "000000 00000000" + target }

func TestProgram(t *testing.T) {
	full, open := run(t, wish), run(t, Wish{MAC: wish.MAC})
	v4 := run(t, Wish{MAC: wish.MAC, Addresses: wish.Addresses[:2]})
	for _, c := range []struct {
		what, frame string
		want        string // which of the three let it pass: f(ull), o(pen: no addresses), 4
	}{
		{"its own", ip4(own, own4), "fo4"},
		{"its second address", ip4(own, "0a00004d"), "fo4"},
		{"another's address", ip4(own, other4), "o"},
		{"no address", ip4(own, "00000000"), "o"},
		{"the host's loopback", ip4(own, "7f000001"), "o"},
		{"another's MAC", ip4(other, own4), ""},
		{"the last byte of the MAC", ip4("ffffffffffff 02420a000012 ", own4), ""},
		{"a cut frame", "ffffffffffff 02420a", ""},
		{"ARP", arp(own, "02420a000002", own4), "fo4"},
		{"ARP, asking whether it is free", arp(own, "02420a000002", "00000000"), "fo4"},
		{"ARP for another's address", arp(own, "02420a000002", other4), "o"},
		{"ARP with another's MAC inside", arp(own, "02420a000003", own4), "o"},
		{"ARP of another kind", own + "0806 0006 0800 06 04 0002 02420a000002" + own4 + "000000000000 0a000009", "o"},
		{"ARP, cut", own + "0806 0001 0800 06 04 0002 02420a000002", "o"},
		{"IPv6", ip6(own, "11", "40", own6, "0001000200080000"), "fo"},
		{"IPv6, link-local", ip6(own, "11", "40", ownLL, "0001000200080000"), "fo"},
		{"IPv6, another's", ip6(own, "11", "40", other6, "0001000200080000"), "o"},
		{"IPv6, another's link-local", ip6(own, "11", "40", otherLL, "0001000200080000"), "o"},
		{"IPv6, mapped", ip6(own, "11", "40", "00000000000000000000ffff0a000002", "0001000200080000"), "o"},
		{"IPv6 from nowhere", ip6(own, "11", "40", none6, "0001000200080000"), "o"},
		{"duplicate address detection", ip6(own, "3a", "ff", none6, nd("87", own6)), "fo"},
		{"a multicast report", ip6(own, "00", "01", none6, "3a00050200000000"), "fo"},
		{"a neighbour's solicitation", ip6(own, "3a", "ff", own6, nd("87", other6)), "fo"},
		{"its advertisement", ip6(own, "3a", "ff", own6, nd("88", own6)), "fo"},
		{"its link-local advertisement", ip6(own, "3a", "ff", own6, nd("88", ownLL)), "fo"},
		{"an advertisement of another", ip6(own, "3a", "ff", own6, nd("88", other6)), "o"},
		{"an advertisement of another from nowhere", ip6(own, "3a", "ff", none6, nd("88", other6)), "o"},
		{"an advertisement behind options", ip6(own, "3c", "ff", own6, "3a00010400000000"+nd("88", other6)), "o"},
		{"an advertisement in a fragment", ip6(own, "2c", "ff", own6, "3a00000100000000"+nd("88", other6)), "o"},
		{"an advertisement, cut", ip6(own, "3a", "ff", own6, "88000000"), "o"},
		{"a router's advertisement", ip6(own, "3a", "ff", ownLL, "8600000040000000"), "o"},
		{"a redirect", ip6(own, "3a", "ff", ownLL, nd("89", other6)), "o"},
		{"options of an ordinary packet", ip6(own, "3c", "40", own6, "1100010400000000"), "fo"},
		{"a VLAN", own + "8100 0001 0800 4500001c 00000000 40110000" + own4 + "0a000009", ""},
		{"a VLAN of a provider", own + "88a8 0001 0800 4500001c 00000000 40110000" + own4 + "0a000009", ""},
		{"a spanning tree", "0180c2000000 02420a000002 0026 424203 000000000080000000", "o"},
		{"MPLS", own + "8847 000010ff 4500001c", "o"},
	} {
		got := ""
		for _, p := range []struct {
			name string
			pass func(string) bool
		}{{"f", full}, {"o", open}, {"4", v4}} {
			if p.pass(c.frame) {
				got += p.name
			}
		}
		// The kernel takes a tag off before the program sees the frame; a run by hand shows it the tag as a type.
		if want := c.want; got != want && !(strings.HasPrefix(c.what, "a VLAN") && got == "o") {
			t.Errorf("%s: %q let it pass, want %q", c.what, got, want)
		}
	}
}

// needRoot skips without root, and fails where CI=true. netdrivertest, which has the same, imports this package.
func needRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		tb.Fatal("needs root")
	}
	tb.Skip("needs root")
}

// run loads a wish's program and gives what it says to a frame written in hexadecimal digits.
func run(t *testing.T, w Wish) (passes func(frame string) bool) {
	t.Helper()
	needRoot(t)
	prog, err := load(w)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { prog.Close() })
	return func(frame string) bool {
		b, err := hex.DecodeString(strings.ReplaceAll(frame, " ", ""))
		if err != nil {
			t.Fatalf("%s: %v", frame, err)
		}
		return verdict(t, prog, b)
	}
}

// verdict runs a program on a frame. By hand, the kernel takes none whose Ethernet or IP header is cut.
func verdict(t *testing.T, prog *ebpf.Program, frame []byte) bool {
	t.Helper()
	if len(frame) < frameLen {
		return false
	}
	code, err := prog.Run(&ebpf.RunOptions{Data: frame})
	if errors.Is(err, unix.EINVAL) {
		return false
	}
	if err != nil {
		t.Fatalf("%x: %v", frame, err)
	}
	return int32(code) == pass
}

// Frames of its own with a random byte changed anywhere pass only if the byte is none of the source's.
func TestOneByteOff(t *testing.T) {
	passes := run(t, wish)
	seed := rand.Uint64()
	t.Log("seed", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for _, c := range []struct {
		frame string
		fixed [][2]int // the bytes that count: from, to
	}{
		{ip4(own, own4), [][2]int{{6, 14}, {26, 30}}},
		{arp(own, "02420a000002", own4), [][2]int{{6, 20}, {22, 32}}},
		{ip6(own, "11", "40", own6, "0001000200080000"), [][2]int{{6, 14}, {22, 38}}},
	} {
		plain := strings.ReplaceAll(c.frame, " ", "")
		for range 400 {
			at := rnd.IntN(len(plain) / 2)
			bit := byte(1) << rnd.IntN(8)
			b, _ := hex.DecodeString(plain)
			b[at] ^= bit
			counts := slices.ContainsFunc(c.fixed, func(f [2]int) bool { return at >= f[0] && at < f[1] })
			if got := passes(hex.EncodeToString(b)); got == counts {
				t.Fatalf("byte %d of %s: passes %v", at, plain, got)
			}
		}
	}
}

// FuzzProgram holds the program against the same rule in Go.
func FuzzProgram(f *testing.F) {
	for _, s := range []string{ip4(own, own4), arp(own, "02420a000002", own4), ip6(own, "3a", "ff", own6, nd("88", own6))} {
		b, _ := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		f.Add(b)
	}
	needRoot(f)
	prog, err := load(wish)
	if err != nil {
		f.Fatal(err)
	}
	defer prog.Close()
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) > 1500 {
			return
		}
		if got, want := verdict(t, prog, frame), judge(frame); got != want {
			t.Errorf("%x: passes %v, want %v", frame, got, want)
		}
	})
}

// judge is the rule for wish.
func judge(b []byte) bool {
	if len(b) < 14 || !slices.Equal(b[6:12], wish.MAC) {
		return false
	}
	isOwn := func(raw []byte, more ...netip.Addr) bool {
		a, _ := netip.AddrFromSlice(raw)
		return slices.Contains(append(more, wish.Addresses...), a)
	}
	link := netip.MustParseAddr("fe80::42:aff:fe00:2")
	l3 := b[14:]
	switch string(b[12:14]) {
	case "\x08\x06":
		return len(l3) >= 28 && string(l3[:6]) == "\x00\x01\x08\x00\x06\x04" && slices.Equal(l3[8:14], wish.MAC) &&
			isOwn(l3[14:18], netip.IPv4Unspecified())
	case "\x08\x00":
		return len(l3) >= 20 && isOwn(l3[12:16])
	case "\x86\xdd":
		if len(l3) < 40 {
			return false
		}
		next, hops, own := l3[6], l3[7], isOwn(l3[8:24], link)
		if !own && !(isOwn(l3[8:24], netip.IPv6Unspecified()) && (next == 0 || next == 58)) {
			return false
		}
		if next != 58 {
			return hops != 255 || next != 0 && next != 43 && next != 44 && next != 60
		}
		if len(l3) < 41 || l3[40] == 134 || l3[40] == 137 {
			return false
		}
		return l3[40] != 136 || len(l3) >= 64 && isOwn(l3[48:64], link)
	}
	return false
}

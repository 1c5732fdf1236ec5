package sandbox

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/minictl/minictl/netdriver"
)

// FuzzAlias reads aliases, which anybody may write, and writes what it has read.
func FuzzAlias(f *testing.F) {
	f.Add("minictl endpoint 0a1b 10.0.0.2")
	f.Add("minictl endpoint 0a1b invalid IP")
	f.Add("minictl network 0a1b")
	f.Add("minictl endpoint 0a1b 10.0.0.2 fd00::2")
	f.Fuzz(func(t *testing.T, text string) {
		id, addrs, ok := parseAlias(text)
		if !ok {
			return
		}
		e := netdriver.Endpoint{ID: id}
		for i, to := range []*netip.Prefix{&e.Address, &e.Address6} {
			if i < len(addrs) {
				addrs[i] = addrs[i].WithZone("")
				*to = netip.PrefixFrom(addrs[i], addrs[i].BitLen())
			}
		}
		addrs = addrs[:min(len(addrs), 2)]
		again, at, ok := parseAlias(alias(e))
		if !ok || again != id || !slices.Equal(at, addrs) {
			t.Errorf("%q gives %q %v, then %q %v", text, id, addrs, again, at)
		}
	})
}

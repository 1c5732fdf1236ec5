package sandbox

import (
	"net/netip"
	"testing"

	"github.com/minictl/minictl/netdriver"
)

// FuzzAlias reads aliases, which anybody may write, and writes what it has read.
func FuzzAlias(f *testing.F) {
	f.Add("minictl endpoint 0a1b 10.0.0.2")
	f.Add("minictl endpoint 0a1b invalid IP")
	f.Add("minictl network 0a1b")
	f.Fuzz(func(t *testing.T, text string) {
		id, addr, ok := parseAlias(text)
		if !ok {
			return
		}
		e := netdriver.Endpoint{ID: id}
		if addr.IsValid() {
			e.Address = netip.PrefixFrom(addr.WithZone(""), addr.BitLen())
		}
		again, at, ok := parseAlias(alias(e))
		if !ok || again != id || at != addr.WithZone("") {
			t.Errorf("%q gives %q %v, then %q %v", text, id, addr, again, at)
		}
	})
}

package dnsd

import (
	"net/netip"
	"slices"
	"strings"
)

// Host is one endpoint of a network as its neighbours may call it.
type Host struct {
	Names []string // the first is what its addresses resolve back to
	Addrs []netip.Addr
}

// Zone is one network's name table. It never changes, so that any number of queries may read it while the next one is
// made.
type Zone struct {
	network string // lower case
	names   map[string]entry
	ptr     map[netip.Addr]string // fully qualified
}

type entry struct{ v4, v6 []netip.Addr }

// NewZone makes the table of a network from its endpoints. A name that several hosts have belongs to all of them. An
// address that several hosts have resolves back to the first.
func NewZone(network string, hosts []Host) *Zone {
	z := &Zone{
		network: lower(network),
		names:   make(map[string]entry, 3*len(hosts)),
		ptr:     make(map[netip.Addr]string, len(hosts)),
	}
	for _, h := range hosts {
		for _, n := range h.Names {
			if n = trimDot(lower(n)); n != "" {
				e := z.names[n]
				e.add(h.Addrs)
				z.names[n] = e
			}
		}
		z.addPTR(network, h)
	}
	return z
}

func (z *Zone) addPTR(network string, h Host) {
	if len(h.Names) == 0 || h.Names[0] == "" {
		return
	}
	for _, a := range h.Addrs {
		a = a.Unmap().WithZone("")
		if _, taken := z.ptr[a]; !taken && a.IsValid() {
			z.ptr[a] = trimDot(h.Names[0]) + "." + network + "."
		}
	}
}

func (e *entry) add(addrs []netip.Addr) {
	for _, a := range addrs {
		a = a.Unmap().WithZone("")
		switch {
		case !a.IsValid():
		case a.Is4() && !slices.Contains(e.v4, a):
			e.v4 = append(e.v4, a)
		case a.Is6() && !slices.Contains(e.v6, a):
			e.v6 = append(e.v6, a)
		}
	}
}

// qualified looks a name up that ends with the network's own. Both parts may contain dots, so the network's name is
// taken off as a whole instead of cutting at one.
func (z *Zone) qualified(name string) (entry, bool) {
	host, ok := strings.CutSuffix(name, z.network)
	if host, dotted := strings.CutSuffix(host, "."); ok && dotted && z.network != "" {
		e, ok := z.names[host]
		return e, ok
	}
	return entry{}, false
}

// lookup finds a name in the zones: alone first, then with its network's name, so that a container called db.backend
// wins over db on the network backend. The first zone that knows the name answers for it.
func lookup(zones []*Zone, name string) (entry, bool) {
	name = trimDot(lower(name))
	for _, z := range zones {
		if e, ok := z.names[name]; ok {
			return e, true
		}
	}
	for _, z := range zones {
		if e, ok := z.qualified(name); ok {
			return e, true
		}
	}
	return entry{}, false
}

// lookupPTR finds what an address resolves back to; "" when no zone has it.
func lookupPTR(zones []*Zone, a netip.Addr) string {
	for _, z := range zones {
		if target, ok := z.ptr[a]; ok {
			return target
		}
	}
	return ""
}

// lower folds ASCII only: RFC 4343 says that DNS compares no other letters.
func lower(s string) string {
	for i := range len(s) {
		if c := s[i]; c >= 'A' && c <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if b[i] >= 'A' && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

func trimDot(s string) string { return strings.TrimSuffix(s, ".") }

// reverseAddr reads the address out of a name below in-addr.arpa (RFC 1035 section 3.5) or ip6.arpa (RFC 3596 section
// 2.5). Names of whole ranges are not addresses.
func reverseAddr(name string) (netip.Addr, bool) {
	name = trimDot(lower(name))
	if s, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		labels := strings.Split(s, ".")
		slices.Reverse(labels)
		a, err := netip.ParseAddr(strings.Join(labels, "."))
		return a, err == nil && a.Is4()
	}
	s, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(s) != 63 {
		return netip.Addr{}, false
	}
	var text []byte
	for i := 62; i >= 0; i -= 2 {
		if !isHex(s[i]) || i > 0 && s[i-1] != '.' {
			return netip.Addr{}, false
		}
		if text = append(text, s[i]); i%8 == 0 && i > 0 {
			text = append(text, ':')
		}
	}
	a, err := netip.ParseAddr(string(text))
	return a.Unmap(), err == nil
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }

package firewall

import (
	"cmp"
	"slices"

	"github.com/google/nftables"
)

// portSets are the elements of the four maps that translate ports: those of one host address and those of all, single
// ones and ranges.
type portSets struct{ byAddr, rangesByAddr, byPort, rangesByPort []nftables.SetElement }

// portElements give ports their places. A run of ports that keep their numbers is one element, however long it is.
func portElements(ports []Port) portSets {
	var s portSets
	for _, r := range runs(ports) {
		k, err := r.Port.key()
		if err != nil {
			continue
		}
		key := func(port uint16) []byte {
			b := padded([]byte{k.proto})
			if k.ip.IsValid() {
				b = append(b, k.ip.AsSlice()...)
			}
			return append(b, padded(bePort(port))...)
		}
		e := nftables.SetElement{Key: key(k.port), Val: r.Target.Addr().AsSlice()}
		single, ranges := &s.byPort, &s.rangesByPort
		if k.ip.IsValid() {
			single, ranges = &s.byAddr, &s.rangesByAddr
		}
		if r.length > 1 {
			e.KeyEnd = key(k.port + r.length - 1)
			*ranges = append(*ranges, e)
		} else {
			e.Val = append(e.Val, padded(bePort(r.Target.Port()))...)
			*single = append(*single, e)
		}
	}
	return s
}

// run is a port and those that follow it, each at the same number on the same container.
type run struct {
	Port
	length uint16
}

// runs puts ports together that follow each other on both sides without a change of number.
func runs(ports []Port) []run {
	ports = slices.Clone(ports)
	slices.SortStableFunc(ports, func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.HostIP.Compare(b.HostIP), a.Target.Addr().Compare(b.Target.Addr()), cmp.Compare(a.HostPort, b.HostPort))
	})
	var out []run
	for _, p := range ports {
		if n := len(out); n > 0 {
			last := &out[n-1]
			if p.HostPort == p.Target.Port() && last.HostPort == last.Target.Port() && p.Proto == last.Proto && p.HostIP == last.HostIP &&
				p.Target.Addr() == last.Target.Addr() && p.HostPort == last.HostPort+last.length {
				last.length++
				continue
			}
		}
		out = append(out, run{p, 1})
	}
	return out
}

// directElements give the containers' own addresses and ports.
func directElements(ports []Port) []nftables.SetElement {
	ports = slices.Clone(ports)
	for i := range ports { // what the host has to do with it does not matter here
		ports[i].HostIP, ports[i].HostPort = ports[i].Target.Addr(), ports[i].Target.Port()
	}
	slices.SortFunc(ports, func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.Target.Compare(b.Target))
	})
	ports = slices.CompactFunc(ports, func(a, b Port) bool { return a.Proto == b.Proto && a.Target == b.Target })
	var els []nftables.SetElement
	for _, r := range runs(ports) {
		key := func(port uint16) []byte {
			return slices.Concat(padded([]byte{protocols[r.Proto]}), r.Target.Addr().AsSlice(), padded(bePort(port)))
		}
		els = append(els, nftables.SetElement{Key: key(r.HostPort), KeyEnd: key(r.HostPort + r.length - 1)})
	}
	return els
}

package firewall

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
)

// tableName is the one table of ours in the host's namespace.
const tableName = "minictl"

// layout is the whole table in the order it has to be made. It is a pure function of the wish.
type layout struct {
	sets   []filledSet
	chains []filledChain
}

type filledSet struct {
	set      *nftables.Set
	elements []nftables.SetElement
}

type filledChain struct {
	chain *nftables.Chain
	rules [][]expr.Any
}

// plan turns the wish into the table. nil means that there has to be no table.
//
// One table of the inet family serves both IP families, since interface sets and the forward chain are the same for
// both and one table is one transaction. Its NAT chains need Linux 5.2.
func plan(w wish) *layout {
	if w.empty() {
		return nil
	}
	l := &layout{}
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	var bridges *nftables.Set
	if len(w.bridges) > 0 {
		bridges = l.planBridges(table, w)
	}
	if w.guard.port != 0 {
		l.planGuard(table, w.guard, bridges)
	}
	return l
}

// interfaces are the sets of interface names that the rules ask.
type interfaces struct{ bridges, internal, icc, trusted *nftables.Set }

// nat are the sets of one family.
type nat struct {
	fam
	masquerade, neighbours, byAddr, byPort *nftables.Set
	gateways, reach                        *nftables.Set
	rangesByAddr, rangesByPort, sources    *nftables.Set
	open, routed, direct                   *nftables.Set
}

// planBridges gives the set of all bridges.
func (l *layout) planBridges(t *nftables.Table, w wish) *nftables.Set {
	ifs := l.interfaceSets(t, w.sortedBridges())
	var nats []nat
	for _, f := range families {
		nats = append(nats, l.natSets(t, f, w))
	}
	dnat := func() (rules [][]expr.Any) {
		for _, n := range nats {
			// The address is asked first: a port of one address wins over the same port of all.
			rules = append(rules,
				rule(n.only(), local(), n.keyAddr(), n.dnat(n.byAddr)),
				rule(n.only(), local(), n.keyAddr(), n.dnatKeepPort(n.rangesByAddr)),
				rule(n.only(), local(), keyAny(), n.dnat(n.byPort)),
				rule(n.only(), local(), keyAny(), n.dnatKeepPort(n.rangesByPort)))
		}
		return rules
	}
	l.base(t, "guard_loopback", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw,
		loopbackRules(ifs, nats[0])...)
	l.base(t, "publish", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest, dnat()...)
	// Nothing leads ::1 to a container: IPv6 has no route_localnet, and the kernel takes no answer for ::1 from a bridge.
	// What is sent there reaches the socket that holds the port.
	l.base(t, "publish_local", nftables.ChainTypeNAT, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest,
		slices.Concat([][]expr.Any{rule(nats[1].toLoopback6(), accept())}, dnat())...)
	l.regular(t, "to_bridge", toBridgeRules(ifs, nats)...)
	l.base(t, "forward", nftables.ChainTypeFilter, nftables.ChainHookForward, *nftables.ChainPriorityFilter,
		rule(oifIn(ifs.bridges), jump("to_bridge")),
		rule(iifIn(ifs.internal), drop()))
	l.regular(t, "from_bridge", hostRules(ifs, nats)...)
	// Answers to the host come first: it may have asked from any of its addresses.
	l.base(t, "guard_host", nftables.ChainTypeFilter, nftables.ChainHookInput, *nftables.ChainPriorityFilter,
		rule(ctState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept()),
		rule(iifIn(ifs.bridges), jump("from_bridge")))
	l.base(t, "leave", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource,
		leaveRules(ifs, nats)...)
	return ifs.bridges
}

// hostRules judge what a bridge's containers send to the host. From an internal bridge only the gateway's own address is
// reached, and what IPv6 needs to find it; from the others every address of the host but the gateways of other bridges,
// where services may listen that are meant for those networks alone.
func hostRules(ifs interfaces, nats []nat) [][]expr.Any {
	var rules [][]expr.Any
	for _, n := range nats {
		rules = append(rules, rule(n.only(), []expr.Any{meta(expr.MetaKeyIIFNAME, reg1), n.load(n.dst, reg1+1), in(n.reach)}, accept()))
	}
	rules = append(rules,
		rule(iifIn(ifs.internal), nats[1].onLinkOnly(), accept()),
		rule(iifIn(ifs.internal), nats[1].multicast(), accept()),
		rule(iifIn(ifs.internal), drop()))
	for _, n := range nats {
		rules = append(rules, rule(n.only(), []expr.Any{n.load(n.dst, reg1), in(n.gateways)}, drop()))
	}
	return rules
}

// loopbackRules keep 127.0.0.0/8 the host's own. Bridges have route_localnet on, so that 127.0.0.1:PORT can reach a
// container; without the first two rules the containers could reach everything that listens on the host's loopback.
// The third holds even where an administrator turned route_localnet on for the wire. Every packet comes by here: what costs
// least, and is seldom true, is asked first.
func loopbackRules(ifs interfaces, v4 nat) [][]expr.Any {
	return [][]expr.Any{
		rule(v4.loopback(v4.dst), iifIn(ifs.bridges), drop()),
		rule(v4.loopback(v4.src), iifIn(ifs.bridges), drop()),
		rule(v4.loopback(v4.dst), notLoopbackInterface(), v4.keyAddr(), []expr.Any{in(v4.byAddr)}, drop()),
		rule(v4.loopback(v4.dst), notLoopbackInterface(), v4.keyAddr(), []expr.Any{in(v4.rangesByAddr)}, drop()),
	}
}

// toBridgeRules judge what is forwarded to a bridge. Published ports are known by their rewritten destination, so no
// rule per port is needed and a container's own address leads nowhere from outside, unless the bridge's mode or the
// interface it comes by says otherwise.
func toBridgeRules(ifs interfaces, nats []nat) [][]expr.Any {
	rules := [][]expr.Any{
		rule(ctState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept()),
		rule(pairIn(ifs.icc), accept()),
		rule(iifIn(ifs.internal), drop()),
		rule(oifIn(ifs.internal), drop()),
		rule(ctDNAT(), accept()),
	}
	for _, n := range nats {
		rules = append(rules,
			rule(n.only(), oifIn(n.open), accept()),
			rule(oifIn(n.routed), n.icmp(), accept()),
			rule(n.only(), oifIn(n.routed), n.keyAddr(), []expr.Any{in(n.direct)}, accept()),
			rule(n.only(), pairIn(ifs.trusted), n.keyAddr(), []expr.Any{in(n.direct)}, accept()))
	}
	return append(rules, drop())
}

// leaveRules rewrite sources. A container that reaches a published port of its own bridge must see the answer come from
// the host, else the two would talk past the rewritten address; the host's loopback source means nothing to a container.
// Everybody else's source is kept on the way to a bridge.
func leaveRules(ifs interfaces, nats []nat) [][]expr.Any {
	v4 := nats[0]
	var rules [][]expr.Any
	for _, n := range nats {
		// By the source's subnet, not by the interface it came in by: where br_netfilter is on, the kernel bridges such
		// a packet instead of routing it and names no incoming interface.
		rules = append(rules, rule(n.only(), n.oifSource(n.neighbours), ctDNAT(), masquerade()))
	}
	rules = append(rules,
		rule(oifIn(ifs.bridges), v4.loopback(v4.src), masquerade()),
		rule(oifIn(ifs.bridges), accept()))
	for _, n := range nats {
		rules = append(rules,
			rule(n.only(), n.snat(n.sources)),
			rule(n.only(), []expr.Any{n.load(n.src, reg1), in(n.masquerade)}, masquerade()))
	}
	return rules
}

// planGuard keeps the tunnels' port to the members. A container's packets to it never are a member's, even though they
// would carry the host's address once they have left by masquerading: they are dropped here and on their way out. What
// members send each other is not tracked: no answer ever comes by a tunnel packet's own ports, so that a table would hold
// a useless row for each of the containers' connections, and be asked for every packet.
func (l *layout) planGuard(t *nftables.Table, g guard, bridges *nftables.Set) {
	var rules, leaving, sent, received [][]expr.Any
	if bridges != nil {
		rules = append(rules, rule(udpTo(g.port), iifIn(bridges), drop()))
	}
	for _, f := range families {
		s := &nftables.Set{Table: t, Name: "members" + f.suffix, KeyType: f.typ}
		var els []nftables.SetElement
		for _, m := range sortedAddrs(g.members) {
			if f.holds(m) {
				els = append(els, nftables.SetElement{Key: m.AsSlice()})
			}
		}
		l.set(s, els)
		rules = append(rules, rule(f.only(), udpTo(g.port), []expr.Any{f.load(f.src, reg1), notIn(s)}, drop()))
		if bridges != nil {
			leaving = append(leaving, rule(f.only(), udpTo(g.port), []expr.Any{f.load(f.dst, reg1), in(s)}, iifIn(bridges), drop()))
		}
		received = append(received, rule(f.only(), udpTo(g.port), []expr.Any{f.load(f.src, reg1), in(s)}, local(), notrack()))
		sent = append(sent, rule(f.only(), udpTo(g.port), []expr.Any{f.load(f.dst, reg1), in(s)}, notrack()))
	}
	// At input, not before routing: fragments are whole again here, and tunnels that this host only forwards are
	// not its own.
	l.base(t, "guard_tunnel", nftables.ChainTypeFilter, nftables.ChainHookInput, *nftables.ChainPriorityRaw, rules...)
	l.base(t, "tunnel_received", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw, received...)
	l.base(t, "tunnel_sent", nftables.ChainTypeFilter, nftables.ChainHookOutput, *nftables.ChainPriorityRaw, sent...)
	if bridges != nil {
		l.base(t, "guard_members", nftables.ChainTypeFilter, nftables.ChainHookForward, *nftables.ChainPriorityRaw, leaving...)
	}
}

func (l *layout) interfaceSets(t *nftables.Table, bridges []Bridge) interfaces {
	pair := nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIFName)
	one := func(name string, keep func(Bridge) bool) *nftables.Set {
		s := &nftables.Set{Table: t, Name: name, KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian}
		return l.set(s, namesOf(bridges, keep, 1))
	}
	two := func(name string, keep func(Bridge) bool) *nftables.Set {
		s := &nftables.Set{Table: t, Name: name, KeyType: pair, Concatenation: true}
		return l.set(s, namesOf(bridges, keep, 2))
	}
	all := func(Bridge) bool { return true }
	return interfaces{
		bridges:  one("bridges", all),
		internal: one("internal", func(b Bridge) bool { return b.Internal }),
		icc:      two("icc", func(b Bridge) bool { return b.ICC }),
		trusted:  l.set(&nftables.Set{Table: t, Name: "trusted", KeyType: pair, Concatenation: true}, trustedElements(bridges)),
	}
}

// trustedElements give each trusted interface with the bridge that trusts it.
func trustedElements(bridges []Bridge) []nftables.SetElement {
	var els []nftables.SetElement
	for _, b := range bridges {
		for _, from := range slices.Compact(slices.Sorted(slices.Values(b.Trusted))) {
			els = append(els, nftables.SetElement{Key: slices.Concat(ifname(from), ifname(b.Interface))})
		}
	}
	return els
}

// namesOf gives elements of the interface names, each repeated as often as the key has fields.
func namesOf(bridges []Bridge, keep func(Bridge) bool, times int) []nftables.SetElement {
	var els []nftables.SetElement
	for _, b := range bridges {
		if keep(b) {
			els = append(els, nftables.SetElement{Key: slices.Repeat(ifname(b.Interface), times)})
		}
	}
	return els
}

func (l *layout) natSets(t *nftables.Table, f fam, w wish) nat {
	target := nftables.MustConcatSetType(f.typ, nftables.TypeInetService)
	bridges := w.sortedBridges()
	translated, direct := w.portsOf(f)
	els := portElements(translated)
	names := func(name string, mode Mode) *nftables.Set {
		s := &nftables.Set{Table: t, Name: name + f.suffix, KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian}
		return l.set(s, namesOf(bridges, func(b Bridge) bool { return b.mode(f) == mode && !b.Internal }, 1))
	}
	ranges := func(name string, els []nftables.SetElement, key ...nftables.SetDatatype) *nftables.Set {
		return l.set(&nftables.Set{Table: t, Name: name + f.suffix, IsMap: true, Concatenation: true, Interval: true,
			KeyType: nftables.MustConcatSetType(key...), DataType: f.typ}, els)
	}
	concat := func(name string, els []nftables.SetElement, key ...nftables.SetDatatype) *nftables.Set {
		return l.set(&nftables.Set{Table: t, Name: name + f.suffix, IsMap: true, Concatenation: true,
			KeyType: nftables.MustConcatSetType(key...), DataType: target}, els)
	}
	return nat{
		fam: f,
		masquerade: l.set(&nftables.Set{Table: t, Name: "masquerade" + f.suffix, KeyType: f.typ, Interval: true},
			rangeElements(disjoint(f, masqueraded(f, bridges)))),
		sources: l.set(&nftables.Set{Table: t, Name: "sources" + f.suffix, KeyType: f.typ, Interval: true, IsMap: true, DataType: f.typ},
			sourceElements(f, bridges)),
		neighbours: l.set(&nftables.Set{Table: t, Name: "neighbours" + f.suffix, Interval: true, Concatenation: true,
			KeyType: nftables.MustConcatSetType(nftables.TypeIFName, f.typ)}, neighbourElements(f, bridges)),
		gateways: l.set(&nftables.Set{Table: t, Name: "gateways" + f.suffix, KeyType: f.typ}, gatewayElements(f, bridges)),
		reach: l.set(&nftables.Set{Table: t, Name: "reach" + f.suffix, Concatenation: true,
			KeyType: nftables.MustConcatSetType(nftables.TypeIFName, f.typ)}, reachElements(f, bridges)),
		byAddr:       concat("address_ports", els.byAddr, nftables.TypeInetProto, f.typ, nftables.TypeInetService),
		rangesByAddr: ranges("address_port_ranges", els.rangesByAddr, nftables.TypeInetProto, f.typ, nftables.TypeInetService),
		byPort:       concat("ports", els.byPort, nftables.TypeInetProto, nftables.TypeInetService),
		rangesByPort: ranges("port_ranges", els.rangesByPort, nftables.TypeInetProto, nftables.TypeInetService),
		open:         names("open", Unprotected),
		routed:       names("routed", Routed),
		direct: l.set(&nftables.Set{Table: t, Name: "direct" + f.suffix, Interval: true, Concatenation: true,
			KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, f.typ, nftables.TypeInetService)}, directElements(direct)),
	}
}

// portsOf gives the ports of a family that are translated, and those that are reached at the containers' own addresses.
func (w wish) portsOf(f fam) (translated, direct []Port) {
	for _, p := range w.activePorts() {
		p.Target = netip.AddrPortFrom(p.Target.Addr().Unmap(), p.Target.Port())
		if _, err := p.key(); err != nil || !f.holds(p.Target.Addr()) {
			continue
		}
		b := w.bridges[p.Bridge]
		if b.mode(f) != Routed && p.HostPort != 0 {
			translated = append(translated, p)
		}
		if b.mode(f) == Routed || len(b.Trusted) > 0 {
			direct = append(direct, p)
		}
	}
	return translated, direct
}

// sourceElements give the address that packets of a bridge's subnets leave with.
func sourceElements(f fam, bridges []Bridge) []nftables.SetElement {
	var els []nftables.SetElement
	for _, b := range bridges {
		for _, a := range b.Sources {
			if !f.holds(a) {
				continue
			}
			for _, e := range rangeElements(disjoint(f, masqueraded(f, []Bridge{b}))) {
				if !e.IntervalEnd {
					e.Val = a.AsSlice()
				}
				els = append(els, e)
			}
		}
	}
	return els
}

// neighbourElements give each bridge's interface with each of its subnets: where a packet from there, going there, is
// one between neighbours.
func neighbourElements(f fam, bridges []Bridge) []nftables.SetElement {
	var els []nftables.SetElement
	for _, b := range bridges {
		for _, p := range disjoint(f, b.Subnets) {
			els = append(els, nftables.SetElement{
				Key:    slices.Concat(ifname(b.Interface), p.Addr().AsSlice()),
				KeyEnd: slices.Concat(ifname(b.Interface), lastOf(p).AsSlice()),
			})
		}
	}
	return els
}

// gatewayElements are the host's addresses on the bridges.
func gatewayElements(f fam, bridges []Bridge) []nftables.SetElement {
	var all []netip.Addr
	for _, b := range bridges {
		all = append(all, b.Gateways...)
	}
	var els []nftables.SetElement
	for _, a := range sortedAddrs(all) {
		if f.holds(a) {
			els = append(els, nftables.SetElement{Key: a.AsSlice()})
		}
	}
	return els
}

// reachElements say which of them each bridge's containers reach: its own, and those that stand for the host.
func reachElements(f fam, bridges []Bridge) []nftables.SetElement {
	var els []nftables.SetElement
	for _, from := range bridges {
		var to []netip.Addr
		for _, b := range bridges {
			if b.Interface == from.Interface || b.Shared && !from.Internal {
				to = append(to, b.Gateways...)
			}
		}
		for _, a := range sortedAddrs(to) {
			if f.holds(a) {
				els = append(els, nftables.SetElement{Key: slices.Concat(ifname(from.Interface), a.AsSlice())})
			}
		}
	}
	return els
}

func masqueraded(f fam, bridges []Bridge) []netip.Prefix {
	var all []netip.Prefix
	for _, b := range bridges {
		if b.Masquerade && !b.Internal && b.mode(f) != Routed {
			all = append(all, b.Subnets...)
		}
	}
	return all
}

// disjoint gives the family's prefixes in order, without those inside another: the kernel refuses overlapping intervals.
func disjoint(f fam, prefixes []netip.Prefix) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range prefixes {
		if p.IsValid() && f.holds(p.Addr()) {
			all = append(all, p.Masked())
		}
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var out []netip.Prefix
	for _, p := range all {
		if len(out) == 0 || !out[len(out)-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}

// rangeElements gives the interval elements of prefixes: each first address, and the address after each last one marked
// as an end.
func rangeElements(prefixes []netip.Prefix) []nftables.SetElement {
	var els []nftables.SetElement
	for _, p := range prefixes {
		els = append(els, nftables.SetElement{Key: p.Addr().AsSlice()})
		if after := lastOf(p).Next(); after.IsValid() {
			els = append(els, nftables.SetElement{Key: after.AsSlice(), IntervalEnd: true})
		}
	}
	return els
}

// lastOf gives the highest address of p.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := range b {
		switch host := (i+1)*8 - p.Bits(); {
		case host >= 8:
			b[i] = 0xff
		case host > 0:
			b[i] |= 1<<host - 1
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func sortedAddrs(in []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range in {
		if a.IsValid() {
			out = append(out, a.Unmap().WithZone(""))
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func (l *layout) set(s *nftables.Set, els []nftables.SetElement) *nftables.Set {
	// The library numbers sets from a package variable that nobody guards; numbers of our own, counted within one
	// transaction, keep plans equal and safe to make at the same time.
	s.ID = uint32(len(l.sets) + 1)
	l.sets = append(l.sets, filledSet{s, els})
	return s
}

func (l *layout) regular(t *nftables.Table, name string, rules ...[]expr.Any) {
	l.chains = append(l.chains, filledChain{&nftables.Chain{Table: t, Name: name}, rules})
}

// base adds a chain at a hook. Its policy is accept: the table judges its own interfaces and leaves the rest alone.
func (l *layout) base(t *nftables.Table, name string, typ nftables.ChainType, hook *nftables.ChainHook,
	priority nftables.ChainPriority, rules ...[]expr.Any) {
	policy := nftables.ChainPolicyAccept
	l.chains = append(l.chains, filledChain{&nftables.Chain{Table: t, Name: name, Type: typ, Hooknum: hook,
		Priority: &priority, Policy: &policy}, rules})
}

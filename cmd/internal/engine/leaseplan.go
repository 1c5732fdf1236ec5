package engine

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/minictl/minictl/netdriver/ipam"
)

// leaseFacts are what is known of one global network's addresses.
type leaseFacts struct {
	self   string
	held   map[netip.Addr]lease // as the cluster has decided
	uses   map[netip.Addr]lease // what this host's containers have, or keep for their life
	spares map[netip.Addr]lease // this host's list
	busy   func(container string) bool
	pools  []ipam.Pool
	size   func(ipam.Pool) int // of the pool's reserve, as it should be
	side   string              // see Engine.side
}

// leaseStep is one step towards what should be. Each is one transaction, on the condition that the key has not changed,
// with what must be struck off the list before it and noted on it after.
type leaseStep struct {
	addr   netip.Addr
	put    *lease // nil: delete the key
	strike bool   // off the list before
	note   bool   // on the list, free, after
	settle bool   // off the list after: it is an address like any other now
	only   bool   // nothing to decide: the list alone is wrong
}

// leaseClash is an address that a container of this host has and the cluster has given to another.
type leaseClash struct {
	addr        netip.Addr
	mine, other lease
}

// planLeases compares. What a container in the middle of a step is about stays as it is.
func planLeases(f leaseFacts) (steps []leaseStep, clashes []leaseClash) {
	addrs := map[netip.Addr]bool{}
	for _, m := range []map[netip.Addr]lease{f.held, f.uses, f.spares} {
		for a := range m {
			addrs[a] = true
		}
	}
	var free []netip.Addr // spares as they will be
	for _, a := range slices.SortedFunc(maps.Keys(addrs), netip.Addr.Compare) {
		h, decided := f.held[a]
		use, used := f.uses[a]
		spare, listed := f.spares[a]
		mine := decided && h.Node == f.self
		switch {
		case !used && !listed && !mine:
		case f.busy(use.Container) || f.busy(spare.Container) || mine && f.busy(h.Container):
		case used && decided && !mine:
			clashes = append(clashes, leaseClash{a, use, h})
		case used && mine && h.same(use):
			if listed {
				steps = append(steps, leaseStep{addr: a, only: true, settle: true})
			}
		case used:
			use.Node = f.self
			steps = append(steps, leaseStep{addr: a, put: &use, settle: listed})
		case listed && !mine: // the network or this host was removed meanwhile
			steps = append(steps, leaseStep{addr: a, only: true, strike: true})
		case listed || h.spare():
			free = append(free, a)
		default:
			steps = append(steps, leaseStep{addr: a})
		}
	}
	for _, pool := range f.pools {
		steps = append(steps, planReserve(f, pool, free)...)
	}
	return append(steps, withdraw(f, free)...), clashes
}

// withdraw gives back the spares that are in none of the network's pools.
func withdraw(f leaseFacts, free []netip.Addr) (steps []leaseStep) {
	for _, a := range free {
		in := func(p ipam.Pool) bool { _, ok := p.Holding(a); return ok }
		if _, listed := f.spares[a]; !slices.ContainsFunc(f.pools, in) {
			steps = append(steps, leaseStep{addr: a, strike: listed})
		}
	}
	return steps
}

// planReserve brings a pool's reserve to its size. Of too many the lowest are given back: they are what the next container
// gets, as if they had never been set aside.
func planReserve(f leaseFacts, pool ipam.Pool, all []netip.Addr) (steps []leaseStep) {
	var free []netip.Addr
	for _, a := range all {
		if _, in := pool.Holding(a); in {
			free = append(free, a)
		}
	}
	size := f.size(pool)
	extra := max(len(free)-size, 0)
	for i, a := range free {
		_, listed := f.spares[a]
		switch {
		case i < extra:
			steps = append(steps, leaseStep{addr: a, strike: listed})
		case listed && f.held[a].spare() && !f.spares[a].taken():
		default: // written again even if it is one already: a deletion that is late must not hit it
			steps = append(steps, leaseStep{addr: a, put: &lease{Node: f.self}, note: true})
		}
	}
	taken := func(a netip.Addr) bool {
		_, held := f.held[a]
		_, used := f.uses[a]
		_, listed := f.spares[a]
		return held || used || listed
	}
	chosen := map[netip.Addr]bool{}
	for range max(size-len(free), 0) {
		a, err := nextSpare(pool, f.side, func(a netip.Addr) bool { return taken(a) || chosen[a] })
		if err != nil {
			break // full: a smaller reserve, or none
		}
		chosen[a] = true
		steps = append(steps, leaseStep{addr: a, put: &lease{Node: f.self}, note: true})
	}
	return steps
}

// nextSpare is where nobody comes to soon, on whatever side.
func nextSpare(pool ipam.Pool, side string, used func(netip.Addr) bool) (netip.Addr, error) {
	if side != "" {
		return pool.Apart(side, used)
	}
	return pool.Highest(used)
}

package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/netdriver/ipam"
)

// A host's reserve on a global network are addresses that the cluster has given to it before they are needed: keys like
// any other lease's, with nobody behind them. While nobody decides, this host gives them to its containers, and keeps
// what these give back.
//
// Two hosts can never give the same address, because only its owner takes a lease's key away, and it strikes the address
// off its own list, spares, before it does. So at every moment, whatever was lost or is late on the way: what is on the
// list is this host's in the store.

// spares is this host's list, in its own state.
type spares struct {
	mu    sync.Mutex
	state *state
	nets  map[string]*spareNet // by network ID; one without addresses: known, and nothing set aside
}

// spareNet is the list of one network.
type spareNet struct {
	Node  string               `json:"node"`            // whose: this host was somebody else before it left a cluster
	Addrs map[netip.Addr]lease `json:"addrs,omitempty"` // with a container: it has the address now
}

func openSpares(st *state) (*spares, error) {
	s := &spares{state: st, nets: map[string]*spareNet{}}
	err := st.eachKey("reserves", func(id string, b []byte) error {
		n := &spareNet{}
		s.nets[id] = n
		return json.Unmarshal(b, n)
	})
	if err != nil {
		return nil, fmt.Errorf("read this host's reserves: %w", err)
	}
	return s, nil
}

// of gives the list of a network; nil if there is none of this node. s.mu must be held.
func (s *spares) of(node, networkID string) *spareNet {
	if n := s.nets[networkID]; n != nil && n.Node == node {
		return n
	}
	return nil
}

// change replaces one network's list by what fn makes of a copy, on disk first: what was struck off must not come back.
func (s *spares) change(node, networkID string, fn func(addrs map[netip.Addr]lease)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changeLocked(node, networkID, fn)
}

func (s *spares) changeLocked(node, networkID string, fn func(addrs map[netip.Addr]lease)) error {
	next := &spareNet{Node: node, Addrs: map[netip.Addr]lease{}}
	old := s.of(node, networkID)
	if old != nil {
		maps.Copy(next.Addrs, old.Addrs)
	}
	fn(next.Addrs)
	if old != nil && maps.Equal(old.Addrs, next.Addrs) {
		return nil
	}
	if err := s.state.put("reserves", networkID, next); err != nil {
		return fmt.Errorf("keep this host's reserve: %w", err)
	}
	s.nets[networkID] = next
	return nil
}

// list copies a network's list. ok is false if this node never had one.
func (s *spares) list(node, networkID string) (addrs map[netip.Addr]lease, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.of(node, networkID)
	if n == nil {
		return nil, false
	}
	return maps.Clone(n.Addrs), true
}

// forget drops the lists of networks that are no more.
func (s *spares) forget(known func(node, networkID string) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, n := range s.nets {
		if known(n.Node, id) {
			continue
		}
		if err := s.state.delete("reserves", id); err != nil {
			return fmt.Errorf("forget the reserve of a removed network: %w", err)
		}
		delete(s.nets, id)
	}
	return nil
}

// take gives a free address of a pool out of the list, the asked one or the lowest. ok is false if there is none.
func (s *spares) take(node, networkID string, pool ipam.Pool, asked netip.Addr, l lease) (a netip.Addr, ok bool, err error) {
	err = s.change(node, networkID, func(addrs map[netip.Addr]lease) {
		for _, free := range slices.SortedFunc(maps.Keys(addrs), netip.Addr.Compare) {
			holder := addrs[free]
			if _, in := pool.Holding(free); !in {
				continue
			}
			if asked.IsValid() && (free != asked || holder.taken() && holder.Container != l.Container) || !asked.IsValid() && holder.taken() {
				continue
			}
			addrs[free] = l
			a, ok = free, true
			return
		}
	})
	return a, ok && err == nil, err
}

// strike takes an address off the list if it still is there as it was seen. False if not: then its key must stay as it
// is.
func (s *spares) strike(node, networkID string, a netip.Addr, seen lease) bool {
	same := false
	err := s.change(node, networkID, func(addrs map[netip.Addr]lease) {
		now, listed := addrs[a]
		if same = !listed || now == seen; same {
			delete(addrs, a)
		}
	})
	return same && err == nil
}

// claim has an address whose key a container is to have, or has, taken by nobody else of this host. False if one of them has
// it already.
func (s *spares) claim(node, networkID string, a netip.Addr, container string) (ok bool) {
	err := s.change(node, networkID, func(addrs map[netip.Addr]lease) {
		if now := addrs[a]; now.taken() {
			ok = now.Container == container
			return
		}
		delete(addrs, a)
		ok = true
	})
	return ok && err == nil
}

// giveBack ends an endpoint's, or a container's, use of an address on the list. ok is false if it is not on it.
func (s *spares) giveBack(node, networkID string, a netip.Addr, end func(lease) (lease, bool)) (ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.of(node, networkID)
	if n == nil || !n.Addrs[a].taken() {
		return false
	}
	next, concerned := end(n.Addrs[a])
	if !concerned {
		return false
	}
	if !next.Static && next.Endpoint == "" {
		next = lease{}
	}
	return s.changeLocked(node, networkID, func(addrs map[netip.Addr]lease) { addrs[a] = next }) == nil
}

// takeSpare gives an address without asking anybody.
func (e *Engine) takeSpare(ctx context.Context, n *Network, pool ipam.Pool, asked netip.Addr, l lease) (netip.Addr, bool) {
	e.adoptReserve(ctx, n.ID, l.Node)
	if asked.IsValid() && e.keptHere(ctx, n, asked, l) {
		return asked, true
	}
	a, ok, err := e.spares.take(l.Node, n.ID, pool, asked, l)
	if err != nil {
		e.log.Error("use this host's reserve", "network", n.Name, "err", err)
	}
	if ok {
		e.log.Info("gave an address out of this host's reserve", "network", n.Name, "address", a, "container", l.Container)
		e.wakeReconcile()
	}
	return a, ok
}

// keptHere tells whether the cluster keeps an address for this container already: an endpoint of it may use it without asking
// again. Who asks for the address only now may have given it back, which the others know, or will, before this host does;
// and one that is on the list was given back, and may be another's.
func (e *Engine) keptHere(ctx context.Context, n *Network, a netip.Addr, l lease) bool {
	list, _ := e.spares.list(l.Node, n.ID)
	if _, listed := list[a]; listed || l.Endpoint == "" {
		return false
	}
	held, err := e.leasesOf(ctx, n.ID, false)
	h := held[a]
	return err == nil && h.Static && h.Node == l.Node && h.Container == l.Container
}

// adoptReserve makes what the cluster has set aside for this host its list, the first time it hears of a network. Only
// then its replica can be trusted alone: it has never given anything of it back.
func (e *Engine) adoptReserve(ctx context.Context, networkID, node string) {
	if _, known := e.spares.list(node, networkID); known {
		return
	}
	held, err := e.leasesOf(ctx, networkID, false)
	if err != nil {
		return
	}
	err = e.spares.change(node, networkID, func(addrs map[netip.Addr]lease) {
		for a, l := range held {
			if l.Node == node && l.spare() {
				addrs[a] = lease{}
			}
		}
	})
	if err != nil {
		e.log.Error("keep this host's reserve", "network", networkID, "err", err)
	}
}

// returnSpare takes back an address of the list, or, while nobody decides, puts one on it that the endpoint had from the
// cluster: its key is this host's, and nobody has been asked to delete it.
func (e *Engine) returnSpare(ctx context.Context, networkID string, a netip.Addr, undecided bool, end func(lease) (lease, bool)) bool {
	node := string(e.cl.Self().ID)
	if e.spares.giveBack(node, networkID, a, end) {
		e.wakeReconcile()
		return true
	}
	if !undecided {
		return false
	}
	held, err := e.leasesOf(ctx, networkID, false)
	h, ok := held[a]
	if err != nil || !ok || h.Node != node {
		return false
	}
	next, concerned := end(h)
	if !concerned || next.Static {
		return concerned // stays the container's
	}
	e.adoptReserve(ctx, networkID, node)
	err = e.spares.change(node, networkID, func(addrs map[netip.Addr]lease) { addrs[a] = lease{} })
	return err == nil
}

// setAside are the transaction's additions that give every host its reserve on a new network.
func (e *Engine) setAside(n *Network) map[netip.Addr]lease {
	out := map[netip.Addr]lease{}
	if n.IPAM != "" {
		return out
	}
	members, side, has := e.hosts(), e.side(), e.known(n)
	for _, pool := range ipam.Pools(n.Subnets) {
		k := pool.ReserveSize(len(members))
		for _, m := range members {
			for range k {
				a, err := nextSpare(pool, side, func(a netip.Addr) bool { _, ok := out[a]; return ok || has[a] })
				if err != nil {
					break // full: a smaller reserve, or none
				}
				out[a] = lease{Node: string(m.ID)}
			}
		}
	}
	return out
}

// known are the addresses of a network that containers have as far as this host has heard: of one that is brought from another
// side the cluster knows nothing yet.
func (e *Engine) known(n *Network) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, b := range e.all() {
		for a := range e.usesOf(b, []*Network{n})[n.ID] {
			out[a] = true
		}
	}
	for _, r := range e.cl.Records(n.ID) {
		for _, p := range r.Addresses() {
			out[p.Addr()] = true
		}
	}
	return out
}

// hosts are the members that run containers.
func (e *Engine) hosts() []cluster.Member {
	return slices.DeleteFunc(e.cl.Members(), func(m cluster.Member) bool { return m.Witness })
}

// reserveWords says what is set aside on a network: for people, and for network inspect.
func reserveWords(held map[netip.Addr]lease, name func(node string) string) map[string][]netip.Addr {
	out := map[string][]netip.Addr{}
	for _, a := range slices.SortedFunc(maps.Keys(held), netip.Addr.Compare) {
		if l := held[a]; l.spare() {
			out[name(l.Node)] = append(out[name(l.Node)], a)
		}
	}
	return out
}

func parseAddressKey(key string) (networkID string, a netip.Addr, err error) {
	networkID, ip, _ := strings.Cut(strings.TrimPrefix(key, keyAddress), "/")
	a, err = netip.ParseAddr(ip)
	return networkID, a, err
}

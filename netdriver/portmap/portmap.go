// Package portmap hands out the host's ports and holds them: each port is bound by a socket of this process for as long
// as it is reserved, so that neither another container nor a foreign process can take it.
//
// Packets are redirected before they would reach one of these sockets; where that cannot be, see Relay.
package portmap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
)

// Request asks for one port of the host. HostIP invalid means every address of both families; 0.0.0.0 and :: mean every
// address of one family.
type Request struct {
	Proto  string // tcp, udp or sctp
	HostIP netip.Addr
	// First and Last bound the choice, and the first free port is taken; 0, 0 takes one of the range that
	// net.ipv4.ip_local_port_range says, in turn.
	First, Last   uint16
	ContainerPort uint16
}

// Allocator knows who holds which port of the network namespace it is used in. Its methods may be called from any
// goroutine.
type Allocator struct {
	mu   sync.Mutex
	held map[slot][]claim
	bind binder
	last map[string]uint16 // the port given last out of the local range, by protocol

	relay relay
}

// slot is what claims compete for.
type slot struct {
	proto string
	port  uint16
}

type claim struct {
	owner string
	ip    netip.Addr
	socks []socket
}

// New gives an Allocator that holds nothing.
func New() *Allocator {
	return &Allocator{held: map[slot][]claim{}, last: map[string]uint16{}}
}

// Reserve takes a port for each request, or none at all. A port that is taken is errdefs.ErrAlreadyExists, in docker's
// words and with the owner's name; an address that is not this host's is errdefs.ErrInvalidArgument.
func (a *Allocator) Reserve(ctx context.Context, owner string, reqs []Request) ([]netdriver.PortMapping, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var got []netdriver.PortMapping
	for _, r := range reqs {
		m, err := a.reserve(ctx, owner, r)
		if err != nil {
			for _, m := range got {
				a.drop(slot{m.Proto, m.HostPort}, func(c claim) bool { return c.owner == owner && c.ip == m.HostIP })
			}
			return nil, err
		}
		got = append(got, m)
	}
	return got, nil
}

// Restore takes ports that the owner already had, after this process was started again. It holds what it can and notes
// all of them, since they are in use whatever happens; the error names the ports that a foreign process took meanwhile.
func (a *Allocator) Restore(owner string, ports []netdriver.PortMapping) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, m := range ports {
		s := slot{m.Proto, m.HostPort}
		if m.HostPort == 0 || a.has(s, owner, m.HostIP) { // 0: open at the container's own address
			continue
		}
		socks, err := a.bind.hold(m.Proto, m.HostIP, m.HostPort)
		if err != nil {
			errs = append(errs, fmt.Errorf("hold port %s again: %w", show(m.HostIP, m.HostPort), err))
		}
		a.held[s] = append(a.held[s], claim{owner, m.HostIP, socks})
		a.recall(m.Proto, m.HostPort)
	}
	return errors.Join(errs...)
}

// Rename gives an owner's ports to another name of it.
func (a *Allocator) Rename(old, owner string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, claims := range a.held {
		for i := range claims {
			if claims[i].owner == old {
				claims[i].owner = owner
			}
		}
	}
}

// Release gives up every port of an owner.
func (a *Allocator) Release(owner string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for s := range a.held {
		a.drop(s, func(c claim) bool { return c.owner == owner })
	}
}

func (a *Allocator) reserve(ctx context.Context, owner string, r Request) (netdriver.PortMapping, error) {
	ports, err := a.candidates(r)
	if err != nil {
		return netdriver.PortMapping{}, err
	}
	var refused error
	for port := range ports {
		if err := ctx.Err(); err != nil {
			return netdriver.PortMapping{}, err
		}
		err := a.take(owner, r, port)
		if err == nil {
			if r.First == 0 {
				a.last[r.Proto] = port
			}
			return netdriver.PortMapping{Proto: r.Proto, HostIP: r.HostIP, HostPort: port,
				ContainerPort: r.ContainerPort}, nil
		}
		if !errdefs.IsAlreadyExists(err) {
			return netdriver.PortMapping{}, err
		}
		refused = err
	}
	if r.First != 0 && r.First == r.Last {
		return netdriver.PortMapping{}, refused
	}
	return netdriver.PortMapping{}, errdefs.ErrResourceExhausted.WithMessage(
		fmt.Sprintf("all %s ports of %s are allocated: last tried: %v", r.Proto, describe(r), refused))
}

// take claims one port, or says who has it.
func (a *Allocator) take(owner string, r Request, port uint16) error {
	s := slot{r.Proto, port}
	for _, c := range a.held[s] {
		if overlap(c.ip, r.HostIP) {
			return errdefs.ErrAlreadyExists.WithMessage(fmt.Sprintf(
				"Bind for %s failed: port is already allocated: %s holds it", show(r.HostIP, port), c.owner))
		}
	}
	socks, err := a.bind.hold(r.Proto, r.HostIP, port)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		who := cmp.Or(holder(r.Proto, r.HostIP, port), "a process of this host")
		return errdefs.ErrAlreadyExists.WithMessage(fmt.Sprintf("Bind for %s failed: port is already allocated: "+
			"%s holds it, see ss -anp 'sport = :%d'", show(r.HostIP, port), who, port))
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(
			"Bind for %s failed: this host does not have that address", show(r.HostIP, port)))
	case err != nil:
		return fmt.Errorf("Bind for %s failed: %w", show(r.HostIP, port), err)
	}
	a.held[s] = append(a.held[s], claim{owner, r.HostIP, socks})
	return nil
}

func (a *Allocator) has(s slot, owner string, ip netip.Addr) bool {
	for _, c := range a.held[s] {
		if c.owner == owner && c.ip == ip {
			return true
		}
	}
	return false
}

// drop closes and forgets the claims on s that match.
func (a *Allocator) drop(s slot, match func(claim) bool) {
	var keep []claim
	for _, c := range a.held[s] {
		if match(c) {
			a.relay.drop(c.socks)
			closeAll(c.socks)
		} else {
			keep = append(keep, c)
		}
	}
	if a.held[s] = keep; len(keep) == 0 {
		delete(a.held, s)
	}
}

// overlap tells whether two host addresses would compete for a packet.
func overlap(x, y netip.Addr) bool {
	x, y = x.Unmap(), y.Unmap()
	switch {
	case !x.IsValid() || !y.IsValid():
		return true
	case x.Is4() != y.Is4():
		return false
	}
	return x == y || x.IsUnspecified() || y.IsUnspecified()
}

func show(ip netip.Addr, port uint16) string {
	if !ip.IsValid() {
		ip = netip.IPv4Unspecified()
	}
	return netip.AddrPortFrom(ip, port).String()
}

func describe(r Request) string {
	if r.First == 0 {
		return "the local port range"
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

func closeAll(socks []socket) {
	for _, s := range socks {
		_ = s.Close() // nothing was ever written to it
	}
}

package overlay

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/ipam"
	"github.com/minictl/minictl/netdriver/nl"
	"github.com/minictl/minictl/netdriver/sandbox"
)

// wish is what the rows of a tunnel device follow from.
type wish struct {
	peers []netdriver.Peer
	local []netip.Addr // addresses of endpoints on this host
	self  netip.Addr   // this host's data-path address
}

// rows are the two tables of a tunnel device: which host a MAC is behind, and which MAC an address has.
type rows struct {
	fdb        []nl.Row
	neighbours []nl.Row
}

// plan is what leads from fact to wish. Writes replace, so a row that only changes needs no removal.
type plan struct {
	setFDB, deleteFDB               []nl.Row
	setNeighbours, deleteNeighbours []nl.Row
}

// derive gives the rows a wish asks for. A local endpoint wins over a remote one that is said to have its address:
// the record of a moved address is late, the local endpoint is not. Of two peers with one address, or one MAC, the
// first in order of address, MAC and host is taken, the same on every host. Peers that cannot be written (no MAC, no
// host, or this host) are passed over.
func derive(w wish) rows {
	peers := slices.Clone(w.peers)
	slices.SortFunc(peers, func(a, b netdriver.Peer) int {
		return cmp.Or(a.Address.Compare(b.Address), bytes.Compare(a.MAC, b.MAC), a.VTEP.Compare(b.VTEP))
	})
	macs, addrs := make(map[nl.HardwareAddr]bool), make(map[netip.Addr]bool)
	for _, a := range w.local {
		addrs[a] = true
	}
	var r rows
	for _, p := range peers {
		mac, ok := nl.MAC(p.MAC)
		addr, host := p.Address.Unmap(), p.VTEP.Unmap()
		// A tunnel is of one family: a host that speaks the other only cannot be reached.
		if !ok || !addr.IsValid() || !host.IsValid() || host == w.self || host.Is4() != w.self.Is4() || addrs[addr] {
			continue
		}
		addrs[addr] = true
		r.neighbours = append(r.neighbours, nl.Row{Address: addr, MAC: mac, Permanent: true})
		if !macs[mac] {
			macs[mac] = true
			r.fdb = append(r.fdb, nl.Row{Address: host, MAC: mac, Permanent: true})
		}
	}
	return r
}

// without gives the rows that stay while no peers have been stated: all but the neighbour rows of local endpoints.
func without(have rows, local []netip.Addr) rows {
	r := rows{fdb: have.fdb}
	for _, n := range have.neighbours {
		if !slices.Contains(local, n.Address) {
			r.neighbours = append(r.neighbours, n)
		}
	}
	return r
}

// diff plans the way from the kernel's rows to the wished ones.
func diff(want, have rows) plan {
	var p plan
	p.setFDB, p.deleteFDB = compare(want.fdb, have.fdb, func(r nl.Row) nl.HardwareAddr { return r.MAC })
	p.setNeighbours, p.deleteNeighbours = compare(want.neighbours, have.neighbours, func(r nl.Row) netip.Addr { return r.Address })
	return p
}

// compare plans one table. A key with several rows in the kernel (a MAC behind several hosts) is cleared of all but
// the right one first, since a replace takes the place of one row only.
func compare[K comparable](want, have []nl.Row, key func(nl.Row) K) (set, del []nl.Row) {
	wanted := make(map[K]nl.Row, len(want))
	for _, r := range want {
		wanted[key(r)] = r
	}
	count, right := make(map[K]int, len(have)), make(map[K]bool, len(have))
	for _, r := range have {
		count[key(r)]++
		right[key(r)] = right[key(r)] || r == wanted[key(r)]
	}
	for _, r := range have {
		w, ok := wanted[key(r)]
		if !ok || r != w && count[key(r)] > 1 {
			del = append(del, r)
		}
	}
	for _, r := range want {
		if !right[key(r)] {
			set = append(set, r)
		}
	}
	return set, del
}

// writeRows brings the tunnel device's rows to what peers and local endpoints ask for; nothing to do without one. All
// rows are tried; the errors come back together.
func (d *Driver) writeRows(ctx context.Context, c *nl.Conn, own *network) error {
	_, err := d.amendRows(ctx, c, own)
	return err
}

// amendRows is writeRows; it tells what it had to do.
func (d *Driver) amendRows(ctx context.Context, c *nl.Conn, own *network) (todo plan, err error) {
	tunnel, err := c.Link(tunnelName)
	if errdefs.IsNotFound(err) {
		return plan{}, nil
	}
	if err != nil {
		return plan{}, err
	}
	w := wish{peers: own.peers, self: tunnel.VXLAN.Local}
	local, err := sandbox.Attached(c, tunnel.Master)
	if err != nil {
		return plan{}, err
	}
	for _, p := range local {
		w.local = append(w.local, p.Addresses...)
	}
	for _, p := range own.endpoints { // the one that is about to be plugged in
		for _, a := range p.endpoint.Addresses() {
			w.local = append(w.local, a.Addr())
		}
	}
	have, err := readRows(c, tunnel.Index)
	if err != nil {
		return plan{}, err
	}
	want := derive(w)
	if !own.stated {
		want = without(have, w.local)
	}
	todo = diff(want, have)
	if err := apply(ctx, c, tunnel, todo); err != nil {
		return todo, err
	}
	return todo, c.Announce(tunnel.Master, own.remembered(todo.setNeighbours))
}

// readRows asks the kernel for both tables.
func readRows(c *nl.Conn, tunnel int) (r rows, err error) {
	if r.fdb, err = c.FDB(tunnel); err != nil {
		return r, err
	}
	r.neighbours, err = c.Neighbours(tunnel)
	return r, err
}

// apply carries a plan out. Forwarding rows come before the neighbour rows that send frames to them, and go after
// them.
func apply(ctx context.Context, c *nl.Conn, tunnel nl.Link, p plan) error {
	var errs []error
	each := func(list []nl.Row, do func(int, nl.Row) error) {
		for _, r := range list {
			if ctx.Err() == nil {
				errs = append(errs, do(tunnel.Index, r))
			}
		}
	}
	each(p.deleteNeighbours, c.DeleteNeighbour)
	each(p.deleteFDB, c.DeleteFDB)
	each(p.setFDB, c.SetFDB)
	each(p.setNeighbours, c.SetNeighbour)
	return errors.Join(append(errs, ctx.Err())...)
}

// remembered picks the rows whose addresses local containers may remember with another MAC, and notes with which they may
// from now on. As long as MACs follow from addresses there are none, and nothing need be sent: on a network of both
// families that is true of the IPv4 ones; an IPv6 one cannot be remembered before it was seen.
func (own *network) remembered(set []nl.Row) []nl.Row {
	var list []nl.Row
	for _, r := range set {
		was, seen := own.known[r.Address]
		if !seen {
			was, _ = nl.MAC(ipam.MAC(r.Address))
		}
		if was != r.MAC && (seen || r.Address.Is4()) {
			list = append(list, r)
		}
		own.note(r.Address, r.MAC)
	}
	return list
}

// note remembers with which MAC an address was last seen.
func (own *network) note(addr netip.Addr, mac nl.HardwareAddr) {
	if addr.Is4() && bytes.Equal(ipam.MAC(addr), mac[:]) {
		delete(own.known, addr)
	} else {
		own.known[addr] = mac
	}
}

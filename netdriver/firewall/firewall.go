// Package firewall writes the host's packet rules: published ports, masquerading, isolation and the guard in front of
// the tunnel port.
//
// Everything is in one nftables table of its own, `inet minictl`. The setters change a wish; the whole table is derived
// from the whole wish and written in one transaction, so that no packet ever meets half of it, and so that writing it
// again repairs whatever somebody did to it. No other table, chain or policy is touched.
package firewall

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
)

// Firewall holds the wish for the table of this host. Its methods may be called from any goroutine. A method that fails
// leaves both the wish and the kernel as they were.
type Firewall struct {
	log *slog.Logger

	mu      sync.Mutex
	kernel  kernel
	wish    wish
	held    bool   // between Hold and Sync
	written bool   // the kernel has what was last written, or had it when it was last compared
	usual   string // how this kernel's listing differs from what it was given; see Repair
}

// New gives a Firewall with an empty wish for the network namespace in which its first method is called. It does not
// touch the kernel: what an earlier process wrote stays in force until the first change.
func New(log *slog.Logger) *Firewall {
	log = log.With("component", "firewall")
	return &Firewall{log: log, kernel: kernel{log: log}, wish: wish{}.clone()}
}

// Close gives the connection to the kernel back. The rules stay in force; the next call connects again.
func (f *Firewall) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.kernel.close()
}

// Hold makes the setters collect the wish without writing it, until Sync. A process that takes over a host with running
// containers holds, states everything it finds, and syncs: the old rules serve until the new ones replace them.
func (f *Firewall) Hold() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = true
}

// Sync has the kernel's table be the wish, and ends Hold. One that is so already is left as it is.
func (f *Firewall) Sync(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if wrong, err := f.kernel.differs(plan(f.wish)); wrong == "" && err == nil { // else the writing says what is the matter
		f.held, f.written = false, true
		return ctx.Err()
	}
	if err := f.write(ctx, f.wish); err != nil {
		return fmt.Errorf("write firewall table: %w", err)
	}
	f.held = false
	return nil
}

// SetBridge states what may pass between a bridge and the rest, in place of what was stated for it before.
func (f *Firewall) SetBridge(ctx context.Context, b Bridge) error {
	if b.Interface == "" || len(b.Interface) > 15 {
		return fmt.Errorf("protect bridge %q: interface names have 1 to 15 bytes: %w", b.Interface,
			errdefs.ErrInvalidArgument)
	}
	b.Subnets, b.Gateways = slices.Clone(b.Subnets), slices.Clone(b.Gateways)
	return f.change(ctx, "protect bridge "+b.Interface, func(w *wish) error {
		w.bridges[b.Interface] = b
		return nil
	})
}

// RemoveBridge takes a bridge out of the table; nil if it is not there. Ports behind it rest until it is set again.
func (f *Firewall) RemoveBridge(ctx context.Context, iface string) error {
	return f.change(ctx, "unprotect bridge "+iface, func(w *wish) error {
		delete(w.bridges, iface)
		return nil
	})
}

// SetPorts states every published port of an owner, in place of those stated before; none removes them. A port that
// another owner holds is errdefs.ErrAlreadyExists. Connection-tracking entries of the UDP ports that changed are
// removed, so that a stream that never pauses does not go on to where the port led before.
func (f *Firewall) SetPorts(ctx context.Context, owner string, ports []Port) error {
	ports = slices.Clone(ports)
	var before []Port
	err := f.change(ctx, "publish ports of "+owner, func(w *wish) error {
		before = w.ports[owner]
		if len(ports) == 0 {
			delete(w.ports, owner)
			return nil
		}
		w.ports[owner] = ports
		return w.checkPorts(owner, ports)
	})
	if err != nil {
		return err
	}
	if changed := changedUDP(before, ports); len(changed) > 0 {
		// The rules are in force; entries that stay behind expire by themselves 30 to 120 s after the last packet.
		if err := flushUDP(ctx, changed); err != nil {
			f.log.WarnContext(ctx, "stale UDP connections stay until they expire", "endpoint", owner, "err", err)
		}
	}
	return nil
}

// SetMembers guards a UDP port of this host: packets from an address that is not a member are dropped. VXLAN itself
// checks no outer source (RFC 7348 section 7), so without this anybody on the wire could put frames into the networks.
// udpPort 0 removes the guard.
func (f *Firewall) SetMembers(ctx context.Context, udpPort uint16, members []netip.Addr) error {
	return f.change(ctx, fmt.Sprintf("guard UDP port %d", udpPort), func(w *wish) error {
		w.guard = guard{}
		if udpPort != 0 {
			w.guard = guard{port: udpPort, members: sortedAddrs(members)}
		}
		return nil
	})
}

// change applies edit to a clone of the wish, writes it, and only then makes it the wish. A wish that does not change
// is not written again while the table is there.
func (f *Firewall) change(ctx context.Context, what string, edit func(*wish) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := f.wish.clone()
	if err := edit(&next); err != nil {
		return err
	}
	if !f.held && !(f.written && next.equal(f.wish) && f.kernel.present() == !next.empty()) {
		if err := f.write(ctx, next); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	f.wish = next
	return nil
}

func (f *Firewall) write(ctx context.Context, w wish) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := f.kernel.apply(plan(w)); err != nil {
		return err
	}
	f.written = true
	return nil
}

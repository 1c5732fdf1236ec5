package nl

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
)

// Routes gives every IPv4 prefix that this namespace's main table routes, the default route excepted: what an address
// pool must not overlap.
func (c *Conn) Routes() ([]netip.Prefix, error) {
	routes, err := dump(func() ([]netlink.Route, error) { return c.h.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		if p := fromIPNet(r.Dst); p.IsValid() && p.Bits() > 0 {
			out = append(out, p)
		}
	}
	return out, nil
}

// WatchRoutes calls changed after each change of an IPv4 route in the calling thread's namespace, until ctx ends. What
// comes in bursts is told once.
func WatchRoutes(ctx context.Context, changed func()) error {
	updates := make(chan netlink.RouteUpdate, 64)
	if err := netlink.RouteSubscribe(updates, ctx.Done()); err != nil {
		return fmt.Errorf("watch routes: %w", err)
	}
	for {
		select {
		case _, ok := <-updates:
			if !ok && ctx.Err() == nil {
				return fmt.Errorf("watch routes: the kernel's news ended")
			}
		case <-ctx.Done():
			return nil
		}
		over := time.After(burst)
		for waiting := true; waiting; {
			select {
			case _, waiting = <-updates:
			case <-over:
				waiting = false
			}
		}
		changed()
	}
}

// burst is how long changes are gathered before they are told: an interface that comes up changes several routes.
const burst = 200 * time.Millisecond

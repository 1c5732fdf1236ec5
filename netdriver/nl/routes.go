package nl

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
)

// Routes gives every prefix that this namespace's main table routes, without the default routes and what every interface
// has (link-local, multicast, loopback): what an address pool must not overlap.
func (c *Conn) Routes() ([]netip.Prefix, error) {
	routes, err := dump(func() ([]netlink.Route, error) { return c.h.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		p := fromIPNet(r.Dst)
		if a := p.Addr(); p.IsValid() && p.Bits() > 0 && !(a.Is6() && (a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsLoopback())) {
			out = append(out, p)
		}
	}
	return out, nil
}

// WatchRoutes calls changed after each change of a route in the calling thread's namespace, until ctx ends. What comes in
// bursts is told once.
func WatchRoutes(ctx context.Context, changed func()) error {
	return watch(ctx, "routes", netlink.RouteSubscribe, changed)
}

// WatchLinks calls changed after each change of a link in the calling thread's namespace, as WatchRoutes does.
func WatchLinks(ctx context.Context, changed func()) error {
	return watch(ctx, "links", netlink.LinkSubscribe, changed)
}

func watch[T any](ctx context.Context, what string, subscribe func(chan<- T, <-chan struct{}) error, changed func()) error {
	updates := make(chan T, 64)
	if err := subscribe(updates, ctx.Done()); err != nil {
		return fmt.Errorf("watch %s: %w", what, err)
	}
	for {
		select {
		case _, ok := <-updates:
			if !ok && ctx.Err() == nil {
				return fmt.Errorf("watch %s: the kernel's news ended", what)
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

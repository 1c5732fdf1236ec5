package engine

import (
	"slices"
	"strings"

	"github.com/minictl/minictl/dnsd"
	"github.com/minictl/minictl/runtime/container"
)

// parseLink reads --link's CONTAINER[:ALIAS].
func parseLink(s string) (target, alias string, err error) {
	target, alias, ok := strings.Cut(s, ":")
	if !ok {
		alias = target
	}
	if target == "" || alias == "" || strings.Contains(alias, ":") {
		return "", "", invalid("bad format for links: %s", s)
	}
	return target, alias, nil
}

// linkZone is the names that one container alone has for others of a network: nil if it has none.
func (e *Engine) linkZone(ep container.Endpoint, links []string) *dnsd.Zone {
	if len(links) == 0 {
		return nil
	}
	hosts := e.hostsOf(ep)
	var out []dnsd.Host
	for _, l := range links {
		target, alias, err := parseLink(l)
		if err != nil {
			continue // checked when it was wished
		}
		for _, h := range hosts {
			if slices.Contains(h.Names, target) {
				// The first name is what an address resolves back to: that stays the container's own.
				out = append(out, dnsd.Host{Names: []string{"", alias}, Addrs: h.Addrs})
			}
		}
	}
	return dnsd.NewZone(ep.NetworkName, out)
}

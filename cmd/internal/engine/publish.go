package engine

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/portmap"
	"github.com/minictl/minictl/runtime/container"
)

// Options of bridges that say how ports are published and interfaces called. Their driver has checked the values.
const (
	optionHostBinding = "com.docker.network.bridge.host_binding_ipv4"
	optionMode4       = "com.docker.network.bridge.gateway_mode_ipv4"
	optionMode6       = "com.docker.network.bridge.gateway_mode_ipv6"
	optionPrefix      = "com.docker.network.container_iface_prefix"
	modeRouted        = "routed"
)

// optionLister is a driver that knows its options by name.
type optionLister interface{ Options() []string }

// unknownOptions warns of options that nobody reads. They are kept, as docker keeps them: some are notes of the user's.
func (e *Engine) unknownOptions(n *Network) string {
	d, ok := e.driver(n).(optionLister)
	if !ok {
		return ""
	}
	known := d.Options()
	var unknown []string
	for key := range n.Options {
		if !slices.Contains(known, key) {
			unknown = append(unknown, key)
		}
	}
	if len(unknown) == 0 {
		return ""
	}
	slices.Sort(unknown)
	return "driver " + n.Driver + " does not know, and keeps without effect: " + strings.Join(unknown, ", ")
}

// holdsPorts tells whether the host's ports that lead to an endpoint are reserved for it: those of a plugin's network are
// not, nor has one that is open at the container's own address alone any.
func (e *Engine) holdsPorts(ep *container.Endpoint) bool {
	return e.plugin(&Network{Driver: ep.Driver}) == nil && !slices.ContainsFunc(ep.Ports, func(p container.PortMapping) bool { return p.HostPort == 0 })
}

// publishedOn divides an endpoint's ports into those that the host holds and those that a routed network opens at the
// container's own address, where the host has no part in it.
func (e *Engine) publishedOn(ep container.Endpoint, reqs []portmap.Request) (held []portmap.Request, direct []container.PortMapping) {
	e.mu.RLock()
	n := e.networks[ep.NetworkID]
	e.mu.RUnlock()
	if n != nil && n.foreign() { // which addresses it will have is not known yet
		return reqs, nil
	}
	// As with docker, an address of IPv4 leads to no container that has none.
	reqs = slices.DeleteFunc(slices.Clone(reqs), func(r portmap.Request) bool { return r.HostIP.Unmap().Is4() && !ep.Address.IsValid() })
	if n == nil {
		return reqs, nil
	}
	if e.plugin(n) != nil { // what the host does for a port is the plugin's
		for _, r := range reqs {
			direct = append(direct, container.PortMapping{Proto: r.Proto, HostIP: r.HostIP, HostPort: r.First, ContainerPort: r.ContainerPort})
		}
		return nil, direct
	}
	// On the wire a container has ports of its own.
	routed := n.Driver == netdriver.TypeMacvlan || !slices.ContainsFunc(n.Subnets, func(s netdriver.Subnet) bool {
		mode := n.Options[optionMode4]
		if s.Prefix.Addr().Is6() {
			mode = n.Options[optionMode6]
		}
		return mode != modeRouted
	})
	binding, _ := netip.ParseAddr(n.Options[optionHostBinding]) // invalid: every address
	for _, r := range reqs {
		if routed {
			direct = append(direct, container.PortMapping{Proto: r.Proto, ContainerPort: r.ContainerPort})
			continue
		}
		if !r.HostIP.IsValid() && binding.IsValid() {
			r.HostIP = binding
		}
		held = append(held, r)
	}
	return held, direct
}

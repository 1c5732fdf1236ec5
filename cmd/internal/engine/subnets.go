package engine

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/network"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/ipam"
)

// has tells whether the network's endpoints have an address of the family.
func (n *Network) has(v6 bool) bool {
	return slices.ContainsFunc(n.Subnets, func(s netdriver.Subnet) bool { return s.Prefix.Addr().Is6() == v6 })
}

// foreign tells whether others' programs choose the addresses of the network's endpoints.
func (n *Network) foreign() bool { return n.Driver == netdriver.TypeCNI }

// wants tells whether they shall have one that is chosen here.
func (n *Network) wants(v6 bool) bool {
	if n.foreign() {
		return false
	}
	if v6 {
		return n.EnableIPv6
	}
	return !n.DisableIPv4
}

// setIPAM takes over the families and subnets that the user asked for. A subnet of IPv6 asks for IPv6, unless IPv6 was
// refused: nothing that was asked for is left out in silence.
func (n *Network) setIPAM(req network.CreateRequest) error {
	if n.foreign() {
		return n.checkForeign(req)
	}
	n.DisableIPv4 = req.EnableIPv4 != nil && !*req.EnableIPv4
	n.EnableIPv6 = req.EnableIPv6 != nil && *req.EnableIPv6
	if i := req.IPAM; i != nil {
		if i.Driver == "null" {
			return unsupported("minictl does not support the IPAM driver %q; leave out --ipam-driver", i.Driver)
		}
		if i.Driver != "default" {
			n.IPAM = i.Driver
		}
		n.IPAMOptions = i.Options
		for _, c := range i.Config {
			if err := n.addSubnet(c, req.EnableIPv6 != nil); err != nil {
				return err
			}
		}
	}
	if n.DisableIPv4 && !n.EnableIPv6 {
		return invalid("IPv4 or IPv6 must be enabled")
	}
	n.sortSubnets()
	for i, s := range n.Subnets {
		for _, o := range n.Subnets[:i] {
			if !requested(s.Prefix) && !requested(o.Prefix) && s.Prefix.Overlaps(o.Prefix) {
				return invalid("invalid network config: subnets %s and %s overlap", o.Prefix, s.Prefix)
			}
		}
	}
	return nil
}

// checkForeign refuses what the network's own configuration has to say.
func (n *Network) checkForeign(req network.CreateRequest) error {
	asked := map[string]bool{
		"--internal": req.Internal, "--ipv6": req.EnableIPv6 != nil && *req.EnableIPv6, "--ipv4=false": req.EnableIPv4 != nil && !*req.EnableIPv4,
	}
	if i := req.IPAM; i != nil {
		asked["--ipam-driver"] = i.Driver != "" && i.Driver != "default"
		asked["--ipam-opt"] = len(i.Options) > 0
		for _, c := range i.Config {
			asked["--subnet"] = asked["--subnet"] || c.Subnet.IsValid()
			asked["--gateway"] = asked["--gateway"] || c.Gateway.IsValid()
			asked["--ip-range"] = asked["--ip-range"] || c.IPRange.IsValid()
			asked["--aux-address"] = asked["--aux-address"] || len(c.AuxAddress) > 0
		}
	}
	for _, flag := range slices.Sorted(maps.Keys(asked)) {
		if asked[flag] {
			return unsupported("minictl does not support %s for networks of the driver %s: their configuration decides about addresses and routes, say it there", flag, n.Driver)
		}
	}
	return nil
}

func (n *Network) addSubnet(c network.IPAMConfig, said bool) error {
	if !c.Subnet.IsValid() {
		if c.Gateway.IsValid() || c.IPRange.IsValid() || len(c.AuxAddress) > 0 {
			return invalid("invalid network config: --gateway, --ip-range and --aux-address need a --subnet")
		}
		return nil
	}
	switch is6 := c.Subnet.Addr().Is6(); {
	case is6 && said && !n.EnableIPv6:
		return invalid("invalid network config: subnet %s is of IPv6, which is switched off: leave out --ipv6=false", c.Subnet)
	case !is6 && n.DisableIPv4:
		return invalid("invalid network config: subnet %s is of IPv4, which is switched off: leave out --ipv4=false", c.Subnet)
	case is6:
		n.EnableIPv6 = true
	}
	s := netdriver.Subnet{Prefix: c.Subnet, Gateway: c.Gateway, Range: c.IPRange, Aux: c.AuxAddress}
	if requested(c.Subnet) {
		if c.Gateway.IsValid() || c.IPRange.IsValid() || len(c.AuxAddress) > 0 {
			return invalid("invalid network config: --gateway, --ip-range and --aux-address need a --subnet that is no mere size, which %s is", c.Subnet)
		}
		n.Subnets = append(n.Subnets, s)
		return nil
	}
	s, err := ipam.Validate(s)
	if err != nil {
		return err
	}
	if c.Gateway.IsValid() {
		n.gateways = append(n.gateways, c.Gateway)
	}
	n.Subnets = append(n.Subnets, s)
	return nil
}

// requested tells whether a prefix only says how large a subnet shall be: 0.0.0.0/22, ::/80.
func requested(p netip.Prefix) bool { return p.Addr().IsUnspecified() && p.Bits() > 0 }

// sortSubnets puts IPv4 first: that is what endpoints' MACs and gateways' follow from.
func (n *Network) sortSubnets() {
	slices.SortStableFunc(n.Subnets, func(a, b netdriver.Subnet) int { return a.Prefix.Addr().BitLen() - b.Prefix.Addr().BitLen() })
}

// clusterULA is where IPv6 subnets of the cluster's networks come from: another range than any host's own.
func (e *Engine) clusterULA() ipam.Block { return ipam.ULA("cluster " + e.cl.ID()) }

// choosePool gives the network its subnets: those asked for if they overlap no other network, and for each family that has
// none the next of blocks, or of the unique local range, that overlaps neither a network nor a route of any host.
func (e *Engine) choosePool(n *Network, others []*Network, blocks []ipam.Block, ula []ipam.Block) error {
	var taken []netip.Prefix
	for _, o := range others {
		if o.ID == n.ID {
			continue
		}
		for _, s := range o.Subnets {
			for _, mine := range n.Subnets {
				if !requested(mine.Prefix) && s.Prefix.Overlaps(mine.Prefix) {
					return forbidden("invalid pool request: Pool overlaps with other one on this address space: network %s has %s; choose another --subnet", o.Name, s.Prefix)
				}
			}
			taken = append(taken, s.Prefix)
		}
	}
	for _, v6 := range []bool{false, true} {
		if n.wants(v6) && !n.has(v6) {
			n.Subnets = append(n.Subnets, netdriver.Subnet{Prefix: anySize(v6)})
		}
	}
	if !slices.ContainsFunc(n.Subnets, func(s netdriver.Subnet) bool { return requested(s.Prefix) || s.Prefix.Bits() == 0 }) {
		return nil
	}
	for _, s := range n.Subnets {
		if !requested(s.Prefix) && s.Prefix.Bits() > 0 {
			taken = append(taken, s.Prefix)
		}
	}
	routes, err := e.clusterRoutes()
	if err != nil {
		return err
	}
	taken = append(taken, routes...)
	for i, s := range n.Subnets {
		if !requested(s.Prefix) && s.Prefix.Bits() > 0 {
			continue
		}
		from := blocks
		if s.Prefix.Addr().Is6() {
			from = ula
		}
		if n.Subnets[i], err = nextSubnet(s.Prefix, from, taken); err != nil {
			return err
		}
		taken = append(taken, n.Subnets[i].Prefix)
	}
	n.sortSubnets()
	return nil
}

// anySize is the request for a subnet of a family, whatever its size.
func anySize(v6 bool) netip.Prefix {
	if v6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// nextSubnet chooses a subnet, of the asked size if one is.
func nextSubnet(asked netip.Prefix, blocks []ipam.Block, taken []netip.Prefix) (netdriver.Subnet, error) {
	if asked.Bits() > 0 {
		blocks = slices.Clone(blocks)
		for i := range blocks {
			blocks[i].Size = asked.Bits()
		}
	}
	p, err := ipam.NextPool(blocks, taken)
	if err != nil {
		family := ipam.Pool{{Prefix: asked}}.Family()
		return netdriver.Subnet{}, fmt.Errorf("could not find an available, non-overlapping %s address pool among the defaults to assign to the network; give one with --subnet: %w", family, err)
	}
	return ipam.Validate(netdriver.Subnet{Prefix: p})
}

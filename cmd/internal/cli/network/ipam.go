package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

// ipamOptions are create's flags about addresses. They come as four lists; which range, gateway and auxiliary address
// belongs to which subnet follows from the addresses themselves.
type ipamOptions struct {
	driver                    string
	subnets, ranges, gateways []string
	aux, driverOpts           *opts.MapOpts
}

func (o *ipamOptions) add(fs *pflag.FlagSet) {
	o.aux, o.driverOpts = opts.NewMapOpts(nil, nil), opts.NewMapOpts(nil, nil)
	fs.StringVar(&o.driver, "ipam-driver", "default", "IP Address Management driver")
	fs.StringSliceVar(&o.subnets, "subnet", nil, "Subnet in CIDR format that represents a network segment")
	fs.StringSliceVar(&o.ranges, "ip-range", nil, "Allocate container ip from a sub-range")
	fs.StringSliceVar(&o.gateways, "gateway", nil, "IPv4 or IPv6 gateway for the subnet")
	fs.Var(o.aux, "aux-address", "Auxiliary IPv4 or IPv6 addresses used by network driver (NAME=ADDRESS)")
	fs.Var(o.driverOpts, "ipam-opt", "Set IPAM driver specific options")
}

// config checks only which belongs to which; whether a pool is sound and free the daemon decides for all clients alike.
func (o *ipamOptions) config() (*network.IPAM, error) {
	if len(o.subnets) < len(o.ranges) || len(o.subnets) < len(o.gateways) {
		return nil, errors.New("every ip-range or gateway must have a corresponding subnet")
	}
	pools, err := parseSubnets(o.subnets)
	if err != nil {
		return nil, err
	}
	if err := o.placeRanges(pools); err != nil {
		return nil, err
	}
	if err := o.placeGateways(pools); err != nil {
		return nil, err
	}
	if err := o.placeAux(pools); err != nil {
		return nil, err
	}
	return &network.IPAM{Driver: o.driver, Config: pools, Options: o.driverOpts.GetAll()}, nil
}

// parseSubnets keeps the order given: the first is the one containers get addresses of.
func parseSubnets(subnets []string) ([]network.IPAMConfig, error) {
	pools := make([]network.IPAMConfig, 0, len(subnets))
	for _, s := range subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("invalid subnet %s: want for example 10.22.1.0/24", s)
		}
		if slices.ContainsFunc(pools, func(c network.IPAMConfig) bool { return c.Subnet.Overlaps(p) }) {
			return nil, errors.New("multiple overlapping subnet configuration is not supported")
		}
		pools = append(pools, network.IPAMConfig{Subnet: p})
	}
	return pools, nil
}

// holding finds the subnet that a lies in; nil when none.
func holding(pools []network.IPAMConfig, a netip.Addr) *network.IPAMConfig {
	i := slices.IndexFunc(pools, func(c network.IPAMConfig) bool { return c.Subnet.Contains(a) })
	if i < 0 {
		return nil
	}
	return &pools[i]
}

func (o *ipamOptions) placeRanges(pools []network.IPAMConfig) error {
	for _, r := range o.ranges {
		p, err := netip.ParsePrefix(r)
		if err != nil {
			return fmt.Errorf("invalid ip-range %s: want for example 10.22.1.128/25", r)
		}
		c := holding(pools, p.Addr())
		switch {
		case c == nil:
			return fmt.Errorf("no matching subnet for range %s", r)
		case c.IPRange.IsValid():
			return fmt.Errorf("cannot configure multiple ranges (%s, %s) on the same subnet (%s)", r, c.IPRange, c.Subnet)
		}
		c.IPRange = p.Masked() // as docker sends it
	}
	return nil
}

func (o *ipamOptions) placeGateways(pools []network.IPAMConfig) error {
	for _, g := range o.gateways {
		a, err := netip.ParseAddr(g)
		if err != nil {
			return fmt.Errorf("invalid gateway %s: want an IP address", g)
		}
		c := holding(pools, a)
		switch {
		case c == nil:
			return fmt.Errorf("no matching subnet for gateway %s", g)
		case c.Gateway.IsValid():
			return fmt.Errorf("cannot configure multiple gateways (%s, %s) for the same subnet (%s)", g, c.Gateway, c.Subnet)
		}
		c.Gateway = a
	}
	return nil
}

func (o *ipamOptions) placeAux(pools []network.IPAMConfig) error {
	for name, value := range o.aux.GetAll() {
		if value == "" {
			continue
		}
		a, err := netip.ParseAddr(value)
		if err != nil {
			return fmt.Errorf("invalid aux-address %s=%s: want an IP address", name, value)
		}
		c := holding(pools, a)
		if c == nil {
			return fmt.Errorf("no matching subnet for aux-address %s", value)
		}
		if c.AuxAddress == nil {
			c.AuxAddress = map[string]netip.Addr{}
		}
		c.AuxAddress[name] = a
	}
	return nil
}

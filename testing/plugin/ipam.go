package plugin

import (
	"errors"
	"fmt"
	"net/netip"
)

// manage answers the calls of an address manager.
func (p *Plugin) manage(method string, r request) (any, error) {
	ok := struct{}{}
	switch method {
	case "IpamDriver.GetCapabilities":
		return map[string]bool{"RequiresMACAddress": p.opts.WantMAC, "RequiresRequestReplay": p.opts.WantReplay}, nil
	case "IpamDriver.GetDefaultAddressSpaces":
		return map[string]string{"LocalDefaultAddressSpace": "here", "GlobalDefaultAddressSpace": "everywhere"}, nil
	case "IpamDriver.RequestPool":
		id, prefix, err := p.requestPool(r)
		return map[string]any{"PoolID": id, "Pool": prefix.String()}, err
	case "IpamDriver.ReleasePool":
		return ok, p.releasePool(r.PoolID)
	case "IpamDriver.RequestAddress":
		a, err := p.requestAddress(r)
		return map[string]any{"Address": a.String()}, err
	case "IpamDriver.ReleaseAddress":
		return ok, p.releaseAddress(r)
	}
	return nil, errUnknown
}

// requestPool gives the pool that is asked for, or the next of 10.77.0.0/16's and fd77::/16's.
func (p *Plugin) requestPool(r request) (id string, prefix netip.Prefix, err error) {
	if r.AddressSpace != "here" && r.AddressSpace != "everywhere" {
		return "", prefix, fmt.Errorf("address space %q is unknown", r.AddressSpace)
	}
	for i := 0; r.Pool == ""; i++ {
		next := fmt.Sprintf("10.77.%d.0/24", i)
		if r.V6 {
			next = fmt.Sprintf("fd77:%x::/64", i)
		}
		if p.pools[r.AddressSpace+"/"+next] == nil {
			r.Pool = next
		}
	}
	if prefix, err = netip.ParsePrefix(r.Pool); err != nil {
		return "", prefix, err
	}
	pl := &pool{prefix: prefix, sub: prefix, given: map[netip.Addr]bool{}}
	if r.SubPool != "" {
		if pl.sub, err = netip.ParsePrefix(r.SubPool); err != nil {
			return "", prefix, err
		}
	}
	id = r.AddressSpace + "/" + r.Pool
	if p.pools[id] != nil {
		return "", prefix, fmt.Errorf("pool %s is taken", r.Pool)
	}
	p.pools[id] = pl
	return id, prefix, nil
}

func (p *Plugin) releasePool(id string) error {
	pl := p.pools[id]
	if pl == nil {
		return fmt.Errorf("pool %q is unknown", id)
	}
	if len(pl.given) > 0 {
		return fmt.Errorf("pool %q has %d addresses given out", id, len(pl.given))
	}
	delete(p.pools, id)
	return nil
}

func (p *Plugin) requestAddress(r request) (netip.Prefix, error) {
	pl := p.pools[r.PoolID]
	if pl == nil {
		return netip.Prefix{}, fmt.Errorf("pool %q is unknown", r.PoolID)
	}
	if p.opts.WantMAC && r.Options["com.docker.network.endpoint.name"] != nil && r.Options["com.docker.network.endpoint.macaddress"] == nil {
		return netip.Prefix{}, errors.New("no MAC address is said")
	}
	if r.Address != "" {
		a, err := netip.ParseAddr(r.Address)
		if err != nil || !pl.prefix.Contains(a) {
			return netip.Prefix{}, fmt.Errorf("%s is not of %s", r.Address, pl.prefix)
		}
		if pl.given[a] {
			return netip.Prefix{}, fmt.Errorf("%s is taken", a)
		}
		pl.given[a] = true
		return netip.PrefixFrom(a, pl.prefix.Bits()), nil
	}
	for a := pl.sub.Masked().Addr().Next(); pl.sub.Contains(a); a = a.Next() {
		if !pl.given[a] {
			pl.given[a] = true
			return netip.PrefixFrom(a, pl.prefix.Bits()), nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("pool %s is empty", pl.prefix)
}

func (p *Plugin) releaseAddress(r request) error {
	a, err := netip.ParseAddr(r.Address)
	pl := p.pools[r.PoolID]
	if err != nil || pl == nil || !pl.given[a] {
		return fmt.Errorf("address %s of pool %q was not given", r.Address, r.PoolID)
	}
	delete(pl.given, a)
	return nil
}

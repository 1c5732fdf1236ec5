package remote

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// Options of address requests, docker's.
const (
	OptionEndpointName = "com.docker.network.endpoint.name"
	OptionMAC          = "com.docker.network.endpoint.macaddress"
	keyRequestType     = "RequestAddressType"
	keyGateway         = "com.docker.network.gateway"
)

type ipamCapabilities struct {
	RequiresMACAddress    bool
	RequiresRequestReplay bool
}

// Allocator is an address manager. It keeps books of its own: what is requested has to be released.
type Allocator struct{ plugin *plugin }

func (a *Allocator) call(ctx context.Context, limit time.Duration, method string, in, out any) error {
	return a.plugin.call(ctx, limit, ipamDriver, method, in, out)
}

// NeedsMAC tells whether an endpoint's MAC address has to be among the options of RequestAddress.
func (a *Allocator) NeedsMAC(ctx context.Context) (bool, error) {
	c, err := a.capabilities(ctx)
	return c.RequiresMACAddress, err
}

// Forgets tells whether the plugin wants to be asked again, when a daemon starts, for what it has given out.
func (a *Allocator) Forgets(ctx context.Context) (bool, error) {
	c, err := a.capabilities(ctx)
	return c.RequiresRequestReplay, err
}

func (a *Allocator) capabilities(ctx context.Context) (ipamCapabilities, error) {
	to, err := a.plugin.hello(ctx, ipamDriver)
	if err != nil {
		return ipamCapabilities{}, err
	}
	return to.ipam, nil
}

// Space is the address space of this host's networks, or of the cluster's.
func (a *Allocator) Space(ctx context.Context, global bool) (string, error) {
	var answer struct{ LocalDefaultAddressSpace, GlobalDefaultAddressSpace string }
	if err := a.call(ctx, a.plugin.cfg.Patience, "GetDefaultAddressSpaces", nil, &answer); err != nil {
		return "", err
	}
	if global {
		return answer.GlobalDefaultAddressSpace, nil
	}
	return answer.LocalDefaultAddressSpace, nil
}

// PoolWish is what RequestPool asks for.
type PoolWish struct {
	Space   string
	Prefix  netip.Prefix // invalid: of the plugin's choice
	Range   netip.Prefix // of Prefix, where dynamic addresses come from; invalid: all of it
	Options map[string]string
	V6      bool
}

// Pool is what a plugin gave.
type Pool struct {
	ID      string
	Prefix  netip.Prefix
	Gateway netip.Addr // that the plugin brings with it; it is not released
}

// RequestPool takes a pool, which ReleasePool gives back.
func (a *Allocator) RequestPool(ctx context.Context, w PoolWish) (Pool, error) {
	in := struct {
		AddressSpace, Pool, SubPool string
		Options                     map[string]string
		V6                          bool
	}{AddressSpace: w.Space, Options: w.Options, V6: w.V6}
	if in.Options == nil {
		in.Options = map[string]string{}
	}
	if w.Prefix.IsValid() {
		in.Pool = w.Prefix.String()
	}
	if w.Range.IsValid() {
		in.SubPool = w.Range.String()
	}
	var answer struct {
		PoolID, Pool string
		Data         map[string]string
	}
	if err := a.call(ctx, a.plugin.cfg.Patience, "RequestPool", in, &answer); err != nil {
		return Pool{}, err
	}
	p, err := parsePool(answer.PoolID, answer.Pool, answer.Data[keyGateway], w.V6)
	if err != nil {
		return Pool{}, invalidAnswer(a.plugin.name, ipamDriver, "RequestPool", err)
	}
	return p, nil
}

// maxID bounds what a plugin may call a pool, in bytes: it is kept.
const maxID = 4 << 10

func parsePool(id, pool, gw string, v6 bool) (Pool, error) {
	p := Pool{ID: id}
	var err error
	if p.Prefix, err = netip.ParsePrefix(pool); err != nil || p.Prefix.Addr().Is6() != v6 || p.Prefix.Addr().Is4In6() {
		return p, fmt.Errorf("its pool %q is no prefix of the family", printable(pool))
	}
	p.Prefix = p.Prefix.Masked()
	if id == "" || len(id) > maxID {
		return p, fmt.Errorf("its pool's identity has %d bytes, which should be 1 to %d", len(id), maxID)
	}
	if gw != "" {
		g, err := netip.ParsePrefix(gw)
		if err != nil || !p.Prefix.Contains(g.Addr()) {
			return p, fmt.Errorf("its gateway %q is no address of %s with a length", printable(gw), p.Prefix)
		}
		p.Gateway = g.Addr()
	}
	return p, nil
}

// ReleasePool gives a pool back.
func (a *Allocator) ReleasePool(ctx context.Context, id string) error {
	return a.tell(ctx, "ReleasePool", struct{ PoolID string }{id})
}

// RequestAddress takes an address of a pool: the asked one, or any if asked is invalid.
func (a *Allocator) RequestAddress(ctx context.Context, pool string, asked netip.Addr, options map[string]string) (netip.Prefix, error) {
	in := struct {
		PoolID, Address string
		Options         map[string]string
	}{PoolID: pool, Options: options}
	if asked.IsValid() {
		in.Address = asked.String()
	}
	var answer struct{ Address string }
	if err := a.call(ctx, a.plugin.cfg.Patience, "RequestAddress", in, &answer); err != nil {
		return netip.Prefix{}, err
	}
	p, err := netip.ParsePrefix(answer.Address)
	switch {
	case err != nil || p.Addr().Is4In6():
		err = fmt.Errorf("%q is no address with a length", printable(answer.Address))
	case asked.IsValid() && p.Addr() != asked:
		err = fmt.Errorf("it gave %s where %s was asked for", p.Addr(), asked)
	default:
		return p, nil
	}
	return netip.Prefix{}, invalidAnswer(a.plugin.name, ipamDriver, "RequestAddress", err)
}

// RequestGateway is RequestAddress for a network's gateway.
func (a *Allocator) RequestGateway(ctx context.Context, pool string, asked netip.Addr) (netip.Prefix, error) {
	return a.RequestAddress(ctx, pool, asked, map[string]string{keyRequestType: keyGateway})
}

// ReleaseAddress gives an address back.
func (a *Allocator) ReleaseAddress(ctx context.Context, pool string, addr netip.Addr) error {
	return a.tell(ctx, "ReleaseAddress", struct{ PoolID, Address string }{pool, addr.String()})
}

// tell is call for what ends: what the plugin complains of is logged, as it has heard. ErrUnavailable or ErrNotFound if it
// could not be told.
func (a *Allocator) tell(ctx context.Context, method string, in any) error {
	err := a.call(ctx, min(farewell, a.plugin.cfg.Patience), method, in, nil)
	if refused(err) {
		a.plugin.log.Warn("the plugin complains of an end", "method", method, "err", err)
		return nil
	}
	return err
}

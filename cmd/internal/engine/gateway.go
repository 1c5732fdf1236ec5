package engine

import (
	"net/netip"
	"time"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/ipam"
)

// newGateway is the gateway bridge: no traffic between its containers, masquerading to the outside.
func (e *Engine) newGateway() *Network {
	return &Network{
		ID: newID(), Name: e.cfg.GatewayBridge, Created: time.Now().UTC(), Scope: scopeLocal, Driver: netdriver.TypeBridge,
		Options: map[string]string{gwICCOption: "false", gwMasqOption: "true", gwNameOption: e.cfg.GatewayBridge},
	}
}

// localBlocks are where this host's own networks get their IPv4 subnets, the gateway bridge included: docker's list,
// which begins with 172.18.0.0/16, unless others were chosen.
func (e *Engine) localBlocks() []ipam.Block {
	if chosen := e.chosenBlocks(false); len(chosen) > 0 {
		return chosen
	}
	return ipam.DefaultLocal()
}

// localULA is where they get their IPv6 subnets: this host's unique local range, unless others were chosen.
func (e *Engine) localULA() []ipam.Block {
	if chosen := e.chosenBlocks(true); len(chosen) > 0 {
		return chosen
	}
	return []ipam.Block{ipam.ULA(e.id)}
}

func (e *Engine) chosenBlocks(v6 bool) []ipam.Block {
	var out []ipam.Block
	for _, b := range e.cfg.AddressPools {
		if b.Base.Addr().Is6() == v6 {
			out = append(out, b)
		}
	}
	return out
}

// bridgeBlocks are where the default bridge's subnet comes from: 172.17.0.0/16 first, unless others were chosen.
func (e *Engine) bridgeBlocks() []ipam.Block {
	if chosen := e.chosenBlocks(false); len(chosen) > 0 {
		return chosen
	}
	return append([]ipam.Block{{Base: netip.MustParsePrefix("172.17.0.0/16"), Size: 16}}, ipam.DefaultLocal()...)
}

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

// gatewayBlocks are where the gateway bridge's subnet comes from: 172.18.0.0/16 if that is free, else docker's next ones.
func gatewayBlocks() []ipam.Block { return ipam.DefaultLocal() }

// bridgeBlocks are where the default bridge's subnet comes from: 172.17.0.0/16 first.
func bridgeBlocks() []ipam.Block {
	return append([]ipam.Block{{Base: netip.MustParsePrefix("172.17.0.0/16"), Size: 16}}, ipam.DefaultLocal()...)
}

package engine

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"

	"github.com/minictl/minictl/dnsd"
	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/runtime/container"
)

// Defaults are settings of networks and resolvers for those that do not say, as dockerd has them.
type Defaults struct {
	// Bridge is what the network called bridge shall be like; its zero value is docker's default.
	Bridge network.CreateRequest
	// Options are the driver options of user-defined networks, by driver.
	Options map[string]map[string]string
	// DNS are the resolver settings of containers.
	DNS dnsd.ResolvOptions
	// Relayed tells that published ports are reached by IPv6 also at containers without it.
	Relayed bool
}

// settleBridge makes the network called bridge what the settings want it to be, as late as none of its containers runs: a
// subnet cannot be taken away from under them.
func (e *Engine) settleBridge() error {
	want, err := e.wishBridge()
	if err != nil {
		return err
	}
	var others []*Network
	for _, n := range e.networks {
		switch {
		case n.Name != network.NetworkBridge:
			others = append(others, n)
		case bytes.Equal(n.Asked, want.Asked):
			return nil
		default:
			want.ID, want.Created = n.ID, n.Created
		}
	}
	if users := e.localUses(want.ID); len(users) > 0 {
		names := make([]string, len(users))
		for i, u := range users {
			names[i] = u.name
		}
		slices.Sort(names)
		e.log.Warn("the default bridge keeps its settings while containers are on it: stop them and start the daemon again", "containers", strings.Join(names, ","))
		return nil
	}
	if err := e.choosePool(want, others, e.bridgeBlocks(), e.localULA()); err != nil {
		return err
	}
	if err := e.drivers[want.Driver].Check(want.wish()); err != nil {
		return err
	}
	return e.keepNetwork(want)
}

// wishBridge is the network called bridge without what has still to be chosen.
func (e *Engine) wishBridge() (*Network, error) {
	req := e.cfg.Defaults.Bridge
	n := &Network{
		ID: newID(), Name: network.NetworkBridge, Created: time.Now().UTC(), Scope: scopeLocal, Driver: netdriver.TypeBridge,
		Options: map[string]string{gwICCOption: "true", gwMasqOption: "true", gwNameOption: defaultBridgeLink, defaultOption: "true"},
	}
	maps.Copy(n.Options, req.Options)
	if req.IPAM != nil || req.EnableIPv6 != nil || len(req.Options) > 0 { // else as records of before have it: nothing
		var err error
		if n.Asked, err = json.Marshal(req); err != nil {
			return nil, err
		}
	}
	return n, n.setIPAM(req)
}

// defaultOptions fills in the driver options that a user-defined network does not say.
func (e *Engine) defaultOptions(n *Network) {
	defaults := e.cfg.Defaults.Options[n.Driver]
	if len(defaults) == 0 {
		return
	}
	own := n.Options
	n.Options = maps.Clone(defaults)
	maps.Copy(n.Options, own)
}

// resolverOf are a container's resolver settings: what it says, else what its networks do, else the daemon; all replace the
// host's.
func (e *Engine) resolverOf(spec *container.Spec, endpoints []container.Endpoint) dnsd.ResolvOptions {
	o, own := e.cfg.Defaults.DNS, resolution(spec, endpoints)
	if len(own.Servers) > 0 {
		o.Servers = own.Servers
	}
	if len(own.Search) > 0 {
		o.Search = own.Search
	}
	if len(own.Options) > 0 {
		o.Options = own.Options
	}
	return o
}

// reachedBySix tells whether a port published on every address is reached by IPv6: by rules where the endpoint has an
// address of it, else by the daemon's relay, of bridges alone, where the host has IPv6.
func (e *Engine) reachedBySix(ep *container.Endpoint, m container.PortMapping) bool {
	return ep.Address6.IsValid() || ep.Driver == netdriver.TypeBridge && e.cfg.Defaults.Relayed && m.Proto != "sctp" && hostHasIPv6()
}

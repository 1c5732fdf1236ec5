package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/portmap"
	"github.com/minictl/minictl/runtime/container"
)

// joint is one endpoint as it should be.
type joint struct {
	network *Network
	key     string // of Spec.Networks; empty: the gateway bridge
	set     *network.EndpointSettings
	iface   string
	// gateway and gateway6: it gives the default route of the family. publishes: the container's ports lead to it.
	gateway, gateway6, publishes bool
	ports                        []portmap.Request
	// decider says that the network's driver decides about endpoints; have is what it has decided, nil: nothing yet.
	decider bool
	have    *container.Endpoint
}

// undecided tells whether the joint has to be made before it is known where it leads.
func (j *joint) undecided() bool { return j.decider && j.have == nil }

// plan says which endpoints a container should have, in which order, and which of them gives the default route and the
// ports. have are those it has already: their interfaces keep their names.
func (e *Engine) plan(ctx context.Context, spec *container.Spec, have []container.Endpoint) ([]joint, error) {
	var all []*Network
	err := e.withNetworks(ctx, func(known []*Network) error {
		for _, key := range spec.NetworkOrder {
			if _, err := pickNetwork(known, key); err != nil {
				return err
			}
		}
		all = known
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out []joint
	for _, key := range spec.NetworkOrder {
		n, err := pickNetwork(all, key)
		if err != nil {
			return nil, err
		}
		if n.Driver == netdriver.TypeHost || n.Driver == netdriver.TypeNull {
			return nil, invalid("container cannot be connected to %s network together with others", n.Name)
		}
		j := joint{network: n, key: key, set: spec.Networks[key], decider: e.plugin(n) != nil}
		for i := range have {
			if have[i].NetworkID == n.ID && have[i].Key != "" {
				j.have = &have[i]
			}
		}
		out = append(out, j)
	}
	if needsGatewayBridge(out) {
		gw, err := e.gatewayNetwork(ctx, all, slices.ContainsFunc(out, func(j joint) bool { return !j.network.Internal && j.network.has(true) }))
		if err != nil {
			return nil, err
		}
		out = append(out, joint{network: gw})
	}
	ports, err := portRequests(spec)
	if err != nil {
		return nil, err
	}
	lead, lead6 := gatewayOf(out, false), gatewayOf(out, true)
	if at := slices.IndexFunc(out, func(j joint) bool { return j.holdsPorts() }); at >= 0 {
		lead, lead6 = at, at
	}
	if lead >= 0 {
		out[lead].gateway = true
	}
	if lead6 >= 0 {
		out[lead6].gateway6 = true
	}
	if i := cmp.Or(lead+1, lead6+1) - 1; i >= 0 {
		out[i].publishes, out[i].ports = true, ports
	}
	return out, nameInterfaces(out, have)
}

// leadsOutside tells whether a network's endpoints can give a default route.
func (j *joint) leadsOutside() bool {
	if j.decider {
		return !j.network.Internal && j.have != nil && (j.have.Gateway.IsValid() || j.have.Gateway6.IsValid())
	}
	switch j.network.Driver {
	case netdriver.TypeBridge, netdriver.TypeMacvlan:
		return !j.network.Internal
	case netdriver.TypeCNI: // perhaps: its plugins tell when the endpoint is made
		return true
	}
	return false
}

// gives tells whether its endpoint can give a family's default route.
func (j *joint) gives(v6 bool) bool {
	switch {
	case !j.leadsOutside():
		return false
	case !j.decider:
		return j.network.has(v6) || j.network.foreign()
	case v6:
		return j.have.Gateway6.IsValid()
	}
	return j.have.Gateway.IsValid()
}

// holdsPorts tells whether its endpoint has ports that a foreign network's programs publish, and take back with the
// endpoint alone: it goes on leading outside, for what comes in by a port has to go out the same way.
func (j *joint) holdsPorts() bool {
	return j.network.foreign() && j.have != nil && len(j.have.Ports) > 0
}

// needsGatewayBridge tells whether the container may reach the outside and none of its networks leads there. One on
// internal networks alone may not. While one of them is undecided, that is not known: it does not.
func needsGatewayBridge(joints []joint) bool {
	outside := false
	for i := range joints {
		j := &joints[i]
		if j.undecided() || j.leadsOutside() || j.have != nil && j.have.NoGateway {
			return false
		}
		outside = outside || !joints[i].network.Internal
	}
	return outside
}

// gatewayOf chooses who gives a family's default route, docker's rule: the highest priority, then the first name. -1:
// nobody.
func gatewayOf(joints []joint, v6 bool) int {
	best := -1
	for i := range joints {
		if joints[i].gives(v6) && (best < 0 || before(&joints[i], &joints[best])) {
			best = i
		}
	}
	return best
}

func before(a, b *joint) bool {
	if d := cmp.Compare(priority(b), priority(a)); d != 0 {
		return d < 0
	}
	if a.network.foreign() != b.network.foreign() { // what is known to lead outside comes first
		return b.network.foreign()
	}
	return a.network.Name < b.network.Name
}

func priority(j *joint) int {
	if j.set == nil {
		return 0
	}
	return j.set.GwPriority
}

// Options of endpoints that docker's drivers know.
const (
	optionIfname  = "com.docker.network.endpoint.ifname"
	optionSysctls = "com.docker.network.endpoint.sysctls"
)

// nameInterfaces gives each joint its interface: the one it has, the one asked for, else the lowest unused ethN.
func nameInterfaces(joints []joint, have []container.Endpoint) error {
	used := map[string]string{} // interface -> network
	for _, ep := range have {   // also of endpoints that are about to go: they go last
		used[ep.Interface] = ep.NetworkName
	}
	for i := range joints {
		j := &joints[i]
		for _, ep := range have {
			if ep.NetworkID == j.network.ID && (ep.Key == "") == (j.key == "") {
				j.iface = ep.Interface
			}
		}
		if j.iface != "" || j.set == nil || j.set.DriverOpts[optionIfname] == "" {
			continue
		}
		j.iface = j.set.DriverOpts[optionIfname]
		if other, taken := used[j.iface]; taken {
			return conflict("interface name %s of network %s is in use on network %s: give another %s", j.iface, j.network.Name, other, optionIfname)
		}
		used[j.iface] = j.network.Name
	}
	for i := range joints {
		j := &joints[i]
		prefix := cmp.Or(j.network.Options[optionPrefix], "eth")
		for next := 0; j.iface == ""; next++ {
			if name := fmt.Sprintf("%s%d", prefix, next); used[name] == "" {
				j.iface = name
				used[name] = j.network.Name
			}
		}
	}
	return nil
}

// maxInterface is the longest name of an interface, in bytes (IFNAMSIZ less the zero).
const maxInterface = 15

func checkInterfaceName(s string) error {
	if s == "" || len(s) > maxInterface || s == "." || s == ".." || s == "lo" || strings.ContainsAny(s, "/: \t\r\n%") {
		return invalid("invalid %s %q: it must be an interface name of at most %d characters without slash, colon and space", optionIfname, s, maxInterface)
	}
	return nil
}

// endpointSysctls reads settings such as net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2. IFNAME
// stands for the endpoint's interface, whatever it is called: nothing else of the container can be set here.
func endpointSysctls(s string) (keys, values []string, err error) {
	for setting := range strings.SplitSeq(s, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(setting), "=")
		parts := strings.Split(key, ".")
		if !ok || len(parts) != 5 || parts[0] != "net" || parts[3] != "IFNAME" && parts[3] != "ifname" || strings.ContainsAny(key, "/ ") || parts[1] == "" || parts[2] == "" || parts[4] == "" {
			return nil, nil, invalid("invalid %s %q: settings must have the form net.X.Y.IFNAME.Z=value", optionSysctls, setting)
		}
		parts[3] = "IFNAME" // docker's client gives it in small letters
		keys, values = append(keys, strings.Join(parts, ".")), append(values, value)
	}
	return keys, values, nil
}

// checkDriverOpts refuses bad values of the options that endpoints know; others are a driver's, or nobody's, as with
// docker.
func checkDriverOpts(o map[string]string) error {
	if name, ok := o[optionIfname]; ok {
		if err := checkInterfaceName(name); err != nil {
			return err
		}
	}
	if s, ok := o[optionSysctls]; ok {
		if _, _, err := endpointSysctls(s); err != nil {
			return err
		}
	}
	return nil
}

package macvlan

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/nl"
)

// The options of docker's macvlan driver.
const (
	OptionParent = "parent"                        // the host's interface, or parent.ID for one of its VLANs
	OptionMode   = "macvlan_mode"                  // bridge, private, vepa or passthru; bridge
	OptionMTU    = "com.docker.network.driver.mtu" // bytes; the parent's
)

// Options are the names of all options the driver knows.
func (d *Driver) Options() []string { return []string{OptionParent, OptionMode, OptionMTU} }

// options is the parsed form of a network's options.
type options struct {
	parent string
	vlan   uint16 // of a parent to be made on base; 0: none
	base   string
	mode   nl.MacvlanMode
	mtu    int // 0: the parent's
}

// parse reads the options; ErrInvalidArgument names the option and its value.
func parse(n netdriver.Network) (options, error) {
	o := options{parent: n.Options[OptionParent], mode: nl.MacvlanBridge}
	if o.parent == "" && n.Internal {
		return o, fmt.Errorf("an internal macvlan network without a parent would need a dummy interface, which minictl does not make: give -o %s=IFACE, or make it a bridge network: %w",
			OptionParent, errdefs.ErrNotImplemented)
	}
	if o.parent == "" || len(o.parent) > 15 || strings.ContainsAny(o.parent, "/: \t\n") {
		return o, fmt.Errorf("option %s: %q is not an interface of this host; macvlan needs one, give -o %s=eth0: %w", OptionParent, o.parent, OptionParent, errdefs.ErrInvalidArgument)
	}
	if base, id, ok := strings.Cut(o.parent, "."); ok {
		if v, err := strconv.ParseUint(id, 10, 16); err == nil && v >= 1 && v <= 4094 { // IEEE 802.1Q; other names are just names
			o.base, o.vlan = base, uint16(v)
		}
	}
	if text := n.Options[OptionMode]; text != "" {
		mode, ok := map[string]nl.MacvlanMode{
			"bridge": nl.MacvlanBridge, "private": nl.MacvlanPrivate, "vepa": nl.MacvlanVEPA, "passthru": nl.MacvlanPassthru,
		}[text]
		if !ok {
			return o, fmt.Errorf("option %s: %q is not bridge, private, vepa or passthru: %w", OptionMode, text, errdefs.ErrInvalidArgument)
		}
		o.mode = mode
	}
	if text := n.Options[OptionMTU]; text != "" {
		v, err := strconv.Atoi(text)
		if err != nil || v != 0 && (v < 68 || v > 65535) { // RFC 791
			return o, fmt.Errorf("option %s: %q is not an MTU in 68 … 65535: %w", OptionMTU, text, errdefs.ErrInvalidArgument)
		}
		o.mtu = v
	}
	return o, nil
}

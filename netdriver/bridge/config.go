package bridge

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/firewall"
	"github.com/minictl/minictl/netdriver/guard"
)

// The options of docker's bridge driver that this one knows.
const (
	OptionName        = "com.docker.network.bridge.name"                    // the interface's name
	OptionICC         = "com.docker.network.bridge.enable_icc"              // containers reach each other; true
	OptionMasquerade  = "com.docker.network.bridge.enable_ip_masquerade"    // leaving packets get the host's address; true
	OptionHostBinding = "com.docker.network.bridge.host_binding_ipv4"       // published ports' default host address; the caller applies it
	OptionNoAddress   = "com.docker.network.bridge.inhibit_ipv4"            // the bridge gets no address; false
	OptionDefault     = "com.docker.network.bridge.default_bridge"          // the network called bridge: its gateway stands for the host
	OptionMode4       = "com.docker.network.bridge.gateway_mode_ipv4"       // nat, nat-unprotected, routed or isolated; nat
	OptionMode6       = "com.docker.network.bridge.gateway_mode_ipv6"       // the same
	OptionTrusted     = "com.docker.network.bridge.trusted_host_interfaces" // with colons between; published ports open at the containers' addresses
	OptionHost4       = "com.docker.network.host_ipv4"                      // leaving packets get this address
	OptionHost6       = "com.docker.network.host_ipv6"
	OptionPrefix      = "com.docker.network.container_iface_prefix" // of the containers' interfaces: eth; the caller applies it
	OptionMTU         = "com.docker.network.driver.mtu"             // bytes; 1500
)

const (
	defaultMTU = 1500  // docker's
	minMTU     = 68    // RFC 791
	maxMTU     = 65535 // the bridge device's limit
	maxName    = 15    // bytes of an interface's name (IFNAMSIZ less the zero)
	idDigits   = 12    // of a network's ID in br-…
)

// options is the parsed form of a network's options.
type options struct {
	name       string
	icc        bool
	masquerade bool
	noAddress  bool
	isDefault  bool
	mtu        int
	open       bool // containers may send with any source
	mode4      firewall.Mode
	mode6      firewall.Mode
	trusted    []string
	sources    []netip.Addr
}

// parse reads the options; ErrInvalidArgument names the option and its value.
func parse(n netdriver.Network) (options, error) {
	o := options{name: "br-" + string(n.ID[:min(idDigits, len(n.ID))]), icc: true, masquerade: true, mtu: defaultMTU}
	for _, b := range []struct {
		key string
		to  *bool
	}{{OptionICC, &o.icc}, {OptionMasquerade, &o.masquerade}, {OptionNoAddress, &o.noAddress}, {OptionDefault, &o.isDefault}} {
		text, ok := n.Options[b.key]
		if !ok {
			continue
		}
		v, err := strconv.ParseBool(text)
		if err != nil {
			return o, bad(b.key, text, "true or false")
		}
		*b.to = v
	}
	if text := n.Options[OptionName]; text != "" {
		if !validName(text) {
			return o, bad(OptionName, text, "an interface name: at most 15 characters, no slash, colon or space")
		}
		o.name = text
	}
	if text := n.Options[OptionMTU]; text != "" {
		v, err := strconv.Atoi(text)
		if err != nil || v != 0 && (v < minMTU || v > maxMTU) {
			return o, bad(OptionMTU, text, fmt.Sprintf("an MTU in %d … %d", minMTU, maxMTU))
		}
		if v != 0 { // 0 is docker's word for the default
			o.mtu = v
		}
	}
	if text := n.Options[OptionHostBinding]; text != "" {
		if _, err := netip.ParseAddr(text); err != nil {
			return o, bad(OptionHostBinding, text, "an IP address")
		}
	}
	if text := n.Options[OptionPrefix]; text != "" && (!validName(text) || len(text) > maxName-2) {
		return o, bad(OptionPrefix, text, "the beginning of an interface name: at most 13 characters, no slash, colon or space")
	}
	if err := o.parseWays(n); err != nil {
		return o, err
	}
	var err error
	o.open, err = guard.Off(n.Options)
	return o, err
}

// parseWays reads how containers and the world reach each other.
func (o *options) parseWays(n netdriver.Network) error {
	for _, m := range []struct {
		key string
		to  *firewall.Mode
	}{{OptionMode4, &o.mode4}, {OptionMode6, &o.mode6}} {
		switch mode := firewall.Mode(n.Options[m.key]); mode {
		case "", firewall.NAT, firewall.Unprotected, firewall.Routed:
			*m.to = mode
		case firewall.Isolated:
			if !n.Internal {
				return fmt.Errorf("option %s: gateway mode 'isolated' can only be used for an internal network, give --internal: %w", m.key, errdefs.ErrInvalidArgument)
			}
			*m.to = mode
		default:
			return bad(m.key, string(mode), "nat, nat-unprotected, routed or isolated")
		}
	}
	if text := n.Options[OptionTrusted]; text != "" {
		for name := range strings.SplitSeq(text, ":") {
			if name == "" || !validName(name) {
				return bad(OptionTrusted, text, "a list of interface names with colons between")
			}
			o.trusted = append(o.trusted, name)
		}
	}
	for _, h := range []struct {
		key string
		is4 bool
	}{{OptionHost4, true}, {OptionHost6, false}} {
		text := n.Options[h.key]
		if text == "" {
			continue
		}
		a, err := netip.ParseAddr(text)
		if err != nil || a.Is4() != h.is4 || a.IsUnspecified() || a.Zone() != "" {
			return bad(h.key, text, map[bool]string{true: "an IPv4 address", false: "an IPv6 address"}[h.is4])
		}
		o.sources = append(o.sources, a)
	}
	return nil
}

// mode is the mode of an address's family.
func (o options) mode(a netip.Addr) firewall.Mode {
	if a.Is4() {
		return o.mode4
	}
	return o.mode6
}

// Options are the names of all options the driver knows.
func (d *Driver) Options() []string {
	return []string{
		OptionName, OptionICC, OptionMasquerade, OptionHostBinding, OptionNoAddress, OptionDefault, OptionMode4, OptionMode6, OptionTrusted,
		OptionHost4, OptionHost6, OptionPrefix, OptionMTU, guard.Option,
	}
}

// bad is the refusal of an option's value.
func bad(key, value, want string) error {
	return fmt.Errorf("option %s: %q is not %s: %w", key, value, want, errdefs.ErrInvalidArgument)
}

// validName follows the kernel's dev_valid_name, and refuses a leading dash, which no tool could name.
func validName(s string) bool {
	return len(s) <= maxName && s != "." && s != ".." && s[0] != '-' && !strings.ContainsAny(s, "/:% \t\n\v\f\r")
}

// aliasPrefix starts the alias of every bridge we made; the network's ID follows.
const aliasPrefix = "minictl network "

// alias is the remark on a network's bridge.
func alias(id netdriver.NetworkID) string { return aliasPrefix + string(id) }

// owner reads alias back; ok is false for a bridge we did not make.
func owner(text string) (id netdriver.NetworkID, ok bool) {
	rest, ok := strings.CutPrefix(text, aliasPrefix)
	return netdriver.NetworkID(rest), ok
}

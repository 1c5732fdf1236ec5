package bridge

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/guard"
)

// The options of docker's bridge driver that this one knows.
const (
	OptionName        = "com.docker.network.bridge.name"                 // the interface's name
	OptionICC         = "com.docker.network.bridge.enable_icc"           // containers reach each other; true
	OptionMasquerade  = "com.docker.network.bridge.enable_ip_masquerade" // leaving packets get the host's address; true
	OptionHostBinding = "com.docker.network.bridge.host_binding_ipv4"    // published ports' default host address; the caller applies it
	OptionNoAddress   = "com.docker.network.bridge.inhibit_ipv4"         // the bridge gets no address; false
	OptionDefault     = "com.docker.network.bridge.default_bridge"       // the network called bridge: its gateway stands for the host
	OptionMode        = "com.docker.network.bridge.gateway_mode_ipv4"    // nat only
	OptionMTU         = "com.docker.network.driver.mtu"                  // bytes; 1500
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
	if text := n.Options[OptionMode]; text != "" && text != "nat" {
		return o, bad(OptionMode, text, "nat, the only mode there is")
	}
	var err error
	o.open, err = guard.Off(n.Options)
	return o, err
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

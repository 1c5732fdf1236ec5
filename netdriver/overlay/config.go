package overlay

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/guard"
	"github.com/minictl/minictl/netdriver/ipam"
	"github.com/minictl/minictl/netdriver/nl"
)

// OptionMTU is the option that sets the containers' MTU, in bytes. What the tunnels cannot carry is cut to what they
// can: a packet that vanishes is worse than a smaller one.
const OptionMTU = "com.docker.network.driver.mtu"

// OptionVNI is docker's, where it names an identifier for each subnet. Here all subnets of a network share one tunnel, and
// so one identifier.
const OptionVNI = "com.docker.network.driver.overlay.vxlanid_list"

// optionEncrypted is docker's; a network that only looks encrypted would be worse than none.
const optionEncrypted = "encrypted"

// The outer headers of RFC 7348: Ethernet 14, IP 20 or 40, UDP 8, VXLAN 8.
const (
	overheadIPv4 = 50 // bytes
	overheadIPv6 = 70
	defaultMTU   = 1500 // of the data path while there is none
	minMTU       = 68   // RFC 791
	maxMTU       = 65535
	maxVNI       = 1<<24 - 1
)

// options is the parsed form of a network's options.
type options struct {
	mtu  int  // 0: not given
	open bool // containers may send with any source
}

// parse reads the options and checks the rest of the network.
func parse(n netdriver.Network) (o options, err error) {
	if n.VNI == 0 || n.VNI > maxVNI {
		return o, fmt.Errorf("network %s: VNI %d is not in 1 … %d: %w", n.Name, n.VNI, maxVNI, errdefs.ErrInvalidArgument)
	}
	if len(n.Subnets) == 0 {
		return o, fmt.Errorf("network %s: it has no subnet: %w", n.Name, errdefs.ErrInvalidArgument)
	}
	if text, ok := n.Options[OptionMTU]; ok && text != "" {
		mtu, err := strconv.Atoi(text)
		if err != nil || mtu < minMTU || mtu > maxMTU {
			return o, fmt.Errorf("option %s: %q is not an MTU in %d … %d: %w", OptionMTU, text, minMTU, maxMTU, errdefs.ErrInvalidArgument)
		}
		o.mtu = mtu
	}
	if text, ok := n.Options[optionEncrypted]; ok && text != "false" {
		return o, fmt.Errorf("option %s: minictl does not encrypt what goes between hosts; leave it out, and let the hosts reach each other by a VPN if their network is not to be trusted: %w",
			optionEncrypted, errdefs.ErrNotImplemented)
	}
	switch asked, err := askedVNI(n); {
	case err != nil:
		return o, err
	case asked != 0 && asked != n.VNI:
		return o, fmt.Errorf("option %s: %d is asked for, VNI %d was given: %w", OptionVNI, asked, n.VNI, errdefs.ErrInvalidArgument)
	}
	o.open, err = guard.Off(n.Options)
	return o, err
}

// AskedVNI is the VXLAN identifier that the user chose for a network; 0 if he did not. ErrInvalidArgument names the option
// and its value.
func (d *Driver) AskedVNI(n netdriver.Network) (uint32, error) { return askedVNI(n) }

func askedVNI(n netdriver.Network) (uint32, error) {
	text := n.Options[OptionVNI]
	if text == "" {
		return 0, nil
	}
	if strings.Contains(text, ",") {
		return 0, fmt.Errorf("option %s: %q: all subnets of a network share one VXLAN identifier here, name one only: %w", OptionVNI, text, errdefs.ErrNotImplemented)
	}
	vni, err := strconv.ParseUint(text, 10, 32)
	if err != nil || vni == 0 || vni > maxVNI {
		return 0, fmt.Errorf("option %s: %q is not a VXLAN identifier in 1 … %d: %w", OptionVNI, text, maxVNI, errdefs.ErrInvalidArgument)
	}
	return uint32(vni), nil
}

// want is the whole wish for a network's devices.
type want struct {
	file     string // of the namespace
	id       netdriver.NetworkID
	gateways []netip.Prefix // br0's addresses
	subnets  []netip.Prefix
	mac      net.HardwareAddr // br0's
	mtu      int              // bytes
	open     bool             // the ports are not guarded
	tunnel   nl.VXLAN         // its Local is invalid while there is no data path
	keep     bool             // the data path is not known yet: a tunnel device that is there stays
}

// want derives the wish from the network and the data path.
func (d *Driver) want(own *network) (want, error) {
	n := *own.wish
	path, stated := d.dataPath()
	o, err := parse(n)
	if err != nil {
		return want{}, err
	}
	w := want{file: d.file(n.ID), id: n.ID, mtu: fit(o.mtu, path), open: o.open, keep: !stated}
	for _, s := range n.Subnets {
		w.subnets = append(w.subnets, s.Prefix.Masked())
		if s.Gateway.IsValid() {
			w.gateways = append(w.gateways, netip.PrefixFrom(s.Gateway, s.Prefix.Bits()))
		}
	}
	// The same MAC on every host, so that the gateway looks the same wherever a container runs. The hosts' bridges
	// never meet: nothing is flooded into a tunnel without a row for it.
	first := n.Subnets[0].Gateway
	if !first.IsValid() {
		first = n.Subnets[0].Prefix.Addr()
	}
	w.mac = ipam.MAC(first)
	if path.Addr.IsValid() {
		w.tunnel = nl.VXLAN{VNI: n.VNI, Port: path.Port, Local: path.Addr.Unmap(), Static: true}
	}
	return w, nil
}

// fit gives the MTU inside the tunnels: as asked, and never more than fits.
func fit(asked int, path netdriver.DataPath) int {
	outer := path.MTU
	if outer == 0 {
		outer = defaultMTU
	}
	room := outer - overheadIPv4
	if path.Addr.Is6() && !path.Addr.Is4In6() {
		room = outer - overheadIPv6
	}
	if asked == 0 || path.Addr.IsValid() && asked > room {
		return room
	}
	return asked
}

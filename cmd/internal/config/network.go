package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"

	"github.com/minictl/minictl/netdriver/bridge"
)

// Networks are the settings of networks and resolvers that dockerd has flags for.
type Networks struct {
	IPv6                         bool
	BIP, BIP6                    string // of the default bridge: its own address and prefix length
	FixedCIDR, FixedCIDR6        string // where its containers' addresses come from
	MTU                          int    // bytes; 0: the driver's
	ICC, Masquerade              bool
	HostIP                       string // the host address of its containers' ports that name none
	Proxy                        bool   // ports are relayed where no rule can lead
	IPTables, IP6Tables, Forward bool

	Options    networkOptions // of user-defined networks, unless they say, by driver
	DNS        []string
	DNSSearch  []string
	DNSOptions []string

	Bridge  network.CreateRequest // the default bridge, made of the above by complete
	Servers []netip.Addr          // DNS, read
}

func (n *Networks) flags(f *pflag.FlagSet) {
	f.BoolVar(&n.IPv6, "ipv6", false, "IPv6 on the default bridge, with a unique local subnet unless --bip6 or --fixed-cidr-v6 gives one")
	f.StringVar(&n.BIP, "bip", "", "address and prefix length of the default bridge, such as 192.168.5.1/24")
	f.StringVar(&n.BIP6, "bip6", "", "the same for IPv6")
	f.StringVar(&n.FixedCIDR, "fixed-cidr", "", "where the default bridge's containers get their IPv4 addresses")
	f.StringVar(&n.FixedCIDR6, "fixed-cidr-v6", "", "where they get their IPv6 addresses")
	f.IntVar(&n.MTU, "mtu", 0, "MTU of the default bridge in bytes (default 1500)")
	f.BoolVar(&n.ICC, "icc", true, "containers on the default bridge reach each other")
	f.BoolVar(&n.Masquerade, "ip-masq", true, "what leaves the default bridge gets the host's address")
	f.StringVar(&n.HostIP, "ip", "", "host address of the default bridge's published ports that name none (default: every address)")
	f.BoolVar(&n.Proxy, "userland-proxy", true, "relay published ports where no rule can lead: on ::1, and by IPv6 to containers without it")
	f.BoolVar(&n.IPTables, "iptables", true, "write packet rules; cannot be switched off")
	f.BoolVar(&n.IP6Tables, "ip6tables", true, "write packet rules for IPv6; cannot be switched off")
	f.BoolVar(&n.Forward, "ip-forward", true, "switch the host's forwarding on; cannot be switched off")
	n.Options = networkOptions{}
	f.Var(n.Options, "default-network-opt", "DRIVER=KEY=VALUE, options of user-defined networks that do not say, such as bridge=com.docker.network.driver.mtu=1400")
	f.StringArrayVar(&n.DNS, "dns", nil, "server that containers ask which say none (default: the host's)")
	f.StringArrayVar(&n.DNSSearch, "dns-search", nil, "search domain of containers that say none (default: the host's)")
	f.StringArrayVar(&n.DNSOptions, "dns-opt", nil, "resolver option of containers that say none (default: the host's)")
}

// complete reads what was given and refuses what cannot be.
func (n *Networks) complete() error {
	for flag, on := range map[string]bool{"--iptables": n.IPTables, "--ip6tables": n.IP6Tables, "--ip-forward": n.Forward} {
		if !on {
			return fmt.Errorf("%s=false: minictl's networks cannot be without; it keeps to a table and to bridges of its own", flag)
		}
	}
	for _, s := range n.DNS {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("--dns %q: want an IP address", s)
		}
		n.Servers = append(n.Servers, a)
	}
	four, err := subnet("bip", n.BIP, "fixed-cidr", n.FixedCIDR, false)
	if err != nil {
		return err
	}
	six, err := subnet("bip6", n.BIP6, "fixed-cidr-v6", n.FixedCIDR6, true)
	if err != nil {
		return err
	}
	if six.Subnet.IsValid() && !n.IPv6 {
		return errors.New("--bip6 and --fixed-cidr-v6 go with --ipv6")
	}
	n.Bridge = network.CreateRequest{}
	for _, c := range []network.IPAMConfig{four, six} {
		if c.Subnet.IsValid() && n.Bridge.IPAM == nil {
			n.Bridge.IPAM = &network.IPAM{}
		}
		if c.Subnet.IsValid() {
			n.Bridge.IPAM.Config = append(n.Bridge.IPAM.Config, c)
		}
	}
	if n.IPv6 {
		n.Bridge.EnableIPv6 = &n.IPv6
	}
	return n.bridgeOptions()
}

// bridgeOptions makes options of the settings that are not the driver's own.
func (n *Networks) bridgeOptions() error {
	set := map[string]string{}
	if n.MTU != 0 {
		set[bridge.OptionMTU] = strconv.Itoa(n.MTU)
	}
	if !n.ICC {
		set[bridge.OptionICC] = "false"
	}
	if !n.Masquerade {
		set[bridge.OptionMasquerade] = "false"
	}
	if n.HostIP != "" {
		if _, err := netip.ParseAddr(n.HostIP); err != nil {
			return fmt.Errorf("--ip %q: want an IP address", n.HostIP)
		}
		set[bridge.OptionHostBinding] = n.HostIP
	}
	if len(set) > 0 {
		n.Bridge.Options = set
	}
	return nil
}

// subnet reads the default bridge's address and range of one family. A range alone is the whole subnet.
func subnet(bip, address, cidr, fixed string, v6 bool) (c network.IPAMConfig, err error) {
	read := func(flag, text string) (netip.Prefix, error) {
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Addr().Is6() != v6 {
			return p, fmt.Errorf("--%s %q: want an %s address and a prefix length", flag, text, map[bool]string{true: "IPv6", false: "IPv4"}[v6])
		}
		return p, nil
	}
	if address != "" {
		p, err := read(bip, address)
		if err != nil {
			return c, err
		}
		if p == p.Masked() {
			return c, fmt.Errorf("--%s %q: want the bridge's own address, such as %s, not a network's", bip, address, netip.PrefixFrom(p.Addr().Next(), p.Bits()))
		}
		c.Subnet, c.Gateway = p.Masked(), p.Addr()
	}
	if fixed == "" {
		return c, nil
	}
	p, err := read(cidr, fixed)
	switch {
	case err != nil:
		return c, err
	case !c.Subnet.IsValid():
		c.Subnet = p.Masked()
	case !c.Subnet.Contains(p.Addr()) || p.Bits() < c.Subnet.Bits():
		return c, fmt.Errorf("--%s %s is not within --%s %s", cidr, fixed, bip, address)
	default:
		c.IPRange = p.Masked()
	}
	return c, nil
}

// networkOptions is the value of --default-network-opt: options by driver.
type networkOptions map[string]map[string]string

// Type is networkOptions.
func (networkOptions) Type() string { return "networkOptions" }

// String shows the options.
func (o networkOptions) String() string { return strings.Join(o.GetSlice(), " ") }

// GetSlice gives the options as Set takes them.
func (o networkOptions) GetSlice() (out []string) {
	for _, driver := range slices.Sorted(maps.Keys(o)) {
		for _, key := range slices.Sorted(maps.Keys(o[driver])) {
			out = append(out, driver+"="+key+"="+o[driver][key])
		}
	}
	return out
}

// Set adds one.
func (o networkOptions) Set(text string) error {
	driver, option, _ := strings.Cut(text, "=")
	key, value, ok := strings.Cut(option, "=")
	if !ok || driver == "" || key == "" {
		return fmt.Errorf("invalid option %q: want DRIVER=KEY=VALUE", text)
	}
	if o[driver] == nil {
		o[driver] = map[string]string{}
	}
	o[driver][key] = value
	return nil
}

// setOptions gives the flag a file's object: dockerd's, of options by driver.
func (o networkOptions) setOptions(value json.RawMessage) error {
	var all map[string]map[string]string
	if err := strict(value, &all, `an object such as {"bridge": {"com.docker.network.driver.mtu": "1400"}}`); err != nil {
		return err
	}
	for driver, options := range all {
		for key, v := range options {
			if err := o.Set(driver + "=" + key + "=" + v); err != nil {
				return err
			}
		}
	}
	return nil
}

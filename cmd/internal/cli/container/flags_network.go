package container

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/docker/go-connections/nat"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

// networkFlags say which networks the container joins, as whom, and which of its ports are published.
type networkFlags struct {
	networks                          opts.NetworkOpt
	aliases, links, linkLocal         opts.ListOpts
	ip, ip6                           net.IP
	mac                               string
	dns, dnsOptions, dnsSearch, hosts opts.ListOpts
	publish, expose                   opts.ListOpts
	publishAll                        bool
}

func (f *networkFlags) add(fs *pflag.FlagSet) {
	f.aliases, f.linkLocal = opts.NewListOpts(nil), opts.NewListOpts(opts.ValidateIPAddress)
	f.links = opts.NewListOpts(opts.ValidateLink)
	f.dns, f.dnsOptions = opts.NewListOpts(opts.ValidateIPAddress), opts.NewListOpts(nil)
	f.dnsSearch, f.hosts = opts.NewListOpts(opts.ValidateDNSSearch), opts.NewListOpts(opts.ValidateExtraHost)
	f.publish, f.expose = opts.NewListOpts(nil), opts.NewListOpts(nil)
	fs.Var(&f.networks, "network", "Connect a container to a network")
	fs.Var(&f.aliases, "network-alias", "Add network-scoped alias for the container")
	fs.IPVar(&f.ip, "ip", nil, "IPv4 address (e.g., 172.30.100.104)")
	fs.IPVar(&f.ip6, "ip6", nil, "IPv6 address (e.g., 2001:db8::33)")
	fs.Var(&f.linkLocal, "link-local-ip", "Container IPv4/IPv6 link-local addresses")
	fs.Var(&f.links, "link", "Add link to another container")
	fs.StringVar(&f.mac, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	fs.Var(&f.dns, "dns", "Set custom DNS servers")
	fs.Var(&f.dnsOptions, "dns-option", "Set DNS options")
	fs.Var(&f.dnsSearch, "dns-search", "Set custom DNS search domains")
	fs.Var(&f.hosts, "add-host", "Add a custom host-to-IP mapping (host:ip)")
	fs.VarP(&f.publish, "publish", "p", "Publish a container's port(s) to the host")
	fs.BoolVarP(&f.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	fs.Var(&f.expose, "expose", "Expose a port or a range of ports")
	// Docker's older spellings, accepted and not shown.
	fs.Var(&f.networks, "net", "Connect a container to a network")
	fs.Var(&f.aliases, "net-alias", "Add network-scoped alias for the container")
	fs.Var(&f.dnsOptions, "dns-opt", "Set DNS options")
	for _, old := range []string{"net", "net-alias", "dns-opt"} {
		_ = fs.MarkHidden(old) // errs only for a flag that does not exist
	}
}

// applyPorts expands -p and --expose (ranges, addresses, protocols) into single ports, and sets the names.
func (f *networkFlags) applyPorts(c *container.Config, h *container.HostConfig) error {
	specs := make([]string, 0, f.publish.Len())
	for _, p := range f.publish.GetSlice() {
		short, err := shortPort(p)
		if err != nil {
			return err
		}
		specs = append(specs, short)
	}
	exposed, bindings, err := nat.ParsePortSpecs(specs)
	if err != nil {
		return err
	}
	c.ExposedPorts, h.PortBindings = network.PortSet{}, network.PortMap{}
	for p := range exposed {
		port, err := network.ParsePort(string(p))
		if err != nil {
			return err
		}
		c.ExposedPorts[port] = struct{}{}
		if h.PortBindings[port], err = portBindings(bindings[p]); err != nil {
			return err
		}
	}
	for _, e := range f.expose.GetSlice() {
		r, err := network.ParsePortRange(e)
		if err != nil {
			return fmt.Errorf("invalid range format for --expose: %w", err)
		}
		for port := range r.All() {
			c.ExposedPorts[port] = struct{}{}
		}
	}
	h.PublishAllPorts = f.publishAll
	h.NetworkMode = container.NetworkMode(f.networks.NetworkMode())
	h.Links, h.ExtraHosts = f.links.GetSlice(), f.hosts.GetSlice()
	h.DNS, h.DNSSearch, h.DNSOptions = addrs(f.dns.GetSlice()), f.dnsSearch.GetAllOrEmpty(), f.dnsOptions.GetAllOrEmpty()
	return nil
}

// portBindings is docker's older type in the API's newer one.
func portBindings(in []nat.PortBinding) ([]network.PortBinding, error) {
	out := make([]network.PortBinding, 0, len(in))
	for _, b := range in {
		binding := network.PortBinding{HostPort: b.HostPort}
		if b.HostIP != "" {
			ip, err := netip.ParseAddr(b.HostIP)
			if err != nil {
				return nil, err
			}
			binding.HostIP = ip
		}
		out = append(out, binding)
	}
	return out, nil
}

// shortPort turns published=8080,target=80,protocol=tcp into the short form.
func shortPort(p string) (string, error) {
	if !strings.Contains(p, "=") {
		return p, nil
	}
	given := map[string]string{"protocol": "tcp"}
	for field := range strings.SplitSeq(p, ",") {
		k, v, ok := strings.Cut(field, "=")
		if !ok || k == "" {
			return "", fmt.Errorf("invalid publish opts format (should be name=value but got '%s')", field)
		}
		given[k] = v
	}
	return given["published"] + ":" + given["target"] + "/" + given["protocol"], nil
}

// endpoints gives every --network its settings. The flags that name no network (--ip, --network-alias …) are the
// first one's, as before docker knew several.
func (f *networkFlags) endpoints() (map[string]*network.EndpointSettings, error) {
	wanted := f.networks.Value()
	if len(wanted) == 0 {
		wanted = []opts.NetworkAttachmentOpts{{Target: "default"}}
	}
	out := make(map[string]*network.EndpointSettings, len(wanted))
	var user, special bool
	for i, n := range wanted {
		if i == 0 {
			if err := f.mergeInto(&n); err != nil {
				return nil, err
			}
		}
		if _, twice := out[n.Target]; twice {
			return nil, fmt.Errorf("network %q is specified multiple times", n.Target)
		}
		ep, err := endpoint(n)
		if err != nil {
			return nil, err
		}
		out[n.Target] = ep
		if len(f.networks.Value()) == 1 && reflect.ValueOf(*ep).IsZero() {
			delete(out, n.Target) // nothing to say beyond NetworkMode, which names it: docker's wire form
		}
		defined := container.NetworkMode(n.Target).IsUserDefined()
		user, special = user || defined, special || !defined
	}
	if user && special {
		return nil, errors.New("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
	}
	return out, nil
}

// mergeInto adds the flags without a network to n, and refuses the same thing said twice.
func (f *networkFlags) mergeInto(n *opts.NetworkAttachmentOpts) error {
	ip, _ := netip.AddrFromSlice(f.ip)
	ip6, _ := netip.AddrFromSlice(f.ip6)
	for _, c := range []struct {
		twice      bool
		flag, name string
	}{
		{len(n.Aliases) > 0 && f.aliases.Len() > 0, "--network-alias", "alias"},
		{len(n.Links) > 0 && f.links.Len() > 0, "--link", "links"},
		{n.IPv4Address.IsValid() && ip.IsValid(), "--ip", "IPv4 address"},
		{n.IPv6Address.IsValid() && ip6.IsValid(), "--ip6", "IPv6 address"},
		{n.MacAddress != "" && f.mac != "", "--mac-address", "MAC address"},
		{len(n.LinkLocalIPs) > 0 && f.linkLocal.Len() > 0, "--link-local-ip", "link-local IP addresses"},
	} {
		if c.twice {
			return fmt.Errorf("conflicting options: cannot specify both %s and per-network %s", c.flag, c.name)
		}
	}
	n.Aliases = append(n.Aliases, f.aliases.GetSlice()...)
	// On the default bridge a link is HostConfig's old kind, with environment variables; elsewhere an alias.
	if container.NetworkMode(n.Target).IsUserDefined() {
		n.Links = append(n.Links, f.links.GetSlice()...)
	}
	if ip.IsValid() {
		n.IPv4Address = ip.Unmap()
	}
	if ip6.IsValid() {
		n.IPv6Address = ip6
	}
	if f.mac != "" {
		n.MacAddress = f.mac
	}
	n.LinkLocalIPs = append(n.LinkLocalIPs, addrs(f.linkLocal.GetSlice())...)
	return nil
}

// endpoint refuses names on networks without a resolver, where the daemon would have nobody to tell them to.
func endpoint(n opts.NetworkAttachmentOpts) (*network.EndpointSettings, error) {
	if strings.TrimSpace(n.Target) == "" {
		return nil, errors.New("no name set for network")
	}
	if !container.NetworkMode(n.Target).IsUserDefined() {
		if len(n.Aliases) > 0 {
			return nil, errors.New("network-scoped aliases are only supported for user-defined networks")
		}
		if len(n.Links) > 0 {
			return nil, errors.New("links are only supported for user-defined networks")
		}
	}
	ep := &network.EndpointSettings{Links: n.Links, DriverOpts: n.DriverOpts, GwPriority: n.GwPriority}
	if len(n.Aliases) > 0 {
		ep.Aliases = n.Aliases // docker's parser gives an empty list where there is none
	}
	if n.IPv4Address.IsValid() || n.IPv6Address.IsValid() || len(n.LinkLocalIPs) > 0 {
		ep.IPAMConfig = &network.EndpointIPAMConfig{
			IPv4Address: n.IPv4Address, IPv6Address: n.IPv6Address, LinkLocalIPs: n.LinkLocalIPs,
		}
	}
	if n.MacAddress != "" {
		mac, err := net.ParseMAC(strings.TrimSpace(n.MacAddress))
		if err != nil {
			return nil, fmt.Errorf("%s is not a valid mac address", n.MacAddress)
		}
		ep.MacAddress = network.HardwareAddr(mac)
	}
	return ep, nil
}

// addrs converts what a validator has already accepted.
func addrs(in []string) []netip.Addr {
	out := make([]netip.Addr, 0, len(in))
	for _, s := range in {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a)
		}
	}
	return out
}

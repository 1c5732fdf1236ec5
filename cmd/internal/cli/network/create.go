package network

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

type createOptions struct {
	driver, scope, configFrom                 string
	internal, attachable, ingress, configOnly bool
	ipv4, ipv6                                bool
	driverOpts                                *opts.MapOpts
	labels                                    opts.ListOpts
	ipam                                      ipamOptions
}

func newCreateCommand(c *console.Console) *cobra.Command {
	o := createOptions{driverOpts: opts.NewMapOpts(nil, nil), labels: opts.NewListOpts(opts.ValidateLabel)}
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] NETWORK",
		Short: "Create a network",
		Example: `  minictl network create -d overlay ov_net1
  minictl network create -d overlay --subnet 10.22.1.0/24 ov_net3`,
		Args:                  console.Exactly(1),
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			request, err := o.request(cmd)
			if err != nil {
				return err
			}
			cl, err := c.Client()
			if err != nil {
				return err
			}
			return runCreate(cmd.Context(), cl, c, args[0], request)
		},
	}
	o.add(cmd)
	return cmd
}

// add takes all of docker's flags; those this daemon cannot honour it refuses by name, which the client need not repeat.
func (o *createOptions) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVarP(&o.driver, "driver", "d", "bridge", "Driver to manage the network")
	fs.VarP(o.driverOpts, "opt", "o", "Set driver specific options")
	fs.Var(&o.labels, "label", "Set metadata on a network")
	fs.BoolVar(&o.internal, "internal", false, "Restrict external access to the network")
	fs.BoolVar(&o.ipv4, "ipv4", true, "Enable or disable IPv4 address assignment")
	fs.BoolVar(&o.ipv6, "ipv6", false, "Enable or disable IPv6 address assignment")
	fs.BoolVar(&o.attachable, "attachable", false, "Enable manual container attachment")
	fs.BoolVar(&o.ingress, "ingress", false, "Create swarm routing-mesh network")
	fs.StringVar(&o.scope, "scope", "", "Control the network's scope")
	fs.BoolVar(&o.configOnly, "config-only", false, "Create a configuration only network")
	fs.StringVar(&o.configFrom, "config-from", "", "The network from which to copy the configuration")
	o.ipam.add(fs)
	_ = cmd.RegisterFlagCompletionFunc("driver", cobra.FixedCompletions(
		[]string{"bridge", "overlay", "macvlan", "cni"}, cobra.ShellCompDirectiveNoFileComp))
}

func (o *createOptions) request(cmd *cobra.Command) (client.NetworkCreateOptions, error) {
	ipam, err := o.ipam.config()
	if err != nil {
		return client.NetworkCreateOptions{}, err
	}
	r := client.NetworkCreateOptions{
		Driver: o.driver, Scope: o.scope, IPAM: ipam, Internal: o.internal, Attachable: o.attachable,
		Ingress: o.ingress, ConfigOnly: o.configOnly, ConfigFrom: o.configFrom,
		Options: o.driverOpts.GetAll(), Labels: opts.ConvertKVStringsToMap(o.labels.GetSlice()),
	}
	// Unsaid is the daemon's default, which is not the same as saying the flag's.
	if cmd.Flags().Changed("ipv4") {
		r.EnableIPv4 = &o.ipv4
	}
	if cmd.Flags().Changed("ipv6") {
		r.EnableIPv6 = &o.ipv6
	}
	return r, nil
}

// createClient is what create needs of the daemon.
type createClient interface {
	NetworkCreate(ctx context.Context, name string, o client.NetworkCreateOptions) (client.NetworkCreateResult, error)
}

// runCreate prints the ID alone on stdout; unknown options come back as warnings.
func runCreate(ctx context.Context, cl createClient, c *console.Console, name string, r client.NetworkCreateOptions) error {
	res, err := cl.NetworkCreate(ctx, name, r)
	if err != nil {
		return err
	}
	c.Warn(res.Warning)
	fmt.Fprintln(c.Out, res.ID)
	return nil
}

// connectOptions are connect's flags.
type connectOptions struct {
	ip, ip6    addrFlag
	linkLocal  []string
	links      opts.ListOpts
	aliases    []string
	driverOpts []string
	gwPriority int
}

func newConnectCommand(c *console.Console) *cobra.Command {
	o := connectOptions{links: opts.NewListOpts(opts.ValidateLink)}
	cmd := &cobra.Command{
		Use:                   "connect [OPTIONS] NETWORK CONTAINER",
		Short:                 "Connect a container to a network",
		Example:               "  minictl network connect --alias db ov_net1 bbox1",
		Args:                  console.Exactly(2),
		ValidArgsFunction:     complete.Then(complete.Networks(c), complete.Containers(c, true)),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
			ep, err := o.endpoint()
			if err != nil {
				return err
			}
			_, err = cl.NetworkConnect(ctx, args[0],
				client.NetworkConnectOptions{Container: args[1], EndpointConfig: ep})
			return err
		}),
	}
	fs := cmd.Flags()
	fs.Var(&o.ip, "ip", `IPv4 address (e.g., "172.30.100.104")`)
	fs.Var(&o.ip6, "ip6", `IPv6 address (e.g., "2001:db8::33")`)
	fs.StringSliceVar(&o.linkLocal, "link-local-ip", nil, "Add a link-local address for the container")
	fs.Var(&o.links, "link", "Add link to another container")
	fs.StringSliceVar(&o.aliases, "alias", nil, "Add network-scoped alias for the container")
	fs.StringSliceVar(&o.driverOpts, "driver-opt", nil, "Driver options for the network")
	fs.IntVar(&o.gwPriority, "gw-priority", 0,
		"Highest gw-priority provides the default gateway. Accepts positive and negative values.")
	return cmd
}

// endpoint leaves IPAMConfig out when no address is asked for: an empty one reads as a wish to some daemons.
func (o *connectOptions) endpoint() (*network.EndpointSettings, error) {
	ipam := &network.EndpointIPAMConfig{IPv4Address: o.ip.Addr, IPv6Address: o.ip6.Addr}
	for _, s := range o.linkLocal {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("--link-local-ip: %w", err)
		}
		ipam.LinkLocalIPs = append(ipam.LinkLocalIPs, a)
	}
	ep := &network.EndpointSettings{Links: o.links.GetSlice(), Aliases: o.aliases,
		DriverOpts: opts.ConvertKVStringsToMap(o.driverOpts), GwPriority: o.gwPriority}
	if ipam.IPv4Address.IsValid() || ipam.IPv6Address.IsValid() || len(ipam.LinkLocalIPs) > 0 {
		ep.IPAMConfig = ipam
	}
	return ep, nil
}

// addrFlag is a flag that holds one address.
type addrFlag struct{ netip.Addr }

// Set reads the flag's value.
func (a *addrFlag) Set(s string) (err error) {
	a.Addr, err = netip.ParseAddr(s)
	return err
}

// String is the flag's value; empty when it was not given.
func (a *addrFlag) String() string {
	if !a.IsValid() {
		return ""
	}
	return a.Addr.String()
}

// Type is the placeholder in the help.
func (*addrFlag) Type() string { return "ip" }

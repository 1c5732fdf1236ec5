package cli

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/console"
)

// hostResolver is where minictl dns looks unless told: the address that --host-dns' help shows.
const hostResolver = "127.0.0.153"

// newDNSCommand gives minictl dns.
func newDNSCommand(c *console.Console) *cobra.Command {
	var server string
	cmd := &cobra.Command{
		Use:   "dns [OPTIONS] [NAME]",
		Short: "Say how programs of this host find containers by name, or find one",
		Long: `With a daemon that was started with --host-dns 127.0.0.153, programs of this host find containers as NAME.minictl,
NAME.NETWORK.minictl and NAME. Without a NAME the command says what to type so that they ask there; with one it asks.

A container on an overlay of this host is given by its address on the gateway bridge, by which the host reaches it;
those of other hosts by their address on the overlay, into which a host has no way.`,
		Example: `  minictl dns
  minictl dns web1`,
		Args:                  console.Between(0, 1),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				fmt.Fprintf(c.Out, dnsHelp, server)
				return nil
			}
			return askHost(cmd.Context(), c, server, args[0])
		},
	}
	cmd.Flags().StringVar(&server, "server", hostResolver, "`address` that the daemon's --host-dns names")
	return cmd
}

// dnsHelp is what to type, with the server's address in it.
const dnsHelp = `The daemon serves names at %[1]s when it is started with --host-dns %[1]s, or with
"host-dns": "%[1]s" in its configuration file.

With systemd-resolved, names below minictl (web1.minictl) go there and nothing else:
  mkdir -p /etc/systemd/resolved.conf.d
  printf '[Resolve]\nDNS=%[1]s\nDomains=~minictl\n' > /etc/systemd/resolved.conf.d/minictl.conf
  systemctl restart systemd-resolved

Without it, make this the first line of /etc/resolv.conf; what is no container's name is asked of the next one:
  nameserver %[1]s
`

// askHost asks the daemon's resolver for one name.
func askHost(ctx context.Context, c *console.Console, server, name string) error {
	at := server
	if _, _, err := net.SplitHostPort(server); err != nil {
		at = net.JoinHostPort(server, "53")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, at)
	}}
	addrs, err := r.LookupHost(ctx, name+".minictl.")
	if err != nil {
		return fmt.Errorf("find %s at %s: %w: is the daemon started with --host-dns?", name, server, err)
	}
	for _, a := range addrs {
		fmt.Fprintln(c.Out, a)
	}
	return nil
}

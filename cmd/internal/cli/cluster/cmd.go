// Package cluster has the commands that make hosts one cluster: init, join, token, leave, status, ca, and for disasters
// find, backup, restore, recover and rejoin.
package cluster

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/cmd/internal/cli/clusterapi"
	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/cmd/internal/cli/inspect"
)

// NewCommand gives minictl cluster.
func NewCommand(c *console.Console) *cobra.Command {
	cmd := &cobra.Command{Use: "cluster COMMAND", Short: "Manage the cluster of hosts",
		Example: "  minictl cluster init --advertise-addr eth0\n  minictl cluster status"}
	cmd.AddCommand(newInitCommand(c), newJoinCommand(c), newTokenCommand(c), newLeaveCommand(c), newStatusCommand(c),
		newFindCommand(c), newRecoverCommand(c), newRejoinCommand(c), newBackupCommand(c), newRestoreCommand(c), newCACommand(c))
	return cmd
}

// withClient is WithClient with the client of the cluster's own routes.
func withClient(c *console.Console, do func(ctx context.Context, cl *clusterapi.Client, args []string) error) func(*cobra.Command, []string) error {
	return c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
		return do(ctx, clusterapi.New(cl), args)
	})
}

// initClient is what init needs of the daemon.
type initClient interface {
	Init(ctx context.Context, req api.ClusterInitRequest) (api.ClusterInitResponse, error)
	Status(ctx context.Context) (api.ClusterStatus, error)
}

// newInitCommand is the tutorial's first step. A host alone already is a cluster of one, so init only opens it to others.
func newInitCommand(c *console.Console) *cobra.Command {
	var req api.ClusterInitRequest
	var pools []net.IPNet
	cmd := &cobra.Command{
		Use:                   "init [OPTIONS]",
		Short:                 "Make this host the first of a cluster",
		Example:               "  minictl cluster init\n  minictl cluster init --advertise-addr eth0",
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: withClient(c, func(ctx context.Context, cl *clusterapi.Client, _ []string) error {
			for _, p := range pools {
				prefix, err := netip.ParsePrefix(p.String())
				if err != nil {
					return fmt.Errorf("invalid --default-addr-pool %s: %w", &p, err)
				}
				req.AddrPools = append(req.AddrPools, prefix)
			}
			return runInit(ctx, cl, c.Out, req)
		}),
	}
	fs := cmd.Flags()
	fs.StringVar(&req.AdvertiseAddr, "advertise-addr", "",
		"Address or interface that other hosts reach this one by (default: the one that leads outside)")
	fs.StringVar(&req.DataPathAddr, "data-path-addr", "",
		"Address or interface for the containers' traffic (default: --advertise-addr)")
	fs.IPNetSliceVar(&pools, "default-addr-pool", nil, "Ranges that overlay networks are cut from, of IPv4, IPv6 or both (default 10.0.0.0/8 and a unique local range)")
	fs.Lookup("default-addr-pool").DefValue = "" // an empty list, which the help would show
	fs.IntVar(&req.AddrPoolBits, "default-addr-pool-mask-length", 0, "Prefix length of each network's part of --default-addr-pool (default 24; of IPv6: 64)")
	fs.Uint16Var(&req.DataPathPort, "data-path-port", 0, "UDP port for the containers' traffic (default 4789)")
	return cmd
}

// runInit prints the whole line to paste on the next host: nothing is left to be looked up or put together.
func runInit(ctx context.Context, cl initClient, out io.Writer, req api.ClusterInitRequest) error {
	res, err := cl.Init(ctx, req)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Cluster initialized: node %s (%s)%s.\n\n", res.NodeName, res.NodeID, advertised(ctx, cl, res.NodeID))
	writeJoin(out, res.Token.Expires, cmp.Or(res.JoinCommand, res.Token.JoinCommand))
	return nil
}

// writeJoin prints the line that another host needs, alone and indented, so that it is easily marked and pasted.
func writeJoin(out io.Writer, expires time.Time, line string) {
	fmt.Fprintf(out, "To add a host, run this there%s:\n\n    %s\n", within(expires, time.Now()), line)
}

// advertised asks for the address the daemon settled on, which the answer to init does not hold. The cluster is made
// either way, so a failure only shortens the sentence.
func advertised(ctx context.Context, cl initClient, id string) string {
	st, err := cl.Status(ctx)
	if err != nil {
		return ""
	}
	for _, n := range st.Nodes {
		if n.ID == id && n.Addr != "" {
			return " advertises " + n.Addr
		}
	}
	return ""
}

// within words a token's remaining life: " within 24 hours"; empty when it does not end.
func within(expires, now time.Time) string {
	if expires.IsZero() {
		return ""
	}
	left := expires.Sub(now)
	hours, minutes := math.Round(left.Hours()), math.Round(left.Minutes())
	switch {
	case left <= 0:
		return " (the token has expired: minictl cluster token --rotate)"
	case minutes >= 90:
		return fmt.Sprintf(" within %.0f hours", hours)
	case minutes >= 2:
		return fmt.Sprintf(" within %.0f minutes", minutes)
	}
	return " within a minute"
}

// joinClient is what join needs of the daemon.
type joinClient interface {
	Join(ctx context.Context, req api.ClusterJoinRequest) (api.ClusterJoinResponse, error)
}

func newJoinCommand(c *console.Console) *cobra.Command {
	var req api.ClusterJoinRequest
	cmd := &cobra.Command{
		Use:                   "join --token TOKEN [OPTIONS] HOST[:PORT]",
		Short:                 "Join this host to a cluster",
		Example:               "  minictl cluster join --token MCTL1-... 192.168.66.11",
		Args:                  console.Exactly(1),
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: withClient(c, func(ctx context.Context, cl *clusterapi.Client, args []string) error {
			req.Remote = args[0]
			if req.Token == "" {
				return fmt.Errorf("--token is missing: run 'minictl cluster token' on a host of the cluster for the whole line")
			}
			return runJoin(ctx, cl, c.Out, req)
		}),
	}
	fs := cmd.Flags()
	fs.StringVar(&req.Token, "token", "", "Token for entry into the cluster")
	fs.StringVar(&req.AdvertiseAddr, "advertise-addr", "",
		"Address or interface that other hosts reach this one by (default: the one that leads to HOST)")
	fs.StringVar(&req.DataPathAddr, "data-path-addr", "",
		"Address or interface for the containers' traffic (default: --advertise-addr)")
	return cmd
}

// runJoin says how many nodes there are now: that is how a user knows it is the right cluster.
func runJoin(ctx context.Context, cl joinClient, out io.Writer, req api.ClusterJoinRequest) error {
	res, err := cl.Join(ctx, req)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "This host joined the cluster as node %s (%s): %s.\n", res.NodeName, res.NodeID, nodes(res.Nodes))
	return nil
}

func nodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}

// tokenClient is what token needs of the daemon.
type tokenClient interface {
	Token(ctx context.Context, rotate bool) (api.ClusterToken, error)
}

func newTokenCommand(c *console.Console) *cobra.Command {
	var rotate, quiet bool
	cmd := &cobra.Command{
		Use:                   "token [OPTIONS]",
		Short:                 "Print the line that joins another host",
		Example:               "  minictl cluster token\n  minictl cluster token --rotate -q",
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: withClient(c, func(ctx context.Context, cl *clusterapi.Client, _ []string) error {
			return runToken(ctx, cl, c.Out, rotate, quiet)
		}),
	}
	cmd.Flags().BoolVar(&rotate, "rotate", false, "Make a new token and refuse the former one")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Print the token alone")
	return cmd
}

// runToken prints the line to paste, or with quiet what a script needs.
func runToken(ctx context.Context, cl tokenClient, out io.Writer, rotate, quiet bool) error {
	t, err := cl.Token(ctx, rotate)
	if err != nil {
		return err
	}
	if quiet {
		fmt.Fprintln(out, t.Token)
		return nil
	}
	if rotate {
		fmt.Fprint(out, "The former token is refused from now on.\n\n")
	}
	writeJoin(out, t.Expires, t.JoinCommand)
	return nil
}

func newLeaveCommand(c *console.Console) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:                   "leave [OPTIONS]",
		Short:                 "Take this host out of its cluster",
		Example:               "  minictl cluster leave\n  minictl cluster leave --force",
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: withClient(c, func(ctx context.Context, cl *clusterapi.Client, _ []string) error {
			return runLeave(ctx, cl, c.Out, force)
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Leave even if the other hosts cannot be told, and stop containers that are on overlay networks")
	return cmd
}

// leaveClient is what leave needs of the daemon.
type leaveClient interface {
	statusClient
	Leave(ctx context.Context, force bool) error
}

// runLeave tells a user whose daemon has an external store that its flag brings the host back, and one who left without
// the others' knowledge how they come to know.
func runLeave(ctx context.Context, cl leaveClient, out io.Writer, force bool) error {
	before, _ := cl.Status(ctx) // for the sentences only
	if err := cl.Leave(ctx, force); err != nil {
		return err
	}
	fmt.Fprintln(out, "This host left the cluster.")
	if before.Store != "" {
		fmt.Fprintf(out, "A daemon started with --cluster-store %s comes into it again.\n", before.Store)
	} else if name := untold(before); force && name != "" {
		fmt.Fprintf(out, "The other hosts may not know that: if they still list it, run \"minictl node rm %s\" on one of them.\n", name)
	}
	return nil
}

// untold is this host's name if the others could hardly be told that it leaves: none answers, or nobody leads. Empty if
// they could, or there are none.
func untold(st api.ClusterStatus) string {
	self, others, heard := "", 0, 0
	for _, n := range st.Nodes {
		switch {
		case n.ID == st.Self:
			self = n.Name
		case n.Status == "Ready":
			heard++
			fallthrough
		default:
			others++
		}
	}
	if others == 0 || heard > 0 && st.Leader != "" {
		return ""
	}
	return self
}

// statusClient is what status needs of the daemon.
type statusClient interface {
	Status(ctx context.Context) (api.ClusterStatus, error)
}

func newStatusCommand(c *console.Console) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:                   "status [OPTIONS]",
		Short:                 "Say how the cluster is, and what would happen if a host died",
		Example:               "  minictl cluster status\n  minictl cluster status --format json",
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: withClient(c, func(ctx context.Context, cl *clusterapi.Client, _ []string) error {
			return runStatus(ctx, cl, c.Out, format)
		}),
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "Format output: 'json' or a Go template such as '{{.ClusterID}}'")
	return cmd
}

// runStatus gives the sentences first: what they say (who decides, what if this host dies) is what one asks status for;
// the table is the evidence.
func runStatus(ctx context.Context, cl statusClient, out io.Writer, format string) error {
	st, err := cl.Status(ctx)
	if err != nil {
		return err
	}
	if format != "" {
		return inspect.Print(out, st, format)
	}
	if len(st.Summary) > 0 {
		fmt.Fprintf(out, "%s\n\n", strings.Join(st.Summary, "\n"))
	}
	return table(out, st)
}

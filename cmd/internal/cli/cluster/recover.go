package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/cmd/internal/cli/clusterapi"
	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

// recoverClient is what recover needs of the daemon.
type recoverClient interface {
	Recover(ctx context.Context, req api.ClusterRecoverRequest) (api.ClusterRecoverResponse, error)
}

func newRecoverCommand(c *console.Console) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "recover [OPTIONS]",
		Short: "Let this host decide, after those that did are gone",
		Long: "Let this host decide on networks and addresses, after the hosts that did are gone for good. What they have\n" +
			"decided and not told this host is lost. Whoever of them returns joins again by itself, its containers running.",
		Example:               "  minictl cluster recover\n  minictl cluster recover --force",
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: withClient(c, func(ctx context.Context, cl *clusterapi.Client, _ []string) error {
			return runRecover(ctx, cl, c, force)
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	return cmd
}

// runRecover asks with what it would mean: when who decides was heard last, and what is lost. What is refused is refused
// before the question.
func runRecover(ctx context.Context, cl recoverClient, c *console.Console, force bool) error {
	if !force {
		plan, err := cl.Recover(ctx, api.ClusterRecoverRequest{DryRun: true})
		if err != nil {
			return err
		}
		if ok, err := c.Confirm(ctx, false, strings.Join(plan.Summary, "\n")); !ok {
			return cmp.Or(err, errDeclined())
		}
	}
	res, err := cl.Recover(ctx, api.ClusterRecoverRequest{})
	if err != nil {
		return err
	}
	fmt.Fprintf(c.Out, "This host decides for the cluster now (epoch %s).\n", res.Epoch)
	return nil
}

// errDeclined is for a script whose input had ended: it takes nothing said for done.
func errDeclined() error { return errors.New("nothing was changed") }

// rejoinClient is what rejoin needs of the daemon.
type rejoinClient interface {
	Rejoin(ctx context.Context, req api.ClusterRejoinRequest) error
}

func newRejoinCommand(c *console.Console) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "rejoin [OPTIONS] [NODE]",
		Short: "Give up what this side of a twice taken over cluster has decided, and join the other",
		Long: "After a takeover on both sides of a partition, give up what this side has decided since, and join the other\n" +
			"side; NODE is one of its nodes, needed only if there are several other sides. Containers go on; what clashes\n" +
			"with the other side is listed by minictl cluster status.",
		Example:               "  minictl cluster rejoin\n  minictl cluster rejoin host2",
		Args:                  console.Between(0, 1),
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: withClient(c, func(ctx context.Context, cl *clusterapi.Client, args []string) error {
			return runRejoin(ctx, cl, c, force, strings.Join(args, ""))
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	return cmd
}

func runRejoin(ctx context.Context, cl rejoinClient, c *console.Console, force bool, node string) error {
	const warning = "This host gives up what was decided on its side since the cluster has gone on apart. Its containers go on."
	if ok, err := c.Confirm(ctx, force, warning); !ok {
		return cmp.Or(err, errDeclined())
	}
	if err := cl.Rejoin(ctx, api.ClusterRejoinRequest{Remote: node}); err != nil {
		return err
	}
	fmt.Fprintln(c.Out, "This host joined the other side of the cluster. minictl cluster status lists what clashes, if anything does.")
	return nil
}

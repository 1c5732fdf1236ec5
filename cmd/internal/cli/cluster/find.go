package cluster

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/cmd/internal/cli/clusterapi"
	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

// newFindCommand is for hosts whose addresses have all changed at once; where one has moved the others follow by themselves.
func newFindCommand(c *console.Console) *cobra.Command {
	return &cobra.Command{
		Use:   "find NODE ADDRESS",
		Short: "Tell this host where another host of the cluster is now",
		Long: "Tell this host at which address another host of the cluster is now. It is needed only when the addresses of all\n" +
			"hosts have changed at the same time: one that has moved alone calls the others, and they follow. Hosts that have\n" +
			"found each other tell each other of those they have found before, so with N hosts N-1 commands on one of them will do.",
		Example:               "  minictl cluster find host2 192.168.70.12",
		Args:                  console.Exactly(2),
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: withClient(c, func(ctx context.Context, cl *clusterapi.Client, args []string) error {
			if err := cl.Find(ctx, api.ClusterFindRequest{Node: args[0], Addr: args[1]}); err != nil {
				return err
			}
			fmt.Fprintf(c.Out, "Found %s.\n", args[0])
			return nil
		}),
	}
}

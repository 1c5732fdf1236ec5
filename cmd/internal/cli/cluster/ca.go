package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/cmd/internal/cli/clusterapi"
	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

// rotateClient is what ca rotate needs of the daemon.
type rotateClient interface {
	RotateCA(ctx context.Context, finish bool) error
	Rotation(ctx context.Context) (api.ClusterRotation, error)
}

func newCACommand(c *console.Console) *cobra.Command {
	cmd := &cobra.Command{Use: "ca COMMAND", Short: "Manage the cluster's certificate authority",
		Example: "  minictl cluster ca rotate"}
	cmd.AddCommand(newRotateCommand(c))
	return cmd
}

func newRotateCommand(c *console.Console) *cobra.Command {
	var detach, force bool
	cmd := &cobra.Command{
		Use:   "rotate [OPTIONS]",
		Short: "Replace the certificate authority and every node's certificate",
		Long: "Replace the certificate authority and every node's certificate, after a machine of the cluster has come into other\n" +
			"hands: each has had the authority's key. First all hosts accept both, then they renew, then the old one goes. A host\n" +
			"that is off meanwhile renews when it comes back. Join tokens made before are good no more.",
		Example:               "  minictl cluster ca rotate\n  minictl cluster ca rotate --force",
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: withClient(c, func(ctx context.Context, cl *clusterapi.Client, _ []string) error {
			return runRotate(ctx, cl, c, detach, force)
		}),
	}
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "Return when it has begun")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "End a rotation that has begun without waiting for hosts that do not follow")
	return cmd
}

// runRotate waits and says for whom. It goes on without this command.
func runRotate(ctx context.Context, cl rotateClient, c *console.Console, detach, force bool) error {
	if err := cl.RotateCA(ctx, force); err != nil {
		return err
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	said := ""
	for !detach && !force {
		r, err := cl.Rotation(ctx)
		if err != nil {
			return err
		}
		if !r.UnderWay {
			break
		}
		if now := strings.Join(r.Waiting, ", "); now != said && now != "" {
			fmt.Fprintf(c.Err, "Waiting for %s; to go on without: minictl cluster ca rotate --force\n", now)
			said = now
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if detach && !force {
		fmt.Fprintln(c.Out, "The rotation has begun and goes on by itself.")
		return nil
	}
	fmt.Fprintln(c.Out, "The cluster has a new certificate authority. minictl cluster token prints the line that joins hosts now.")
	return nil
}

package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/cmd/internal/cli/clusterapi"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

const notInBackup = "Not in it is what each host keeps for itself: containers, local networks, volumes and images."

// backupClient is what backup needs of the daemon.
type backupClient interface {
	Backup(ctx context.Context) (io.ReadCloser, error)
}

func newBackupCommand(c *console.Console) *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "backup [OPTIONS] FILE",
		Short: "Write down what the cluster has decided, encrypted",
		Long: "Write what the cluster has decided, its certificate authority and this node's key to FILE, encrypted by a passphrase\n" +
			"(the format is age's). " + notInBackup,
		Example:               "  minictl cluster backup cluster.age\n  minictl cluster backup --passphrase-file /root/phrase /mnt/cluster.age",
		Args:                  console.Exactly(1),
		DisableFlagsInUseLine: true,
		RunE: withClient(c, func(ctx context.Context, cl *clusterapi.Client, args []string) error {
			return runBackup(ctx, cl, c, args[0], from)
		}),
	}
	passphraseFlag(cmd, &from)
	return cmd
}

func passphraseFlag(cmd *cobra.Command, from *string) {
	cmd.Flags().StringVar(from, "passphrase-file", "", "Take the passphrase from the first line of a file (default: ask for it, or standard input)")
}

// runBackup asks the daemon first: one that refuses must not cost a passphrase.
func runBackup(ctx context.Context, cl backupClient, c *console.Console, file, from string) error {
	plain, err := cl.Backup(ctx)
	if err != nil {
		return err
	}
	defer plain.Close()
	phrase, err := passphrase(ctx, c, from, true)
	if err != nil {
		return err
	}
	var sealed bytes.Buffer
	w, err := seal(&sealed, phrase, scryptWork)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, plain); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	if err := w.Close(); err != nil {
		return err
	}
	size := units.HumanSize(float64(sealed.Len()))
	if err := c.WriteTo(file, func() (io.ReadCloser, error) { return io.NopCloser(&sealed), nil }); err != nil {
		return err
	}
	fmt.Fprintf(c.Err, "Wrote the cluster to %s (%s). Whoever has it and its passphrase can act as the cluster.\n%s\n", file, size, notInBackup)
	return nil
}

// restoreClient is what restore needs of the daemon.
type restoreClient interface {
	Restore(ctx context.Context, req api.ClusterRestoreRequest, backup io.Reader) (api.ClusterRestoreResponse, error)
}

func newRestoreCommand(c *console.Console) *cobra.Command {
	var req api.ClusterRestoreRequest
	var from string
	cmd := &cobra.Command{
		Use:   "restore [OPTIONS] FILE",
		Short: "Make this host the first of a cluster that was backed up",
		Long: "Make this host, which must be in no cluster, the node that wrote the backup, and the one that decides. The other nodes\n" +
			"are known and missing until each comes back: by minictl cluster rejoin where it still is in its old cluster, by\n" +
			"minictl cluster join otherwise. Containers that the hosts have, and that are on networks of the backup, go on.",
		Example:               "  minictl cluster restore cluster.age\n  minictl cluster restore --advertise-addr eth0 cluster.age < phrase",
		Args:                  console.Exactly(1),
		DisableFlagsInUseLine: true,
		RunE: withClient(c, func(ctx context.Context, cl *clusterapi.Client, args []string) error {
			return runRestore(ctx, cl, c, args[0], from, req)
		}),
	}
	fs := cmd.Flags()
	fs.StringVar(&req.AdvertiseAddr, "advertise-addr", "",
		"Address or interface that other hosts reach this one by (default: the one in the backup, or the one that leads outside)")
	fs.StringVar(&req.DataPathAddr, "data-path-addr", "",
		"Address or interface for the containers' traffic (default: --advertise-addr)")
	passphraseFlag(cmd, &from)
	return cmd
}

// runRestore says how the others come back: that is what is left to do.
func runRestore(ctx context.Context, cl restoreClient, c *console.Console, file, from string, req api.ClusterRestoreRequest) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	phrase, err := passphrase(ctx, c, from, false)
	if err != nil {
		return err
	}
	plain, err := unseal(f, phrase)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	res, err := cl.Restore(ctx, req, bytes.NewReader(plain))
	if err != nil {
		return err
	}
	fmt.Fprintf(c.Out, "This host is node %s (%s) of the cluster as it was %s, in epoch %s.\n", res.NodeName, res.NodeID,
		res.Made.Local().Format("2006-01-02 15:04:05"), res.Epoch)
	if len(res.Missing) > 0 {
		fmt.Fprintf(c.Out, "Missing: %s. To bring a host back, run there: minictl cluster rejoin. If it is in no cluster any more, run\n"+
			"minictl node rm NODE here, and there the line that minictl cluster token prints.\n", strings.Join(res.Missing, ", "))
	}
	return nil
}

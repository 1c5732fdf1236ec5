package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/config"
)

// Command is `minictl daemon`.
func Command(version string) *cobra.Command {
	cfg := config.Config{Version: version}
	cmd := &cobra.Command{
		Use:   "daemon [OPTIONS]",
		Short: "Run the daemon on this host",
		Long: "Run the daemon on this host. It needs no configuration: a host alone is a cluster of one, with overlay networks\n" +
			"that work at once. Ending it leaves containers running; the next one takes them up again.\n\n" +
			"With --cluster-store an etcd, Consul or ZooKeeper that you run decides for the cluster: hosts whose daemons are started\n" +
			"so find each other there, without cluster init or join.",
		Example: "  minictl daemon\n  minictl daemon --data-root /srv/minictl --debug\n" +
			"  minictl daemon --cluster-store consul://192.168.1.20:8500 --cluster-advertise eth0",
		Args: cobra.NoArgs,

		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.Complete(); err != nil {
				return err
			}
			if os.Geteuid() != 0 {
				return fmt.Errorf("the daemon makes network namespaces, mounts and cgroups, which only root may: run it as root, for example sudo minictl daemon")
			}
			// The daemon's own end is not an error of the command line: signals are taken here.
			ctx, stop := signal.NotifyContext(context.WithoutCancel(cmd.Context()), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return Run(ctx, cfg, logger(cfg))
		},
	}
	cfg.Flags(cmd.Flags())
	return cmd
}

func logger(cfg config.Config) *slog.Logger {
	o := &slog.HandlerOptions{Level: slog.LevelInfo}
	if cfg.Debug {
		o.Level = slog.LevelDebug
	}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}

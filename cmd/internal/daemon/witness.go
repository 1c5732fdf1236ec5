package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"path/filepath"
	"syscall"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/cmd/internal/config"
	"github.com/minictl/minictl/cmd/internal/engine"
)

// witnessFlags are the daemon's that mean something without containers.
func witnessFlags() []string {
	return []string{"config-file", "host", "group", "data-root", "exec-root", "pidfile", "debug", "log-format", "node-name"}
}

// WitnessCommand is `minictl witness`.
func WitnessCommand(version string) *cobra.Command {
	cfg := config.Config{Version: version}
	var join api.ClusterJoinRequest
	all := pflag.NewFlagSet("witness", pflag.ContinueOnError)
	cmd := &cobra.Command{
		Use:   "witness [OPTIONS]",
		Short: "Vote in a cluster of other hosts, and run no containers",
		Long: "Vote in a cluster of other hosts, and run no containers. With two hosts one of them decides, and when it dies the other\n" +
			"cannot until an operator says so; a witness on any third machine makes it two of three. It needs port 7946 (TCP and UDP)\n" +
			"and no runc, and touches neither links nor firewall.\n\n" +
			"--join and --token are needed once; afterwards it knows its cluster. minictl cluster leave, on it, ends that.",
		Example: `  minictl witness --join 192.168.66.11 --token MCTL1-...
  minictl witness`,
		Args: cobra.NoArgs,

		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := refuseClientFlags(cmd.Root().Flags()); err != nil {
				return err
			}
			if err := cfg.Load(all); err != nil {
				return err
			}
			if cfg.ClusterStore != "" {
				return errors.New("with --cluster-store that store decides: a witness has no vote there")
			}
			if (join.Remote == "") != (join.Token == "") {
				return errors.New("--join and --token go together: minictl cluster token, on a member, prints both")
			}
			level := new(slog.LevelVar)
			setLevel(level, cfg.Debug)
			ctx, stop := signal.NotifyContext(context.WithoutCancel(cmd.Context()), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return runWitness(ctx, cfg, join, logger(cfg, level))
		},
	}
	cfg.Flags(all)
	for _, name := range witnessFlags() {
		cmd.Flags().AddFlag(all.Lookup(name))
	}
	cmd.Flags().StringVar(&join.Remote, "join", "", "HOST[:PORT] of any member of the cluster")
	cmd.Flags().StringVar(&join.Token, "token", "", "its join token: minictl cluster token, on a member, prints it")
	cmd.Flags().StringVar(&join.AdvertiseAddr, "advertise-addr", "", "address or interface that the others reach this machine by")
	return cmd
}

// runWitness is a witness's life.
func runWitness(ctx context.Context, cfg config.Config, join api.ClusterJoinRequest, log *slog.Logger) (err error) {
	lock, err := acquire(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	cl, err := cluster.Open(ctx, cluster.Config{
		Dir: filepath.Join(cfg.DataRoot, "cluster"), Name: cfg.NodeName, Version: cfg.Version, Log: log, Witness: true,
		Addresses: engine.HostAddresses{},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cl.Close()) }()
	e, err := engine.New(engine.Config{Root: cfg.DataRoot, ExecRoot: cfg.ExecRoot, NodeName: cfg.NodeName, Version: cfg.Version, Log: log, Cluster: cl, Witness: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if join.Remote == "" && !cl.Clustered() {
		return errors.New("a witness needs a cluster to vote in: give --join and --token; minictl cluster token, on a member, prints both")
	}
	if err := e.WitnessJoin(ctx, join); err != nil {
		return err
	}
	return serveWitness(ctx, cfg, e, log)
}

func serveWitness(ctx context.Context, cfg config.Config, e *engine.Engine, log *slog.Logger) error {
	web := log.With("component", "api")
	handler := api.New(api.Config{
		Log: web, Container: e, Exec: e, Network: e, Volume: e, Image: e, Files: e, Registry: e, Disk: e, Build: e, System: e, Cluster: e,
		Witness: e.WitnessWords, Explain: e.Explain,
	})
	listeners, err := listen(cfg, log)
	if err != nil {
		return err
	}
	if err := writePidfile(cfg.Pidfile); err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	log.Info("ready", "hosts", fmt.Sprint(cfg.Hosts), "node", cfg.NodeName, "version", cfg.Version, "witness", true)
	g, gctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		g.Go(func() error { return api.Serve(gctx, web, l, handler) })
	}
	notify(log, sd.SdNotifyReady)
	context.AfterFunc(gctx, func() { notify(log, sd.SdNotifyStopping) })
	return errors.Join(g.Wait(), removePidfile(cfg.Pidfile))
}

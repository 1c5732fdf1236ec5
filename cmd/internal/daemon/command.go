package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/docker/cli/opts"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/minictl/minictl/cmd/internal/config"
	"github.com/minictl/minictl/cmd/internal/engine"
)

// errNotRoot says why the daemon needs to be root.
var errNotRoot = errors.New("the daemon makes network namespaces, mounts and cgroups, which only root may: run it as root, for example sudo minictl daemon")

// Command is `minictl daemon`.
func Command(version string) *cobra.Command {
	cfg := config.Config{Version: version}
	var validate bool
	var clean cleaning
	cmd := &cobra.Command{
		Use:   "daemon [OPTIONS]",
		Short: "Run the daemon on this host",
		Long: "Run the daemon on this host. It needs no configuration: a host alone is a cluster of one, with overlay networks\n" +
			"that work at once. Ending it leaves containers running; the next one takes them up again.\n\n" +
			"SIGHUP makes it read its configuration file again; what can change while it runs is debug and labels.\n\n" +
			"With --cluster-store an etcd, Consul or ZooKeeper that you run decides for the cluster: hosts whose daemons are started\n" +
			"so find each other there, without cluster init or join.\n\n" +
			"With --cleanup nothing is run: what a stopped daemon and its containers left in the kernel is removed, as a reboot\n" +
			"would.",
		Example: `  minictl daemon
  minictl daemon --data-root /srv/minictl --debug
  minictl daemon -H unix:///run/minictl/minictl.sock -H unix:///var/run/docker.sock
  minictl daemon --cluster-store consul://192.168.1.20:8500 --cluster-advertise eth0
  minictl daemon --validate --config-file /etc/minictl/daemon.json
  minictl daemon --cleanup --purge`,
		Args: cobra.NoArgs,

		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := refuseClientFlags(cmd.Root().Flags()); err != nil {
				return err
			}
			if !clean.wanted && (clean.force || clean.purge) {
				return errors.New("--force and --purge go with --cleanup")
			}
			if err := cfg.Load(cmd.Flags()); err != nil {
				return err
			}
			if validate {
				if _, err := cfg.TLS.Server(); err != nil {
					return err
				}
				_, err := fmt.Fprintln(cmd.ErrOrStderr(), "configuration OK")
				return err
			}
			if os.Geteuid() != 0 {
				return errNotRoot
			}
			level := new(slog.LevelVar)
			setLevel(level, cfg.Debug)
			// The daemon's own end is not an error of the command line: signals are taken here.
			ctx, stop := signal.NotifyContext(context.WithoutCancel(cmd.Context()), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			if clean.wanted {
				return clean.run(ctx, cfg, logger(cfg, level), cmd.OutOrStdout())
			}
			return Run(ctx, cfg, logger(cfg, level), reloader(cfg, level, cmd.Flags()))
		},
	}
	cfg.Flags(cmd.Flags())
	cmd.Flags().BoolVar(&validate, "validate", false, "check the configuration and exit")
	clean.flags(cmd.Flags())
	return cmd
}

// refuseClientFlags refuses what stands in front of "daemon": it says how a client finds a daemon.
func refuseClientFlags(f *pflag.FlagSet) (err error) {
	f.Visit(func(flag *pflag.Flag) {
		err = fmt.Errorf("--%s in front of daemon says where a client finds one: the daemon's own flags stand behind: see 'minictl daemon --help'", flag.Name)
	})
	return err
}

func logger(cfg config.Config, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}

func setLevel(level *slog.LevelVar, debug bool) {
	level.Set(slog.LevelInfo)
	if debug {
		level.Set(slog.LevelDebug)
	}
}

// reloader reads the configuration again, the command line being as it was, and applies what a running daemon can
// change. When something else differs nothing is applied: half a new configuration is nobody's wish.
func reloader(cfg config.Config, level *slog.LevelVar, given *pflag.FlagSet) func() (engine.Live, error) {
	now := cfg
	return func() (engine.Live, error) {
		next := config.Config{Version: cfg.Version}
		flags := pflag.NewFlagSet("daemon", pflag.ContinueOnError)
		next.Flags(flags)
		if err := repeat(given, flags); err != nil {
			return live(now), err
		}
		if err := next.Load(flags); err != nil {
			return live(now), err
		}
		if fixed := now.Fixed(next); len(fixed) > 0 {
			return live(now), fmt.Errorf("%v cannot change while the daemon runs: restart it (containers go on): nothing was changed", fixed)
		}
		now = next
		setLevel(level, now.Debug)
		return live(now), nil
	}
}

// live are the settings that a running daemon can change.
func live(cfg config.Config) engine.Live { return engine.Live{Debug: cfg.Debug, Labels: cfg.Labels} }

// repeat gives to what was given on the command line in from.
func repeat(from, to *pflag.FlagSet) error {
	var errs []error
	from.Visit(func(f *pflag.Flag) {
		same := to.Lookup(f.Name)
		if same == nil {
			return // not the configuration's
		}
		if all, ok := f.Value.(*opts.MapOpts); ok {
			for k, v := range all.GetAll() {
				errs = append(errs, to.Set(f.Name, k+"="+v))
			}
			return
		}
		if list, ok := f.Value.(interface{ GetSlice() []string }); ok {
			for _, v := range list.GetSlice() {
				errs = append(errs, to.Set(f.Name, v))
			}
			return
		}
		errs = append(errs, to.Set(f.Name, f.Value.String()))
	})
	return errors.Join(errs...)
}

// Package daemon is where the folders meet: it builds containerd, the drivers, the resolver, the cluster, the engine and
// the API, adapts one to the other, starts them in order and stops them in reverse.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/cluster/boltfile"
	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/cmd/internal/config"
	"github.com/minictl/minictl/cmd/internal/engine"
	"github.com/minictl/minictl/cmd/internal/failpoint"
	"github.com/minictl/minictl/dnsd"
	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/bare"
	"github.com/minictl/minictl/netdriver/bridge"
	"github.com/minictl/minictl/netdriver/cni"
	"github.com/minictl/minictl/netdriver/firewall"
	"github.com/minictl/minictl/netdriver/macvlan"
	"github.com/minictl/minictl/netdriver/nl"
	"github.com/minictl/minictl/netdriver/overlay"
	"github.com/minictl/minictl/netdriver/portmap"
	"github.com/minictl/minictl/netdriver/remote"
	"github.com/minictl/minictl/runtime/ctrd"
	"github.com/minictl/minictl/runtime/ctrd/buildkit"
	"github.com/minictl/minictl/runtime/shim/embedded"
)

// netnsDir is where plain `ip netns` looks, so that an operator sees the overlays' namespaces.
const netnsDir = "/run/netns"

// Run is the daemon's life: it returns when ctx ends and everything of the daemon is put away. Containers go on. reload
// is called at every SIGHUP.
func Run(ctx context.Context, cfg config.Config, log *slog.Logger, reload func() (engine.Live, error)) (err error) {
	lock, err := acquire(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	if err := rememberSysctls(cfg.ExecRoot); err != nil {
		return err
	}
	// From here on, so that one that comes too early waits rather than ends us.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	d := &daemon{cfg: cfg, log: log, reload: reload, hangup: hangup}
	d.live.Store(new(live(cfg)))
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.build(ctx); err != nil {
		return err
	}
	return d.serve(ctx)
}

// daemon is the built parts and how to put them away, in order of building.
type daemon struct {
	cfg    config.Config
	log    *slog.Logger
	reload func() (engine.Live, error)
	hangup <-chan os.Signal
	live   atomic.Pointer[engine.Live]
	engine *engine.Engine
	closer []func() error
}

func (d *daemon) onClose(fn func() error) { d.closer = append(d.closer, fn) }

func (d *daemon) close() error {
	var errs []error
	for i := len(d.closer) - 1; i >= 0; i-- {
		errs = append(errs, d.closer[i]())
	}
	return errors.Join(errs...)
}

func (d *daemon) build(ctx context.Context) error {
	cfg := d.cfg
	rt, err := ctrd.Start(ctx, ctrd.Config{
		Root: filepath.Join(cfg.DataRoot, "containerd"), State: filepath.Join(cfg.ExecRoot, "containerd"), SocketDir: filepath.Join(cfg.ExecRoot, "s"),
		External: cfg.Containerd, Shim: embedded.Unpack, Registries: cfg.Registries, CheckDatabase: boltfile.Check, Log: d.log,
	})
	if err != nil {
		return err
	}
	d.onClose(rt.Close)

	// The cluster calls the engine about records and members, and the engine is built on the cluster: what comes before
	// the engine is there is caught up with by its Restore.
	var eng atomic.Pointer[engine.Engine]
	cl, err := cluster.Open(ctx, cluster.Config{
		External: clusterStore(cfg), Step: failpoint.Hit,
		Dir: filepath.Join(cfg.DataRoot, "cluster"), Name: cfg.NodeName, Version: cfg.Version, Log: d.log,
		Addresses: engine.HostAddresses{},
		Applied: func(ctx context.Context, networks []string) error {
			if e := eng.Load(); e != nil {
				return e.Applied(ctx, networks)
			}
			return nil
		},
		MembersChanged: func() {
			if e := eng.Load(); e != nil {
				e.MembersChanged()
			}
		},
	})
	if err != nil {
		return err
	}
	d.onClose(cl.Close)

	fw := firewall.New(d.log)
	d.onClose(func() error { fw.Close(); return nil })
	resolver := dnsd.NewServer(d.log)
	d.onClose(func() error { resolver.Close(); return nil })
	facts, err := hostFacts()
	if err != nil {
		d.log.Error("containers will start with --security-opt apparmor=unconfined only", "err", err)
	}
	ports := portmap.New()
	e, err := engine.New(engine.Config{
		Root: cfg.DataRoot, ExecRoot: cfg.ExecRoot, NodeName: cfg.NodeName, GatewayBridge: cfg.GatewayBridge, AddressPools: cfg.AddressPools, Defaults: defaults(cfg.Networks), Version: cfg.Version,
		Live: func() engine.Live { return *d.live.Load() }, Log: d.log, Runtime: rt, Cluster: cl,
		Drivers: []netdriver.Driver{bridge.New(bridge.Config{Log: d.log, Firewall: fw, Relay: relay(cfg.Networks, ports)}), bare.New(netdriver.TypeHost), bare.New(netdriver.TypeNull),
			macvlan.New(macvlan.Config{Log: d.log, Sandboxes: filepath.Join(cfg.ExecRoot, "netns")}),
			cni.New(cni.Config{Log: d.log, Dir: filepath.Join(cfg.DataRoot, "cni"), Step: failpoint.Hit})},
		Plugins: remote.New(remote.Config{
			Log: d.log, Sockets: remote.SocketDir, Specs: remote.SpecDirs(), Sandboxes: filepath.Join(cfg.ExecRoot, "netns"),
		}),
		Overlay:  overlay.New(overlay.Config{Log: d.log, NetnsDir: netnsDir}),
		Firewall: fw, Ports: ports, Resolver: resolver, Builder: buildkit.New(cfg.BuildKit, rt), Registries: cfg.Registries, Host: facts, DefaultLog: cfg.Log, Init: embedded.UnpackInit, Routes: routes,
		WatchRoutes: nl.WatchRoutes, WatchLinks: nl.WatchLinks, WatchRules: firewall.Watch, Sandboxes: sandboxes{},
	})
	if err != nil {
		return err
	}
	d.onClose(e.Close)
	if err := e.Restore(ctx); err != nil {
		return err
	}
	if err := serveHost(cfg.HostDNS, resolver, e.HostView); err != nil {
		return err
	}
	eng.Store(e)
	e.MembersChanged() // what came in meanwhile
	e.AnswerNames()
	d.engine = e
	return nil
}

// defaults are the settings of networks in the engine's words.
func defaults(n config.Networks) engine.Defaults {
	return engine.Defaults{
		Bridge: n.Bridge, Options: n.Options, Relayed: n.Proxy,
		DNS: dnsd.ResolvOptions{Servers: n.Servers, Search: n.DNSSearch, Options: n.DNSOptions},
	}
}

// relay is what leads to containers where no rule can; nil: nothing.
func relay(n config.Networks, ports *portmap.Allocator) bridge.Relay {
	if !n.Proxy {
		return nil
	}
	return ports
}

// serveHost lets the host's own programs ask for containers' names. Its identity in the resolver is no container's.
func serveHost(at string, resolver *dnsd.Server, view func() dnsd.View) error {
	if at == "" {
		return nil
	}
	udp, err := net.ListenPacket("udp", at)
	if err != nil {
		return fmt.Errorf("--host-dns %s: %w", at, err)
	}
	tcp, err := net.Listen("tcp", at)
	if err != nil {
		return errors.Join(fmt.Errorf("--host-dns %s: %w", at, err), udp.Close())
	}
	resolver.Add("the host", udp, tcp, view)
	return nil
}

func (d *daemon) serve(ctx context.Context) error {
	e := d.engine
	handler := api.New(api.Config{Log: d.log.With("component", "api"), Container: e, Exec: e, Network: e, Volume: e, Image: e, Files: e, Registry: e, Disk: e, Build: e, System: e, Cluster: e, Explain: e.Explain})
	listeners, err := listen(d.cfg, d.log)
	if err != nil {
		return err
	}
	web := d.serveWeb(e)
	if web != nil {
		defer web.Close()
	}
	metrics, err := d.serveMetrics(e)
	if err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	if metrics != nil {
		defer metrics.Close()
	}
	if err := writePidfile(d.cfg.Pidfile); err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	d.log.Info("ready", "hosts", d.cfg.Hosts, "node", d.cfg.NodeName, "version", d.cfg.Version)
	g, gctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		g.Go(func() error { return api.Serve(gctx, d.log.With("component", "api"), l, handler) })
	}
	g.Go(func() error {
		reloadOnHangup(gctx, d.log, d.hangup, d.reload, func(l engine.Live) { d.live.Store(&l) })
		return nil
	})
	notify(d.log, sd.SdNotifyReady)
	context.AfterFunc(gctx, func() { notify(d.log, sd.SdNotifyStopping) })
	err = g.Wait()
	d.log.Info("stopped; containers go on")
	return errors.Join(err, removePidfile(d.cfg.Pidfile))
}

// serveWeb serves the read-only page on loopback. A port that is taken is worth a warning, not a daemon that won't start.
func (d *daemon) serveWeb(e *engine.Engine) *http.Server {
	if d.cfg.Web == "" || d.cfg.Web == "off" {
		return nil
	}
	l, err := net.Listen("tcp", d.cfg.Web)
	if err != nil {
		d.log.Warn("the web page is not served", "err", err)
		return nil
	}
	srv := &http.Server{Handler: api.WebPage(api.Config{Log: d.log.With("component", "web"), Container: e, Network: e, System: e, Cluster: e}), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(l) }()
	return srv
}

// serveMetrics serves the figures where the user has asked for them; nil: nowhere.
func (d *daemon) serveMetrics(e *engine.Engine) (*http.Server, error) {
	if d.cfg.Metrics == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", d.cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("serve --metrics-addr: %w", err)
	}
	srv := &http.Server{Handler: api.Metrics(e), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(l) }()
	return srv, nil
}

func writePidfile(path string) error {
	if path == "" {
		return nil
	}
	return os.WriteFile(path, fmt.Appendf(nil, "%d\n", os.Getpid()), 0o644)
}

func removePidfile(path string) error {
	if path == "" {
		return nil
	}
	return os.Remove(path)
}

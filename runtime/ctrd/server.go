package ctrd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/cmd/containerd/server"
	srvconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/errdefs"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
)

// maxSocketDir is containerd's own limit for a shim's socket directory on Linux.
const maxSocketDir = 42

// embedded is containerd's server inside this process.
type embedded struct {
	srv    *server.Server
	client *containerd.Client
	lock   *os.File
	logs   *slogHook
	cancel context.CancelFunc // ends the server's own loops
}

// stopTimeout bounds a shutdown: containerd's database waits for a garbage
// collection that runs, and the process ends soon after anyway.
const stopTimeout = 5 * time.Second

// captureKey finds, in a plugin's context, the place for the in-memory client.
type captureKey struct{}

// startEmbedded runs the server. The file lock comes first: containerd's
// database would otherwise wait without a word for the other daemon to end.
func startEmbedded(ctx context.Context, cfg Config) (*embedded, error) {
	lock, err := takeLock(filepath.Join(cfg.Root, "lock"))
	if err != nil {
		return nil, err
	}
	e := &embedded{lock: lock}
	if err := checkDatabases(cfg.Root, cfg.CheckDatabase); err != nil {
		e.close()
		return nil, fmt.Errorf("start containerd: %w", err)
	}
	if err := e.start(ctx, cfg); err != nil {
		e.close()
		return nil, fmt.Errorf("start containerd in %s: %w", cfg.Root, err)
	}
	return e, nil
}

func takeLock(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder := make([]byte, 32)
		n, _ := f.ReadAt(holder, 0)
		f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return nil, fmt.Errorf("lock %s: another daemon (process %s) uses %s: %w",
			path, strings.TrimSpace(string(holder[:n])), filepath.Dir(path), errdefs.ErrUnavailable)
	}
	// Who holds it is for the next one's error message only, so failing is fine.
	_ = f.Truncate(0)
	_, _ = fmt.Fprintf(f, "%d\n", os.Getpid())
	return f, nil
}

func (e *embedded) start(ctx context.Context, cfg Config) error {
	// The server outlives the call that starts it: a cancelled start-up context
	// must not take its listeners down later.
	ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
	ctx, e.logs = bridgeLogs(ctx, cfg.Log)
	c := serverConfig(cfg)
	if err := server.CreateTopLevelDirectories(c); err != nil {
		return err
	}
	// containerd makes the folder with the first blob, and until then its collection fails, which walks it.
	if err := os.MkdirAll(filepath.Join(cfg.Root, blobsDir), 0o755); err != nil {
		return err
	}
	if err := mount.SetTempMountLocation(filepath.Join(cfg.Root, "tmpmounts")); err != nil {
		return err
	}
	if _, err := mount.CleanupTempMounts(0); err != nil {
		return err
	}
	registerCapture()
	srv, err := server.New(context.WithValue(ctx, captureKey{}, e), c)
	if err != nil {
		return err
	}
	e.srv = srv
	if err := srv.Start(ctx); err != nil {
		return err
	}
	srv.Wait()
	if e.client == nil {
		return errors.New("no in-memory client was made")
	}
	return nil
}

// registerCapture adds the plugin that hands the in-memory client out. The
// registry is global and keeps it for the process's life, so a second start in
// one process (tests) finds it there; which server it serves comes by context.
func registerCapture() {
	const id = "minictl"
	for _, p := range registry.Graph(func(*plugin.Registration) bool { return false }) {
		if p.ID == id {
			return
		}
	}
	registry.Register(&plugin.Registration{
		Type: plugins.GRPCPlugin,
		ID:   id,
		Requires: []plugin.Type{
			plugins.EventPlugin, plugins.LeasePlugin, plugins.SandboxStorePlugin,
			plugins.TransferPlugin, plugins.MountManagerPlugin, plugins.ServicePlugin,
		},
		InitFn: func(ic *plugin.InitContext) (any, error) {
			e, ok := ic.Context.Value(captureKey{}).(*embedded)
			if !ok {
				return nil, plugin.ErrSkipPlugin
			}
			c, err := containerd.New("", containerd.WithInMemoryServices(ic))
			e.client = c
			return c, err
		},
	})
}

// apiSocket is where the embedded server would serve its API; shims' sockets are named after it.
func apiSocket(cfg Config) string { return filepath.Join(cfg.State, "containerd.sock") }

// serverConfig names every path explicitly: each default is one that a system's
// own containerd uses too.
func serverConfig(cfg Config) *srvconfig.Config {
	sock := apiSocket(cfg)
	return &srvconfig.Config{
		Version: version.ConfigVersion,
		Root:    cfg.Root,
		State:   cfg.State,
		Plugins: map[string]any{
			"io.containerd.server.v1.grpc": map[string]any{"address": sock},
			// The shims publish their events over this one.
			"io.containerd.server.v1.ttrpc": map[string]any{"address": sock + ".ttrpc"},
			"io.containerd.shim.v1.manager": map[string]any{"socket_dir": filepath.Clean(cfg.SocketDir)},
			"io.containerd.internal.v1.opt": map[string]any{"path": filepath.Join(cfg.Root, "opt")},
			// By default the disk space of a removed container stays until a hundred
			// other changes, for which containerd looks four times a second. The pause
			// threshold makes that once in five seconds: 5 ms, its shortest collection,
			// are a thousandth of them.
			"io.containerd.gc.v1.scheduler":   map[string]any{"deletion_threshold": 1, "schedule_delay": "1s", "pause_threshold": 0.001},
			"io.containerd.transfer.v1.local": map[string]any{"max_concurrent_downloads": 3},
		},
		// Nobody reads the metrics of a server that only this process calls.
		DisabledPlugins: []string{"io.containerd.metrics.v1.grpc-prometheus", "io.containerd.server.v1.grpc-tcp"},
		RequiredPlugins: []string{
			"io.containerd.metadata.v1.bolt", "io.containerd.runtime.v2.task", "io.containerd.shim.v1.manager",
			"io.containerd.grpc.v1.tasks", "io.containerd.server.v1.grpc", "io.containerd.server.v1.ttrpc",
			"io.containerd.grpc.v1.minictl",
		},
	}
}

// tidyVersion gives a version one form: builds differ in "v" and in suffixes.
func tidyVersion(v string) string {
	v, _, _ = strings.Cut(v, "+")
	v, _, _ = strings.Cut(v, "~")
	return "v" + strings.TrimPrefix(v, "v")
}

func (e *embedded) close() {
	if e.cancel != nil {
		// Before Stop: a garbage collection that finds its databases closed blocks
		// for ever, and the rest of Stop behind it.
		e.cancel()
		e.logs.closed.Store(true)
	}
	if e.srv != nil {
		done := make(chan struct{})
		go func() { e.srv.Stop(); close(done) }()
		timer := time.NewTimer(stopTimeout)
		defer timer.Stop()
		select {
		case <-done:
		case <-timer.C:
		}
	}
	if e.lock != nil {
		_ = e.lock.Close()
	}
}

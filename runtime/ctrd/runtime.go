// Package ctrd runs containers through containerd: embedded in this process or,
// by address, one that already runs. It is the only importer of containerd.
package ctrd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/errdefs"
	rules "github.com/minictl/minictl/runtime/image"
	"github.com/minictl/minictl/runtime/room"
)

// Namespace is the containerd namespace that holds everything of ours.
const Namespace = "minictl"

// defaultCgroupParent is where containers' cgroups stand when Config does not say.
const defaultCgroupParent = "/minictl"

// Config says where a Runtime keeps its things. Two daemons on one machine
// differ in all three directories.
type Config struct {
	// Root keeps images, layers and metadata over reboots.
	Root string
	// State keeps what dies with a reboot: bundles and runc's records. It must
	// outlive the daemon's process, as the containers do.
	State string
	// SocketDir holds the shims' unix sockets; at most 42 characters, since
	// containerd appends a 64-character name and the kernel allows 108.
	SocketDir string
	// External is the address of a containerd that already runs; empty embeds one.
	External string
	// Shim unpacks the shim's binary below dir and gives its absolute path.
	Shim func(dir string) (path string, err error)
	// CgroupParent is the daemon's own parent of the containers' cgroups
	// (default /minictl): it is removed whenever it becomes empty.
	CgroupParent string
	// Registries are those that are reached in a way of their own.
	Registries rules.Registries
	// CheckDatabase reads a bbolt file through and says what is wrong with it. Nil: it is left to containerd to find out.
	CheckDatabase func(path string) error
	// Log takes containerd's own messages as well.
	Log *slog.Logger
}

// Runtime is one containerd with our namespace in it.
type Runtime struct {
	cfg         Config
	log         *slog.Logger
	client      *containerd.Client
	snapshotter string
	shim        string // absolute path of the unpacked shim
	server      *embedded
	disk        room.FileSystem // where the images are
	version     string

	cgroups   cgroups
	inherited inherited
	serial    serials
	runc      runcVersion
	pulls     unfinished
	mu        sync.Mutex
	tasks     map[string]*Task // one live value per container, so that waits are shared

	// life ends with Close; waits are the goroutines that wait for exits.
	life  context.Context
	die   context.CancelFunc
	waits sync.WaitGroup
	// removed tells nudge that a layer has been removed.
	removed chan struct{}
}

// Start brings containerd up (or connects to Config.External) and returns when
// containers can be made. It fails at once, naming the holder's directory, when
// another daemon owns Config.Root.
func Start(ctx context.Context, cfg Config) (*Runtime, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.CgroupParent == "" {
		cfg.CgroupParent = defaultCgroupParent
	}
	if n := len(cfg.SocketDir); n == 0 || n > maxSocketDir {
		return nil, fmt.Errorf("start containerd: socket directory %q: need 1 to %d characters: %w", cfg.SocketDir, maxSocketDir, errdefs.ErrInvalidArgument)
	}
	if cfg.Shim == nil {
		return nil, fmt.Errorf("start containerd: no shim given: %w", errdefs.ErrInvalidArgument)
	}
	if err := cfg.Registries.Check(); err != nil {
		return nil, fmt.Errorf("start containerd: %w", err)
	}
	r := &Runtime{cfg: cfg, log: cfg.Log, disk: room.At(cfg.Root), tasks: map[string]*Task{}, removed: make(chan struct{}, 1)}
	r.life, r.die = context.WithCancel(context.WithoutCancel(ctx))
	if err := r.open(ctx); err != nil {
		_ = r.Close()
		return nil, err
	}
	r.waits.Go(r.nudge)
	return r, nil
}

func (r *Runtime) open(ctx context.Context) (err error) {
	if err := os.MkdirAll(r.cfg.SocketDir, 0o700); err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	if cfg := r.cfg; cfg.External == "" {
		if r.server, err = startEmbedded(ctx, cfg); err != nil {
			return err
		}
		r.client = r.server.client
	} else if r.client, err = containerd.New(cfg.External, containerd.WithTimeout(5*time.Second)); err != nil {
		return fmt.Errorf("connect to containerd at %s: %w", cfg.External, err)
	}
	if r.shim, err = r.cfg.Shim(filepath.Join(r.cfg.Root, "shims")); err != nil {
		return fmt.Errorf("unpack shim: %w", err)
	}
	if err := r.ready(ctx); err != nil {
		return fmt.Errorf("reach containerd: %w", err)
	}
	if err := findRunc(); err != nil {
		r.log.Warn("no container can start yet", "err", err)
	}
	r.snapshotter = r.pickSnapshotter(ctx)
	if err := r.inherit(ctx); err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	if err := r.sweep(ctx); err != nil {
		r.log.Warn("left-over layers not removed", "err", err)
	}
	return nil
}

// ready asks for the version, which proves the connection, and makes our namespace.
func (r *Runtime) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if r.server != nil {
		r.version = tidyVersion(version.Version)
	} else {
		v, err := r.client.Version(ctx)
		if err != nil {
			return err
		}
		r.version = tidyVersion(v.Version)
	}
	err := r.client.NamespaceService().Create(r.ctx(ctx), Namespace, nil)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("create namespace: %w", err)
	}
	return nil
}

// pickSnapshotter prefers overlayfs; native copies whole layers, but works on
// file systems that overlayfs refuses (overlayfs itself, some FUSE ones).
func (r *Runtime) pickSnapshotter(ctx context.Context) string {
	const overlay, native = "overlayfs", "native"
	err := r.client.SnapshotService(overlay).Walk(r.ctx(ctx), func(context.Context, snapshots.Info) error { return errStop })
	if err == nil || errors.Is(err, errStop) {
		return overlay
	}
	r.log.Warn("overlayfs does not work here: every container gets a full copy of its image", "err", err)
	return native
}

var errStop = errors.New("stop")

// ctx puts our containerd namespace into a context.
func (r *Runtime) ctx(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, Namespace)
}

// Version is containerd's version, such as "v2.4.2".
func (r *Runtime) Version() string { return r.version }

// Close lets go of containerd; the containers run on.
func (r *Runtime) Close() error {
	var err error
	r.die()
	r.waits.Wait()
	if r.client != nil {
		err = r.client.Close()
	}
	if r.server != nil {
		r.server.close()
	}
	return err
}

// Package engine gives docker's commands their meaning: it turns what the API asks for into calls on the runtime, the
// network drivers, the resolver and the cluster, and keeps what it promised over restarts.
//
// Every container is a box: one lock for its life-cycle steps, one for its status. A step that fails undoes what it
// made, with a context of its own, so that a client that goes away leaves nothing behind.
package engine

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	mobycontainer "github.com/moby/moby/api/types/container"

	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cmd/internal/failpoint"
	"github.com/minictl/minictl/cmd/internal/feed"
	"github.com/minictl/minictl/dnsd"
	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/firewall"
	"github.com/minictl/minictl/netdriver/ipam"
	"github.com/minictl/minictl/netdriver/portmap"
	"github.com/minictl/minictl/netdriver/remote"
	"github.com/minictl/minictl/runtime/ctrd"
	"github.com/minictl/minictl/runtime/image"
	"github.com/minictl/minictl/runtime/oci"
)

// undoTimeout bounds what is undone after a failure or cleaned up after an exit, when the client's own context is gone.
const undoTimeout = 15 * time.Second

// publishTimeout bounds how long run waits for other hosts to have an endpoint's record.
const publishTimeout = 500 * time.Millisecond

// Runtime runs containers and keeps images.
type Runtime interface {
	Create(ctx context.Context, id, imageID string, labels map[string]string) error
	Remove(ctx context.Context, id string) error
	Containers(ctx context.Context) ([]string, error)
	RootFS(ctx context.Context, id string, fn func(root string) error) error
	NewTask(ctx context.Context, id string, o ctrd.TaskOptions) (*ctrd.Task, error)
	LoadTask(ctx context.Context, id string) (*ctrd.Task, error)
	Version() string
	RuncVersion(ctx context.Context) string

	Images(ctx context.Context) ([]image.Image, error)
	Image(ctx context.Context, ref string) (image.Image, error)
	Pull(ctx context.Context, ref, platform string, auth *image.Auth, p image.Progress) error
	PullAll(ctx context.Context, repository, platform string, auth *image.Auth, p image.Progress) error
	DropUnfinishedPulls(ctx context.Context) error
	// Load gives the names of what it took, or the IDs of what had none; also some beside an error.
	Load(ctx context.Context, r io.Reader, platform string, p image.Progress) (loaded []string, err error)
	Import(ctx context.Context, r io.Reader, ref string, changes []string, message, platform string, p image.Progress) (string, error)
	Tag(ctx context.Context, ref, target string) error
	RemoveImage(ctx context.Context, ref string, force bool, inUse func(id string) []image.User) ([]image.Removed, error)
	Files
	Registry
}

// Builder makes images out of Dockerfiles.
type Builder interface {
	Build(ctx context.Context, o image.Build, tar io.Reader, p image.Progress) (id string, err error)
}

// Cluster is this host's part in its cluster, which may be a cluster of one.
type Cluster interface {
	Init(ctx context.Context, o cluster.InitOptions) error
	Join(ctx context.Context, o cluster.JoinOptions) error
	Leave(ctx context.Context, force bool) error
	Token(ctx context.Context, rotate bool) (string, time.Time, error)
	Clustered() bool
	Authority(ctx context.Context) (*x509.Certificate, error)
	ID() string
	Epoch() string
	Self() cluster.Node
	Members() []cluster.Member
	Leader() (cluster.NodeID, bool)
	ExternalStore() string
	StoreError() error
	Store() store.Store
	Publish(ctx context.Context, put []cluster.Record, del []string) (missing []string, err error)
	Records(network string) []cluster.Owned
	OwnRecords() []cluster.Record
	CaughtUp(ctx context.Context) error
	SetRoutes(routes []netip.Prefix)
	SetMTU(mtu int)
	Remove(ctx context.Context, node string, force bool) error
	Synced(ctx context.Context) error
	Deciding(ctx context.Context, doubt time.Duration) (context.Context, context.CancelFunc)
	Standing() cluster.Standing
	Lags(ctx context.Context) map[cluster.NodeID]uint64
	Recoverable(ctx context.Context) (cluster.Recovery, error)
	Recover(ctx context.Context) error
	Rejoin(ctx context.Context, via string) error
	Find(ctx context.Context, node, addr string) error
	Backup(ctx context.Context) (cluster.Backup, error)
	Restore(ctx context.Context, b cluster.Backup, o cluster.InitOptions) error
	RotateAuthority(ctx context.Context) error
	FinishRotation(ctx context.Context) error
	Rotation(ctx context.Context) (under bool, waiting []string, err error)
	Refused() string
	Stopped() error
	Cautious() bool
	Before(ctx context.Context) ([]cluster.BeforePair, error)
	ForgetBefore(ctx context.Context, seen []cluster.BeforePair) error
	Settled(ctx context.Context, epoch string) error
}

// Overlay is what the engine tells the overlay driver beyond a driver's calls.
type Overlay interface {
	netdriver.Driver
	netdriver.PeerSetter
	SetDataPath(ctx context.Context, d netdriver.DataPath) error
	// AskedVNI is the VXLAN identifier that the user chose for a network; 0 if he did not.
	AskedVNI(netdriver.Network) (uint32, error)
}

// Live are settings that can change while the engine runs; it only shows them.
type Live struct {
	Debug  bool     // every step is logged
	Labels []string // key=value, about this host
}

// Config is what an Engine is built of.
type Config struct {
	Root          string // persistent folder
	ExecRoot      string // folder that a reboot empties
	NodeName      string
	GatewayBridge string // name of the gateway bridge, which is also its link's
	// AddressPools are where this host's own networks get their subnets; none of a family: docker's.
	AddressPools []ipam.Block
	Defaults     Defaults
	Version      string
	Live         func() Live // settings that can change; nil is none
	Log          *slog.Logger

	Runtime  Runtime
	Builder  Builder
	Cluster  Cluster
	Drivers  []netdriver.Driver // bridge, host, null
	Overlay  Overlay
	Plugins  *remote.Plugins // drivers that are other programs; nil: none
	Firewall *firewall.Firewall
	Ports    *portmap.Allocator
	Resolver *dnsd.Server
	Host     oci.Host
	// DefaultLog is how the output of containers is kept that do not say.
	DefaultLog mobycontainer.LogConfig
	// Witness makes an engine that has a part in the cluster and nothing else: of the parts above it needs Cluster alone, and
	// it is not restored.
	Witness bool
	// Registries are shown in docker info.
	Registries image.Registries
	// Init unpacks the init of --init below a folder, and gives its path.
	Init func(dir string) (string, error)
	// Routes are the prefixes this host routes elsewhere: address pools avoid them.
	Routes func() ([]netip.Prefix, error)
	// WatchRoutes tells of changes of Routes until ctx ends, WatchLinks of those of the host's interfaces.
	WatchRoutes, WatchLinks func(ctx context.Context, changed func()) error
	// WatchRules tells of changes of the host's packet rules, whoever makes them.
	WatchRules func(ctx context.Context, changed func()) error
	// SandboxOf makes, removes and lists network namespaces.
	Sandboxes Sandboxes
}

// Sandboxes makes network namespaces.
type Sandboxes interface {
	Create(ctx context.Context, path string) (netdriver.Sandbox, error)
	Remove(path string) error
	Unplug(path string) error
	List(dir string) ([]string, error)
	// SetSysctl writes a setting of the namespace, such as net/ipv4/conf/eth0/log_martians.
	SetSysctl(path, key, value string) error
	// Dial connects from inside the namespace, as net.Dialer does.
	Dial(ctx context.Context, path, network, address string) (net.Conn, error)
	// OpenResolver opens the embedded resolver's sockets inside the namespace and leads 127.0.0.11:53 to them.
	OpenResolver(ctx context.Context, path string) (*ResolverSockets, error)
}

// Engine implements the API's back ends.
type Engine struct {
	cfg     Config
	log     *slog.Logger
	rt      Runtime
	cl      Cluster
	drivers map[string]netdriver.Driver
	state   *state
	events  *feed.Feed
	zones   zoneCache
	users   userCache
	volumes *volumes
	id      string

	// ctx ends with the engine; what watches containers lives in it.
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup
	// restored is closed when Restore is done: nothing starts by itself before that.
	restored chan struct{}

	mu       sync.RWMutex // guards the maps
	boxes    map[string]*box
	names    map[string]string // container name -> ID
	networks map[string]*Network
	execs    map[string]*execution

	netMu    sync.Mutex                 // one network's life-cycle step at a time; no plugin is waited for under it
	making   map[string]*Network        // by ID: local networks of plugins about to be; guarded by netMu
	leaving  map[string]bool            // IDs of those about to go; guarded by netMu
	attached map[string]map[string]bool // network ID -> endpoints of this host in the kernel; guarded by netMu

	leases map[string]map[netip.Addr]string // local networks: address -> endpoint ID; guarded by mu

	spares  *spares       // addresses of global networks that this host may give without asking
	clashes *clashes      // addresses that others have too
	drift   drift         // what others changed in the kernel, and was repaired
	wake    chan struct{} // reconcileLoop looks now

	nodeWake chan struct{} // nodeLoop looks now

	debts      debts         // what plugins have still to be told
	pluginWake chan struct{} // pluginLoop looks now
}

// New opens the engine's state. Restore must run before it serves.
func New(cfg Config) (*Engine, error) {
	st, err := openState(filepath.Join(cfg.Root, "state.db"))
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	e := &Engine{
		cfg: cfg, log: cfg.Log.With("component", "engine"), rt: cfg.Runtime, cl: cfg.Cluster, state: st,
		drivers: map[string]netdriver.Driver{}, events: feed.New(), volumes: newVolumes(filepath.Join(cfg.Root, "volumes")),
		ctx: ctx, stop: stop, restored: make(chan struct{}),
		boxes: map[string]*box{}, names: map[string]string{}, networks: map[string]*Network{}, execs: map[string]*execution{},
		clashes: &clashes{}, wake: make(chan struct{}, 1), nodeWake: make(chan struct{}, 1), pluginWake: make(chan struct{}, 1),
		leases: map[string]map[netip.Addr]string{}, attached: map[string]map[string]bool{}, making: map[string]*Network{}, leaving: map[string]bool{},
	}
	for _, d := range cfg.Drivers {
		e.drivers[d.Type()] = d
	}
	if !cfg.Witness {
		e.drivers[cfg.Overlay.Type()] = cfg.Overlay
	}
	if e.id, err = st.identity(); err == nil {
		e.spares, err = openSpares(st)
	}
	if err != nil {
		stop()
		return nil, errors.Join(err, st.Close())
	}
	return e, nil
}

// Close stops watching. Containers go on; the next engine takes them up again.
func (e *Engine) Close() error {
	e.stop()
	e.wg.Wait()
	e.keepHealth()
	return e.state.Close()
}

func (e *Engine) spawn(fn func()) {
	e.wg.Go(fn)
}

// newID is 64 random hexadecimal digits, docker's form of an identity.
func newID() string {
	var b [32]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// undo collects what takes a half-made thing back, and runs it in reverse.
type undo struct{ steps []func(context.Context) }

func (u *undo) add(fn func(context.Context)) { u.steps = append(u.steps, fn) }

// run takes back what was added. The caller's context may be cancelled already; its values are kept.
func (u *undo) run(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	for i := len(u.steps) - 1; i >= 0; i-- {
		u.steps[i](ctx)
	}
	u.steps = nil
}

// reach is a step that cannot fail: a test can only end the daemon there.
func reach(name string) { _ = failpoint.Hit(name) }

// step is where a test makes one step of a longer work fail, or ends the daemon.
func step(name string) error {
	if err := failpoint.Hit(name); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"

	rules "github.com/minictl/minictl/runtime/image"
)

// The fakes have a function per method that a test needs. The embedded nil interface makes every other call panic,
// which the server must survive, and which a test sees as a 500.

type fakeContainer struct {
	ContainerBackend
	create  func(name string, req container.CreateRequest) (container.CreateResponse, error)
	options CreateOptions // of the last create
	list    func(ListOptions) ([]container.Summary, error)
	inspect func(ref string) (container.InspectResponse, error)
	start   func(ctx context.Context, ref string) error
	stop    func(ref, signal string, timeout *int) error
	remove  func(ref string, force, volumes bool) error
	wait    func(ctx context.Context, ref string, c container.WaitCondition) (<-chan container.WaitResponse, error)
	logs    func(ctx context.Context, opts LogsOptions, w io.Writer) error
	tty     func(ref string) (bool, error)
	attach  func(ctx context.Context, ref string, opts AttachOptions) (Stream, error)
	simple  func(op, ref, arg string) error // kill, rename, restart, resize
}

func (f *fakeContainer) ContainerCreate(_ context.Context, name string, o CreateOptions, req container.CreateRequest) (container.CreateResponse, error) {
	f.options = o
	return f.create(name, req)
}
func (f *fakeContainer) ContainerList(_ context.Context, o ListOptions) ([]container.Summary, error) {
	return f.list(o)
}
func (f *fakeContainer) ContainerInspect(_ context.Context, ref string, _ bool) (container.InspectResponse, error) {
	return f.inspect(ref)
}
func (f *fakeContainer) ContainerStart(ctx context.Context, ref string) ([]string, error) {
	return nil, f.start(ctx, ref)
}
func (f *fakeContainer) ContainerStop(_ context.Context, ref, signal string, t *int) error {
	return f.stop(ref, signal, t)
}
func (f *fakeContainer) ContainerRestart(_ context.Context, ref, signal string, _ *int) error {
	return f.simple("restart", ref, signal)
}
func (f *fakeContainer) ContainerKill(_ context.Context, ref, signal string) error {
	return f.simple("kill", ref, signal)
}
func (f *fakeContainer) ContainerRename(_ context.Context, ref, name string) error {
	return f.simple("rename", ref, name)
}
func (f *fakeContainer) ContainerResize(_ context.Context, ref string, _, _ uint32) error {
	return f.simple("resize", ref, "")
}
func (f *fakeContainer) ContainerRemove(_ context.Context, ref string, force, volumes bool) error {
	return f.remove(ref, force, volumes)
}
func (f *fakeContainer) ContainerWait(ctx context.Context, ref string, c container.WaitCondition) (<-chan container.WaitResponse, error) {
	return f.wait(ctx, ref, c)
}
func (f *fakeContainer) ContainerLogs(ctx context.Context, _ string, o LogsOptions, w io.Writer) error {
	return f.logs(ctx, o, w)
}
func (f *fakeContainer) ContainerTTY(_ context.Context, ref string) (bool, error) {
	if f.tty == nil {
		return false, nil
	}
	return f.tty(ref)
}
func (f *fakeContainer) ContainerAttach(ctx context.Context, ref string, o AttachOptions) (Stream, error) {
	return f.attach(ctx, ref, o)
}

type fakeExec struct {
	ExecBackend
	create  func(ref string, req container.ExecCreateRequest) (string, error)
	start   func(id string, req container.ExecStartRequest) (Stream, error)
	inspect func(id string) (container.ExecInspectResponse, error)
}

func (f *fakeExec) ExecCreate(_ context.Context, ref string, req container.ExecCreateRequest) (string, error) {
	return f.create(ref, req)
}
func (f *fakeExec) ExecStart(_ context.Context, id string, req container.ExecStartRequest) (Stream, error) {
	return f.start(id, req)
}
func (f *fakeExec) ExecInspect(_ context.Context, id string) (container.ExecInspectResponse, error) {
	return f.inspect(id)
}
func (f *fakeExec) ExecResize(context.Context, string, uint32, uint32) error { return nil }

type fakeNetwork struct {
	NetworkBackend
	list    func(Filters) ([]network.Summary, error)
	inspect func(ref string) (network.Inspect, error)
	create  func(network.CreateRequest) (network.CreateResponse, error)
	remove  func(ref string) error
	connect func(ref string, req network.ConnectRequest) error
	cut     func(ref string, req network.DisconnectRequest) error
	prune   func(Filters) (network.PruneReport, error)
}

func (f *fakeNetwork) NetworkList(_ context.Context, fl Filters) ([]network.Summary, error) {
	return f.list(fl)
}
func (f *fakeNetwork) NetworkInspect(_ context.Context, ref, _ string, _ bool) (NetworkInspect, error) {
	info, err := f.inspect(ref)
	return NetworkInspect{Inspect: info}, err
}
func (f *fakeNetwork) NetworkCreate(_ context.Context, req network.CreateRequest) (network.CreateResponse, error) {
	return f.create(req)
}
func (f *fakeNetwork) NetworkRemove(_ context.Context, ref string) error { return f.remove(ref) }
func (f *fakeNetwork) NetworkConnect(_ context.Context, ref string, req network.ConnectRequest) error {
	return f.connect(ref, req)
}
func (f *fakeNetwork) NetworkDisconnect(_ context.Context, ref string, req network.DisconnectRequest) error {
	return f.cut(ref, req)
}
func (f *fakeNetwork) NetworkPrune(_ context.Context, fl Filters) (network.PruneReport, error) {
	return f.prune(fl)
}

type fakeImage struct {
	ImageBackend
	list    func(all bool, f Filters) ([]image.Summary, error)
	inspect func(ref string) (image.InspectResponse, error)
	pull    func(ctx context.Context, ref, platform, auth string, p Progress) error
	load    func(r io.Reader, p Progress) error
	imp     func(r io.Reader, ref string, changes []string, p Progress) error
	tag     func(ref, target string) error
	remove  func(ref string, force, prune bool) ([]image.DeleteResponse, error)
}

func (f *fakeImage) ImageList(_ context.Context, all bool, fl Filters) ([]image.Summary, error) {
	return f.list(all, fl)
}
func (f *fakeImage) ImageShares(context.Context) (map[string]int64, error) {
	return map[string]int64{"sha256:00": 5}, nil
}
func (f *fakeImage) ImageInspect(_ context.Context, ref string) (image.InspectResponse, error) {
	return f.inspect(ref)
}
func (f *fakeImage) ImagePull(ctx context.Context, ref, platform, auth string, p Progress) error {
	return f.pull(ctx, ref, platform, auth, p)
}
func (f *fakeImage) ImageLoad(_ context.Context, r io.Reader, _ string, p Progress) error {
	return f.load(r, p)
}
func (f *fakeImage) ImageFetch(_ context.Context, url string, _ Progress) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("from " + url)), nil
}
func (f *fakeImage) ImageImport(_ context.Context, r io.Reader, ref string, ch []string, _, _ string, p Progress) error {
	return f.imp(r, ref, ch, p)
}
func (f *fakeImage) ImageTag(_ context.Context, ref, target string) error { return f.tag(ref, target) }
func (f *fakeImage) ImageRemove(_ context.Context, ref string, force, prune bool) ([]image.DeleteResponse, error) {
	return f.remove(ref, force, prune)
}

type fakeSystem struct {
	SystemBackend
	info   system.Info
	state  string
	events func(ctx context.Context, since, until string, f Filters) (<-chan events.Message, error)
}

func (f *fakeSystem) Info(context.Context) (system.Info, error) { return f.info, nil }
func (f *fakeSystem) Version(context.Context) (system.VersionResponse, error) {
	return system.VersionResponse{
		Platform: system.PlatformInfo{Name: "minictl"}, Version: "0.1", Os: "linux", Arch: "amd64",
		Components: []system.ComponentVersion{{Name: "Engine", Version: "0.1", Details: map[string]string{
			"ApiVersion": DefaultVersion, "MinAPIVersion": MinVersion, "Os": "linux", "Arch": "amd64",
		}}},
	}, nil
}
func (f *fakeSystem) SwarmState(context.Context) string {
	if f.state == "" {
		return "inactive"
	}
	return f.state
}
func (f *fakeSystem) Events(ctx context.Context, since, until string, fl Filters) (<-chan events.Message, error) {
	return f.events(ctx, since, until, fl)
}

type fakeCluster struct {
	ClusterBackend
	init   func(ClusterInitRequest) (ClusterInitResponse, error)
	join   func(ClusterJoinRequest) (ClusterJoinResponse, error)
	leave  func(force bool) error
	token  func(rotate bool) (ClusterToken, error)
	status ClusterStatus

	recover func(dryRun bool) (ClusterRecoverResponse, error)
	rejoin  func(remote string) error
	nodes   []swarm.Node

	rotation ClusterRotation
}

func (f *fakeCluster) ClusterInit(_ context.Context, r ClusterInitRequest) (ClusterInitResponse, error) {
	return f.init(r)
}
func (f *fakeCluster) ClusterJoin(_ context.Context, r ClusterJoinRequest) (ClusterJoinResponse, error) {
	return f.join(r)
}
func (f *fakeCluster) ClusterLeave(_ context.Context, force bool) error { return f.leave(force) }
func (f *fakeCluster) ClusterToken(_ context.Context, rotate bool) (ClusterToken, error) {
	return f.token(rotate)
}
func (f *fakeCluster) ClusterRecover(_ context.Context, dryRun bool) (ClusterRecoverResponse, error) {
	return f.recover(dryRun)
}
func (f *fakeCluster) ClusterRotateCA(context.Context, bool) error {
	f.rotation.UnderWay = true
	return nil
}
func (f *fakeCluster) ClusterRotation(context.Context) (ClusterRotation, error) {
	return f.rotation, nil
}
func (f *fakeCluster) ClusterFind(_ context.Context, node, addr string) error {
	if node != "host2" || addr != "192.0.2.2" {
		return errdefs.ErrNotFound
	}
	return nil
}
func (f *fakeCluster) ClusterRejoin(_ context.Context, remote string) error { return f.rejoin(remote) }
func (f *fakeCluster) ClusterStatus(context.Context) (ClusterStatus, error) { return f.status, nil }
func (f *fakeCluster) NodeList(context.Context, Filters) ([]swarm.Node, error) {
	return f.nodes, nil
}
func (f *fakeCluster) NodeInspect(_ context.Context, ref string) (swarm.Node, error) {
	for _, n := range f.nodes {
		if n.ID == ref {
			return n, nil
		}
	}
	return swarm.Node{}, notFound("node %s not found", ref)
}

// fakes is one of each.
type fakes struct {
	c   fakeContainer
	e   fakeExec
	n   fakeNetwork
	v   fakeVolume
	i   fakeImage
	s   fakeSystem
	cl  fakeCluster
	log strings.Builder
}

func (f *fakes) config(t testing.TB) Config {
	t.Helper()
	return Config{
		Log:       slog.New(slog.NewTextHandler(&lockedWriter{w: &f.log}, nil)),
		Container: &f.c, Exec: &f.e, Network: &f.n, Volume: &f.v, Image: &f.i, System: &f.s, Cluster: &f.cl,
		Build: fakeBuild(func(rules.Build, string, Progress) (string, error) { return "sha256:0123456789abcdef", nil }),
	}
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// serve starts f on a unix socket. When the test ends it stops the server and proves that no goroutine is left.
func serve(t *testing.T, f *fakes) (socket string) {
	t.Helper()
	before := runtime.NumGoroutine()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cfg := f.config(t)
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, cfg.Log, l, New(cfg)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		eventually(t, func() bool { return runtime.NumGoroutine() <= before }, func() string {
			buf := make([]byte, 1<<20)
			return "goroutines left:\n" + string(buf[:runtime.Stack(buf, true)])
		})
	})
	return socket
}

// dial gives moby's own client for a socket.
func dial(t *testing.T, socket string, opts ...client.Opt) *client.Client {
	t.Helper()
	c, err := client.New(append([]client.Opt{client.WithHost("unix://" + socket)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// eventually waits for a condition for at most five seconds.
func eventually(t *testing.T, cond func() bool, why func() string) {
	t.Helper()
	limit, tick := time.NewTimer(5*time.Second), time.NewTicker(5*time.Millisecond)
	defer limit.Stop()
	defer tick.Stop()
	for !cond() {
		select {
		case <-limit.C:
			t.Fatal(why())
		case <-tick.C:
		}
	}
}

// within gives what ch delivers, or fails after five seconds.
func within[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	limit := time.NewTimer(5 * time.Second)
	defer limit.Stop()
	select {
	case v := <-ch:
		return v
	case <-limit.C:
		t.Fatalf("no %s within 5 s", what)
		panic("unreachable")
	}
}

// httpVia gives a plain HTTP client for a socket.
func httpVia(t *testing.T, socket string) *http.Client {
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", socket)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// process is a fake container process: its stdin is a pipe, its output what run writes.
type process struct {
	stdin  *io.PipeReader
	in     *io.PipeWriter
	out    *io.PipeReader
	stdout *io.PipeWriter
	closed chan struct{}
	once   sync.Once
}

func newProcess() *process {
	p := &process{closed: make(chan struct{})}
	p.stdin, p.in = io.Pipe()
	p.out, p.stdout = io.Pipe()
	return p
}

// echo copies stdin to framed stdout, and says bye on stderr at its end.
func (p *process) echo() {
	buf := make([]byte, 4096)
	for {
		n, err := p.stdin.Read(buf)
		if n > 0 {
			if _, err := p.stdout.Write(frame(false, stdoutFrame, string(buf[:n]))); err != nil {
				return
			}
		}
		if err != nil {
			break
		}
	}
	_, _ = p.stdout.Write(frame(false, stderrFrame, "bye"))
	_ = p.stdout.Close()
}

func (p *process) Read(b []byte) (int, error)  { return p.out.Read(b) }
func (p *process) Write(b []byte) (int, error) { return p.in.Write(b) }
func (p *process) CloseWrite() error           { return p.in.Close() }
func (p *process) Close() error {
	p.once.Do(func() { close(p.closed) })
	_ = p.in.CloseWithError(io.ErrClosedPipe)
	return p.out.CloseWithError(errors.New("stream closed"))
}

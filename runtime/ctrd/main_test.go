package ctrd

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// shimPath is built once per test binary from the present sources.
var shimPath string

func TestMain(m *testing.M) {
	if os.Getenv(daemonEnv) != "" {
		daemonMain()
		return
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			fmt.Fprintln(os.Stderr, "these tests need root")
			return 1
		}
		return m.Run() // the tests that need root skip
	}
	dir, err := os.MkdirTemp("", "ctrd-shim")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	shimPath = filepath.Join(dir, "minictl-shim")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-tags", "no_rdt", "-o", shimPath, "../../cmd/minictl-shim")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build shim: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// host is the directories of one daemon.
type host struct {
	Base, Sockets, Cgroup string
}

func newHost(t testing.TB) host {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("", "mc") // short: the sockets are below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("directories stay busy: %v", err)
		}
	})
	return host{Base: dir, Sockets: filepath.Join(dir, "s"), Cgroup: "/mt-" + filepath.Base(dir)}
}

func (h host) config(log *slog.Logger) Config {
	return Config{
		Root: filepath.Join(h.Base, "root"), State: filepath.Join(h.Base, "state"), SocketDir: h.Sockets,
		CgroupParent: h.Cgroup, Log: log,
		Shim: func(string) (string, error) {
			if p := os.Getenv("MINICTL_TEST_SHIM"); p != "" {
				return p, nil
			}
			return shimPath, nil
		},
	}
}

func (h host) start(t testing.TB) *Runtime {
	t.Helper()
	r, err := Start(t.Context(), h.config(slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))))
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if r.life.Err() == nil {
			ids, _ := r.Containers(ctx)
			for _, id := range ids {
				if err := r.Remove(ctx, id); err != nil {
					t.Errorf("remove %s: %v", id, err)
				}
			}
			if left := dirs(h.Cgroup); len(left) > 0 {
				t.Errorf("cgroups stay: %v", left)
			}
		}
		r.Close()
	})
	return r
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// busybox imports busybox and gives the image's ID.
func busybox(t testing.TB, r *Runtime) string {
	t.Helper()
	archive, id := busyboxArchive(t)
	if _, err := r.client.Import(r.ctx(t.Context()), archive); err != nil {
		t.Fatalf("import: %v", err)
	}
	return id
}

// busyboxArchive makes what "docker save" would print.
func busyboxArchive(t testing.TB) (io.Reader, string) {
	t.Helper()
	bin, err := os.ReadFile("/bin/busybox")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	layer := new(bytes.Buffer)
	w := tar.NewWriter(layer)
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp", "etc"} {
		put(t, w, &tar.Header{Name: d + "/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	put(t, w, &tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(bin))}, bin)
	for _, a := range strings.Fields("sh true false echo cat sleep ls stty head seq dd tr wc kill ps") {
		put(t, w, &tar.Header{Name: "bin/" + a, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	}
	w.Close()
	diff := sha256.Sum256(layer.Bytes())
	cfg := []byte(fmt.Sprintf(`{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:%x"]}}`, diff))
	id := fmt.Sprintf("%x", sha256.Sum256(cfg))
	manifest, _ := json.Marshal([]map[string]any{{"Config": id + ".json", "RepoTags": []string{"docker.io/library/busybox:latest"}, "Layers": []string{"layer.tar"}}})
	out := new(bytes.Buffer)
	w = tar.NewWriter(out)
	put(t, w, &tar.Header{Name: id + ".json", Mode: 0o644, Size: int64(len(cfg))}, cfg)
	put(t, w, &tar.Header{Name: "layer.tar", Mode: 0o644, Size: int64(layer.Len())}, layer.Bytes())
	put(t, w, &tar.Header{Name: "manifest.json", Mode: 0o644, Size: int64(len(manifest))}, manifest)
	w.Close()
	return out, "sha256:" + id
}

func put(t testing.TB, w *tar.Writer, h *tar.Header, b []byte) {
	t.Helper()
	if err := w.WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
}

func newID() string {
	b := make([]byte, 32)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// spec runs args in busybox with namespaces of its own.
func (h host) spec(id string, args ...string) *specs.Spec {
	return &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}, NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{}},
		Root: &specs.Root{Path: "rootfs"},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: h.Cgroup + "/" + id,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace},
			},
		},
	}
}

// create makes a container and its task.
func create(t testing.TB, r *Runtime, h host, img string, o TaskOptions, args ...string) (string, *Task) {
	t.Helper()
	id := newID()
	if err := r.Create(t.Context(), id, img, map[string]string{"test": t.Name()}); err != nil {
		t.Fatalf("create: %v", err)
	}
	o.Spec = h.spec(id, args...)
	o.Spec.Process.Terminal = o.TTY
	task, err := r.NewTask(t.Context(), id, o)
	if err != nil {
		t.Fatalf("new task: %v", err)
	}
	return id, task
}

func waitExit(t testing.TB, ch <-chan ExitStatus) ExitStatus {
	t.Helper()
	select {
	case st := <-ch:
		return st
	case <-time.After(time.Minute):
		t.Fatal("no exit within 10 s")
		return ExitStatus{}
	}
}

// eventually polls a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

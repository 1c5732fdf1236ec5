package ctrd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/minictl/minictl/runtime/logs"
)

// TestExternal runs on somebody else's containerd: our own server in another
// process and, where there is one, the system's.
func TestExternal(t *testing.T) {
	t.Run("ours", func(t *testing.T) {
		h := newHost(t)
		t.Cleanup(startDaemon(t, plan{Host: h}))
		testExternal(t, h, filepath.Join(h.Base, "state", "containerd.sock"))
	})
	t.Run("system", func(t *testing.T) {
		bin, err := exec.LookPath("containerd")
		if err != nil {
			t.Skip(err)
		}
		h := newHost(t)
		sock := filepath.Join(h.Base, "c.sock")
		cfg := filepath.Join(h.Base, "config.toml")
		text := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n[grpc]\naddress = %q\n",
			filepath.Join(h.Base, "croot"), filepath.Join(h.Base, "cstate"), sock)
		if err := os.WriteFile(cfg, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(bin, "-c", cfg, "-l", "warn")
		cmd.Stderr = testWriter{t}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
		})
		eventually(t, "containerd's socket", func() bool { return exists(sock) })
		testExternal(t, h, sock)
	})
}

func testExternal(t *testing.T, h host, sock string) {
	cfg := h.config(nil)
	cfg.Root, cfg.State, cfg.SocketDir = filepath.Join(h.Base, "r2"), filepath.Join(h.Base, "s2"), filepath.Join(h.Base, "k")
	cfg.External = sock
	r, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	t.Log("containerd", r.Version())
	img := busybox(t, r)
	logDir := filepath.Join(h.Base, "log")
	id, task := create(t, r, h, img, TaskOptions{LogDir: logDir}, "sh", "-c", "echo out; cat /file; exit 7")
	err = r.RootFS(t.Context(), id, func(root string) error {
		return os.WriteFile(filepath.Join(root, "file"), []byte("from outside\n"), 0o644)
	})
	if err != nil {
		t.Errorf("root of a created task: %v", err)
	}
	s, err := task.Attach(t.Context(), AttachOptions{Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	exit := task.Wait()
	if err := task.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, _ := demux(t, s); out != "out\nfrom outside\n" {
		t.Errorf("attached %q", out)
	}
	if st := waitExit(t, exit); st.Code != 7 {
		t.Errorf("exit %+v", st)
	}
	if _, err := task.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if got := logText(t, logDir, logs.Stdout); got != "out\nfrom outside\n" {
		t.Errorf("log %q", got)
	}
	if err := r.Remove(t.Context(), id); err != nil {
		t.Error(err)
	}
}

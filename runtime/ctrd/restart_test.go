package ctrd

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
)

// daemonEnv makes the test binary a daemon that can be killed: its value is a plan.
const daemonEnv = "MINICTL_TEST_DAEMON"

// plan is what the daemon starts before it says so and waits for its death.
type plan struct {
	Host  host
	Image string
	IDs   []string
	Args  [][]string
}

func daemonMain() {
	var p plan
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "daemon:", err)
			os.Exit(1)
		}
	}
	fail(json.Unmarshal([]byte(os.Getenv(daemonEnv)), &p))
	ctx := context.Background()
	r, err := Start(ctx, p.Host.config(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))))
	fail(err)
	for i, id := range p.IDs {
		fail(r.Create(ctx, id, p.Image, nil))
		t, err := r.NewTask(ctx, id, TaskOptions{Spec: p.Host.spec(id, p.Args[i]...), OpenStdin: true, LogDir: p.Host.logDir(id)})
		fail(err)
		fail(t.Start(ctx))
		rd, wr, err := os.Pipe()
		fail(err)
		fail(t.StoreFDs(ctx, "dns", []*os.File{rd, wr}))
		fmt.Fprintf(wr, "kept by %s", id)
	}
	fmt.Fprintln(os.Stdout, "ready")
	select {}
}

func (h host) logDir(id string) string { return filepath.Join(h.Base, "log", id) }

// startDaemon runs the plan in a process of its own and gives a function that
// kills it with SIGKILL.
func startDaemon(t *testing.T, p plan) (kill func()) {
	t.Helper()
	b, _ := json.Marshal(p)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), daemonEnv+"="+string(b), "MINICTL_TEST_SHIM="+shimPath)
	cmd.Stderr = testWriter{t}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("daemon says %q, %v", line, err)
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

func TestDaemonKilled(t *testing.T) {
	h := newHost(t)
	r := h.start(t)
	img := busybox(t, r)
	r.Close()

	ended, running := newID(), newID()
	kill := startDaemon(t, plan{Host: h, Image: img, IDs: []string{ended, running}, Args: [][]string{
		// It ends only when told, which is after the daemon's death.
		{"sh", "-c", "while ! [ -e /go ]; do echo tick; sleep 0.01; done; echo last line; exit 42"},
		{"sh", "-c", "(i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done) & while read -r x; do echo got $x; done"},
	}})
	_, err := Start(t.Context(), h.config(nil))
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("second daemon: %v", err)
	}
	kill()
	if err := os.WriteFile(filepath.Join(r.bundle(ended), "rootfs", "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, "container ends while the daemon is down", func() bool {
		return strings.HasSuffix(logText(t, h.logDir(ended), ""), "last line\n")
	})

	r = h.start(t)
	task, err := r.LoadTask(t.Context(), ended)
	if err != nil {
		t.Fatalf("ended task: %v", err)
	}
	if st := waitExit(t, task.Wait()); st.Code != 42 || st.Err != nil || st.At.IsZero() {
		t.Errorf("exit while the daemon was down: %+v", st)
	}
	if st, err := task.Delete(t.Context()); err != nil || st.Code != 42 {
		t.Errorf("delete: %+v, %v", st, err)
	}

	task, err = r.LoadTask(t.Context(), running)
	if err != nil {
		t.Fatalf("running task: %v", err)
	}
	files, err := task.LoadFDs(t.Context(), "dns")
	if err != nil || len(files) != 2 {
		t.Fatalf("descriptors: %v, %v", files, err)
	}
	want := "kept by " + running
	buf := make([]byte, len(want))
	if _, err := io.ReadFull(files[0], buf); err != nil || string(buf) != want {
		t.Errorf("descriptor gives %q, %v", buf, err)
	}
	s, err := task.Attach(t.Context(), AttachOptions{Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(s, "hello\n")
	eventually(t, "input after the restart", func() bool {
		return strings.Contains(logText(t, h.logDir(running), ""), "got hello\n")
	})
	s.Close()
	exit := task.Wait()
	if err := task.Kill(t.Context(), syscall.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	if st := waitExit(t, exit); st.Code != 137 {
		t.Errorf("exit %+v", st)
	}
	if _, err := task.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	n := 0
	for _, line := range strings.Fields(strings.ReplaceAll(logText(t, h.logDir(running), ""), "got hello\n", "")) {
		if n++; line != fmt.Sprint(n) {
			t.Fatalf("log line %d is %q", n, line)
		}
	}
	t.Logf("%d lines, none missing", n)
}

// TestShimKilled: the container dies with its shim, and the daemon says so.
func TestShimKilled(t *testing.T) {
	h := newHost(t)
	r := h.start(t)
	id, task := create(t, r, h, busybox(t, r), TaskOptions{}, "sleep", "1000")
	if err := task.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(parentOf(t, task.Pid()), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if st := waitExit(t, task.Wait()); st.Code != 137 || st.Err == nil {
		t.Errorf("exit %+v", st)
	}
	if st, err := task.Delete(t.Context()); err != nil || st.Code != 137 {
		t.Errorf("delete: %+v, %v", st, err)
	}
	if err := r.Remove(t.Context(), id); err != nil {
		t.Error(err)
	}
}

func parentOf(t testing.TB, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// The name, in parentheses, may contain anything.
	var (
		state string
		ppid  int
	)
	if _, err := fmt.Sscan(string(b[strings.LastIndexByte(string(b), ')')+2:]), &state, &ppid); err != nil {
		t.Fatal(err)
	}
	return ppid
}

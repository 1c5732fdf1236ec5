package ctrd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/runtime/logs"
)

// demux splits docker's frames into stdout and stderr.
func demux(t testing.TB, r io.Reader) (stdout, stderr string) {
	t.Helper()
	var out [3]bytes.Buffer
	var head [8]byte
	for {
		_, err := io.ReadFull(r, head[:])
		if err == io.EOF {
			return out[1].String(), out[2].String()
		}
		if err != nil || head[0] < 1 || head[0] > 2 {
			t.Fatalf("frame header %v: %v", head, err)
		}
		if _, err := io.CopyN(&out[head[0]], r, int64(binary.BigEndian.Uint32(head[4:]))); err != nil {
			t.Fatalf("frame: %v", err)
		}
	}
}

func logText(t testing.TB, dir, stream string) string {
	t.Helper()
	var b strings.Builder
	for e, err := range logs.Read(t.Context(), dir, logs.Options{Tail: -1}) {
		if err != nil {
			t.Fatal(err)
		}
		if stream == "" || e.Stream == stream {
			b.Write(e.Line)
		}
	}
	return b.String()
}

func TestRunAndLog(t *testing.T) {
	h := newHost(t)
	r := h.start(t)
	img := busybox(t, r)
	logDir := filepath.Join(h.Base, "log")
	id, task := create(t, r, h, img, TaskOptions{LogDir: logDir}, "sh", "-c", "echo out; echo err >&2; printf 'no newline'; exit 7")
	s, err := task.Attach(t.Context(), AttachOptions{Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	exit := task.Wait()
	if err := task.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	stdout, stderr := demux(t, s)
	if stdout != "out\nno newline" || stderr != "err\n" {
		t.Errorf("attached: %q, %q", stdout, stderr)
	}
	if st := waitExit(t, exit); st.Code != 7 || st.Err != nil || st.OOM {
		t.Errorf("exit %+v", st)
	}
	if st, err := task.Delete(t.Context()); err != nil || st.Code != 7 {
		t.Errorf("delete: %+v, %v", st, err)
	}
	if got := logText(t, logDir, logs.Stdout); got != "out\nno newline" {
		t.Errorf("log of stdout: %q", got)
	}
	if got := logText(t, logDir, logs.Stderr); got != "err\n" {
		t.Errorf("log of stderr: %q", got)
	}
	if _, err := r.LoadTask(t.Context(), id); !errdefs.IsNotFound(err) {
		t.Errorf("deleted task loads: %v", err)
	}
	// The container starts again with its layer.
	if _, err := r.NewTask(t.Context(), id, TaskOptions{Spec: h.spec(id, "true")}); err != nil {
		t.Errorf("second task: %v", err)
	}
	if err := r.Remove(t.Context(), id); err != nil {
		t.Errorf("remove created: %v", err)
	}
	if err := r.Remove(t.Context(), id); err != nil {
		t.Errorf("remove absent: %v", err)
	}
	left, _ := os.ReadDir(h.Sockets)
	if len(left) > 0 {
		t.Errorf("sockets stay: %v", left)
	}
}

func TestStartErrors(t *testing.T) {
	h := newHost(t)
	r := h.start(t)
	img := busybox(t, r)
	id := newID()
	if err := r.Create(t.Context(), id, "sha256:none", nil); !errdefs.IsNotFound(err) {
		t.Errorf("unknown image: %v", err)
	}
	if err := r.Create(t.Context(), id, img, nil); err != nil {
		t.Fatal(err)
	}
	task, err := r.NewTask(t.Context(), id, TaskOptions{Spec: h.spec(id, "nosuch")})
	if err == nil {
		err = task.Start(t.Context())
	}
	if err == nil || !strings.Contains(err.Error(), `exec: "nosuch": executable file not found in $PATH`) {
		t.Errorf("got %v", err)
	}
	t.Log(err)
	if left := dirs(h.Cgroup); len(left) > 0 {
		t.Errorf("cgroups stay after a failed start: %v", left)
	}
}

func TestStdin(t *testing.T) {
	h := newHost(t)
	r := h.start(t)
	img := busybox(t, r)
	for _, tc := range []struct {
		name string
		once bool
	}{{"once", true}, {"kept open", false}} {
		t.Run(tc.name, func(t *testing.T) {
			logDir := filepath.Join(t.TempDir(), "log")
			_, task := create(t, r, h, img, TaskOptions{OpenStdin: true, StdinOnce: tc.once, LogDir: logDir}, "cat")
			s, err := task.Attach(t.Context(), AttachOptions{Stdin: true, Stdout: true, Stderr: true})
			if err != nil {
				t.Fatal(err)
			}
			exit := task.Wait()
			if err := task.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(s, "first\n")
			if err := s.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if !tc.once {
				// The next client goes on where the first stopped.
				s2, err := task.Attach(t.Context(), AttachOptions{Stdin: true})
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprint(s2, "second\n")
				eventually(t, "both inputs come out", func() bool { return logText(t, logDir, "") == "first\nsecond\n" })
				s2.Close()
				if err := task.Kill(t.Context(), syscall.SIGKILL, false); err != nil {
					t.Fatal(err)
				}
				if st := waitExit(t, exit); st.Code != 137 {
					t.Errorf("exit %+v", st)
				}
				return
			}
			if out, _ := demux(t, s); out != "first\n" {
				t.Errorf("out %q", out)
			}
			if st := waitExit(t, exit); st.Code != 0 {
				t.Errorf("exit %+v", st)
			}
		})
	}
}

func TestTTY(t *testing.T) {
	h := newHost(t)
	r := h.start(t)
	img := busybox(t, r)
	logDir := filepath.Join(h.Base, "log")
	_, task := create(t, r, h, img, TaskOptions{TTY: true, OpenStdin: true, LogDir: logDir}, "sh")
	s, err := task.Attach(t.Context(), AttachOptions{Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	exit := task.Wait()
	if err := task.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := task.Resize(t.Context(), 33, 77); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(s, "stty size; exit 3\n")
	out, err := io.ReadAll(s)
	if err != nil || !strings.Contains(string(out), "33 77\r\n") {
		t.Errorf("%q, %v", out, err)
	}
	if st := waitExit(t, exit); st.Code != 3 {
		t.Errorf("exit %+v", st)
	}
	if _, err := task.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if got := logText(t, logDir, logs.Stdout); got != string(out) {
		t.Errorf("log %q, attached %q", got, out)
	}
}

// TestSlowClient: much more output than the pipes hold, a client that begins to
// read late: nothing is lost, neither for it nor in the log.
func TestSlowClient(t *testing.T) {
	h := newHost(t)
	r := h.start(t)
	img := busybox(t, r)
	logDir := filepath.Join(h.Base, "log")
	const lines = 200000
	_, task := create(t, r, h, img, TaskOptions{LogDir: logDir}, "seq", fmt.Sprint(lines))
	s, err := task.Attach(t.Context(), AttachOptions{Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	exit := task.Wait()
	select {
	case st := <-exit:
		t.Fatalf("ended with nobody reading: %+v", st)
	case <-time.After(200 * time.Millisecond):
	}
	out, _ := demux(t, s)
	if n := strings.Count(out, "\n"); n != lines || !strings.HasSuffix(out, "\n200000\n") {
		t.Errorf("client saw %d lines", n)
	}
	waitExit(t, exit)
	if _, err := task.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if got := logText(t, logDir, ""); got != out {
		t.Errorf("log has %d bytes, client %d", len(got), len(out))
	}
}

func TestSignalsPauseAndFDs(t *testing.T) {
	h := newHost(t)
	r := h.start(t)
	img := busybox(t, r)
	_, task := create(t, r, h, img, TaskOptions{}, "sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.01; done")
	if err := task.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := task.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st, err := task.Status(t.Context()); st != "paused" || err != nil {
		t.Errorf("status %q, %v", st, err)
	}
	if err := task.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := task.Delete(t.Context()); err == nil {
		t.Error("a running task was deleted")
	}
	if pids, err := task.Pids(t.Context()); err != nil || len(pids) < 1 || pids[0] != task.Pid() {
		t.Errorf("pids %v, %v; pid %d", pids, err, task.Pid())
	}
	rd, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := task.StoreFDs(t.Context(), "dns", []*os.File{rd, wr}); err != nil {
		t.Fatal(err)
	}
	rd.Close()
	wr.Close()
	files, err := task.LoadFDs(t.Context(), "dns")
	if err != nil || len(files) != 2 {
		t.Fatalf("%v, %v", files, err)
	}
	fmt.Fprint(files[1], "hello")
	buf := make([]byte, 5)
	if _, err := io.ReadFull(files[0], buf); err != nil || string(buf) != "hello" {
		t.Errorf("%q, %v", buf, err)
	}
	if _, err := task.LoadFDs(t.Context(), "other"); !errdefs.IsNotFound(err) {
		t.Errorf("unknown name: %v", err)
	}
	// The trap may not be set yet, so ask again until it is.
	exit := task.Wait()
	if err := task.Kill(t.Context(), syscall.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	if st := waitExit(t, exit); st.Code != 5 && st.Code != 143 {
		t.Errorf("exit %+v", st)
	}
	if err := task.Kill(t.Context(), syscall.SIGTERM, false); !errdefs.IsNotFound(err) {
		t.Errorf("signal to an ended process: %v", err)
	}
}

func TestRootFS(t *testing.T) {
	h := newHost(t)
	r := h.start(t)
	img := busybox(t, r)
	id := newID()
	if err := r.Create(t.Context(), id, img, nil); err != nil {
		t.Fatal(err)
	}
	write := func(name string) {
		t.Helper()
		err := r.RootFS(t.Context(), id, func(root string) error {
			return os.WriteFile(filepath.Join(root, name), []byte(name), 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	write("before")
	task, err := r.NewTask(t.Context(), id, TaskOptions{Spec: h.spec(id, "cat", "/before", "/during"), LogDir: filepath.Join(h.Base, "log")})
	if err != nil {
		t.Fatal(err)
	}
	write("during")
	exit := task.Wait()
	if err := task.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitExit(t, exit)
	if _, err := task.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := logText(t, filepath.Join(h.Base, "log"), ""); got != "beforeduring" {
		t.Errorf("log %q", got)
	}
}

func TestOOM(t *testing.T) {
	h := newHost(t)
	r := h.start(t)
	img := busybox(t, r)
	id := newID()
	if err := r.Create(t.Context(), id, img, nil); err != nil {
		t.Fatal(err)
	}
	s := h.spec(id, "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1")
	s.Linux.Resources = memoryLimit(16 << 20)
	task, err := r.NewTask(t.Context(), id, TaskOptions{Spec: s})
	if err != nil {
		t.Fatal(err)
	}
	exit := task.Wait()
	if err := task.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	st := waitExit(t, exit)
	if st.Code != 137 || !st.OOM {
		t.Errorf("exit %+v", st)
	}
}

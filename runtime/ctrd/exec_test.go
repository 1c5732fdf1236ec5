package ctrd

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func memoryLimit(n int64) *specs.LinuxResources {
	return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &n}}
}

func proc(args ...string) *specs.Process {
	return &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}, Capabilities: &specs.LinuxCapabilities{}}
}

func TestExec(t *testing.T) {
	h := newHost(t)
	r := h.start(t)
	img := busybox(t, r)
	_, task := create(t, r, h, img, TaskOptions{}, "sleep", "1000")
	if err := task.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name           string
		opts           ExecOptions
		in             string
		args           []string
		stdout, stderr string
		code           uint32
	}{
		{"both streams", ExecOptions{Stdout: true, Stderr: true}, "", []string{"sh", "-c", "echo o; echo e >&2; exit 4"}, "o\n", "e\n", 4},
		{"one stream", ExecOptions{Stdout: true}, "", []string{"sh", "-c", "echo o; echo e >&2"}, "o\n", "", 0},
		{"stdin", ExecOptions{Stdin: true, Stdout: true, Stderr: true}, "abc\n", []string{"cat"}, "abc\n", "", 0},
		{"detached", ExecOptions{}, "", []string{"sh", "-c", "echo x; exit 9"}, "", "", 9},
		{"child keeps output", ExecOptions{Stdout: true, Stderr: true}, "", []string{"sh", "-c", "sleep 1000 & echo o"}, "o\n", "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e, err := task.Exec(t.Context(), newID(), proc(tc.args...), tc.opts)
			if err != nil {
				t.Fatal(err)
			}
			s := e.Stream()
			exit := e.Wait()
			if err := e.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if tc.opts.Stdin {
				fmt.Fprint(s, tc.in)
				if err := s.CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			out, errOut := demux(t, s)
			if out != tc.stdout || errOut != tc.stderr {
				t.Errorf("got %q, %q", out, errOut)
			}
			if st := waitExit(t, exit); st.Code != tc.code || st.Err != nil {
				t.Errorf("exit %+v", st)
			}
			if err := e.Delete(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	e, err := task.Exec(t.Context(), "nosuch", proc("nosuch"), ExecOptions{Stdout: true, Stderr: true})
	if err == nil {
		err = e.Start(t.Context())
	}
	if err == nil || !strings.Contains(err.Error(), `exec: "nosuch": executable file not found in $PATH`) {
		t.Errorf("got %v", err)
	}
	t.Log(err)
	if st := waitExit(t, e.Wait()); st.Err == nil {
		t.Errorf("exit of a failed start: %+v", st)
	}
	if err := e.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	eventually(t, "FIFOs removed", func() bool { left, _ := os.ReadDir(r.execDir()); return len(left) == 0 })
}

func TestExecTTY(t *testing.T) {
	h := newHost(t)
	r := h.start(t)
	_, task := create(t, r, h, busybox(t, r), TaskOptions{}, "sleep", "1000")
	if err := task.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	e, err := task.Exec(t.Context(), "tty", proc("sh"), ExecOptions{TTY: true, Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	s := e.Stream()
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := e.Resize(t.Context(), 12, 34); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(s, "stty size; exit 6\n")
	out, err := io.ReadAll(s)
	if err != nil || !strings.Contains(string(out), "12 34\r\n") {
		t.Errorf("%q, %v", out, err)
	}
	if st := waitExit(t, e.Wait()); st.Code != 6 {
		t.Errorf("exit %+v", st)
	}
}

func TestManyExecs(t *testing.T) {
	h := newHost(t)
	r := h.start(t)
	_, task := create(t, r, h, busybox(t, r), TaskOptions{}, "sleep", "1000")
	if err := task.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := 100
	if testing.Short() {
		n = 10
	}
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			e, err := task.Exec(t.Context(), fmt.Sprintf("e%d", i), proc("sh", "-c", fmt.Sprintf("cat; echo %d; exit %d", i, i)), ExecOptions{Stdin: true, Stdout: true, Stderr: true})
			if err != nil {
				t.Error(err)
				return
			}
			s := e.Stream()
			if err := e.Start(t.Context()); err != nil {
				t.Error(err)
				return
			}
			fmt.Fprint(s, "in ")
			if err := s.CloseWrite(); err != nil {
				t.Error(err)
			}
			if out, _ := demux(t, s); out != fmt.Sprintf("in %d\n", i) {
				t.Errorf("exec %d wrote %q", i, out)
			}
			if st := <-e.Wait(); st.Code != uint32(i) {
				t.Errorf("exec %d: %+v", i, st)
			}
			if err := e.Delete(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	t.Logf("%d execs in %v", n, time.Since(begin))
}

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// runTime bounds a command that brought no deadline of its own.
const runTime = time.Minute

// runIn runs a program in some of a process's namespaces, with script on its standard input. The error holds its output.
func runIn(pid int, kinds []string, script string, args ...string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(script)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := within(pid, kinds, cmd.Start); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s\n%s", strings.Join(args, " "), err, strings.TrimSpace(out.String()), script)
	}
	return nil
}

// env is what the host's processes inherit, less the lab's own variables.
func (h *Host) env() []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		return k == roleEnv || k == confEnv || k == readyEnv || k == "TMPDIR" || k == "HOME" || strings.HasPrefix(k, "DOCKER_")
	})
	return append(env, "HOME=/run", "TMPDIR=/run")
}

// command prepares a program of the host; it is looked up in the caller's PATH, since hosts share the machine's programs.
func (h *Host) command(ctx context.Context, args []string) (*exec.Cmd, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Env = h.env()
	// A grandchild that keeps the output open must not keep the test waiting.
	cmd.WaitDelay = 2 * time.Second
	return cmd, nil
}

// Run runs a program in the host and waits for it. The code is its exit status, 128+n when signal n ended it, 127 when it
// could not be started (stderr says why).
func (h *Host) Run(ctx context.Context, args ...string) (stdout, stderr string, code int) {
	return h.RunInput(ctx, "", args...)
}

// RunInput is Run with text on the program's standard input.
func (h *Host) RunInput(ctx context.Context, input string, args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	cmd, err := h.command(ctx, args)
	if err == nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errs
		err = within(h.pid(), allOf, cmd.Start)
	}
	if err != nil {
		return "", fmt.Sprintf("start %s: %v", strings.Join(args, " "), err), 127
	}
	if err := cmd.Wait(); err != nil && cmd.ProcessState == nil {
		return out.String(), errs.String() + err.Error(), 127
	}
	if ctx.Err() != nil {
		fmt.Fprintf(&errs, "lab: stopped: %v\n", ctx.Err())
	}
	return out.String(), errs.String(), exitCode(cmd.ProcessState)
}

func exitCode(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return s.ExitCode()
}

// MustRun is Run with a minute's patience; any exit code but 0 fails the test. It gives the standard output.
func (h *Host) MustRun(args ...string) string {
	h.lab.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), runTime)
	defer cancel()
	out, errs, code := h.Run(ctx, args...)
	if code != 0 {
		h.lab.tb.Fatalf("%s# %s: exit %d\n%s%s", h.name, strings.Join(args, " "), code, out, errs)
	}
	return out
}

// Do calls fn on a thread in the host's network namespace, for sockets that a test opens itself: a socket stays in the
// namespace it was made in.
func (h *Host) Do(fn func() error) error { return within(h.pid(), netOnly, fn) }

// Dial connects from the host's network namespace, as a DialContext of net/http and the like. addr must be an address
// literal, since names would be looked up, and connections to several addresses raced, on other threads.
func (h *Host) Dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	if _, perr := netip.ParseAddrPort(addr); perr != nil {
		return nil, fmt.Errorf("dial from %s: %w", h.name, perr)
	}
	err = h.Do(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// Process is a program running in a host's background.
type Process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has been waited for
}

// Start runs a program in the background; what it says goes to a log file named after it, appended. It dies with the host.
func (h *Host) Start(args ...string) *Process {
	h.lab.tb.Helper()
	p, err := h.start(filepath.Base(args[0]), args)
	if err != nil {
		h.lab.tb.Fatalf("lab: %s: start %s: %v", h.name, strings.Join(args, " "), err)
	}
	return p
}

func (h *Host) start(logName string, args []string) (*Process, error) {
	cmd, err := h.command(context.Background(), args)
	if err != nil {
		return nil, err
	}
	logPath := filepath.Join(h.dir, logName+".log")
	logFile, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	p := &Process{cmd: cmd, log: logPath, done: make(chan struct{})}
	if err := h.launch(cmd); err != nil {
		return nil, err
	}
	h.mu.Lock()
	h.procs = append(h.procs, p)
	h.mu.Unlock()
	go func() {
		_ = cmd.Wait() // the state is in cmd
		close(p.done)
	}()
	return p, nil
}

// launch starts a program that will make processes of its own, so it must be born in the host's cgroups: by its thread
// in version 1, by clone3's CLONE_INTO_CGROUP in version 2.
func (h *Host) launch(cmd *exec.Cmd) error {
	pid := h.pid()
	if pid == 0 {
		return errors.New("the host is down")
	}
	for _, g := range h.lab.cg {
		if !g.V2 {
			continue
		}
		f, err := os.Open(filepath.Join(g.Mount, h.cgroup(), leafName))
		if err != nil {
			return err
		}
		defer f.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(f.Fd())
	}
	done := make(chan error, 1)
	go onSpareThread(func() error {
		if err := joinCgroups(h.lab.cg, h.cgroup(), "tasks", unix.Gettid()); err != nil {
			return err
		}
		return enter(pid, allOf, cmd.Start)
	}, done)
	return <-done
}

// Pid is the process's number outside the host.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Output is all that was written to its log file so far.
func (p *Process) Output() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Signal sends a signal to the process alone.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Done is closed once the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for its end, at most d, and gives its exit code as Run does.
func (p *Process) Wait(d time.Duration) (int, error) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.done: // looked at alone first: with d 0 both may be ready
		return exitCode(p.cmd.ProcessState), nil
	default:
	}
	select {
	case <-p.done:
		return exitCode(p.cmd.ProcessState), nil
	case <-t.C:
		return 0, fmt.Errorf("process %d (%s) still runs after %v", p.Pid(), p.cmd.Args[0], d)
	}
}

// Kill ends it with SIGKILL and waits.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	_, err := p.Wait(patience)
	return err
}

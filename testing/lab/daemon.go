package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// Socket is where the daemon listens in each host, its own default.
const Socket = "/run/minictl/minictl.sock"

// binEnv names the binary under test; without it, bin/minictl of this checkout is taken.
const binEnv = "MINICTL_BIN"

// Binary is the absolute path of the binary under test.
func Binary() (string, error) {
	if b := os.Getenv(binEnv); b != "" {
		return filepath.Abs(b)
	}
	_, here, _, ok := runtime.Caller(0)
	b := filepath.Join(filepath.Dir(here), "..", "..", "bin", "minictl")
	if _, err := os.Stat(b); !ok || err != nil {
		return "", fmt.Errorf("no binary under test: run make, or set %s", binEnv)
	}
	return b, nil
}

// Use makes the lab's hosts run another binary than [Binary]. It is for a lab without hosts yet.
func (l *Lab) Use(bin string) { l.bin = bin }

func (l *Lab) binary() string {
	l.tb.Helper()
	if l.bin == "" {
		b, err := Binary()
		if err != nil {
			l.tb.Fatalf("lab: %v", err)
		}
		l.bin = b
	}
	return l.bin
}

// Use makes this host alone run another binary from now on; a daemon that runs already stays what it is until it is
// restarted.
func (h *Host) Use(bin string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bin = bin
}

func (h *Host) binary() string {
	h.lab.tb.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bin != "" {
		return h.bin
	}
	return h.lab.binary()
}

// daemonBinary is what the binary under test becomes when it is asked for the daemon, as the build leaves it: to unpack it
// on every host of every test would take half a second each.
func (h *Host) daemonBinary() string {
	h.lab.tb.Helper()
	b := h.binary()
	if whole := b + "-daemon"; os.Getenv(binEnv) == "" {
		if _, err := os.Stat(whole); err == nil {
			return whole
		}
	}
	return b
}

// Daemon starts "minictl daemon" with the given flags and waits until its socket answers. Its log goes to daemon.log in
// the host's folder and survives restarts.
func (h *Host) Daemon(flags ...string) *Process {
	h.lab.tb.Helper()
	return h.serve("daemon", flags)
}

// Witness starts "minictl witness" in the same way; what is said of a host's daemon is true of it, too.
func (h *Host) Witness(flags ...string) *Process {
	h.lab.tb.Helper()
	return h.serve("witness", flags)
}

func (h *Host) serve(verb string, flags []string) *Process {
	h.lab.tb.Helper()
	bin := h.daemonBinary()
	p, err := h.start("daemon", append([]string{bin, verb}, flags...))
	if err != nil {
		h.lab.tb.Fatalf("lab: %s: start daemon: %v", h.name, err)
	}
	h.mu.Lock()
	h.daemon, h.verb, h.flags = p, verb, flags
	h.mu.Unlock()
	ping := h.HTTP()
	defer ping.CloseIdleConnections()
	err = poll(patience, func() error {
		select {
		case <-p.Done():
			return nil // looked at below: waiting longer is of no use
		default:
		}
		resp, err := ping.Get("http://minictl/_ping")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
	select {
	case <-p.Done():
		code, _ := p.Wait(0)
		h.lab.tb.Fatalf("lab: %s: daemon ended with code %d at start:\n%s", h.name, code, tail(p.Output(), 40))
	default:
	}
	if err != nil {
		h.lab.tb.Fatalf("lab: %s: daemon does not answer on %s: %v\n%s", h.name, Socket, err, tail(p.Output(), 40))
	}
	return p
}

// Running is the daemon's process, nil when none was started or it was stopped.
func (h *Host) Running() *Process {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.daemon
}

// StopDaemon ends the daemon in good order (SIGTERM) and waits; containers live on.
func (h *Host) StopDaemon() {
	h.lab.tb.Helper()
	h.endDaemon(syscall.SIGTERM)
}

// KillDaemon ends the daemon alone with SIGKILL, as a crash would; shims and containers live on.
func (h *Host) KillDaemon() {
	h.lab.tb.Helper()
	h.endDaemon(syscall.SIGKILL)
}

// RestartDaemon starts the daemon again with the flags it had last.
func (h *Host) RestartDaemon() *Process {
	h.lab.tb.Helper()
	return h.serve(h.verb, h.flags)
}

func (h *Host) endDaemon(s syscall.Signal) {
	h.lab.tb.Helper()
	h.mu.Lock()
	p := h.daemon
	h.daemon = nil
	h.mu.Unlock()
	if p == nil {
		h.lab.tb.Fatalf("lab: %s: no daemon to stop", h.name)
	}
	if err := p.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		h.lab.tb.Fatalf("lab: %s: stop daemon: %v", h.name, err)
	}
	if _, err := p.Wait(patience); err != nil {
		_ = p.Signal(syscall.SIGQUIT) // Go prints every goroutine's stack: why it hangs
		_, _ = p.Wait(patience / 4)
		h.lab.tb.Fatalf("lab: %s: stop daemon: %v\n%s", h.name, err, tail(p.Output(), 200))
	}
}

// Minictl runs the binary under test in the host, as a user at its terminal would.
func (h *Host) Minictl(args ...string) (stdout, stderr string, code int) {
	h.lab.tb.Helper()
	return h.client(append([]string{h.binary()}, args...))
}

// MustMinictl is Minictl for a command that has to succeed; it gives the standard output.
func (h *Host) MustMinictl(args ...string) string {
	h.lab.tb.Helper()
	return h.MustRun(append([]string{h.binary()}, args...)...)
}

// dockerArgs make the stock CLI talk to the host's daemon, untouched by the caller's own configuration.
func (h *Host) dockerArgs(args []string) ([]string, error) {
	empty := filepath.Join(h.dir, "docker-config")
	if err := os.MkdirAll(empty, 0o755); err != nil {
		return nil, err
	}
	return append([]string{"docker", "--config", empty, "-H", "unix://" + Socket}, args...), nil
}

// Docker runs the stock docker CLI against the host's daemon.
func (h *Host) Docker(args ...string) (stdout, stderr string, code int) {
	h.lab.tb.Helper()
	full, err := h.dockerArgs(args)
	if err != nil {
		h.lab.tb.Fatalf("lab: %v", err)
	}
	return h.client(full)
}

// MustDocker is Docker for a command that has to succeed; it gives the standard output.
func (h *Host) MustDocker(args ...string) string {
	h.lab.tb.Helper()
	full, err := h.dockerArgs(args)
	if err != nil {
		h.lab.tb.Fatalf("lab: %v", err)
	}
	return h.MustRun(full...)
}

func (h *Host) client(args []string) (stdout, stderr string, code int) {
	ctx, cancel := context.WithTimeout(context.Background(), runTime)
	defer cancel()
	return h.Run(ctx, args...)
}

// HTTP is a client of the daemon's socket from outside the host; every URL's host part is ignored.
func (h *Host) HTTP() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", h.SocketPath())
		},
	}}
}

// SocketPath is the daemon's socket as opened from outside the host: unix:// plus it is what API clients take.
func (h *Host) SocketPath() string { return h.Path(Socket) }

// tail is the last n lines of a text.
func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > n {
		lines = append([]string{"…"}, lines[len(lines)-n:]...)
	}
	return strings.Join(lines, "\n")
}

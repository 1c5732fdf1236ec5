package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// How long plugins may take, a whole list of them together. An ADD may wait for a DHCP server.
const (
	addTime = 30 * time.Second
	askTime = 10 * time.Second // DEL, CHECK, GC, STATUS and VERSION
)

// maxOutput bounds what a plugin may say, in bytes.
const maxOutput = 1 << 20

// defaultPath is where plugins find programs such as iptables when the daemon's own environment does not say.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// runner runs plugins, as the daemon, in the namespaces of the thread that calls it. Of the daemon's environment they see
// PATH alone: it may hold proxies' passwords. One that takes too long is killed, with those it has called.
type runner struct {
	version.PluginDecoder
	log *slog.Logger
}

// The runner is what libcni runs plugins with.
var _ invoke.Exec = (*runner)(nil)

// FindInPath finds a plugin's file.
func (r *runner) FindInPath(plugin string, dirs []string) (string, error) {
	path, err := invoke.FindInPath(plugin, dirs)
	if err != nil {
		return "", &pluginError{plugin: plugin, err: fmt.Errorf("it is in none of %s", strings.Join(dirs, ", "))}
	}
	return path, nil
}

// ExecPlugin runs a plugin once. Its errors are pluginErrors.
func (r *runner) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var stdout, stderr limited
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = bounded(environ)
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	// It ends with the daemon, whose successor calls DEL: nobody adds what is being taken back. The kernel means the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // what it has called may have left the group, and have the output still open
	began := time.Now()
	err := cmd.Run()
	name, command := filepath.Base(path), commandOf(cmd.Env)
	r.log.Debug("ran a CNI plugin", "plugin", name, "command", command, "took", time.Since(began), "stderr", stderr.String(), "err", err)
	switch {
	case ctx.Err() != nil:
		return nil, &pluginError{plugin: name, command: command, err: context.Cause(ctx)}
	case err != nil:
		return nil, failed(name, command, stdout.Bytes(), stderr.String(), err)
	case stdout.more:
		return nil, &pluginError{plugin: name, command: command, err: fmt.Errorf("it says more than %d bytes", maxOutput)}
	}
	return stdout.Bytes(), nil
}

// bounded is what a plugin sees of the environment that libcni makes of the daemon's.
func bounded(environ []string) []string {
	path := os.Getenv("PATH")
	if path == "" {
		path = defaultPath
	}
	out := []string{"PATH=" + path}
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if slices.Contains([]string{"CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"}, name) {
			out = append(out, kv)
		}
	}
	return out
}

func commandOf(environ []string) string {
	for _, kv := range environ {
		if command, ok := strings.CutPrefix(kv, "CNI_COMMAND="); ok {
			return command
		}
	}
	return ""
}

// limited keeps the first maxOutput bytes.
type limited struct {
	bytes.Buffer
	more bool
}

// Write takes everything, so that the plugin does not wait, and keeps what fits.
func (l *limited) Write(b []byte) (int, error) {
	keep := b[:min(len(b), maxOutput-l.Len())]
	l.more = l.more || len(keep) < len(b)
	l.Buffer.Write(keep)
	return len(b), nil
}

// pluginError is what a plugin says, or what became of it.
type pluginError struct {
	plugin, command string
	err             error
}

// Error is without the network, which told adds.
func (e *pluginError) Error() string {
	if e.command == "" {
		return fmt.Sprintf("CNI plugin %s: %v", e.plugin, e.err)
	}
	return fmt.Sprintf("CNI plugin %s: %s: %v", e.plugin, e.command, e.err)
}

// Unwrap gives the cause.
func (e *pluginError) Unwrap() error { return e.err }

// failed makes an error of what a plugin left behind: by the specification a JSON object on its output, in practice
// anything on either.
func failed(plugin, command string, stdout []byte, stderr string, err error) error {
	var said types.Error
	if json.Unmarshal(stdout, &said) != nil || said.Msg == "" && said.Code == 0 {
		text := strings.TrimSpace(strings.TrimSpace(string(stdout)) + "\n" + strings.TrimSpace(stderr))
		if text == "" {
			text = "it says nothing"
		}
		return &pluginError{plugin, command, fmt.Errorf("%s (%w)", clip(text), err)}
	}
	text := clip(said.Msg)
	if said.Details != "" {
		text += "; " + clip(said.Details)
	}
	return &pluginError{plugin, command, fmt.Errorf("%s (code %d)%w", text, said.Code, class(said.Code))}
}

// clip bounds what is shown of a plugin's words.
func clip(s string) string {
	const most = 2000
	if len(s) > most {
		return s[:most] + " …"
	}
	return s
}

// silent is an error's class without its words.
type silent struct{ error }

// Error is nothing: the plugin's own words are said already.
func (silent) Error() string { return "" }

// Unwrap gives the class.
func (s silent) Unwrap() error { return s.error }

// class is what a plugin's code means to our callers (CNI 1.1, "Error"; the plugins' own codes begin with 100).
func class(code uint) error {
	switch code {
	case types.ErrIncompatibleCNIVersion, types.ErrUnsupportedField, types.ErrInvalidNetworkConfig:
		return silent{errdefs.ErrInvalidArgument}
	case types.ErrTryAgainLater, types.ErrPluginNotAvailable, types.ErrLimitedConnectivity:
		return silent{errdefs.ErrUnavailable}
	}
	return silent{errdefs.ErrInternal}
}

// told names the network whose plugin it was, and leaves out libcni's own words around the plugin's.
func told(network string, err error) error {
	var p *pluginError
	if errors.As(err, &p) {
		return fmt.Errorf("network %s: %w", network, p)
	}
	return fmt.Errorf("network %s: CNI: %w", network, err)
}

// bound limits what plugins may take, and names the limit when the time is over.
func bound(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not end within %s and was killed: %w", limit, context.DeadlineExceeded))
}

// Package reaper is a container's tiny pid 1: it runs one program, passes signals on to it, and reaps every process that
// loses its parent.
package reaper

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exit codes of a program that could not be run, as shells have them.
const (
	cannotRun = 126
	notFound  = 127
)

// Main runs args, with an optional "--" before them, and gives the program's exit code: 128 + the signal's number for one
// that a signal ended.
func Main(args []string) int {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return fail(errors.New("no program given"), cannotRun)
	}
	path, err := exec.LookPath(args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			return fail(err, notFound)
		}
		return fail(err, cannotRun)
	}
	// Before the program: what it sends at once is not lost, and no child's end either.
	signals := make(chan os.Signal, 128)
	signal.Notify(signals)
	pid, err := start(path, args)
	if err != nil {
		return fail(&fs.PathError{Op: "exec", Path: path, Err: err}, cannotRun)
	}
	for s := range signals {
		sig, ok := s.(syscall.Signal)
		switch {
		case !ok || sig == syscall.SIGURG: // Go's scheduler sends itself that one all the time
		case sig == syscall.SIGCHLD:
			if code, ended := reap(pid); ended {
				return code
			}
		default:
			_ = syscall.Kill(pid, sig) // it has ended: its SIGCHLD is on the way
		}
	}
	return cannotRun // the channel is never closed
}

func fail(err error, code int) int {
	_, _ = os.Stderr.WriteString("docker-init: " + err.Error() + "\n")
	return code
}

// start gives the program a process group of its own, so that what a terminal sends to the foreground group reaches it
// once, and not a second time through us.
func start(path string, args []string) (int, error) {
	_, err := unix.IoctlGetTermios(0, unix.TCGETS)
	return syscall.ForkExec(path, args, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Setpgid: true, Foreground: err == nil, Ctty: 0},
	})
}

// reap collects whoever has ended: signals coalesce, so one may stand for many.
func reap(main int) (code int, ended bool) {
	for {
		var st syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &st, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if pid <= 0 || err != nil {
			return code, ended
		}
		if pid != main {
			continue
		}
		code, ended = st.ExitStatus(), true
		if st.Signaled() {
			code = 128 + int(st.Signal())
		}
	}
}

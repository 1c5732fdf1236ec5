package container

import (
	"errors"
	"strings"
	"syscall"

	"github.com/moby/moby/client"

	"github.com/minictl/minictl/cmd/internal/cli/console"
)

// Exit codes of run, start -a and exec besides the container's own, as docker documents them.
const (
	exitDaemon       = 125 // the daemon refused or failed
	exitCannotInvoke = 126 // the command is there and cannot be executed
	exitNotFound     = 127 // no such command in the image
)

// startError gives a failed start its exit code, which the daemon's text (runc's own) tells.
func startError(err error) error {
	var coded *console.ExitError
	if err == nil || errors.As(err, &coded) {
		return err
	}
	if client.IsErrConnectionFailed(err) {
		return console.Exit(exitDaemon, err) // its text speaks of the socket, not of the command
	}
	return console.Exit(startCode(err.Error()), err)
}

func startCode(text string) int {
	for _, s := range []string{"executable file not found", "no such file or directory"} {
		if strings.Contains(text, s) {
			return exitNotFound
		}
	}
	for _, e := range []error{syscall.EACCES, syscall.EISDIR} {
		if strings.Contains(text, e.Error()) {
			return exitCannotInvoke
		}
	}
	return exitDaemon
}

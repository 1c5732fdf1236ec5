package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/minictl/minictl/testing/lab"
)

// call is one finished command of the command line.
type call struct {
	out  string
	wall time.Duration // from before the process is made until it has been waited for
	cpu  time.Duration // the process's own
}

// cli runs the command line against a host's daemon. The process itself stays outside the host, so that what is timed is
// minictl and not the lab's way into six namespaces: to the command line, a host is a socket.
func cli(h *lab.Host, args ...string) (call, error) {
	bin, err := lab.Binary()
	if err != nil {
		return call{}, err
	}
	cmd := exec.Command(bin, append([]string{"-H", "unix://" + h.SocketPath()}, args...)...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	// The user's own configuration is none of ours.
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+h.Dir(), "DOCKER_HOST=", "MINICTL_HOST=")
	begin := time.Now()
	err = cmd.Run()
	c := call{out: out.String(), wall: time.Since(begin)}
	if err != nil {
		return c, fmt.Errorf("minictl %s on %s: %w: %s", strings.Join(args, " "), h.Name(), err, strings.TrimSpace(errOut.String()))
	}
	c.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return c, nil
}

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/minictl/minictl/testing/lab"
)

// call is one finished command of a command line.
type call struct {
	out  string
	wall time.Duration // from before the process is made until it has been waited for
	cpu  time.Duration // the process's own
}

// client is a command line and the socket it talks to. The process itself stays outside the host, so that what is timed is
// the command and not the lab's way into six namespaces: to a command line, a host is a socket.
type client struct {
	bin    string
	args   []string // in front of every command
	config string   // the folder of its configuration: the user's own is none of ours
}

// minictl is the command line under test, for a host's daemon.
func minictl(h *lab.Host) (client, error) {
	bin, err := lab.Binary()
	return client{bin: bin, args: []string{"-H", "unix://" + h.SocketPath()}, config: h.Dir()}, err
}

// cli runs a minictl command against a host's daemon.
func cli(h *lab.Host, args ...string) (call, error) {
	c, err := minictl(h)
	if err != nil {
		return call{}, err
	}
	return c.run(args...)
}

// run runs a command to its end.
func (c client) run(args ...string) (call, error) {
	var out bytes.Buffer
	done, err := c.runTo(&out, args...)
	done.out = out.String()
	return done, err
}

// runTo is run with the output going to a writer; an *os.File gets it without a detour.
func (c client) runTo(w io.Writer, args ...string) (call, error) {
	cmd := exec.Command(c.bin, append(c.args[:len(c.args):len(c.args)], args...)...)
	var errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &errOut
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+c.config, "DOCKER_HOST=", "MINICTL_HOST=")
	begin := time.Now()
	err := cmd.Run()
	done := call{wall: time.Since(begin)}
	if err != nil {
		return done, fmt.Errorf("%s %s: %w: %s", c.bin, strings.Join(cmd.Args[1:], " "), err, strings.TrimSpace(errOut.String()))
	}
	done.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return done, nil
}

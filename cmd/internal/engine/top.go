package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// renamedPID is a ps format that calls another column PID, or PID something else: the column could not be found again.
var renamedPID = regexp.MustCompile(`(\S*)=\s*(PID\S*)|\bpid=`)

// ContainerTop lists a container's processes as this host's ps shows them.
func (e *Engine) ContainerTop(ctx context.Context, ref, args string) (mobycontainer.TopResponse, error) {
	b, err := e.find(ref)
	if err != nil {
		return mobycontainer.TopResponse{}, err
	}
	if args == "" {
		args = "-ef"
	}
	if m := renamedPID.FindString(args); m != "" {
		return mobycontainer.TopResponse{}, invalid("specifying %q is not allowed", m)
	}
	b.mu.Lock()
	task, restarting := b.task, b.status.State == mobycontainer.StateRestarting
	b.mu.Unlock()
	switch {
	case restarting:
		return mobycontainer.TopResponse{}, conflict("Container %s is restarting, wait until the container is running", ref)
	case task == nil:
		return mobycontainer.TopResponse{}, conflict("container %s is not running", b.id)
	}
	pids, err := task.Pids(ctx)
	if err != nil {
		return mobycontainer.TopResponse{}, fmt.Errorf("list processes of %s: %w", b.id[:12], err)
	}
	out, err := runPS(ctx, strings.Fields(args), pids)
	if err != nil {
		return mobycontainer.TopResponse{}, err
	}
	top, err := parsePS(out, pids)
	if err == nil {
		e.event(b, events.ActionTop)
	}
	return top, err
}

// runPS asks ps for the container's processes alone where its other arguments allow that (-q excludes f and the like).
func runPS(ctx context.Context, args []string, pids []int) ([]byte, error) {
	list := make([]string, len(pids))
	for i, p := range pids {
		list[i] = strconv.Itoa(p)
	}
	if out, err := exec.CommandContext(ctx, "ps", append(slices.Clone(args), "-q"+strings.Join(list, ","))...).Output(); err == nil {
		return out, nil
	}
	out, err := exec.CommandContext(ctx, "ps", args...).Output()
	var failed *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return nil, unavailable("list processes: this host has no ps: install procps, or use exec CONTAINER ps")
	case errors.As(err, &failed):
		first, _, _ := bytes.Cut(bytes.TrimSpace(failed.Stderr), []byte("\n"))
		return nil, invalid("ps: %s", first)
	case err != nil:
		return nil, fmt.Errorf("list processes: %w", err)
	}
	return out, nil
}

// parsePS keeps the rows of the given processes, threads included, which ps lists below theirs without a number.
func parsePS(out []byte, pids []int) (mobycontainer.TopResponse, error) {
	var top mobycontainer.TopResponse
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	top.Titles = strings.Fields(lines[0])
	at := slices.Index(top.Titles, "PID")
	if at < 0 {
		return top, invalid("Couldn't find PID field in ps output")
	}
	top.Processes = [][]string{}
	ours := false
	for _, line := range lines[1:] {
		f := strings.Fields(line)
		if len(f) <= at {
			continue
		}
		if f[at] != "-" {
			pid, err := strconv.Atoi(f[at])
			if err != nil {
				return top, fmt.Errorf("read ps output: unexpected pid %q", f[at])
			}
			ours = slices.Contains(pids, pid)
		}
		if ours {
			top.Processes = append(top.Processes, row(f, len(top.Titles)))
		}
	}
	return top, nil
}

// row gives the last column everything that is left: a command has spaces.
func row(f []string, columns int) []string {
	if len(f) <= columns {
		return f
	}
	return append(slices.Clone(f[:columns-1]), strings.Join(f[columns-1:], " "))
}

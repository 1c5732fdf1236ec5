package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/minictl/minictl/testing/lab"
)

// What the project wants to reach, in MB of 10^6 bytes.
const (
	targetDaemonMB = 80
	targetShimMB   = 5
)

// memoryContainers is how many containers the second measurement has.
const memoryContainers = 10

// usage is a process's memory in MB of 10^6 bytes: Resident counts pages shared with others, Private those that would
// come free with its end.
type usage struct{ Resident, Private float64 }

// memory weighs the daemon without containers and with some, and their shims. The daemon is started anew first, so that
// it is not the work of other parts that is weighed.
func (b *bench) memory() error {
	if err := b.cluster(); err != nil {
		return err
	}
	b.h1.StopDaemon()
	b.h1.RestartDaemon()
	if err := b.weighDaemon("without containers"); err != nil {
		return err
	}
	remove := []string{"rm", "-f"}
	for i := range memoryContainers {
		name := fmt.Sprintf("memory%d", i)
		remove = append(remove, name)
		if _, err := cli(b.h1, "run", "-d", "--name", name, "--network", overlay, "busybox", "sleep", "86400"); err != nil {
			return err
		}
	}
	if err := b.weighDaemon(fmt.Sprintf("with %d containers", memoryContainers)); err != nil {
		return err
	}
	shims, err := shims(b.h1)
	if err != nil {
		return err
	}
	var private, resident sample
	for _, u := range shims {
		private, resident = append(private, u.Private), append(resident, u.Resident)
	}
	b.table.add(figure{what: "a container's shim, private", values: private, format: "%.1f MB", target: targetShimMB})
	b.table.add(figure{what: "… resident, the program's pages shared with the others", values: resident, format: "%.1f MB"})
	_, err = cli(b.h1, remove...)
	return err
}

func (b *bench) weighDaemon(when string) error {
	u, err := weigh(b.h1.Running().Pid())
	if err != nil {
		return err
	}
	b.table.add(figure{what: "daemon " + when + ", resident", values: sample{u.Resident}, format: "%.1f MB", target: targetDaemonMB})
	// The other host's daemon shares the program's pages, some 33 MB of the resident ones; on a machine of its own they
	// would count as private, though the kernel may drop them at any time.
	b.table.add(figure{what: "… private, the program's pages being shared here", values: sample{u.Private}, format: "%.1f MB"})
	return nil
}

// shims weighs every shim that runs on a host.
func shims(h *lab.Host) ([]usage, error) {
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", h.Pid()))
	if err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var out []usage
	for _, dir := range dirs {
		comm, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil || !strings.HasPrefix(string(comm), "minictl-shim") {
			continue // ended meanwhile, or none of ours
		}
		if at, err := os.Readlink(filepath.Join(dir, "ns/pid")); err != nil || at != space {
			continue // another host's
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		u, err := weigh(pid)
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no shim runs on %s", h.Name())
	}
	return out, nil
}

func weigh(pid int) (usage, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return usage{}, err
	}
	defer f.Close()
	u, err := parseRollup(f)
	if err != nil {
		return usage{}, fmt.Errorf("weigh process %d: %w", pid, err)
	}
	return u, nil
}

// parseRollup reads /proc/<pid>/smaps_rollup (proc_pid_smaps_rollup(5)), whose lines are "Rss:   1234 kB" of 1024 bytes.
func parseRollup(r io.Reader) (usage, error) {
	var u usage
	found := 0
	for sc := bufio.NewScanner(r); sc.Scan(); {
		f := strings.Fields(sc.Text())
		if len(f) != 3 || f[2] != "kB" {
			continue
		}
		kb, err := strconv.ParseFloat(f[1], 64)
		if err != nil {
			return usage{}, fmt.Errorf("line %q: %w", sc.Text(), err)
		}
		mb := kb * 1024 / 1e6
		switch f[0] {
		case "Rss:":
			u.Resident, found = mb, found+1
		case "Private_Clean:", "Private_Dirty:":
			u.Private, found = u.Private+mb, found+1
		}
	}
	if found != 3 {
		return usage{}, fmt.Errorf("found %d of 3 lines", found)
	}
	return u, nil
}

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/minictl/minictl/testing/lab"
)

// What the project wants to reach, in MB of 10^6 bytes.
const (
	targetDaemonMB = 80
	targetShimMB   = 5
)

// ratioMemory is the same as a share of what dockerd and containerd have.
const ratioMemory = 0.5

// memoryContainers is how many containers the second measurement has.
const memoryContainers = 10

// usage is a process's memory in MB of 10^6 bytes: Resident counts pages shared with others, Private those that would
// come free with its end.
type usage struct{ Resident, Private float64 }

// memory weighs the daemons without containers and with some, and minictl's shims. minictl's daemon is started anew first,
// and docker's have just been started, so that it is not the work of other parts that is weighed.
func (b *bench) memory() error {
	if err := b.cluster(); err != nil {
		return err
	}
	b.h1.StopDaemon()
	b.h1.RestartDaemon()
	if err := b.weighDaemons("without containers"); err != nil {
		return err
	}
	remove := []string{"rm", "-f"}
	for i := range memoryContainers {
		remove = append(remove, fmt.Sprintf("memory%d", i))
	}
	err := b.each(func(e *engine) error {
		for _, name := range remove[2:] {
			if _, err := e.run("run", "-d", "--name", name, "--network", overlay, "busybox", "sleep", "86400"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := b.weighDaemons(fmt.Sprintf("with %d containers", memoryContainers)); err != nil {
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
	return b.each(func(e *engine) error {
		_, err := e.run(remove...)
		return err
	})
}

// weighDaemons adds up what an engine's daemons have: minictl's one, docker's dockerd and containerd.
func (b *bench) weighDaemons(when string) error {
	var private pair
	resident, err := b.turns(1, func(e *engine) (float64, error) {
		var sum usage
		for _, pid := range e.pids() {
			u, err := weigh(pid)
			if err != nil {
				return 0, err
			}
			sum.Resident, sum.Private = sum.Resident+u.Resident, sum.Private+u.Private
		}
		private.add(e, sum.Private)
		return sum.Resident, nil
	})
	if err != nil {
		return err
	}
	f := versus("daemon "+when+", resident (docker: dockerd and containerd)", resident, ratioMemory)
	f.format, f.target = "%.1f MB", targetDaemonMB
	b.table.add(f)
	// The other host's daemon shares the program's pages, some 33 MB of the resident ones; on a machine of its own they
	// would count as private, though the kernel may drop them at any time.
	f = versus("… private, the program's pages being shared here", private, 0)
	f.format = "%.1f MB"
	b.table.add(f)
	return nil
}

// idleTime is how long daemons that have nothing to do are watched.
const idleTime = 30 * time.Second

// idle measures the processor time that daemons without work take, all in the same span of time. It comes right after
// memory: by then they have got over their start.
func (b *bench) idle() error {
	all, err := b.engines()
	if err != nil {
		return err
	}
	before := make([]time.Duration, len(all))
	for i := range all {
		if before[i], err = all[i].used(); err != nil {
			return err
		}
	}
	time.Sleep(idleTime)
	var p pair
	for i := range all {
		after, err := all[i].used()
		if err != nil {
			return err
		}
		p.add(&all[i], ms(after-before[i]))
	}
	b.table.add(versus(fmt.Sprintf("processor time of the daemon in %.0f idle seconds, two hosts joined", idleTime.Seconds()), p, 1))
	return nil
}

// used is the processor time that an engine's daemons have taken so far.
func (e *engine) used() (time.Duration, error) {
	var sum time.Duration
	for _, pid := range e.pids() {
		d, err := processorTime(pid)
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

// processorTime adds up the threads' run times (proc_pid_schedstat: nanoseconds, finer than proc_pid_stat's hundredths of a
// second). Go programs keep their threads, so none that ended is missed while they are idle.
func processorTime(pid int) (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return 0, err
		}
		var ran int64
		if _, err := fmt.Sscan(string(text), &ran); err != nil {
			return 0, fmt.Errorf("%s: %w", f, err)
		}
		sum += time.Duration(ran)
	}
	if len(files) == 0 {
		return 0, fmt.Errorf("no process %d", pid)
	}
	return sum, nil
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

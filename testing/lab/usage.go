package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// CPU is the processor time that all processes of the lab's hosts have used so far, the ended ones included, in user and
// in kernel mode. Programs run with Run and Minictl are the caller's children and are not in it.
func (l *Lab) CPU() (time.Duration, error) { return usedCPU(l.cg, l.cgroupName()) }

// CPU is Lab.CPU for the processes of one host.
func (h *Host) CPU() (time.Duration, error) { return usedCPU(h.lab.cg, h.cgroup()) }

func usedCPU(hs []hierarchy, cgroup string) (time.Duration, error) {
	for _, h := range hs {
		dir := filepath.Join(h.Mount, cgroup)
		// Version 1's cpuacct has nanoseconds in a file of its own, version 2 microseconds in a list (kernel: cgroup-v2,
		// "cpu.stat"). A version 2 hierarchy beside version 1's controllers has the list as well.
		if b, err := os.ReadFile(filepath.Join(dir, "cpuacct.usage")); err == nil {
			return cpuTime(string(b), time.Nanosecond)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "cpu.stat")); err == nil {
			for line := range strings.Lines(string(b)) {
				if v, ok := strings.CutPrefix(line, "usage_usec "); ok {
					return cpuTime(v, time.Microsecond)
				}
			}
		}
	}
	return 0, errors.New("no cgroup of this machine counts processor time")
}

func cpuTime(text string, unit time.Duration) (time.Duration, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	return time.Duration(n) * unit, nil
}

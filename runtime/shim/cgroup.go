package shim

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/log"
)

// cgroupRoot is where every hierarchy is mounted.
const cgroupRoot = "/sys/fs/cgroup"

// expectMove is called when runc, in a moment, will move a process into the container's cgroup. The first move in a while
// waits for an RCU grace period, some 10 ms in which nothing else goes on (kernel, admin-guide/cgroup-v2.rst on
// favordynmods); moves that follow within about as long do not. So that wait is taken now, beside runc's own start, by a
// move that changes nothing: ours to where we are. Where it cannot be done all goes as well, only later.
func expectMove(ctx context.Context) {
	procs, err := ownProcs()
	if err == nil {
		err = stay(procs)
	}
	if err != nil {
		log.G(ctx).WithError(err).Debug("the next move between cgroups has to wait")
	}
}

// stay moves this process to the cgroup that it is in. The second time is free, and makes the effect last.
func stay(procs string) error {
	for range 2 {
		if err := os.WriteFile(procs, []byte("0"), 0); err != nil { // 0 is the writer itself
			return err
		}
	}
	return nil
}

// ownProcs is the cgroup.procs of a cgroup that this process is in, in any of the hierarchies: they share the lock.
func ownProcs() (string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	self := []byte(strconv.Itoa(os.Getpid()))
	for _, file := range procsFiles(string(text)) {
		// Only the list itself proves that a path of ours means the same cgroup below this mount.
		list, err := os.ReadFile(file)
		if err == nil && slices.ContainsFunc(bytes.Fields(list), func(pid []byte) bool { return bytes.Equal(pid, self) }) {
			return file, nil
		}
	}
	return "", fmt.Errorf("find the own cgroup below %s: %w", cgroupRoot, fs.ErrNotExist)
}

// procsFiles are the places to look at for a process with these lines in its /proc/PID/cgroup (cgroups(7)):
// "hierarchy:controllers:path", both first fields being "0" and "" for version 2.
func procsFiles(lines string) []string {
	var out []string
	for line := range strings.Lines(lines) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 || !path.IsAbs(f[2]) || strings.HasPrefix(f[2], "/..") {
			continue // of another cgroup namespace
		}
		mounts := []string{strings.TrimPrefix(f[1], "name=")}
		if f[1] == "" {
			mounts = []string{"", "unified"}
		}
		for _, m := range mounts {
			out = append(out, path.Join(cgroupRoot, m, f[2], "cgroup.procs"))
		}
	}
	return out
}

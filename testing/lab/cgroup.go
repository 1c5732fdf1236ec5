package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// cgroupRoot is where every distribution mounts cgroups; nothing else is looked at.
const cgroupRoot = "/sys/fs/cgroup"

// hierarchy is one mounted cgroup hierarchy: a version 1 controller, or version 2.
type hierarchy struct {
	Mount string // absolute, at or below cgroupRoot
	V2    bool
}

// hierarchies lists what is mounted: one on a machine with cgroup v2 alone, about ten on a version 1 or hybrid one.
func hierarchies() []hierarchy {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []hierarchy
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		// proc_pid_mountinfo(5): the type stands after a lone dash, the mount point is the fifth field.
		before, after, ok := strings.Cut(sc.Text(), " - ")
		fields, fsType := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(fsType) == 0 || !strings.HasPrefix(fields[4], cgroupRoot) {
			continue
		}
		if t := fsType[0]; t == "cgroup" || t == "cgroup2" {
			out = append(out, hierarchy{Mount: fields[4], V2: t == "cgroup2"})
		}
	}
	return out
}

// makeCgroups makes name (such as mclab-3fa2c1/host1) in every hierarchy.
func makeCgroups(hs []hierarchy, name string) error {
	for _, h := range hs {
		at := h.Mount
		for part := range strings.SplitSeq(name, "/") {
			if h.V2 {
				delegate(at)
			}
			at = filepath.Join(at, part)
			if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("make cgroup: %w", err)
			}
			// A new cpuset is empty, and refuses processes until it is not.
			for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
				if v, err := os.ReadFile(filepath.Join(filepath.Dir(at), f)); err == nil && !h.V2 {
					_ = os.WriteFile(filepath.Join(at, f), v, 0o644)
				}
			}
		}
	}
	return nil
}

// delegate hands every controller of a version 2 cgroup to its children, as far as the kernel lets it: one that is bound
// to a version 1 hierarchy, or that an outer cgroup withholds, is not there to hand on.
func delegate(dir string) {
	v, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for c := range strings.FieldsSeq(string(v)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644)
	}
}

// joinCgroups moves a process into name. Version 1 can move a single thread (file tasks), which is how a process is born
// in a cgroup: its starter's thread is in it.
func joinCgroups(hs []hierarchy, name, file string, id int) error {
	for _, h := range hs {
		if h.V2 && file == "tasks" {
			continue
		}
		if err := os.WriteFile(filepath.Join(h.Mount, name, file), []byte(strconv.Itoa(id)), 0o644); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	return nil
}

// listCgroups lists the cgroups below name, each once however many hierarchies hold it, without name itself.
func listCgroups(hs []hierarchy, name string) []string {
	var out []string
	for _, h := range hs {
		top := filepath.Join(h.Mount, name)
		_ = filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && p != top {
				out = append(out, strings.TrimPrefix(p, top))
			}
			return nil
		})
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// removeCgroups removes name and all below it, leaves first. The kernel says EBUSY for a moment after the last process
// of a cgroup has gone.
func removeCgroups(hs []hierarchy, name string) error {
	return poll(patience, func() error {
		for _, h := range hs {
			var dirs []string
			top := filepath.Join(h.Mount, name)
			_ = filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, p)
				}
				return nil
			})
			for _, d := range slices.Backward(dirs) {
				if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("remove cgroup: %w", err)
				}
			}
		}
		return nil
	})
}

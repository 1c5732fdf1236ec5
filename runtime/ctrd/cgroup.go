package ctrd

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/minictl/minictl/runtime/cgroup"
)

// cgroupRoot is where the hierarchies are mounted: v2 here, or v1 one below each name.
const cgroupRoot = "/sys/fs/cgroup"

// cgroups removes parents of containers' cgroups, which runc makes and leaves.
type cgroups struct {
	mu   sync.Mutex
	made map[string]bool // parents that did not exist before we used them
}

// using is to be called before runc makes a cgroup at path; the result afterwards.
// In between no daemon on this machine removes a parent: runc would fail between
// making the parent and the child.
func (c *cgroups) using(path string) (done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range parents(path) {
		if len(dirs(p)) > 0 {
			continue
		}
		if c.made == nil {
			c.made = map[string]bool{}
		}
		c.made[p] = true
	}
	return flockRoot(syscall.LOCK_SH)
}

// tidy removes the empty parents of path that are ours: below (or at) own, or
// made for a container of this process. A parent that the user made stays. It
// gives false when it could not try, since a container is being started.
func (c *cgroups) tidy(path, own string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	unlock := flockRoot(syscall.LOCK_EX | syscall.LOCK_NB)
	if unlock == nil {
		return false
	}
	defer unlock()
	own = filepath.Clean("/" + own)
	for _, p := range parents(path) {
		if !c.made[p] && p != own && !strings.HasPrefix(p, own+"/") {
			return true
		}
		for _, d := range dirs(p) {
			// EBUSY is the usual one: others still use it.
			if err := syscall.Rmdir(d); err != nil && !errors.Is(err, syscall.ENOENT) {
				return true
			}
		}
		delete(c.made, p)
	}
	return true
}

// tidySoon is tidy, in the background where it has to wait.
func (r *Runtime) tidySoon(path string) {
	if r.cgroups.tidy(path, r.cfg.CgroupParent) {
		return
	}
	r.waits.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
			select {
			case <-r.life.Done():
				return
			case <-tick.C:
				if r.cgroups.tidy(path, r.cfg.CgroupParent) {
					return
				}
			}
		}
	})
}

// flockRoot locks the root directory of the hierarchies, which all daemons of a
// machine share, whatever namespaces they live in. It gives nil when the lock is
// not to be had at once and how has LOCK_NB; a lock that fails otherwise is none.
func flockRoot(how int) (unlock func()) {
	f, err := os.Open(cgroupRoot)
	if err != nil {
		return func() {}
	}
	for {
		err = syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		f.Close()
		return nil
	}
	return func() { f.Close() }
}

// parents are the ancestors of an absolute cgroup path, nearest first, without
// the root. A relative or systemd path ("slice:prefix:name") has none of ours.
func parents(path string) []string {
	if !strings.HasPrefix(path, "/") {
		return nil
	}
	var out []string
	for p := filepath.Dir(filepath.Clean(path)); p != "/"; p = filepath.Dir(p) {
		out = append(out, p)
	}
	return out
}

// dirs are the directories of one cgroup in all hierarchies.
func dirs(path string) []string {
	out, _ := filepath.Glob(filepath.Join(cgroupRoot, "*", path))
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		out = nil
		if d := filepath.Join(cgroupRoot, path); exists(d) {
			out = []string{d}
		}
	}
	return out
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// oomKilled reads the kernel's count of processes killed for want of memory. The
// cgroup exists until the task is deleted, so the count is there at its exit.
func oomKilled(path string) bool {
	if !strings.HasPrefix(path, "/") {
		return false
	}
	for _, file := range []string{
		filepath.Join(cgroupRoot, "memory", path, "memory.oom_control"), // v1, since Linux 4.13
		filepath.Join(cgroupRoot, path, "memory.events"),                // v2
		filepath.Join(cgroupRoot, "unified", path, "memory.events"),
	} {
		if b, err := os.ReadFile(file); err == nil && oomCount(b) {
			return true
		}
	}
	return false
}

// oomCount says whether a line "oom_kill N" has N > 0.
func oomCount(b []byte) bool {
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		if n, ok := strings.CutPrefix(sc.Text(), "oom_kill "); ok {
			return n != "0"
		}
	}
	return false
}

// Stats is what the container has used so far; ErrNotExist's class once its cgroup is gone.
func (t *Task) Stats() (cgroup.Stats, error) {
	return cgroup.Read(os.DirFS(cgroupRoot), t.cgroup)
}

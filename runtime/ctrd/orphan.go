package ctrd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/pkg/shim"
)

// orphanTimeout bounds the wait for the end of what was killed.
const orphanTimeout = 5 * time.Second

// inherited are the containers that were there when this Runtime started and have had no task since: only they can have
// something left of an interrupted NewTask.
type inherited struct {
	mu  sync.Mutex
	ids map[string]bool
}

// take tells whether id is one of them, once.
func (i *inherited) take(id string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	was := i.ids[id]
	delete(i.ids, id)
	return was
}

// inherit remembers the containers of before.
func (r *Runtime) inherit(ctx context.Context) error {
	ids, err := r.Containers(ctx)
	if err != nil {
		return err
	}
	r.inherited.mu.Lock()
	defer r.inherited.mu.Unlock()
	r.inherited.ids = map[string]bool{}
	for _, id := range ids {
		r.inherited.ids[id] = true
	}
	return nil
}

// settle clears up after an interrupted NewTask of a container that has no task now.
func (r *Runtime) settle(ctx context.Context, id string) error {
	if !r.inherited.take(id) {
		return nil
	}
	if err := r.purge(ctx, id); err != nil {
		return fmt.Errorf("clear up after a killed daemon: %w", err)
	}
	r.tidySoon(filepath.Join("/", r.cfg.CgroupParent, id))
	return nil
}

// purge ends what a daemon that was killed in the middle of NewTask has left of a container that has no task: a shim that
// nobody knows, a half-made process of runc's, and the cgroup of both.
func (r *Runtime) purge(ctx context.Context, id string) error {
	path := filepath.Join("/", r.cfg.CgroupParent, id)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(orphanTimeout); ; {
		pids := append(r.shimsOf(id), cgroupProcesses(path)...)
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone already: all the better
		}
		err := removeCgroup(path)
		if len(pids) == 0 && err == nil {
			return r.removeSockets(ctx, id)
		}
		if time.Now().After(end) {
			return fmt.Errorf("processes %v of container %s do not end: %w", pids, id, errors.Join(err, context.DeadlineExceeded))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// removeSockets removes what a killed shim listened on: our socket, and containerd's where that is in our folder.
func (r *Runtime) removeSockets(ctx context.Context, id string) error {
	err := removeFile(r.socket(id))
	if r.cfg.External != "" {
		return err
	}
	address, aerr := shim.CreateSocketAddress(r.ctx(ctx), filepath.Clean(r.cfg.SocketDir), apiSocket(r.cfg), id, false)
	if aerr != nil {
		return errors.Join(err, aerr)
	}
	return errors.Join(err, removeFile(strings.TrimPrefix(address, "unix://")))
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// shimsOf finds a container's shims.
func (r *Runtime) shimsOf(id string) []int {
	var out []int
	for pid, of := range r.shims() {
		if of == id {
			out = append(out, pid)
		}
	}
	return out
}

// shims finds all shims by their command line, whose path is one of this Runtime's own: which container each serves, by
// process ID.
func (r *Runtime) shims() map[int]string {
	dir := []byte(filepath.Join(r.cfg.Root, "shims") + "/")
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well formed
	out := map[int]string{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || !bytes.HasPrefix(b, dir) {
			continue
		}
		args := strings.Split(string(b), "\x00")
		i := slices.Index(args, "-id")
		if i < 0 || i+1 >= len(args) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
			out[pid] = args[i+1]
		}
	}
	return out
}

func cgroupProcesses(path string) []int {
	var out []int
	for _, d := range dirs(path) {
		b, err := os.ReadFile(filepath.Join(d, "cgroup.procs"))
		if err != nil {
			continue
		}
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
				out = append(out, pid)
			}
		}
	}
	return out
}

// removeCgroup removes a cgroup in every hierarchy; one that still has processes is an error.
func removeCgroup(path string) error {
	var errs []error
	for _, d := range dirs(path) {
		if err := syscall.Rmdir(d); err != nil && !errors.Is(err, syscall.ENOENT) {
			errs = append(errs, &os.PathError{Op: "remove cgroup", Path: d, Err: err})
		}
	}
	return errors.Join(errs...)
}

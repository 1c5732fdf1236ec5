// Package sandbox makes the network stacks of containers, each a network namespace kept alive by a bind mount, and
// plugs endpoints into them.
//
// The namespace belongs to no process: it is there before the container's first process starts and stays when the
// daemon or the container restarts. Its file is the whole record of it.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/nl"
)

// Create makes a network namespace with lo up, and with IPv6 off on all interfaces to come (docker's start: an endpoint
// with an IPv6 address switches it on for its own), and mounts it at path. A live namespace there is kept as it is; a dead file, left by a
// crash, is used again. The sandbox's ID is path's last element.
func Create(ctx context.Context, path string) (netdriver.Sandbox, error) {
	s := netdriver.Sandbox{ID: filepath.Base(path), Path: path}
	if err := ctx.Err(); err != nil {
		return s, err
	}
	if alive(path) {
		return s, nil
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return s, fmt.Errorf("create sandbox %s: %w", s.ID, err)
	}
	unlock, err := lock(dir)
	if err != nil {
		return s, fmt.Errorf("create sandbox %s: %w", s.ID, err)
	}
	defer unlock()
	if alive(path) { // another caller made it while we waited
		return s, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return s, fmt.Errorf("create sandbox %s: %w", s.ID, err)
	}
	f.Close()
	done := make(chan error, 1)
	go func() { done <- unshare(path) }()
	if err := <-done; err != nil {
		return s, errors.Join(fmt.Errorf("create sandbox %s: %w", s.ID, err), Remove(path))
	}
	return s, nil
}

// unshare makes the namespace on a thread of its own. A thread that cannot go home stays locked and dies with the
// goroutine.
func unshare(path string) error {
	runtime.LockOSThread()
	home, err := os.Open(nl.Self)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("unshare the network namespace: %w", err)
	}
	err = setUp(path)
	if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
	return err
}

// setUp prepares the calling thread's fresh namespace and mounts it. The mount comes last: what is mounted is ready.
func setUp(path string) error {
	c, err := nl.Here()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := nl.SetSysctl("net/ipv6/conf/default/disable_ipv6", "1"); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	lo, err := c.Link("lo")
	if err != nil {
		return err
	}
	if err := c.SetUp(lo.Index); err != nil {
		return err
	}
	if err := unix.Mount(nl.Self, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount the network namespace at %s: %w", path, err)
	}
	return nil
}

// Remove unmounts and unlinks a namespace; nil if there is none. Its devices go once nobody else holds it.
func Remove(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break // not, or no longer, a mount point: a crash may have left several on top of each other
		}
		if err != nil {
			return fmt.Errorf("remove sandbox %s: unmount: %w", filepath.Base(path), err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove sandbox %s: %w", filepath.Base(path), err)
	}
	return nil
}

// List names the sandboxes in a folder, sorted, dead files included so that Remove can clear them away. No folder is
// an empty list.
func List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if !e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// Do runs fn inside the sandbox whose file is at path, on a thread of its own. ErrNotFound if there is none.
func Do(path string, fn func() error) error { return nl.Enter(path, fn) }

// Exists tells whether path is a live network namespace rather than nothing or a dead file.
func Exists(path string) bool { return alive(path) }

// alive asks the file system: namespace files are on nsfs.
func alive(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// lock keeps two makers of one sandbox apart, also across processes. The lock goes with the descriptor.
func lock(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { f.Close() }, nil
}

// ShareDir makes dir a shared mount point, as `ip netns add` does before it puts anything there. Without it the first
// `ip netns add` would bind-mount dir over itself and hide a second reference to every namespace in it, which would
// outlive its removal.
func ShareDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("share folder: %w", err)
	}
	err := unix.Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if !errors.Is(err, unix.EINVAL) { // EINVAL: not a mount point yet
		return shared(dir, err)
	}
	if err := unix.Mount(dir, dir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return shared(dir, err)
	}
	return shared(dir, unix.Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, ""))
}

// UnshareDir takes ShareDir back once the folder is empty; nil while something is in it. A mount below it keeps it busy,
// so whatever `ip netns` puts there meanwhile is safe.
func UnshareDir(dir string) error {
	if left, err := List(dir); err != nil || len(left) > 0 {
		return err
	}
	err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil // in use again, not a mount point, or gone
	}
	if err != nil {
		return fmt.Errorf("unshare folder %s: %w", dir, err)
	}
	return nil
}

// shared names the folder in ShareDir's errors.
func shared(dir string, err error) error {
	if err != nil {
		return fmt.Errorf("share folder %s: %w", dir, err)
	}
	return nil
}

package ctrd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	goruntime "runtime"
	"strconv"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/runtime/tree"
)

// ProcessFiles opens the root that a container's process sees, volumes, tmpfs and all, for the call of fn. The error is
// errdefs.ErrUnavailable when the process ended meanwhile.
func (r *Runtime) ProcessFiles(id string, pid int, fn func(*tree.Root) error) error {
	dir, err := processRoot(id, pid)
	if err != nil {
		return fmt.Errorf("open the container's root: %w: %w", err, errdefs.ErrUnavailable)
	}
	root := tree.From(dir)
	defer root.Close()
	return fn(root)
}

// processRoot opens /proc/PID/root. The process's folder is opened first and asked whether it is the container's: its
// number may have gone to another process, whose root could be the host's.
func processRoot(id string, pid int) (*os.File, error) {
	proc, err := os.Open("/proc/" + strconv.Itoa(pid))
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	fd, err := unix.Openat(int(proc.Fd()), "cgroup", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "cgroup")
	text, err := io.ReadAll(io.LimitReader(f, 1<<16))
	_ = f.Close()
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(text, []byte("/"+id)) {
		return nil, fmt.Errorf("process %d is not the container's", pid)
	}
	root, err := unix.Openat(int(proc.Fd()), "root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(root), "root"), nil
}

// StoppedFiles mounts the root of a container that has no task, with binds on top, for the call of fn. Binds are made in
// a mount namespace that ends with the call, so that nobody else sees them and a crash leaves none.
func (r *Runtime) StoppedFiles(ctx context.Context, id string, binds []specs.Mount, readOnly bool, fn func(*tree.Root) error) error {
	return r.RootFS(ctx, id, func(dir string) error {
		done := make(chan error, 1)
		go onSpareThread(func() error { return withBinds(dir, binds, readOnly, fn) }, done)
		return <-done
	})
}

// onSpareThread runs fn on a thread that ends with it. Never on the main thread, which cannot end and whose namespaces
// /proc/self shows.
func onSpareThread(fn func() error, done chan<- error) {
	goruntime.LockOSThread() // never unlocked: the thread ends with this goroutine
	if unix.Gettid() != unix.Getpid() {
		done <- fn()
		return
	}
	inner := make(chan error, 1)
	go onSpareThread(fn, inner)
	err := <-inner
	goruntime.UnlockOSThread()
	done <- err
}

func withBinds(dir string, binds []specs.Mount, readOnly bool, fn func(*tree.Root) error) error {
	if err := errors.Join(unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	root, err := tree.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, b := range binds {
		if err := bind(root, b); err != nil {
			return fmt.Errorf("bind %s to %s: %w", b.Source, b.Destination, err)
		}
	}
	if readOnly { // after the binds: their mount points may have to be made
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("make the root read-only: %w", err)
		}
	}
	return fn(root)
}

// bind puts one mount into the root; a source that is gone stays away.
func bind(root *tree.Root, b specs.Mount) error {
	st, err := os.Stat(b.Source)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	target, err := root.Mountpoint(b.Destination, st.IsDir())
	if err != nil {
		return err
	}
	defer target.Close()
	path := "/proc/self/fd/" + strconv.Itoa(int(target.Fd()))
	if err := unix.Mount(b.Source, path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	for _, o := range b.Options {
		if o != "ro" {
			continue
		}
		// The open path leads below the new mount; a fresh one leads to it.
		top, err := root.Mountpoint(b.Destination, st.IsDir())
		if err != nil {
			return err
		}
		defer top.Close()
		return unix.Mount("", "/proc/self/fd/"+strconv.Itoa(int(top.Fd())), "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
	}
	return nil
}

// Export writes a container's whole root file system to w as a tar, without what is mounted into it.
func (r *Runtime) Export(ctx context.Context, id string, w io.Writer) error {
	return r.RootFS(ctx, id, func(dir string) error {
		root, err := tree.Open(dir)
		if err != nil {
			return err
		}
		defer root.Close()
		return root.Pack(ctx, w, "/", tree.PackOptions{OneMount: true})
	})
}

// Usage is what a container's own layer takes on disk, in bytes.
func (r *Runtime) Usage(ctx context.Context, id string) (int64, error) {
	u, err := r.client.SnapshotService(r.snapshotter).Usage(r.ctx(ctx), id)
	if err != nil {
		return 0, fmt.Errorf("size of container: %w", err)
	}
	return u.Size, nil
}

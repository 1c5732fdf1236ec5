package lab

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Namespaces by their names in /proc/<pid>/ns, the mount namespace last: after it, paths mean something else.
var (
	netOnly = []string{"net"}
	allOf   = []string{"cgroup", "ipc", "uts", "net", "pid", "mnt"}
)

// within calls fn on an operating system thread that is in the given namespaces of process pid. A process that fn starts
// is born in them, and is our child all the same, so that waiting and killing work as usual. The thread is thrown away:
// putting one back in order is more fragile than a new one is dear.
func within(pid int, kinds []string, fn func() error) error {
	done := make(chan error, 1)
	go onSpareThread(func() error { return enter(pid, kinds, fn) }, done)
	return <-done
}

// enter moves the calling thread, which must be a spare one, and calls fn.
func enter(pid int, kinds []string, fn func() error) error {
	fds := make([]*os.File, 0, len(kinds))
	defer func() {
		for _, f := range fds {
			f.Close()
		}
	}()
	for _, k := range kinds {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, k))
		if err != nil {
			return fmt.Errorf("open namespace: %w", err)
		}
		fds = append(fds, f)
	}
	// A thread may change its mount namespace only once it shares no working directory with the others.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare working directory: %w", err)
	}
	for i, f := range fds {
		if err := unix.Setns(int(f.Fd()), 0); err != nil {
			return fmt.Errorf("enter %s namespace: %w", kinds[i], err)
		}
	}
	return fn()
}

// onSpareThread runs fn on a thread that ends with it, and never on the main thread: that one cannot end, and /proc/self
// shows its namespaces.
func onSpareThread(fn func() error, done chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
	if unix.Gettid() != unix.Getpid() {
		done <- fn()
		return
	}
	// We sit on the main thread; stay on it until another goroutine has a thread of its own.
	inner := make(chan error, 1)
	go onSpareThread(fn, inner)
	err := <-inner
	runtime.UnlockOSThread()
	done <- err
}

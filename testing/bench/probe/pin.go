package probe

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// pinProcess keeps all of the process on one processor. A thread made meanwhile has its maker's affinity, so a second look
// finds the last.
func pinProcess(cpu int) error {
	for range 2 {
		threads, err := filepath.Glob("/proc/self/task/*")
		if err != nil {
			return err
		}
		for _, t := range threads {
			tid, err := strconv.Atoi(filepath.Base(t))
			if err != nil {
				return err
			}
			if err := pinThread(tid, cpu); err != nil {
				return err
			}
		}
	}
	return nil
}

// pinThread keeps a thread on one processor; 0 is the caller's.
func pinThread(tid, cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(tid, &set); err != nil {
		return fmt.Errorf("keep thread %d on processor %d: %w", tid, cpu, err)
	}
	return nil
}

// blocking calls do with the descriptor of a connection or a listener, without O_NONBLOCK, on the client's processor: what
// is measured is the network, not a runtime's poller.
func blocking(c any, do func(fd int) error) error {
	f, err := c.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd())
	if err := unix.SetNonblock(fd, false); err != nil {
		return err
	}
	return pinned(func() error { return do(fd) })
}

// pinned calls do in a thread of its own on the client's processor.
func pinned(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := pinThread(0, clientCPU())
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}

// ownCPU is the processor time that this process has taken, in ns.
func ownCPU() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

package nl

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Self is the path of the calling thread's network namespace.
const Self = "/proc/thread-self/ns/net"

// Enter runs fn on a thread of its own inside the network namespace whose file is at path and returns fn's error.
// ErrNotFound if there is no such namespace.
func Enter(path string, fn func() error) error {
	target, err := openNS(path)
	if err != nil {
		return err
	}
	defer target.Close()
	done := make(chan error, 1)
	go func() { done <- onThread(target, fn) }()
	return <-done
}

// onThread moves the goroutine's thread into target for the time of fn. The thread is unlocked only once it is home
// again; otherwise the runtime destroys it when the goroutine ends.
func onThread(target *os.File, fn func() error) error {
	runtime.LockOSThread()
	home, err := os.Open(Self)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer home.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %s: %w", target.Name(), err)
	}
	err = fn()
	if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
	return err
}

// openNS opens a namespace's file.
func openNS(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open network namespace %s: %w", path, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return f, nil
}

// SetSysctl writes a value under /proc/sys in the calling thread's namespace. Key uses slashes, since interface names
// may hold dots: net/ipv4/conf/eth0.1/forwarding. A value that already stands is not written again, which lets the
// daemon run where /proc/sys is read-only but already right. ErrNotFound if the kernel has no such key.
func SetSysctl(key, value string) error {
	path := filepath.Join("/proc/sys", key)
	if old, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(old)) == value {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("set %s: %w", key, errdefs.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("set %s: %w", key, err)
	}
	_, err = f.WriteString(value)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set %s to %s: %w", key, value, err)
	}
	return nil
}

// Sysctl reads a value that SetSysctl writes. ErrNotFound if the kernel has no such key.
func Sysctl(key string) (string, error) {
	b, err := os.ReadFile(filepath.Join("/proc/sys", key))
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read %s: %w", key, errdefs.ErrNotFound)
	}
	return strings.TrimSpace(string(b)), err
}

// RaiseSysctl writes a number under /proc/sys unless what stands there is as large already.
func RaiseSysctl(key string, value int) error {
	old, err := os.ReadFile(filepath.Join("/proc/sys", key))
	if err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(old))); err == nil && n >= value {
			return nil
		}
	}
	return SetSysctl(key, strconv.Itoa(value))
}

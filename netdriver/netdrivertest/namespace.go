// Package netdrivertest holds what tests of network drivers share: fresh namespaces, the kernel's own listing as
// text, two hosts with a wire between them, and the conformance suite that every driver runs.
package netdrivertest

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/nl"
	"github.com/minictl/minictl/netdriver/sandbox"
)

// NeedRoot skips the test without root, and fails it where CI=true: a skipped test proves nothing there.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("this test needs root")
	}
	t.Skip("needs root")
}

// NewNS puts the test's goroutine, locked to its thread, into a fresh network namespace with lo up and IPv6 off, until the test
// ends. The test must not be parallel, and reaches this namespace from its own goroutine only.
func NewNS(t testing.TB) {
	t.Helper()
	NeedRoot(t)
	runtime.LockOSThread()
	thread := unix.Gettid()
	home, err := os.Open(nl.Self)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal("unshare:", err)
	}
	t.Cleanup(func() {
		defer home.Close()
		if unix.Gettid() != thread {
			t.Fatal("clean-up runs on another thread than the test")
		}
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Fatal("return to the first namespace:", err) // still locked: the thread dies with the goroutine
		}
		runtime.UnlockOSThread()
	})
	// IPv6 would come up with random addresses, at a time of its own.
	if err := nl.SetSysctl("net/ipv6/conf/all/disable_ipv6", "1"); err != nil && !errdefs.IsNotFound(err) {
		t.Fatal(err)
	}
	c := Here(t)
	lo, err := c.Link("lo")
	if err == nil {
		err = c.SetUp(lo.Index)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Here opens a Conn to the calling thread's namespace until the test ends.
func Here(t testing.TB) *nl.Conn {
	t.Helper()
	c, err := nl.Here()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Dir is a temporary folder for namespace files. All that is mounted in it is unmounted when the test ends.
func Dir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
		if err != nil {
			t.Error(err)
		}
		slices.Reverse(mounts) // the last mounted first
		for _, m := range mounts {
			if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH); err != nil {
				t.Errorf("unmount %s: %v", m.Mountpoint, err)
			}
		}
	})
	return dir
}

// NewSandbox makes a sandbox that is removed when the test ends.
func NewSandbox(t testing.TB, dir, id string) netdriver.Sandbox {
	t.Helper()
	s, err := sandbox.Create(context.Background(), filepath.Join(dir, id))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sandbox.Remove(s.Path); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Run runs a command inside the namespace at path, "" for the calling thread's, and gives all it says.
func Run(path string, command ...string) (string, error) {
	var out bytes.Buffer
	run := func() error {
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Stdout, cmd.Stderr = &out, &out
		return cmd.Run()
	}
	if path == "" {
		err := run()
		return out.String(), err
	}
	err := nl.Enter(path, run)
	return out.String(), err
}

// MustRun is Run for commands that have to succeed; the command is one line, split at spaces.
func MustRun(t testing.TB, path, command string) string {
	t.Helper()
	out, err := Run(path, strings.Fields(command)...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

// Quiet is a logger that keeps silent.
func Quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

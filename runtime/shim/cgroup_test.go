package shim

import (
	"os"
	"slices"
	"testing"
)

func TestProcsFiles(t *testing.T) {
	for _, c := range []struct {
		name, lines string
		want        []string
	}{
		{"version 2", "0::/system.slice/minictl.service\n", []string{
			"/sys/fs/cgroup/system.slice/minictl.service/cgroup.procs", "/sys/fs/cgroup/unified/system.slice/minictl.service/cgroup.procs",
		}},
		{"version 1", "4:cpu,cpuacct:/a:b\n1:name=systemd:/\n", []string{
			"/sys/fs/cgroup/cpu,cpuacct/a:b/cgroup.procs", "/sys/fs/cgroup/systemd/cgroup.procs",
		}},
		{"outside our cgroup namespace", "0::/../other\n2:pids:/..\n", nil},
		{"nothing", "", nil},
		{"no such lines", "pids\n1:2\n3:pids:relative\n", nil},
	} {
		if got := procsFiles(c.lines); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// TestExpectMove asks the kernel: the move is one, and leaves us where we were.
func TestExpectMove(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("only root may write to its cgroup")
	}
	before, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	procs, err := ownProcs()
	if err != nil {
		t.Fatalf("%v; we are in\n%s", err, before)
	}
	if err := stay(procs); err != nil {
		t.Error(err)
	}
	after, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if string(after) != string(before) {
		t.Errorf("we are in\n%s\nand were in\n%s", after, before)
	}
}

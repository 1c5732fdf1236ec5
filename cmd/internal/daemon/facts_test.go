package daemon

import (
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/runtime/oci"
)

// TestHostFacts: the machine is asked, not guessed at.
func TestHostFacts(t *testing.T) {
	h, err := hostFacts()
	if err != nil || len(h.Capabilities) == 0 || h.Rlimits["RLIMIT_NOFILE"].Hard == 0 {
		t.Errorf("%+v, %v", h, err)
	}
}

// TestNotRun: the programs are right, so that only the kernel can refuse them.
func TestNotRun(t *testing.T) {
	refused := notRun()
	for _, arch := range refused {
		if arch != specs.ArchX32 && arch != specs.ArchX86 {
			t.Errorf("refused: %q", refused)
		}
	}
	// A program for the other class of processors ends by itself where it may run.
	if runtime.GOARCH == "amd64" && !slices.Contains(refused, specs.ArchX86) {
		if err := runOnce(foreign{specs.ArchX86, elf.EM_386, []byte{0x31, 0xdb, 0xb8, 1, 0, 0, 0, 0xcd, 0x80}}.program()); err != nil {
			t.Errorf("the kernel runs i386, but not this: %v", err)
		}
	}
	if err := runOnce([]byte("no program")); !errors.Is(err, unix.ENOEXEC) {
		t.Errorf("what is no program: %v", err)
	}
	if err := runOnce(foreign{kind: elf.EM_S390}.program()); runtime.GOARCH == "amd64" && !errors.Is(err, unix.ENOEXEC) {
		t.Errorf("of another machine: %v", err)
	}
}

func TestMissingLimits(t *testing.T) {
	for _, c := range []struct {
		name  string
		v2    bool
		files []string
		want  []string
	}{
		{"v2 with all controllers", true, []string{"system.slice/io.max", "system.slice/io.weight", "system.slice/io.bfq.weight", "system.slice/memory.swap.max"},
			[]string{oci.FlagSwappiness, oci.FlagOomKillDisable}},
		{"v2 without block devices", true, []string{"system.slice/memory.swap.max"},
			[]string{oci.FlagBlkioWeight, oci.FlagBlkioWeightDevice, oci.FlagDeviceReadBps, oci.FlagDeviceWriteBps, oci.FlagDeviceReadIOps, oci.FlagDeviceWriteIOps,
				oci.FlagSwappiness, oci.FlagOomKillDisable}},
		{"v2 with no cgroup yet", true, []string{"cgroup.controllers"}, []string{oci.FlagSwappiness, oci.FlagOomKillDisable}},
		{"v2 that cannot limit swap", true, []string{"cgroup.controllers", "a/memory.max", "a/io.stat", "a/io.max"},
			[]string{oci.FlagBlkioWeight, oci.FlagBlkioWeightDevice, oci.FlagMemorySwap, oci.FlagSwappiness, oci.FlagOomKillDisable}},
		{"v1 without BFQ and swap", false, []string{
			"blkio/blkio.throttle.read_bps_device", "blkio/blkio.throttle.write_bps_device", "blkio/blkio.throttle.read_iops_device", "blkio/blkio.throttle.write_iops_device",
			"memory/memory.swappiness", "memory/memory.oom_control",
		}, []string{oci.FlagBlkioWeight, oci.FlagBlkioWeightDevice, oci.FlagMemorySwap}},
		{"v1, seen from a cgroup namespace", false, []string{
			"blkio/blkio.throttle.read_bps_device", "blkio/blkio.throttle.write_bps_device", "blkio/blkio.throttle.read_iops_device", "blkio/blkio.throttle.write_iops_device",
			"blkio/blkio.bfq.io_serviced", "memory/memory.swappiness", "memory/memory.oom_control", "memory/memory.memsw.limit_in_bytes",
		}, nil},
	} {
		root := t.TempDir()
		for _, f := range c.files {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(root, f)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, f), []byte("cpu io memory pids\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		slices.Sort(c.want)
		if got := missingLimits(root, c.v2); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

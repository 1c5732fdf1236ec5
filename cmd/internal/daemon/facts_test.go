package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/minictl/minictl/runtime/oci"
)

// TestHostFacts: the machine is asked, not guessed at.
func TestHostFacts(t *testing.T) {
	h, err := hostFacts()
	if err != nil || len(h.Capabilities) == 0 || h.Rlimits["RLIMIT_NOFILE"].Hard == 0 {
		t.Errorf("%+v, %v", h, err)
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

package container

import (
	"fmt"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// limitFlags are cgroup limits.
type limitFlags struct {
	memory, memoryReservation              opts.MemBytes
	memorySwap                             opts.MemSwapBytes
	swappiness                             int64
	cpus                                   opts.NanoCPUs
	cpuShares, cpuPeriod, cpuQuota         int64
	cpuRTPeriod, cpuRTRuntime, pids        int64
	cpusetCPUs, cpusetMems                 string
	oomKillDisable                         bool
	oomScoreAdj                            int
	blkioWeight                            uint16
	blkioDevice                            opts.WeightdeviceOpt
	readBps, writeBps, readIOps, writeIOps opts.ThrottledeviceOpt
	ulimits                                *opts.UlimitOpt
}

func (f *limitFlags) add(fs *pflag.FlagSet) {
	f.blkioDevice = opts.NewWeightdeviceOpt(opts.ValidateWeightDevice)
	f.readBps = opts.NewThrottledeviceOpt(opts.ValidateThrottleBpsDevice)
	f.writeBps = opts.NewThrottledeviceOpt(opts.ValidateThrottleBpsDevice)
	f.readIOps = opts.NewThrottledeviceOpt(opts.ValidateThrottleIOpsDevice)
	f.writeIOps = opts.NewThrottledeviceOpt(opts.ValidateThrottleIOpsDevice)
	f.ulimits = opts.NewUlimitOpt(nil)
	fs.VarP(&f.memory, "memory", "m", "Memory limit")
	fs.Var(&f.memoryReservation, "memory-reservation", "Memory soft limit")
	fs.Var(&f.memorySwap, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	fs.Int64Var(&f.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	fs.BoolVar(&f.oomKillDisable, "oom-kill-disable", false, "Disable OOM Killer")
	fs.IntVar(&f.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	fs.Int64Var(&f.pids, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	fs.Var(f.ulimits, "ulimit", "Ulimit options")
	f.addCPU(fs)
	f.addIO(fs)
}

func (f *limitFlags) addCPU(fs *pflag.FlagSet) {
	fs.Var(&f.cpus, "cpus", "Number of CPUs")
	fs.Int64VarP(&f.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.Int64Var(&f.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&f.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	fs.Int64Var(&f.cpuRTPeriod, "cpu-rt-period", 0, "Limit CPU real-time period in microseconds")
	fs.Int64Var(&f.cpuRTRuntime, "cpu-rt-runtime", 0, "Limit CPU real-time runtime in microseconds")
	fs.StringVar(&f.cpusetCPUs, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&f.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
}

func (f *limitFlags) addIO(fs *pflag.FlagSet) {
	fs.Uint16Var(&f.blkioWeight, "blkio-weight", 0,
		"Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	fs.Var(&f.blkioDevice, "blkio-weight-device", "Block IO weight (relative device weight)")
	fs.Var(&f.readBps, "device-read-bps", "Limit read rate (bytes per second) from a device")
	fs.Var(&f.writeBps, "device-write-bps", "Limit write rate (bytes per second) to a device")
	fs.Var(&f.readIOps, "device-read-iops", "Limit read rate (IO per second) from a device")
	fs.Var(&f.writeIOps, "device-write-iops", "Limit write rate (IO per second) to a device")
}

// apply sets pointers only for flags that were given: an absent limit and a limit of zero are different wishes.
func (f *limitFlags) apply(fs *pflag.FlagSet, h *container.HostConfig) error {
	r := &h.Resources
	if fs.Changed("memory-swappiness") {
		if f.swappiness < -1 || f.swappiness > 100 {
			return fmt.Errorf("invalid value: %d. Valid memory swappiness range is 0-100", f.swappiness)
		}
		r.MemorySwappiness = &f.swappiness
	}
	if fs.Changed("oom-kill-disable") {
		r.OomKillDisable = &f.oomKillDisable
	}
	if fs.Changed("pids-limit") {
		r.PidsLimit = &f.pids
	}
	r.Memory, r.MemoryReservation, r.MemorySwap = f.memory.Value(), f.memoryReservation.Value(), f.memorySwap.Value()
	r.NanoCPUs, r.CPUShares = f.cpus.Value(), f.cpuShares
	r.CPUPeriod, r.CPUQuota = f.cpuPeriod, f.cpuQuota
	r.CPURealtimePeriod, r.CPURealtimeRuntime = f.cpuRTPeriod, f.cpuRTRuntime
	r.CpusetCpus, r.CpusetMems = f.cpusetCPUs, f.cpusetMems
	r.BlkioWeight, r.BlkioWeightDevice = f.blkioWeight, f.blkioDevice.GetList()
	r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps = f.readBps.GetList(), f.writeBps.GetList()
	r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps = f.readIOps.GetList(), f.writeIOps.GetList()
	r.Ulimits, h.OomScoreAdj = f.ulimits.GetList(), f.oomScoreAdj
	return nil
}

// deviceFlags give host devices to the container.
type deviceFlags struct {
	devices, cgroupRules opts.ListOpts
	gpus                 opts.GpuOpts
}

func (f *deviceFlags) add(fs *pflag.FlagSet) {
	f.devices, f.cgroupRules = opts.NewListOpts(nil), opts.NewListOpts(checkDeviceRule)
	fs.Var(&f.devices, "device", "Add a host device to the container")
	fs.Var(&f.cgroupRules, "device-cgroup-rule", "Add a rule to the cgroup allowed devices list")
	fs.Var(&f.gpus, "gpus", "GPU devices to add to the container ('all' to pass all GPUs)")
}

package engine

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	mobycontainer "github.com/moby/moby/api/types/container"

	"github.com/minictl/minictl/runtime/cgroup"
)

// statsInterval is docker's pace.
const statsInterval = time.Second

// ContainerStats hands out samples: one for oneShot, two taken an interval apart and shown as one when it does not
// stream, else one per interval until ctx ends or send fails. Each carries the processor time of the one before. A
// container that does not run has empty ones.
func (e *Engine) ContainerStats(ctx context.Context, ref string, stream, oneShot bool, send func(mobycontainer.StatsResponse) error) error {
	b, err := e.find(ref)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	return sampled(ctx, stream, oneShot, func() (mobycontainer.StatsResponse, bool) { return e.sample(b) }, send)
}

// sampled is ContainerStats' pace. take gives false once the container is removed.
func sampled(ctx context.Context, stream, oneShot bool, take func() (mobycontainer.StatsResponse, bool), send func(mobycontainer.StatsResponse) error) error {
	s, ok := take()
	if oneShot || !ok || (!stream && s.Read.IsZero()) {
		return send(s)
	}
	if stream {
		if err := send(s); err != nil {
			return err
		}
	}
	tick := time.NewTicker(statsInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		next, ok := take()
		if !ok {
			return nil
		}
		next.PreRead, next.PreCPUStats = s.Read, s.CPUStats
		s = next
		if err := send(s); err != nil || !stream {
			return err
		}
	}
}

// sample is one moment of a container.
func (e *Engine) sample(b *box) (mobycontainer.StatsResponse, bool) {
	b.mu.Lock()
	s := mobycontainer.StatsResponse{ID: b.id, Name: "/" + b.spec.Name, OSType: "linux"}
	task, pid, removed := b.task, b.status.Pid, b.removed
	hostNet := b.spec.HostConfig.NetworkMode.IsHost()
	b.mu.Unlock()
	if removed {
		return s, false
	}
	if task == nil || pid == 0 {
		return s, true
	}
	used, err := task.Stats()
	if err != nil { // it has just ended
		return s, true
	}
	s.Read = time.Now().UTC()
	fillStats(&s, used, memoryTotal())
	s.CPUStats.SystemUsage, s.CPUStats.OnlineCPUs = systemCPU()
	if !hostNet {
		s.Networks = interfaces(pid)
	}
	return s, true
}

// fillStats words a cgroup's counters as docker does. memory is the machine's: no limit is shown as all of it.
func fillStats(s *mobycontainer.StatsResponse, used cgroup.Stats, memory int64) {
	s.CPUStats.CPUUsage = mobycontainer.CPUUsage{
		TotalUsage: used.CPU.Total, PercpuUsage: used.CPU.PerCPU, UsageInKernelmode: used.CPU.Kernel, UsageInUsermode: used.CPU.User,
	}
	s.CPUStats.ThrottlingData = mobycontainer.ThrottlingData{
		Periods: used.CPU.Periods, ThrottledPeriods: used.CPU.Throttled, ThrottledTime: used.CPU.Withheld,
	}
	s.MemoryStats = mobycontainer.MemoryStats{
		Usage: used.Memory.Usage, Failcnt: used.Memory.Failures, Stats: used.Memory.Detail, Limit: min(used.Memory.Limit, uint64(memory)),
	}
	if !used.V2 {
		s.MemoryStats.MaxUsage = used.Memory.Peak
	}
	s.PidsStats = mobycontainer.PidsStats{Current: used.Pids.Current, Limit: used.Pids.Limit}
	s.BlkioStats = mobycontainer.BlkioStats{IoServiceBytesRecursive: blkio(used.IOBytes)}
	if !used.V2 {
		s.BlkioStats.IoServicedRecursive = blkio(used.IOCount)
	}
}

func blkio(in []cgroup.IO) []mobycontainer.BlkioStatEntry {
	var out []mobycontainer.BlkioStatEntry
	for _, io := range in {
		out = append(out, mobycontainer.BlkioStatEntry{Major: io.Major, Minor: io.Minor, Op: strings.ToLower(io.Op), Value: io.Value})
	}
	return out
}

// systemCPU is the machine's processor time so far in nanoseconds, and how many processors it has (proc_stat(5)).
func systemCPU() (nanoseconds uint64, cpus uint32) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	return parseProcStat(string(b))
}

// parseProcStat adds the first line's times from user to steal; guest time is in user already. A tick is 1/100 s.
func parseProcStat(text string) (nanoseconds uint64, cpus uint32) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || !strings.HasPrefix(f[0], "cpu") {
			continue
		}
		if f[0] != "cpu" {
			cpus++
			continue
		}
		for _, v := range f[1:min(len(f), 9)] {
			n, _ := strconv.ParseUint(v, 10, 64) // the kernel's own number
			nanoseconds += n * (1e9 / 100)
		}
	}
	return nanoseconds, cpus
}

// interfaces counts the traffic of a process's network namespace, the loopback's left out.
func interfaces(pid int) map[string]mobycontainer.NetworkStats {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		return nil
	}
	return parseNetDev(string(b))
}

// parseNetDev reads lines "eth0: bytes packets errs drop fifo frame compressed multicast bytes packets errs drop …".
func parseNetDev(text string) map[string]mobycontainer.NetworkStats {
	out := map[string]mobycontainer.NetworkStats{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if name = strings.TrimSpace(name); !ok || len(f) < 12 || name == "lo" {
			continue
		}
		n := make([]uint64, 12)
		for i := range n {
			n[i], _ = strconv.ParseUint(f[i], 10, 64) // the kernel's own numbers
		}
		out[name] = mobycontainer.NetworkStats{
			RxBytes: n[0], RxPackets: n[1], RxErrors: n[2], RxDropped: n[3], TxBytes: n[8], TxPackets: n[9], TxErrors: n[10], TxDropped: n[11],
		}
	}
	return out
}

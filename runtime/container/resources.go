package container

import (
	"fmt"
	"math"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/moby/moby/api/types/container"
)

// minMemory is docker's least memory limit in bytes: what runc itself needs to start a process.
const minMemory = 6 << 20

// refused words a refusal as docker does, capitals included: clients match on the text.
func refused(format string, a ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, a...), errdefs.ErrInvalidArgument)
}

// ValidateResources refuses limits that contradict themselves, in docker's words. What depends on the machine, such as
// the number of its CPUs, is the engine's to check.
func ValidateResources(r *container.Resources) error {
	for _, c := range []struct {
		bad  bool
		text string
	}{
		{r.Memory != 0 && r.Memory < minMemory, "Minimum memory limit allowed is 6MB"},
		{r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory, "Minimum memoryswap limit should be larger than memory limit, see usage"},
		{r.Memory == 0 && r.MemorySwap > 0, "You should always set the Memory limit when using Memoryswap limit, see usage"},
		{r.MemoryReservation != 0 && r.MemoryReservation < minMemory, "Minimum memory reservation allowed is 6MB"},
		{r.Memory > 0 && r.MemoryReservation > r.Memory, "Minimum memory limit can not be less than memory reservation limit, see usage"},
		{r.NanoCPUs > 0 && r.CPUPeriod > 0, "Conflicting options: Nano CPUs and CPU Period cannot both be set"},
		{r.NanoCPUs > 0 && r.CPUQuota > 0, "Conflicting options: Nano CPUs and CPU Quota cannot both be set"},
		{r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000), "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"},
		{r.CPUQuota > 0 && r.CPUQuota < 1000, "CPU cfs quota can not be less than 1ms (i.e. 1000)"},
	} {
		if c.bad {
			return refused("%s", c.text)
		}
	}
	if slices.Contains(r.Ulimits, nil) {
		return refused("invalid ulimit: null")
	}
	if s := r.MemorySwappiness; s != nil && (*s < -1 || *s > 100) {
		return refused("Invalid value: %d, valid memory swappiness range is 0-100", *s)
	}
	return validateUlimits(r.Ulimits)
}

// FillResources sets what docker derives from other limits: as much swap as memory.
func FillResources(r *container.Resources) {
	if r.Memory > 0 && r.MemorySwap == 0 {
		r.MemorySwap = r.Memory + min(r.Memory, math.MaxInt64-r.Memory)
	}
}

// UpdateResources gives the limits that hold after an update, which names only what shall change; zero means: as before.
func UpdateResources(now, change container.Resources) (container.Resources, error) {
	if err := conflictingUpdate(now, change); err != nil {
		return now, err
	}
	set := func(to *int64, from int64) {
		if from != 0 {
			*to = from
		}
	}
	set(&now.Memory, change.Memory)
	set(&now.MemorySwap, change.MemorySwap)
	set(&now.MemoryReservation, change.MemoryReservation)
	set(&now.CPUShares, change.CPUShares)
	set(&now.CPUPeriod, change.CPUPeriod)
	set(&now.CPUQuota, change.CPUQuota)
	set(&now.NanoCPUs, change.NanoCPUs)
	if change.CpusetCpus != "" {
		now.CpusetCpus = change.CpusetCpus
	}
	if change.CpusetMems != "" {
		now.CpusetMems = change.CpusetMems
	}
	if change.BlkioWeight != 0 {
		now.BlkioWeight = change.BlkioWeight
	}
	if change.PidsLimit != nil {
		now.PidsLimit = change.PidsLimit
	}
	FillResources(&now)
	return now, ValidateResources(&now)
}

// conflictingUpdate refuses the changes that only make sense together with another, as docker does.
func conflictingUpdate(now, change container.Resources) error {
	for _, c := range []struct {
		bad  bool
		text string
	}{
		{change.NanoCPUs > 0 && now.CPUPeriod > 0, "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set"},
		{change.NanoCPUs > 0 && now.CPUQuota > 0, "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set"},
		{change.CPUPeriod > 0 && now.NanoCPUs > 0, "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set"},
		{change.CPUQuota > 0 && now.NanoCPUs > 0, "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"},
		{change.MemorySwap == 0 && now.MemorySwap > 0 && change.Memory > now.MemorySwap,
			"Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"},
	} {
		if c.bad {
			return refused("%s", c.text)
		}
	}
	return nil
}

// validateModes refuses namespaces' modes that mean nothing.
func validateModes(h *container.HostConfig) error {
	switch {
	case !h.IpcMode.Valid():
		return fmt.Errorf("invalid IPC mode: %s: %w", h.IpcMode, errdefs.ErrInvalidArgument)
	case !h.PidMode.Valid():
		return fmt.Errorf("invalid PID mode: %s: %w", h.PidMode, errdefs.ErrInvalidArgument)
	case !h.UTSMode.Valid():
		return fmt.Errorf("invalid UTS mode: %s: %w", h.UTSMode, errdefs.ErrInvalidArgument)
	case !h.CgroupnsMode.Valid():
		return fmt.Errorf("invalid cgroup namespace mode: %s: %w", h.CgroupnsMode, errdefs.ErrInvalidArgument)
	case h.Umask != nil && *h.Umask > 0o777:
		return refused("invalid umask %#o: want at most 0777", *h.Umask)
	case h.ShmSize < 0:
		return refused("SHM size can not be less than 0")
	case h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000:
		return refused("Invalid value %d, range for oom score adj is [-1000, 1000]", h.OomScoreAdj)
	}
	return nil
}

// ValidateShared refuses what a container cannot have of its own since its namespace is another's, in docker's words. It
// judges the user's wishes alone: the image's are not yet merged in.
func ValidateShared(c *container.Config, h *container.HostConfig) error {
	if h.UTSMode.IsHost() && c.Hostname != "" {
		return refused("conflicting options: hostname and the UTS mode")
	}
	if !h.NetworkMode.IsContainer() {
		return nil
	}
	for _, x := range []struct {
		given bool
		what  string
	}{
		{c.Hostname != "", "hostname and the network mode"},
		{len(h.Links) > 0, "container type network can't be used with links. This would result in undefined behavior"},
		{len(h.DNS) > 0, "dns and the network mode"},
		{len(h.ExtraHosts) > 0, "custom host-to-IP mapping and the network mode"},
		{len(h.PortBindings) > 0 || h.PublishAllPorts, "port publishing and the container type network mode"},
		{len(c.ExposedPorts) > 0, "port exposing and the container type network mode"},
	} {
		if x.given {
			return refused("conflicting options: %s", x.what)
		}
	}
	return nil
}

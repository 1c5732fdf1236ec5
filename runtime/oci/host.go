package oci

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/blkiodev"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/minictl/minictl/runtime/container"
)

// Flags that depend on the machine's kernel, as Host.Missing names them.
const (
	FlagBlkioWeight       = "--blkio-weight"
	FlagBlkioWeightDevice = "--blkio-weight-device"
	FlagDeviceReadBps     = "--device-read-bps"
	FlagDeviceWriteBps    = "--device-write-bps"
	FlagDeviceReadIOps    = "--device-read-iops"
	FlagDeviceWriteIOps   = "--device-write-iops"
	FlagSwappiness        = "--memory-swappiness"
	FlagOomKillDisable    = "--oom-kill-disable"
	FlagMemorySwap        = "--memory-swap"
)

// ValidateHost refuses by name what this machine's kernel has no means for.
func ValidateHost(h *mobycontainer.HostConfig, host Host) error {
	sec, err := container.NewSecurity(h.SecurityOpt)
	if err != nil {
		return err
	}
	var out []string
	for _, w := range []struct {
		asked bool
		flag  string
	}{
		{h.BlkioWeight != 0, FlagBlkioWeight},
		{len(h.BlkioWeightDevice) > 0, FlagBlkioWeightDevice},
		{len(h.BlkioDeviceReadBps) > 0, FlagDeviceReadBps},
		{len(h.BlkioDeviceWriteBps) > 0, FlagDeviceWriteBps},
		{len(h.BlkioDeviceReadIOps) > 0, FlagDeviceReadIOps},
		{len(h.BlkioDeviceWriteIOps) > 0, FlagDeviceWriteIOps},
		{h.MemorySwappiness != nil && *h.MemorySwappiness >= 0, FlagSwappiness},
		{h.OomKillDisable != nil && *h.OomKillDisable, FlagOomKillDisable},
		{h.MemorySwap > 0, FlagMemorySwap},
	} {
		if w.asked && slices.Contains(host.Missing, w.flag) {
			out = append(out, w.flag)
		}
	}
	if host.AppArmor == "" && sec.AppArmor != "" && sec.AppArmor != container.Unconfined {
		out = append(out, "--security-opt apparmor="+sec.AppArmor)
	}
	if len(out) > 0 {
		return fmt.Errorf("this machine does not support %s; leave it out: %w", strings.Join(out, ", "), errdefs.ErrNotImplemented)
	}
	if err := ValidateSeccomp(sec); err != nil {
		return err
	}
	return validateBlockIO(&h.Resources)
}

const weightRange = "Range of blkio weight is from 10 to 1000"

// shmSize is docker's default size of /dev/shm in bytes.
const shmSize = 64 << 20

// Fill puts in what the wish leaves open, so that inspect shows it, as docker's does.
func Fill(h *mobycontainer.HostConfig, host Host) {
	if h.ShmSize == 0 {
		h.ShmSize = shmSize
	}
	if h.IpcMode == "" {
		h.IpcMode = mobycontainer.IPCModePrivate
	}
	if h.CgroupnsMode == "" {
		// docker's default: a cgroup namespace of its own on v2, the host's on v1
		h.CgroupnsMode = mobycontainer.CgroupnsModeHost
		if host.CgroupV2 {
			h.CgroupnsMode = mobycontainer.CgroupnsModePrivate
		}
	}
	if h.Runtime == "" {
		h.Runtime = "runc"
	}
	if s := h.MemorySwappiness; s != nil && *s < 0 {
		h.MemorySwappiness = nil
	}
	if p := h.PidsLimit; p != nil && *p == 0 {
		h.PidsLimit = nil
	}
	if h.Privileged {
		return
	}
	if h.MaskedPaths == nil {
		h.MaskedPaths = maskedPaths()
	}
	if h.ReadonlyPaths == nil {
		h.ReadonlyPaths = readonlyPaths()
	}
}

// Warnings are docker's about wishes that do not do what one may think.
func Warnings(h *mobycontainer.HostConfig) []string {
	out := []string{}
	if h.OomKillDisable != nil && *h.OomKillDisable && h.Memory == 0 {
		out = append(out, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
	}
	if h.NetworkMode.IsHost() && (len(h.PortBindings) > 0 || h.PublishAllPorts) {
		out = append(out, "Published ports are discarded when using host network mode")
	}
	return out
}

// validateBlockIO knows docker's bounds, in docker's words.
func validateBlockIO(r *mobycontainer.Resources) error {
	bad := func(w uint16) bool { return w < 10 || w > 1000 }
	if r.BlkioWeight != 0 && bad(r.BlkioWeight) {
		return fmt.Errorf("%s: %w", weightRange, errdefs.ErrInvalidArgument)
	}
	for _, list := range throttles(r) {
		if slices.Contains(list, nil) {
			return fmt.Errorf("invalid limit on a block device: null: %w", errdefs.ErrInvalidArgument)
		}
	}
	for _, d := range r.BlkioWeightDevice {
		if d == nil {
			return fmt.Errorf("invalid weight of a block device: null: %w", errdefs.ErrInvalidArgument)
		}
		if bad(d.Weight) {
			return fmt.Errorf("%s, %s has %d: %w", weightRange, d.Path, d.Weight, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// BlockDevices are the paths of the devices that have limits of their own.
func BlockDevices(r *mobycontainer.Resources) []string {
	paths := map[string]bool{}
	for _, d := range r.BlkioWeightDevice {
		paths[d.Path] = true
	}
	for _, list := range throttles(r) {
		for _, d := range list {
			paths[d.Path] = true
		}
	}
	return slices.Sorted(maps.Keys(paths))
}

// throttles are the four lists, in the order of specs.LinuxBlockIO.
func throttles(r *mobycontainer.Resources) [4][]*blkiodev.ThrottleDevice {
	return [4][]*blkiodev.ThrottleDevice{r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps, r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps}
}

// blockIO are the limits on block devices; nil without any.
func blockIO(h *mobycontainer.HostConfig, numbers map[string]specs.LinuxBlockIODevice) *specs.LinuxBlockIO {
	b := &specs.LinuxBlockIO{}
	given := h.BlkioWeight > 0 || len(h.BlkioWeightDevice) > 0
	if h.BlkioWeight > 0 {
		b.Weight = &h.BlkioWeight
	}
	for _, d := range h.BlkioWeightDevice {
		b.WeightDevice = append(b.WeightDevice, specs.LinuxWeightDevice{LinuxBlockIODevice: numbers[d.Path], Weight: &d.Weight})
	}
	to := []*[]specs.LinuxThrottleDevice{&b.ThrottleReadBpsDevice, &b.ThrottleWriteBpsDevice, &b.ThrottleReadIOPSDevice, &b.ThrottleWriteIOPSDevice}
	for i, list := range throttles(&h.Resources) {
		for _, d := range list {
			*to[i] = append(*to[i], specs.LinuxThrottleDevice{LinuxBlockIODevice: numbers[d.Path], Rate: d.Rate})
			given = true
		}
	}
	if !given {
		return nil
	}
	return b
}

// cgroupPath is below --cgroup-parent's path where there is one.
func cgroupPath(w *Wish) string {
	parent := w.Host.CgroupParent
	if p := w.Spec.HostConfig.CgroupParent; p != "" {
		parent = path.Clean("/" + p)
	}
	return path.Join(parent, w.Spec.ID)
}

// sysctls are docker's: in a network namespace of its own any user may open any port and send pings. The NIS domain name
// has a setting and no field. What the user asks for wins.
func sysctls(c *mobycontainer.Config, h *mobycontainer.HostConfig, ownNet bool) map[string]string {
	out := map[string]string{}
	if ownNet {
		out["net.ipv4.ip_unprivileged_port_start"] = "0"
		out["net.ipv4.ping_group_range"] = "0 2147483647"
	}
	if c.Domainname != "" && !h.UTSMode.IsHost() {
		out["kernel.domainname"] = c.Domainname
	}
	maps.Copy(out, h.Sysctls)
	return out
}

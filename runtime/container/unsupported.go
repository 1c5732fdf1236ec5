package container

import (
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// Unsupported names the wishes that minictl cannot honour, as the flags users know, or as the API's fields where there is
// no flag. A wish is refused rather than ignored: a limit that silently does not hold is worse than none.
func Unsupported(c *container.Config, h *container.HostConfig) []string {
	var out names
	out.add(h.VolumeDriver != "" && h.VolumeDriver != "local", "--volume-driver "+h.VolumeDriver)
	out.add(h.Cgroup != "", "--cgroup "+string(h.Cgroup))
	// On user-defined networks docker's clients say it twice, and there the endpoint's is the one that counts.
	out.add(len(h.Links) > 0 && (h.NetworkMode == "" || !h.NetworkMode.IsUserDefined()), "--link on the default bridge")
	out.add(len(h.StorageOpt) > 0, "--storage-opt")
	out.add(h.Runtime != "" && h.Runtime != "runc" && h.Runtime != "io.containerd.runc.v2", "--runtime "+h.Runtime)
	out.add(h.Isolation != "" && !h.Isolation.IsDefault(), "--isolation "+string(h.Isolation))
	out.add(h.UsernsMode != "" && !h.UsernsMode.IsHost(), "--userns "+string(h.UsernsMode))
	out.add(c.ArgsEscaped, "ArgsEscaped, which is for Windows")
	out.resources(&h.Resources)
	out.log(&h.LogConfig)
	for _, o := range h.SecurityOpt {
		kind, value, _ := cutSecurityOpt(o)
		out.add(kind == "label" && value != "disable", "--security-opt "+o)
	}
	for _, m := range h.Mounts {
		out.mount(&m)
	}
	return out
}

type names []string

func (n *names) add(cond bool, name string) {
	if cond {
		*n = append(*n, name)
	}
}

func (n *names) resources(r *container.Resources) {
	for _, d := range r.DeviceRequests {
		n.add(d.Driver == "cdi", "--device "+strings.Join(d.DeviceIDs, ","))
		n.add(d.Driver != "cdi", "--gpus")
	}
	n.add(r.CPURealtimePeriod != 0, "--cpu-rt-period")
	n.add(r.CPURealtimeRuntime != 0, "--cpu-rt-runtime")
	n.add(r.CPUCount != 0, "--cpu-count")
	n.add(r.CPUPercent != 0, "--cpu-percent")
	n.add(r.IOMaximumIOps != 0, "--io-maxiops")
	n.add(r.IOMaximumBandwidth != 0, "--io-maxbandwidth")
}

// FixedResources names what an update asks to change and cannot: docker's own update leaves these alone.
func FixedResources(r *container.Resources) []string {
	var out names
	out.resources(r)
	out.add(r.CgroupParent != "", "--cgroup-parent")
	out.add(len(r.BlkioWeightDevice) > 0, "--blkio-weight-device")
	out.add(len(r.BlkioDeviceReadBps)+len(r.BlkioDeviceWriteBps)+len(r.BlkioDeviceReadIOps)+len(r.BlkioDeviceWriteIOps) > 0, "--device-read-bps and its kin")
	out.add(len(r.Devices) > 0, "--device")
	out.add(len(r.DeviceCgroupRules) > 0, "--device-cgroup-rule")
	out.add(r.MemorySwappiness != nil && *r.MemorySwappiness >= 0, "--memory-swappiness")
	out.add(r.OomKillDisable != nil && *r.OomKillDisable, "--oom-kill-disable")
	out.add(len(r.Ulimits) > 0, "--ulimit")
	return out
}

func (n *names) mount(m *mount.Mount) {
	n.add(m.Type != mount.TypeBind && m.Type != mount.TypeTmpfs && m.Type != mount.TypeVolume, "--mount type="+string(m.Type))
	if o := m.VolumeOptions; o != nil {
		n.add(o.Subpath != "", "--mount volume-subpath")
		n.add(o.DriverConfig != nil && o.DriverConfig.Name != "" && o.DriverConfig.Name != "local", "--mount volume-driver")
	}
}

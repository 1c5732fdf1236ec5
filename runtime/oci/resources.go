package oci

import (
	"fmt"
	"slices"
	"strings"

	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// cpuPeriod is the kernel's default CFS period in microseconds (sched-bwc.rst); --cpus is a quota of it.
const cpuPeriod = 100000

func resources(h *mobycontainer.HostConfig, host Host) *specs.LinuxResources {
	r := &specs.LinuxResources{Devices: devices(h)}
	if h.Memory > 0 || h.MemoryReservation > 0 || h.MemorySwap != 0 || h.MemorySwappiness != nil || h.OomKillDisable != nil {
		m := &specs.LinuxMemory{DisableOOMKiller: h.OomKillDisable}
		if h.Memory > 0 {
			m.Limit = &h.Memory
			swap := h.MemorySwap
			if swap == 0 { // docker's default: as much swap as memory
				swap = 2 * h.Memory
			}
			if !slices.Contains(host.Missing, FlagMemorySwap) { // runc would fail for want of the file
				m.Swap = &swap
			}
		}
		if h.MemoryReservation > 0 {
			m.Reservation = &h.MemoryReservation
		}
		if h.MemorySwappiness != nil && *h.MemorySwappiness >= 0 {
			s := uint64(*h.MemorySwappiness)
			m.Swappiness = &s
		}
		r.Memory = m
	}
	r.CPU = cpu(h)
	if h.PidsLimit != nil && *h.PidsLimit > 0 {
		r.Pids = &specs.LinuxPids{Limit: h.PidsLimit}
	}
	return r
}

// UpdatedResources are the limits of a running container alone: its devices stay as they are.
func UpdatedResources(h *mobycontainer.HostConfig, host Host) *specs.LinuxResources {
	r := resources(h, host)
	r.Devices = nil
	r.BlockIO = blockIO(&mobycontainer.HostConfig{Resources: mobycontainer.Resources{BlkioWeight: h.BlkioWeight}}, nil)
	if h.PidsLimit != nil && *h.PidsLimit <= 0 { // an absent limit would leave the old one in force
		unlimited := int64(-1)
		r.Pids = &specs.LinuxPids{Limit: &unlimited}
	}
	return r
}

func cpu(h *mobycontainer.HostConfig) *specs.LinuxCPU {
	c := &specs.LinuxCPU{Cpus: h.CpusetCpus, Mems: h.CpusetMems}
	if h.CPUShares > 0 {
		s := uint64(h.CPUShares)
		c.Shares = &s
	}
	if h.NanoCPUs > 0 {
		period, quota := uint64(cpuPeriod), h.NanoCPUs*cpuPeriod/1e9
		c.Period, c.Quota = &period, &quota
	}
	if h.CPUPeriod > 0 {
		p := uint64(h.CPUPeriod)
		c.Period = &p
	}
	if h.CPUQuota != 0 {
		c.Quota = &h.CPUQuota
	}
	return c
}

// devices is the device cgroup's list: all closed, then what every container may use (devices.rst; docker's list).
func devices(h *mobycontainer.HostConfig) []specs.LinuxDeviceCgroup {
	if h.Privileged {
		return []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	}
	d := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	allow := func(kind string, major, minor int64, access string) {
		dc := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access, Major: &major, Minor: &minor}
		if minor < 0 {
			dc.Minor = nil
		}
		if major < 0 {
			dc.Major = nil
		}
		d = append(d, dc)
	}
	allow("c", -1, -1, "m")
	allow("b", -1, -1, "m")
	for _, n := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 1}, {5, 2}} { // null zero full random urandom tty console ptmx
		allow("c", n[0], n[1], "rwm")
	}
	allow("c", 136, -1, "rwm") // pts
	return d
}

// rlimits are the user's, clamped to the daemon's own hard limits: without CAP_SYS_RESOURCE the kernel refuses to raise
// them (setrlimit(2)), and the container would not start at all.
func rlimits(h *mobycontainer.HostConfig, own map[string]specs.POSIXRlimit) (out []specs.POSIXRlimit, warnings []string) {
	for _, u := range h.Ulimits {
		name := "RLIMIT_" + strings.ToUpper(u.Name)
		r := specs.POSIXRlimit{Type: name, Hard: uint64(u.Hard), Soft: uint64(u.Soft)}
		if o, ok := own[name]; ok && r.Hard > o.Hard {
			warnings = append(warnings, fmt.Sprintf("ulimit %s=%d:%d is above this machine's %d: clamped to it", u.Name, u.Soft, u.Hard, o.Hard))
			r.Hard, r.Soft = o.Hard, min(r.Soft, o.Hard)
		}
		out = append(out, r)
	}
	return out, warnings
}

// bound keeps the capabilities that the machine has. Only a privileged container asks for everything there is, so only
// for a named one is its absence worth a word.
func bound(caps, have []string, privileged bool) (out, warnings []string) {
	if have == nil {
		return caps, nil
	}
	for _, c := range caps {
		switch {
		case slices.Contains(have, c):
			out = append(out, c)
		case !privileged:
			warnings = append(warnings, fmt.Sprintf("capability %s is not available on this machine: left out", c))
		}
	}
	return out, warnings
}

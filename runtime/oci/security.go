package oci

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/minictl/minictl/runtime/container"
)

// defaultCapabilities is docker's set.
func defaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// allCapabilities are those of capabilities(7).
func allCapabilities() []string {
	return append(defaultCapabilities(),
		"CAP_DAC_READ_SEARCH", "CAP_LINUX_IMMUTABLE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
		"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
		"CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_LEASE", "CAP_AUDIT_CONTROL", "CAP_MAC_OVERRIDE",
		"CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
		"CAP_CHECKPOINT_RESTORE")
}

// capabilities are docker's default set with what was added and dropped; names with or without CAP_, in any case.
func capabilities(h *mobycontainer.HostConfig) ([]string, error) {
	if h.Privileged {
		return allCapabilities(), nil
	}
	add, err := capabilityNames(h.CapAdd)
	if err != nil {
		return nil, err
	}
	drop, err := capabilityNames(h.CapDrop)
	if err != nil {
		return nil, err
	}
	caps := defaultCapabilities()
	if slices.Contains(add, "ALL") {
		caps = allCapabilities()
	}
	if slices.Contains(drop, "ALL") {
		caps = nil
	}
	for _, c := range add {
		if c != "ALL" && !slices.Contains(caps, c) {
			caps = append(caps, c)
		}
	}
	return slices.DeleteFunc(caps, func(c string) bool { return slices.Contains(drop, c) }), nil
}

func capabilityNames(names []string) ([]string, error) {
	out := make([]string, 0, len(names))
	for _, n := range names {
		c := strings.ToUpper(n)
		if c != "ALL" && !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		if c != "ALL" && !slices.Contains(allCapabilities(), c) {
			return nil, fmt.Errorf("invalid capability: %q: %w", n, errdefs.ErrInvalidArgument)
		}
		out = append(out, c)
	}
	return out, nil
}

// security closes what docker closes: kernel files, and system calls by its default seccomp profile. A privileged
// container has a profile only if one was given.
func security(s *specs.Spec, h *mobycontainer.HostConfig, sec container.Security, host Host) error {
	var err error
	if h.Privileged {
		if sec.Seccomp != "" && sec.Seccomp != container.Unconfined {
			s.Linux.Seccomp, err = loadProfile(sec.Seccomp, s)
		}
		return err
	}
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = maskedPaths(), readonlyPaths()
	if h.MaskedPaths != nil {
		s.Linux.MaskedPaths = h.MaskedPaths
	}
	if h.ReadonlyPaths != nil {
		s.Linux.ReadonlyPaths = h.ReadonlyPaths
	}
	switch sec.Seccomp {
	case container.Unconfined:
	case "":
		s.Linux.Seccomp, err = defaultProfile(s, host)
	default:
		s.Linux.Seccomp, err = loadProfile(sec.Seccomp, s)
	}
	if err != nil {
		return fmt.Errorf("make seccomp profile: %w", err)
	}
	return nil
}

// defaultProfile is docker's. Each architecture in it makes the filter longer, which runc compiles anew for every process: the
// one for x32 is a third of that. Where the kernel runs no programs of it, a call in its way ends the process.
func defaultProfile(s *specs.Spec, host Host) (*specs.LinuxSeccomp, error) {
	p, err := seccomp.GetDefaultProfile(s)
	if err != nil {
		return nil, err
	}
	p.Architectures = slices.DeleteFunc(p.Architectures, func(a specs.Arch) bool { return slices.Contains(host.NotRun, a) })
	return p, nil
}

// maskedPaths and readonlyPaths are docker's.
func maskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
		"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
}

func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

func loadProfile(text string, s *specs.Spec) (*specs.LinuxSeccomp, error) {
	p, err := seccomp.LoadProfile(text, s)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return p, nil
}

// ValidateSeccomp refuses a profile that cannot be read.
func ValidateSeccomp(sec container.Security) error {
	if sec.Seccomp == "" || sec.Seccomp == container.Unconfined {
		return nil
	}
	_, err := loadProfile(sec.Seccomp, &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	return err
}

// AppArmor is the profile that a container's processes run under; empty where the kernel has none.
func AppArmor(h *mobycontainer.HostConfig, sec container.Security, host Host) string {
	switch {
	case host.AppArmor == "":
		return ""
	case sec.AppArmor != "":
		return sec.AppArmor
	case h.Privileged:
		return container.Unconfined
	}
	return host.AppArmor
}

// CapabilityNames gives the names of the bits in a capability set, by the numbers of linux/capability.h.
func CapabilityNames(bits uint64) []string {
	byNumber := []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
		"CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN",
		"CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE",
		"CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
		"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
	}
	var out []string
	for i, name := range byNumber {
		if bits&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return out
}

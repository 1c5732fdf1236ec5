// Package oci turns a container's Spec into the OCI runtime specification that runc executes. It is pure: whatever comes
// from the machine is handed in.
package oci

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/minictl/minictl/runtime/container"
)

// version is the runtime-spec version stated in every bundle. runc 1.1 and crun 1.8 both refuse newer ones.
const version = "1.0.2"

// Host is what the specification depends on besides the container.
type Host struct {
	Rlimits      map[string]specs.POSIXRlimit // the daemon's own: no container may exceed the hard limits without CAP_SYS_RESOURCE
	Capabilities []string                     // the daemon's bounding set: runc refuses to give what the machine lacks
	CgroupParent string                       // path below each controller's root
	CgroupV2     bool
	// Missing are the wishes that this machine's kernel has no means for, as the flags users know.
	Missing []string
	// NotRun are architectures whose programs the kernel refuses.
	NotRun []specs.Arch
	// AppArmor is the profile that containers get by default; empty: the kernel has no AppArmor.
	AppArmor string
	// RecursiveReadOnly: the kernel can make what is mounted below a mount read-only too (mount_setattr(2), Linux 5.12).
	RecursiveReadOnly bool
}

// Wish is one container's process as it should be.
type Wish struct {
	Spec   *container.Spec
	User   specs.User
	Home   string        // of that user; empty: no HOME is set
	Netns  string        // network namespace file; empty: the host's
	Mounts []specs.Mount // binds, in the order given
	// Devices are the host's that it is given, on top of those every container has.
	Devices []Device
	// BlockDevices are the numbers of those that have limits, by path.
	BlockDevices map[string]specs.LinuxBlockIODevice
	PIDNS        string // another container's pid namespace file; empty: as the modes say
	IPCNS        string // likewise
	ShmDir       string // host folder that is its /dev/shm; empty: a tmpfs of its own
	Init         string // host path of the init that runs the command; empty: the command is pid 1 itself
	Host         Host
}

// Build makes the specification. Warnings tell what had to be clamped to what this machine can give.
func Build(w Wish) (s *specs.Spec, warnings []string, err error) {
	c, h := w.Spec.Config, w.Spec.HostConfig
	args := w.Spec.Args()
	if len(args) == 0 {
		return nil, nil, fmt.Errorf("no command specified: neither the image nor the command line gives one: %w", errdefs.ErrInvalidArgument)
	}
	caps, err := capabilities(h)
	if err != nil {
		return nil, nil, err
	}
	caps, warnings = bound(caps, w.Host.Capabilities, h.Privileged)
	rlimits, warn := rlimits(h, w.Host.Rlimits)
	warnings = append(warnings, warn...)
	cwd := c.WorkingDir
	if cwd == "" {
		cwd = "/"
	}
	if w.Init != "" {
		args = append([]string{initPath, "--"}, args...)
	}
	sec, err := container.NewSecurity(h.SecurityOpt)
	if err != nil {
		return nil, nil, err
	}
	limits := resources(h, w.Host)
	limits.BlockIO = blockIO(h, w.BlockDevices)
	if limits.Devices, err = deviceRules(limits.Devices, h, w.Devices); err != nil {
		return nil, nil, err
	}
	s = &specs.Spec{
		Version:  version,
		Hostname: w.Spec.Hostname(),
		Root:     &specs.Root{Path: "rootfs", Readonly: h.ReadonlyRootfs},
		Process: &specs.Process{
			Terminal: c.Tty,
			User:     w.User,
			Args:     args,
			Env:      Env(c, w.Home, c.Env),
			Cwd:      cwd,
			Capabilities: &specs.LinuxCapabilities{
				Bounding: caps, Effective: caps, Permitted: caps,
			},
			Rlimits:         rlimits,
			NoNewPrivileges: sec.NoNewPrivileges,
			ApparmorProfile: AppArmor(h, sec, w.Host),
		},
		Annotations: h.Annotations,
		Linux: &specs.Linux{
			CgroupsPath: cgroupPath(&w),
			Namespaces:  namespaces(h, &w),
			Resources:   limits,
			Devices:     nodes(w.Devices),
			Sysctl:      sysctls(c, h, w.Netns != ""),
		},
	}
	if h.ConsoleSize[0] > 0 && h.ConsoleSize[1] > 0 {
		s.Process.ConsoleSize = &specs.Box{Height: h.ConsoleSize[0], Width: h.ConsoleSize[1]}
	}
	if h.OomScoreAdj != 0 {
		s.Process.OOMScoreAdj = &h.OomScoreAdj
	}
	if h.UTSMode.IsHost() {
		s.Hostname = ""
	}
	s.Process.User.Umask = h.Umask
	s.Mounts = append(defaultMounts(h, sec, w.ShmDir), w.Mounts...)
	s.Linux.RootfsPropagation = rootPropagation(w.Mounts)
	if w.Init != "" {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: initPath, Type: "bind", Source: w.Init, Options: []string{"bind", "ro"}})
	}
	if err := security(s, h, sec, w.Host); err != nil {
		return nil, nil, err
	}
	return s, warnings, nil
}

// Env is the process's environment: docker's PATH, HOSTNAME, TERM with a terminal, HOME, then what was asked for, which wins.
func Env(c *mobycontainer.Config, home string, asked []string) []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=" + c.Hostname}
	if c.Tty {
		env = append(env, "TERM=xterm")
	}
	env = SetEnv(env, asked)
	if home != "" && !slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "HOME=") }) {
		env = append(env, "HOME="+home)
	}
	return env
}

// SetEnv lets each variable of asked replace or join env. A bare name takes a variable out: docker's rule.
func SetEnv(env, asked []string) []string {
	for _, kv := range asked {
		k, _, set := strings.Cut(kv, "=")
		if !set {
			env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, k+"=") })
			continue
		}
		i := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, k+"=") })
		if i >= 0 {
			env[i] = kv
		} else {
			env = append(env, kv)
		}
	}
	return env
}

func namespaces(h *mobycontainer.HostConfig, w *Wish) []specs.LinuxNamespace {
	ns := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	if !h.PidMode.IsHost() {
		ns = append(ns, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: w.PIDNS})
	}
	if !h.IpcMode.IsHost() {
		ns = append(ns, specs.LinuxNamespace{Type: specs.IPCNamespace, Path: w.IPCNS})
	}
	if !h.UTSMode.IsHost() {
		ns = append(ns, specs.LinuxNamespace{Type: specs.UTSNamespace})
	}
	if w.Netns != "" {
		ns = append(ns, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: w.Netns})
	}
	// docker's default: a cgroup namespace of its own on v2, the host's on v1.
	if h.CgroupnsMode.IsPrivate() || w.Host.CgroupV2 && !h.CgroupnsMode.IsHost() {
		ns = append(ns, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return ns
}

// initPath is where docker's containers have their init, and tools look for it.
const initPath = "/sbin/docker-init"

func defaultMounts(h *mobycontainer.HostConfig, sec container.Security, shmDir string) []specs.Mount {
	ro := "ro"
	if h.Privileged {
		ro = "rw"
	}
	cgroups := ro
	if sec.WritableCgroups {
		cgroups = "rw"
	}
	shm := "size=" + strconv.FormatInt(cmp.Or(h.ShmSize, shmSize), 10)
	m := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", ro}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{cgroups, "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
	}
	if h.IpcMode.IsHost() {
		shmDir = "/dev/shm"
	}
	switch {
	case h.IpcMode.IsNone():
	case shmDir != "":
		m = append(m, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: shmDir, Options: []string{"rbind", "rprivate"}})
	default:
		m = append(m, specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", shm}})
	}
	return m
}

// ExecWish is one more process in a running container.
type ExecWish struct {
	Args, Env []string
	Cwd       string
	TTY       bool
	User      specs.User
	Home      string
	Host      Host
	// Privileged gives the process all capabilities, whatever its container has.
	Privileged bool
}

// Exec is that process with what it inherits from its container: environment, folder, capabilities, limits.
func Exec(s *container.Spec, w ExecWish) (*specs.Process, error) {
	caps, err := capabilities(s.HostConfig)
	if err != nil {
		return nil, err
	}
	if w.Privileged {
		caps = allCapabilities()
	}
	caps, _ = bound(caps, w.Host.Capabilities, s.HostConfig.Privileged)
	sec, err := container.NewSecurity(s.HostConfig.SecurityOpt)
	if err != nil {
		return nil, err
	}
	limits, _ := rlimits(s.HostConfig, w.Host.Rlimits)
	cwd := w.Cwd
	if cwd == "" {
		cwd = s.Config.WorkingDir
	}
	if cwd == "" {
		cwd = "/"
	}
	c := *s.Config
	c.Tty = w.TTY
	user := w.User
	user.Umask = s.HostConfig.Umask
	return &specs.Process{
		Terminal: w.TTY, User: user, Args: w.Args, Cwd: cwd, Rlimits: limits,
		Env:             Env(&c, w.Home, SetEnv(slices.Clone(c.Env), w.Env)),
		Capabilities:    &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		NoNewPrivileges: sec.NoNewPrivileges,
		ApparmorProfile: AppArmor(s.HostConfig, sec, w.Host),
	}, nil
}

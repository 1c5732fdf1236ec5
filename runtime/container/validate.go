package container

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/moby/moby/api/types/container"
)

// Unsupported names the wishes that minictl cannot honour yet, as the flags users know. A wish is refused rather than
// ignored: a limit that silently does not hold is worse than none.
func Unsupported(c *container.Config, h *container.HostConfig) []string {
	var out []string
	add := func(cond bool, flag string) {
		if cond {
			out = append(out, flag)
		}
	}
	add(h.LogConfig.Type != "" && h.LogConfig.Type != "json-file" && h.LogConfig.Type != "none", "--log-driver "+h.LogConfig.Type)
	add(len(h.LogConfig.Config) > 0, "--log-opt")
	add(h.VolumeDriver != "" && h.VolumeDriver != "local", "--volume-driver "+h.VolumeDriver)
	add(h.Cgroup != "", "--cgroup "+string(h.Cgroup))
	// On user-defined networks docker's clients say it twice, and there the endpoint's is the one that counts.
	add(len(h.Links) > 0 && (h.NetworkMode == "" || !h.NetworkMode.IsUserDefined()), "--link on the default bridge")
	add(h.CgroupParent != "", "--cgroup-parent")
	add(len(h.StorageOpt) > 0, "--storage-opt")
	add(h.Runtime != "" && h.Runtime != "runc" && h.Runtime != "io.containerd.runc.v2", "--runtime "+h.Runtime)
	add(len(h.DeviceRequests) > 0, "--gpus")
	add(h.BlkioWeight != 0 || len(h.BlkioWeightDevice) > 0, "--blkio-weight")
	add(len(h.BlkioDeviceReadBps)+len(h.BlkioDeviceWriteBps)+len(h.BlkioDeviceReadIOps)+len(h.BlkioDeviceWriteIOps) > 0, "--device-read-bps and its kin")
	add(h.CPURealtimePeriod != 0 || h.CPURealtimeRuntime != 0, "--cpu-rt-runtime")
	add(h.Isolation != "" && !h.Isolation.IsDefault(), "--isolation")
	add(h.UsernsMode != "" && !h.UsernsMode.IsHost(), "--userns "+string(h.UsernsMode))
	for _, o := range h.SecurityOpt {
		name, _, _ := strings.Cut(o, "=")
		name, _, _ = strings.Cut(name, ":")
		add(name != "no-new-privileges" && o != "seccomp=unconfined" && o != "seccomp:unconfined" && name != "label" && o != "apparmor=unconfined", "--security-opt "+o)
	}
	for _, m := range h.Mounts {
		add(m.Type != "bind" && m.Type != "tmpfs" && m.Type != "volume", "--mount type="+string(m.Type))
		if o := m.VolumeOptions; o != nil {
			add(o.Subpath != "", "--mount volume-subpath")
			add(o.DriverConfig != nil && o.DriverConfig.Name != "" && o.DriverConfig.Name != "local", "--mount volume-driver")
		}
	}
	return out
}

// Validate refuses what can never work, with docker's status.
func Validate(c *container.Config, h *container.HostConfig) error {
	if err := container.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if h.AutoRemove && !h.RestartPolicy.IsNone() {
		return fmt.Errorf("can't create 'AutoRemove' container with restart policy: %w", errdefs.ErrInvalidArgument)
	}
	if c.WorkingDir != "" && !path.IsAbs(c.WorkingDir) {
		return fmt.Errorf("the working directory '%s' is invalid, it needs to be an absolute path: %w", c.WorkingDir, errdefs.ErrInvalidArgument)
	}
	if len(c.Hostname) > 64 {
		return fmt.Errorf("invalid hostname %q: longer than the kernel's 64 characters: %w", c.Hostname, errdefs.ErrInvalidArgument)
	}
	if err := ValidateResources(&h.Resources); err != nil {
		return err
	}
	if err := validateModes(h); err != nil {
		return err
	}
	if err := validateHealth(c.Healthcheck); err != nil {
		return err
	}
	if err := validateValues(c, h); err != nil {
		return err
	}
	if i := slices.IndexFunc(c.Env, func(kv string) bool { return kv == "" || strings.HasPrefix(kv, "=") }); i >= 0 {
		return fmt.Errorf("invalid environment variable: %q: %w", c.Env[i], errdefs.ErrInvalidArgument)
	}
	if bad := Unsupported(c, h); len(bad) > 0 {
		return fmt.Errorf("minictl does not support %s yet; leave it out: %w", strings.Join(bad, ", "), errdefs.ErrNotImplemented)
	}
	return nil
}

// ValidName tells whether a container may be called so (docker's rule).
func ValidName(name string) bool {
	if len(name) < 2 || len(name) > 255 {
		return false
	}
	for i, r := range name {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("_.-", r)) {
			return false
		}
	}
	return true
}

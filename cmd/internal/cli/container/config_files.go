package container

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"
)

// apply leaves the meaning of mount options to the daemon, which knows its own file system.
func (f *storageFlags) apply(c *container.Config, h *container.HostConfig) error {
	for _, v := range f.volumes.GetSlice() {
		bind, anonymous, err := parseVolume(v)
		if err != nil {
			return err
		}
		if !anonymous {
			h.Binds = append(h.Binds, bind)
			continue
		}
		if c.Volumes == nil {
			c.Volumes = map[string]struct{}{}
		}
		c.Volumes[bind] = struct{}{}
	}
	for _, t := range f.tmpfs.GetSlice() {
		if h.Tmpfs == nil {
			h.Tmpfs = map[string]string{}
		}
		target, options, _ := strings.Cut(t, ":")
		h.Tmpfs[target] = options
	}
	for _, o := range f.storageOpt.GetSlice() {
		k, v, ok := strings.Cut(o, "=")
		if !ok {
			return fmt.Errorf("invalid storage option %q: want KEY=VALUE", o)
		}
		if h.StorageOpt == nil {
			h.StorageOpt = map[string]string{}
		}
		h.StorageOpt[k] = v
	}
	if f.logDriver == "none" && f.logOpt.Len() > 0 {
		return fmt.Errorf("invalid logging opts for driver %s", f.logDriver)
	}
	h.LogConfig = container.LogConfig{Type: f.logDriver, Config: opts.ConvertKVStringsToMap(f.logOpt.GetSlice())}
	h.VolumesFrom, h.Mounts, h.VolumeDriver = f.volumesFrom.GetSlice(), f.mounts.Value(), f.volumeDriver
	h.ShmSize = f.shmSize.Value()
	return nil
}

// parseVolume reads -v's [SOURCE:]TARGET[:OPTIONS]. A source that starts with a dot is relative to this directory,
// which only we know; everything else is for the daemon to judge.
func parseVolume(v string) (bind string, anonymous bool, err error) {
	if v == "" {
		return "", false, fmt.Errorf("invalid volume %q: want [SOURCE:]TARGET[:OPTIONS]", v)
	}
	source, rest, ok := strings.Cut(v, ":")
	if !ok {
		return v, true, nil
	}
	if source == "" || rest == "" || strings.Count(rest, ":") > 1 {
		return "", false, fmt.Errorf("invalid volume %q: want [SOURCE:]TARGET[:OPTIONS]", v)
	}
	if strings.HasPrefix(source, ".") {
		abs, err := filepath.Abs(source)
		if err != nil {
			return "", false, fmt.Errorf("volume %q: %w", v, err)
		}
		source = abs
	}
	return source + ":" + rest, false, nil
}

// parseSecurityOpt passes on what it does not know: the daemon refuses it by name.
func parseSecurityOpt(opt string) (string, error) {
	if opt == "no-new-privileges" {
		return opt, nil
	}
	key, value, ok := strings.Cut(opt, "=")
	if !ok {
		key, value, ok = strings.Cut(opt, ":") // the notation before 1.11
	}
	if !ok || value == "" {
		return "", fmt.Errorf("invalid --security-opt: %q: want KEY=VALUE", opt)
	}
	if key != "seccomp" || value == "unconfined" || value == "builtin" {
		return opt, nil
	}
	profile, err := os.ReadFile(value)
	if err != nil {
		return "", fmt.Errorf("opening seccomp profile (%s) failed: %w", value, err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, profile); err != nil {
		return "", fmt.Errorf("compacting json for seccomp profile (%s) failed: %w", value, err)
	}
	return "seccomp=" + compact.String(), nil
}

func (f *deviceFlags) apply(r *container.Resources) error {
	var cdi []string
	for _, d := range f.devices.GetSlice() {
		if isCDI(d) {
			cdi = append(cdi, d)
			continue
		}
		m, err := parseDevice(d)
		if err != nil {
			return err
		}
		r.Devices = append(r.Devices, m)
	}
	r.DeviceCgroupRules, r.DeviceRequests = f.cgroupRules.GetSlice(), f.gpus.Value()
	if len(cdi) > 0 {
		r.DeviceRequests = append(r.DeviceRequests, container.DeviceRequest{Driver: "cdi", DeviceIDs: cdi})
	}
	return nil
}

// isCDI knows a qualified name of the Container Device Interface, vendor.com/class=device, from a path.
func isCDI(device string) bool {
	kind, name, ok := strings.Cut(device, "=")
	return ok && name != "" && !strings.HasPrefix(kind, "/") && strings.Contains(kind, "/")
}

// parseDevice reads HOST[:CONTAINER][:PERMISSIONS], permissions out of r, w and m.
func parseDevice(d string) (container.DeviceMapping, error) {
	m := container.DeviceMapping{CgroupPermissions: "rwm"}
	parts := strings.Split(d, ":")
	if last := parts[len(parts)-1]; len(parts) > 1 && validPermissions(last) {
		m.CgroupPermissions, parts = last, parts[:len(parts)-1]
	} else if len(parts) == 3 {
		return m, fmt.Errorf("bad mode specified: %s: want letters of rwm", last)
	}
	if len(parts) > 2 || parts[0] == "" {
		return m, fmt.Errorf("bad format for device: %s: want HOST[:CONTAINER][:PERMISSIONS]", d)
	}
	m.PathOnHost, m.PathInContainer = parts[0], path.Clean(parts[len(parts)-1])
	if !path.IsAbs(m.PathInContainer) {
		return m, fmt.Errorf("%s is not an absolute path", m.PathInContainer)
	}
	return m, nil
}

func validPermissions(s string) bool {
	if s == "" || strings.Trim(s, "rwm") != "" {
		return false
	}
	for _, r := range "rwm" {
		if strings.Count(s, string(r)) > 1 {
			return false
		}
	}
	return true
}

// checkDeviceRule wants "TYPE MAJOR:MINOR ACCESS", the device cgroup's own form. The expression is compiled only when
// the flag is used: start-up stays cheap.
func checkDeviceRule(v string) (string, error) {
	if !regexp.MustCompile(`^[acb] (\d+|\*):(\d+|\*) [rwm]{1,3}$`).MatchString(v) {
		return v, fmt.Errorf("invalid device cgroup format %q: want for example \"c 10:200 rwm\"", v)
	}
	return v, nil
}

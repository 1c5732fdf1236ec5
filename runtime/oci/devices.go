package oci

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Device is one of the host's devices inside the container. Access is what its device cgroup allows: r, w, m.
type Device struct {
	Node   specs.LinuxDevice
	Access string
}

func nodes(devices []Device) []specs.LinuxDevice {
	var out []specs.LinuxDevice
	for _, d := range devices {
		out = append(out, d.Node)
	}
	return out
}

// deviceRules adds what --device and --device-cgroup-rule open. A privileged container may use everything anyway.
func deviceRules(rules []specs.LinuxDeviceCgroup, h *mobycontainer.HostConfig, devices []Device) ([]specs.LinuxDeviceCgroup, error) {
	if h.Privileged {
		return rules, nil
	}
	for _, d := range devices {
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: d.Node.Type, Major: &d.Node.Major, Minor: &d.Node.Minor, Access: d.Access})
	}
	for _, text := range h.DeviceCgroupRules {
		r, err := parseDeviceRule(text)
		if err != nil {
			return nil, err
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// deviceRule is the kernel's own form (devices.rst), such as "c 42:* rmw".
var deviceRule = regexp.MustCompile(`^([acb]) ([0-9]{1,9}|\*):([0-9]{1,9}|\*) ([rwm]{1,3})$`)

func parseDeviceRule(text string) (specs.LinuxDeviceCgroup, error) {
	f := deviceRule.FindStringSubmatch(text)
	if f == nil {
		return specs.LinuxDeviceCgroup{}, fmt.Errorf("invalid device cgroup rule format: '%s': %w", text, errdefs.ErrInvalidArgument)
	}
	number := func(s string) *int64 {
		if s == "*" {
			return nil
		}
		n, _ := strconv.ParseInt(s, 10, 64) // nine digits at most
		return &n
	}
	return specs.LinuxDeviceCgroup{Allow: true, Type: f[1], Major: number(f[2]), Minor: number(f[3]), Access: f[4]}, nil
}

// ValidateDevices refuses rules and permissions that no kernel knows.
func ValidateDevices(h *mobycontainer.HostConfig) error {
	for _, text := range h.DeviceCgroupRules {
		if _, err := parseDeviceRule(text); err != nil {
			return err
		}
	}
	for _, d := range h.Devices {
		if !devicePermissions.MatchString(d.CgroupPermissions) {
			return fmt.Errorf("invalid device permissions %q for %s: want a combination of r, w and m: %w", d.CgroupPermissions, d.PathOnHost, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

var devicePermissions = regexp.MustCompile(`^[rwm]{0,3}$`)

package oci

import (
	"testing"

	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/minictl/minictl/runtime/container"
	"github.com/minictl/minictl/testing/fields"
)

// honoured says which test, by its text, shows that a field of the API does what it says. A field that is not here must be
// refused: a new one in a newer version of the API is neither, and fails TestEveryField until somebody decides.
func honoured() map[string]string {
	const (
		shown = "an e2e test of inspect; it is the client's own and changes nothing else"
	)
	return map[string]string{
		"Config.Hostname":        "e2e:--hostname",
		"Config.Domainname":      "e2e:--domainname",
		"Config.User":            "e2e:user by number",
		"Config.AttachStdin":     shown,
		"Config.AttachStdout":    shown,
		"Config.AttachStderr":    shown,
		"Config.ExposedPorts":    "e2e:--expose",
		"Config.Tty":             "oci:terminal",
		"Config.OpenStdin":       "e2e:TestStreams",
		"Config.StdinOnce":       "e2e:TestStreams",
		"Config.Env":             "e2e:environment",
		"Config.Cmd":             "e2e:TestRun",
		"Config.Healthcheck":     "e2e:TestHealth",
		"Config.Image":           "e2e:TestRun",
		"Config.Volumes":         "e2e:TestVolumes",
		"Config.WorkingDir":      "e2e:working folder is made",
		"Config.Entrypoint":      "e2e:--entrypoint",
		"Config.NetworkDisabled": "e2e:NetworkDisabled",
		"Config.OnBuild":         "engine:onBuild",
		"Config.Labels":          "e2e:--label",
		"Config.StopSignal":      "e2e:--stop-signal",
		"Config.StopTimeout":     "e2e:--stop-timeout",
		"Config.Shell":           "container:/bin/bash",

		"HostConfig.Binds":           "e2e:read-only bind",
		"HostConfig.ContainerIDFile": shown,
		"HostConfig.LogConfig":       "e2e:TestLogDrivers",
		"HostConfig.NetworkMode":     "e2e:host network",
		"HostConfig.PortBindings":    "e2e:TestPorts",
		"HostConfig.RestartPolicy":   "e2e:TestRestartPolicy",
		"HostConfig.AutoRemove":      "e2e:--rm",
		"HostConfig.VolumesFrom":     "e2e:--volumes-from",
		"HostConfig.ConsoleSize":     "e2e:stty size",
		"HostConfig.Annotations":     "oci:annotations",
		"HostConfig.CapAdd":          "e2e:--cap-add",
		"HostConfig.CapDrop":         "e2e:--cap-drop",
		"HostConfig.CgroupnsMode":    "e2e:cgroupns private",
		"HostConfig.DNS":             "e2e:--dns",
		"HostConfig.DNSOptions":      "e2e:--dns-option",
		"HostConfig.DNSSearch":       "e2e:--dns-search",
		"HostConfig.ExtraHosts":      "e2e:--add-host",
		"HostConfig.GroupAdd":        "e2e:--group-add",
		"HostConfig.IpcMode":         "e2e:TestSharedNamespaces",
		"HostConfig.OomScoreAdj":     "e2e:--oom-score-adj",
		"HostConfig.PidMode":         "e2e:--pid",
		"HostConfig.Privileged":      "e2e:--privileged",
		"HostConfig.PublishAllPorts": "e2e:\"-P\"",
		"HostConfig.ReadonlyRootfs":  "e2e:--read-only",
		"HostConfig.SecurityOpt":     "e2e:--security-opt",
		"HostConfig.Tmpfs":           "e2e:--tmpfs",
		"HostConfig.UTSMode":         "e2e:--uts",
		"HostConfig.UsernsMode":      "e2e:--userns",
		"HostConfig.ShmSize":         "e2e:--shm-size",
		"HostConfig.Sysctls":         "e2e:--sysctl",
		"HostConfig.Umask":           "e2e:--umask",
		"HostConfig.MaskedPaths":     "e2e:systempaths",
		"HostConfig.ReadonlyPaths":   "e2e:systempaths",
		"HostConfig.Init":            "e2e:--init",
		"HostConfig.Links":           "e2e:TestLinks",

		"Resources.CPUShares":            "e2e:cpu shares",
		"Resources.Memory":               "e2e:-m 16m",
		"Resources.NanoCPUs":             "e2e:--cpus",
		"Resources.CgroupParent":         "e2e:--cgroup-parent",
		"Resources.BlkioWeight":          "oci:--blkio-weight",
		"Resources.BlkioWeightDevice":    "oci:--blkio-weight-device",
		"Resources.BlkioDeviceReadBps":   "e2e:--device-read-bps",
		"Resources.BlkioDeviceWriteBps":  "e2e:--device-write-bps",
		"Resources.BlkioDeviceReadIOps":  "e2e:--device-read-iops",
		"Resources.BlkioDeviceWriteIOps": "e2e:--device-write-iops",
		"Resources.CPUPeriod":            "e2e:--cpu-period",
		"Resources.CPUQuota":             "e2e:--cpu-quota",
		"Resources.CpusetCpus":           "e2e:--cpuset-cpus",
		"Resources.CpusetMems":           "e2e:--cpuset-mems",
		"Resources.Devices":              "e2e:--device /dev/null",
		"Resources.DeviceCgroupRules":    "e2e:--device-cgroup-rule",
		"Resources.MemoryReservation":    "e2e:--memory-reservation",
		"Resources.MemorySwap":           "e2e:--memory-swap",
		"Resources.MemorySwappiness":     "e2e:--memory-swappiness",
		"Resources.OomKillDisable":       "e2e:--oom-kill-disable",
		"Resources.PidsLimit":            "e2e:--pids-limit",
		"Resources.Ulimits":              "e2e:--ulimit",

		"Mount.Type":                         "e2e:--mount type=tmpfs",
		"Mount.Source":                       "e2e:--mount type=bind",
		"Mount.Target":                       "e2e:--mount type=bind",
		"Mount.ReadOnly":                     "e2e:read-only tmpfs mount",
		"Mount.Consistency":                  "a hint for file systems that are shared over a network: a bind is always consistent",
		"BindOptions.Propagation":            "e2e:bind-propagation",
		"BindOptions.NonRecursive":           "e2e:bind-recursive=disabled",
		"BindOptions.CreateMountpoint":       "container:CreateMountpoint",
		"BindOptions.ReadOnlyNonRecursive":   "e2e:bind-recursive=writable",
		"BindOptions.ReadOnlyForceRecursive": "e2e:bind-recursive=readonly",
		"VolumeOptions.NoCopy":               "e2e:volume-nocopy",
		"VolumeOptions.Labels":               "e2e:volume-label",
		"TmpfsOptions.SizeBytes":             "e2e:tmpfs-size",
		"TmpfsOptions.Mode":                  "e2e:tmpfs-mode",
		"TmpfsOptions.Options":               "oci:TmpfsOptions",
	}
}

// TestEveryField goes over every field that a container can be created with.
func TestEveryField(t *testing.T) {
	w := fields.New(t, honoured(), map[string]string{
		"e2e": "../../testing/e2e", "oci": ".", "container": "../container", "engine": "../../cmd/internal/engine",
	})
	validate := func(c *mobycontainer.Config, h *mobycontainer.HostConfig) error { return container.Validate(c, h) }
	withMount := func(m mount.Mount) error {
		m.Target = "/x"
		if m.Type == mount.TypeBind {
			m.Source = "/y"
		}
		return validate(&mobycontainer.Config{}, &mobycontainer.HostConfig{Mounts: []mount.Mount{m}})
	}
	w.Each(mobycontainer.Config{}, func(c any) error {
		return validate(c.(*mobycontainer.Config), &mobycontainer.HostConfig{})
	})
	w.Each(mobycontainer.HostConfig{}, func(h any) error {
		return validate(&mobycontainer.Config{}, h.(*mobycontainer.HostConfig))
	}, "Resources", "Mounts")
	w.Each(mobycontainer.Resources{}, func(r any) error {
		return validate(&mobycontainer.Config{}, &mobycontainer.HostConfig{Resources: *r.(*mobycontainer.Resources)})
	})
	w.Each(mount.Mount{}, func(m any) error {
		with := *m.(*mount.Mount)
		if with.Type == "" {
			with.Type = mount.TypeVolume
		}
		return withMount(with)
	}, "BindOptions", "VolumeOptions", "TmpfsOptions")
	w.Each(mount.BindOptions{}, func(o any) error {
		return withMount(mount.Mount{Type: mount.TypeBind, BindOptions: o.(*mount.BindOptions)})
	})
	w.Each(mount.VolumeOptions{}, func(o any) error {
		return withMount(mount.Mount{Type: mount.TypeVolume, VolumeOptions: o.(*mount.VolumeOptions)})
	})
	w.Each(mount.TmpfsOptions{}, func(o any) error {
		return withMount(mount.Mount{Type: mount.TypeTmpfs, TmpfsOptions: o.(*mount.TmpfsOptions)})
	})
	w.Done()
}

package container

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

// spec is the body of POST /containers/create.
type spec struct {
	config  *container.Config
	host    *container.HostConfig
	network *network.NetworkingConfig
	order   []string // of the networks, as the user named them
}

// build turns the flags and the command line behind them into the request. Only what the daemon cannot know (files on
// this side, the shape of a flag) is checked here.
func (f *createFlags) build(fs *pflag.FlagSet, image string, args []string) (*spec, error) {
	s := &spec{config: &container.Config{Image: image, Cmd: args}, host: &container.HostConfig{}}
	steps := []func() error{
		func() error { return f.process.apply(fs, s.config, s.host) },
		func() error { return f.security.apply(s.host) },
		func() error { return f.storage.apply(s.config, s.host) },
		func() error { return f.limits.apply(fs, s.host) },
		func() error { return f.devices.apply(&s.host.Resources) },
		func() error { return f.lifetime.apply(fs, s.config, s.host) },
		func() error { return f.network.applyPorts(s.config, s.host) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	s.host.CgroupParent = f.security.cgroupParent
	var err error
	if s.config.Healthcheck, err = f.health.config(); err != nil {
		return nil, err
	}
	endpoints, err := f.network.endpoints()
	if err != nil {
		return nil, err
	}
	s.network = &network.NetworkingConfig{EndpointsConfig: endpoints}
	for _, n := range f.network.networks.Value() {
		s.order = append(s.order, url.QueryEscape(n.Target))
	}
	return s, nil
}

// apply reads the files named by flags here, because they are on this side and not on the daemon's.
func (f *processFlags) apply(fs *pflag.FlagSet, c *container.Config, h *container.HostConfig) error {
	env, err := opts.ReadKVEnvStrings(f.envFile.GetSlice(), f.env.GetSlice())
	if err != nil {
		return fmt.Errorf("--env-file: %w", err)
	}
	labels, err := opts.ReadKVStrings(f.labelFile.GetSlice(), f.labels.GetSlice())
	if err != nil {
		return fmt.Errorf("--label-file: %w", err)
	}
	c.Env, c.Labels = env, opts.ConvertKVStringsToMap(labels)
	c.Hostname, c.Domainname, c.User, c.WorkingDir = f.hostname, f.domainname, f.user, f.workdir
	c.Tty, c.OpenStdin = f.tty, f.interactive
	c.AttachStdin = f.interactive || f.attach.Get("stdin")
	c.AttachStdout = f.attach.Len() == 0 || f.attach.Get("stdout")
	c.AttachStderr = f.attach.Len() == 0 || f.attach.Get("stderr")
	// A container whose input is ours ends its input when we go.
	c.StdinOnce = c.OpenStdin && c.AttachStdin
	switch {
	case f.entrypoint != "":
		c.Entrypoint = []string{f.entrypoint}
	case fs.Changed("entrypoint"):
		c.Entrypoint = []string{""} // --entrypoint= : none at all, not the image's
	}
	h.GroupAdd, h.Annotations, h.Umask = f.groups.GetSlice(), f.annotations.GetAll(), f.umask.Value()
	return nil
}

// apply checks the modes by the API's own rule; docker's client does as well, so that a slip costs no round trip.
func (f *securityFlags) apply(h *container.HostConfig) error {
	h.PidMode, h.UTSMode = container.PidMode(f.pid), container.UTSMode(f.uts)
	h.UsernsMode, h.CgroupnsMode = container.UsernsMode(f.userns), container.CgroupnsMode(f.cgroupns)
	for _, m := range []struct {
		flag, value, want string
		ok                bool
	}{
		{"pid", f.pid, "host or container:NAME", h.PidMode.Valid()},
		{"uts", f.uts, "host", h.UTSMode.Valid()},
		{"userns", f.userns, "host", h.UsernsMode.Valid()},
		{"cgroupns", f.cgroupns, "host or private", h.CgroupnsMode.Valid()},
	} {
		if !m.ok {
			return fmt.Errorf("--%s: invalid mode %q: want %s", m.flag, m.value, m.want)
		}
	}
	h.IpcMode, h.Isolation, h.Runtime = container.IpcMode(f.ipc), container.Isolation(f.isolation), f.runtime
	h.CapAdd, h.CapDrop = f.capAdd.GetSlice(), f.capDrop.GetSlice()
	h.Privileged, h.ReadonlyRootfs, h.Sysctls = f.privileged, f.readOnly, f.sysctls.GetAll()
	return f.applySecurityOpt(h)
}

// applySecurityOpt sends a seccomp profile's text, as the file is on this side, and turns systempaths=unconfined into
// the two lists it stands for.
func (f *securityFlags) applySecurityOpt(h *container.HostConfig) error {
	for _, opt := range f.securityOpt.GetSlice() {
		if opt == "systempaths=unconfined" {
			h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
			continue
		}
		parsed, err := parseSecurityOpt(opt)
		if err != nil {
			return err
		}
		h.SecurityOpt = append(h.SecurityOpt, parsed)
	}
	return nil
}

// config gives nil when no flag was given: then the image's own check holds, which an empty one would hide.
func (f *healthFlags) config() (*container.HealthConfig, error) {
	given := f.cmd != "" || f.interval != 0 || f.timeout != 0 || f.startPeriod != 0 || f.startBetween != 0 || f.retries != 0
	switch {
	case f.none && given:
		return nil, errors.New("--no-healthcheck conflicts with --health-* options")
	case f.none:
		return &container.HealthConfig{Test: []string{"NONE"}}, nil
	case !given:
		return nil, nil
	}
	for flag, negative := range map[string]bool{
		"interval": f.interval < 0, "timeout": f.timeout < 0, "retries": f.retries < 0,
		"start-period": f.startPeriod < 0, "start-interval": f.startBetween < 0,
	} {
		if negative {
			return nil, fmt.Errorf("--health-%s cannot be negative", flag)
		}
	}
	h := &container.HealthConfig{Interval: f.interval, Timeout: f.timeout, Retries: f.retries,
		StartPeriod: f.startPeriod, StartInterval: f.startBetween}
	if f.cmd != "" {
		h.Test = []string{"CMD-SHELL", f.cmd}
	}
	return h, nil
}

// apply keeps apart what was not said and what was said to be zero: for the stop timeout and init these differ.
func (f *lifetimeFlags) apply(fs *pflag.FlagSet, c *container.Config, h *container.HostConfig) error {
	policy, err := opts.ParseRestartPolicy(f.restart)
	if err != nil {
		return fmt.Errorf("--restart %s: %w", f.restart, err)
	}
	if f.remove && !policy.IsNone() {
		return errors.New("conflicting options: cannot specify both --restart and --rm")
	}
	h.RestartPolicy, h.AutoRemove, h.ContainerIDFile = policy, f.remove, f.cidFile
	c.StopSignal = f.stopSignal
	if fs.Changed("stop-timeout") {
		c.StopTimeout = &f.stopTimeout
	}
	if fs.Changed("init") {
		h.Init = &f.init
	}
	return nil
}

// checkAttach takes the names in any case, as docker does.
func checkAttach(v string) (string, error) {
	s := strings.ToLower(v)
	if !slices.Contains([]string{"stdin", "stdout", "stderr"}, s) {
		return v, fmt.Errorf("invalid stream %q: valid streams are STDIN, STDOUT and STDERR", v)
	}
	return s, nil
}

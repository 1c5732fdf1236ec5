package container

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/moby/moby/api/types/container"
)

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
	if _, err := NewSecurity(h.SecurityOpt); err != nil {
		return err
	}
	if err := validateMounts(h); err != nil {
		return err
	}
	if err := validateLog(&h.LogConfig); err != nil {
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

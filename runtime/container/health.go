package container

import (
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/moby/moby/api/types/container"
)

// Docker's defaults for what a health check leaves open.
const (
	healthInterval      = 30 * time.Second
	healthTimeout       = 30 * time.Second
	healthStartInterval = 5 * time.Second
	healthRetries       = 3
	// healthResults is how many results are kept, the oldest first.
	healthResults = 5
)

// Check is a health check with nothing left open.
type Check struct {
	Args                                          []string
	Interval, Timeout, StartPeriod, StartInterval time.Duration
	Retries                                       int
}

// NewCheck gives a container's health check; nil when it has none or disables its image's.
func NewCheck(c *container.Config) *Check {
	h := c.Healthcheck
	if h == nil || len(h.Test) < 2 {
		return nil
	}
	k := &Check{
		Args: h.Test[1:], Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
	}
	if h.Test[0] == "CMD-SHELL" {
		shell := c.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		k.Args = append(slices.Clone(shell), h.Test[1])
	}
	k.Interval = orDefault(k.Interval, healthInterval)
	k.Timeout = orDefault(k.Timeout, healthTimeout)
	k.StartInterval = orDefault(k.StartInterval, healthStartInterval)
	if k.Retries == 0 {
		k.Retries = healthRetries
	}
	return k
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// Next is how long to wait for the next probe of a container that has run for a time: within the start period, until a
// probe succeeds, they come at the start interval.
func (k *Check) Next(status container.HealthStatus, ran time.Duration) time.Duration {
	if status == container.Starting && ran < k.StartPeriod {
		return k.StartInterval
	}
	return k.Interval
}

// Apply adds one result. A failure within the start period, before the first success, counts for nothing.
func (k *Check) Apply(h container.Health, r container.HealthcheckResult, started time.Time) container.Health {
	h.Log = append(slices.Clone(h.Log), &r)
	if n := len(h.Log); n > healthResults {
		h.Log = h.Log[n-healthResults:]
	}
	switch {
	case r.ExitCode == 0:
		h.Status, h.FailingStreak = container.Healthy, 0
	case h.Status == container.Starting && r.Start.Sub(started) < k.StartPeriod:
	default:
		if h.FailingStreak++; h.FailingStreak >= k.Retries {
			h.Status = container.Unhealthy
		}
	}
	return h
}

// MergeHealth fills what the user left open of a health check from the image's.
func MergeHealth(user *container.Config, img *dockerspec.HealthcheckConfig) {
	if img == nil {
		return
	}
	if user.Healthcheck == nil {
		user.Healthcheck = &container.HealthConfig{}
	}
	h := user.Healthcheck
	if len(h.Test) == 0 {
		h.Test = slices.Clone(img.Test)
	}
	h.Interval, h.Timeout = orDefault(h.Interval, img.Interval), orDefault(h.Timeout, img.Timeout)
	h.StartPeriod, h.StartInterval = orDefault(h.StartPeriod, img.StartPeriod), orDefault(h.StartInterval, img.StartInterval)
	if h.Retries == 0 {
		h.Retries = img.Retries
	}
}

// validateHealth words its refusals as docker does.
func validateHealth(h *container.HealthConfig) error {
	if h == nil {
		return nil
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval}} {
		if d.value != 0 && d.value < time.Millisecond {
			return refused("%s in Healthcheck cannot be less than 1ms", d.name)
		}
	}
	if h.Retries < 0 {
		return refused("Retries in Healthcheck cannot be negative")
	}
	if len(h.Test) == 0 || h.Test[0] == "NONE" {
		return nil
	}
	if kind := h.Test[0]; kind != "CMD" && kind != "CMD-SHELL" {
		return fmt.Errorf("unknown healthcheck type '%s': want CMD, CMD-SHELL or NONE: %w", kind, errdefs.ErrInvalidArgument)
	}
	if len(h.Test) < 2 {
		return fmt.Errorf("missing command in Healthcheck: %s takes one: %w", h.Test[0], errdefs.ErrInvalidArgument)
	}
	return nil
}

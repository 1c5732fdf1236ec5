package container_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	mobycontainer "github.com/moby/moby/api/types/container"

	"github.com/minictl/minictl/runtime/container"
)

func TestNewCheck(t *testing.T) {
	for _, c := range []struct {
		test  []string
		shell []string
		want  []string
	}{
		{nil, nil, nil},
		{[]string{"NONE"}, nil, nil},
		{[]string{"CMD", "a", "b"}, nil, []string{"a", "b"}},
		{[]string{"CMD-SHELL", "a b"}, nil, []string{"/bin/sh", "-c", "a b"}},
		{[]string{"CMD-SHELL", "a b"}, []string{"/bin/bash", "-ec"}, []string{"/bin/bash", "-ec", "a b"}},
	} {
		k := container.NewCheck(&mobycontainer.Config{Healthcheck: &mobycontainer.HealthConfig{Test: c.test}, Shell: c.shell})
		if c.want == nil {
			if k != nil {
				t.Errorf("%v: a check: %+v", c.test, k)
			}
			continue
		}
		if k == nil || !reflect.DeepEqual(k.Args, c.want) {
			t.Errorf("%v: %+v, want %v", c.test, k, c.want)
		} else if k.Interval != 30*time.Second || k.Timeout != 30*time.Second || k.StartInterval != 5*time.Second || k.StartPeriod != 0 || k.Retries != 3 {
			t.Errorf("%v: defaults %+v", c.test, k)
		}
	}
	if container.NewCheck(&mobycontainer.Config{}) != nil {
		t.Error("a check out of nothing")
	}
}

// TestApply runs probes by their exit codes, one a second, and follows the verdict.
func TestApply(t *testing.T) {
	k := &container.Check{Interval: time.Minute, StartInterval: time.Second, StartPeriod: 3 * time.Second, Retries: 2}
	began := time.Unix(100, 0)
	for codes, want := range map[string]string{
		"0":       "healthy/0",
		"1":       "starting/0",
		"111":     "starting/0",
		"1111":    "starting/1", // the fourth comes after the start period
		"11111":   "unhealthy/2",
		"111110":  "healthy/0",
		"01":      "healthy/1", // after a success the start period is over
		"011":     "unhealthy/2",
		"0110":    "healthy/0",
		"1111101": "healthy/1",
	} {
		h := mobycontainer.Health{Status: mobycontainer.Starting}
		for i, c := range codes {
			at := began.Add(time.Duration(i) * time.Second)
			h = k.Apply(h, mobycontainer.HealthcheckResult{Start: at, End: at, ExitCode: int(c - '0')}, began)
		}
		if got := string(h.Status) + "/" + string(rune('0'+h.FailingStreak)); got != want {
			t.Errorf("%s: %s, want %s", codes, got, want)
		}
		if n := min(len(codes), 5); len(h.Log) != n || h.Log[n-1].ExitCode != int(codes[len(codes)-1]-'0') {
			t.Errorf("%s: log of %d results", codes, len(h.Log))
		}
	}
	if d := k.Next(mobycontainer.Starting, 2*time.Second); d != time.Second {
		t.Errorf("next within the start period after %v", d)
	}
	if d := k.Next(mobycontainer.Starting, 3*time.Second); d != time.Minute {
		t.Errorf("next after it after %v", d)
	}
	if d := k.Next(mobycontainer.Healthy, 0); d != time.Minute {
		t.Errorf("next when healthy after %v", d)
	}
}

func TestMergeHealth(t *testing.T) {
	img := &mobycontainer.HealthConfig{Test: []string{"CMD", "i"}, Interval: 1, Timeout: 2, StartPeriod: 3, StartInterval: 4, Retries: 5}
	c := mobycontainer.Config{Healthcheck: &mobycontainer.HealthConfig{Interval: 10, Retries: 50}}
	container.MergeHealth(&c, img)
	want := &mobycontainer.HealthConfig{Test: []string{"CMD", "i"}, Interval: 10, Timeout: 2, StartPeriod: 3, StartInterval: 4, Retries: 50}
	if !reflect.DeepEqual(c.Healthcheck, want) {
		t.Errorf("got %+v, want %+v", c.Healthcheck, want)
	}
	c = mobycontainer.Config{}
	container.MergeHealth(&c, nil)
	if c.Healthcheck != nil {
		t.Errorf("a check out of nothing: %+v", c.Healthcheck)
	}
	c.Healthcheck = &mobycontainer.HealthConfig{Test: []string{"NONE"}}
	container.MergeHealth(&c, img)
	if container.NewCheck(&c) != nil {
		t.Error("NONE did not switch the image's check off")
	}
}

func TestValidateRefuses(t *testing.T) {
	for want, change := range map[string]func(*mobycontainer.Config, *mobycontainer.HostConfig){
		"Timeout in Healthcheck cannot be less than 1ms": func(c *mobycontainer.Config, _ *mobycontainer.HostConfig) {
			c.Healthcheck = &mobycontainer.HealthConfig{Timeout: 1}
		},
		"Retries in Healthcheck cannot be negative": func(c *mobycontainer.Config, _ *mobycontainer.HostConfig) {
			c.Healthcheck = &mobycontainer.HealthConfig{Retries: -1}
		},
		"unknown healthcheck type 'HTTP'": func(c *mobycontainer.Config, _ *mobycontainer.HostConfig) {
			c.Healthcheck = &mobycontainer.HealthConfig{Test: []string{"HTTP", "x"}}
		},
		"missing command in Healthcheck": func(c *mobycontainer.Config, _ *mobycontainer.HostConfig) {
			c.Healthcheck = &mobycontainer.HealthConfig{Test: []string{"CMD"}}
		},
		"maximum retry count can only be used with 'on-failure'": func(_ *mobycontainer.Config, h *mobycontainer.HostConfig) {
			h.RestartPolicy = mobycontainer.RestartPolicy{Name: "always", MaximumRetryCount: 3}
		},
		"can't create 'AutoRemove' container with restart policy": func(_ *mobycontainer.Config, h *mobycontainer.HostConfig) {
			h.AutoRemove, h.RestartPolicy.Name = true, "always"
		},
		"Minimum memory limit allowed is 6MB":           func(_ *mobycontainer.Config, h *mobycontainer.HostConfig) { h.Memory = 1 },
		"invalid IPC mode: x":                           func(_ *mobycontainer.Config, h *mobycontainer.HostConfig) { h.IpcMode = "x" },
		"invalid PID mode: x":                           func(_ *mobycontainer.Config, h *mobycontainer.HostConfig) { h.PidMode = "x" },
		"invalid cgroup namespace mode: x":              func(_ *mobycontainer.Config, h *mobycontainer.HostConfig) { h.CgroupnsMode = "x" },
		"range for oom score adj":                       func(_ *mobycontainer.Config, h *mobycontainer.HostConfig) { h.OomScoreAdj = 1001 },
		"Conflicting options: Nano CPUs and CPU Period": func(_ *mobycontainer.Config, h *mobycontainer.HostConfig) { h.NanoCPUs, h.CPUPeriod = 1e9, 1000 },
	} {
		c, h := &mobycontainer.Config{}, &mobycontainer.HostConfig{}
		change(c, h)
		if err := container.Validate(c, h); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if err := container.Validate(&mobycontainer.Config{}, &mobycontainer.HostConfig{Privileged: true}); err != nil {
		t.Error(err)
	}
}

func TestUpdateResources(t *testing.T) {
	now := mobycontainer.Resources{Memory: 32 << 20, MemorySwap: 64 << 20, CPUShares: 5}
	got, err := container.UpdateResources(now, mobycontainer.Resources{Memory: 48 << 20, CpusetCpus: "1"})
	want := mobycontainer.Resources{Memory: 48 << 20, MemorySwap: 64 << 20, CPUShares: 5, CpusetCpus: "1"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := container.UpdateResources(now, mobycontainer.Resources{Memory: 65 << 20}); err == nil || !strings.Contains(err.Error(), "update the memoryswap at the same time") {
		t.Errorf("more memory than swap: %v", err)
	}
	if _, err := container.UpdateResources(now, mobycontainer.Resources{MemorySwap: 31 << 20}); err == nil {
		t.Error("less swap than memory")
	}
}

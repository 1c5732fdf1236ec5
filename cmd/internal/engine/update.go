package engine

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/minictl/minictl/runtime/container"
	"github.com/minictl/minictl/runtime/ctrd"
	"github.com/minictl/minictl/runtime/oci"
)

// ContainerUpdate changes the limits and the restart policy of a container, at once if it runs. All or nothing.
func (e *Engine) ContainerUpdate(ctx context.Context, ref string, u mobycontainer.UpdateConfig) (mobycontainer.UpdateResponse, error) {
	resp := mobycontainer.UpdateResponse{Warnings: []string{}}
	b, err := e.find(ref)
	if err != nil {
		return resp, err
	}
	if err := e.checkUpdate(&u); err != nil {
		return resp, err
	}
	b.op.Lock()
	defer b.op.Unlock()
	if b.removed {
		return resp, notFound("No such container: %s", ref)
	}
	// A copy: readers of the old one must not see it change.
	h := *b.specCopy().HostConfig
	if h.Resources, err = container.UpdateResources(h.Resources, u.Resources); err != nil {
		return resp, err
	}
	if err := checkCPUs(&h.Resources); err != nil {
		return resp, err
	}
	if u.RestartPolicy.Name != "" {
		if h.AutoRemove && !u.RestartPolicy.IsNone() {
			return resp, invalid("Restart policy cannot be updated because AutoRemove is enabled for the container")
		}
		h.RestartPolicy = u.RestartPolicy
	}
	if task, err := b.live(ref); err == nil {
		if err := e.applyLimits(ctx, b, task, &h); err != nil {
			return resp, err
		}
	}
	b.mu.Lock()
	b.spec.HostConfig = &h
	b.mu.Unlock()
	e.update(b, func(*container.Status) {})
	e.event(b, events.ActionUpdate)
	return resp, nil
}

// applyLimits gives a running container other limits, and the old ones again when the kernel refuses one of them.
func (e *Engine) applyLimits(ctx context.Context, b *box, task *ctrd.Task, h *mobycontainer.HostConfig) error {
	old := b.specCopy().HostConfig
	if err := task.Update(ctx, oci.UpdatedResources(h, e.cfg.Host)); err != nil {
		if uerr := task.Update(context.WithoutCancel(ctx), oci.UpdatedResources(old, e.cfg.Host)); uerr != nil {
			e.log.Error("give a container its old limits again", "container", b.id, "err", uerr)
		}
		return fmt.Errorf("cannot update container %s: %w", b.id, err)
	}
	return nil
}

// checkUpdate refuses by name what can't be changed.
func (e *Engine) checkUpdate(u *mobycontainer.UpdateConfig) error {
	if fixed := container.FixedResources(&u.Resources); len(fixed) > 0 {
		return unsupported("minictl does not support changing %s; make a new container instead", strings.Join(fixed, ", "))
	}
	if err := oci.ValidateHost(&mobycontainer.HostConfig{Resources: u.Resources}, e.cfg.Host); err != nil {
		return err
	}
	if u.RestartPolicy.Name == "" {
		return nil
	}
	if err := mobycontainer.ValidateRestartPolicy(u.RestartPolicy); err != nil {
		return invalid("%v", err)
	}
	return nil
}

// checkCPUs refuses limits that this machine's processors can't meet, in docker's words.
func checkCPUs(r *mobycontainer.Resources) error {
	n := runtime.NumCPU()
	if r.NanoCPUs < 0 || r.NanoCPUs > int64(n)*1e9 {
		return invalid("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", n, n)
	}
	have := onlineCPUs()
	want, err := parseCPUList(r.CpusetCpus)
	if err != nil {
		return invalid("Invalid value %s for cpuset cpus", r.CpusetCpus)
	}
	for _, c := range want {
		if have != nil && !slices.Contains(have, c) {
			return invalid("Requested CPUs are not available - requested %s, available: %s", r.CpusetCpus, showCPUs(have))
		}
	}
	if _, err := parseCPUList(r.CpusetMems); err != nil {
		return invalid("Invalid value %s for cpuset mems", r.CpusetMems)
	}
	return nil
}

// onlineCPUs are the numbers of the processors that run; nil when the kernel does not say.
func onlineCPUs() []int {
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return nil
	}
	list, err := parseCPUList(string(b))
	if err != nil {
		return nil
	}
	return list
}

func showCPUs(list []int) string {
	out := make([]string, len(list))
	for i, c := range list {
		out[i] = strconv.Itoa(c)
	}
	return strings.Join(out, ",")
}

// maxCPU bounds the numbers in a list, which would otherwise be an easy way to have much memory allocated.
const maxCPU = 8192

// parseCPUList reads the kernel's list format, such as "0-3,7" (cpuset(7)).
func parseCPUList(text string) ([]int, error) {
	var out []int
	if text = strings.TrimSpace(text); text == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		a, b, ranged := strings.Cut(part, "-")
		first, err := strconv.Atoi(a)
		if err != nil {
			return nil, err
		}
		last := first
		if ranged {
			if last, err = strconv.Atoi(b); err != nil {
				return nil, err
			}
		}
		if first < 0 || last < first || last > maxCPU {
			return nil, fmt.Errorf("%q is no range of CPUs", part)
		}
		for c := first; c <= last; c++ {
			out = append(out, c)
		}
	}
	return out, nil
}

package oci

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// TestNoSwapLimit: where the kernel cannot limit swap, a limit on memory alone still works, and one on swap is refused.
func TestNoSwapLimit(t *testing.T) {
	without := Host{Missing: []string{FlagMemorySwap}}
	w := wish(mobycontainer.Config{}, mobycontainer.HostConfig{Resources: mobycontainer.Resources{Memory: 8 << 20, MemorySwap: 16 << 20}})
	for _, host := range []Host{{}, without} {
		w.Host = host
		s, _, err := Build(w)
		if err != nil || *s.Linux.Resources.Memory.Limit != 8<<20 || (s.Linux.Resources.Memory.Swap == nil) != (host.Missing != nil) {
			t.Errorf("%v: %+v, %v", host.Missing, s.Linux.Resources.Memory, err)
		}
		if m := UpdatedResources(w.Spec.HostConfig, host).Memory; (m.Swap == nil) != (host.Missing != nil) {
			t.Errorf("update %v: %+v", host.Missing, m)
		}
	}
	for swap, refused := range map[int64]bool{0: false, -1: false, 16 << 20: true} {
		h := &mobycontainer.HostConfig{Resources: mobycontainer.Resources{Memory: 8 << 20, MemorySwap: swap}}
		if err := ValidateHost(h, without); errdefs.IsNotImplemented(err) != refused {
			t.Errorf("--memory-swap %d: %v", swap, err)
		}
	}
}

func TestWarnings(t *testing.T) {
	yes := true
	for _, c := range []struct {
		h    mobycontainer.HostConfig
		want string
	}{
		{mobycontainer.HostConfig{}, ""},
		{mobycontainer.HostConfig{Resources: mobycontainer.Resources{OomKillDisable: &yes}}, "OOM killer is disabled"},
		{mobycontainer.HostConfig{Resources: mobycontainer.Resources{OomKillDisable: &yes, Memory: 1}}, ""},
		{mobycontainer.HostConfig{NetworkMode: network.NetworkHost, PublishAllPorts: true}, "Published ports are discarded"},
		{mobycontainer.HostConfig{NetworkMode: network.NetworkBridge, PublishAllPorts: true}, ""},
	} {
		if got := strings.Join(Warnings(&c.h), "\n"); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.h, got, c.want)
		}
	}
}

func TestFill(t *testing.T) {
	never := int64(-1)
	h := &mobycontainer.HostConfig{Resources: mobycontainer.Resources{MemorySwappiness: &never}}
	Fill(h, Host{CgroupV2: true})
	if h.ShmSize != 64<<20 || h.IpcMode != "private" || h.CgroupnsMode != "private" || h.Runtime != "runc" || h.MemorySwappiness != nil || len(h.MaskedPaths) == 0 || len(h.ReadonlyPaths) == 0 {
		t.Errorf("%+v", h)
	}
	h = &mobycontainer.HostConfig{ShmSize: 1, IpcMode: "host", MaskedPaths: []string{}, ReadonlyPaths: []string{"/x"}}
	Fill(h, Host{})
	if h.ShmSize != 1 || h.IpcMode != "host" || h.CgroupnsMode != "host" || len(h.MaskedPaths) != 0 || len(h.ReadonlyPaths) != 1 {
		t.Errorf("%+v", h)
	}
	h = &mobycontainer.HostConfig{Privileged: true}
	Fill(h, Host{CgroupV2: true})
	if h.CgroupnsMode != "private" || h.MaskedPaths != nil {
		t.Errorf("%+v", h)
	}
}

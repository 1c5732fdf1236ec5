package oci

import (
	"reflect"
	"slices"
	"testing"

	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/minictl/minictl/runtime/container"
)

func sharingWish(h *mobycontainer.HostConfig) Wish {
	return Wish{Spec: &container.Spec{ID: "1234567890abcdef", Config: &mobycontainer.Config{Cmd: []string{"sh"}}, HostConfig: h}}
}

func TestDeviceRules(t *testing.T) {
	w := sharingWish(&mobycontainer.HostConfig{Resources: mobycontainer.Resources{DeviceCgroupRules: []string{"c 42:* rm"}}})
	w.Devices = []Device{{Node: specs.LinuxDevice{Path: "/dev/x", Type: "b", Major: 8, Minor: 1}, Access: "r"}}
	s, _, err := Build(w)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range s.Linux.Resources.Devices[len(s.Linux.Resources.Devices)-2:] {
		minor := int64(-1)
		if r.Minor != nil {
			minor = *r.Minor
		}
		got = append(got, r.Type+" "+r.Access)
		if !r.Allow || (*r.Major != 8 || minor != 1) && (*r.Major != 42 || minor != -1) {
			t.Errorf("rule %+v", r)
		}
	}
	if want := []string{"b r", "c rm"}; !reflect.DeepEqual(got, want) {
		t.Errorf("rules %v, want %v", got, want)
	}
	if len(s.Linux.Devices) != 1 || s.Linux.Devices[0].Path != "/dev/x" {
		t.Errorf("nodes %v", s.Linux.Devices)
	}
	for _, bad := range []string{"", "c 1:2", "d 1:2 r", "c 1:2 x", "c 1:2 rwmr", "c 1:2 r\n", "c 99999999999:1 r"} {
		if err := ValidateDevices(&mobycontainer.HostConfig{Resources: mobycontainer.Resources{DeviceCgroupRules: []string{bad}}}); err == nil {
			t.Errorf("rule %q: no error", bad)
		}
	}
	if err := ValidateDevices(&mobycontainer.HostConfig{Resources: mobycontainer.Resources{Devices: []mobycontainer.DeviceMapping{{PathOnHost: "/dev/x", CgroupPermissions: "q"}}}}); err == nil {
		t.Error("permissions q: no error")
	}
}

func TestSharingNamespaces(t *testing.T) {
	w := sharingWish(&mobycontainer.HostConfig{PidMode: "container:x", IpcMode: "container:x", CgroupnsMode: "host"})
	w.Host.CgroupV2, w.PIDNS, w.IPCNS, w.ShmDir, w.Init = true, "/p", "/i", "/shm", "/host/init"
	s, _, err := Build(w)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []specs.LinuxNamespace{{Type: specs.PIDNamespace, Path: "/p"}, {Type: specs.IPCNamespace, Path: "/i"}} {
		if !slices.Contains(s.Linux.Namespaces, want) {
			t.Errorf("no %v in %v", want, s.Linux.Namespaces)
		}
	}
	if slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace }) {
		t.Error("a cgroup namespace of its own")
	}
	mounts := map[string]string{}
	for _, m := range s.Mounts {
		mounts[m.Destination] = m.Source
	}
	if mounts["/dev/shm"] != "/shm" || mounts["/sbin/docker-init"] != "/host/init" {
		t.Errorf("mounts %v", mounts)
	}
	if want := []string{"/sbin/docker-init", "--", "sh"}; !reflect.DeepEqual(s.Process.Args, want) {
		t.Errorf("args %v", s.Process.Args)
	}
}

func FuzzDeviceRule(f *testing.F) {
	f.Add("c 42:* rmw")
	f.Fuzz(func(_ *testing.T, text string) { _, _ = parseDeviceRule(text) })
}

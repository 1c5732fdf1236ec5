package oci

import (
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	units "github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/minictl/minictl/runtime/container"
)

func wish(c mobycontainer.Config, h mobycontainer.HostConfig) Wish {
	if c.Cmd == nil {
		c.Cmd = []string{"true"}
	}
	return Wish{
		Spec: &container.Spec{ID: strings.Repeat("a", 64), Config: &c, HostConfig: &h}, Netns: "/run/ns/a", Home: "/root",
		Host: Host{CgroupParent: "/minictl", Rlimits: map[string]specs.POSIXRlimit{"RLIMIT_NOFILE": {Type: "RLIMIT_NOFILE", Hard: 20000, Soft: 1024}}},
	}
}

func namespaceTypes(s *specs.Spec) []specs.LinuxNamespaceType {
	var out []specs.LinuxNamespaceType
	for _, n := range s.Linux.Namespaces {
		out = append(out, n.Type)
	}
	return out
}

func TestBuild(t *testing.T) {
	s, warnings, err := Build(wish(mobycontainer.Config{Hostname: "web", Env: []string{"PATH=/x", "HOSTNAME=y"}}, mobycontainer.HostConfig{}))
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if s.Hostname != "web" || s.Process.Cwd != "/" || s.Linux.CgroupsPath != "/minictl/"+strings.Repeat("a", 64) {
		t.Errorf("%+v", s)
	}
	if want := []string{"PATH=/x", "HOSTNAME=y", "HOME=/root"}; !slices.Equal(s.Process.Env, want) {
		t.Errorf("environment %q, want %q", s.Process.Env, want)
	}
	if got := namespaceTypes(s); !slices.Contains(got, specs.NetworkNamespace) || !slices.Contains(got, specs.PIDNamespace) || slices.Contains(got, specs.CgroupNamespace) {
		t.Errorf("namespaces %v", got)
	}
	if s.Linux.Seccomp == nil || len(s.Linux.MaskedPaths) == 0 || !slices.Contains(s.Process.Capabilities.Bounding, "CAP_NET_RAW") ||
		slices.Contains(s.Process.Capabilities.Bounding, "CAP_SYS_ADMIN") {
		t.Error("not closed as docker closes")
	}
}

// The filter has docker's architectures, less those that the kernel runs no programs of.
func TestFilterArchitectures(t *testing.T) {
	w := wish(mobycontainer.Config{}, mobycontainer.HostConfig{})
	for range 2 {
		s, _, err := Build(w)
		if err != nil {
			t.Fatal(err)
		}
		got := s.Linux.Seccomp.Architectures
		if len(got) == 0 {
			t.Fatal("none at all")
		}
		for _, a := range w.Host.NotRun {
			if slices.Contains(got, a) {
				t.Errorf("%s is among %q", a, got)
			}
		}
		if runtime.GOARCH == "amd64" && len(w.Host.NotRun)+len(got) != 3 {
			t.Errorf("%q, without %q", got, w.Host.NotRun)
		}
		w.Host.NotRun = []specs.Arch{specs.ArchX32}
	}
}

func TestBuildOptions(t *testing.T) {
	for _, c := range []struct {
		name string
		c    mobycontainer.Config
		h    mobycontainer.HostConfig
		ok   func(*specs.Spec) bool
	}{
		{"terminal", mobycontainer.Config{Tty: true}, mobycontainer.HostConfig{}, func(s *specs.Spec) bool {
			return s.Process.Terminal && slices.Contains(s.Process.Env, "TERM=xterm")
		}},
		{"read-only", mobycontainer.Config{}, mobycontainer.HostConfig{ReadonlyRootfs: true}, func(s *specs.Spec) bool { return s.Root.Readonly }},
		{"host PID and IPC", mobycontainer.Config{}, mobycontainer.HostConfig{PidMode: "host", IpcMode: "host"}, func(s *specs.Spec) bool {
			return !slices.Contains(namespaceTypes(s), specs.PIDNamespace) && !slices.Contains(namespaceTypes(s), specs.IPCNamespace)
		}},
		{"unconfined", mobycontainer.Config{}, mobycontainer.HostConfig{SecurityOpt: []string{"seccomp=unconfined"}}, func(s *specs.Spec) bool { return s.Linux.Seccomp == nil }},
		{"no new privileges", mobycontainer.Config{}, mobycontainer.HostConfig{SecurityOpt: []string{"no-new-privileges"}}, func(s *specs.Spec) bool { return s.Process.NoNewPrivileges }},
		{"cpus", mobycontainer.Config{}, mobycontainer.HostConfig{Resources: mobycontainer.Resources{NanoCPUs: 1.5e9}}, func(s *specs.Spec) bool {
			return *s.Linux.Resources.CPU.Quota == 150000 && *s.Linux.Resources.CPU.Period == 100000
		}},
		{"memory means as much swap", mobycontainer.Config{}, mobycontainer.HostConfig{Resources: mobycontainer.Resources{Memory: 8 << 20}}, func(s *specs.Spec) bool {
			return *s.Linux.Resources.Memory.Limit == 8<<20 && *s.Linux.Resources.Memory.Swap == 16<<20
		}},
		{"capabilities", mobycontainer.Config{}, mobycontainer.HostConfig{CapAdd: []string{"net_admin"}, CapDrop: []string{"CAP_NET_RAW"}}, func(s *specs.Spec) bool {
			b := s.Process.Capabilities.Bounding
			return slices.Contains(b, "CAP_NET_ADMIN") && !slices.Contains(b, "CAP_NET_RAW")
		}},
		{"no capabilities", mobycontainer.Config{}, mobycontainer.HostConfig{CapDrop: []string{"ALL"}}, func(s *specs.Spec) bool { return len(s.Process.Capabilities.Bounding) == 0 }},
		{"annotations", mobycontainer.Config{}, mobycontainer.HostConfig{Annotations: map[string]string{"a": "b"}}, func(s *specs.Spec) bool { return s.Annotations["a"] == "b" }},
		{"cgroup parent", mobycontainer.Config{}, mobycontainer.HostConfig{Resources: mobycontainer.Resources{CgroupParent: "../x"}}, func(s *specs.Spec) bool {
			return s.Linux.CgroupsPath == "/x/"+strings.Repeat("a", 64)
		}},
		{"AppArmor is not there", mobycontainer.Config{}, mobycontainer.HostConfig{}, func(s *specs.Spec) bool { return s.Process.ApparmorProfile == "" }},
		{"shm size", mobycontainer.Config{}, mobycontainer.HostConfig{ShmSize: 1 << 20}, func(s *specs.Spec) bool {
			return slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool {
				return m.Destination == "/dev/shm" && slices.Contains(m.Options, "size=1048576")
			})
		}},
	} {
		s, _, err := Build(wish(c.c, c.h))
		if err != nil || !c.ok(s) {
			t.Errorf("%s: %v %+v", c.name, err, s)
		}
	}
}

func TestClamps(t *testing.T) {
	w := wish(mobycontainer.Config{}, mobycontainer.HostConfig{
		CapAdd:    []string{"SYS_RESOURCE"},
		Resources: mobycontainer.Resources{Ulimits: []*units.Ulimit{{Name: "nofile", Soft: 99999, Hard: 99999}}},
	})
	w.Host.Capabilities = []string{"CAP_CHOWN"}
	s, warnings, err := Build(w)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Process.Rlimits; len(got) != 1 || got[0].Hard != 20000 || got[0].Soft != 20000 {
		t.Errorf("limits %+v", got)
	}
	if got := s.Process.Capabilities.Bounding; !slices.Equal(got, []string{"CAP_CHOWN"}) {
		t.Errorf("capabilities %v", got)
	}
	if text := strings.Join(warnings, "\n"); !strings.Contains(text, "CAP_SYS_RESOURCE") || !strings.Contains(text, "nofile=99999:99999") {
		t.Errorf("warnings %q", warnings)
	}
	if _, _, err := Build(wish(mobycontainer.Config{}, mobycontainer.HostConfig{CapAdd: []string{"NOPE"}})); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an unknown capability: %v", err)
	}
	w = wish(mobycontainer.Config{}, mobycontainer.HostConfig{})
	w.Spec.Config.Cmd = nil
	if _, _, err := Build(w); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no command: %v", err)
	}
}

func TestMountsAreSorted(t *testing.T) {
	var mounts []specs.Mount
	for _, target := range []string{"/a/b/c", "/b", "/a/b/", "/a", "/z/y", "/"} {
		m, err := Bind(container.Mount{Target: target, ReadOnly: target == "/a", Propagation: map[string]string{"/b": "rslave"}[target]}, "/from", Host{})
		if err != nil {
			t.Fatal(err)
		}
		mounts = append(mounts, m)
	}
	SortMounts(mounts)
	var got []string
	for _, m := range mounts {
		got = append(got, m.Source+" "+m.Destination+" "+strings.Join(m.Options, ","))
	}
	want := []string{
		"/from / rbind,rprivate", "/from /b rbind,rslave", "/from /a rbind,rprivate,ro", "/from /a/b/ rbind,rprivate", "/from /z/y rbind,rprivate", "/from /a/b/c rbind,rprivate",
	}
	if !slices.Equal(got, want) {
		t.Errorf("mounts %q", got)
	}
}

func TestUser(t *testing.T) {
	passwd := []byte("root:x:0:0:root:/root:/bin/sh\nwww:x:33:34:www:/var/www:/bin/sh\n")
	group := []byte("root:x:0:\nextra:x:50:www\nops:x:60:\n")
	for _, c := range []struct {
		asked string
		extra []string
		want  specs.User
		home  string
		bad   bool
	}{
		{asked: "", want: specs.User{}, home: "/root"},
		{asked: "www", want: specs.User{UID: 33, GID: 34, AdditionalGids: []uint32{50}}, home: "/var/www"},
		{asked: "www:ops", want: specs.User{UID: 33, GID: 60}, home: "/var/www"},
		{asked: "7:8", want: specs.User{UID: 7, GID: 8}, home: "/"},
		{asked: "7", extra: []string{"ops", "70"}, want: specs.User{UID: 7, AdditionalGids: []uint32{60, 70}}, home: "/"},
		{asked: "nobody-here", bad: true},
	} {
		got, home, err := User(c.asked, passwd, group, c.extra)
		if c.bad {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s: %v", c.asked, err)
			}
			continue
		}
		slices.Sort(got.AdditionalGids)
		if err != nil || got.UID != c.want.UID || got.GID != c.want.GID || !slices.Equal(got.AdditionalGids, c.want.AdditionalGids) || home != c.home {
			t.Errorf("%q: %+v home %s, %v", c.asked, got, home, err)
		}
	}
}

func TestCapabilityNames(t *testing.T) {
	if got := CapabilityNames(1<<0 | 1<<13 | 1<<40); !slices.Equal(got, []string{"CAP_CHOWN", "CAP_NET_RAW", "CAP_CHECKPOINT_RESTORE"}) {
		t.Errorf("%v", got)
	}
}

func TestTmpfs(t *testing.T) {
	got := Tmpfs(&mobycontainer.HostConfig{
		Tmpfs:  map[string]string{"/b": "size=1m,exec", "/a": ""},
		Mounts: []mount.Mount{{Type: "tmpfs", Target: "/c", ReadOnly: true, TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 5, Mode: 0o700, Options: [][]string{{"exec"}}}}},
	})
	var text []string
	for _, m := range got {
		text = append(text, m.Destination+" "+strings.Join(m.Options, ","))
	}
	if want := []string{"/a noexec,nosuid,nodev", "/b noexec,nosuid,nodev,size=1m,exec", "/c noexec,nosuid,nodev,ro,size=5,mode=700,exec"}; !slices.Equal(text, want) {
		t.Errorf("%q, want %q", text, want)
	}
}

func TestAppArmor(t *testing.T) {
	for _, c := range []struct {
		host, opt  string
		privileged bool
		want       string
	}{
		{"", "", false, ""},
		{"", "apparmor=unconfined", true, ""},
		{"ours", "", false, "ours"},
		{"ours", "", true, "unconfined"},
		{"ours", "apparmor=mine", false, "mine"},
		{"ours", "apparmor=mine", true, "mine"},
		{"ours", "apparmor=unconfined", false, "unconfined"},
	} {
		w := wish(mobycontainer.Config{}, mobycontainer.HostConfig{Privileged: c.privileged})
		if c.opt != "" {
			w.Spec.HostConfig.SecurityOpt = []string{c.opt}
		}
		w.Host.AppArmor = c.host
		s, _, err := Build(w)
		if err != nil || s.Process.ApparmorProfile != c.want {
			t.Errorf("%+v: %+v, %v", c, s.Process, err)
		}
		p, err := Exec(w.Spec, ExecWish{Args: []string{"true"}, Host: w.Host})
		if err != nil || p.ApparmorProfile != c.want {
			t.Errorf("%+v: exec %+v, %v", c, p, err)
		}
	}
	h := &mobycontainer.HostConfig{SecurityOpt: []string{"apparmor=mine"}}
	if err := ValidateHost(h, Host{}); !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "--security-opt apparmor=mine") {
		t.Errorf("a profile where there is no AppArmor: %v", err)
	}
	if err := ValidateHost(h, Host{AppArmor: "ours"}); err != nil {
		t.Error(err)
	}
}

func TestBlockIO(t *testing.T) {
	w := wish(mobycontainer.Config{}, mobycontainer.HostConfig{Resources: mobycontainer.Resources{
		BlkioWeight: 300, BlkioWeightDevice: []*blkiodev.WeightDevice{{Path: "/dev/a", Weight: 20}},
		BlkioDeviceReadBps: []*blkiodev.ThrottleDevice{{Path: "/dev/b", Rate: 7}}, BlkioDeviceWriteIOps: []*blkiodev.ThrottleDevice{{Path: "/dev/a", Rate: 8}},
	}})
	if got := BlockDevices(&w.Spec.HostConfig.Resources); !slices.Equal(got, []string{"/dev/a", "/dev/b"}) {
		t.Errorf("devices %v", got)
	}
	w.BlockDevices = map[string]specs.LinuxBlockIODevice{"/dev/a": {Major: 8, Minor: 1}, "/dev/b": {Major: 8, Minor: 2}}
	s, _, err := Build(w)
	if err != nil {
		t.Fatal(err)
	}
	b := s.Linux.Resources.BlockIO
	if *b.Weight != 300 || *b.WeightDevice[0].Weight != 20 || b.WeightDevice[0].Minor != 1 || b.ThrottleReadBpsDevice[0].Minor != 2 || b.ThrottleReadBpsDevice[0].Rate != 7 ||
		b.ThrottleWriteIOPSDevice[0].Major != 8 || b.ThrottleWriteIOPSDevice[0].Rate != 8 || b.ThrottleWriteBpsDevice != nil || b.ThrottleReadIOPSDevice != nil {
		t.Errorf("%+v", b)
	}
	for text, c := range map[string]struct {
		r    mobycontainer.Resources
		host Host
		is   func(error) bool
	}{
		"--blkio-weight, --blkio-weight-device": {w.Spec.HostConfig.Resources, Host{Missing: []string{FlagBlkioWeight, FlagBlkioWeightDevice}}, errdefs.IsNotImplemented},
		"--device-read-bps":                     {w.Spec.HostConfig.Resources, Host{Missing: []string{FlagDeviceReadBps}}, errdefs.IsNotImplemented},
		"from 10 to 1000":                       {mobycontainer.Resources{BlkioWeight: 1001}, Host{}, errdefs.IsInvalidArgument},
		"/dev/x has 9":                          {mobycontainer.Resources{BlkioWeightDevice: []*blkiodev.WeightDevice{{Path: "/dev/x", Weight: 9}}}, Host{}, errdefs.IsInvalidArgument},
		"null":                                  {mobycontainer.Resources{BlkioDeviceReadBps: []*blkiodev.ThrottleDevice{nil}}, Host{}, errdefs.IsInvalidArgument},
	} {
		if err := ValidateHost(&mobycontainer.HostConfig{Resources: c.r}, c.host); !c.is(err) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := ValidateHost(w.Spec.HostConfig, Host{}); err != nil {
		t.Error(err)
	}
}

func TestSetEnv(t *testing.T) {
	got := SetEnv([]string{"A=1", "B=2", "C=3"}, []string{"B=x=y", "C", "D=", "NONE"})
	if want := []string{"A=1", "B=x=y", "D="}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

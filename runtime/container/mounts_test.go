package container

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// short is a mount as the tables below write it.
func short(m Mount) string {
	from := m.Source
	if m.Type == mount.TypeVolume {
		from = "[" + m.Name + "]"
	}
	s := from + "->" + m.Target
	for word, is := range map[string]bool{" ro": m.ReadOnly} {
		if is {
			s += word
		}
	}
	if m.NoCopy {
		s += " nocopy"
	}
	if m.Create {
		s += " create"
	}
	if m.Anonymous {
		s += " anonymous"
	}
	if m.Mode != "" {
		s += " mode=" + m.Mode
	}
	if m.Propagation != "" && m.Propagation != "rprivate" {
		s += " " + m.Propagation
	}
	return s
}

func all(ms []Mount) string {
	var out []string
	for _, m := range ms {
		out = append(out, short(m))
	}
	return strings.Join(out, "; ")
}

func TestMounts(t *testing.T) {
	for _, tt := range []struct {
		binds  []string
		mounts []mount.Mount
		tmpfs  string
		want   string // or the error's text
	}{
		{binds: []string{"/a:/b"}, want: "/a->/b create"},
		{binds: []string{"/a:/b/../c/:ro,rshared"}, want: "/a->/c ro create mode=ro,rshared rshared"},
		{binds: []string{"data:/d", "more:/e:ro,nocopy"}, want: "[data]->/d mode=z; [more]->/e ro nocopy mode=ro,nocopy"},
		{mounts: []mount.Mount{{Type: "bind", Source: "/a", Target: "/b", ReadOnly: true}}, want: "/a->/b ro"},
		{mounts: []mount.Mount{{Type: "volume", Target: "/b"}}, want: "[]->/b anonymous mode=z"},
		{mounts: []mount.Mount{{Type: "volume", Source: "v", Target: "/b", VolumeOptions: &mount.VolumeOptions{NoCopy: true}}, {Type: "tmpfs", Target: "/t"}}, want: "[v]->/b nocopy mode=z"},
		{binds: []string{"/a"}, want: "invalid volume specification: '/a'"},
		{binds: []string{"/a:"}, want: "invalid volume specification: '/a:'"},
		{binds: []string{":/a"}, want: "invalid volume specification: ':/a'"},
		{binds: []string{"a:/b:c:d"}, want: "invalid volume specification"},
		{binds: []string{"a:/b:"}, want: "invalid mode: "},
		{binds: []string{"a:b"}, want: "invalid mount path: 'b' mount path must be absolute"},
		{binds: []string{"a:/"}, want: "destination can't be '/'"},
		{binds: []string{"a:/x/.."}, want: "destination can't be '/'"},
		{binds: []string{"a:/b", "/c:/b/"}, want: "Duplicate mount point: /b"},
		{binds: []string{"a:/b"}, tmpfs: "/b/", want: "Duplicate mount point: /b"},
		{binds: []string{"a:/b"}, mounts: []mount.Mount{{Type: "tmpfs", Target: "/b"}}, want: "Duplicate mount point: /b"},
		{binds: []string{"a:/b:slave"}, want: "field BindOptions must not be specified"},
		{binds: []string{"/a:/b:nocopy"}, want: "field VolumeOptions must not be specified"},
		{mounts: []mount.Mount{{Type: "bind", Source: "a", Target: "/b"}}, want: "invalid mount path: 'a' mount path must be absolute"},
	} {
		h := &container.HostConfig{Binds: tt.binds, Mounts: tt.mounts}
		if tt.tmpfs != "" {
			h.Tmpfs = map[string]string{tt.tmpfs: ""}
		}
		ms, err := Mounts(h)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v %v: %v, want %s", tt.binds, tt.mounts, err, tt.want)
			}
			continue
		}
		if got := all(ms); got != tt.want {
			t.Errorf("%v %v: %s, want %s", tt.binds, tt.mounts, got, tt.want)
		}
	}
}

func TestInheritedMounts(t *testing.T) {
	from := []Mount{{Type: "volume", Name: "v", Target: "/v"}, {Type: "bind", Source: "/b", Target: "/b", ReadOnly: true}}
	if got := all(Inherit(from, true)); got != "[v]->/v ro nocopy; /b->/b ro nocopy" {
		t.Error(got)
	}
	if got := all(Inherit(from, false)); got != "[v]->/v nocopy; /b->/b ro nocopy" || from[0].NoCopy {
		t.Error(got)
	}
	if got := all(Overlay(from, []Mount{{Type: "volume", Name: "w", Target: "/v"}})); got != "/b->/b ro; [w]->/v" {
		t.Error(got)
	}
	c := &container.Config{Volumes: map[string]struct{}{"/v": {}, "/b/": {}, "/new": {}, "/t": {}, "/a/../c": {}}}
	ms, err := Anonymous(c, &container.HostConfig{Tmpfs: map[string]string{"/t": ""}}, from)
	if got := all(ms); err != nil || got != "[]->/c anonymous; []->/new anonymous" {
		t.Error(got, err)
	}
	for _, bad := range []string{"d", "/", "", "."} {
		if _, err := Anonymous(&container.Config{Volumes: map[string]struct{}{bad: {}}}, &container.HostConfig{}, nil); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestVolumesFrom(t *testing.T) {
	for in, want := range map[string]string{
		"c": "c false", "c:ro": "c true", "c:rw": "c false", "c:z,ro": "c true", "": "invalid", ":ro": "invalid", "c:": "invalid", "c:x": "invalid mode for volumes-from: x",
	} {
		ref, ro, err := VolumesFrom(in)
		if got := fmt.Sprint(ref, " ", ro); err == nil && got != want || err != nil && (!errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%q: %q %v", in, got, err)
		}
	}
}

// FuzzMounts takes any -v: what comes out has a clean, absolute target and one kind of source.
func FuzzMounts(f *testing.F) {
	for _, s := range []string{"/a:/b", "v:/b:ro,nocopy", "a:b:c:d", "::", "/:/:/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		ms, err := Mounts(&container.HostConfig{Binds: []string{v}})
		if err != nil {
			return
		}
		if m := ms[0]; !strings.HasPrefix(m.Target, "/") || m.Target == "/" || strings.Contains(m.Target, "/../") || (m.Name == "") == (m.Source == "") {
			t.Errorf("%q: %+v", v, m)
		}
	})
}

func TestMountOptions(t *testing.T) {
	bind := func(o mount.BindOptions) mount.Mount {
		return mount.Mount{Type: mount.TypeBind, Source: "/a", Target: "/b", ReadOnly: true, BindOptions: &o}
	}
	for _, tt := range []struct {
		m    mount.Mount
		want Mount
	}{
		{bind(mount.BindOptions{}), Mount{}},
		{bind(mount.BindOptions{CreateMountpoint: true}), Mount{Create: true}},
		{bind(mount.BindOptions{NonRecursive: true}), Mount{NonRecursive: true}},
		{bind(mount.BindOptions{ReadOnlyNonRecursive: true}), Mount{ReadOnlyBelow: ReadOnlyNever}},
		{bind(mount.BindOptions{ReadOnlyForceRecursive: true}), Mount{ReadOnlyBelow: ReadOnlyForced}},
	} {
		got, err := Mounts(&container.HostConfig{Mounts: []mount.Mount{tt.m}})
		if err != nil || got[0].Create != tt.want.Create || got[0].NonRecursive != tt.want.NonRecursive || got[0].ReadOnlyBelow != tt.want.ReadOnlyBelow {
			t.Errorf("%+v: %+v, %v", tt.m.BindOptions, got, err)
		}
	}
}

func TestValidateMounts(t *testing.T) {
	for _, tt := range []struct {
		m    mount.Mount
		want string // part of the refusal; empty: none
	}{
		{mount.Mount{Type: "bind", Source: "/a", Target: "/b"}, ""},
		{mount.Mount{Type: "bind", Source: "/a"}, "field Target must not be empty"},
		{mount.Mount{Type: "bind", Target: "/b"}, "field Source must not be empty"},
		{mount.Mount{Type: "bind", Source: "/a", Target: "/b/.."}, "destination can't be '/'"},
		{mount.Mount{Type: "bind", Source: "/a", Target: "/b", VolumeOptions: &mount.VolumeOptions{}}, `"bind": field VolumeOptions must not be specified`},
		{mount.Mount{Type: "volume", Target: "/b", BindOptions: &mount.BindOptions{}}, `"volume": field BindOptions must not be specified`},
		{mount.Mount{Type: "volume", Target: "/b", TmpfsOptions: &mount.TmpfsOptions{}}, "field TmpfsOptions"},
		{mount.Mount{Type: "volume", Target: "/b", ReadOnly: true}, "must not set ReadOnly mode when using anonymous volumes"},
		{mount.Mount{Type: "tmpfs", Target: "/b", Source: "x"}, "field Source must not be specified"},
		{mount.Mount{Type: "tmpfs", Target: "/b", TmpfsOptions: &mount.TmpfsOptions{Options: [][]string{{"exec"}}}}, ""},
		{mount.Mount{Type: "tmpfs", Target: "/b", TmpfsOptions: &mount.TmpfsOptions{Options: [][]string{{"uid", "5"}}}}, `invalid option "uid=5"`},
		{mount.Mount{Type: "tmpfs", Target: "/b", TmpfsOptions: &mount.TmpfsOptions{Options: [][]string{{}}}}, `invalid option`},
		{mount.Mount{Type: "bind", Source: "/a", Target: "/b", BindOptions: &mount.BindOptions{Propagation: "x"}}, "invalid propagation mode: x"},
		{mount.Mount{Type: "bind", Source: "/a", Target: "/b", BindOptions: &mount.BindOptions{ReadOnlyForceRecursive: true}}, "mount options conflict: !ReadOnly"},
		{mount.Mount{Type: "bind", Source: "/a", Target: "/b", ReadOnly: true, BindOptions: &mount.BindOptions{ReadOnlyForceRecursive: true, ReadOnlyNonRecursive: true}}, "mount options conflict: ReadOnlyNonRecursive"},
	} {
		err := Validate(&container.Config{}, &container.HostConfig{Mounts: []mount.Mount{tt.m}})
		if tt.want == "" && err != nil || tt.want != "" && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: %v, want %q", tt.m, err, tt.want)
		}
	}
	for tmpfs, want := range map[string]string{
		"/t": "", "/t:": "", "/t:size=1m,mode=700,exec,ro": "", "t": "must be absolute", "/": "destination can't be '/'", "/t:sise=1": "sise=1", "/t:size=": "size=", "/t:exec=1": "exec=1", "/t:,": `""`,
	} {
		target, options, _ := strings.Cut(tmpfs, ":")
		err := Validate(&container.Config{}, &container.HostConfig{Tmpfs: map[string]string{target: options}})
		if want == "" && err != nil || want != "" && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), want)) {
			t.Errorf("--tmpfs %s: %v, want %q", tmpfs, err, want)
		}
	}
}

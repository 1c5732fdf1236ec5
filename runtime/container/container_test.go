package container

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestMerge(t *testing.T) {
	img := ocispec.ImageConfig{
		Entrypoint: []string{"/entry"}, Cmd: []string{"serve"}, Env: []string{"PATH=/bin", "A=image"}, WorkingDir: "/srv", User: "www",
		Labels: map[string]string{"l": "image", "m": "image"}, ExposedPorts: map[string]struct{}{"80/tcp": {}}, StopSignal: "SIGQUIT",
	}
	for _, c := range []struct {
		name string
		user mobycontainer.Config
		args []string
	}{
		{"nothing given", mobycontainer.Config{}, []string{"/entry", "serve"}},
		{"a command keeps the entrypoint", mobycontainer.Config{Cmd: []string{"x"}}, []string{"/entry", "x"}},
		{"an entrypoint drops the command", mobycontainer.Config{Entrypoint: []string{"/e"}}, []string{"/e"}},
		{"both", mobycontainer.Config{Entrypoint: []string{"/e"}, Cmd: []string{"x"}}, []string{"/e", "x"}},
		{"no entrypoint at all", mobycontainer.Config{Entrypoint: []string{""}, Cmd: []string{"x"}}, []string{"x"}},
	} {
		Merge(&c.user, img)
		s := Spec{Config: &c.user}
		if got := s.Args(); !slices.Equal(got, c.args) {
			t.Errorf("%s: %q, want %q", c.name, got, c.args)
		}
	}
	user := mobycontainer.Config{Env: []string{"A=user", "B"}, Labels: map[string]string{"l": "user"}, User: "me"}
	Merge(&user, img)
	if want := []string{"PATH=/bin", "A=user"}; !slices.Equal(user.Env, want) {
		t.Errorf("environment %q, want %q", user.Env, want)
	}
	if user.Labels["l"] != "user" || user.Labels["m"] != "image" || user.User != "me" || user.WorkingDir != "/srv" || user.StopSignal != "SIGQUIT" || len(user.ExposedPorts) != 1 {
		t.Errorf("merged: %+v", user)
	}
	if img.Labels["l"] != "image" {
		t.Error("the image's own labels were changed")
	}
}

func TestValidate(t *testing.T) {
	swappy := int64(10)
	for _, c := range []struct {
		name string
		c    mobycontainer.Config
		h    mobycontainer.HostConfig
		is   func(error) bool
		text string
	}{
		{"plain", mobycontainer.Config{}, mobycontainer.HostConfig{}, nil, ""},
		{"relative folder", mobycontainer.Config{WorkingDir: "x"}, mobycontainer.HostConfig{}, errdefs.IsInvalidArgument, "absolute path"},
		{"long host name", mobycontainer.Config{Hostname: strings.Repeat("x", 65)}, mobycontainer.HostConfig{}, errdefs.IsInvalidArgument, "64"},
		{"tiny memory", mobycontainer.Config{}, mobycontainer.HostConfig{Resources: mobycontainer.Resources{Memory: 1}}, errdefs.IsInvalidArgument, "6MB"},
		{"memory", mobycontainer.Config{}, mobycontainer.HostConfig{Resources: mobycontainer.Resources{Memory: 6 << 20, MemorySwappiness: &swappy}}, nil, ""},
		{"two ways to say cpus", mobycontainer.Config{}, mobycontainer.HostConfig{Resources: mobycontainer.Resources{NanoCPUs: 1, CPUQuota: 1}}, errdefs.IsInvalidArgument, "Conflicting"},
		{"bad variable", mobycontainer.Config{Env: []string{"=x"}}, mobycontainer.HostConfig{}, errdefs.IsInvalidArgument, "environment"},
		{"links", mobycontainer.Config{}, mobycontainer.HostConfig{Links: []string{"a:b"}}, errdefs.IsNotImplemented, "--link on the default bridge"},
		{"several at once", mobycontainer.Config{}, mobycontainer.HostConfig{StorageOpt: map[string]string{"size": "1"}, Links: []string{"a"}}, errdefs.IsNotImplemented, "--link on the default bridge, --storage-opt"},
		{"image mounts", mobycontainer.Config{}, mobycontainer.HostConfig{Mounts: []mount.Mount{{Type: "image", Source: "x", Target: "/x"}}}, errdefs.IsNotImplemented, "--mount type=image"},
	} {
		err := Validate(&c.c, &c.h)
		if (c.is == nil) != (err == nil) || err != nil && (!c.is(err) || !strings.Contains(err.Error(), c.text)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"web": true, "a1": true, "a_b.c-d": true, "A9": true,
		"": false, "a": false, "-a": false, ".a": false, "_a": false, "a/b": false, "a b": false, "ä1": false, strings.Repeat("a", 256): false,
	} {
		if ValidName(name) != want {
			t.Errorf("%q: %t", name, !want)
		}
	}
}

func TestText(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		s    Status
		want string
	}{
		{Status{State: mobycontainer.StateCreated}, "Created"},
		{Status{State: mobycontainer.StateRunning, StartedAt: now.Add(-3 * time.Second)}, "Up 3 seconds"},
		{Status{State: mobycontainer.StatePaused, StartedAt: now.Add(-3 * time.Minute)}, "Up 3 minutes (Paused)"},
		{Status{State: mobycontainer.StateExited, ExitCode: 7, FinishedAt: now.Add(-2 * time.Hour)}, "Exited (7) 2 hours ago"},
		{Status{State: mobycontainer.StateExited}, "Created"},
	} {
		if got := c.s.Text(now); got != c.want {
			t.Errorf("%+v: %q, want %q", c.s, got, c.want)
		}
	}
}

package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// actions gives the actions of one kind of object, in the order they happened, with the attributes in the format.
func actions(h *lab.Host, kind, of, format string) string {
	return strings.Join(lines(h.MustDocker("events", "--since", "0", "--until", "0s", "--filter", "type="+kind, "--filter", kind+"="+of, "--format", format)), " ")
}

// TestEventOrder is the order in which clients hear of what happens to a container. Compose's up, --wait and watch tell by
// it whether a container ended, was stopped, or comes back.
func TestEventOrder(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	const withCodes = `{{.Action}}{{with .Actor.Attributes.signal}}({{.}}){{end}}{{with .Actor.Attributes.exitCode}}({{.}}){{end}}`
	const obedient, deaf = "trap 'exit 0' TERM; echo up; while :; do usleep 20000; done", "trap '' TERM; echo up; while :; do usleep 20000; done"
	run := func(name, script string, flags ...string) {
		h.MustDocker(append(append([]string{"run", "-d", "--name", name, "--network", "none"}, flags...), "busybox", "sh", "-c", script)...)
	}
	up := func(name string) { // its trap is set
		l.Eventually(soon, func() error {
			if out := h.MustDocker("logs", name); !strings.Contains(out, "up") {
				return errf("%s is not up", name)
			}
			return nil
		})
	}
	for _, c := range []struct {
		name, want string
		act        func(name string)
	}{
		{"natural-exit", `create start die(3)`, func(n string) {
			run(n, "exit 3")
			h.MustDocker("wait", n)
		}},
		{"policy", `create start die(1) start die(1)`, func(n string) {
			run(n, "exit 1", "--restart", "on-failure:1")
			docker := clients()[1]
			docker.until(l, h, n, "{{.State.Status}} {{.RestartCount}}", "exited 1")
		}},
		{"stop", `create start kill(15) die(0) stop`, func(n string) {
			run(n, obedient)
			up(n)
			h.MustDocker("stop", n)
		}},
		{"stop-deaf", `create start kill(15) kill(9) die(137) stop`, func(n string) {
			run(n, deaf)
			up(n)
			h.MustDocker("stop", "-t", "0", n)
		}},
		{"restart", `create start kill(15) die(0) stop start restart`, func(n string) {
			run(n, obedient)
			up(n)
			h.MustDocker("restart", n)
		}},
		{"kill", `create start kill(9) die(137)`, func(n string) {
			run(n, deaf)
			h.MustDocker("kill", n)
			h.MustDocker("wait", n)
		}},
		{"oom", `create start oom die(137)`, func(n string) {
			run(n, "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done", "-m", "8m")
			h.MustDocker("wait", n)
		}},
		{"rm", `create start die(0) destroy`, func(n string) {
			run(n, "true")
			h.MustDocker("wait", n)
			h.MustDocker("rm", n)
		}},
		{"rm-f", `create start kill(9) die(137) destroy`, func(n string) {
			run(n, deaf)
			h.MustDocker("rm", "-f", n)
		}},
		{"run-rm", `create attach start die(0) destroy`, func(n string) {
			h.MustDocker("run", "--rm", "--name", n, "--network", "none", "busybox", "true")
		}},
		{"exec", `create start exec_create: false exec_start: false exec_die(1)`, func(n string) {
			run(n, deaf)
			h.Docker("exec", n, "false")
		}},
		{"healthy", `create start exec_create: true exec_start: true exec_die(0) health_status: healthy`, func(n string) {
			// A docker CLI of before 2023 does not know the last flag.
			h.MustMinictl("run", "-d", "--name", n, "--network", "none", "--health-cmd", "true", "--health-interval", "1h",
				"--health-start-period", "1h", "--health-start-interval", "100ms", "busybox", "sh", "-c", deaf)
			docker := clients()[1]
			docker.until(l, h, n, "{{.State.Health.Status}}", "healthy")
		}},
		{"rename", `create rename start`, func(n string) {
			h.MustDocker("create", "--name", "was", "--network", "none", "busybox", "sleep", "600")
			h.MustDocker("rename", "was", n)
			h.MustDocker("start", n)
		}},
		{"changed", `create start update pause unpause`, func(n string) {
			run(n, deaf)
			h.MustDocker("update", "-m", "64m", "--memory-swap", "64m", n)
			h.MustDocker("pause", n)
			h.MustDocker("unpause", n)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.act(c.name)
			id := firstField(h.MustDocker("events", "--since", "0", "--until", "0s", "--filter", "type=container", "--filter", "container="+c.name, "--format", "{{.Actor.ID}}"))
			if got := strings.ReplaceAll(actions(h, "container", id, withCodes), "exec_create: /bin/sh -c ", "exec_create: "); strings.ReplaceAll(got, "exec_start: /bin/sh -c ", "exec_start: ") != c.want {
				t.Errorf("%s\nwant %s", got, c.want)
			}
			h.Docker("rm", "-f", id)
		})
	}
}

func firstField(s string) string {
	if f := strings.Fields(s); len(f) > 0 {
		return f[0]
	}
	return ""
}

// TestEventsOfOtherObjects are those of images, networks and volumes.
func TestEventsOfOtherObjects(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	image := strings.TrimSpace(h.MustDocker("image", "inspect", "-f", "{{.Id}}", "busybox"))
	h.MustDocker("tag", "busybox", "mine/box:1")
	h.MustDocker("rmi", "mine/box:1")
	of := func(kind string, filters ...string) string {
		args := []string{"events", "--since", "0", "--until", "0s", "--filter", "type=" + kind, "--format", "{{.Action}} {{.Actor.Attributes.name}}"}
		for _, f := range filters {
			args = append(args, "--filter", f)
		}
		return strings.Join(lines(h.MustDocker(args...)), ", ")
	}
	if got, want := of("image", "image="+image), "load busybox:latest, tag mine/box:1, untag mine/box:1"; got != want {
		t.Errorf("image: %s, want %s", got, want)
	}
	h.MustDocker("rmi", "httpd")
	if got := of("image", "image=httpd"); got != "load httpd:latest, untag httpd:latest" {
		t.Errorf("the image by its name: %s", got)
	}
	if got := of("image", "event=delete"); !strings.HasPrefix(got, "delete sha256:") {
		t.Errorf("delete: %s", got)
	}

	h.MustDocker("network", "create", "back")
	h.MustDocker("run", "-d", "--name", "one", "--network", "back", "-v", "data:/data", "busybox", "sleep", "600")
	h.MustDocker("network", "create", "front")
	h.MustDocker("network", "connect", "front", "one")
	h.MustDocker("network", "disconnect", "front", "one")
	h.MustDocker("rm", "-f", "one")
	// What a run's end takes with it has gone when its end is told: die, then stop or destroy. Of the beginning docker's
	// own order has changed between versions.
	h.MustDocker("run", "-d", "--name", "two", "--network", "back", "-v", "data:/data", "busybox", "sleep", "600")
	h.MustDocker("stop", "-t", "0", "two")
	h.MustDocker("rm", "two")
	h.MustDocker("run", "--rm", "--name", "three", "--network", "back", "-v", "data:/data", "busybox", "true")
	for name, want := range map[string]string{
		"two": "disconnect unmount die stop destroy", "three": "disconnect unmount die destroy",
	} {
		id := firstField(h.MustDocker("events", "--since", "0", "--until", "0s", "--filter", "container="+name, "--format", "{{.Actor.ID}}"))
		var got []string
		for _, line := range lines(h.MustDocker("events", "--since", "0", "--until", "0s", "--format", "{{.Action}} {{.Actor.ID}} {{.Actor.Attributes.container}}")) {
			f := strings.Fields(line)
			if slices.Contains(f[1:], id) && slices.Contains([]string{"disconnect", "unmount", "die", "stop", "destroy"}, f[0]) {
				got = append(got, f[0])
			}
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("the end of %s: %s, want %s", name, got, want)
		}
	}
	// Times may have fractions: of two events the first alone is from before the second.
	stamps := lines(h.MustDocker("events", "--since", "0", "--until", "0s", "--filter", "container=two", "--format", "{{.TimeNano}}"))
	second := func(nano string) string { return nano[:len(nano)-9] + "." + nano[len(nano)-9:] }
	first, last := second(stamps[0]), second(stamps[len(stamps)-1])
	if n := len(lines(h.MustDocker("events", "--since", first, "--until", last, "--filter", "container=two", "--format", "{{.Action}}"))); n != len(stamps) {
		t.Errorf("from %s to %s: %d of %d events", first, last, n, len(stamps))
	}
	if got := lines(h.MustDocker("events", "--since", first, "--until", first, "--filter", "container=two", "--format", "{{.Action}}")); len(got) != 1 || got[0] != "create" {
		t.Errorf("at %s: %v", first, got)
	}
	h.MustDocker("network", "rm", "front", "back")
	h.MustDocker("volume", "rm", "data")
	for _, name := range []string{"front", "back"} {
		want := "create connect disconnect destroy"
		if name == "back" { // used three times
			want = "create" + strings.Repeat(" connect disconnect", 3) + " destroy"
		}
		if got := actions(h, "network", name, "{{.Action}}"); got != want {
			t.Errorf("network %s: %s, want %s", name, got, want)
		}
	}
	if got, want := actions(h, "volume", "data", "{{.Action}}"), "create"+strings.Repeat(" mount unmount", 3)+" destroy"; got != want {
		t.Errorf("volume: %s, want %s", got, want)
	}
}

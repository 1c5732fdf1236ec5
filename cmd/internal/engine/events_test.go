package engine

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"github.com/minictl/minictl/cmd/internal/api"
)

func TestMatchEvent(t *testing.T) {
	message := func(kind events.Type, action, id string, attrs ...string) events.Message {
		m := events.Message{Type: kind, Action: events.Action(action), Scope: "local", Actor: events.Actor{ID: id, Attributes: map[string]string{}}}
		for _, a := range attrs {
			k, v, _ := strings.Cut(a, "=")
			m.Actor.Attributes[k] = v
		}
		return m
	}
	all := map[string]events.Message{
		"start": message("container", "start", "abcdef", "name=web", "image=reg:5000/busybox:1", "l=1"),
		"exec":  message("container", "exec_start: sh -c x", "abcdef", "name=web", "image=busybox"),
		"net":   message("network", "create", "012345", "name=ov"),
		"pull":  message("image", "pull", "sha256:77", "name=reg:5000/busybox"),
	}
	for _, c := range []struct{ filter, want string }{
		{"", "exec net pull start"},
		{"type=container", "exec start"},
		{"event=exec_start", "exec"},
		{"event=exec_start: sh -c x", "exec"},
		{"event=exec", ""},
		{"container=abc", "exec start"},
		{"container=we", "exec start"},
		{"container=nope", ""},
		{"network=ov", "net"},
		{"network=0123", "net"},
		{"image=reg:5000/busybox", "pull start"},
		{"image=reg:5000/busybox:1", "start"},
		{"image=busybox", "exec"},
		{"image=sha256:77", "pull"},
		{"label=l=1", "start"},
		{"scope=swarm", ""},
		{"daemon=host1", ""},
		{"plugin=x", ""},
	} {
		f := api.Filters{}
		if k, v, ok := strings.Cut(c.filter, "="); ok {
			f[k] = map[string]bool{v: true}
		}
		var got []string
		for _, name := range []string{"exec", "net", "pull", "start"} {
			if matchEvent(f, all[name]) {
				got = append(got, name)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", c.filter, got, c.want)
		}
	}
	if err := knownEvents(api.Filters{"nonsense": {"1": true}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a filter that nobody knows: %v", err)
	}
}

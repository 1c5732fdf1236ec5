package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/minictl/minictl/testing/lab"
	"github.com/minictl/minictl/testing/plugin"
)

// pluginRole makes this test program a plugin, on a host of the lab.
const pluginRole = "plugin"

// pluginMain serves on a socket, with options in JSON.
func pluginMain(args []string) error {
	var o plugin.Options
	if err := json.Unmarshal([]byte(args[1]), &o); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return plugin.Serve(ctx, args[0], plugin.New(o))
}

// third is a plugin that runs on a host.
type third struct {
	plugin.Control
	t    *testing.T
	l    *lab.Lab
	h    *lab.Host
	name string
	p    *lab.Process
}

// startPlugin starts one, and waits until it answers.
func startPlugin(t *testing.T, l *lab.Lab, h *lab.Host, name string, o plugin.Options) *third {
	t.Helper()
	p := &third{t: t, l: l, h: h, name: name}
	p.start(o)
	return p
}

func (p *third) start(o plugin.Options) {
	p.t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		p.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	socket := "/run/docker/plugins/" + p.name + ".sock"
	p.p = p.h.Start(self, pluginRole, socket, string(text))
	p.Control = plugin.Control{Socket: p.h.Path(socket)}
	p.l.Eventually(soon, func() error {
		_, err := p.Books(context.Background())
		return err
	})
}

// set changes how it is.
func (p *third) set(o plugin.Options) {
	p.t.Helper()
	if err := p.Set(context.Background(), o); err != nil {
		p.t.Fatal(err)
	}
}

// heard are the calls since the last time, with what differs from run to run taken out.
func (p *third) heard() string {
	p.t.Helper()
	calls, err := p.Calls(context.Background())
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.Join(calls, "\n")
}

func (p *third) books() plugin.Books {
	p.t.Helper()
	b, err := p.Books(context.Background())
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

// wantEmpty checks that the plugin has been told of every end.
func (p *third) wantEmpty() {
	p.t.Helper()
	if b := p.books(); !b.Empty() {
		p.t.Errorf("plugin %s still has %+v", p.name, b)
	}
}

// TestRemoteDriver runs containers on a network that another program makes, by libnetwork's protocol: they reach each
// other by name, and nothing stays on either side.
func TestRemoteDriver(t *testing.T) {
	t.Parallel()
	for _, client := range []string{"minictl", "docker"} {
		t.Run(client, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			h := start(t, l, "host1")
			must := h.MustMinictl
			if client == "docker" {
				must = h.MustDocker
			}
			p := startPlugin(t, l, h, "third", plugin.Options{})
			before := h.Snapshot()
			must("network", "create", "-d", "third", "--subnet", "10.9.0.0/24", "-o", "color=blue", "net1")
			must("run", "-d", "--name", "box1", "--network", "net1", "busybox", "sleep", "600")
			must("run", "-d", "--name", "box2", "--network", "net1", "busybox", "sleep", "600")
			wantMatch(t, "by name", must("exec", "box2", "ping", "-c", "1", "box1"), ` 0% packet loss`)
			must("rm", "-f", "box1", "box2")
			must("network", "rm", "net1")
			p.wantEmpty()
			if diff := lab.Diff(before, h.Snapshot()); diff != "" {
				t.Errorf("left behind:\n%s", diff)
			}
		})
	}
}

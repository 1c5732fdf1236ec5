// Package shim is a container's shim: containerd's own for runc, which here also
// keeps the container's stdio, its log, and file descriptors that shall outlive
// the daemon.
package shim

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
)

// A shim idles, and there is one per container: from settleTime after its start on, gcPercent trades CPU for memory. Most
// of what it ever allocates is garbage of the start, which is collected once, then; a container that has ended by then does
// not wait for any of it.
const (
	startPercent = 100 // Go's own: none of it before the heap has 4 MB
	gcPercent    = 20
	settleTime   = 2 * time.Second
)

// Main runs the shim by containerd's command line (start, delete, or the server).
func Main() {
	// Imported packages may have put plugins of the daemon's side into the global
	// registry; this process serves a task and nothing else.
	registry.Reset()
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn:   newTaskService,
	})
	m := tidyManager{manager.NewShimManager("io.containerd.runc.v2")}
	if done, err := startLegacy(m, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	} else if done {
		return
	}
	shim.RunShim(context.Background(), m)
}

func newTaskService(ic *plugin.InitContext) (any, error) {
	debug.SetGCPercent(startPercent) // containerd's 40 has been set already
	// For runc, a Go program that does one thing after another for a few milliseconds: threads that look for more to do
	// cost it, and all that starts beside it, a tenth of its time.
	if err := os.Setenv("GOMAXPROCS", "1"); err != nil {
		return nil, err
	}
	time.AfterFunc(settleTime, func() {
		debug.SetGCPercent(gcPercent)
		debug.FreeOSMemory()
	})
	pub, err := ic.GetByID(plugins.EventPlugin, "publisher")
	if err != nil {
		return nil, err
	}
	sd, err := ic.GetByID(plugins.InternalPlugin, "shutdown")
	if err != nil {
		return nil, err
	}
	t, err := task.NewTaskService(ic.Context, publisher{pub.(shim.Publisher)}, sd.(shutdown.Service))
	if err != nil {
		return nil, err
	}
	return &service{TTRPCTaskService: t}, nil
}

// publisher sends events to whoever listens there. Our daemon does not depend on
// them (it asks the shim), so that one which is down is no error to be logged.
type publisher struct{ shim.Publisher }

// Publish implements events.Publisher.
func (p publisher) Publish(ctx context.Context, topic string, event events.Event) error {
	_ = p.Publisher.Publish(ctx, topic, event)
	return nil
}

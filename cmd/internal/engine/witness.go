package engine

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/moby/moby/api/types/system"

	"github.com/minictl/minictl/cmd/internal/api"
)

// witnessInfo is docker info on a host that only votes.
func (e *Engine) witnessInfo(ctx context.Context) system.Info {
	return system.Info{
		ID: e.id, Name: e.cfg.NodeName, ServerVersion: e.cfg.Version, NGoroutines: runtime.NumGoroutine(),
		SystemTime: time.Now().Format(time.RFC3339Nano), KernelVersion: kernelVersion(), OSType: runtime.GOOS,
		OperatingSystem: operatingSystem(), Architecture: machine(), NCPU: runtime.NumCPU(), MemTotal: memoryTotal(),
		DockerRootDir: e.cfg.Root, Swarm: e.swarmInfo(ctx), Warnings: []string{e.WitnessWords()},
	}
}

// WitnessWords say what a witness does not do, and who does.
func (e *Engine) WitnessWords() string {
	where := "a host that is a member"
	if names := memberNames(e.hosts()); len(names) > 0 {
		where = strings.Join(names, " or ")
	}
	return fmt.Sprintf("this host is a witness: it votes in its cluster and runs no containers: ask %s", where)
}

// WitnessJoin makes a witness a member, unless it is one already, and keeps it one that the others need not wait for.
func (e *Engine) WitnessJoin(ctx context.Context, req api.ClusterJoinRequest) error {
	if !e.cl.Clustered() {
		if _, err := e.ClusterJoin(ctx, req); err != nil {
			return err
		}
	}
	e.spawn(e.reconcileLoop) // after a takeover it may know of networks that the others do not
	return nil
}

package main

import (
	"fmt"
	"time"
)

// Docker Engine 20.10.24 (Debian 12) on the same work, medians of 10 (of 3 where the overlay is cold or 30 containers are
// started) on an otherwise idle machine of 2 processors, its hosts made of namespaces as here. Source: the project's
// comparison of engines, results-docker-20.10.md, "container start".
const (
	dockerNoneMs, dockerNoneCPU       = 289, 305
	dockerBridgeMs, dockerBridgeCPU   = 362, 330
	dockerOverlayMs, dockerOverlayCPU = 668, 430
	dockerColdMs                      = 1072
	dockerManySeconds                 = 17.28
	dockerManyRemovedSeconds          = 3.36
)

// targetOverlayMs is what the project wants to reach.
const targetOverlayMs = 300

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// kind is one way to run a container.
type kind struct {
	what, network             string
	target, docker, dockerCPU float64
	wall, cpu                 sample
}

// runs times `run --rm busybox true`: from the command's start until the container is gone without a trace. An overlay is
// made on a host with its first container there and goes with its last, so it is measured both ways.
func (b *bench) runs() error {
	if err := b.cluster(); err != nil {
		return err
	}
	cold := kind{what: "an overlay without other containers here", network: overlay, target: targetOverlayMs, docker: dockerColdMs}
	if err := b.repeat(&cold); err != nil {
		return err
	}
	if _, err := cli(b.h1, "run", "-d", "--name", "keep", "--network", overlay, "busybox", "sleep", "86400"); err != nil {
		return err
	}
	none := kind{what: "none", network: "none", docker: dockerNoneMs, dockerCPU: dockerNoneCPU}
	bridge := kind{what: "bridge", network: "bridge", docker: dockerBridgeMs, dockerCPU: dockerBridgeCPU}
	warm := kind{what: "overlay", network: overlay, target: targetOverlayMs, docker: dockerOverlayMs, dockerCPU: dockerOverlayCPU}
	if err := b.repeat(&none, &bridge, &warm); err != nil {
		return err
	}
	for _, k := range []kind{none, bridge, warm, cold} {
		b.table.add(figure{what: "`run --rm busybox true`, " + k.what, values: k.wall, target: k.target, docker: k.docker})
		b.table.add(figure{what: "… processor time of all it takes", values: k.cpu, docker: k.dockerCPU})
	}
	_, err := cli(b.h1, "rm", "-f", "keep")
	return err
}

// repeat lets the kinds take turns, so that a passing load hits all of them.
func (b *bench) repeat(kinds ...*kind) error {
	for i := range b.n + 1 {
		for _, k := range kinds {
			wall, cpu, err := b.runOnce(k.network)
			if err != nil {
				return err
			}
			if i > 0 { // the first finds cold caches
				k.wall, k.cpu = append(k.wall, ms(wall)), append(k.cpu, ms(cpu))
			}
		}
	}
	return nil
}

// runOnce gives the wall clock of the command, and the processor time of the command, the daemons, shims and containers.
func (b *bench) runOnce(network string) (wall, cpu time.Duration, err error) {
	before, err := b.lab.CPU()
	if err != nil {
		return 0, 0, err
	}
	c, err := cli(b.h1, "run", "--rm", "--network", network, "busybox", "true")
	if err != nil {
		return 0, 0, err
	}
	after, err := b.lab.CPU()
	return c.wall, after - before + c.cpu, err
}

// manyContainers is how many `run -d` follow each other.
const manyContainers = 30

// many starts containers on an overlay one after another, and leaves them running meanwhile.
func (b *bench) many() error {
	if err := b.cluster(); err != nil {
		return err
	}
	remove := []string{"rm", "-f"}
	var each sample
	begin := time.Now()
	for i := range manyContainers {
		name := fmt.Sprintf("many%d", i)
		remove = append(remove, name)
		c, err := cli(b.h1, "run", "-d", "--name", name, "--network", overlay, "busybox", "sleep", "86400")
		if err != nil {
			return err
		}
		each = append(each, ms(c.wall))
	}
	total := time.Since(begin).Seconds()
	b.table.add(figure{what: fmt.Sprintf("%d × `run -d` on an overlay, total", manyContainers), values: sample{total}, format: "%.2f s", docker: dockerManySeconds})
	b.table.add(figure{what: "… each", values: each})
	c, err := cli(b.h1, remove...)
	if err == nil {
		b.table.add(figure{what: "… `rm -f` of all", values: sample{c.wall.Seconds()}, format: "%.2f s", docker: dockerManyRemovedSeconds})
	}
	return err
}

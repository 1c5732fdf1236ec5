package main

import (
	"fmt"
	"sync"
	"time"
)

// What the project wants to reach, as shares of what docker takes for the same work in the same run.
const (
	ratioNone    = 0.5
	ratioBridge  = 1
	ratioOverlay = 0.35
	ratioCold    = 0.3
	ratioExec    = 0.6
	ratioMany    = 0.4
)

// targetOverlayMs is what the project wants to reach, whatever docker takes.
const targetOverlayMs = 300

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// kind is one way to run a container.
type kind struct {
	what, network string
	target, ratio float64
	wall, cpu     pair
}

// runs times `run --rm busybox true`: from the command's start until the container is gone without a trace. An overlay is
// made on a host with its first container there and goes with its last, so it is measured both ways.
func (b *bench) runs() error {
	cold := kind{what: "an overlay without other containers here", network: overlay, target: targetOverlayMs, ratio: ratioCold}
	if err := b.repeat(&cold); err != nil {
		return err
	}
	stop, err := b.keep("keep")
	if err != nil {
		return err
	}
	none := kind{what: "none", network: "none", ratio: ratioNone}
	bridge := kind{what: "bridge", network: "bridge", ratio: ratioBridge}
	warm := kind{what: "overlay", network: overlay, target: targetOverlayMs, ratio: ratioOverlay}
	if err := b.repeat(&none, &bridge, &warm); err != nil {
		return err
	}
	for _, k := range []kind{none, bridge, warm, cold} {
		f := versus("`run --rm busybox true`, "+k.what, k.wall, k.ratio)
		f.target = k.target
		b.table.add(f)
		b.table.add(versus("… processor time of all it takes", k.cpu, 0))
	}
	return stop()
}

// keep runs a container that stays on each engine's overlay, until stop is called.
func (b *bench) keep(name string) (stop func() error, err error) {
	stop = func() error {
		return b.each(func(e *engine) error {
			_, err := e.run("rm", "-f", name)
			return err
		})
	}
	return stop, b.each(func(e *engine) error {
		_, err := e.run("run", "-d", "--name", name, "--network", overlay, "busybox", "sleep", "86400")
		return err
	})
}

// repeat lets the kinds and the engines take turns, so that a passing load hits all of them.
func (b *bench) repeat(kinds ...*kind) error {
	all, err := b.engines()
	if err != nil {
		return err
	}
	for i := range b.n + 1 {
		for _, k := range kinds {
			for j := range all {
				wall, cpu, err := all[j].costOf("run", "--rm", "--network", k.network, "busybox", "true")
				if err != nil {
					return err
				}
				if i > 0 { // the first finds cold caches
					k.wall.add(&all[j], ms(wall))
					k.cpu.add(&all[j], ms(cpu))
				}
			}
		}
	}
	return nil
}

// costOf gives the wall clock of a command, and the processor time of the command, the host's daemons, shims and containers.
func (e *engine) costOf(args ...string) (wall, cpu time.Duration, err error) {
	before, err := e.host.CPU()
	if err != nil {
		return 0, 0, err
	}
	c, err := e.run(args...)
	if err != nil {
		return 0, 0, err
	}
	after, err := e.host.CPU()
	return c.wall, after - before + c.cpu, err
}

// execs times `exec` in a running container.
func (b *bench) execs() error {
	stop, err := b.keep("exec")
	if err != nil {
		return err
	}
	var used pair
	p, err := b.turns(b.n, func(e *engine) (float64, error) {
		wall, cpu, err := e.costOf("exec", "exec", "true")
		used.add(e, ms(cpu))
		return ms(wall), err
	})
	if err != nil {
		return err
	}
	b.table.add(versus("`exec CONTAINER true`", p, ratioExec))
	b.table.add(versus("… processor time of all it takes", used, 0))
	return stop()
}

// manyContainers is how many `run -d` follow each other; concurrentRuns how many `run --rm` begin at once. Each of the two
// is done manyRepeats times.
const (
	manyContainers = 30
	concurrentRuns = 20
	manyRepeats    = 3
)

// concurrent starts containers at the same time and waits until the last is gone.
func (b *bench) concurrent() error {
	stop, err := b.keep("keep")
	if err != nil {
		return err
	}
	for _, network := range []string{"none", overlay} {
		p, err := b.turns(manyRepeats, func(e *engine) (float64, error) { return e.atOnce(network) })
		if err != nil {
			return err
		}
		what := "none"
		if network == overlay {
			what = "an overlay"
		}
		f := versus(fmt.Sprintf("%d × `run --rm busybox true` at once, %s", concurrentRuns, what), p, ratioMany)
		f.format = "%.2f s"
		b.table.add(f)
	}
	return stop()
}

// atOnce gives the seconds until the last of the runs has ended.
func (e *engine) atOnce(network string) (float64, error) {
	errs := make([]error, concurrentRuns)
	var all sync.WaitGroup
	begin := time.Now()
	for i := range concurrentRuns {
		all.Go(func() { _, errs[i] = e.run("run", "--rm", "--network", network, "busybox", "true") })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	return time.Since(begin).Seconds(), nil
}

// many starts containers on an overlay one after another, leaves them running meanwhile, and removes all.
func (b *bench) many() error {
	var removed pair
	started, err := b.turns(manyRepeats, func(e *engine) (float64, error) {
		remove := []string{"rm", "-f"}
		begin := time.Now()
		for i := range manyContainers {
			name := fmt.Sprintf("many%d", i)
			remove = append(remove, name)
			if _, err := e.run("run", "-d", "--name", name, "--network", overlay, "busybox", "sleep", "86400"); err != nil {
				return 0, err
			}
		}
		total := time.Since(begin).Seconds()
		c, err := e.run(remove...)
		removed.add(e, c.wall.Seconds())
		return total, err
	})
	if err != nil {
		return err
	}
	f := versus(fmt.Sprintf("%d × `run -d` on an overlay, total", manyContainers), started, ratioMany)
	f.format = "%.2f s"
	b.table.add(f)
	f = versus("… `rm -f` of all", removed, 1)
	f.format = "%.2f s"
	b.table.add(f)
	return nil
}

package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// phase is what passes between one point of a run and the next.
type phase struct{ until, what string }

// phases lie between the command's start, the events that both engines tell, and the command's end.
func phases() []phase {
	return []phase{
		{"create", "the command begins, until the container exists"},
		{"start", "… until its process runs"},
		{"die", "… until that has ended, and the engine has noticed"},
		{"destroy", "… until all of it is removed"},
		{"", "… until the command ends"},
	}
}

// trace says where the milliseconds of one `run --rm` go, on no network and on an overlay. Not every engine tells an event
// at the same moment of its work, so a phase alone says little about the other's.
func (b *bench) trace() error {
	stop, err := b.keep("keep")
	if err != nil {
		return err
	}
	for _, network := range []string{"none", overlay} {
		took := make([]pair, len(phases()))
		all, err := b.engines()
		if err != nil {
			return err
		}
		for range b.n {
			for i := range all {
				times, err := all[i].points(network)
				if err != nil {
					return fmt.Errorf("%s: %w", all[i].name, err)
				}
				for k := range phases() {
					took[k].add(&all[i], ms(times[k+1].Sub(times[k])))
				}
			}
		}
		for k, p := range phases() {
			what := p.what
			if k == 0 {
				what = "trace of `run --rm`, " + network + ": " + what
			}
			b.table.add(versus(what, took[k], 0))
		}
	}
	return stop()
}

// points runs a container and gives the times at which its phases begin, and the end of the last.
func (e *engine) points(network string) ([]time.Time, error) {
	begin := time.Now()
	if _, err := e.run("run", "--rm", "--network", network, "busybox", "true"); err != nil {
		return nil, err
	}
	end := time.Now()
	stamp := func(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }
	c, err := e.run("events", "--since", stamp(begin), "--until", stamp(end), "--filter", "type=container", "--format", "{{.TimeNano}} {{.Action}}")
	if err != nil {
		return nil, err
	}
	return pointsOf(c.out, begin, end)
}

// pointsOf finds the phases' ends among lines of "nanoseconds action".
func pointsOf(events string, begin, end time.Time) ([]time.Time, error) {
	at := map[string]time.Time{"": end}
	for line := range strings.Lines(events) {
		nanos, action, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseInt(nanos, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("event %q: %w", line, err)
		}
		at[action] = time.Unix(0, n)
	}
	points := []time.Time{begin}
	for _, p := range phases() {
		t, ok := at[p.until]
		if !ok {
			return nil, fmt.Errorf("no event %q in\n%s", p.until, events)
		}
		points = append(points, t)
	}
	return points, nil
}

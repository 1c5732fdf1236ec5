package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// phase is what passes between one point of a command and the next.
type phase struct{ until, what string }

// runPhases lie between the command's start, the events that both engines tell, and the command's end.
func runPhases() []phase {
	return []phase{
		{"create", "the command begins, until the container exists"},
		{"start", "… until its process runs"},
		{"die", "… until that has ended, and the engine has noticed"},
		{"destroy", "… until all of it is removed"},
		{"", "… until the command ends"},
	}
}

// execPhases are the same of an exec, whose end the command may hear of before anybody tells the event.
func execPhases() []phase {
	return []phase{
		{"exec_create", "the command begins, until the exec exists"},
		{"exec_start", "… until its process runs (docker tells this one before it begins with that)"},
		{"", "… until the command ends"},
	}
}

// traced is a command whose milliseconds are looked for.
type traced struct {
	what   string
	phases []phase
	args   []string
}

// trace says where the milliseconds of one `run --rm` go, on no network and on an overlay, and those of one `exec`. Not
// every engine tells an event at the same moment of its work, so a phase alone says little about the other's.
func (b *bench) trace() error {
	stop, err := b.keep("keep")
	if err != nil {
		return err
	}
	run := func(network string) traced {
		return traced{"`run --rm`, " + network, runPhases(), []string{"run", "--rm", "--network", network, "busybox", "true"}}
	}
	for _, t := range []traced{run("none"), run(overlay), {"`exec`", execPhases(), []string{"exec", "keep", "true"}}} {
		if err := b.traceOne(t); err != nil {
			return err
		}
	}
	if err := b.bareExec("keep"); err != nil {
		return err
	}
	return stop()
}

func (b *bench) traceOne(t traced) error {
	took := make([]pair, len(t.phases))
	all, err := b.engines()
	if err != nil {
		return err
	}
	for range b.n {
		for i := range all {
			times, err := all[i].points(t)
			if err != nil {
				return fmt.Errorf("%s: %w", all[i].name, err)
			}
			for k := range t.phases {
				took[k].add(&all[i], ms(times[k+1].Sub(times[k])))
			}
		}
	}
	for k, p := range t.phases {
		what := p.what
		if k == 0 {
			what = "trace of " + t.what + ": " + what
		}
		b.table.add(versus(what, took[k], 0))
	}
	return nil
}

// bareExec times what no engine can do without: runc, asked for the same by hand. The lab's way into the host, a fork more,
// is in it.
func (b *bench) bareExec(container string) error {
	p, err := b.turns(b.n, func(e *engine) (float64, error) {
		id, err := e.run("inspect", "--format", "{{.Id}}", container)
		if err != nil {
			return 0, err
		}
		begin := time.Now()
		_, errOut, code := e.host.Run(context.Background(), "runc", "--root", e.runc, "exec", strings.TrimSpace(id.out), "true")
		if code != 0 {
			return 0, fmt.Errorf("runc exec ended with code %d: %s", code, errOut)
		}
		return ms(time.Since(begin)), nil
	})
	if err != nil {
		return err
	}
	b.table.add(versus("for comparison: `runc exec` by hand, in the same container", p, 0))
	return nil
}

// points runs a command and gives the times at which its phases begin, and the end of the last.
func (e *engine) points(t traced) ([]time.Time, error) {
	begin := time.Now()
	if _, err := e.run(t.args...); err != nil {
		return nil, err
	}
	end := time.Now()
	stamp := func(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }
	c, err := e.run("events", "--since", stamp(begin), "--until", stamp(end), "--filter", "type=container", "--format", "{{.TimeNano}} {{.Action}}")
	if err != nil {
		return nil, err
	}
	return pointsOf(t.phases, c.out, begin, end)
}

// pointsOf finds the phases' ends among lines of "nanoseconds action", where an exec's action is "exec_create: COMMAND".
func pointsOf(phases []phase, events string, begin, end time.Time) ([]time.Time, error) {
	at := map[string]time.Time{"": end}
	for line := range strings.Lines(events) {
		nanos, action, _ := strings.Cut(strings.TrimSpace(line), " ")
		action, _, _ = strings.Cut(action, ":")
		n, err := strconv.ParseInt(nanos, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("event %q: %w", line, err)
		}
		at[action] = time.Unix(0, n)
	}
	points := []time.Time{begin}
	for _, p := range phases {
		t, ok := at[p.until]
		if !ok {
			return nil, fmt.Errorf("no event %q in\n%s", p.until, events)
		}
		points = append(points, t)
	}
	return points, nil
}

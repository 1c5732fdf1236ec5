package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

// sample is what one figure's repetitions gave, in the figure's unit.
type sample []float64

func (s sample) sorted() sample { return slices.Sorted(slices.Values(s)) }

// median is the middle value, the mean of the middle two of an even number; 0 of none.
func (s sample) median() float64 {
	o := s.sorted()
	switch n := len(o); {
	case n == 0:
		return 0
	case n%2 == 0:
		return (o[n/2-1] + o[n/2]) / 2
	default:
		return o[n/2]
	}
}

// spread is the smallest and the largest value; nothing for fewer than two.
func (s sample) spread(format string) string {
	if len(s) < 2 {
		return ""
	}
	o := s.sorted()
	return fmt.Sprintf(format+" to "+format, o[0], o[len(o)-1])
}

// cell is a sample as the table shows it: median, range and how many values they are of.
func (s sample) cell(format string) string {
	if len(s) == 0 {
		return ""
	}
	c := "**" + fmt.Sprintf(format, s.median()) + "**"
	if r := s.spread("%.4g"); r != "" {
		c += " (" + r + ")"
	}
	return fmt.Sprintf("%s, %d", c, len(s))
}

// pair is the same work done by both engines in turn: minictl, and what it is compared with, empty when that is not there.
type pair struct{ ours, theirs sample }

// add keeps one more value of an engine.
func (p *pair) add(e *engine, v float64) {
	if e.name == ourName {
		p.ours = append(p.ours, v)
		return
	}
	p.theirs = append(p.theirs, v)
}

// figure is one line of the table.
type figure struct {
	what   string
	values sample
	format string // of a value, such as "%.0f ms"
	// target is what the project wants to reach, in the same unit; 0: none is set. A figure meets it at or below, and where
	// more is better, at or above.
	target float64
	more   bool
	// peer is what Docker Engine (or the program that what names) took for the same work in the same run.
	peer sample
	// ratio is target as a share of the peer's median; 0: none is set.
	ratio float64
}

// versus is a figure of both, with the ratio that the project wants to reach.
func versus(what string, p pair, ratio float64) figure {
	return figure{what: what, values: p.ours, peer: p.theirs, ratio: ratio}
}

// table is the figures as markdown, each with the load at the time it was taken.
type table struct {
	lines []string
	// alone says why there is nothing to compare with; "" when there is.
	alone string
}

func (t *table) add(f figure) {
	if f.format == "" {
		f.format = "%.0f ms"
	}
	peer, ratio := f.peer.cell(f.format), ""
	if len(f.peer) > 0 && f.peer.median() > 0 {
		ratio = fmt.Sprintf("%.2f", f.values.median()/f.peer.median())
	} else if f.ratio > 0 {
		peer = "not measured"
	}
	t.lines = append(t.lines, fmt.Sprintf("| %s | %s | %s | %s | %s | %s |", f.what, f.values.cell(f.format), peer, ratio, f.verdict(), load()))
}

// verdict says what was to be reached, and whether it was.
func (f figure) verdict() string {
	var out []string
	say := func(value, target float64, text string) {
		met, sign := value <= target, "≤ "
		if f.more {
			met, sign = value >= target, "≥ "
		}
		out = append(out, sign+text+map[bool]string{true: ": met", false: ": **missed**"}[met])
	}
	if f.target > 0 {
		say(f.values.median(), f.target, fmt.Sprintf(f.format, f.target))
	}
	if peer := f.peer.median(); f.ratio > 0 && peer > 0 {
		say(f.values.median()/peer, f.ratio, fmt.Sprintf("%.2f of it", f.ratio))
	}
	return strings.Join(out, ", ")
}

// String is the whole table.
func (t table) String() string {
	if len(t.lines) == 0 {
		return ""
	}
	head := fmt.Sprintf("| figure | minictl: median (range), n | Docker 20.10 | ratio | target | load on %d CPUs |\n|---|---|---|---|---|---|\n", runtime.NumCPU())
	out := head + strings.Join(t.lines, "\n") + "\n"
	if t.alone != "" {
		out += "\nDocker was not measured: " + t.alone + ".\n"
	}
	return out
}

// load is the average of the last minute (proc_loadavg(5)): figures taken on a busy machine say little about an idle one.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	first, _, _ := strings.Cut(string(b), " ")
	return first
}

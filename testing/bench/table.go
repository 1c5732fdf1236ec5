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

// figure is one line of the table: the median of a sample.
type figure struct {
	what   string
	values sample
	format string // of a value, such as "%.0f ms"
	// target is what the project wants to reach, in the same unit; 0: none is set. A figure meets it at or below, and where
	// more is better, at or above.
	target float64
	more   bool
	// docker is what Docker Engine 20.10 took for the same work; 0: not measured.
	docker float64
}

// table is the figures as markdown, each with the load at the time it was taken.
type table struct{ lines []string }

func (t *table) add(f figure) {
	format := f.format
	if format == "" {
		format = "%.0f ms"
	}
	show := func(v float64) string {
		if v == 0 {
			return ""
		}
		return fmt.Sprintf(format, v)
	}
	target := show(f.target)
	if target != "" {
		met, sign := f.values.median() <= f.target, "≤ "
		if f.more {
			met, sign = f.values.median() >= f.target, "≥ "
		}
		target = sign + target + map[bool]string{true: ": met", false: ": **missed**"}[met]
	}
	t.lines = append(t.lines, fmt.Sprintf("| %s | **%s** | %s | %d | %s | %s | %s |", f.what,
		fmt.Sprintf(format, f.values.median()), f.values.spread("%.4g"), len(f.values), target, show(f.docker), load()))
}

// String is the whole table.
func (t table) String() string {
	if len(t.lines) == 0 {
		return ""
	}
	head := fmt.Sprintf("| figure | median | range | n | target | Docker 20.10 | load on %d CPUs |\n|---|---|---|---|---|---|---|\n", runtime.NumCPU())
	return head + strings.Join(t.lines, "\n") + "\n"
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

package lab

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Section is one part of a snapshot: a heading and the lines under it.
type Section struct {
	Title string
	Lines []string
}

// Snapshot is what a host's kernel says about everything a daemon may leave behind. Two snapshots of an unchanged host
// are equal: counters, timers and learned neighbours are left out.
type Snapshot []Section

// listing is a section that a program prints.
type listing struct {
	title string
	args  []string
	keep  bool // the order means something: do not sort
}

// netListings describe a network namespace. Stock tools on purpose: they see what an operator sees, and share no code
// with what they check.
var netListings = []listing{
	{title: "links", args: []string{"ip", "-d", "-o", "link", "show"}},
	{title: "addresses", args: []string{"ip", "-o", "address", "show"}},
	{title: "routes", args: []string{"ip", "-4", "route", "show", "table", "all"}},
	{title: "routes6", args: []string{"ip", "-6", "route", "show", "table", "all"}},
	{title: "rules", args: []string{"ip", "rule", "show"}},
	{title: "neighbours", args: []string{"ip", "neigh", "show", "nud", "permanent"}},
	{title: "fdb", args: []string{"bridge", "fdb", "show"}},
	{title: "nft", args: []string{"nft", "-s", "list", "ruleset"}, keep: true},
	{title: "listeners", args: []string{"ss", "-Hlntu"}},
}

// netnsDirs are where named network namespaces may lie.
var netnsDirs = []string{"/run/netns", "/run/minictl/netns"}

// noise is what changes by itself; of listeners that is what waits in their queues.
var noise = regexp.MustCompile(`\b\w*_timer +[\d.]+|\btentative\b|\bexpires \d+sec\b|\bvalid_lft \d+sec\b|\bpreferred_lft \d+sec\b|\bpromiscuity \d+|\ballmulti \d+|(?:\bUNCONN|\bLISTEN) +\d+ +\d+`)

var spaces = regexp.MustCompile(`[ \t\\]+`)

// Snapshot lists the host's links, addresses, routes, rules, named namespaces, mounts, cgroups and processes.
func (h *Host) Snapshot() Snapshot {
	var s Snapshot
	for _, l := range netListings {
		s = append(s, h.list(l, nil))
	}
	return append(s,
		Section{"named namespaces", h.netns()},
		Section{"mounts", h.mounts()},
		Section{"cgroups", listCgroups(h.lab.cg, h.cgroup())},
		Section{"processes", h.processes()},
	)
}

// list runs a listing program, behind prefix when given. What it cannot say is part of the snapshot as well.
func (h *Host) list(l listing, prefix []string) Section {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, errs, code := h.Run(ctx, append(slices.Clone(prefix), l.args...)...)
	if code != 0 {
		out += fmt.Sprintf("exit %d: %s", code, errs)
	}
	var lines []string
	for line := range strings.SplitSeq(out, "\n") {
		if l.keep {
			line = strings.TrimRight(line, " \t")
		} else {
			line = strings.TrimSpace(spaces.ReplaceAllString(noise.ReplaceAllString(line, ""), " "))
		}
		if line != "" {
			lines = append(lines, line)
		}
	}
	if !l.keep {
		slices.Sort(lines)
	}
	return Section{l.title, lines}
}

func (h *Host) netns() []string {
	var out []string
	for _, dir := range netnsDirs {
		entries, err := os.ReadDir(h.Path(dir))
		if err != nil {
			continue // absent is as good as empty
		}
		for _, e := range entries {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out
}

// mounts gives mount point and type of each mount of the host, not its options or number.
func (h *Host) mounts() []string {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", h.pid()))
	if err != nil {
		return []string{err.Error()}
	}
	defer f.Close()
	var out []string
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		before, after, _ := strings.Cut(sc.Text(), " - ")
		at, kind := strings.Fields(before), strings.Fields(after)
		if len(at) > 4 && len(kind) > 0 {
			out = append(out, at[4]+" "+kind[0])
		}
	}
	slices.Sort(out)
	return out
}

// processes gives the command lines of the host's processes but for pid 1.
func (h *Host) processes() []string {
	files, err := filepath.Glob(h.Path("/proc/[0-9]*/cmdline"))
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if filepath.Base(filepath.Dir(f)) == "1" || err != nil || len(b) == 0 {
			continue // pid 1, ended meanwhile, or a zombie
		}
		out = append(out, strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " ")))
	}
	slices.Sort(out)
	return out
}

// String is the snapshot as text, a heading line "== title" before each section.
func (s Snapshot) String() string {
	var b strings.Builder
	for _, sec := range s {
		fmt.Fprintf(&b, "== %s\n", sec.Title)
		for _, l := range sec.Lines {
			fmt.Fprintln(&b, l)
		}
	}
	return b.String()
}

// Diff says what a later snapshot has more (+) or less (-) than an earlier one, by section; "" when they agree.
func Diff(before, after Snapshot) string {
	var b strings.Builder
	for _, title := range titles(before, after) {
		gone, come := compare(before.lines(title), after.lines(title))
		if len(gone)+len(come) == 0 {
			continue
		}
		fmt.Fprintf(&b, "== %s\n", title)
		for _, l := range gone {
			fmt.Fprintf(&b, "- %s\n", l)
		}
		for _, l := range come {
			fmt.Fprintf(&b, "+ %s\n", l)
		}
	}
	return b.String()
}

func titles(ss ...Snapshot) []string {
	var out []string
	for _, s := range ss {
		for _, sec := range s {
			if !slices.Contains(out, sec.Title) {
				out = append(out, sec.Title)
			}
		}
	}
	return out
}

func (s Snapshot) lines(title string) []string {
	for _, sec := range s {
		if sec.Title == title {
			return sec.Lines
		}
	}
	return nil
}

// compare gives the lines that only a or only b has, counting repeats, in their order.
func compare(a, b []string) (onlyA, onlyB []string) {
	count := map[string]int{}
	for _, l := range b {
		count[l]++
	}
	for _, l := range a {
		if count[l]--; count[l] < 0 {
			onlyA = append(onlyA, l)
		}
	}
	for _, l := range slices.Backward(b) {
		if count[l] > 0 {
			count[l]--
			onlyB = append(onlyB, l)
		}
	}
	slices.Reverse(onlyB)
	return onlyA, onlyB
}

// Dump writes all that helps to understand a failure to the test's log: the snapshot, the inside of every named
// namespace, connection tracking, and the ends of the host's log files.
func (h *Host) Dump() {
	h.lab.tb.Helper()
	if h.pid() == 0 {
		h.lab.tb.Logf("host %s is down", h.name)
		return
	}
	s := h.Snapshot()
	for _, ns := range h.netns() {
		for _, l := range netListings {
			sec := h.list(l, []string{"nsenter", "--net=" + ns})
			s = append(s, Section{ns + " " + sec.Title, sec.Lines})
		}
	}
	s = append(s, h.list(listing{title: "conntrack", args: []string{"conntrack", "-L"}}, nil))
	logs, _ := filepath.Glob(filepath.Join(h.dir, "*.log"))
	for _, f := range logs {
		b, err := os.ReadFile(f)
		if err == nil && len(b) > 0 {
			s = append(s, Section{f, strings.Split(tail(string(b), 60), "\n")})
		}
	}
	h.lab.tb.Logf("host %s:\n%s", h.name, s)
}

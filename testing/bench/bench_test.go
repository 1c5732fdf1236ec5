package main

import (
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSample(t *testing.T) {
	for _, c := range []struct {
		s      sample
		median float64
		spread string
	}{
		{nil, 0, ""},
		{sample{7}, 7, ""},
		{sample{9, 1}, 5, "1 to 9"},
		{sample{3, 200.25, 1}, 3, "1 to 200.2"},
	} {
		if m, s := c.s.median(), c.s.spread("%.4g"); m != c.median || s != c.spread {
			t.Errorf("%v: %v, %q, want %v, %q", c.s, m, s, c.median, c.spread)
		}
	}
}

func TestTableSaysWhetherTargetsAreMet(t *testing.T) {
	var tab table
	if got := tab.String(); got != "" {
		t.Errorf("an empty table: %q", got)
	}
	tab.add(figure{what: "a", values: sample{300}, target: 300, peer: sample{600, 1000, 400}, ratio: 0.5})
	tab.add(figure{what: "b", values: sample{301}, target: 300, ratio: 0.5})
	tab.add(figure{what: "c", values: sample{50}, target: 50, more: true, format: "%.0f"})
	tab.add(figure{what: "d", values: sample{49}, peer: sample{50}, ratio: 1, more: true, format: "%.0f"})
	tab.add(figure{what: "e", values: sample{2, 1}, format: "%.1f MB", peer: sample{1}, ratio: 1.4})
	tab.alone = "it is away"
	text := tab.String()
	lines := strings.Split(text, "\n")[2:]
	for i, want := range []string{
		"| a | **300 ms**, 1 | **600 ms** (400 to 1000), 3 | 0.50 | ≤ 300 ms: met, ≤ 0.50 of it: met |",
		"| b | **301 ms**, 1 | not measured |  | ≤ 300 ms: **missed** |",
		"| c | **50**, 1 |  |  | ≥ 50: met |",
		"| d | **49**, 1 | **50**, 1 | 0.98 | ≥ 1.00 of it: **missed** |",
		"| e | **1.5 MB** (1 to 2), 2 | **1.0 MB**, 1 | 1.50 | ≤ 1.40 of it: **missed** |",
	} {
		if !strings.HasPrefix(lines[i], want) {
			t.Errorf("got  %s\nwant %s", lines[i], want)
		}
	}
	if want := "Docker was not measured: it is away.\n"; !strings.HasSuffix(text, want) {
		t.Errorf("no %q in\n%s", want, text)
	}
}

func TestParseRollup(t *testing.T) {
	const text = "00400000-7ffd000 ---p 00000000 00:00 0 [rollup]\nRss:    2000 kB\nPss:  1 kB\nPrivate_Clean:  500 kB\nPrivate_Dirty:  250 kB\nAnonymous: 3 kB\n"
	u, err := parseRollup(strings.NewReader(text))
	if err != nil || math.Abs(u.Resident-2.048) > 1e-9 || math.Abs(u.Private-0.768) > 1e-9 {
		t.Errorf("got %+v, %v", u, err)
	}
	for _, bad := range []string{"", "Rss: 2000 kB\n", strings.Replace(text, "250", "many", 1)} {
		if u, err := parseRollup(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: %+v", bad, u)
		}
	}
}

func TestChoose(t *testing.T) {
	for only, want := range map[string]string{"": "", "run,names": "", "run,walk": `no part "walk"`} {
		b := &bench{n: 1}
		if err := b.choose(only); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("-only %q: %v", only, err)
		}
	}
	if err := new(bench).choose(""); err == nil {
		t.Error("-n 0 is accepted")
	}
}

func TestPointsOf(t *testing.T) {
	begin, end := time.Unix(1, 0), time.Unix(9, 0)
	const events = "2000000000 create\n3000000000 attach\n4000000000 start\n5000000000 die\n6000000000 destroy\n"
	got, err := pointsOf(runPhases(), events, begin, end)
	want := []time.Time{begin, time.Unix(2, 0), time.Unix(4, 0), time.Unix(5, 0), time.Unix(6, 0), end}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"", "soon create\n", strings.Replace(events, "die", "pause", 1)} {
		if got, err := pointsOf(runPhases(), bad, begin, end); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
	const exec = "2000000000 exec_create: true\n3000000000 exec_start: sh -c a:b\n"
	got, err = pointsOf(execPhases(), exec, begin, end)
	want = []time.Time{begin, time.Unix(2, 0), time.Unix(3, 0), end}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

func TestWeigh(t *testing.T) {
	u, err := weigh(os.Getpid())
	if err != nil || u.Resident < 1 || u.Private <= 0 || u.Private > u.Resident {
		t.Errorf("this process: %+v, %v", u, err)
	}
	if _, err := weigh(1 << 30); err == nil {
		t.Error("a process that is not there has a weight")
	}
}

func TestCardBytes(t *testing.T) {
	const text = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes\n" +
		"    lo:     5       1    0    0    0     0          0         0        5       1    0    0    0     0       0          0\n" +
		"  eth0: 1000       7    0    0    0     0          0         0      234       2    0    0    0     0       0          0\n"
	if n, err := cardBytes(text, "eth0"); err != nil || n != 1234 {
		t.Errorf("%d, %v", n, err)
	}
	for _, bad := range []string{"", "eth0: 1 2\n", "eth0: x 0 0 0 0 0 0 0 1\n"} {
		if n, err := cardBytes(bad, "eth0"); err == nil {
			t.Errorf("%q: %d", bad, n)
		}
	}
}

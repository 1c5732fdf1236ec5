package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// endless counts lines until somebody makes /stop.
const endless = "i=0; while [ ! -e /stop ]; do echo line $i; i=$((i+1)); usleep 500; done; echo last $i"

// counted wants every line from 0, or with tail from any, up to the last, each once.
func counted(t *testing.T, what, log string, tail bool) {
	t.Helper()
	all := lines(log)
	if len(all) < 2 || !strings.HasPrefix(all[len(all)-1], "last ") {
		t.Errorf("%s: %d lines without the last", what, len(all))
		return
	}
	want := 0
	if tail {
		_, _ = fmt.Sscanf(all[0], "line %d", &want)
	}
	for _, line := range all[:len(all)-1] {
		if line != "line "+strconv.Itoa(want) {
			t.Errorf("%s: want line %d, got %q", what, want, line)
			return
		}
		want++
	}
	if got := all[len(all)-1]; got != "last "+strconv.Itoa(want) {
		t.Errorf("%s: %q after line %d", what, got, want-1)
	}
}

// TestLogDrivers is what --log-driver and --log-opt mean for docker logs.
func TestLogDrivers(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	for _, c := range clients() {
		c.must(h, "run", "--name", "told", "--label", "a/b=1&2", "--label", "other=x", "-e", "E=v w", "--log-opt", "labels=a/b", "--log-opt", "env=E,F",
			"--log-opt", "tag={{.Name}}/{{.ImageName}}", "busybox", "sh", "-c", "echo out; echo err >&2")
		const attrs = `E=v\+w,a%2Fb=1%262,tag=told%2Fbusybox`
		wantMatch(t, c.name+" --details", c.must(h, "logs", "--details", "told"), `(?m)^`+attrs+` out$`)
		wantMatch(t, c.name+" --details -t", c.must(h, "logs", "--details", "-t", "told"), `(?m)^\d{4}-\S+Z `+attrs+` out$`)
		if got := c.must(h, "logs", "told"); got != "out\n" {
			t.Errorf("%s: without --details: %q", c.name, got)
		}

		c.must(h, "run", "--name", "none", "--log-driver", "none", "busybox", "echo", "unheard")
		_, errOut, code := c.try(h, "logs", "none")
		if code != 1 {
			t.Errorf("%s: logs of none: code %d", c.name, code)
		}
		wantMatch(t, c.name+" logs of none", errOut, `configured logging driver does not support reading`)

		c.must(h, "run", "--name", "hasty", "--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=4m", "busybox", "sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo last $i")
		counted(t, c.name+" non-blocking", c.must(h, "logs", "hasty"), false)

		c.must(h, "run", "--name", "short", "--log-driver", "local", "--log-opt", "max-size=10k", "--log-opt", "max-file=3", "--log-opt", "compress=false",
			"busybox", "sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo last $i")
		got := c.must(h, "logs", "short")
		counted(t, c.name+" local", got, true)
		if n := len(lines(got)); n < 100 || n > 1000 {
			t.Errorf("%s: %d lines in three files of 10 kB", c.name, n)
		}
		dir := filepath.Join(h.Path("/var/lib/minictl"), "containers", c.field(h, "short", "{{.Id}}"), "log")
		files, err := os.ReadDir(dir)
		if err != nil || len(files) != 3 {
			t.Errorf("%s: files %v, %v", c.name, files, err)
		}
		for _, f := range files {
			if fi, err := f.Info(); err != nil || fi.Size() > 10e3 {
				t.Errorf("%s: %s has %d bytes, %v", c.name, f.Name(), fi.Size(), err)
			}
		}
		c.must(h, "run", "--name", "packed", "--log-driver", "local", "--log-opt", "max-size=10k", "--log-opt", "max-file=300",
			"busybox", "sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo last $i")
		counted(t, c.name+" compressed", c.must(h, "logs", "packed"), false)
		counted(t, c.name+" compressed, the tail", c.must(h, "logs", "--tail", "1500", "packed"), true)
		dir = filepath.Join(h.Path("/var/lib/minictl"), "containers", c.field(h, "packed", "{{.Id}}"), "log")
		if files, err := filepath.Glob(filepath.Join(dir, "json.log.*")); err != nil || len(files) < 10 || !strings.HasSuffix(files[0], ".gz") {
			t.Errorf("%s: files %v, %v", c.name, files, err)
		}
		if got := c.field(h, "short", "{{.HostConfig.LogConfig.Type}} {{index .HostConfig.LogConfig.Config \"max-size\"}}"); got != "local 10k" {
			t.Errorf("%s: inspect: %s", c.name, got)
		}
		c.must(h, "rm", "told", "none", "short", "hasty", "packed")
	}
}

// TestLongLines: a line of any length is one line again, with one time before it.
func TestLongLines(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	h.MustMinictl("run", "--name", "long", "busybox", "sh", "-c", "head -c 40000 /dev/zero | tr '\\000' x; echo; echo short; printf rest")
	want := strings.Repeat("x", 40000) + "\nshort\nrest"
	for _, c := range clients() {
		if got := c.must(h, "logs", "long"); got != want {
			t.Errorf("%s: %d bytes, want %d", c.name, len(got), len(want))
		}
		if got := regexp.MustCompile(`\d{4}-\d\d-\d\dT\S+Z `).FindAllString(c.must(h, "logs", "-t", "long"), -1); len(got) != 3 {
			t.Errorf("%s: times %v", c.name, got)
		}
		if got := c.must(h, "logs", "--tail", "3", "long"); got != want {
			t.Errorf("%s: --tail 3 gives %d bytes, want %d", c.name, len(got), len(want))
		}
		if got := c.must(h, "logs", "--tail", "2", "long"); got != "short\nrest" {
			t.Errorf("%s: --tail 2: %q", c.name, got)
		}
	}
}

// TestLogsUnderFire: while a container writes, its log rotates and its daemon is killed twice, a follower with either
// client gets each line once, and so does who reads afterwards.
func TestLogsUnderFire(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	h.MustMinictl("run", "-d", "--name", "count", "--log-opt", "max-size=20k", "--log-opt", "max-file=5000", "--log-opt", "compress=true", "busybox", "sh", "-c", endless)
	written := func(n int) {
		t.Helper()
		l.Eventually(patient, func() error {
			if out := h.MustMinictl("logs", "--tail", "1", "count"); number(out) < n {
				return errf("not yet at line %d: %s", n, out)
			}
			return nil
		})
	}
	written(300)
	h.KillDaemon()
	h.Daemon()
	written(number(h.MustMinictl("logs", "--tail", "1", "count")) + 300)
	h.KillDaemon()
	h.Daemon()
	type result struct{ name, out string }
	followed := make(chan result)
	for _, c := range clients() {
		go func() {
			out, errOut, code := c.try(h, "logs", "-f", "count")
			if code != 0 {
				out = errOut
			}
			followed <- result{c.name, out}
		}()
	}
	written(number(h.MustMinictl("logs", "--tail", "1", "count")) + 300)
	h.Minictl("exec", "count", "touch", "/stop") // 137 if the container's end is faster than its own
	for range clients() {
		r := <-followed
		counted(t, r.name+" logs -f", r.out, false)
	}
	all := h.MustMinictl("logs", "count")
	counted(t, "logs", all, false)
	files, err := filepath.Glob(filepath.Join(h.Path("/var/lib/minictl"), "containers", "*", "log", "json.log.*"))
	if err != nil || len(files) < 2 {
		t.Errorf("it never rotated: %v, %v", files, err)
	}
	// Lines that the shim read together have one time.
	stamped := lines(h.MustDocker("logs", "-t", "count"))
	at, _, _ := strings.Cut(stamped[len(stamped)/2], " ")
	var before, after []string
	for _, line := range stamped {
		if stamp, _, _ := strings.Cut(line, " "); stamp <= at {
			before = append(before, line)
		}
		if stamp, _, _ := strings.Cut(line, " "); stamp >= at {
			after = append(after, line)
		}
	}
	for _, c := range clients() {
		if got := lines(c.must(h, "logs", "-t", "--since", at, "count")); !slices.Equal(got, after) {
			t.Errorf("%s: --since gives %d lines, want %d", c.name, len(got), len(after))
		}
		if got := lines(c.must(h, "logs", "-t", "--until", at, "count")); !slices.Equal(got, before) {
			t.Errorf("%s: --until gives %d lines, want %d", c.name, len(got), len(before))
		}
	}
}

// number is that of the last line of a log.
func number(log string) int {
	n := -1
	_, _ = fmt.Sscanf(log, "line %d", &n)
	return n
}

// TestFullDisk: a log that has no room stops neither the container nor the daemon, and says what it lost.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	id := strings.TrimSpace(h.MustMinictl("create", "--name", "chatty", "busybox", "sh", "-c",
		"echo first; head -c 3000000 /dev/zero | tr '\\000' '\\n'; touch /done; while [ ! -e /room ]; do usleep 10000; done; echo again; exec sleep 600"))
	dir := "/var/lib/minictl/containers/" + id + "/log"
	if out, errOut, code := h.Run(context.Background(), "sh", "-ec", "mkdir -p "+dir+" && mount -t tmpfs -o size=64k small "+dir); code != 0 {
		t.Fatal(out, errOut)
	}
	h.MustMinictl("start", "chatty")
	l.Eventually(patient, func() error {
		if _, _, code := h.Minictl("exec", "chatty", "test", "-e", "/done"); code != 0 {
			return errf("the container waits for its log")
		}
		return nil
	})
	wantMatch(t, "what was written", h.MustMinictl("logs", "--tail", "100000", "chatty"), `^first\n`)
	h.MustRun("mount", "-o", "remount,size=1m", dir)
	h.MustMinictl("exec", "chatty", "touch", "/room")
	l.Eventually(soon, func() error {
		out, errOut, _ := h.Docker("logs", "--tail", "2", "chatty")
		if out != "again\n" || !strings.Contains(errOut, "log entries lost: no space left on device") {
			return errf("%q %q", out, errOut)
		}
		return nil
	})
	h.MustMinictl("kill", "chatty")
	h.MustRun("umount", "-l", dir)
	h.MustMinictl("rm", "-f", "chatty")
}

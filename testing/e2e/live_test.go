package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"

	"github.com/minictl/minictl/testing/lab"
)

// TestPause: a paused container does nothing, also over a restart of the daemon, and can be stopped.
func TestPause(t *testing.T) {
	t.Parallel()
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t)
			h := start(t, l, "host1")
			before := h.Snapshot()
			c.must(h, "run", "-d", "--name", "count", "busybox", "sh", "-c", "trap 'exit 6' TERM; i=0; while :; do i=$((i+1)); echo $i; usleep 10000; done")
			c.must(h, "pause", "count")
			wantMatch(t, "ps", c.must(h, "ps"), `Up .* \(Paused\)`)
			if got := c.field(h, "count", "{{.State.Status}} {{.State.Paused}} {{.State.Running}}"); got != "paused true true" {
				t.Errorf("state %s", got)
			}
			first := c.must(h, "logs", "count")
			for _, bad := range []struct{ pattern, args string }{
				{`already paused`, "pause count"},
				{`unpause the container before exec`, "exec count true"},
				{`cannot start a paused container, try unpause instead`, "start count"},
				{`container is paused`, "rm count"},
			} {
				_, errOut, code := c.try(h, strings.Fields(bad.args)...)
				if code == 0 {
					t.Errorf("%s: no error", bad.args)
				}
				wantMatch(t, bad.args, errOut, bad.pattern)
			}
			h.KillDaemon()
			h.Daemon()
			if got := c.field(h, "count", "{{.State.Status}}"); got != "paused" {
				t.Errorf("after the daemon's restart it is %s", got)
			}
			if again := c.must(h, "logs", "count"); again != first {
				t.Errorf("it went on: %d bytes of log, then %d", len(first), len(again))
			}
			c.must(h, "unpause", "count")
			l.Eventually(soon, func() error {
				if c.must(h, "logs", "count") == first {
					return errf("it stands still")
				}
				return nil
			})
			_, errOut, _ := c.try(h, "unpause", "count")
			wantMatch(t, "unpause twice", errOut, `is not paused`)
			c.must(h, "pause", "count")
			c.must(h, "stop", "count")
			if got := c.field(h, "count", "{{.State.Status}} {{.State.ExitCode}}"); got != "exited 6" {
				t.Errorf("a paused one that was stopped: %s", got)
			}
			wantMatch(t, "events", happened(h, "count"), `unpause pause kill unpause die stop$`)
			_, errOut, _ = c.try(h, "pause", "count")
			wantMatch(t, "pause what is stopped", errOut, `is not running`)
			c.must(h, "start", "count")
			c.must(h, "pause", "count")
			c.must(h, "rm", "-f", "count")
			if diff := lab.Diff(before, h.Snapshot()); diff != "" {
				t.Errorf("left behind:\n%s", diff)
			}
		})
	}
}

// TestTopAndStats looks at a running container from outside.
func TestTopAndStats(t *testing.T) {
	t.Parallel()
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t)
			h := start(t, l, "host1")
			c.must(h, "network", "create", "-d", "overlay", "ov_net1")
			c.must(h, "run", "-d", "--name", "busy", "--network", "ov_net1", "-m", "32m", "--pids-limit", "20", "--cpus", "0.5", "busybox", "sh", "-c", "sleep 4321 & while :; do :; done")
			wantMatch(t, "top", c.must(h, "top", "busy"), `^UID +PID +PPID .*CMD\n(.|\n)*sleep 4321`)
			out := c.must(h, "top", "busy", "-o", "pid,args")
			wantMatch(t, "top -o", out, `^PID +COMMAND\n`)
			if n := len(lines(out)); n != 3 {
				t.Errorf("%d lines, want a title and two processes:\n%s", n, out)
			}
			_, errOut, code := c.try(h, "top", "busy", "-o", "args")
			if code == 0 {
				t.Error("top without PID: no error")
			}
			wantMatch(t, "top without PID", errOut, `Couldn't find PID field in ps output`)
			_, errOut, _ = c.try(h, "top", "busy", "--nonsense")
			wantMatch(t, "top with nonsense", errOut, `ps: error: unknown gnu long option`)

			wantMatch(t, "stats", c.must(h, "stats", "--no-stream"),
				`CONTAINER ID +NAME +CPU % +MEM USAGE / LIMIT +MEM % +NET I/O +BLOCK I/O +PIDS\n[0-9a-f]{12} +busy +\d+\.\d\d% +\d+(\.\d+)?[KM]iB / 32MiB +\d`)
			l.Eventually(patient, func() error { // how soon depends on what else the machine does
				if out := c.must(h, "stats", "--no-stream", "--format", "{{.CPUPerc}}", "busy"); strings.HasPrefix(out, "0.00%") {
					return errf("a busy container used %s", out)
				}
				return nil
			})
			wantMatch(t, "stats format", c.must(h, "stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "busy"), `^busy 2\n$`)
			_, errOut, code = c.try(h, "stats", "--no-stream", "nope")
			if code == 0 {
				t.Error("stats of nothing: no error")
			}
			wantMatch(t, "stats of nothing", errOut, `No such container: nope`)

			client := h.HTTP()
			defer client.CloseIdleConnections()
			resp, err := client.Get("http://minictl/containers/busy/stats?stream=1")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			dec := json.NewDecoder(resp.Body)
			var s [2]container.StatsResponse
			for i := range s {
				if err := dec.Decode(&s[i]); err != nil {
					t.Fatal(err)
				}
			}
			if s[0].PreCPUStats.SystemUsage != 0 || s[1].PreCPUStats.CPUUsage.TotalUsage != s[0].CPUStats.CPUUsage.TotalUsage || !s[1].PreRead.Equal(s[0].Read) {
				t.Errorf("the second sample does not follow the first: %+v\n%+v", s[0], s[1])
			}
			if _, ok := s[1].Networks["eth0"]; !ok || len(s[1].Networks) != 2 { // the gateway bridge's is the other
				t.Errorf("networks %v", s[1].Networks)
			}
			if s[1].MemoryStats.Limit != 32<<20 || s[1].PidsStats.Limit != 20 || s[1].CPUStats.ThrottlingData.Periods == 0 { // without a quota none is counted
				t.Errorf("limits in %+v", s[1])
			}
			c.must(h, "rm", "-f", "busy")
		})
	}
}

// TestUpdate: new limits hold at once, outlive the container's and the daemon's restart, and are all or nothing.
func TestUpdate(t *testing.T) {
	t.Parallel()
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t)
			h := start(t, l, "host1")
			c.must(h, "run", "-d", "--name", "box", "-m", "32m", "busybox", "sleep", "600")
			limits := func() string {
				return strings.Join(lines(c.must(h, "exec", "box", "sh", "-c",
					"cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpuset/cpuset.cpus")), " ")
			}
			c.must(h, "update", "-m", "64m", "--pids-limit", "33", "--cpus", "0.5", "--cpuset-cpus", "0", "--restart", "on-failure:2", "box")
			if got, want := limits(), "67108864 33 50000 0"; got != want {
				t.Errorf("limits %s, want %s", got, want)
			}
			for _, bad := range []struct{ pattern, args string }{
				{`Memory limit should be smaller than already set memoryswap limit`, "update -m 1g box"},
				{`CPU Quota cannot be updated as NanoCPUs has already been set`, "update --cpu-quota 20000 box"},
				{`Range of blkio weight is from 10 to 1000`, "update --blkio-weight 5 box"},
				{`one or more flags`, "update box"},
				{`No such container: nope`, "update -m 64m nope"},
			} {
				_, errOut, code := c.try(h, strings.Fields(bad.args)...)
				if code == 0 {
					t.Errorf("%s: no error", bad.args)
				}
				wantMatch(t, bad.args, errOut, bad.pattern)
			}
			c.must(h, "exec", "box", "true")
			h.KillDaemon()
			h.Daemon()
			c.must(h, "restart", "-t", "0", "box")
			if got, want := limits(), "67108864 33 50000 0"; got != want {
				t.Errorf("limits after the restart %s, want %s", got, want)
			}
			if got := c.field(h, "box", "{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}"); got != "on-failure:2" {
				t.Errorf("policy %s", got)
			}
			wantMatch(t, "events", happened(h, "box"), `kill die stop start restart`)
			c.must(h, "rm", "-f", "box")
		})
	}
}

package e2e

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// TestLimits: each limit holds inside the container, not only in inspect.
func TestLimits(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	before := h.Snapshot()
	for _, c := range []struct {
		name, flags, script, pattern string
		code                         int
	}{
		{"memory", "-m 16m", "tail /dev/zero", ``, 137},
		{"memory and swap", "-m 16m --memory-swap 16m", "cat /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null | tail -n 1", `^16777216$`, 0},
		{"pids", "--pids-limit 5", "for i in 1 2 3 4 5 6 7; do sleep 9 & done", `can't fork`, 2},
		{"cpus", "--cpus 0.25", "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us", `^25000\n100000$`, 0},
		{"cpu quota", "--cpu-quota 50000 --cpu-period 200000", "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us", `^50000\n200000$`, 0},
		{"cpu shares", "-c 512", "cat /sys/fs/cgroup/cpu/cpu.shares", `^512$`, 0},
		{"cpuset", "--cpuset-cpus 0", "grep Cpus_allowed_list /proc/self/status; nproc", `Cpus_allowed_list:\s*0\n1$`, 0},
		{"ulimit", "--ulimit nofile=64:128 --ulimit core=0", "ulimit -Sn; ulimit -Hn; ulimit -c", `^64\n128\n0$`, 0},
		{"shm-size", "--shm-size 1m", "dd if=/dev/zero of=/dev/shm/x bs=64k count=32", `No space left`, 1},
		{"shm by default", "", "df -k /dev/shm", ` 65536 `, 0},
		{"read-only", "--read-only", "touch /x", `Read-only file system`, 1},
		{"read-only with tmpfs", "--read-only --tmpfs /run:size=64k", "touch /run/x && dd if=/dev/zero of=/run/y bs=1k count=128", `No space left`, 1},
		{"sysctl", "--sysctl net.ipv4.ip_unprivileged_port_start=7 --sysctl kernel.shm_rmid_forced=1", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced", `^7\n1$`, 0},
		{"sysctls are read-only", "", "echo 1 > /proc/sys/net/ipv4/ip_forward", `Read-only file system`, 1},
		{"capabilities", "", "grep CapEff /proc/self/status", `00000000a80425fb`, 0},
		{"cap-drop", "--cap-drop ALL --cap-add chown", "grep CapEff /proc/self/status; touch /f && chown 1 /f && mknod /null c 1 3", `0000000000000001(.|\n)*Operation not permitted`, 1},
		{"cap-add", "--cap-add NET_ADMIN", "ip link set lo mtu 1400 && cat /sys/class/net/lo/mtu", `^1400$`, 0},
		{"without it", "", "ip link set lo mtu 1400", `Operation not permitted`, 2},
		{"no-new-privileges", "--security-opt no-new-privileges", "grep NoNewPrivs /proc/self/status", `NoNewPrivs:\s*1`, 0},
		{"seccomp", "", "grep Seccomp: /proc/self/status; unshare -U true", `Seccomp:\s*2(.|\n)*Operation not permitted`, 1},
		{"seccomp unconfined", "--security-opt seccomp=unconfined", "grep Seccomp: /proc/self/status", `Seccomp:\s*0`, 0},
		{"user", "-u 33:5 --group-add 9", "id -u; id -g; id -G", `^33\n5\n5 9$`, 0},
		{"oom-score-adj", "--oom-score-adj 500", "cat /proc/self/oom_score_adj", `^500$`, 0},
		{"devices", "", "mknod /k c 1 99 && cat /k", `Operation not permitted`, 1},
		{"device", "--device /dev/null:/dev/mine:rw", "echo x > /dev/mine && mknod /n c 1 3 && echo y > /n", ``, 0},
		{"device rule", "--device-cgroup-rule=c_1:99_r", "mknod /k c 1 99 && cat /k", `No such device or address`, 1},
		{"privileged", "--privileged", "grep -E 'CapEff|Seccomp:' /proc/self/status; mkdir /sys/fs/cgroup/pids/mine && rmdir /sys/fs/cgroup/pids/mine && mount -t tmpfs t /mnt0 2>/dev/null || mkdir /mnt0 && mount -t tmpfs t /mnt0 && echo 1 > /proc/sys/net/ipv4/ip_forward && echo all", `Seccomp:\s*0\n(.|\n)*all`, 0},
		{"cgroupns private", "--cgroupns private", "cat /proc/self/cgroup", `:pids:/\n`, 0},
		{"cgroupns host", "--cgroupns host", "cat /proc/self/cgroup", `:pids:/minictl/[0-9a-f]{64}\n`, 0},
		{"pid host", "--pid host", "ps | grep -c 'minictl daemon'", `[1-9]`, 0},
		{"uts host", "--uts host", "hostname", `^host1$`, 0},
		{"ipc host", "--ipc host", "df /dev/shm | tail -n 1", `/dev/shm`, 0},
		{"ipc none", "--ipc none", "grep -c /dev/shm /proc/mounts", `^0$`, 1},
		{"init", "--init", "cat /proc/1/cmdline | tr '\\000' ' '; echo $$", `^/sbin/docker-init -- sh -c .* \d\d*$`, 0},
		{"init's exit code", "--init", "exit 7", ``, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := []string{"run", "--name", "limited"}
			for f := range strings.FieldsSeq(c.flags) {
				args = append(args, strings.ReplaceAll(f, "_", " "))
				if strings.HasPrefix(f, "net.") || strings.HasPrefix(f, "kernel.") || strings.HasPrefix(f, "NET_") {
					args[len(args)-1] = f
				}
			}
			out, errOut, code := h.Minictl(append(args, "busybox", "sh", "-c", c.script)...)
			if code != c.code {
				t.Errorf("code %d, want %d", code, c.code)
			}
			wantMatch(t, c.script, strings.TrimSpace(out)+"\n"+strings.TrimSpace(errOut), strings.TrimSuffix(c.pattern, "$"))
			if c.name == "memory" {
				if got := clients()[0].field(h, "limited", "{{.State.OOMKilled}} {{.State.ExitCode}} {{.HostConfig.MemorySwap}}"); got != "true 137 33554432" {
					t.Errorf("after want of memory: %s", got)
				}
				wantMatch(t, "events", happened(h, "limited"), `start oom die$`)
			}
			h.MustMinictl("rm", "limited")
		})
	}
	if diff := lab.Diff(before, h.Snapshot()); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
	for _, c := range []struct{ flags, pattern string }{
		{"-m 1m", `Minimum memory limit allowed is 6MB`},
		{"-m 16m --memory-swap 8m", `Minimum memoryswap limit should be larger than memory limit`},
		{"--cpus 4096", `as there are only ` + itoa(runtime.NumCPU()) + ` CPUs available`},
		{"--cpuset-cpus 4000", `Requested CPUs are not available - requested 4000`},
		{"--cpuset-cpus x", `Invalid value x for cpuset cpus`},
		{"--cpu-quota 10", `CPU cfs quota can not be less than 1ms`},
		{"--cap-add nope", `(?i)nope`},
		{"--device /dev/nope", `adding custom device "/dev/nope": no such file or directory`},
		{"--pid container:nope", `No such container: nope`},
		{"--health-cmd x --health-interval 1us", `Interval in Healthcheck cannot be less than 1ms`},
	} {
		_, errOut, code := h.Minictl(append(append([]string{"run", "--rm"}, strings.Fields(c.flags)...), "busybox", "true")...)
		if code != 125 && code != 127 { // docker's code for whatever says "no such file"
			t.Errorf("%s: code %d", c.flags, code)
		}
		wantMatch(t, c.flags, errOut, c.pattern)
		if got := h.MustMinictl("ps", "-aq"); got != "" {
			t.Errorf("%s: left %s", c.flags, got)
		}
	}
}

// TestInit: the little pid 1 passes signals on and reaps orphans, also for a user who may not read root's files.
func TestInit(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	h.MustMinictl("run", "-d", "--init", "-u", "nobody", "--name", "reaped", "busybox", "sh", "-c",
		"trap 'exit 5' TERM; (sleep 0 & ) ; (sh -c 'sleep 0 & exec true') ; while :; do sleep 60 & wait $!; done")
	l.Eventually(soon, func() error {
		out := h.MustMinictl("exec", "reaped", "ps", "-o", "stat,args")
		if strings.Contains(out, "Z") || !strings.Contains(out, "sleep 60") {
			return errf("%s", out)
		}
		return nil
	})
	h.MustDocker("stop", "reaped") // within the ten seconds, or it would be 137
	if got := clients()[0].field(h, "reaped", "{{.State.ExitCode}}"); got != "5" {
		t.Errorf("exit code %s, want the trap's 5", got)
	}
	fails(t, h, 127, `nope`, "run", "--rm", "--init", "busybox", "nope")
}

// TestSharedNamespaces: pid and ipc of another container.
func TestSharedNamespaces(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	before := h.Snapshot()
	h.MustMinictl("run", "-d", "--name", "donor", "--ipc", "shareable", "--shm-size", "2m", "busybox", "sleep", "4321")
	h.MustMinictl("exec", "donor", "sh", "-c", "echo shared > /dev/shm/note")
	wantMatch(t, "pid", h.MustMinictl("run", "--rm", "--pid", "container:donor", "busybox", "ps"), `sleep 4321`)
	wantMatch(t, "ipc", h.MustDocker("run", "--rm", "--ipc", "container:donor", "busybox", "sh", "-c", "cat /dev/shm/note; df -k /dev/shm"), `shared\n(.|\n)* 2048 `)
	wantMatch(t, "exec", h.MustMinictl("exec", "donor", "grep", "CapEff", "/proc/self/status"), `00000000a80425fb`)
	wantMatch(t, "exec --privileged", h.MustMinictl("exec", "--privileged", "donor", "grep", "CapEff", "/proc/self/status"), `000001f`)
	h.KillDaemon()
	h.Daemon()
	wantMatch(t, "ipc after the daemon's restart", h.MustMinictl("run", "--rm", "--ipc", "container:donor", "busybox", "cat", "/dev/shm/note"), `shared`)
	h.MustMinictl("run", "-d", "--name", "private", "busybox", "sleep", "600")
	fails(t, h, 125, `non-shareable IPC`, "run", "--rm", "--ipc", "container:private", "busybox", "true")
	h.MustMinictl("rm", "-f", "donor", "private")
	fails(t, h, 125, `No such container: donor`, "run", "--rm", "--pid", "container:donor", "busybox", "true")
	if _, err := os.Stat(h.Path("/run/minictl/shm")); err == nil {
		if left, _ := os.ReadDir(h.Path("/run/minictl/shm")); len(left) > 0 {
			t.Errorf("shared memory left: %v", left)
		}
	}
	if diff := lab.Diff(before, h.Snapshot()); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
}

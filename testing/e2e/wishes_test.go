package e2e

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// wish is flags of run with what a script inside the container sees of them.
type wish struct {
	name, flags, script, pattern string
	code                         int
}

// TestWishes: what run's rarer flags ask for is true inside the container. Each client takes every other row.
func TestWishes(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	before := h.Snapshot()
	dir := t.TempDir()
	profile := filepath.Join(dir, "seccomp.json")
	for name, text := range map[string]string{
		"seccomp.json": `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 37}]}`,
		"empty.json":   `{"defaultAction": 7}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i, w := range []wish{
		{"userns host", "--userns host", "cat /proc/self/uid_map", `^0\s+0\s+4294967295$`, 0},
		{"domainname", "--domainname example.org --hostname web", "cat /proc/sys/kernel/domainname; hostname -f", `^example.org\nweb.example.org$`, 0},
		{"any user opens any port", "-u 33", "nc -l -p 80 & sleep 0; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; kill $!", `^0$`, 0},
		{"any user pings", "-u 33 --cap-drop ALL", "cat /proc/sys/net/ipv4/ping_group_range", `^0\s+2147483647$`, 0},
		{"the user's sysctl wins", "--sysctl net.ipv4.ip_unprivileged_port_start=99", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", `^99$`, 0},
		{"seccomp profile", "--security-opt seccomp=" + profile, "mkdir /x", `No locks available`, 1},
		{"seccomp profile of a privileged one", "--privileged --security-opt seccomp=" + profile, "mkdir /x", `No locks available`, 1},
		{"seccomp builtin", "--security-opt seccomp=builtin", "grep Seccomp: /proc/self/status; unshare -U true", `Seccomp:\s*2(.|\n)*Operation not permitted`, 1},
		{"no-new-privileges false", "--security-opt no-new-privileges=false", "grep NoNewPrivs /proc/self/status", `NoNewPrivs:\s*0`, 0},
		{"apparmor unconfined", "--security-opt apparmor=unconfined", "echo in", `^in$`, 0},
		{"label disable", "--security-opt label=disable", "echo in", `^in$`, 0},
		{"writable cgroups", "--security-opt writable-cgroups=true", "mkdir /sys/fs/cgroup/pids/x && rmdir /sys/fs/cgroup/pids/x", ``, 0},
		{"cgroups are read-only", "", "mkdir /sys/fs/cgroup/pids/x", `Read-only file system`, 1},
		{"system paths", "--security-opt systempaths=unconfined", "test -w /proc/sys/kernel/hostname && grep -c /proc/kcore /proc/mounts", `^0$`, 1},
		{"cgroup-parent", "--cgroupns host --cgroup-parent /wished/here", "cat /proc/self/cgroup", `:pids:/wished/here/[0-9a-f]{64}\n`, 0},
		{"memory-reservation", "-m 32m --memory-reservation 16m", "cat /sys/fs/cgroup/memory/memory.soft_limit_in_bytes", `^16777216$`, 0},
		{"unlimited swap", "-m 32m --memory-swap -1", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", `^33554432\n\d{17,}$`, 0},
		{"memory-swappiness", "--memory-swappiness 7", "cat /sys/fs/cgroup/memory/memory.swappiness", `^7$`, 0},
		{"oom-kill-disable", "-m 32m --oom-kill-disable", "cat /sys/fs/cgroup/memory/memory.oom_control", `^oom_kill_disable 1\n`, 0},
		{"device-read-bps", "--device-read-bps /dev/loop0:1mb --device-read-iops /dev/loop0:30", "cat /sys/fs/cgroup/blkio/blkio.throttle.read_bps_device /sys/fs/cgroup/blkio/blkio.throttle.read_iops_device", `^7:0 1048576\n7:0 30$`, 0},
		{"device-write-bps", "--device-write-bps /dev/loop1:2mb --device-write-iops /dev/loop1:40", "cat /sys/fs/cgroup/blkio/blkio.throttle.write_bps_device /sys/fs/cgroup/blkio/blkio.throttle.write_iops_device", `^7:1 2097152\n7:1 40$`, 0},
		{"blkio-weight", "--blkio-weight 300", "cat /sys/fs/cgroup/blkio/blkio.bfq.weight", `^300$`, 0},
		{"tmpfs options", "--tmpfs /t:size=4m,mode=750,uid=5,gid=6,exec", "grep ' /t ' /proc/mounts; stat -c %u:%g:%a /t; cp /bin/busybox /t/echo && /t/echo ran", `^tmpfs /t tmpfs rw,nosuid,nodev,relatime,size=4096k.*\n5:6:750\nran$`, 0},
		{"tmpfs by default", "--tmpfs /t", "grep ' /t ' /proc/mounts", `^tmpfs /t tmpfs rw,nosuid,nodev,noexec`, 0},
		{"tmpfs mount", "--mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=0750", "grep ' /t ' /proc/mounts; stat -c %a /t", `^tmpfs /t tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k.*\n750$`, 0},
		{"read-only tmpfs mount", "--mount type=tmpfs,dst=/t,readonly", "touch /t/x", `Read-only file system`, 1},
		{"dns-option and dns-search", "--dns-option ndots:3 --dns-search example.org", "cat /etc/resolv.conf", `search example.org\n(.|\n)*options .*ndots:3`, 0},
		{"cpuset-mems", "--cpuset-mems 0", "cat /sys/fs/cgroup/cpuset/cpuset.mems", `^0$`, 0},
		{"group by name", "-u 33 --group-add daemon", "id -G", `^33 1$|^0 1$`, 0},
	} {
		t.Run(w.name, func(t *testing.T) {
			c := clients()[i%2]
			args := append([]string{"run", "--rm"}, strings.Fields(w.flags)...)
			out, errOut, code := c.try(h, append(args, "busybox", "sh", "-c", w.script)...)
			if code != w.code {
				t.Errorf("%s: code %d, want %d", c.name, code, w.code)
			}
			wantMatch(t, w.script, strings.TrimSpace(strings.Trim(out, "\n")+"\n"+errOut), w.pattern)
		})
	}
	if diff := lab.Diff(before, h.Snapshot()); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
	for i, c := range clients() {
		volume := "kept" + itoa(i)
		c.must(h, "run", "--rm", "--mount", "type=volume,src="+volume+",dst=/v,volume-label=a=b", "busybox", "true")
		if got := strings.TrimSpace(c.must(h, "volume", "ls", "-q", "--filter", "label=a=b", "--filter", "name="+volume)); got != volume {
			t.Errorf("%s: volume with the label: %q", c.name, got)
		}
	}
	h.MustMinictl("run", "-d", "--umask", "027", "--name", "masked", "busybox", "sh", "-c", "touch /made; exec sleep 600")
	if got := strings.TrimSpace(h.MustMinictl("exec", "masked", "stat", "-c", "%a", "/made")); got != "640" {
		t.Errorf("--umask 027: %q", got)
	}
}

// TestWishesRefused: what cannot be honoured is refused by name, and nothing is made.
func TestWishesRefused(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	profile := filepath.Join(t.TempDir(), "bad.json")
	if err := os.WriteFile(profile, []byte(`{"defaultAction": 7}`), 0o644); err != nil {
		t.Fatal(err)
	}
	h.MustMinictl("run", "-d", "--name", "other", "busybox", "sleep", "600")
	const no = "minictl does not support "
	for i, c := range []struct{ flags, pattern string }{
		{"--runtime crun", no + "--runtime crun yet"},
		{"--isolation hyperv", no + "--isolation hyperv yet"},
		{"--gpus all", no + "--gpus yet"},
		{"--device vendor.com/gpu=0", no + "--device vendor.com/gpu=0 yet"},
		{"--storage-opt size=1g", no + "--storage-opt yet"},
		{"--cpu-rt-runtime 1000 --cpu-rt-period 2000", no + "--cpu-rt-period, --cpu-rt-runtime yet"},
		{"--volume-driver nfs", no + "--volume-driver nfs yet"},
		{"--log-driver syslog", no + "--log-driver syslog yet"},
		{"--security-opt apparmor=nobody-has-this", "apparmor=nobody-has-this|apparmor"},
		{"--security-opt label=type:svirt_apache_t", no + "--security-opt label=type:svirt_apache_t yet"},
		{"--security-opt nonsense=1", `invalid --security-opt 2: "nonsense=1"`},
		{"--security-opt no-new-privileges=maybe", `invalid --security-opt 2: "no-new-privileges=maybe"`},
		{"--security-opt seccomp=" + profile, `Decoding seccomp profile failed`},
		{"--tmpfs /t:sise=1m", `invalid tmpfs option "sise=1m"`},
		{"--uts host --hostname web", `conflicting options: hostname and the UTS mode`},
		{"--network container:other --hostname web", `conflicting options: hostname and the network mode`},
		{"--network container:other --dns 1.1.1.1", `conflicting options: dns and the network mode`},
		{"--network container:other --add-host a:1.1.1.1", `conflicting options: custom host-to-IP mapping and the network mode`},
		{"--network container:other -p 80", `conflicting options: port publishing and the container type network mode`},
		{"--network container:other --expose 80", `conflicting options: port exposing and the container type network mode`},
		{"--device-read-bps /dev/null:1mb", `limit block device /dev/null: not a block device`},
		{"--device-read-bps /dev/nope:1mb", `limit block device /dev/nope: no such file or directory`},
		{"--blkio-weight 5", `Range of blkio weight is from 10 to 1000|does not support --blkio-weight`},
		{"--mount type=image,src=busybox,dst=/x", no + "--mount type=image yet"},
		{"--mount type=volume,src=v,dst=/x,volume-subpath=a", no + "--mount volume-subpath yet"},
		{"--mount type=bind,src=/nope,dst=/x", `bind source path does not exist: /nope`},
		{"--mount type=bind,src=/tmp,dst=/", `destination can't be '/'`},
		{"--log-opt max-size=0", `invalid log opt max-size=0: max-size must be a positive number`},
		{"--log-opt max-file=0", `invalid log opt max-file=0: max-file cannot be less than 1`},
		{"--log-opt nonsense=1", `unknown log opt 'nonsense' for json-file log driver`},
		{"--log-driver local --log-opt tag=x", `unknown log opt 'tag' for local log driver`},
		{"--log-opt labels-regex=(", `invalid log opt labels-regex: error parsing regexp`},
		{"--log-opt tag={{.Nope}}", `invalid log opt tag: .*can't evaluate field Nope`},
	} {
		cl := clients()[i%2]
		_, errOut, code := cl.try(h, append(append([]string{"run", "--rm"}, strings.Fields(c.flags)...), "busybox", "true")...)
		if code != 125 && code != 127 { // docker's code for whatever says "no such file"
			t.Errorf("%s %s: code %d", cl.name, c.flags, code)
		}
		wantMatch(t, cl.name+" "+c.flags, errOut, c.pattern)
	}
	if got := lines(h.MustMinictl("ps", "-aq")); len(got) != 1 {
		t.Errorf("containers left: %v", got)
	}
}

// TestMountsReach: how far a bind reaches, down and between the host and the container.
func TestMountsReach(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	dir := t.TempDir()
	script := func(text string) {
		t.Helper()
		if out, errOut, code := h.Run(context.Background(), "sh", "-ec", text); code != 0 {
			t.Fatal(out, errOut)
		}
	}
	script("mkdir -p " + dir + "/sub " + dir + "/live && mount -t tmpfs below " + dir + "/sub && touch " + dir + "/sub/file && mount -t tmpfs live " + dir + "/live && mount --make-private " + dir + "/live")
	for _, c := range clients() {
		for _, w := range []wish{
			{"read-only reaches below", "-v " + dir + ":/x:ro", "touch /x/sub/new", `Read-only file system`, 1},
			{"so with --mount", "--mount type=bind,src=" + dir + ",dst=/x,readonly", "touch /x/sub/new", `Read-only file system`, 1},
			{"forced", "--mount type=bind,src=" + dir + ",dst=/x,readonly,bind-recursive=readonly,bind-propagation=rprivate", "touch /x/sub/new", `Read-only file system`, 1},
			{"writable below", "--mount type=bind,src=" + dir + ",dst=/x,readonly,bind-recursive=writable", "touch /x/sub/new && touch /x/new", `/x/new: Read-only file system`, 1},
			{"not recursive", "--mount type=bind,src=" + dir + ",dst=/x,bind-recursive=disabled", "ls /x/sub", `^$`, 0},
			{"not shared", "-v " + dir + "/live:/x:rshared", "true", `path .*/live is mounted on .*/live but it is not a shared mount`, 125},
			{"not slave", "-v " + dir + "/live:/x:rslave", "true", `path .*/live is mounted on .*/live but it is not a shared or slave mount`, 125},
		} {
			out, errOut, code := c.try(h, append(append([]string{"run", "--rm"}, strings.Fields(w.flags)...), "busybox", "sh", "-c", w.script)...)
			if code != w.code {
				t.Errorf("%s %s: code %d, want %d", c.name, w.name, code, w.code)
			}
			wantMatch(t, c.name+" "+w.name, strings.TrimSpace(out+errOut), w.pattern)
		}
	}
	// To clients of before API 1.44, and so to Debian 12's docker, read-only has never meant more than the mount itself.
	old := []string{"env", "DOCKER_API_VERSION=1.43", "docker", "--config", t.TempDir(), "-H", "unix://" + lab.Socket, "run", "--rm"}
	for _, flags := range [][]string{{"-v", dir + ":/x:ro"}, {"--mount", "type=bind,src=" + dir + ",dst=/x,readonly"}} {
		_, errOut, code := h.Run(context.Background(), slices.Concat(old, flags, []string{"busybox", "sh", "-c", "touch /x/sub/new && touch /x/new"})...)
		wantMatch(t, "API 1.43: "+itoa(code), errOut, `/x/new: Read-only file system`)
	}
	script("mount --make-rshared " + dir + "/live && mkdir " + dir + "/live/a " + dir + "/live/b")
	h.MustMinictl("run", "-d", "--privileged", "--name", "giver", "-v", dir+"/live:/x:rshared", "busybox", "sleep", "600")
	h.MustDocker("run", "-d", "--name", "taker", "-v", dir+"/live:/x:rslave", "busybox", "sleep", "600")
	h.MustDocker("run", "-d", "--name", "private", "-v", dir+"/live:/x", "busybox", "sleep", "600")
	h.MustMinictl("exec", "giver", "sh", "-c", "mount -t tmpfs t /x/a && touch /x/a/from-container")
	script("test -e " + dir + "/live/a/from-container; mount -t tmpfs t " + dir + "/live/b; touch " + dir + "/live/b/from-host")
	wantMatch(t, "rslave", h.MustMinictl("exec", "taker", "ls", "/x/a", "/x/b"), `from-container\n(.|\n)*from-host`)
	if got := h.MustMinictl("exec", "private", "ls", "/x/a", "/x/b"); strings.Contains(got, "from") {
		t.Errorf("a private mount shows what came later: %s", got)
	}
	h.MustMinictl("rm", "-f", "giver", "taker", "private")
	script("umount " + dir + "/live/a " + dir + "/live/b " + dir + "/live " + dir + "/sub")
}

// TestWarned: what is made and does not do what one may think is said on stderr.
func TestWarned(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	for _, c := range clients() {
		for flags, pattern := range map[string]string{
			"--network host -p 80": `Published ports are discarded when using host network mode`,
			"--oom-kill-disable":   `OOM killer is disabled for the container, but no memory limit is set`,
		} {
			_, errOut, code := c.try(h, append(append([]string{"run", "--rm"}, strings.Fields(flags)...), "busybox", "true")...)
			if code != 0 {
				t.Errorf("%s %s: code %d", c.name, flags, code)
			}
			wantMatch(t, c.name+" "+flags, errOut, pattern)
		}
	}
}

// TestDefaultsShown: inspect says what holds where nothing was asked for.
func TestDefaultsShown(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	for _, c := range clients() {
		c.must(h, "run", "--name", "plain", "busybox", "echo", "hello")
		const format = "{{.HostConfig.ShmSize}} {{.HostConfig.IpcMode}} {{.HostConfig.Runtime}} {{.HostConfig.CgroupnsMode}} {{len .HostConfig.ReadonlyPaths}} {{.HostConfig.PidsLimit}} {{.HostConfig.LogConfig.Type}}"
		if got := c.field(h, "plain", format); !strings.HasPrefix(got, "67108864 private runc ") || !strings.HasSuffix(got, " 5 <nil> json-file") {
			t.Errorf("%s: %s", c.name, got)
		}
		if log := h.MustRun("cat", c.field(h, "plain", "{{.LogPath}}")); !strings.Contains(log, `{"log":"hello\n","stream":"stdout"`) {
			t.Errorf("%s: LogPath leads to %q", c.name, log)
		}
		c.must(h, "rm", "plain")
	}
}

// TestUpdatedPolicy: another restart policy holds from the next end on.
func TestUpdatedPolicy(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	for _, c := range clients() {
		c.must(h, "run", "-d", "--name", "box", "busybox", "sh", "-c", "trap 'exit 4' USR1; while :; do sleep 60 & wait $!; done")
		trapped := func() {
			t.Helper()
			l.Eventually(patient, func() error {
				if out := c.must(h, "top", "box", "-o", "pid,args"); !strings.Contains(out, "sleep 60") {
					return errf("%s", out)
				}
				return nil
			})
		}
		trapped()
		c.must(h, "update", "--restart", "on-failure:3", "box")
		c.must(h, "exec", "-d", "box", "kill", "-USR1", "1")
		l.Eventually(patient, func() error {
			if got := c.field(h, "box", "{{.State.Status}} {{.RestartCount}}"); got != "running 1" {
				return errf("%s", got)
			}
			return nil
		})
		trapped()
		c.must(h, "update", "--restart", "no", "box")
		c.must(h, "exec", "-d", "box", "kill", "-USR1", "1")
		l.Eventually(patient, func() error {
			if got := c.field(h, "box", "{{.State.Status}} {{.State.ExitCode}}"); got != "exited 4" {
				return errf("%s", got)
			}
			return nil
		})
		h.StopDaemon()
		h.RestartDaemon()
		if got := c.field(h, "box", "{{.State.Status}} {{.HostConfig.RestartPolicy.Name}}"); got != "exited no" {
			t.Errorf("%s: after the daemon's restart: %s", c.name, got)
		}
		c.must(h, "rm", "box")
	}
}

// TestStopSettings: stop goes by the container's own signal and patience.
func TestStopSettings(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	for _, c := range clients() {
		c.must(h, "run", "-d", "--name", "polite", "--stop-signal", "USR1", "--stop-timeout", "600", "busybox", "sh", "-c", "trap 'exit 9' USR1; while :; do sleep 60 & wait $!; done")
		c.must(h, "run", "-d", "--name", "deaf", "--stop-signal", "USR1", "--stop-timeout", "0", "busybox", "sh", "-c", "trap '' USR1; sleep 600")
		l.Eventually(soon, func() error { // the trap is set a little later than run returns
			if out := c.must(h, "top", "polite", "-o", "pid,args"); !strings.Contains(out, "sleep 60") {
				return errf("%s", out)
			}
			return nil
		})
		c.must(h, "stop", "polite", "deaf")
		if got := strings.Fields(c.must(h, "wait", "polite", "deaf")); len(got) != 2 || got[0] != "9" || got[1] != "137" {
			t.Errorf("%s: exit codes %v, want the trap's 9 and 137", c.name, got)
		}
		c.must(h, "rm", "polite", "deaf")
	}
}

// TestAPIOnly: what no command line asks for, and some program does.
func TestAPIOnly(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	client := h.HTTP()
	defer client.CloseIdleConnections()
	create := func(name, body string) (status int, text string) {
		t.Helper()
		resp, err := client.Post("http://minictl/containers/create?name="+name, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if status, text := create("alone", `{"Image":"busybox","Cmd":["ls","/sys/class/net"],"NetworkDisabled":true}`); status != http.StatusCreated {
		t.Fatal(status, text)
	}
	if got := h.MustMinictl("start", "-a", "alone"); got != "lo\n" {
		t.Errorf("with NetworkDisabled it has %s", got)
	}
	for body, pattern := range map[string]string{
		`{"Image":"busybox","HostConfig":{"CpuCount":2}}`:                                  `minictl does not support --cpu-count yet`,
		`{"Image":"busybox","HostConfig":{"IOMaximumIOps":2}}`:                             `minictl does not support --io-maxiops yet`,
		`{"Image":"busybox","ArgsEscaped":true}`:                                           `minictl does not support ArgsEscaped`,
		`{"Image":"busybox","HostConfig":{"Ulimits":[null]}}`:                              `invalid ulimit: null`,
		`{"Image":"busybox","HostConfig":{"BlkioDeviceReadBps":[null]}}`:                   `null`,
		`{"Image":"busybox","HostConfig":{"LogConfig":{"Type":"none","Config":{"a":""}}}}`: `unknown log opt 'a' for none log driver`,
	} {
		if status, text := create("refused", body); status != http.StatusBadRequest && status != http.StatusNotImplemented {
			t.Errorf("%s: %d %s", body, status, text)
		} else {
			wantMatch(t, body, text, pattern)
		}
	}
	resp, err := client.Post("http://minictl/containers/alone/update", "application/json", strings.NewReader(`{"Ulimits":[{"Name":"nofile","Soft":1,"Hard":1}]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNotImplemented {
		t.Errorf("update of a ulimit: %s", resp.Status)
	}
}

package e2e

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/minictl/minictl/testing/lab"
)

// field reads one of inspect's fields.
func (c cli) field(h *lab.Host, name, format string) string {
	return strings.TrimSpace(c.must(h, "inspect", "-f", format, name))
}

// until waits for a field of inspect.
func (c cli) until(l *lab.Lab, h *lab.Host, name, format, want string) {
	l.Eventually(soon, func() error {
		if got := c.field(h, name, format); got != want {
			return errf("%s of %s is %s, want %s", format, name, got, want)
		}
		return nil
	})
}

// now is this moment as events --until takes it: 0s would be the beginning of this second.
func now() string { return time.Now().Format(time.RFC3339Nano) }

// happened are the actions of one container's events so far, in order.
func happened(h *lab.Host, name string) string {
	out := h.MustMinictl("events", "--since", "10m", "--until", now(), "--filter", "container="+name, "--format", "{{.Action}}")
	return strings.Join(lines(out), " ")
}

// TestRestartPolicy: what ends starts again as its policy says, and stays away when a user says so.
func TestRestartPolicy(t *testing.T) {
	t.Parallel()
	for _, c := range recentClients(t) {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t)
			h := start(t, l, "host1")
			before := h.Snapshot()
			c.must(h, "run", "-d", "--name", "three", "--restart", "on-failure:3", "busybox", "false")
			c.until(l, h, "three", "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}", "exited 3 1")
			wantMatch(t, "die, start, and no restart", happened(h, "three"), `^create (network:\S+ )?start die start die start die start die$`)

			c.must(h, "run", "-d", "--name", "well", "--restart", "on-failure", "busybox", "true")
			c.until(l, h, "well", "{{.State.Status}} {{.RestartCount}}", "exited 0")

			// The back-off doubles: after a dozen failures there is time to look at one.
			c.must(h, "run", "-d", "--name", "always", "--restart", "always", "busybox", "false")
			l.Eventually(patient, func() error {
				if got := c.field(h, "always", "{{.State.Status}} {{.State.Running}} {{.State.Restarting}} {{ge .RestartCount 5}}"); got != "restarting true true true" {
					return errf("%s", got)
				}
				return nil
			})
			wantMatch(t, "ps", c.must(h, "ps"), `Restarting \(1\) \S+ `)
			wantMatch(t, "filter", c.must(h, "ps", "-q", "--filter", "status=restarting"), `\S`)
			for _, bad := range []struct{ pattern, args string }{
				{`restarting: stop the container before removing or force remove`, "rm always"},
				{`is restarting, wait until the container is running|is not running`, "pause always"},
				{`is (restarting|not running)`, "exec always true"},
			} {
				l.Eventually(soon, func() error { // on a slow machine it may just be trying once more
					_, errOut, code := c.try(h, strings.Fields(bad.args)...)
					if code == 0 || !regexp.MustCompile(bad.pattern).MatchString(errOut) {
						return errf("%s: code %d, want /%s/ in: %s", bad.args, code, bad.pattern, errOut)
					}
					return nil
				})
			}
			c.must(h, "stop", "always")
			if got := c.field(h, "always", "{{.State.Status}} {{.State.Running}}"); got != "exited false" {
				t.Errorf("after stop in the back-off: %s", got)
			}
			c.must(h, "start", "always")
			c.until(l, h, "always", "{{.State.Status}} {{ge .RestartCount 4}}", "restarting true")
			c.must(h, "kill", "always")
			c.until(l, h, "always", "{{.State.Status}}", "exited")
			c.must(h, "start", "always")
			c.until(l, h, "always", "{{.State.Status}} {{ge .RestartCount 4}}", "restarting true")
			c.must(h, "rm", "-f", "always")

			// A user's stop and kill of one that runs are respected, a signal of another kind is not taken for one.
			c.must(h, "run", "-d", "--name", "runs", "--restart", "unless-stopped", "busybox", "sh", "-c", "trap 'exit 4' USR1; trap 'exit 0' TERM; while :; do sleep 60 & wait $!; done")
			c.must(h, "kill", "-s", "USR1", "runs")
			c.until(l, h, "runs", "{{.State.Status}} {{.RestartCount}}", "running 1")
			c.must(h, "stop", "runs")
			wantMatch(t, "stopped", happened(h, "runs"), `start kill die start kill die stop$`)
			c.must(h, "start", "runs")
			if got := c.field(h, "runs", "{{.State.Status}} {{.RestartCount}}"); got != "running 0" {
				t.Errorf("after start: %s", got)
			}
			c.must(h, "update", "--restart", "no", "runs")
			c.must(h, "kill", "-s", "USR1", "runs")
			c.until(l, h, "runs", "{{.State.Status}} {{.State.ExitCode}}", "exited 4")

			_, errOut, code := c.try(h, "run", "--rm", "--restart", "always", "busybox", "true")
			if code == 0 {
				t.Error("--rm with --restart: no error")
			}
			wantMatch(t, "--rm with --restart", errOut, `cannot specify both --restart and --rm`)
			c.must(h, "rm", "three", "well", "runs")
			if diff := lab.Diff(before, h.Snapshot()); diff != "" {
				t.Errorf("left behind:\n%s", diff)
			}
		})
	}
}

// TestRestartPolicyReboot: the daemon's end changes nothing; after the machine's, what is to run runs again.
func TestRestartPolicyReboot(t *testing.T) {
	t.Parallel()
	c := clients()[0]
	l := lab.New(t)
	h := start(t, l, "host1")
	c.must(h, "network", "create", "-d", "overlay", "ov_net1")
	run := func(name, policy string, command ...string) {
		c.must(h, append([]string{"run", "-d", "--name", name, "--network", "ov_net1", "--restart", policy, "busybox"}, command...)...)
	}
	run("always", "always", "sleep", "600")
	run("always-stopped", "always", "sleep", "600")
	run("unless", "unless-stopped", "sleep", "600")
	run("unless-stopped", "unless-stopped", "sleep", "600")
	run("never", "no", "sleep", "600")
	run("fails", "always", "false")
	c.must(h, "create", "--name", "created", "--restart", "always", "busybox", "sleep", "600")
	c.must(h, "stop", "-t", "0", "always-stopped", "unless-stopped")
	l.Eventually(soon, func() error { return hasFailed(c, h, 3) })
	pid := c.field(h, "always", "{{.State.Pid}}")

	h.KillDaemon()
	h.Daemon()
	for name, want := range map[string]string{"always": "running", "unless": "running", "never": "running", "unless-stopped": "exited", "created": "created"} {
		if got := c.field(h, name, "{{.State.Status}}"); got != want {
			t.Errorf("%s is %s after the daemon's restart, want %s", name, got, want)
		}
	}
	if got := c.field(h, "always", "{{.State.Pid}} {{.RestartCount}}"); got != pid+" 0" {
		t.Errorf("always is process %s, was %s", got, pid)
	}
	c.until(l, h, "always-stopped", "{{.State.Status}}", "running") // docker's rule: always means always
	l.Eventually(soon, func() error { return hasFailed(c, h, 4) })  // its back-off went on
	c.must(h, "rm", "-f", "fails")

	h.Halt()
	h.Boot()
	h.Daemon()
	for _, name := range []string{"always", "always-stopped", "unless"} {
		c.until(l, h, name, "{{.State.Status}} {{.RestartCount}}", "running 0")
	}
	for name, want := range map[string]string{"never": "exited 255", "unless-stopped": "exited 137", "created": "created 0"} {
		if got := c.field(h, name, "{{.State.Status}} {{.State.ExitCode}}"); got != want {
			t.Errorf("%s is %s after the reboot, want %s", name, got, want)
		}
	}
	wantMatch(t, "they reach each other again", c.must(h, "exec", "always", "ping", "-c", "1", "-W", "2", "unless"), `1 packets received`)
}

func hasFailed(c cli, h *lab.Host, times int) error {
	if got := c.field(h, "fails", "{{.RestartCount}}"); len(got) == 1 && got < itoa(times) {
		return errf("fails has failed %s times only", got)
	}
	return nil
}

package e2e

import (
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// TestRename: the new name is found on every host when rename has returned, the old one is not.
func TestRename(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	h1.MustMinictl("run", "-d", "--name", "first", "--network", "ov_net1", "--network-alias", "alias1", "busybox", "sleep", "600")
	h2.MustMinictl("run", "-d", "--name", "other", "--network", "ov_net1", "busybox", "sleep", "600")
	ask := func(h *lab.Host, from, what string) string {
		out, errOut, _ := h.Minictl("exec", from, "nslookup", "-type=a", what)
		return out + errOut
	}
	name := "first"
	for _, c := range clients() {
		was := name
		name = "by-" + c.name
		c.must(h1, "rename", was, name)
		for _, h := range []struct {
			h    *lab.Host
			from string
		}{{h1, name}, {h2, "other"}} {
			wantMatch(t, h.from+" asks the new name", ask(h.h, h.from, name), `Address: +10\.0\.0\.2`)
			wantMatch(t, h.from+" asks the alias", ask(h.h, h.from, "alias1"), `Address: +10\.0\.0\.2`)
			wantMatch(t, h.from+" asks the old name", ask(h.h, h.from, was), `NXDOMAIN`)
		}
		wantMatch(t, "reverse", ask(h2, "other", "10.0.0.2"), `name = `+name+`\.ov_net1|10\.0\.0\.2`)
		c.must(h1, "create", "--name", "taken", "busybox", "true")
		for _, bad := range []struct{ pattern, to string }{
			{`Renaming a container with the same name as its current name`, name},
			{`Error when allocating new name: Conflict. The container name "/taken" is already in use by container`, "taken"},
			{`Invalid container name \(bad name\)`, "bad name"},
		} {
			_, errOut, code := c.try(h1, "rename", name, bad.to)
			if code != 1 {
				t.Errorf("%s to %s: code %d", c.name, bad.to, code)
			}
			wantMatch(t, c.name+" to "+bad.to, errOut, bad.pattern)
		}
		c.must(h1, "rm", "taken")
	}
	h1.KillDaemon()
	h1.Daemon()
	wantMatch(t, "after the daemon's restart", ask(h2, "other", name), `Address: +10\.0\.0\.2`)
}

// TestSharedNetwork: who is on another container's network has that one's names and resolver.
func TestSharedNetwork(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	h.MustMinictl("network", "create", "br1")
	h.MustMinictl("run", "-d", "--name", "owner", "--hostname", "house", "--domainname", "example.org", "--add-host", "extra:10.9.8.7", "--network", "br1", "busybox", "sleep", "600")
	h.MustMinictl("run", "-d", "--name", "peer", "--network", "br1", "busybox", "sleep", "600")
	h.MustMinictl("run", "-d", "--name", "guest", "--network", "container:owner", "busybox", "sleep", "600")
	for _, c := range clients() {
		for _, of := range []string{"owner", "guest"} {
			out := c.must(h, "run", "--rm", "--network", "container:"+of, "busybox", "sh", "-c", "hostname -f; cat /etc/hosts; ping -c 1 peer && ping -c 1 -W 1 house")
			wantMatch(t, c.name+" on the network of "+of, out, `^house.example.org\n(.|\n)*10\.9\.8\.7\s+extra\n(.|\n)* house(.|\n)* 0% packet loss(.|\n)* 0% packet loss`)
		}
		_, errOut, code := c.try(h, "run", "--rm", "--network", "container:nope", "busybox", "true")
		if code != 125 {
			t.Errorf("%s: code %d", c.name, code)
		}
		wantMatch(t, c.name+" on nobody's network", errOut, `No such container: nope`)
	}
}

// TestEventFilters: docker's filters, a bound in the past, and no filter that lets everything through.
func TestEventFilters(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	id := strings.TrimSpace(h.MustMinictl("run", "-d", "--name", "web", "--label", "tier=1", "busybox:latest", "sleep", "600"))
	h.MustMinictl("exec", "web", "true")
	stamp := lines(h.MustMinictl("events", "--since", "10m", "--until", now(), "--filter", "event=start", "--format", "{{.TimeNano}}"))[0]
	started := stamp[:len(stamp)-9] + "." + stamp[len(stamp)-9:]
	h.MustMinictl("network", "create", "br1")
	for _, c := range clients() {
		for _, q := range []struct{ filters, want string }{
			{"container=" + id[:7], "create start exec_create: true exec_start: true exec_die"},
			{"container=web event=exec_start", "exec_start: true"},
			{"event=exec_create event=exec_die", "exec_create: true exec_die"},
			{"image=busybox event=create", "create"},
			{"image=busybox:latest event=create", "create"},
			{"type=network event=create", "create"},
			{"network=br1", "create"},
			{"label=tier=1 event=start", "start"},
			{"label=tier=2", ""},
			{"daemon=host1", ""},
			{"scope=swarm", ""},
		} {
			args := []string{"events", "--since", "10m", "--until", now(), "--format", "{{.Action}}"}
			for f := range strings.FieldsSeq(q.filters) {
				args = append(args, "--filter", f)
			}
			if got := strings.Join(lines(c.must(h, args...)), " "); got != q.want {
				t.Errorf("%s %s: %q, want %q", c.name, q.filters, got, q.want)
			}
		}
		if got := lines(c.must(h, "events", "--since", "10m", "--until", started, "--filter", "type=container", "--format", "{{.Action}}")); len(got) != 2 || got[1] != "start" {
			t.Errorf("%s: until the start: %v", c.name, got)
		}
		_, errOut, code := c.try(h, "events", "--until", "0s", "--filter", "nonsense=1")
		if code == 0 {
			t.Errorf("%s: an unknown filter is taken", c.name)
		}
		wantMatch(t, c.name+" unknown filter", errOut, `invalid filter 'nonsense'`)
	}
}

// TestExecRefusals: docker's words and exit codes for commands that cannot run.
func TestExecRefusals(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	h.MustMinictl("run", "-d", "--name", "web", "-e", "HOME=/h", "-e", "KEPT=1", "busybox", "sleep", "600")
	h.MustMinictl("create", "--name", "still", "busybox", "true")
	for _, c := range clients() {
		for _, q := range []struct {
			args, pattern string
			code          int
		}{
			{"web nosuch", `^OCI runtime exec failed: exec failed: .*"nosuch": executable file not found`, 127},
			{"web /etc", `^OCI runtime exec failed: exec failed: .*"/etc": (permission denied|is a directory)`, 126},
			{"-u nosuch web id", `^unable to find user nosuch: no matching entries in passwd file`, 126},
			{"-w /nope web pwd", `^OCI runtime exec failed: exec failed: .*chdir to cwd`, 127},
			{"still true", `^Error response from daemon: container [0-9a-f]{64} is not running`, 1},
			{"nope true", `^Error response from daemon: No such container: nope`, 1},
		} {
			out, errOut, code := c.try(h, append([]string{"exec"}, strings.Fields(q.args)...)...)
			if code != q.code {
				t.Errorf("%s exec %s: code %d, want %d", c.name, q.args, code, q.code)
			}
			wantMatch(t, c.name+" exec "+q.args, strings.TrimPrefix(strings.TrimSpace(out+errOut), "minictl: "), q.pattern)
		}
		if got := c.must(h, "exec", "-e", "NOT_SET_ANYWHERE", "-e", "KEPT", "web", "env"); strings.Contains(got, "KEPT") || !strings.Contains(got, "HOME=/h") {
			t.Errorf("%s: a bare name takes a variable out: %s", c.name, got)
		}
		_, errOut, code := c.try(h, "run", "--rm", "busybox", "nosuch")
		if code != 127 || strings.Contains(errOut, "Error waiting for container") {
			t.Errorf("%s run --rm of nothing: code %d: %s", c.name, code, errOut)
		}
	}
}

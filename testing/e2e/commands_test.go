package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// TestRun is run's flags, its streams and its exit codes, by both command lines.
func TestRun(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	before := h.Snapshot()
	shared := t.TempDir()
	if err := os.WriteFile(filepath.Join(shared, "in"), []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			for _, r := range []struct {
				name string
				code int
				out  string // pattern
				args []string
			}{
				{"output", 0, `^hello\n$`, []string{"busybox", "echo", "hello"}},
				{"exit code", 3, `^$`, []string{"busybox", "sh", "-c", "exit 3"}},
				{"signal", 137, `^$`, []string{"busybox", "sh", "-c", "sleep 60 & kill -9 $!; wait $!"}},
				{"environment", 0, `^b c\n$`, []string{"-e", "A=b c", "busybox", "sh", "-c", `echo "$A"`}},
				{"working folder", 0, `^/tmp\n$`, []string{"-w", "/tmp", "busybox", "pwd"}},
				{"working folder is made", 0, `^/not/there\n$`, []string{"-w", "/not/there", "busybox", "pwd"}},
				{"user by number", 0, `^uid=7 gid=8`, []string{"-u", "7:8", "busybox", "id"}},
				{"user by name", 0, `^uid=0\(root\)`, []string{"-u", "root", "busybox", "id"}},
				{"hostname", 0, `^web\nweb\n$`, []string{"--hostname", "web", "busybox", "sh", "-c", "hostname; cat /etc/hostname"}},
				{"entrypoint", 0, `^a b\n$`, []string{"--entrypoint", "echo", "busybox", "a", "b"}},
				{"bind", 0, `^from the host\n$`, []string{"-v", shared + ":/x", "busybox", "cat", "/x/in"}},
				{"read-only bind", 1, ``, []string{"-v", shared + ":/x:ro", "busybox", "touch", "/x/no"}},
				{"no network", 0, `^lo\n$`, []string{"--network", "none", "busybox", "ls", "/sys/class/net"}},
				{"host network", 0, `eth0`, []string{"--network", "host", "busybox", "ls", "/sys/class/net"}},
				{"default bridge", 0, `default via 172\.17\.0\.1 dev eth0`, []string{"busybox", "ip", "route"}},
				{"init is 1", 0, `^1\n$`, []string{"busybox", "sh", "-c", "echo $$"}},
				{"no such command", 127, ``, []string{"busybox", "nope"}},
				{"not executable", 126, ``, []string{"busybox", "/etc/passwd"}},
			} {
				out, errOut, code := c.try(h, append([]string{"run", "--rm"}, r.args...)...)
				if code != r.code {
					t.Errorf("%s: code %d, want %d: %s%s", r.name, code, r.code, out, errOut)
				}
				wantMatch(t, r.name, out, r.out)
			}
			if out, _, _ := c.try(h, "ps", "-aq"); out != "" && c.name == "minictl" {
				t.Errorf("containers left: %s", out)
			}
			out, _, _ := c.try(h, "ps", "-aq")
			for _, id := range lines(out) { // docker's own run leaves what never started
				c.try(h, "rm", "-f", id)
			}
		})
	}
	if diff := lab.Diff(before, h.Snapshot()); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
}

// TestStreams is standard input, terminals, attach, logs and exec.
func TestStreams(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	bin, err := lab.Binary()
	if err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("0123456789abcde\n", 1<<14)
	for _, client := range [][]string{{bin}, {"docker", "-H", "unix://" + lab.Socket}} {
		run := func(input string, args ...string) (string, string, int) {
			return h.RunInput(context.Background(), input, append(client, args...)...)
		}
		out, errOut, code := run(big, "run", "--rm", "-i", "busybox", "cat")
		if out != big || code != 0 {
			t.Errorf("%v: cat gave %d of %d bytes, code %d: %s", client, len(out), len(big), code, errOut)
		}
		out, errOut, _ = run("", "run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
		if out != "out\n" || errOut != "err\n" {
			t.Errorf("%v: streams are not apart: %q %q", client, out, errOut)
		}
	}
	h.MustMinictl("run", "-d", "--name", "talk", "busybox", "sh", "-c", "for i in 1 2 3; do echo line $i; echo err $i >&2; done; exec sleep 600")
	l.Eventually(soon, func() error {
		if out := h.MustMinictl("logs", "talk"); !strings.Contains(out, "line 3") {
			return errf("log: %q", out)
		}
		return nil
	})
	if got := h.MustMinictl("logs", "--tail", "1", "talk"); strings.Contains(got, "line 1") {
		t.Errorf("--tail 1 gave %q", got)
	}
	wantMatch(t, "--timestamps", h.MustMinictl("logs", "-t", "talk"), `(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z line 1$`)
	for _, c := range clients() {
		for _, x := range []struct {
			code int
			out  string
			args []string
		}{
			{0, "hi\n", []string{"exec", "talk", "echo", "hi"}},
			{5, "", []string{"exec", "talk", "sh", "-c", "exit 5"}},
			{0, "v\n", []string{"exec", "-e", "A=v", "talk", "sh", "-c", "echo $A"}},
			{0, "/tmp\n", []string{"exec", "-w", "/tmp", "talk", "pwd"}},
			{0, "9\n", []string{"exec", "-u", "9", "talk", "id", "-u"}},
			{0, "", []string{"exec", "-d", "talk", "touch", "/made"}},
		} {
			out, errOut, code := c.try(h, x.args...)
			if out != x.out || code != x.code {
				t.Errorf("%s %v: %q, code %d: %s", c.name, x.args, out, code, errOut)
			}
		}
		if _, _, code := c.try(h, "exec", "talk", "nope"); code != 127 {
			t.Errorf("%s exec of nothing: code %d, want 127", c.name, code)
		}
	}
	l.Eventually(soon, func() error {
		if _, _, code := h.Minictl("exec", "talk", "test", "-e", "/made"); code != 0 {
			return errf("exec -d made nothing")
		}
		return nil
	})
	h.MustMinictl("stop", "-t", "0", "talk")
	if got := strings.TrimSpace(h.MustMinictl("wait", "talk")); got != "137" {
		t.Errorf("wait: %s", got)
	}
}

// TestFormats is one answer in every form that docker gives it.
func TestFormats(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	id := strings.TrimSpace(h.MustMinictl("run", "-d", "--name", "one", "--label", "a=b", "busybox", "sleep", "600"))
	h.MustMinictl("create", "--name", "two", "busybox", "true")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"ps", "-q"}, `^` + id[:12] + `\n$`},
		{[]string{"ps", "-q", "--no-trunc"}, `^` + id + `\n$`},
		{[]string{"ps", "-a", "--format", "{{.Names}} {{.State}}"}, `(?s)^two created\none running\n$`},
		{[]string{"ps", "-a", "--filter", "status=created", "--format", "{{.Names}}"}, `^two\n$`},
		{[]string{"ps", "--filter", "label=a=b", "-q"}, `^` + id[:12] + `\n$`},
		{[]string{"ps", "--filter", "label=a=c", "-q"}, `^$`},
		{[]string{"ps"}, `(?s)^CONTAINER ID +IMAGE +COMMAND +CREATED +STATUS +PORTS +NAMES\n.*busybox +"sleep 600" .* Up .* one\n$`},
		{[]string{"images", "--format", "{{.Repository}}:{{.Tag}}"}, `(?m)^busybox:latest$`},
		{[]string{"network", "ls", "-q", "--filter", "name=bridge"}, `^[0-9a-f]{12}\n$`},
		{[]string{"inspect", "-f", "{{.State.Status}} {{.Name}}", "one"}, `^running /one\n$`},
		{[]string{"port", "one"}, `^$`},
		{[]string{"version", "--format", "{{.Server.APIVersion}}"}, `^1\.51\n$`},
		{[]string{"info", "--format", "{{.ContainersRunning}}"}, `^1\n$`},
	} {
		wantMatch(t, strings.Join(c.args, " "), h.MustMinictl(c.args...), c.want)
	}
	var row struct{ ID, Names, Image string }
	if err := json.Unmarshal([]byte(h.MustMinictl("ps", "--format", "json")), &row); err != nil || row.Names != "one" || row.Image != "busybox" {
		t.Errorf("ps --format json: %+v, %v", row, err)
	}
}

// TestImages is import, tag, rmi and what docker says about them.
func TestImages(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	h.MustMinictl("tag", "busybox", "mine/box:1")
	wantMatch(t, "run by another name", h.MustMinictl("run", "--rm", "mine/box:1", "echo", "hi"), `hi`)
	wantMatch(t, "rmi untags", h.MustMinictl("rmi", "mine/box:1"), `^Untagged: mine/box:1\n$`)
	h.MustMinictl("create", "--name", "user", "httpd")
	fails(t, h, 1, `httpd.*container`, "rmi", "httpd")
	h.MustMinictl("rm", "user")
	wantMatch(t, "rmi deletes", h.MustMinictl("rmi", "httpd"), `(?s)^Untagged: httpd:latest\n.*Deleted: sha256:`)
	fails(t, h, 1, `No such image: httpd`, "rmi", "httpd")
	tar := filepath.Join(t.TempDir(), "root.tar")
	if out, errOut, code := h.Run(context.Background(), "tar", "-C", "/bin", "-cf", tar, "busybox"); code != 0 {
		t.Fatal(out, errOut)
	}
	wantMatch(t, "import", h.MustMinictl("import", "-c", `CMD ["/busybox","echo","imported"]`, tar, "imp:1"), `^sha256:[0-9a-f]{64}\n$`)
	wantMatch(t, "run what was imported", h.MustMinictl("run", "--rm", "imp:1"), `^imported\n$`)
}

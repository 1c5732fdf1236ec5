package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minictl/minictl/testing/lab"
)

// clientTime bounds one program that is a client of the daemon: a whole session of the SDK's, a compose up.
const clientTime = 3 * time.Minute

// TestSDK is Docker's SDK for Python, as Debian has it: it speaks an older API than docker's own CLI, and lists in filters.
func TestSDK(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	before := h.Snapshot()
	script, err := filepath.Abs("testdata/sdk.py")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), clientTime)
	defer cancel()
	out, errOut, code := h.Run(ctx, "env", "DOCKER_HOST=unix://"+lab.Socket, "/usr/bin/python3", "-B", script)
	if code != 0 {
		t.Fatalf("code %d after step %s\n%s", code, out, errOut)
	}
	if diff := lab.Diff(before, h.Snapshot()); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
}

// compose is docker compose on a host, in a copy of the project that a test may change.
type compose struct {
	t   *testing.T
	h   *lab.Host
	dir string
}

// project puts compose beside the host's docker CLI and a copy of the project into a folder.
func project(t *testing.T, h *lab.Host) *compose {
	t.Helper()
	plugins, err := filepath.Abs("../../bin/cli-plugins")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(plugins, "docker-compose")); err != nil {
		t.Fatalf("no docker compose: run testing/compose.sh: %v", err)
	}
	h.MustDocker("version") // makes the CLI's folder
	if err := os.Symlink(plugins, filepath.Join(h.Dir(), "docker-config", "cli-plugins")); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/compose")); err != nil {
		t.Fatal(err)
	}
	return &compose{t, h, dir}
}

// try gives both streams as one: compose tells its progress on standard error. It builds as docker build does here.
func (c *compose) try(args ...string) (string, int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), clientTime)
	defer cancel()
	full := append([]string{"env", "DOCKER_BUILDKIT=0", "docker", "--config", filepath.Join(c.h.Dir(), "docker-config"), "-H", "unix://" + lab.Socket,
		"compose", "--project-directory", c.dir}, args...)
	out, errOut, code := c.h.Run(ctx, full...)
	return out + errOut, code
}

func (c *compose) must(args ...string) string {
	c.t.Helper()
	out, code := c.try(args...)
	if code != 0 {
		c.t.Fatalf("compose %v: code %d\n%s", args, code, out)
	}
	return out
}

// TestCompose is the life of a project of two services, two networks and two volumes.
func TestCompose(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	before := h.Snapshot()
	c := project(t, h)
	states := func(want string) {
		t.Helper()
		var got []string
		for _, line := range lines(c.must("ps", "-a", "--format", "{{.Service}} {{.State}} {{.Health}}")) {
			got = append(got, strings.TrimSpace(line))
		}
		if got := strings.Join(got, ", "); got != want {
			t.Errorf("compose ps: %s, want %s", got, want)
		}
	}

	c.must("up", "-d")
	states("db running healthy, web running")
	awaitListener(t, l, h, "shop-web-1", 80)
	wantMatch(t, "published", fetch(t, h, "http://127.0.0.1:8080/"), "It works!")
	wantMatch(t, "ps", c.must("ps"), `shop-web-1 +httpd .* 0\.0\.0\.0:8080->80/tcp`)
	wantMatch(t, "logs", c.must("logs", "db"), `db-1 +\| ready`)
	if out := c.must("exec", "-T", "web", "sh", "-c", "echo $GREETING; cat /conf/a"); out != "hello\nfrom the project\n" {
		t.Errorf("exec: %q", out)
	}
	wantMatch(t, "exec by alias", c.must("exec", "-T", "web", "ping", "-c", "1", "database"), ` 0% packet loss`)
	if out, code := c.try("exec", "-T", "db", "sh", "-c", "exit 9"); code != 9 {
		t.Errorf("exec: code %d, %s", code, out)
	}
	wantMatch(t, "images", c.must("images"), `shop-web-1 +httpd +latest .* (seconds?|minutes?) ago`)
	wantMatch(t, "top", c.must("top", "web"), `httpd -f`)
	wantMatch(t, "port", c.must("port", "web", "80"), `^0\.0\.0\.0:8080\n$`)
	wantMatch(t, "cp", c.must("cp", "web:/conf/a", filepath.Join(c.dir, "copied")), `Copied`)

	// A second up changes nothing; a changed service is made anew, the other one is left.
	id := func(service string) string { return c.must("ps", "-q", service) }
	web, db := id("web"), id("db")
	c.must("up", "-d", "--wait")
	if id("web") != web || id("db") != db {
		t.Error("up of what is up made new containers")
	}
	if err := os.WriteFile(filepath.Join(c.dir, ".env"), []byte("GREETING=changed\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.must("up", "-d")
	if id("web") == web || id("db") != db {
		t.Error("a changed service was not replaced, or one that was not changed was")
	}
	if out := c.must("exec", "-T", "web", "sh", "-c", "echo $GREETING"); out != "changed\n" {
		t.Errorf("the new container's environment: %q", out)
	}
	if out := c.must("run", "--rm", "-T", "web", "echo", "once"); !strings.HasSuffix(out, "once\n") && !strings.HasPrefix(out, "once\n") {
		t.Errorf("run: %q", out)
	}

	c.must("pause", "db")
	states("db paused, web running")
	c.must("unpause", "db")
	c.must("stop")
	states("db exited, web exited")
	c.must("start")
	states("db running healthy, web running")
	c.must("restart", "db")
	c.must("up", "-d", "--wait")
	states("db running healthy, web running")
	wantMatch(t, "the volume outlives its containers", c.must("exec", "-T", "db", "cat", "/state/up"), `^kept\nkept\nkept\n$`)
	c.must("kill", "web")
	wantMatch(t, "ps of what was killed", c.must("ps", "-a", "--format", "{{.Service}} {{.ExitCode}}"), `(?m)^web 137$`)

	c.must("down", "-v")
	if diff := lab.Diff(before, h.Snapshot()); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
	for _, noun := range []string{"container ls -aq", "volume ls -q", "network ls -q --filter type=custom"} {
		if out := h.MustDocker(strings.Fields(noun)...); out != "" {
			t.Errorf("%s: %s", noun, out)
		}
	}
}

// TestComposeForeground is up without -d: it follows the events, and ends as one of the services does.
func TestComposeForeground(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	c := project(t, h)
	done := make(chan string, 1)
	go func() {
		out, code := c.try("up", "--exit-code-from", "db")
		done <- out + "code " + itoa(code)
	}()
	l.Eventually(clientTime, func() error {
		if out, _ := c.try("ps", "--format", "{{.Service}}"); len(lines(out)) != 2 {
			return errf("not up: %s", out)
		}
		return nil
	})
	h.MustDocker("stop", "shop-db-1")
	out := <-done
	wantMatch(t, "up", out, `db-1 +\| ready`)
	wantMatch(t, "up", out, `db-1 exited with code 3`)
	wantMatch(t, "up", out, `code 3$`)
	c.must("down", "-v")
}

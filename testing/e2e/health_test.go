package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/minictl/minictl/testing/lab"
)

// TestHealth: a check's verdict is where docker's users look for it, and outlives the daemon.
func TestHealth(t *testing.T) {
	t.Parallel()
	for _, c := range recentClients(t) {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t)
			h := start(t, l, "host1")
			before := h.Snapshot()
			c.must(h, "run", "-d", "--name", "web", "--health-cmd", "echo looking at $WHAT; test -e /ok", "--health-interval", "100ms", "--health-retries", "2",
				"--health-start-period", "1h", "--health-start-interval", "100ms", "-e", "WHAT=ok", "busybox", "sleep", "600")
			wantMatch(t, "ps at first", c.must(h, "ps"), `Up \S+ .*\(health: starting\)`)
			l.Eventually(soon, func() error { // failures within the start period count for nothing
				if s := health(t, h, "web"); len(s.Log) < 5 || s.Status != container.Starting || s.FailingStreak != 0 {
					return errf("%+v", s)
				}
				return nil
			})
			r := health(t, h, "web").Log[4]
			if r.ExitCode != 1 || r.Output != "looking at ok\n" || !r.End.After(r.Start) {
				t.Errorf("result %+v", r)
			}
			c.must(h, "exec", "web", "touch", "/ok")
			c.until(l, h, "web", "{{.State.Health.Status}}", "healthy")
			wantMatch(t, "ps", c.must(h, "ps"), `Up \S+ .*\(healthy\)`)
			c.must(h, "exec", "web", "rm", "/ok")
			c.until(l, h, "web", "{{.State.Health.Status}}", "unhealthy")
			if s := health(t, h, "web"); s.FailingStreak < 2 || len(s.Log) != 5 {
				t.Errorf("unhealthy with %+v", s)
			}
			told := regexp.MustCompile(`exec_create: /bin/sh -c echo .* exec_die.* health_status: healthy .*health_status: unhealthy`)
			l.Eventually(soon, func() error { // as with docker, the state is there a moment before the event
				if got := happened(h, "web"); !told.MatchString(got) {
					return errf("events %s", got)
				}
				return nil
			})
			for filter, want := range map[string]string{"unhealthy": "web", "healthy": "", "none": ""} {
				if got := strings.TrimSpace(c.must(h, "ps", "--filter", "health="+filter, "--format", "{{.Names}}")); got != want {
					t.Errorf("filter health=%s: %q, want %q", filter, got, want)
				}
			}

			// Without a probe in between, so that the fact itself must have been kept.
			c.must(h, "run", "-d", "--name", "slow", "--health-cmd", "true", "--health-interval", "1h", "--health-start-period", "1h", "--health-start-interval", "100ms", "busybox", "sleep", "600")
			c.until(l, h, "slow", "{{.State.Health.Status}}", "healthy")
			at := health(t, h, "slow").Log[0].Start
			h.KillDaemon()
			h.Daemon()
			if s := health(t, h, "slow"); s.Status != container.Healthy || !s.Log[0].Start.Equal(at) {
				t.Errorf("after the daemon's restart: %+v", s)
			}
			c.must(h, "exec", "web", "touch", "/ok")
			c.until(l, h, "web", "{{.State.Health.Status}}", "healthy") // it is looked at again

			c.must(h, "run", "-d", "--name", "hangs", "--health-cmd", "sleep 600", "--health-interval", "100ms", "--health-timeout", "200ms", "--health-retries", "1", "busybox", "sleep", "600")
			c.until(l, h, "hangs", "{{.State.Health.Status}}", "unhealthy")
			if r := health(t, h, "hangs").Log[0]; r.ExitCode != -1 || !strings.HasPrefix(r.Output, "Health check exceeded timeout (200ms)") {
				t.Errorf("result %+v", r)
			}
			c.must(h, "run", "-d", "--name", "leaves", "--health-cmd", "(while :; do echo more; sleep 0.1; done) & true", "--health-interval", "1h", "--health-start-period", "1h", "--health-start-interval", "100ms", "--health-timeout", "1s", "busybox", "sleep", "600")
			c.until(l, h, "leaves", "{{.State.Health.Status}}", "healthy") // though something it left behind goes on writing
			c.must(h, "run", "-d", "--name", "absent", "--health-cmd", "nope", "--health-interval", "100ms", "--health-retries", "1", "busybox", "sleep", "600")
			c.until(l, h, "absent", "{{.State.Health.Status}}", "unhealthy")
			wantMatch(t, "a probe that is not there", health(t, h, "absent").Log[0].Output, `nope: not found`)

			c.must(h, "stop", "-t", "0", "web")
			wantMatch(t, "ps when stopped", c.must(h, "ps", "-a", "--filter", "name=web"), `Exited \(137\) \S[^(]* ago`)
			c.must(h, "rm", "-f", "web", "slow", "hangs", "leaves", "absent")
			if diff := lab.Diff(before, h.Snapshot()); diff != "" {
				t.Errorf("left behind:\n%s", diff)
			}
		})
	}
}

func health(t *testing.T, h *lab.Host, name string) container.Health {
	t.Helper()
	s := inspect[container.InspectResponse](t, h.MustMinictl("inspect", name)).State
	if s.Health == nil {
		t.Fatalf("%s has no health", name)
	}
	return *s.Health
}

// TestHealthOfImage: an image's HEALTHCHECK holds, piece by piece, unless it is overridden or switched off.
func TestHealthOfImage(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	h.MustMinictl("load", "-q", "-i", checkedImage(t))
	run := func(name string, flags ...string) {
		h.MustMinictl(append(append([]string{"run", "-d", "--name", name}, flags...), "checked", "sleep", "600")...)
	}
	run("plain")
	clients()[0].until(l, h, "plain", "{{.State.Health.Status}}", "healthy")
	run("other", "--health-cmd", "false", "--health-retries", "1")
	clients()[0].until(l, h, "other", "{{.State.Health.Status}}", "unhealthy") // at the image's interval
	run("off", "--no-healthcheck")
	if got := clients()[0].field(h, "off", "{{.State.Health}}"); got != "<nil>" {
		t.Errorf("health without a check: %s", got)
	}
	wantMatch(t, "image", h.MustDocker("image", "inspect", "-f", "{{.Config.Healthcheck.Test}}", "checked"), `\[CMD /bin/true\]`)
}

// checkedImage is busybox with a HEALTHCHECK, as docker save writes it.
func checkedImage(t *testing.T) string {
	t.Helper()
	files := archive(t, filepath.Join(imageDir(t), "busybox.tar"))
	var manifest []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(files[manifest[0].Config], &config); err != nil {
		t.Fatal(err)
	}
	config["config"].(map[string]any)["Healthcheck"] = map[string]any{"Test": []string{"CMD", "/bin/true"}, "Interval": 100 * time.Millisecond}
	manifest[0].Config, manifest[0].RepoTags = "config.json", []string{"checked:latest"}
	out := map[string][]byte{}
	for _, layer := range manifest[0].Layers {
		out[layer] = files[layer]
	}
	for name, v := range map[string]any{"config.json": config, "manifest.json": manifest} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = b
	}
	path := filepath.Join(t.TempDir(), "checked.tar")
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, body := range out {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(body)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func archive(t *testing.T, path string) map[string][]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		head, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if out[head.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

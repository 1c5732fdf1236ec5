package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// builders are both ways to build, the stock client's being its first protocol.
func builders(t *testing.T, h *lab.Host) map[string]func(args ...string) (out, errs string, code int) {
	t.Helper()
	return map[string]func(args ...string) (string, string, int){
		"minictl": func(args ...string) (string, string, int) { return h.Minictl(append([]string{"build"}, args...)...) },
		"docker": func(args ...string) (string, string, int) {
			line := append([]string{"env", "DOCKER_BUILDKIT=0", "docker", "-H", "unix://" + lab.Socket, "build"}, args...)
			return h.Run(t.Context(), line...)
		},
	}
}

// TestBuildWithoutBuildKit refuses with a sentence that says how to get one.
func TestBuildWithoutBuildKit(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	sh(h, "mkdir -p /run/ctx; echo FROM busybox >/run/ctx/Dockerfile")
	for name, build := range builders(t, h) {
		_, errs, code := build("/run/ctx")
		if code == 0 {
			t.Errorf("%s: built with nothing", name)
		}
		wantMatch(t, name, errs, `building needs a BuildKit daemon, and none serves unix:///run/buildkit/buildkitd.sock: start buildkitd .*--buildkit ADDR.*buildx build -o type=docker`)
	}
	_, errs, code := h.Run(t.Context(), "sh", "-c", "curl -s --unix-socket "+lab.Socket+" -X POST http://d/session; curl -s --unix-socket "+lab.Socket+" -X POST http://d/grpc >&2")
	if code != 0 || !strings.Contains(errs, "DOCKER_BUILDKIT=0 docker build") {
		t.Errorf("grpc: %d %s", code, errs)
	}
	h.StopDaemon()
	h.Daemon("--buildkit", "unix:///run/nobody.sock")
	_, errs, code = h.Minictl("build", "/run/ctx")
	if code == 0 {
		t.Error("built with a BuildKit that is not there")
	}
	wantMatch(t, "named BuildKit", errs, `BuildKit at unix:///run/nobody.sock does not answer: .*start buildkitd`)
}

// TestBuild has a real BuildKit build. There is none in Debian, so where buildkitd is not in PATH the protocol's own test
// (runtime/ctrd/buildkit) is all there is.
func TestBuild(t *testing.T) {
	bin, err := exec.LookPath("buildkitd")
	if err != nil {
		t.Skip("no buildkitd in PATH: what speaks to it is tested in runtime/ctrd/buildkit")
	}
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	h.Start(bin, "--root", "/var/lib/minictl/buildkit", "--oci-worker-gc=false")
	sh(h, "for i in $(seq 300); do [ -S /run/buildkit/buildkitd.sock ] && break; sleep 0.1; done")
	ctx := h.Path("/run/ctx")
	if err := os.MkdirAll(ctx, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"Dockerfile":    "FROM busybox AS base\nARG V=none\nRUN echo v$V >/v\nFROM base AS mid\nCOPY . /ctx/\nFROM mid\nRUN touch /last\nCMD [\"cat\", \"/v\"]\n",
		".dockerignore": "secret\n", "secret": "s", "a.txt": "a", "Other": "FROM nowhere.invalid/x\n", "Broken": "FROM busybox\nRUN exit 7\n",
	} {
		if err := os.WriteFile(filepath.Join(ctx, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, build := range builders(t, h) {
		t.Run(name, func(t *testing.T) {
			must := func(args ...string) string {
				out, errs, code := build(args...)
				if code != 0 {
					t.Fatalf("%v: %d\n%s%s", args, code, out, errs)
				}
				return out
			}
			app := "app-" + name
			out := must("-t", app+":1", "-t", app+":2", "--build-arg", "V="+name, "--label", "k=l", "--iidfile", "/run/iid", "/run/ctx")
			id := strings.TrimSpace(sh(h, "cat /run/iid"))
			for _, want := range []string{"RUN echo v", "Successfully built " + id[7:19], "Successfully tagged " + app + ":1", "Successfully tagged " + app + ":2"} {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in:\n%s", want, out)
				}
			}
			if got := h.MustMinictl("run", "--rm", app+":2"); got != "v"+name+"\n" {
				t.Errorf("the image says %q", got)
			}
			if got := h.MustMinictl("run", "--rm", app+":1", "ls", "/ctx"); strings.Contains(got, "secret") || !strings.Contains(got, "a.txt") {
				t.Errorf("context:\n%s", got)
			}
			if got := h.MustMinictl("image", "inspect", "-f", "{{.Id}} {{.Config.Labels.k}}", app+":1"); got != id+" l\n" {
				t.Errorf("inspect: %s", got)
			}
			// A second image under the name leaves the first one dangling, as a pull does.
			if got := must("-q", "-t", app+":1", "--target", "base", "--no-cache", "/run/ctx"); !strings.HasPrefix(got, "sha256:") || len(lines(got)) != 1 {
				t.Errorf("quiet: %q", got)
			}
			if got := h.MustMinictl("run", "--rm", app+":1", "ls", "/"); strings.Contains(got, "last") {
				t.Errorf("the target was passed by:\n%s", got)
			}
			h.MustMinictl("run", "--rm", app+":2", "true")
			if got := strings.TrimSpace(must("-q", "/run/ctx")); h.MustMinictl("image", "inspect", "-f", "{{len .RepoTags}}", got) != "0\n" {
				t.Errorf("an image without a name: %s", got)
			}
			for file, want := range map[string]string{"Broken": "exit code: 7", "Other": "nowhere.invalid", "Missing": "Dockerfile|no such file"} {
				out, errs, code := build("-f", "/run/ctx/"+file, "/run/ctx")
				if code == 0 {
					t.Errorf("%s built", file)
				}
				wantMatch(t, file, out+errs, want)
			}
			if _, errs, code := build("--network", "web", "/run/ctx"); code == 0 || !strings.Contains(errs, `network "web" is not supported`) {
				t.Errorf("a network of ours: %d %s", code, errs)
			}
		})
	}
	t.Run("compose", func(t *testing.T) {
		c := project(t, h)
		for name, text := range map[string]string{
			"compose.yaml": "services:\n  app:\n    image: composed:1\n    build: {context: ., args: {V: composed}}\n",
			"Dockerfile":   "FROM busybox\nARG V=none\nRUN echo v$V >/v\nCMD [\"cat\", \"/v\"]\n",
		} {
			if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		c.must("build")
		if got := h.MustMinictl("run", "--rm", "composed:1"); got != "vcomposed\n" {
			t.Errorf("the image says %q", got)
		}
		wantMatch(t, "up --build", c.must("up", "--build"), `app-1 +\| vcomposed`)
		c.must("down")
	})
}

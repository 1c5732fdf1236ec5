package e2e

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
	"github.com/minictl/minictl/testing/registry"
)

// labRegistry runs a registry with TLS and a password on a machine of its own, which the host trusts.
func labRegistry(t *testing.T, l *lab.Lab, h *lab.Host) (addr string) {
	t.Helper()
	far := l.Client("registry")
	addr = far.Addr().String() + ":5000"
	reg, err := registry.Prepare(t.Context(), t.TempDir(), registry.Options{Listen: addr, TLS: true, User: "joe", Password: "secret", Dial: h.Dial})
	if err != nil {
		t.Fatal(err)
	}
	far.Start(reg.Args()...)
	if err := reg.Await(nil); err != nil {
		t.Fatal(err)
	}
	certs := h.Path("/etc/docker/certs.d/" + addr)
	if err := os.MkdirAll(certs, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(certs, "ca.crt"), reg.CA, 0o644); err != nil {
		t.Fatal(err)
	}
	return addr
}

// TestPushAndLogin sends an image to a registry that wants a password, and gets it back under its digest.
func TestPushAndLogin(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	addr := labRegistry(t, l, h)
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			name := addr + "/team/" + c.name
			c.must(h, "tag", "busybox", name+":1")
			c.must(h, "tag", "httpd", name+":2")
			if _, errs, code := c.try(h, "push", name+":1"); code == 0 || !strings.Contains(errs, "denied") && !strings.Contains(errs, "no basic auth credentials") {
				t.Errorf("push without a login: %d %s", code, errs)
			}
			if _, errs, code := c.try(h, "login", "-u", "joe", "-p", "wrong", addr); code == 0 || !strings.Contains(errs, "401 Unauthorized") {
				t.Errorf("login with the wrong password: %d %s", code, errs)
			}
			wantMatch(t, "login", c.must(h, "login", "-u", "joe", "-p", "secret", addr), "Login Succeeded")
			out := c.must(h, "push", name+":1")
			for _, want := range []string{"The push refers to repository [" + name + "]", ": Pushed", "1: digest: sha256:"} {
				if !strings.Contains(out, want) {
					t.Errorf("push has no %q:\n%s", want, out)
				}
			}
			wantMatch(t, "push again", c.must(h, "push", name+":1"), "Layer already exists")
			wantMatch(t, "all tags", c.must(h, "push", "-a", name), `(?s)1: digest:.*2: digest:`)
			digest := strings.TrimSpace(c.must(h, "image", "inspect", "-f", "{{index .RepoDigests 0}}", name+":1"))
			wantMatch(t, "its digest", digest, "^"+name+"@sha256:")
			c.must(h, "rmi", name+":1", name+":2")
			c.must(h, "pull", digest)
			if out := c.must(h, "run", "--rm", digest, "echo", "back"); out != "back\n" {
				t.Errorf("what came back says %q", out)
			}
			c.must(h, "rmi", digest)
			if _, errs, code := c.try(h, "push", name+":9"); code == 0 || !strings.Contains(errs, "An image does not exist locally with the tag: "+name) {
				t.Errorf("push of what is not there: %d %s", code, errs)
			}
			wantMatch(t, "logout", c.must(h, "logout", addr), "Removing login credentials for "+addr)
			if _, _, code := c.try(h, "pull", name+":1"); code == 0 {
				t.Error("pulled after the logout")
			}
		})
	}
	t.Run("distribution", func(t *testing.T) {
		ask := func(auth string) (status int, body string) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://minictl/distribution/"+addr+"/team/minictl:1/json", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Registry-Auth", base64.URLEncoding.EncodeToString([]byte(auth)))
			resp, err := h.HTTP().Do(req)
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
		if status, body := ask(`{"username":"joe","password":"secret"}`); status != 200 || !strings.Contains(body, `"architecture":"amd64"`) || !strings.Contains(body, `"digest":"sha256:`) {
			t.Errorf("%d %s", status, body)
		}
		if status, body := ask(`{"username":"joe","password":"wrong"}`); status != 401 {
			t.Errorf("wrong password: %d %s", status, body)
		}
	})
	for _, q := range []struct{ what, pattern string }{{"search", "search"}, {"build", "buildx build -o type=docker"}} {
		args := map[string][]string{"search": {"search", "busybox"}, "build": {"build", "/etc/apt"}}[q.what]
		if q.what == "build" {
			_, errs, code := h.Run(t.Context(), "sh", "-c", "mkdir -p /run/b; echo FROM busybox >/run/b/Dockerfile; DOCKER_BUILDKIT=0 docker -H unix://"+lab.Socket+" build /run/b")
			if code == 0 {
				t.Error("docker build works")
			}
			wantMatch(t, q.what, errs, q.pattern)
			continue
		}
		if _, errs, code := h.Docker(args...); code == 0 || !strings.Contains(errs, q.pattern) {
			t.Errorf("%s: %d %s", q.what, code, errs)
		}
	}
}

// TestSaveAndHistory carries images from one host to another in an archive that holds both formats.
func TestSaveAndHistory(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1 := start(t, l, "host1")
	h2 := l.Host("host2")
	h2.Daemon()
	shared := t.TempDir()
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(shared, c.name+".tar")
			c.must(h1, "tag", "busybox", "box:1")
			c.must(h1, "tag", "busybox", "box:2")
			c.must(h1, "save", "-o", "/run/s.tar", "box", "httpd:latest")
			list := sh(h1, "tar -tf /run/s.tar")
			for _, want := range []string{"oci-layout", "index.json", "manifest.json", "blobs/sha256/"} {
				if !strings.Contains(list, want) {
					t.Errorf("no %s in the archive:\n%s", want, list)
				}
			}
			var manifests []struct{ RepoTags []string }
			if err := json.Unmarshal([]byte(sh(h1, "tar -xOf /run/s.tar manifest.json")), &manifests); err != nil || len(manifests) != 2 {
				t.Errorf("manifest.json: %v, %v", manifests, err)
			}
			b, err := os.ReadFile(h1.Path("/run/s.tar"))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, b, 0o644); err != nil {
				t.Fatal(err)
			}
			out := c.must(h2, "load", "-i", file)
			for _, want := range []string{"Loaded image: box:1", "Loaded image: box:2", "Loaded image: httpd:latest"} {
				if !strings.Contains(out, want) {
					t.Errorf("load says no %q:\n%s", want, out)
				}
			}
			format := "{{.Repository}}:{{.Tag}} {{.ID}}"
			wantMatch(t, "the same IDs", c.must(h2, "images", "--format", format), strings.Split(c.must(h1, "images", "--format", format, "httpd"), "\n")[0])
			if out := c.must(h2, "run", "--rm", "box:2", "echo", "there"); out != "there\n" {
				t.Errorf("run: %q", out)
			}
			id := strings.TrimSpace(c.must(h1, "images", "-q", "httpd"))
			c.must(h1, "save", "-o", "/run/id.tar", id)
			if got := sh(h1, "tar -xOf /run/id.tar manifest.json"); strings.Contains(got, "httpd:latest") {
				t.Errorf("an image saved by its ID has a name: %s", got)
			}
			wantMatch(t, "history", c.must(h2, "history", "httpd"), `(?m)^IMAGE +CREATED +CREATED BY +SIZE +COMMENT\n`+id)
			wantMatch(t, "history -q", c.must(h2, "history", "-q", "httpd"), `^`+id)
			if _, errs, code := c.try(h1, "save", "-o", "/run/no.tar", "nope"); code == 0 || !strings.Contains(errs, "No such image: nope:latest") {
				t.Errorf("save of nothing: %d %s", code, errs)
			}
			if _, _, code := h1.Run(t.Context(), "test", "-e", "/run/no.tar"); code == 0 {
				t.Error("a file of a failed save")
			}
			c.must(h2, "rmi", "box:1", "box:2", "httpd")
		})
	}
}

// TestPrune frees what nobody uses, and says how much that was.
func TestPrune(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	disk := func() string {
		return strings.Fields(sh(h, "du -sk /var/lib/minictl/containerd"))[0]
	}
	full := disk()
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			c.must(h, "run", "--name", "old", "--label", "k=1", "busybox", "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=3 2>/dev/null")
			c.must(h, "run", "-d", "--name", "up", "busybox", "sleep", "600")
			c.must(h, "create", "--name", "new", "busybox")
			c.must(h, "commit", "old") // an image without a name
			df := c.must(h, "system", "df")
			wantMatch(t, "df", df, `(?m)^Images +3 +1 +`)
			wantMatch(t, "df", df, `(?m)^Containers +3 +1 +3\.1\d+MB +3\.1\d+MB`)
			verbose := c.must(h, "system", "df", "-v")
			wantMatch(t, "df -v", verbose, `(?m)busybox +latest +\w{12}.* 3\s*$`)
			wantMatch(t, "df -v", verbose, `(?m)3\.1\dMB.* old\s*$`)
			wantMatch(t, "ps -s", c.must(h, "ps", "-as", "--filter", "name=old"), `3\.1\dMB \(virtual`)
			out := c.must(h, "container", "prune", "-f", "--filter", "label=k=1")
			wantMatch(t, "by label", out, `Total reclaimed space: 3\.1\d+MB`)
			if got := lines(c.must(h, "ps", "-aq")); len(got) != 2 {
				t.Errorf("containers after a prune by label: %v", got)
			}
			wantMatch(t, "by age", c.must(h, "container", "prune", "-f", "--filter", "until=1h"), `^Total reclaimed space: 0B`)
			wantMatch(t, "the rest", c.must(h, "container", "prune", "-f"), `Deleted Containers:`)
			if _, errs, code := c.try(h, "container", "prune", "-f", "--filter", "nope=1"); code == 0 || !strings.Contains(errs, "invalid filter") {
				t.Errorf("unknown filter: %d %s", code, errs)
			}
			out = c.must(h, "image", "prune", "-f")
			wantMatch(t, "dangling images", out, `(?s)deleted: sha256:.*Total reclaimed space: 3\.\d*MB`)
			if got := lines(c.must(h, "images", "-q")); len(got) != 2 {
				t.Errorf("images after pruning the dangling: %v", got)
			}
			wantMatch(t, "young images stay", c.must(h, "image", "prune", "-af", "--filter", "until=2000-01-01T00:00:00Z"), `^Total reclaimed space: 0B`)
			c.must(h, "network", "create", "unused")
			out = c.must(h, "system", "prune", "-af")
			wantMatch(t, "system prune", out, `(?s)Deleted Networks:\nunused.*untagged: httpd:latest.*Total reclaimed space: `)
			if got := lines(c.must(h, "images", "--format", "{{.Repository}}")); len(got) != 1 || got[0] != "busybox" {
				t.Errorf("images after a system prune: %v", got)
			}
			c.must(h, "rm", "-f", "up")
			c.must(h, "system", "prune", "-af")
			if got := c.must(h, "images", "-aq"); got != "" {
				t.Errorf("images left: %s", got)
			}
			l.Eventually(soon, func() error { // the collector's second look
				if left := sh(h, "ls /var/lib/minictl/containerd/io.containerd.content.v1.content/blobs/sha256 | wc -l; ls /var/lib/minictl/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots | wc -l"); left != "0\n0\n" {
					return errf("blobs and layers left: %q", left)
				}
				return nil
			})
			loadImages(t, h)
		})
	}
	if len(disk()) > len(full) {
		t.Errorf("the disk held %s KiB at first, %s now", full, disk())
	}
}

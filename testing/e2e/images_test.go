package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/minictl/minictl/testing/lab"
)

// TestImageRules lists, finds, removes and imports images with docker's rules.
func TestImageRules(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			c.must(h, "tag", "busybox", "box:1")
			c.must(h, "tag", "busybox", "box:2")
			imageFilters(t, h, c)
			removalRules(t, h, c)
			for _, name := range []string{"box:1", "box:2"} {
				c.try(h, "rmi", name)
			}
		})
	}
	t.Run("platform", func(t *testing.T) {
		for _, c := range recentClients(t) {
			for _, name := range []string{"one:1", "one:2"} {
				c.must(h, "tag", "busybox", name)
			}
			if _, errs, code := c.try(h, "rmi", "--platform", "linux/s390x", "one:2"); code != 1 || !strings.Contains(errs, "does not provide the specified platform") {
				t.Errorf("%s rmi for another platform: %d %s", c.name, code, errs)
			}
			c.must(h, "rmi", "--platform", "linux/"+goarch(h), "one:1")
			_, errs, code := c.try(h, "create", "--pull", "never", "--platform", "linux/s390x", "busybox")
			wantMatch(t, c.name+" create for another platform: "+itoa(code), errs, `its platform \(linux/`+goarch(h)+`\) does not match the specified platform \(linux/s390x\)`)
			c.must(h, "rm", strings.TrimSpace(c.must(h, "create", "--platform", "linux/"+goarch(h), "busybox")))
			for _, args := range [][]string{{"save", "-o", "/run/p.tar", "busybox"}, {"history", "busybox"}, {"load", "-i", filepath.Join(imageDir(t), "busybox.tar")}} {
				c.must(h, append(args, "--platform", "linux/"+goarch(h))...)
				if _, errs, code := c.try(h, append(args, "--platform", "linux/s390x")...); code != 1 || !strings.Contains(errs, "platform") {
					t.Errorf("%s %v for another platform: %d %s", c.name, args, code, errs)
				}
			}
		}
	})
}

func goarch(h *lab.Host) string {
	return strings.TrimSpace(h.MustMinictl("image", "inspect", "-f", "{{.Architecture}}", "busybox"))
}

// imageFilters goes through images --filter; the names stand for the whole listing.
func imageFilters(t *testing.T, h *lab.Host, c cli) {
	t.Helper()
	c.must(h, "create", "--name", "src", "busybox")
	c.must(h, "commit", "-c", "LABEL k=v", "src", "labelled:1")
	dangling := strings.TrimSpace(c.must(h, "commit", "-m", "second", "src"))
	c.must(h, "rm", "src")
	for _, q := range []struct{ args, want string }{
		{"box", "box:1 box:2"}, {"box:1", "box:1"}, {"-f reference=box:2", "box:2"}, {"-f reference=b*:1 -f reference=httpd", "box:1 httpd:latest"},
		{"-f label=k", "labelled:1"}, {"-f label=k=v", "labelled:1"}, {"-f label=k=w", ""},
		{"-f dangling=true", "<none>:<none>"}, {"-f dangling=false -f reference=*", "box:1 box:2 busybox:latest httpd:latest labelled:1"},
		{"-f since=busybox -f label=k", "labelled:1"}, {"-f before=labelled:1 -f reference=box", "box:1 box:2"}, {"-f before=busybox -f label=k", ""},
		{"-f until=2000-01-01", ""}, {"nope", ""},
	} {
		got := lines(c.must(h, append([]string{"images", "--format", "{{.Repository}}:{{.Tag}}"}, strings.Fields(q.args)...)...))
		if !sameSet(got, strings.Fields(q.want)) {
			t.Errorf("images %s: %v, want %s", q.args, got, q.want)
		}
	}
	for _, bad := range []string{"dangling=maybe", "nope=1", "until=soon", "before=nothing"} {
		if out, errs, code := c.try(h, "images", "-f", bad); code != 1 || errs == "" {
			t.Errorf("images -f %s: %d %s%s", bad, code, out, errs)
		}
	}
	wantMatch(t, "history --no-trunc", c.must(h, "history", "--no-trunc", dangling), `(?m)^`+dangling+` .* second *$`)
	wantMatch(t, "inspect", c.must(h, "image", "inspect", "-f", "{{.Comment}} {{.Metadata.LastTagTime}} {{.Os}} {{.RootFS.Type}} {{len .RootFS.Layers}}", dangling), `^second 0001-01-01 .* linux layers \d+`)
	wantMatch(t, "inspect", c.must(h, "image", "inspect", "-f", "{{.Created}} {{.Metadata.LastTagTime}}", "labelled:1"), `^20\d\d-\S+ 20\d\d-`)
	c.must(h, "rmi", "labelled:1", dangling)
}

func sameSet(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	count := map[string]int{}
	for i := range a {
		count[a[i]]++
		count[b[i]]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

// removalRules are docker's about images in use, with several names, and by ID.
func removalRules(t *testing.T, h *lab.Host, c cli) {
	t.Helper()
	c.must(h, "create", "--name", "src", "busybox", "sh", "-c", "echo still here")
	c.must(h, "commit", "src", "used:1")
	c.must(h, "rm", "src")
	id := strings.TrimSpace(c.must(h, "images", "-q", "used"))
	refused := func(pattern string, args ...string) {
		t.Helper()
		out, errs, code := c.try(h, append([]string{"rmi"}, args...)...)
		if code != 1 {
			t.Errorf("rmi %v: code %d: %s", args, code, out)
		}
		wantMatch(t, "rmi "+strings.Join(args, " "), errs, pattern)
	}
	c.must(h, "run", "-d", "--name", "up", "used:1", "sleep", "600")
	refused(`conflict: unable to remove repository reference "used:1" \(must force\) - container \w{12} is using its referenced image `+id, "used:1")
	refused(`conflict: unable to delete `+id+` \(cannot be forced\) - image is being used by running container \w{12}`, id)
	refused(`\(cannot be forced\)`, "-f", id)
	c.must(h, "tag", "used:1", "used:2")
	wantMatch(t, "one name of two", c.must(h, "rmi", "used:2"), `^Untagged: used:2\n$`)
	c.must(h, "rm", "-f", "up")
	c.must(h, "create", "--name", "down", "used:1")
	refused(`\(must be forced\) - image is being used by stopped container \w{12}`, id)
	c.must(h, "tag", "used:1", "other:1")
	refused(`\(must be forced\) - image is referenced in multiple repositories`, id)
	wantMatch(t, "by ID, forced", c.must(h, "rmi", "-f", id), `(?s)Untagged: other:1.*Untagged: used:1.*Deleted: sha256:`+id)
	// The container keeps its layers.
	if out := c.must(h, "start", "-a", "down"); out != "still here\n" {
		t.Errorf("a container whose image was removed by force says %q", out)
	}
	c.must(h, "rm", "down")
	refused(`No such image: nope:latest`, "nope")
}

// TestImageArchives takes compressed archives, and a root file system from a URL.
func TestImageArchives(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	far := l.Client("web")
	h.MustMinictl("save", "-o", "/run/plain.tar", "busybox")
	sh(h, "cd /run && gzip -1k plain.tar && /bin/busybox bzip2 -k1 plain.tar && mkdir root && cp /bin/busybox root/ && tar -C root -cf root.tar . && rm -r root")
	rootTar, err := os.ReadFile(h.Path("/run/root.tar"))
	if err != nil {
		t.Fatal(err)
	}
	addr := far.Addr().String() + ":80"
	var ln net.Listener
	if err := far.Do(func() (err error) { ln, err = net.Listen("tcp", addr); return err }); err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/root.tar" {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "root.tar", time.Time{}, bytes.NewReader(rootTar))
	})}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			for _, file := range lines(sh(h, "ls /run/plain.tar*")) {
				c.must(h, "rmi", "busybox")
				wantMatch(t, file, c.must(h, "load", "-i", file), "Loaded image: busybox:latest")
			}
			wantMatch(t, "the event", c.must(h, "events", "--since", "1h", "--until", "0s", "--filter", "type=image", "--filter", "event=load"), `image load sha256:\w{64}`)
			url := fmt.Sprintf("http://%s/root.tar", far.Addr())
			out := c.must(h, "import", "-c", `ENTRYPOINT ["/busybox"]`, "-m", "from afar", url, "afar:1")
			wantMatch(t, "import", out, `(?s)Downloading from `+regexp.QuoteMeta(url)+`.*sha256:\w{64}`)
			if out := c.must(h, "run", "--rm", "afar:1", "echo", "imported"); out != "imported\n" {
				t.Errorf("run: %q", out)
			}
			wantMatch(t, "its history", c.must(h, "history", "afar:1"), `from afar`)
			_, errs, code := c.try(h, "import", url+"x")
			if code != 1 {
				t.Errorf("import of nothing: %d", code)
			}
			wantMatch(t, "import of nothing", errs, "404 Not Found")
			c.must(h, "rmi", "afar:1")
		})
	}
}

// credentialHelper keeps one registry's credentials in a file, as a helper of docker's does.
const credentialHelper = `#!/bin/sh
case $1 in
store) cat >/run/helper/store ;;
get) cat >/dev/null; if [ -e /run/helper/store ]; then cat /run/helper/store; else echo credentials not found in native keychain; exit 1; fi ;;
erase) rm -f /run/helper/store ;;
list) echo '{}' ;;
esac
`

// TestCredentialHelpers logs in and out, pushes and pulls through the helpers that docker's configuration names.
func TestCredentialHelpers(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	addr := labRegistry(t, l, h)
	if err := os.MkdirAll(h.Path("/run/helper"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.Path("/run/helper/docker-credential-lab"), []byte(credentialHelper), 0o755); err != nil {
		t.Fatal(err)
	}
	bin, err := lab.Binary()
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{bin, "docker -H unix://" + lab.Socket} {
		for kind, config := range map[string]string{"credHelpers": `{"credHelpers":{"` + addr + `":"lab"}}`, "credsStore": `{"credsStore":"lab"}`} {
			t.Run(filepath.Base(strings.Fields(program)[0])+" "+kind, func(t *testing.T) {
				file := h.Path("/run/helper/config.json")
				if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
					t.Fatal(err)
				}
				run := func(args string) (string, int) {
					out, errs, code := h.Run(t.Context(), "sh", "-c", "PATH=/run/helper:$PATH DOCKER_CONFIG=/run/helper "+program+" "+args)
					return out + errs, code
				}
				name := addr + "/helped/box:1"
				h.MustMinictl("tag", "busybox", name)
				out, code := run("login -u joe -p secret " + addr)
				if code != 0 {
					t.Fatalf("login: %s", out)
				}
				wantMatch(t, "login", out, "Login Succeeded")
				stored, err := os.ReadFile(h.Path("/run/helper/store"))
				if err != nil {
					t.Fatal(err)
				}
				wantMatch(t, "the helper has", string(stored), `"Username":"joe","Secret":"secret"`)
				if kept, err := os.ReadFile(file); err != nil || strings.Contains(string(kept), `"auth"`) {
					t.Errorf("the configuration file keeps the credentials, too: %s, %v", kept, err)
				}
				if out, code := run("push " + name); code != 0 {
					t.Errorf("push: %s", out)
				}
				h.MustMinictl("rmi", name)
				if out, code := run("pull " + name); code != 0 {
					t.Errorf("pull: %s", out)
				}
				if out, code := run("logout " + addr); code != 0 {
					t.Errorf("logout: %s", out)
				}
				if _, err := os.Stat(h.Path("/run/helper/store")); err == nil {
					t.Error("the helper still has them after the logout")
				}
				if out, code := run("pull " + name); code == 0 || !strings.Contains(out, "no basic auth credentials") {
					t.Errorf("pull after the logout: %d %s", code, out)
				}
			})
		}
	}
}

package cli_test

import (
	"encoding/base64"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minictl/minictl/cmd/internal/cli/clitest"
)

const pulling = `{"status":"Pulling from library/busybox","id":"latest"}
{"status":"Pulling fs layer","progressDetail":{},"id":"4abcf2066143"}
{"status":"Downloading","progressDetail":{"current":1048576,"total":2097152},"id":"4abcf2066143"}
{"status":"Pull complete","progressDetail":{},"id":"4abcf2066143"}
{"status":"Digest: sha256:aa"}
`

func registry(t *testing.T) *clitest.Daemon {
	d := clitest.Start(t)
	d.Handle("POST /images/create", clitest.JSON(200, pulling))
	return d
}

// Plain lines when nobody watches: no bars, no escape sequences.
func TestPullPlain(t *testing.T) {
	r := clitest.Run(t, registry(t), "pull", "busybox")
	want := `Using default tag: latest
latest: Pulling from library/busybox
4abcf2066143: Pulling fs layer
4abcf2066143: Pull complete
Digest: sha256:aa
docker.io/library/busybox:latest
`
	if r.Code != 0 || r.Out != want || r.Err != "" {
		t.Errorf("got %+v", r)
	}
	if r := clitest.Run(t, registry(t), "pull", "-q", "busybox"); r.Out != "docker.io/library/busybox:latest\n" {
		t.Errorf("-q: %+v", r)
	}
}

func TestPullBars(t *testing.T) {
	u := newTerminal(t)
	if code := <-u.run(registry(t), "pull", "busybox"); code != 0 {
		t.Errorf("exit code %d", code)
	}
	u.waitFor("docker.io/library/busybox:latest")
	u.mu.Lock()
	defer u.mu.Unlock()
	if s := u.screen.String(); !strings.Contains(s, "Downloading") || !strings.Contains(s, "1.049MB/2.097MB") {
		t.Errorf("screen %q", s)
	}
}

func TestPullSendsCredentials(t *testing.T) {
	d := registry(t)
	dir := t.TempDir()
	auth := base64.StdEncoding.EncodeToString([]byte("joe:secret"))
	config := `{"auths":{"reg.example:5000":{"auth":"` + auth + `"}}}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := clitest.RunConfig(t, d, dir, "pull", "--platform", "linux/arm64", "reg.example:5000/a/b@sha256:"+strings.Repeat("a", 64)); r.Code != 0 {
		t.Fatalf("got %+v", r)
	}
	req := d.Find(t, "POST", "/images/create")
	b, err := base64.URLEncoding.DecodeString(req.Header.Get("X-Registry-Auth"))
	if err != nil || !strings.Contains(string(b), `"username":"joe","password":"secret"`) {
		t.Errorf("header %q: %v", b, err)
	}
	if q := req.Query; q.Get("platform") != "linux/arm64" || q.Get("tag") != "sha256:"+strings.Repeat("a", 64) {
		t.Errorf("query %v", q)
	}
}

func TestLoadAndImport(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("POST /images/load", clitest.JSON(200, `{"stream":"Loaded image: busybox:latest\n"}`))
	d.Handle("POST /images/create", clitest.JSON(200, `{"status":"sha256:1"}`))
	file := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(file, []byte("tar"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := clitest.Run(t, d, "load", "-i", file); r.Code != 0 || r.Out != "Loaded image: busybox:latest\n" {
		t.Errorf("load: %+v", r)
	}
	if req := d.Find(t, "POST", "/images/load"); req.Query.Get("quiet") != "1" {
		t.Errorf("load: %+v", req)
	}
	if r := clitest.RunInput(t, d, "stdin", "load"); r.Code != 0 || lastBody(d) != "stdin" {
		t.Errorf("load from stdin: %+v, body %q", r, lastBody(d))
	}
	r := clitest.RunInput(t, d, "layer", "import", "-c", "CMD sh", "-m", "msg", "-", "tiny:v1")
	q := d.Find(t, "POST", "/images/create").Query
	if r.Code != 0 || lastBody(d) != "layer" || q.Get("fromSrc") != "-" || q.Get("repo") != "tiny:v1" ||
		q.Get("changes") != "CMD sh" || q.Get("message") != "msg" {
		t.Errorf("import: %+v, query %v", r, q)
	}
	if r := clitest.Run(t, d, "load", "-i", "/nonexistent"); r.Code != 1 {
		t.Errorf("load of nothing: %+v", r)
	}
}

func lastBody(d *clitest.Daemon) string {
	l := d.Log()
	return l[len(l)-1].Body
}

func TestRemoveImages(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("DELETE /images/a", clitest.JSON(200, `[{"Untagged":"a:latest"},{"Deleted":"sha256:1"}]`))
	d.Handle("DELETE /images/used", clitest.Fail(409, "conflict: unable to remove"))
	r := clitest.Run(t, d, "rmi", "a", "used", "nosuch")
	if r.Code != 1 || r.Out != "Untagged: a:latest\nDeleted: sha256:1\n" || !strings.Contains(r.Err, "unable to remove") {
		t.Errorf("got %+v", r)
	}
	if r := clitest.Run(t, d, "rmi", "-f", "nosuch"); r.Code != 0 {
		t.Errorf("-f: %+v", r)
	}
	if r := clitest.Run(t, d, "rmi", "-f", "used"); r.Code != 1 {
		t.Errorf("-f of one in use: %+v", r)
	}
}

func TestEvents(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("GET /events", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"Type":"container","Action":"start","Actor":{"ID":"c1","Attributes":{"name":"web","image":"httpd"}},"time":1767323045,"timeNano":1767323045000000007}`+"\n")
	})
	t.Setenv("TZ", "UTC")
	r := clitest.Run(t, d, "events", "--since", "1", "--until", "2", "--filter", "type=container")
	if r.Code != 0 || !strings.HasSuffix(r.Out, ".000000007Z container start c1 (image=httpd, name=web)\n") {
		t.Errorf("got %+v", r)
	}
	if q := d.Find(t, "GET", "/events").Query; q.Get("until") != "2" || q.Get("filters") != `{"type":{"container":true}}` {
		t.Errorf("query %v", q)
	}
	if r := clitest.Run(t, d, "events", "--format", "{{.Action}} {{.Actor.ID}}"); r.Out != "start c1\n" {
		t.Errorf("template: %+v", r)
	}
	if r := clitest.Run(t, d, "events", "--format", "{{.Nope}}"); r.Code != 64 {
		t.Errorf("bad template: %+v", r)
	}
}

func TestVersionAndInfo(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("GET /version", clitest.JSON(200, `{"Platform":{"Name":"minictl"},"Version":"0.1","ApiVersion":"1.51","Components":[
		{"Name":"Engine","Version":"0.1","Details":{"ApiVersion":"1.51","MinAPIVersion":"1.24","Os":"linux","Arch":"amd64","KernelVersion":"6.1"}},
		{"Name":"runc","Version":"1.1.5"}]}`))
	d.Handle("GET /info", clitest.JSON(200, `{"Containers":2,"ContainersRunning":1,"Images":3,"ServerVersion":"0.1","Name":"host1",
		"Swarm":{"NodeID":"n1","NodeAddr":"192.168.66.11","LocalNodeState":"active"},"Plugins":{"Network":["bridge","overlay"]},
		"Warnings":["WARNING: no swap limit"]}`))
	r := clitest.Run(t, d, "version")
	for _, line := range []string{"Client:\n Version:           dev\n", "Server: minictl\n Engine:\n  Version:          0.1\n", "(minimum version 1.24)", " runc:\n"} {
		if !strings.Contains(r.Out, line) {
			t.Errorf("%q is not in %s", line, r.Out)
		}
	}
	if r := clitest.Run(t, d, "version", "-f", "{{.Server.Version}} {{.Client.APIVersion}}"); r.Out != "0.1 1.51\n" {
		t.Errorf("template: %+v", r)
	}
	r = clitest.Run(t, d, "info")
	if r.Code != 0 || r.Err != "WARNING: no swap limit\n" || !strings.Contains(r.Out, "  Network: bridge overlay\n") ||
		!strings.Contains(r.Out, " Cluster: active\n  NodeID: n1\n  Node Address: 192.168.66.11\n") {
		t.Errorf("got %+v", r)
	}
	d.Handle("GET /cluster/status", clitest.JSON(200, `{"Store":"etcd://192.168.66.201:2379/minictl"}`))
	if r := clitest.Run(t, d, "info"); !strings.Contains(r.Out, "\n Cluster Store: etcd://192.168.66.201:2379/minictl\n Cluster Advertise: 192.168.66.11\n") {
		t.Errorf("with an external store: %+v", r)
	}
	if r := clitest.Run(t, d, "info", "-f", "{{.Swarm.NodeAddr}}"); r.Out != "192.168.66.11\n" {
		t.Errorf("template: %+v", r)
	}
	if r := clitest.Run(t, d, "system", "info", "-f", "json"); !strings.HasPrefix(r.Out, `{"`) {
		t.Errorf("json: %+v", r)
	}
}

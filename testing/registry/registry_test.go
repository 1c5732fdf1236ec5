package registry

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/images/bake"
	"github.com/minictl/minictl/testing/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// A user's way from a private registry on another machine to a running container: TLS with the operator's own authority,
// credentials from the docker CLI's configuration, both command lines.
func TestPullFromAnotherMachine(t *testing.T) {
	if _, err := lab.Binary(); err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	l := lab.New(t)
	host, far := l.Host("host1"), l.Client("registry")
	addr := far.Addr().String() + ":5000"
	reg, err := Prepare(t.Context(), t.TempDir(), Options{Listen: addr, TLS: true, User: "u", Password: "p", Dial: host.Dial})
	if err != nil {
		t.Fatal(err)
	}
	far.Start(reg.Args()...)
	if err := reg.Await(nil); err != nil {
		t.Fatal(err)
	}
	bin, err := bake.FindBusybox(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	img, err := bake.Busybox(t.Context(), bin)
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := img.Blobs()
	if err != nil {
		t.Fatal(err)
	}
	if err := reg.Push(t.Context(), "team/busybox", "1", blobs); err != nil {
		t.Fatal(err)
	}
	name := addr + "/team/busybox:1"
	host.Daemon()

	if out, errs, code := host.Docker("pull", name); code == 0 || !strings.Contains(errs, "certificate signed by unknown authority") {
		t.Errorf("unknown authority: %d %s%s", code, out, errs)
	}
	certs := host.Path("/etc/docker/certs.d/" + addr)
	if err := os.MkdirAll(certs, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(certs, "ca.crt"), reg.CA, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, errs, code := host.Docker("pull", name); code == 0 || !strings.Contains(errs, "no basic auth credentials") {
		t.Errorf("no credentials: %d %s%s", code, out, errs)
	}
	login := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, addr, base64.StdEncoding.EncodeToString([]byte("u:p")))
	if err := os.WriteFile(filepath.Join(host.Dir(), "docker-config", "config.json"), []byte(login), 0o600); err != nil {
		t.Fatal(err)
	}
	out := host.MustDocker("pull", name)
	for _, want := range []string{"1: Pulling from team/busybox", ": Pull complete", "Digest: " + blobs.Manifest.Digest.String(), "Status: Downloaded newer image for " + name} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if out := host.MustDocker("run", "--rm", name, "echo", "from the registry"); out != "from the registry\n" {
		t.Errorf("run: %q", out)
	}
	if out := host.MustDocker("images", "--digests", "--format", "{{.Repository}} {{.Tag}} {{.Digest}}"); !strings.Contains(out, addr+"/team/busybox 1 "+blobs.Manifest.Digest.String()) {
		t.Errorf("images: %s", out)
	}
	out = host.MustMinictl("rmi", name)
	if !strings.Contains(out, "Untagged: "+name) || !strings.Contains(out, "Deleted: sha256:") {
		t.Errorf("rmi: %s", out)
	}
	if out, errs, code := host.Minictl("inspect", "--type", "image", name); code == 0 || !strings.Contains(strings.ToLower(errs), "no such image") {
		t.Errorf("after rmi: %d %s%s", code, out, errs)
	}
}

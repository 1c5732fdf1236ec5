package api

import (
	"context"
	"encoding/base64"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
)

// fakeFiles writes down what it was asked.
type fakeFiles struct {
	FileBackend
	asked  string
	commit CommitOptions
	body   string
	opts   ExtractOptions
}

func (f *fakeFiles) ContainerStatPath(_ context.Context, ref, path string) (container.PathStat, error) {
	f.asked = ref + path
	return container.PathStat{Name: "x", Size: 7}, nil
}

func (f *fakeFiles) ContainerArchive(_ context.Context, ref, path string, begin func(container.PathStat) io.Writer) error {
	f.asked = ref + path
	_, err := io.WriteString(begin(container.PathStat{Name: "x"}), "tar")
	return err
}

func (f *fakeFiles) ContainerExtract(_ context.Context, ref, path string, o ExtractOptions, r io.Reader) error {
	b, err := io.ReadAll(r)
	f.asked, f.body, f.opts = ref+path, string(b), o
	return err
}

func (f *fakeFiles) ContainerCommit(_ context.Context, ref string, o CommitOptions) (string, error) {
	f.asked, f.commit = ref, o
	return "sha256:1", nil
}

func TestFileRoutes(t *testing.T) {
	f := &fakeFiles{}
	cfg := (&fakes{}).config(t)
	cfg.Files = f
	h := New(cfg)
	do := func(method, path, body string) *httptest.ResponseRecorder {
		t.Helper()
		w := httptest.NewRecorder()
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		if method == "POST" {
			r.Header.Set("Content-Type", "application/json")
		}
		h.ServeHTTP(w, r)
		return w
	}
	for _, method := range []string{"HEAD", "GET"} {
		w := do(method, "/containers/web/archive?path=/a/.", "")
		js, err := base64.StdEncoding.DecodeString(w.Header().Get("X-Docker-Container-Path-Stat"))
		if err != nil || w.Code != 200 || !strings.Contains(string(js), `"name":"x"`) || f.asked != "web/a/." {
			t.Errorf("%s: %d %s, %v, asked %s", method, w.Code, js, err, f.asked)
		}
		if method == "GET" && (w.Body.String() != "tar" || w.Header().Get("Content-Type") != "application/x-tar") {
			t.Errorf("the archive: %s, %v", w.Body, w.Header())
		}
	}
	if w := do("PUT", "/containers/web/archive?path=/a&noOverwriteDirNonDir=true&copyUIDGID=1", "tape"); w.Code != 200 || f.body != "tape" || f.opts != (ExtractOptions{true, true}) {
		t.Errorf("PUT: %d, %q, %+v", w.Code, f.body, f.opts)
	}
	w := do("POST", "/commit?container=web&repo=site&tag=1&comment=c&author=a&changes=ENV+A%3D1&changes=USER+u", `{"Cmd":["x"]}`)
	c := f.commit
	if w.Code != 201 || strings.TrimSpace(w.Body.String()) != `{"Id":"sha256:1"}` || f.asked != "web" || c.Ref != "site:1" || !c.Pause || len(c.Changes) != 2 || c.Config.Cmd[0] != "x" {
		t.Errorf("commit: %d %s, %+v", w.Code, w.Body, c)
	}
	if do("POST", "/commit?container=web&pause=0", "null"); f.commit.Pause || f.commit.Config != nil || f.commit.Ref != "" {
		t.Errorf("commit of nothing: %+v", f.commit)
	}
	for _, bad := range []string{"GET /containers/web/archive", "PUT /containers/web/archive", "POST /commit", "POST /commit?container=x&repo=A%20B", "GET /images/get", "GET /system/df?type=nope", "POST /images/prune?filters=x"} {
		method, path, _ := strings.Cut(bad, " ")
		if w := do(method, path, ""); w.Code != 400 {
			t.Errorf("%s: %d %s", bad, w.Code, w.Body)
		}
	}
}

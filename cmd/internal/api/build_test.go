package api

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/minictl/minictl/runtime/image"
)

type fakeBuild func(o image.Build, tar string, p Progress) (string, error)

func (f fakeBuild) ImageBuild(_ context.Context, o image.Build, tar io.Reader, p Progress) (string, error) {
	b, err := io.ReadAll(tar)
	if err != nil {
		return "", err
	}
	return f(o, string(b), p)
}

// post sends one build to a server with that back end.
func post(t *testing.T, query string, header http.Header, f fakeBuild) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequest(http.MethodPost, "/v1.51/build?"+query, strings.NewReader("tar"))
	req.Header = header
	w := httptest.NewRecorder()
	New(Config{Log: slog.New(slog.DiscardHandler), Build: f}).ServeHTTP(w, req)
	return w
}

func TestBuildReadsEverything(t *testing.T) {
	q := url.Values{
		"t": {"a", "h:5000/b:2"}, "dockerfile": {"d/F"}, "target": {"t"}, "nocache": {"1"}, "pull": {"1"}, "platform": {"linux/arm64"}, "networkmode": {"host"},
		"extrahosts": {"a:1.2.3.4"}, "shmsize": {"64"}, "buildargs": {`{"A":"1","B":null}`}, "labels": {`{"l":"v"}`}, "cachefrom": {`["c"]`},
		"ulimits": {`[{"Name":"nofile","Soft":1,"Hard":2}]`}, "rm": {"1"}, "version": {"1"}, "memory": {"0"}, "cpusetcpus": {""},
	}
	auth := base64.URLEncoding.EncodeToString([]byte(`{"h:5000":{"username":"joe","password":"p"}}`))
	want := image.Build{
		Tags: []string{"docker.io/library/a:latest", "h:5000/b:2"}, Dockerfile: "d/F", Target: "t", NoCache: true, Pull: true, Platform: "linux/arm64", Network: "host",
		ExtraHosts: []string{"a:1.2.3.4"}, ShmSize: 64, Args: map[string]string{"A": "1"}, Labels: map[string]string{"l": "v"}, CacheFrom: []string{"c"},
		Ulimits: []string{"nofile=1:2"}, Auth: map[string]image.Auth{"h:5000": {Username: "joe", Password: "p"}},
	}
	build := func(o image.Build, tar string, p Progress) (string, error) {
		if !reflect.DeepEqual(o, want) || tar != "tar" {
			t.Errorf("%q\n got %+v\nwant %+v", tar, o, want)
		}
		p.Stream("a step\n")
		return "sha256:0123456789abcdef", nil
	}
	w := post(t, q.Encode(), http.Header{"X-Registry-Config": {auth}}, build)
	lines := `{"stream":"a step\n"}
{"aux":{"ID":"sha256:0123456789abcdef"}}
{"stream":"Successfully built 0123456789ab\n"}
{"stream":"Successfully tagged a:latest\n"}
{"stream":"Successfully tagged h:5000/b:2\n"}
`
	if w.Code != http.StatusOK || w.Body.String() != lines {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	q.Set("q", "1")
	if w := post(t, q.Encode(), http.Header{"X-Registry-Config": {auth}}, build); w.Body.String() != `{"stream":"sha256:0123456789abcdef\n"}`+"\n" {
		t.Errorf("quiet: %s", w.Body)
	}
}

func TestBuildRefuses(t *testing.T) {
	never := func(image.Build, string, Progress) (string, error) { return "", errors.New("the back end was asked") }
	for query, code := range map[string]int{
		"memory=1": 501, "cpushares=2": 501, "squash=1": 501, "securityopt=x": 501, "cgroupparent=x": 501, "outputs=[{}]": 501, "version=2": 501, "session=x": 501,
		"networkmode=web": 501, "t=Bad": 400, "t=a@sha256:" + strings.Repeat("a", 64): 400, "shmsize=x": 400, "shmsize=-1": 400, "buildargs=[": 400, "labels=1": 400,
		"ulimits={": 400, "cachefrom={}": 400, "extrahosts=a": 400, "extrahosts=a:1,b=2": 400,
	} {
		if w := post(t, query, http.Header{}, never); w.Code != code {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
	if w := post(t, "", http.Header{"X-Registry-Config": {"?"}}, never); w.Code != http.StatusBadRequest {
		t.Errorf("credentials: %d %s", w.Code, w.Body)
	}
}

// FuzzBuild gives a query to the build. Whatever comes, it is taken or refused with a 400 or a 501.
func FuzzBuild(f *testing.F) {
	for _, s := range []string{"t=a&buildargs={}", "ulimits=[{}]", "extrahosts=a:b", "shmsize=1"} {
		f.Add(s, "e30")
	}
	f.Fuzz(func(t *testing.T, query, auth string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		c := &call{Request: &http.Request{Header: http.Header{"X-Registry-Config": {auth}}}, query: q}
		if _, err := buildOptions(c); err != nil && httpStatus(err) != 400 && httpStatus(err) != 501 {
			t.Fatalf("%d: %v", httpStatus(err), err)
		}
	})
}

package api

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// engineRoutes are rows 1 to 78 of the list of what stock clients ask for, with the status of a bare request: 0 where
// a back end exists (the fakes answer 500 by panicking, or the input is refused), else 501.
var engineRoutes = []struct {
	method, path string
	want         int
}{
	{"HEAD", "/_ping", 0}, {"GET", "/_ping", 0}, {"GET", "/version", 0}, {"GET", "/info", 0}, {"GET", "/events", 0},
	{"GET", "/system/df", 0},
	{"POST", "/images/create", 0}, {"POST", "/images/load", 0}, {"GET", "/images/json", 0},
	{"GET", "/images/reg:5000/a/b:c/json", 0}, {"DELETE", "/images/reg:5000/a/b@sha256:00", 0}, {"POST", "/images/a/b/tag", 0},
	{"POST", "/containers/create", 0}, {"GET", "/containers/json", 0}, {"GET", "/containers/x/json", 0},
	{"POST", "/containers/x/start", 0}, {"POST", "/containers/x/stop", 0}, {"POST", "/containers/x/restart", 0},
	{"POST", "/containers/x/kill", 0}, {"POST", "/containers/x/rename", 0}, {"POST", "/containers/x/update", 0},
	{"POST", "/containers/x/wait", 0}, {"POST", "/containers/x/attach", 0}, {"POST", "/containers/x/resize", 0},
	{"GET", "/containers/x/logs", 0}, {"GET", "/containers/x/stats", 0}, {"GET", "/containers/x/top", 0},
	{"DELETE", "/containers/x", 0}, {"GET", "/containers/x/archive", 0}, {"HEAD", "/containers/x/archive", 0},
	{"PUT", "/containers/x/archive", 0}, {"POST", "/containers/x/exec", 0}, {"POST", "/exec/x/start", 0},
	{"POST", "/exec/x/resize", 0}, {"GET", "/exec/x/json", 0},
	{"GET", "/networks", 0}, {"GET", "/networks/x", 0}, {"POST", "/networks/create", 0}, {"DELETE", "/networks/x", 0},
	{"POST", "/networks/x/connect", 0}, {"POST", "/networks/x/disconnect", 0}, {"POST", "/networks/prune", 0},
	{"POST", "/volumes/create", 0}, {"GET", "/volumes", 0}, {"GET", "/volumes/x", 0}, {"DELETE", "/volumes/x", 0}, {"PUT", "/volumes/x", 501},
	{"POST", "/swarm/init", 0}, {"POST", "/swarm/join", 0}, {"POST", "/swarm/leave", 0}, {"GET", "/swarm", 0},
	{"POST", "/swarm/update", 501}, {"GET", "/nodes", 0}, {"GET", "/nodes/x", 0}, {"POST", "/nodes/x/update", 0},
	{"DELETE", "/nodes/x", 0}, {"POST", "/containers/x/pause", 0}, {"POST", "/containers/x/unpause", 0},
	{"POST", "/containers/prune", 0}, {"POST", "/volumes/prune", 0}, {"POST", "/images/prune", 0},
	{"POST", "/build/prune", 0}, {"GET", "/images/a/b/history", 0}, {"GET", "/images/get", 0},
	{"GET", "/images/a/b/get", 0}, {"POST", "/images/a/b/push", 0}, {"POST", "/auth", 0},
	{"GET", "/containers/x/changes", 0}, {"GET", "/containers/x/export", 0}, {"POST", "/commit", 0},
	{"GET", "/images/search", 501}, {"GET", "/swarm/unlockkey", 501}, {"POST", "/swarm/unlock", 501},
	{"GET", "/tasks", 0}, {"GET", "/services", 501}, {"GET", "/plugins", 501},
	{"GET", "/distribution/a/b/json", 0}, {"POST", "/build", 0}, {"POST", "/session", 501}, {"POST", "/grpc", 501},
	{"GET", "/containers/x/attach/ws", 501},
}

func TestEveryRouteIsKnown(t *testing.T) {
	h := New((&fakes{}).config(t))
	for _, r := range engineRoutes {
		for _, prefix := range []string{"", "/v1.24", "/v1.51"} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(r.method, prefix+r.path, nil))
			body := w.Body.String()
			switch {
			case w.Code == 404 && strings.Contains(body, "page not found"):
				t.Errorf("%s %s%s: unknown", r.method, prefix, r.path)
			case r.want == 501 && w.Code != 501:
				t.Errorf("%s %s%s: %d %s, want 501", r.method, prefix, r.path, w.Code, body)
			case r.want == 0 && w.Code == 501:
				t.Errorf("%s %s%s: 501 %s, want a back end", r.method, prefix, r.path, body)
			case r.want == 501 && len(body) < 30 && r.method != "HEAD":
				t.Errorf("%s %s%s: %s is no sentence", r.method, prefix, r.path, body)
			}
		}
	}
}

func TestNoSuchPage(t *testing.T) {
	h := New((&fakes{}).config(t))
	for _, r := range [][2]string{
		{"GET", "/nope"}, {"GET", "/v1.51/nope"}, {"GET", "/v1.51"}, {"GET", "/vx/info"}, {"POST", "/info"}, {"PATCH", "/networks/x"},
		{"GET", "/containers/a%2fb/json"}, {"GET", "/containers/../../etc"}, {"TRACE", "/version"}, {"GET", "/images//json/x"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(r[0], r[1], nil))
		if w.Code != 404 || strings.TrimSpace(w.Body.String()) != `{"message":"page not found"}` {
			t.Errorf("%s %s: %d %s", r[0], r[1], w.Code, w.Body)
		}
		if ct := w.Header().Get("Content-Type"); ct != "application/json" {
			t.Errorf("%s %s: content type %q", r[0], r[1], ct)
		}
	}
}

func TestVersions(t *testing.T) {
	h := New((&fakes{}).config(t))
	tests := []struct {
		path string
		code int
		want string
	}{
		{"/version", 200, ""},
		{"/v1.24/version", 200, ""},
		{"/v1.51/version", 200, ""},
		{"/v1.23/version", 400, "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"},
		{"/v1.9/version", 400, "client version 1.9 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"},
		{"/v1.52/version", 400, "client version 1.52 is too new. Maximum supported API version is 1.51"},
		{"/v9999.9999/version", 400, "client version 9999.9999 is too new. Maximum supported API version is 1.51"},
		{"/v1..2/version", 400, `invalid API version "1..2": must be formatted <major>.<minor>`},
		{"/v99999999999999999999.1/version", 400, `invalid API version "99999999999999999999.1": must be formatted <major>.<minor>`},
	}
	for _, tt := range tests {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", tt.path, nil))
		var got struct{ Message string }
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if w.Code != tt.code || got.Message != tt.want {
			t.Errorf("%s: %d %q, want %d %q", tt.path, w.Code, got.Message, tt.code, tt.want)
		}
	}
}

func TestPing(t *testing.T) {
	f := &fakes{}
	f.s.state = "active/manager"
	h := New(f.config(t))
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "/_ping", nil))
		want := map[string]string{
			"Api-Version": "1.51", "Ostype": "linux", "Docker-Experimental": "false", "Builder-Version": "1",
			"Swarm": "active/manager", "Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache",
			"Content-Type": "text/plain; charset=utf-8",
		}
		for k, v := range want {
			if got := w.Header().Get(k); got != v {
				t.Errorf("%s: %s = %q, want %q", method, k, got, v)
			}
		}
		body := map[string]string{"GET": "OK", "HEAD": ""}[method]
		if w.Code != 200 || w.Body.String() != body {
			t.Errorf("%s: %d %q", method, w.Code, w.Body)
		}
	}
}

func TestMatch(t *testing.T) {
	tests := []struct {
		pattern, path, name string
		ok                  bool
	}{
		{"/images/{name...}/json", "/images/a/b:c/json", "a/b:c", true},
		{"/images/{name...}/json", "/images/json/json", "json", true},
		{"/images/{name...}/json", "/images/json", "", false},
		{"/images/{name...}", "/images/a@sha256:0/b", "a@sha256:0/b", true},
		{"/images/{name...}", "/images", "", false},
		{"/containers/{id}/json", "/containers/a/json", "a", true},
		{"/containers/{id}/json", "/containers//a//json", "a", true},
		{"/containers/{id}/json", "/containers/a/b/json", "", false},
		{"/containers/{id}/json", "/containers/a", "", false},
		{"/", "/", "", true},
		{"/", "/x", "", false},
	}
	for _, tt := range tests {
		_, segs := splitPath(tt.path)
		if name, ok := match(tt.pattern, segs); ok != tt.ok || ok && name != tt.name {
			t.Errorf("match(%s, %s) = %q, %v", tt.pattern, tt.path, name, ok)
		}
	}
}

// TestWitnessRefusesContainers asks a host that only votes for everything.
func TestWitnessRefusesContainers(t *testing.T) {
	cfg := (&fakes{}).config(t)
	cfg.Witness = func() string { return "this host is a witness: ask host1" }
	h := New(cfg)
	for _, r := range engineRoutes {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(r.method, r.path, nil))
		noun := strings.Split(r.path, "/")[1]
		serves := slices.Contains([]string{"_ping", "version", "info", "events", "swarm", "nodes"}, noun)
		refused := w.Code == 501 && (strings.Contains(w.Body.String(), "ask host1") || r.method == "HEAD")
		if serves == refused {
			t.Errorf("%s %s: %d %s", r.method, r.path, w.Code, w.Body)
		}
	}
}

package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
)

// fakeLive answers what is asked of a running container.
type fakeLive struct {
	ContainerBackend
	asked string
	err   error
}

func (f *fakeLive) ContainerPause(_ context.Context, ref string) error {
	f.asked = "pause " + ref
	return f.err
}

func (f *fakeLive) ContainerUnpause(_ context.Context, ref string) error {
	f.asked = "unpause " + ref
	return f.err
}

func (f *fakeLive) ContainerTop(_ context.Context, ref, args string) (container.TopResponse, error) {
	f.asked = "top " + ref + " " + args
	return container.TopResponse{Titles: []string{"PID"}, Processes: [][]string{{"1"}}}, f.err
}

func (f *fakeLive) ContainerUpdate(_ context.Context, ref string, u container.UpdateConfig) (container.UpdateResponse, error) {
	b, err := json.Marshal(u.RestartPolicy)
	f.asked = "update " + ref + " " + string(b)
	return container.UpdateResponse{}, errors.Join(err, f.err)
}

func (f *fakeLive) ContainerStats(_ context.Context, ref string, stream, oneShot bool, send func(container.StatsResponse) error) error {
	f.asked = "stats " + ref
	if f.err != nil {
		return f.err
	}
	n := 1
	if stream {
		n = 2
	}
	if oneShot {
		f.asked += " once"
	}
	for range n {
		if err := send(container.StatsResponse{ID: ref}); err != nil {
			return err
		}
	}
	return nil
}

func TestLiveContainer(t *testing.T) {
	for _, c := range []struct {
		method, path, body string
		err                error
		code               int
		asked, answer      string
	}{
		{"POST", "/containers/x/pause", "", nil, 204, "pause x", ""},
		{"POST", "/containers/x/pause", "", errors.New("boom"), 500, "pause x", "boom"},
		{"POST", "/containers/x/unpause", "", nil, 204, "unpause x", ""},
		{"GET", "/containers/x/top?ps_args=-o+pid", "", nil, 200, "top x -o pid", `{"Processes":[["1"]],"Titles":["PID"]}`},
		{"POST", "/containers/x/update", `{"RestartPolicy":{"Name":"always"}}`, nil, 200, `update x {"Name":"always","MaximumRetryCount":0}`, `{"Warnings":[]}`},
		{"POST", "/containers/x/update", `{`, nil, 400, "", "invalid JSON"},
		{"GET", "/containers/x/stats", "", nil, 200, "stats x", `"id":"x"`},
		{"GET", "/containers/x/stats?stream=0&one-shot=1", "", nil, 200, "stats x once", `"id":"x"`},
		{"GET", "/containers/x/stats?stream=1&one-shot=1", "", nil, 400, "", "cannot have stream=true and one-shot=true"},
	} {
		f := &fakeLive{err: c.err}
		cfg := (&fakes{}).config(t)
		cfg.Container = f
		r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
		if c.body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		w := httptest.NewRecorder()
		New(cfg).ServeHTTP(w, r)
		if w.Code != c.code || f.asked != c.asked || (c.code < 500 && !strings.Contains(w.Body.String(), c.answer)) {
			t.Errorf("%s %s: %d %s, asked %q", c.method, c.path, w.Code, w.Body, f.asked)
		}
		if n := strings.Count(w.Body.String(), `"id":"x"`); strings.HasSuffix(c.path, "/stats") && n != 2 {
			t.Errorf("%s: %d samples, want a stream", c.path, n)
		}
	}
}

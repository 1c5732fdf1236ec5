package api

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
)

// Each field of a request means what it meant in the client's version of the API.
func TestDowngrade(t *testing.T) {
	f := &fakes{}
	var got container.CreateRequest
	f.c.create = func(_ string, req container.CreateRequest) (container.CreateResponse, error) {
		got = req
		return container.CreateResponse{ID: "c"}, nil
	}
	h := New(f.config(t))
	create := func(minor int, body string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, fmt.Sprintf("/v1.%d/containers/create?platform=linux/arm64", minor), strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		h.ServeHTTP(w, r)
		return w
	}
	const body = `{"Image":"box","Healthcheck":{"StartInterval":7},"HostConfig":{"ConsoleSize":[5,6],"Annotations":{"a":"b"},"Mounts":[
		{"Type":"bind","BindOptions":{"NonRecursive":true,"CreateMountpoint":true,"ReadOnlyNonRecursive":true},"VolumeOptions":{}},{"Type":"volume","BindOptions":{},"TmpfsOptions":{}}]}}`
	for _, c := range []struct {
		minor int
		want  string
	}{
		{39, "shareable [0 0] 0 0 false false false false true true"},
		{40, " [0 0] 0 0 true false false false true true"},
		{41, " [0 0] 0 0 true false false false true true"},
		{42, " [5 6] 0 0 true true false true false true"},
		{43, " [5 6] 1 0 true true false true false true"},
		{44, " [5 6] 1 7 true true true true false false"},
		{51, " [5 6] 1 7 true true true true false false"},
	} {
		if w := create(c.minor, body); w.Code != http.StatusCreated {
			t.Fatalf("1.%d: %d %s", c.minor, w.Code, w.Body)
		}
		hc, bind, vol := got.HostConfig, got.HostConfig.Mounts[0], got.HostConfig.Mounts[1]
		text := fmt.Sprint(hc.IpcMode, " ", hc.ConsoleSize, " ", len(hc.Annotations), " ", int(got.Healthcheck.StartInterval), " ", bind.BindOptions.NonRecursive, " ",
			bind.BindOptions.CreateMountpoint, " ", bind.BindOptions.ReadOnlyNonRecursive, " ", bind.VolumeOptions != nil, " ", vol.BindOptions == nil && vol.TmpfsOptions == nil, " ", f.c.options.FlatReadOnly)
		if text != c.want || f.c.options.Platform != "linux/arm64" {
			t.Errorf("1.%d: %s, want %s; %+v", c.minor, text, c.want, f.c.options)
		}
	}
	for body, want := range map[string]string{
		`{"Image":"box","HostConfig":{"Mounts":[{"Type":"bind","BindOptions":{"ReadOnlyForceRecursive":true}}]}}`: "ReadOnlyForceRecursive needs API v1.44 or newer",
		`{"Image":"box","NetworkingConfig":{"EndpointsConfig":{"b":{},"a":null}}}`:                                "Container cannot be connected to network endpoints: a, b",
	} {
		if w := create(43, body); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), want) {
			t.Errorf("1.43 %s: %d %s", body, w.Code, w.Body)
		}
		if w := create(44, body); w.Code != http.StatusCreated {
			t.Errorf("1.44 %s: %d %s", body, w.Code, w.Body)
		}
	}
}

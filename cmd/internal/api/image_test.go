package api

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/image"
)

// A client that names a platform gets that one or is refused; the parameter is never passed over.
func TestImagePlatform(t *testing.T) {
	f := &fakes{}
	f.i.inspect = func(string) (image.InspectResponse, error) {
		return image.InspectResponse{ID: "sha256:00", Os: "linux", Architecture: "arm64", Variant: "v8", Manifests: make([]image.ManifestSummary, 1)}, nil
	}
	f.i.list = func(bool, Filters) ([]image.Summary, error) {
		return []image.Summary{{Manifests: make([]image.ManifestSummary, 1)}}, nil
	}
	h := New(f.config(t))
	for _, c := range []struct {
		platform string
		want     int
		text     string
	}{
		{"", http.StatusOK, "sha256:00"},
		{`{"os":"linux","architecture":"arm64"}`, http.StatusOK, "sha256:00"},
		{`{"os":"linux","architecture":"s390x"}`, http.StatusNotFound, "image with reference box was found but does not provide the specified platform (linux/s390x)"},
		{`linux/arm64`, http.StatusBadRequest, "invalid platform"}, {`{}`, http.StatusBadRequest, "invalid platform"},
		{`{"os":"` + strings.Repeat("x", 1<<16) + `"}`, http.StatusBadRequest, "invalid platform"},
		{`{"os":"../x","architecture":"y"}`, http.StatusBadRequest, "invalid platform"},
	} {
		for _, path := range []string{"/images/box/json", "/images/box/get", "/images/get?names=box", "/images/box/history"} {
			if c.want == http.StatusOK && path != "/images/box/json" {
				continue // those answer from back ends that are not made here
			}
			u, err := url.Parse(path)
			if err != nil {
				t.Fatal(err)
			}
			q := u.Query()
			if c.platform != "" {
				q.Set("platform", c.platform)
			}
			u.RawQuery = q.Encode()
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, u.String(), nil))
			if w.Code != c.want || !strings.Contains(w.Body.String(), c.text) {
				t.Errorf("%s of %.60s: %d %.200s", path, c.platform, w.Code, w.Body)
			}
		}
	}
	for query, want := range map[string]int{
		`platforms={}`: http.StatusBadRequest, `platforms={"os":"linux","architecture":"s390x"}`: http.StatusNotFound,
		`platforms={"os":"linux","architecture":"s390x"}&platforms={"os":"linux","architecture":"arm64"}`: http.StatusNotImplemented,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodDelete, "/images/box?"+strings.ReplaceAll(query, `"`, "%22"), nil))
		if w.Code != want {
			t.Errorf("removing %s: %d %s", query, w.Code, w.Body)
		}
	}
	for path, want := range map[string]bool{
		"/v1.46/images/json?manifests=1": false, "/v1.47/images/json?manifests=1": true, "/images/json": false,
		"/v1.47/images/box/json?manifests=1": false, "/v1.48/images/box/json?manifests=1": true, "/images/box/json": false,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if got := strings.Contains(w.Body.String(), `"Manifests":[{`); w.Code != http.StatusOK || got != want {
			t.Errorf("%s: %d, manifests %v: %s", path, w.Code, got, w.Body)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/images/box/json?manifests=1&platform=%7B%22os%22:%22linux%22,%22architecture%22:%22arm64%22%7D", nil))
	if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "manifests and platform options cannot both be set") {
		t.Errorf("one platform and all: %d %s", w.Code, w.Body)
	}
}

type fakeDisk struct {
	DiskBackend
	images func(bool, Filters) ([]image.Summary, error)
}

func (f fakeDisk) DiskUsage(context.Context, map[string]bool) (DiskUsage, error) {
	list, err := f.images(false, nil)
	return DiskUsage{Images: list}, err
}

// Clients reckon with fields that are gone from today's types, each at its own version.
func TestImagesOfOlderVersions(t *testing.T) {
	f := &fakes{}
	f.i.inspect = func(string) (image.InspectResponse, error) {
		return image.InspectResponse{ID: "sha256:00", Size: 7}, nil
	}
	f.i.list = func(bool, Filters) ([]image.Summary, error) {
		return []image.Summary{{ID: "sha256:00", Size: 7, SharedSize: -1, Manifests: make([]image.ManifestSummary, 1)}}, nil
	}
	cfg := f.config(t)
	cfg.Disk = fakeDisk{images: f.i.list}
	h := New(cfg)
	for _, path := range []string{"/images/json", "/images/box/json", "/system/df"} {
		for version, old := range map[string]bool{"/v1.41": true, "/v1.43": true, "/v1.44": false, "": false} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, version+path, nil))
			if got := strings.Contains(w.Body.String(), `"VirtualSize":7`); w.Code != http.StatusOK || got != old || strings.Contains(w.Body.String(), "Manifests") {
				t.Errorf("%s%s: %d %s", version, path, w.Code, w.Body)
			}
		}
	}
	for path, want := range map[string]string{
		"/images/json?shared-size=1": `"SharedSize":5`, "/images/json": `"SharedSize":-1`, "/v1.41/images/json?shared-size=1": `"SharedSize":-1`,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: no %s in %s", path, want, w.Body)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/images/box/json", nil))
	for _, field := range []string{`"Parent":""`, `"Comment":""`, `"DockerVersion":""`, `"Author":""`, `"GraphDriver":{"Data":null,"Name":"overlayfs"}`} {
		if !strings.Contains(w.Body.String(), field) {
			t.Errorf("no %s in %s", field, w.Body)
		}
	}
}

func TestImportFromURL(t *testing.T) {
	f := &fakes{}
	var got string
	f.i.imp = func(r io.Reader, ref string, _ []string, _ Progress) error {
		b, err := io.ReadAll(r)
		got = ref + " " + string(b)
		return err
	}
	w := httptest.NewRecorder()
	New(f.config(t)).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/images/create?fromSrc=http%3A%2F%2Fh%2Froot.tar&repo=box&tag=1", nil))
	if w.Code != http.StatusOK || got != "box:1 from http://h/root.tar" {
		t.Errorf("%d %s, imported %q", w.Code, w.Body, got)
	}
}

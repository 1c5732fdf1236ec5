package api

import (
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
		return image.InspectResponse{ID: "sha256:00", Os: "linux", Architecture: "arm64", Variant: "v8"}, nil
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
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodDelete, "/images/box?platforms=%7B%7D", nil))
	if w.Code != http.StatusNotImplemented {
		t.Errorf("removing one platform: %d %s", w.Code, w.Body)
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

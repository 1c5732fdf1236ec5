package engine

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/runtime/image"
)

const someDigest = "@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func TestReferred(t *testing.T) {
	i := image.Image{
		RepoTags:    []string{"box:1", "box:2", "reg.example:5000/team/box:1"},
		RepoDigests: []string{"box" + someDigest, "reg.example:5000/team/box" + someDigest},
	}
	for pattern, want := range map[string]string{
		"box":                     "[box:1 box:2] [box" + someDigest + "]",
		"box:1":                   "[box:1] [box" + someDigest + "]",
		"b*:2":                    "[box:2] [box" + someDigest + "]",
		"reg.example:5000/team/*": "[reg.example:5000/team/box:1] [reg.example:5000/team/box" + someDigest + "]",
		"nope":                    "[] []",
	} {
		tags, digests := referred(i, map[string]bool{pattern: true})
		if got := fmt.Sprint(tags, " ", digests); got != fmt.Sprint(want) {
			t.Errorf("%s: %s, want %s", pattern, got, want)
		}
	}
}

func TestDangling(t *testing.T) {
	tagged, digested, bare := image.Image{RepoTags: []string{"a:1"}}, image.Image{RepoDigests: []string{"a" + someDigest}}, image.Image{}
	for _, c := range []struct {
		i              image.Image
		wanted, others bool
	}{{tagged, false, true}, {digested, true, true}, {bare, true, false}} {
		if isDangling(c.i, true) != c.wanted || isDangling(c.i, false) != c.others {
			t.Errorf("%v", c.i)
		}
	}
}

// said is a Progress that forgets nothing.
type said []string

func (s *said) Status(status, _ string, _, _ int64) { *s = append(*s, status) }
func (s *said) Stream(text string)                  { *s = append(*s, text) }

func TestImageFetch(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/root.tar" {
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	var e Engine
	var p said
	in, err := e.ImageFetch(t.Context(), srv.URL+"/root.tar", &p)
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	if want := "[Downloading from " + srv.URL + "/root.tar]"; fmt.Sprint(p) != want {
		t.Errorf("%v, want %s", p, want)
	}
	for _, bad := range []string{srv.URL + "/none", "file:///etc/passwd", "http://", "ftp://h/x", "://"} {
		if _, err := e.ImageFetch(t.Context(), bad, &p); err == nil {
			t.Errorf("%s: fetched", bad)
		}
	}
}

var _ api.Progress = (*said)(nil)

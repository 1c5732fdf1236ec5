package ctrd

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestRuncVersion(t *testing.T) {
	for out, want := range map[string]string{
		"runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1\nspec: 1.0.2-dev\n": "1.1.5+ds1",
		"runc version 1.3.0": "1.3.0",
		"":                   "",
	} {
		if got := parseRuncVersion(out); got != want {
			t.Errorf("%q: %q, want %q", out, got, want)
		}
	}
	r := newHost(t).start(t)
	if v := r.RuncVersion(t.Context()); len(strings.Split(v, ".")) < 3 {
		t.Errorf("runc's version here: %q", v)
	}
}

// A host without runc says so, and not in the words that docker's clients take for a command missing in the image.
func TestNoRunc(t *testing.T) {
	h := newHost(t)
	r := h.start(t)
	img := busybox(t, r)
	if err := r.Create(t.Context(), "c1", img, nil); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir())
	_, err := r.NewTask(t.Context(), "c1", TaskOptions{Spec: h.spec("c1", "true")})
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "apt-get install runc") || strings.Contains(err.Error(), "executable file not found") {
		t.Errorf("a start without runc: %v", err)
	}
}

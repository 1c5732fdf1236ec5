package ctrd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	rules "github.com/minictl/minictl/runtime/image"
	"github.com/minictl/minictl/testing/images/bake"
	"github.com/minictl/minictl/testing/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// random is an image whose layers hold one file of so many bytes each, which no compression shortens.
func random(t testing.TB, sizes ...int) bake.Image {
	t.Helper()
	img := bake.Image{Arch: runtime.GOARCH, Config: ocispec.ImageConfig{Cmd: []string{"cmd"}}}
	for i, n := range sizes {
		body := make([]byte, n)
		_, _ = rand.NewChaCha8([32]byte{byte(i), byte(n)}).Read(body)
		l, err := bake.Layer([]bake.File{{Path: fmt.Sprintf("f%d", i), Mode: 0o644, Body: body}})
		if err != nil {
			t.Fatal(err)
		}
		img.Layers = append(img.Layers, l)
	}
	return img
}

// gated is a registry behind a gate that holds one image as app:latest, and the digests of its layers.
func gated(t *testing.T, img bake.Image) (g *registry.Gate, name string, layers []string) {
	t.Helper()
	reg := registry.Start(t, t.TempDir(), registry.Options{})
	err := reg.Push(t.Context(), "app", "latest", blobs(t, img))
	if err != nil {
		t.Fatal(err)
	}
	g = reg.Gate()
	srv := httptest.NewServer(g)
	t.Cleanup(srv.Close)
	if layers, err = blobs(t, img).Layers(); err != nil {
		t.Fatal(err)
	}
	return g, strings.TrimPrefix(srv.URL, "http://") + "/app", layers
}

// A pull that is cut, and after it the daemon, goes on where it was: nothing that came is fetched again.
func TestPullGoesOn(t *testing.T) {
	h := newHost(t)
	r := h.start(t)
	const size, passes = 1 << 20, 300 << 10
	g, name, layers := gated(t, random(t, 1000, size))
	g.Cut(layers[1], passes)
	// The client asks for the rest by itself as long as something comes.
	rest := 0
	for left := size; left > 0; left -= passes {
		rest++
	}
	var out lines
	if err := r.Pull(t.Context(), name, "", nil, &out); err != nil {
		t.Fatalf("cut, with the rest to be had: %v", err)
	}
	asked := g.Asked(layers[1])
	if len(asked) < rest || asked[0].Range != "" && asked[0].Range != "bytes=0-" {
		t.Errorf("asked %v, want the whole and then %d times the rest", asked, rest-1)
	}
	for i, a := range asked[1:] {
		if !strings.HasPrefix(a.Range, "bytes=") || strings.HasPrefix(a.Range, "bytes=0-") {
			t.Errorf("request %d asks for the range %q", i+1, a.Range)
		}
	}
	if _, err := r.RemoveImage(t.Context(), name, false, nobody); err != nil {
		t.Fatal(err)
	}
	if b, l := stored(t, r); b != 0 || l != 0 {
		t.Errorf("%d blobs and %d layers stay", b, l)
	}
}

func TestPullGoesOnAfterARestart(t *testing.T) {
	h := newHost(t)
	r := h.start(t)
	g, name, layers := gated(t, random(t, 1000, 1<<20))
	ctx, cancel := context.WithCancel(t.Context())
	g.Cut(layers[1], 300<<10)
	stop := func(status string) {
		if strings.HasPrefix(status, "Retrying in 2") { // it is down for good: everything else is here
			cancel()
		}
	}
	go func() {
		if err := await(t, g, func() bool { return len(g.Asked(layers[1])) > 0 }); err != nil {
			t.Error(err)
		}
		g.Cut(layers[1], 0) // what is asked for from now on breaks at once
	}()
	var out lines
	if err := r.Pull(ctx, name, "", nil, &watch{&out, stop}); err == nil {
		t.Fatal("pulled through a cut line")
	}
	if !slices.ContainsFunc(out, func(s string) bool { return strings.HasSuffix(s, ": Retrying in 1 second") }) {
		t.Errorf("no second attempt: %q", out)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = h.start(t)
	first, second := len(g.Asked(layers[0])), len(g.Asked(layers[1]))
	g.Cut(layers[1], -1)
	out = nil
	if err := r.Pull(t.Context(), name, "", nil, &out); err != nil {
		t.Fatal(err)
	}
	if n := len(g.Asked(layers[0])); n != first {
		t.Errorf("a finished layer was asked for again: %v", g.Asked(layers[0]))
	}
	if a := g.Asked(layers[1])[second:]; len(a) != 1 || !strings.HasPrefix(a[0].Range, "bytes=") || strings.HasPrefix(a[0].Range, "bytes=0-") {
		t.Errorf("the cut layer: asked %v, want its rest once", a)
	}
	if !slices.Contains(out, rules.ShortID(layers[0])+": Already exists") {
		t.Errorf("%q", out)
	}
	if _, err := r.RemoveImage(t.Context(), name, false, nobody); err != nil {
		t.Fatal(err)
	}
	if b, l := stored(t, r); b != 0 || l != 0 {
		t.Errorf("after the pull succeeded and its image went, %d blobs and %d layers stay", b, l)
	}
}

// What a failed pull left goes when the operator asks for disk space, but not from under a pull that runs.
func TestDropUnfinishedPulls(t *testing.T) {
	r := newHost(t).start(t)
	g, name, layers := gated(t, random(t, 1000, 1000))
	ctx, cancel := context.WithCancel(t.Context())
	g.Cut(layers[1], 0)
	stop := func(status string) {
		if strings.HasPrefix(status, "Retrying in 1") {
			// The first layer may still be on its way; here it need not be.
			if err := r.DropUnfinishedPulls(ctx); err != nil {
				t.Error(err)
			}
			cancel()
		}
	}
	if err := r.Pull(ctx, name, "", nil, &watch{new(lines), stop}); err == nil {
		t.Fatal("pulled through a cut line")
	}
	if b, _ := stored(t, r); b == 0 {
		t.Fatal("a failed pull left nothing to go on from")
	}
	if err := r.DropUnfinishedPulls(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b, l := stored(t, r); b != 0 || l != 0 {
		t.Errorf("%d blobs and %d layers stay", b, l)
	}
	// A pull that brought nothing leaves no trace.
	if err := r.Pull(t.Context(), name+":none", "", nil, new(lines)); err == nil {
		t.Fatal("pulled what is not there")
	}
	if all, err := r.client.LeasesService().List(r.ctx(t.Context())); err != nil || len(all) != 0 {
		t.Errorf("leases %v, %v", all, err)
	}
}

// What an operation of a killed daemon protected, other than a pull, is nobody's at the next start.
func TestLeftoversOfACrash(t *testing.T) {
	h := newHost(t)
	r := h.start(t)
	ctx, _, err := r.client.WithLease(r.ctx(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.writeJSON(ctx, ocispec.MediaTypeImageConfig, "half of an image"); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = h.start(t)
	if all, err := r.client.LeasesService().List(r.ctx(t.Context())); err != nil || len(all) != 0 {
		t.Errorf("leases %v, %v", all, err)
	}
	if err := r.DropUnfinishedPulls(t.Context()); err != nil {
		t.Error(err)
	}
}

// Layers come side by side, three at a time.
func TestPullIsParallel(t *testing.T) {
	r := newHost(t).start(t)
	g, name, layers := gated(t, random(t, 1001, 1002, 1003, 1004, 1005))
	failed := make(chan error, 1)
	release := g.Hold(layers...)
	defer release()
	go func() { failed <- r.Pull(t.Context(), name, "", nil, new(lines)) }()
	if err := await(t, g, func() bool { now, _ := g.UnderWay(); return now == pullsAtOnce }); err != nil {
		t.Fatalf("%d layers at the same time: %v", pullsAtOnce, err)
	}
	release()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		if n := len(g.Asked(l)); n != 1 {
			t.Errorf("%s was asked for %d times", l, n)
		}
	}
	if _, most := g.UnderWay(); most != pullsAtOnce {
		t.Errorf("%d blobs at the same time, want %d", most, pullsAtOnce)
	}
}

// await bounds a wait for what a registry is asked.
func await(t *testing.T, g *registry.Gate, met func() bool) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return g.Await(ctx, met)
}

// Several clients pull the same image at the same time: each succeeds, and every layer comes once.
func TestPullTheSameAtOnce(t *testing.T) {
	r := newHost(t).start(t)
	img := random(t, 1000, 300<<10, 2000)
	g, name, layers := gated(t, img)
	pulls, ctx := errgroup.WithContext(t.Context())
	for range 6 {
		pulls.Go(func() error { return r.Pull(ctx, name, "", nil, new(lines)) })
	}
	if err := pulls.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		if n := len(g.Asked(l)); n != 1 {
			t.Errorf("%s was fetched %d times", l, n)
		}
	}
	if _, err := r.RemoveImage(t.Context(), name, false, nobody); err != nil {
		t.Fatal(err)
	}
	if b, l := stored(t, r); b != 0 || l != 0 {
		t.Errorf("%d blobs and %d layers stay", b, l)
	}
}

func TestPassing(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{io.ErrUnexpectedEOF, true}, {&url.Error{Op: "Get", Err: &net.OpError{Op: "dial", Err: errors.New("refused")}}, true},
		{remoteerrors.ErrUnexpectedStatus{StatusCode: http.StatusBadGateway}, true}, {remoteerrors.ErrUnexpectedStatus{StatusCode: http.StatusTooManyRequests}, true},
		{remoteerrors.ErrUnexpectedStatus{StatusCode: http.StatusForbidden}, false}, {errors.New("unexpected commit digest"), false},
	} {
		if got := passing(fmt.Errorf("fetch: %w", c.err)); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}

// A registry that asks for a certificate gets the one that lies in its folder.
func TestClientCertificate(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	host, dir := srv.Listener.Addr().String(), t.TempDir()
	at := filepath.Join(dir, host)
	// The lab's registry brings a key and its certificate; here they are the client's.
	made := t.TempDir()
	if _, err := registry.Prepare(t.Context(), made, registry.Options{TLS: true}); err != nil {
		t.Fatal(err)
	}
	put := func(from, name string) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(made, from))
		if err := errors.Join(err, os.MkdirAll(at, 0o755), os.WriteFile(filepath.Join(at, name), b, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	get := func() (string, error) {
		conf, err := registryTLS([]string{filepath.Join(dir, "none"), dir}, host)
		if err != nil {
			return "", err
		}
		conf.InsecureSkipVerify = true
		resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: conf}}).Get(srv.URL)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return string(b), err
	}
	if got, err := get(); err == nil {
		t.Errorf("without a certificate: %s", got)
	}
	put("cert.pem", "client.cert")
	if _, err := get(); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "missing key "+filepath.Join(at, "client.key")) {
		t.Errorf("without its key: %v", err)
	}
	put("cert.pem", "client.key")
	if _, err := get(); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a key that is none: %v", err)
	}
	put("key.pem", "client.key")
	if got, err := get(); err != nil || got != "lab registry" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestPullAllTags(t *testing.T) {
	r := newHost(t).start(t)
	reg := registry.Start(t, t.TempDir(), registry.Options{TLS: true, User: "u", Password: "p"})
	a, b := tiny(t, runtime.GOARCH, nil, "one"), tiny(t, runtime.GOARCH, nil, "two")
	if err := errors.Join(reg.Push(t.Context(), "team/app", "1", blobs(t, a)), reg.Push(t.Context(), "team/app", "2", blobs(t, b))); err != nil {
		t.Fatal(err)
	}
	name, auth := reg.Addr+"/team/app", &rules.Auth{Username: "u", Password: "p"}
	if err := r.PullAll(t.Context(), name, "", auth, new(lines)); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{imageID(t, a): name + ":1", imageID(t, b): name + ":2"}
	if got := shown(t, r); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	if err := r.PullAll(t.Context(), reg.Addr+"/team/none", "", auth, new(lines)); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("no such repository: %v", err)
	}
	if err := r.PullAll(t.Context(), name, "", nil, new(lines)); err == nil || !strings.Contains(err.Error(), "denied") && !strings.Contains(err.Error(), "no basic auth") {
		t.Errorf("no credentials: %v", err)
	}
}

func TestNextPage(t *testing.T) {
	at, err := url.Parse("https://r.example/v2/x/tags/list")
	if err != nil {
		t.Fatal(err)
	}
	for link, want := range map[string]string{
		"": "", "junk": "", `</v2/x/tags/list?last=b>; rel="prev"`: "", `</v2/x/tags/list?last=b&n=2>; rel="next"`: "https://r.example/v2/x/tags/list?last=b&n=2",
		`<https://evil.example/v2/x/tags/list>; rel="next"`: "", `<http://r.example/v2/x/tags/list>; rel="next"`: "",
	} {
		got := ""
		if u := nextPage(at, link); u != nil {
			got = u.String()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", link, got, want)
		}
	}
}

// watch sees each status as it comes.
type watch struct {
	*lines
	seen func(status string)
}

func (w *watch) Status(status, id string, current, total int64) {
	w.lines.Status(status, id, current, total)
	w.seen(status)
}

// Whatever a registry says, the next page is asked of that registry.
func FuzzNextPage(f *testing.F) {
	for _, s := range []string{"", `</v2/x/tags/list?last=b&n=2>; rel="next"`, `<//evil.example/>; rel="next"`, `<https://u@r.example:1/>; rel=next`} {
		f.Add(s)
	}
	at := &url.URL{Scheme: "https", Host: "r.example", Path: "/v2/x/tags/list"}
	f.Fuzz(func(t *testing.T, link string) {
		if u := nextPage(at, link); u != nil && (u.Host != at.Host || u.Scheme != at.Scheme) {
			t.Errorf("%q leads to %s", link, u)
		}
	})
}

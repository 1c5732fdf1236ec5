package buildkit

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	control "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth"
	sessioncontent "github.com/moby/buildkit/session/content"
	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/session/grpchijack"
	"github.com/moby/buildkit/session/upload"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	grpccreds "google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/minictl/minictl/runtime/image"
	"github.com/minictl/minictl/testing/certs"
)

// fakeBuildKit speaks the control protocol: it asks the session for what a real one would, and does what build says.
type fakeBuildKit struct {
	control.UnimplementedControlServer
	sessions *session.Manager
	build    func(ctx context.Context, req *control.SolveRequest, c session.Caller) (map[string]string, error)
}

func (f *fakeBuildKit) ListWorkers(context.Context, *control.ListWorkersRequest) (*control.ListWorkersResponse, error) {
	return &control.ListWorkersResponse{}, nil
}

func (f *fakeBuildKit) Session(stream control.Control_SessionServer) error {
	conn, closed, md := grpchijack.Hijack(stream)
	defer conn.Close()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	go func() { <-closed; cancel() }()
	return f.sessions.HandleConn(ctx, conn, md)
}

func (f *fakeBuildKit) Status(_ *control.StatusRequest, stream control.Control_StatusServer) error {
	now := timestamppb.Now()
	return stream.Send(&control.StatusResponse{Vertexes: []*control.Vertex{{Digest: digest.FromString("v").String(), Name: "[1/1] RUN make", Started: now, Completed: now}}})
}

func (f *fakeBuildKit) Solve(ctx context.Context, req *control.SolveRequest) (*control.SolveResponse, error) {
	c, err := f.sessions.Get(ctx, req.Session, false)
	if err != nil {
		return nil, err
	}
	res, err := f.build(ctx, req, c)
	return &control.SolveResponse{ExporterResponse: res}, err
}

// serve runs a fake until the test ends.
func serve(t *testing.T, build func(context.Context, *control.SolveRequest, session.Caller) (map[string]string, error)) (addr string) {
	t.Helper()
	m, err := session.NewManager()
	if err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(t.TempDir(), "b.sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, m, build)
	return "unix://" + sock
}

func serveOn(t *testing.T, l net.Listener, m *session.Manager, build func(context.Context, *control.SolveRequest, session.Caller) (map[string]string, error), o ...grpc.ServerOption) {
	t.Helper()
	s := grpc.NewServer(o...)
	control.RegisterControlServer(s, &fakeBuildKit{sessions: m, build: build})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
}

// Over TLS both sides show a certificate of the authority that the other knows.
func TestTLS(t *testing.T) {
	t.Parallel()
	mine, others := t.TempDir(), t.TempDir()
	for _, dir := range []string{mine, others} {
		if err := certs.Write(dir, net.IPv4(127, 0, 0, 1)); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(mine, "cert.pem"), filepath.Join(mine, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(mine, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	m, err := session.NewManager()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, m, func(ctx context.Context, _ *control.SolveRequest, c session.Caller) (map[string]string, error) {
		return map[string]string{exptypes.ExporterImageConfigDigestKey: "sha256:abc"}, export(ctx, c, "archive")
	}, grpc.Creds(grpccreds.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2"}})))
	addr := "tcp://" + l.Addr().String()
	file := func(dir, name string) string { return filepath.Join(dir, name+".pem") }
	for _, c := range []struct {
		where image.BuildKit
		want  string
	}{
		{image.BuildKit{Addr: addr, CA: file(mine, "ca"), Cert: file(mine, "cert"), Key: file(mine, "key")}, ""},
		{image.BuildKit{Addr: addr, CA: file(others, "ca"), Cert: file(mine, "cert"), Key: file(mine, "key")}, "certificate signed by unknown authority"},
		{image.BuildKit{Addr: addr, CA: file(mine, "ca"), Cert: file(others, "cert"), Key: file(others, "key")}, "does not answer"},
		{image.BuildKit{Addr: addr, CA: file(mine, "ca"), Cert: file(mine, "cert"), Key: file(mine, "key"), ServerName: "elsewhere"}, "elsewhere"},
		{image.BuildKit{Addr: addr}, "does not answer"},
	} {
		id, err := New(c.where, &fakeImages{}).Build(t.Context(), image.Build{Pull: true}, strings.NewReader(""), new(text))
		if c.want == "" && (err != nil || id != "sha256:abc") || c.want != "" && (!errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %q, %v", c.where, id, err)
		}
	}
}

// fakeImages is this host's store.
type fakeImages struct {
	here   []image.Image
	blobs  content.Store
	loaded bytes.Buffer
	refuse error
}

func (f *fakeImages) Images(context.Context) ([]image.Image, error) { return f.here, nil }
func (f *fakeImages) Blobs() content.Store                          { return f.blobs }
func (f *fakeImages) Load(_ context.Context, in io.Reader, _ string, _ image.Progress) ([]string, error) {
	if f.refuse != nil {
		return nil, f.refuse
	}
	_, err := f.loaded.ReadFrom(in)
	return nil, err
}

// text collects what a user reads.
type text struct{ strings.Builder }

func (*text) Status(string, string, int64, int64) {}
func (x *text) Stream(s string)                   { x.WriteString(s) }

// export sends a built image as the docker exporter does.
func export(ctx context.Context, c session.Caller, archive string) error {
	w, err := filesync.CopyFileWriter(ctx, nil, 0, c)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, archive); err != nil {
		return err
	}
	return w.Close()
}

func TestBuild(t *testing.T) {
	t.Parallel()
	blobs, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := ocispec.Descriptor{Digest: digest.FromString("blob"), Size: 4}
	if err := content.WriteBlob(t.Context(), blobs, "x", strings.NewReader("blob"), d); err != nil {
		t.Fatal(err)
	}
	var sent bytes.Buffer
	var asked *control.SolveRequest
	addr := serve(t, func(ctx context.Context, req *control.SolveRequest, c session.Caller) (map[string]string, error) {
		asked = req
		u, err := url.Parse(req.FrontendAttrs["context"])
		if err != nil {
			return nil, err
		}
		up, err := upload.New(ctx, c, u)
		if err != nil {
			return nil, err
		}
		if _, err := up.WriteTo(&sent); err != nil {
			return nil, err
		}
		cred, err := auth.NewAuthClient(c.Conn()).Credentials(ctx, &auth.CredentialsRequest{Host: "reg.lab:5000"})
		if err != nil || cred.Username != "joe" || cred.Secret != "secret" {
			return nil, errors.Join(errors.New("credentials: "+cred.GetUsername()), err)
		}
		if b, err := content.ReadBlob(ctx, sessioncontent.NewCallerStore(c, "oci:"+store), d); string(b) != "blob" {
			return nil, errors.Join(errors.New("a local image's blob cannot be read"), err)
		}
		return map[string]string{exptypes.ExporterImageConfigDigestKey: "sha256:abc"}, export(ctx, c, "archive")
	})
	im := &fakeImages{blobs: blobs, here: []image.Image{{RepoTags: []string{"base:latest"}, Target: ocispec.Descriptor{Digest: "sha256:t"}, Config: ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}}}}}
	out := new(text)
	id, err := New(image.BuildKit{Addr: addr}, im).Build(t.Context(), image.Build{
		Tags: []string{"docker.io/library/a:1", "docker.io/library/a:2"}, Auth: map[string]image.Auth{"reg.lab:5000": {Username: "joe", Password: "secret"}},
	}, strings.NewReader("context"), out)
	if err != nil || id != "sha256:abc" {
		t.Fatalf("%q, %v", id, err)
	}
	if sent.String() != "context" || im.loaded.String() != "archive" {
		t.Errorf("sent %q, loaded %q", sent.String(), im.loaded.String())
	}
	if !strings.Contains(out.String(), "[1/1] RUN make") {
		t.Errorf("progress: %q", out.String())
	}
	if e := asked.Exporters; len(e) != 1 || e[0].Type != "docker" || e[0].Attrs["name"] != "docker.io/library/a:1,docker.io/library/a:2" {
		t.Errorf("export: %v", e)
	}
	if got := asked.FrontendAttrs["context:base::linux/amd64"]; got != "oci-layout://minictl@sha256:t" {
		t.Errorf("the local image: %v", asked.FrontendAttrs)
	}
}

func TestBuildFails(t *testing.T) {
	t.Parallel()
	failing := serve(t, func(context.Context, *control.SolveRequest, session.Caller) (map[string]string, error) {
		return nil, errors.New(`process "/bin/sh -c exit 7" did not complete successfully: exit code: 7`)
	})
	good := serve(t, func(ctx context.Context, _ *control.SolveRequest, c session.Caller) (map[string]string, error) {
		return nil, export(ctx, c, strings.Repeat("archive", 1<<16))
	})
	for what, c := range map[string]struct {
		addr, want string
		refuse     error
		class      func(error) bool
	}{
		"a step":      {failing, `process "/bin/sh -c exit 7" did not complete successfully: exit code: 7`, nil, func(error) bool { return true }},
		"the store":   {good, "no space left", errors.New("no space left"), func(error) bool { return true }},
		"no BuildKit": {"unix://" + t.TempDir() + "/none.sock", "does not answer", nil, errdefs.IsUnavailable},
	} {
		_, err := New(image.BuildKit{Addr: c.addr}, &fakeImages{refuse: c.refuse}).Build(t.Context(), image.Build{Pull: true}, strings.NewReader(""), new(text))
		if err == nil || !strings.Contains(err.Error(), c.want) || !c.class(err) || strings.Contains(err.Error(), "rpc error") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A client that goes away ends its build.
func TestBuildIsCalledOff(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	addr := serve(t, func(ctx context.Context, _ *control.SolveRequest, _ session.Caller) (map[string]string, error) {
		cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	})
	if _, err := New(image.BuildKit{Addr: addr}, &fakeImages{}).Build(ctx, image.Build{Pull: true}, strings.NewReader(""), new(text)); err == nil {
		t.Error("built")
	}
}

func TestAttrs(t *testing.T) {
	t.Parallel()
	got := attrs(image.Build{
		Dockerfile: "d/Dockerfile", Target: "t", Remote: "https://r/x.git", NoCache: true, Pull: true, Platform: "linux/arm64", Network: "none",
		ExtraHosts: []string{"a:1.2.3.4", "b:fd00::1"}, ShmSize: 5, Ulimits: []string{"nofile=1:2"}, CacheFrom: []string{"c:1", "d:2"},
		Args: map[string]string{"A": "1"}, Labels: map[string]string{"l": "v"},
	})
	want := map[string]string{
		"filename": "d/Dockerfile", "target": "t", "context": "https://r/x.git", "no-cache": "", "image-resolve-mode": "pull", "platform": "linux/arm64",
		"force-network-mode": "none", "add-hosts": "a=1.2.3.4,b=fd00::1", "shm-size": "5", "ulimit": "nofile=1:2", "cache-from": "c:1,d:2",
		"build-arg:A": "1", "label:l": "v",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got := attrs(image.Build{}); len(got) != 0 {
		t.Errorf("nothing asked for: %v", got)
	}
	local := localImages([]image.Image{{
		RepoTags: []string{"h:5000/a:1", "b:latest"}, RepoDigests: []string{"b@sha256:d"}, Target: ocispec.Descriptor{Digest: "sha256:t"},
		Config: ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}},
	}})
	if keys := slices.Sorted(maps.Keys(local)); !slices.Equal(keys, []string{"context:b::linux/arm64", "context:b@sha256:d::linux/arm64", "context:h:5000/a:1::linux/arm64"}) {
		t.Errorf("%v", keys)
	}
}

package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// attachable has one container, "web", whose stream is p.
func attachable(p *process) *fakes {
	f := &fakes{}
	f.c.attach = func(context.Context, string, AttachOptions) (Stream, error) { return p, nil }
	return f
}

func TestAttachEchoWithHalfClose(t *testing.T) {
	p := newProcess()
	c := dial(t, serve(t, attachable(p)))
	conn, err := c.ContainerAttach(t.Context(), "web", client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if kind, _ := conn.MediaType(); kind != "application/vnd.docker.multiplexed-stream" {
		t.Errorf("media type %q", kind)
	}
	go p.echo()
	want := strings.Repeat("hello", 50_000) // more than any socket buffer
	go func() {
		_, _ = io.WriteString(conn.Conn, want)
		_ = conn.CloseWrite()
	}()
	var stdout, stderr bytes.Buffer
	if _, err := stdcopy.StdCopy(&stdout, &stderr, conn.Reader); err != nil {
		t.Fatal(err)
	}
	if stdout.String() != want || stderr.String() != "bye" {
		t.Errorf("%d bytes, want %d; stderr %q", stdout.Len(), len(want), &stderr)
	}
	within(t, p.closed, "closed stream")
}

// rawConn sends one request by hand, and gives the connection after the answer's header.
func rawConn(t *testing.T, socket, request string) (net.Conn, *bufio.Reader, *http.Response) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return conn, r, resp
}

func TestAttachForms(t *testing.T) {
	const upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
	tests := map[string]struct {
		path, headers string
		tty           bool
		status, kind  string
	}{
		"upgrade":        {"/v1.51/containers/web/attach?stream=1&stdin=1&stdout=1", upgrade, false, "101 UPGRADED", "multiplexed"},
		"unversioned":    {"/containers/web/attach?stream=1&stdin=1&stdout=1", upgrade, false, "101 UPGRADED", "multiplexed"},
		"upgrade, tty":   {"/v1.51/containers/web/attach?stream=1&stdin=1&stdout=1", upgrade, true, "101 UPGRADED", "raw"},
		"upgrade, 1.41":  {"/v1.41/containers/web/attach?stream=1&stdin=1&stdout=1", upgrade, false, "101 UPGRADED", "raw"},
		"old form":       {"/v1.24/containers/web/attach?stream=1&stdin=1&stdout=1", "", false, "200 OK", "raw"},
		"old form, 1.51": {"/v1.51/containers/web/attach?stream=1&stdin=1&stdout=1", "Content-Length: 0\r\n", false, "200 OK", "raw"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := newProcess()
			f := attachable(p)
			f.c.tty = func(string) (bool, error) { return tt.tty, nil }
			socket := serve(t, f)
			// The first input travels with the request, as scripts send it.
			conn, r, resp := rawConn(t, socket, "POST "+tt.path+" HTTP/1.1\r\nHost: d\r\n"+tt.headers+"\r\nearly ")
			kind := resp.Header.Get("Content-Type")
			if resp.Status != tt.status || kind != "application/vnd.docker."+tt.kind+"-stream" {
				t.Errorf("%s, %s", resp.Status, kind)
			}
			if up := resp.Header.Get("Upgrade"); (up == "tcp") != (tt.headers == upgrade) {
				t.Errorf("Upgrade: %q", up)
			}
			if resp.Header.Get("Api-Version") != DefaultVersion {
				t.Error("no Api-Version")
			}
			go p.echo()
			_, _ = io.WriteString(conn, "late")
			_ = conn.(*net.UnixConn).CloseWrite()
			var stdout, stderr bytes.Buffer
			if _, err := stdcopy.StdCopy(&stdout, &stderr, r); err != nil {
				t.Fatal(err)
			}
			if stdout.String() != "early late" || stderr.String() != "bye" {
				t.Errorf("stdout %q, stderr %q", &stdout, &stderr)
			}
		})
	}
}

func TestHalfCloseBeforeTheAnswerKeepsOutput(t *testing.T) {
	p := newProcess()
	f := attachable(p)
	asked, goOn := make(chan struct{}), make(chan struct{})
	var ctxErr error
	f.c.attach = func(ctx context.Context, _ string, _ AttachOptions) (Stream, error) {
		close(asked)
		<-goOn
		ctxErr = ctx.Err()
		return p, nil
	}
	conn, err := net.Dial("unix", serve(t, f))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "POST /containers/web/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n")
	_ = conn.(*net.UnixConn).CloseWrite()
	within(t, asked, "attach")
	close(goOn)
	_, _ = p.stdout.Write(frame(true, 0, "output"))
	_ = p.stdout.Close()
	all, err := io.ReadAll(conn)
	if err != nil || !strings.HasSuffix(string(all), "\r\n\r\noutput") {
		t.Errorf("%q, %v", all, err)
	}
	if ctxErr != nil {
		t.Errorf("attach's context: %v", ctxErr)
	}
}

// TestGoneClientEndsSilentAttach covers both ways to go, from a container that says nothing and reads nothing.
func TestGoneClientEndsSilentAttach(t *testing.T) {
	for _, stdin := range []string{"0", "1"} {
		for _, halfFirst := range []bool{false, true} {
			p := newProcess()
			conn, _, _ := rawConn(t, serve(t, attachable(p)),
				"POST /containers/web/attach?stream=1&stdout=1&stdin="+stdin+" HTTP/1.1\r\nHost: d\r\n\r\n")
			if halfFirst {
				_ = conn.(*net.UnixConn).CloseWrite()
			}
			_ = conn.Close()
			within(t, p.closed, "closed stream after the client went")
		}
	}
}

// lateProcess is a container that has not started: all blocks until Close.
type lateProcess struct{ closed chan struct{} }

func (l *lateProcess) block() error              { <-l.closed; return io.ErrClosedPipe }
func (l *lateProcess) Read([]byte) (int, error)  { return 0, l.block() }
func (l *lateProcess) Write([]byte) (int, error) { return 0, l.block() }
func (l *lateProcess) CloseWrite() error         { return l.block() }
func (l *lateProcess) Close() error              { close(l.closed); return nil }

func TestGoneClientEndsAttachToAContainerNotStarted(t *testing.T) {
	for name, input := range map[string]string{"nothing written": "", "input pending": "typed"} {
		t.Run(name, func(t *testing.T) {
			f, l := &fakes{}, &lateProcess{closed: make(chan struct{})}
			f.c.attach = func(context.Context, string, AttachOptions) (Stream, error) { return l, nil }
			conn, _, _ := rawConn(t, serve(t, f), "POST /containers/web/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: d\r\n\r\n"+input)
			_ = conn.Close()
			within(t, l.closed, "closed stream")
		})
	}
}

// TestServerEnd shows that streams end at once with the server, and that a change under way is finished first.
func TestServerEnd(t *testing.T) {
	p := newProcess()
	f := attachable(p)
	starting, goOn := make(chan struct{}), make(chan struct{})
	f.c.start = func(ctx context.Context, _ string) error {
		close(starting)
		<-goOn
		return ctx.Err()
	}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cfg, done := f.config(t), make(chan error, 1)
	go func() { done <- Serve(ctx, cfg.Log, l, New(cfg)) }()
	_, r, _ := rawConn(t, socket, "POST /containers/web/attach?stream=1 HTTP/1.1\r\nHost: d\r\n\r\n")
	status := make(chan int, 1)
	go func() {
		resp, err := httpVia(t, socket).Post("http://d/containers/web/start", "", nil)
		if err != nil {
			t.Error(err)
			status <- 0
			return
		}
		_ = resp.Body.Close()
		status <- resp.StatusCode
	}()
	within(t, starting, "start")
	cancel()
	if _, err := r.ReadByte(); err == nil {
		t.Error("attach goes on")
	}
	within(t, p.closed, "closed stream")
	close(goOn)
	if code := within(t, status, "answer to start"); code != 204 {
		t.Errorf("start: %d", code)
	}
	if err := within(t, done, "end of Serve"); err != nil {
		t.Error(err)
	}
}

func TestServeTellsWhyItFailed(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	cfg := (&fakes{}).config(t)
	if err := Serve(t.Context(), cfg.Log, l, New(cfg)); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestGoneClientDoesNotCancelAChange(t *testing.T) {
	f := &fakes{}
	starting, ended := make(chan struct{}), make(chan error, 1)
	goOn := make(chan struct{})
	f.c.start = func(ctx context.Context, _ string) error {
		close(starting)
		<-goOn
		ended <- ctx.Err()
		return nil
	}
	waited := make(chan struct{})
	f.c.wait = func(ctx context.Context, _ string, _ container.WaitCondition) (<-chan container.WaitResponse, error) {
		context.AfterFunc(ctx, func() { close(waited) })
		return make(chan container.WaitResponse), nil
	}
	socket := serve(t, f)
	// Both leave in one go: when the server has seen the second leave, it has had the time to see the first.
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "POST /containers/web/start HTTP/1.1\r\nHost: d\r\n\r\n")
	within(t, starting, "start")
	other, _, _ := rawConn(t, socket, "POST /containers/web/wait HTTP/1.1\r\nHost: d\r\n\r\n")
	_ = conn.Close()
	_ = other.Close()
	within(t, waited, "end of the wait")
	close(goOn)
	if err := within(t, ended, "end of the start"); err != nil {
		t.Error(err)
	}
}

func TestAttachErrorsKeepTheirStatus(t *testing.T) {
	f := &fakes{}
	f.c.tty = func(string) (bool, error) { return false, notFound("No such container: x") }
	_, r, resp := rawConn(t, serve(t, f), "POST /containers/x/attach?stream=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	body, _ := io.ReadAll(io.LimitReader(r, resp.ContentLength))
	_ = body
	if resp.StatusCode != 404 {
		t.Error(resp.Status)
	}
}

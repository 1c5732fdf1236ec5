package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
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

func TestWaitFlushesItsHeaderBeforeTheExit(t *testing.T) {
	f := &fakes{}
	exit := make(chan container.WaitResponse, 1)
	f.c.wait = func(_ context.Context, ref string, cond container.WaitCondition) (<-chan container.WaitResponse, error) {
		if ref == "gone" {
			return nil, notFound("No such container: gone")
		}
		if cond != container.WaitConditionRemoved {
			t.Errorf("condition %q", cond)
		}
		return exit, nil
	}
	c := dial(t, serve(t, f))
	// ContainerWait returns once the header is there; the exit has not come yet.
	res := c.ContainerWait(t.Context(), "web", client.ContainerWaitOptions{Condition: container.WaitConditionRemoved})
	select {
	case <-res.Result:
		t.Fatal("exit before the exit")
	case err := <-res.Error:
		t.Fatal(err)
	default:
	}
	exit <- container.WaitResponse{StatusCode: 7, Error: &container.WaitExitError{Message: "oops"}}
	if got := within(t, res.Result, "exit"); got.StatusCode != 7 || got.Error.Message != "oops" {
		t.Errorf("%+v", got)
	}
	res = c.ContainerWait(t.Context(), "gone", client.ContainerWaitOptions{Condition: container.WaitConditionRemoved})
	if err := within(t, res.Error, "error"); err == nil || !strings.Contains(err.Error(), "No such container: gone") {
		t.Error(err)
	}
}

func TestWaitEndsWithTheClient(t *testing.T) {
	f := &fakes{}
	left := make(chan struct{})
	f.c.wait = func(ctx context.Context, _ string, _ container.WaitCondition) (<-chan container.WaitResponse, error) {
		context.AfterFunc(ctx, func() { close(left) })
		return make(chan container.WaitResponse), nil
	}
	conn, _, _ := rawConn(t, serve(t, f), "POST /containers/web/wait HTTP/1.1\r\nHost: d\r\n\r\n")
	_ = conn.Close()
	within(t, left, "end of the wait")
}

func TestBrokenWaitIsNotExitZero(t *testing.T) {
	f := &fakes{}
	f.c.wait = func(context.Context, string, container.WaitCondition) (<-chan container.WaitResponse, error) {
		ch := make(chan container.WaitResponse)
		close(ch)
		return ch, nil
	}
	res := dial(t, serve(t, f)).ContainerWait(t.Context(), "web", client.ContainerWaitOptions{})
	if err := within(t, res.Error, "error"); err == nil {
		t.Error("no error")
	}
}

func TestLogsFollowFlushesAndEndsWithTheClient(t *testing.T) {
	f := &fakes{}
	left := make(chan struct{})
	f.c.logs = func(ctx context.Context, o LogsOptions, w io.Writer) error {
		if !o.Follow || o.Tail != "5" || !o.Timestamps || o.Stderr {
			t.Errorf("options %+v", o)
		}
		<-ctx.Done() // silent: the header must come all the same
		close(left)
		return ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	rc, err := dial(t, serve(t, f)).ContainerLogs(ctx, "web", client.ContainerLogsOptions{
		ShowStdout: true, Follow: true, Tail: "5", Timestamps: true, Since: "10m",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	cancel()
	within(t, left, "end of the logs")
}

func TestLogs(t *testing.T) {
	tests := map[string]struct {
		tty  bool
		err  error
		text string
		code int
		body string
		kind string
	}{
		"frames":      {false, nil, "hi\n", 200, string(frame(false, 1, "hi\n")), "multiplexed"},
		"raw":         {true, nil, "hi\n", 200, "hi\n", "raw"},
		"empty":       {false, nil, "", 200, "", "multiplexed"},
		"early error": {false, notFound("no log"), "", 404, "{\"message\":\"no log\"}\n", ""},
		"late error": {false, notFound("lost"), "hi\n", 200,
			string(frame(false, 1, "hi\n")) + string(frame(false, 2, "Error grabbing logs: lost\n")), "multiplexed"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := &fakes{}
			f.c.tty = func(string) (bool, error) { return tt.tty, nil }
			f.c.logs = func(_ context.Context, o LogsOptions, w io.Writer) error {
				if o.Tail != "all" {
					t.Errorf("tail %q", o.Tail)
				}
				if tt.text != "" {
					_, _ = w.Write(frame(tt.tty, 1, tt.text))
				}
				return tt.err
			}
			resp, err := httpVia(t, serve(t, f)).Get("http://d/v1.51/containers/web/logs?stdout=1&stderr=true&tail=many&since=0&until=1.5")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != tt.code || string(body) != tt.body {
				t.Errorf("%d %q", resp.StatusCode, body)
			}
			if tt.kind != "" && resp.Header.Get("Content-Type") != "application/vnd.docker."+tt.kind+"-stream" {
				t.Error(resp.Header)
			}
		})
	}
}

func TestEvents(t *testing.T) {
	f := &fakes{}
	ch, left := make(chan events.Message), make(chan struct{})
	f.s.events = func(ctx context.Context, since, until string, fl Filters) (<-chan events.Message, error) {
		if !fl["type"]["container"] || since == "" || until != "" {
			t.Errorf("since %q, until %q, filters %v", since, until, fl)
		}
		context.AfterFunc(ctx, func() { close(left) })
		return ch, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	// Events returns when the header is there, before any event.
	res := dial(t, serve(t, f)).Events(ctx, client.EventsListOptions{
		Since: "1h", Filters: make(client.Filters).Add("type", "container"),
	})
	ch <- events.Message{Type: "container", Action: "start", Actor: events.Actor{ID: "c1", Attributes: map[string]string{"image": "<busybox>"}}}
	if m := within(t, res.Messages, "event"); m.Action != "start" || m.Actor.ID != "c1" {
		t.Errorf("%+v", m)
	}
	cancel()
	within(t, left, "end of the events")
}

func TestEventsOldNamesAndEnd(t *testing.T) {
	f := &fakes{}
	f.s.events = func(context.Context, string, string, Filters) (<-chan events.Message, error) {
		ch := make(chan events.Message, 3)
		ch <- events.Message{Type: "container", Action: "die", Actor: events.Actor{ID: "c1", Attributes: map[string]string{"image": "bb"}}, Time: 5}
		ch <- events.Message{Type: "image", Action: "pull", Actor: events.Actor{ID: "bb"}}
		ch <- events.Message{Type: "network", Action: "create", Actor: events.Actor{ID: "n1"}}
		close(ch)
		return ch, nil
	}
	resp, err := httpVia(t, serve(t, f)).Get("http://d/v1.51/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	want := `{"status":"die","id":"c1","from":"bb","Type":"container","Action":"die","Actor":{"ID":"c1","Attributes":{"image":"bb"}},"time":5}
{"status":"pull","id":"bb","Type":"image","Action":"pull","Actor":{"ID":"bb","Attributes":null}}
{"Type":"network","Action":"create","Actor":{"ID":"n1","Attributes":null}}
`
	if string(body) != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
}

func TestExec(t *testing.T) {
	f, p := &fakes{}, newProcess()
	f.e.create = func(ref string, req container.ExecCreateRequest) (string, error) {
		if ref != "web" || len(req.Cmd) != 1 || !req.AttachStdin {
			t.Errorf("%s %+v", ref, req)
		}
		return "e1", nil
	}
	f.e.inspect = func(id string) (container.ExecInspectResponse, error) {
		if id == "none" {
			return container.ExecInspectResponse{}, notFound("No such exec instance: none")
		}
		code := 3
		return container.ExecInspectResponse{ID: id, ExitCode: &code}, nil
	}
	f.e.start = func(id string, req container.ExecStartRequest) (Stream, error) {
		switch {
		case id == "bad":
			return nil, notFound(`exec: "nosuch": executable file not found in $PATH`)
		case req.Detach:
			return nil, nil
		}
		go p.echo()
		return p, nil
	}
	socket := serve(t, f)
	c, ctx := dial(t, socket), t.Context()

	id, err := c.ExecCreate(ctx, "web", client.ExecCreateOptions{Cmd: []string{"cat"}, AttachStdin: true})
	if err != nil || id.ID != "e1" {
		t.Fatal(id, err)
	}
	conn, err := c.ExecAttach(ctx, "e1", client.ExecAttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn.Conn, "ping")
	_ = conn.CloseWrite()
	var stdout, stderr bytes.Buffer
	if _, err := stdcopy.StdCopy(&stdout, &stderr, conn.Reader); err != nil || stdout.String() != "ping" || stderr.String() != "bye" {
		t.Errorf("%q %q %v", &stdout, &stderr, err)
	}
	if info, err := c.ExecInspect(ctx, "e1", client.ExecInspectOptions{}); err != nil || info.ExitCode != 3 || info.Running {
		t.Error(info, err)
	}
	if _, err := c.ExecStart(ctx, "e1", client.ExecStartOptions{Detach: true}); err != nil {
		t.Error(err)
	}
	if _, err := c.ExecStart(ctx, "none", client.ExecStartOptions{Detach: true}); err == nil || !strings.Contains(err.Error(), "No such exec instance") {
		t.Error(err)
	}
	// A start that fails is told in the stream: the client wants its 101 in any case.
	bad, err := c.ExecAttach(ctx, "bad", client.ExecAttachOptions{TTY: true})
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	if text, _ := io.ReadAll(bad.Reader); !strings.HasPrefix(string(text), `exec: "nosuch": executable file not found`) {
		t.Errorf("%q", text)
	}
}

func TestOldExecForm(t *testing.T) {
	f := &fakes{}
	f.e.inspect = func(id string) (container.ExecInspectResponse, error) {
		return container.ExecInspectResponse{ID: id}, nil
	}
	p := newProcess()
	f.e.start = func(string, container.ExecStartRequest) (Stream, error) { go p.echo(); return p, nil }
	body := `{"Tty":false,"Detach":false}`
	conn, r, resp := rawConn(t, serve(t, f), "POST /v1.24/exec/e1/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"+
		"Content-Length: 28\r\n\r\n"+body+"input")
	if resp.Status != "200 OK" || resp.Header.Get("Content-Type") != "application/vnd.docker.raw-stream" {
		t.Error(resp.Status, resp.Header)
	}
	_ = conn.(*net.UnixConn).CloseWrite()
	var stdout, stderr bytes.Buffer
	if _, err := stdcopy.StdCopy(&stdout, &stderr, r); err != nil || stdout.String() != "input" {
		t.Errorf("%q %v", &stdout, err)
	}
}

func TestPullProgress(t *testing.T) {
	f := &fakes{}
	f.i.pull = func(_ context.Context, ref, platform, auth string, p Progress) error {
		if platform != "linux/arm64" || auth != "e30=" {
			t.Errorf("platform %q, auth %q", platform, auth)
		}
		if ref == "docker.io/library/none:latest" {
			return notFound("pull access denied for none")
		}
		p.Status("Pulling from library/busybox", "latest", 0, 0)
		p.Status("Downloading", "4abcf2066143", 5, 10)
		if ref == "docker.io/library/half:latest" {
			return notFound("layer lost")
		}
		p.Status("Status: Downloaded newer image for busybox:latest", "", 0, 0)
		return nil
	}
	hc := httpVia(t, serve(t, f))
	get := func(name string) (int, string) {
		req, _ := http.NewRequest("POST", "http://d/v1.51/images/create?fromImage=docker.io/library/"+name+"&tag=latest&platform=linux/arm64", nil)
		req.Header.Set("X-Registry-Auth", "e30=")
		resp, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	lines := `{"status":"Pulling from library/busybox","progressDetail":{},"id":"latest"}
{"status":"Downloading","progressDetail":{"current":5,"total":10},"id":"4abcf2066143"}
`
	tests := map[string]struct {
		code int
		body string
	}{
		"busybox": {200, lines + `{"status":"Status: Downloaded newer image for busybox:latest"}` + "\n"},
		"half":    {200, lines + `{"errorDetail":{"code":404,"message":"layer lost"},"error":"layer lost"}` + "\n"},
		"none":    {404, `{"message":"pull access denied for none"}` + "\n"},
	}
	for name, tt := range tests {
		if code, body := get(name); code != tt.code || body != tt.body {
			t.Errorf("%s: %d\n%s", name, code, body)
		}
	}
	for i, line := range strings.Split(strings.TrimSpace(tests["half"].body), "\n") {
		if !json.Valid([]byte(line)) {
			t.Errorf("line %d: %s", i, line)
		}
	}
}

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
)

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

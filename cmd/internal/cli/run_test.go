package cli_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/minictl/minictl/cmd/internal/cli/clitest"
)

const id = "0123456789ab0123456789ab0123456789ab0123456789ab0123456789ab0123"

// box scripts one container's life: attach shows output, wait answers with code once started.
type box struct {
	d       *clitest.Daemon
	started chan struct{}
	over    chan struct{} // the test's end
}

func newBox(t *testing.T, code, output string) *box {
	b := &box{d: clitest.Start(t), started: make(chan struct{}), over: make(chan struct{})}
	t.Cleanup(func() { close(b.over) })
	b.d.Handle("POST /containers/create", clitest.JSON(201, `{"Id":"`+id+`","Warnings":["no swap limit"]}`))
	b.d.Handle("POST /containers/{id}/attach", clitest.Hijack(func(c net.Conn, _ io.Reader) {
		select {
		case <-b.started:
			io.WriteString(c, output)
		case <-b.over:
		}
	}))
	b.d.Handle("POST /containers/{id}/wait", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		select {
		case <-b.started:
			io.WriteString(w, `{"StatusCode":`+code+`}`)
		case <-r.Context().Done():
		}
	})
	return b
}

func (b *box) startOK() {
	b.d.Handle("POST /containers/{id}/start", func(w http.ResponseWriter, _ *http.Request) {
		close(b.started)
		w.WriteHeader(204)
	})
}

func TestRunAttached(t *testing.T) {
	b := newBox(t, "7", clitest.Frame(1, "to out\n")+clitest.Frame(2, "to err\n"))
	b.startOK()
	r := clitest.Run(t, b.d, "run", "--name", "web", "busybox", "sh", "-c", "exit 7")
	if r.Code != 7 || r.Out != "to out\n" || r.Err != "WARNING: no swap limit\nto err\n" {
		t.Errorf("got %+v", r)
	}
	want := []string{"POST /containers/create", "POST /containers/" + id + "/attach",
		"POST /containers/" + id + "/wait", "POST /containers/" + id + "/start"}
	if got := b.d.Requests(); !slices.Equal(got, want) {
		t.Errorf("order of requests:\n got %q\nwant %q", got, want)
	}
	if q := b.d.Find(t, "POST", "/containers/create").Query; q.Get("name") != "web" {
		t.Errorf("name: %v", q)
	}
	if q := b.d.Find(t, "POST", "/containers/"+id+"/wait").Query; q.Get("condition") != "next-exit" {
		t.Errorf("wait: %v", q)
	}
}

func TestRunRemoveWaitsForRemoval(t *testing.T) {
	b := newBox(t, "0", "")
	b.startOK()
	if r := clitest.Run(t, b.d, "run", "--rm", "busybox"); r.Code != 0 {
		t.Errorf("got %+v", r)
	}
	if q := b.d.Find(t, "POST", "/containers/"+id+"/wait").Query; q.Get("condition") != "removed" {
		t.Errorf("wait: %v", q)
	}
}

func TestRunDetached(t *testing.T) {
	b := newBox(t, "0", "")
	b.startOK()
	r := clitest.Run(t, b.d, "run", "-itd", "busybox")
	if r.Code != 0 || r.Out != id+"\n" {
		t.Errorf("got %+v", r)
	}
	if got := b.d.Requests(); len(got) != 2 {
		t.Errorf("requests %q, want create and start", got)
	}
	var body struct{ Tty, OpenStdin, AttachStdin, StdinOnce bool }
	if err := json.Unmarshal([]byte(b.d.Find(t, "POST", "/containers/create").Body), &body); err != nil {
		t.Fatal(err)
	}
	if !body.Tty || !body.OpenStdin || body.AttachStdin || body.StdinOnce {
		t.Errorf("body %+v", body)
	}
}

// A start that fails gives docker's code and leaves no container.
func TestRunStartFails(t *testing.T) {
	for _, c := range []struct {
		message string
		code    int
	}{
		{"driver failed programming external connectivity", 125},
		{`exec: "nosuch": executable file not found in $PATH: unknown`, 127},
		{`exec: "/x": stat /x: no such file or directory: unknown`, 127},
		{`exec: "/etc/passwd": permission denied: unknown`, 126},
		{`exec: "/etc": is a directory: unknown`, 126},
	} {
		for _, flags := range [][]string{{"run"}, {"run", "-d"}, {"run", "--rm"}} {
			b := newBox(t, "0", "")
			b.d.Handle("POST /containers/{id}/start", clitest.Fail(400, c.message))
			b.d.Handle("DELETE /containers/{id}", clitest.Empty(204))
			r := clitest.Run(t, b.d, append(flags, "busybox", "nosuch")...)
			if r.Code != c.code || !strings.Contains(r.Err, c.message) || r.Out != "" {
				t.Errorf("%v: %s: got %+v, want code %d", flags, c.message, r, c.code)
			}
			q := b.d.Find(t, "DELETE", "/containers/"+id).Query
			if q.Get("force") != "1" || q.Get("v") != "1" {
				t.Errorf("removal %v", q)
			}
		}
	}
}

func TestRunCreateFails(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("POST /containers/create", clitest.Fail(409, `Conflict. The container name "/x" is already in use`))
	r := clitest.Run(t, d, "run", "--name", "x", "busybox")
	if r.Code != 125 || !strings.HasPrefix(r.Err, "minictl: Error response from daemon: Conflict.") {
		t.Errorf("got %+v", r)
	}
	if r := clitest.Run(t, d, "create", "--name", "x", "busybox"); r.Code != 1 {
		t.Errorf("create: got %+v", r)
	}
}

func TestRunPullsMissingImage(t *testing.T) {
	b := newBox(t, "0", "")
	b.startOK()
	pulled := false
	d := clitest.Start(t)
	d.Handle("POST /images/create", func(w http.ResponseWriter, r *http.Request) {
		pulled = true
		io.WriteString(w, `{"status":"Pulling from library/busybox","id":"latest"}`+"\n"+
			`{"status":"Downloading","id":"abc","progressDetail":{"current":1,"total":2}}`+"\n"+
			`{"status":"Status: Downloaded newer image for busybox:latest"}`+"\n")
	})
	d.Handle("POST /containers/create", func(w http.ResponseWriter, r *http.Request) {
		if !pulled {
			clitest.Fail(404, "No such image: busybox:latest")(w, r)
			return
		}
		clitest.JSON(201, `{"Id":"`+id+`"}`)(w, r)
	})
	d.Handle("POST /containers/{id}/start", clitest.Empty(204))
	r := clitest.Run(t, d, "run", "-d", "busybox")
	want := "Unable to find image 'busybox:latest' locally\nlatest: Pulling from library/busybox\n" +
		"Status: Downloaded newer image for busybox:latest\n"
	if r.Code != 0 || r.Out != id+"\n" || r.Err != want {
		t.Errorf("got %+v", r)
	}
	q := d.Find(t, "POST", "/images/create").Query
	if q.Get("fromImage") != "docker.io/library/busybox" || q.Get("tag") != "latest" {
		t.Errorf("pull %v", q)
	}
	pulled = false
	if r := clitest.Run(t, d, "run", "-d", "--pull", "never", "busybox"); r.Code != 125 || pulled {
		t.Errorf("--pull never: %+v, pulled %v", r, pulled)
	}
}

func TestRunPullFails(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("POST /containers/create", clitest.Fail(404, "No such image: nope:latest"))
	d.Handle("POST /images/create", clitest.JSON(200, `{"errorDetail":{"message":"manifest unknown"},"error":"manifest unknown"}`))
	r := clitest.Run(t, d, "run", "nope")
	if r.Code != 125 || !strings.HasSuffix(r.Err, "minictl: manifest unknown\n") {
		t.Errorf("got %+v", r)
	}
}

func TestRunUsage(t *testing.T) {
	d := clitest.Start(t)
	for _, args := range [][]string{
		{"run", "--nope", "busybox"}, {"run", "-p", "bad:port:x:y", "busybox"}, {"run", "--rm", "--restart=always", "b"},
		{"run", "-d", "-a", "stdout", "b"}, {"run", "-it", "b"}, {"run", "--pull", "maybe", "b"},
		{"exec", "--nope", "a", "b"}, {"run", "--detach-keys", "ctrl-", "b"},
	} {
		r := clitest.Run(t, d, args...)
		if r.Code != 125 || strings.Count(r.Err, "\n") != 1 {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if got := d.Requests(); len(got) != 0 {
		t.Errorf("requests after a usage error: %q", got)
	}
}

func TestSignalsReachTheContainer(t *testing.T) {
	d := clitest.Start(t)
	alive := make(chan struct{})
	d.Handle("POST /containers/create", clitest.JSON(201, `{"Id":"`+id+`"}`))
	d.Handle("POST /containers/{id}/start", clitest.Empty(204))
	d.Handle("POST /containers/{id}/attach", clitest.Hijack(func(net.Conn, io.Reader) { <-alive }))
	d.Handle("POST /containers/{id}/wait", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		<-alive
		io.WriteString(w, `{"StatusCode":129}`)
	})
	d.Handle("POST /containers/{id}/kill", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("signal") == "HUP" {
			close(alive)
		}
		w.WriteHeader(204)
	})
	done := make(chan clitest.Result, 1)
	go func() { done <- clitest.Run(t, d, "run", "busybox") }()
	d.Find(t, "POST", "/containers/"+id+"/start")
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if r := <-done; r.Code != 129 {
		t.Errorf("got %+v", r)
	}
}

func TestStart(t *testing.T) {
	b := newBox(t, "3", clitest.Frame(1, "hello\n"))
	b.startOK()
	b.d.Handle("GET /containers/{id}/json", clitest.JSON(200, `{"Id":"`+id+`","Config":{"Tty":false},"HostConfig":{}}`))
	if r := clitest.Run(t, b.d, "start", "-a", "web"); r.Code != 3 || r.Out != "hello\n" {
		t.Errorf("got %+v", r)
	}
	d := clitest.Start(t)
	d.Handle("POST /containers/a/start", clitest.Empty(204))
	d.Handle("POST /containers/b/start", clitest.Fail(404, "No such container: b"))
	d.Handle("POST /containers/c/start", clitest.Empty(304))
	r := clitest.Run(t, d, "start", "a", "b", "c")
	if r.Code != 1 || r.Out != "a\nc\n" ||
		r.Err != "Error response from daemon: No such container: b\nminictl: failed to start containers: b\n" {
		t.Errorf("got %+v", r)
	}
}

func TestExec(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("GET /containers/web/json", clitest.JSON(200, `{"Id":"`+id+`"}`))
	d.Handle("POST /containers/web/exec", clitest.JSON(201, `{"Id":"e1"}`))
	var got string
	d.Handle("POST /exec/e1/start", clitest.Hijack(func(c net.Conn, in io.Reader) {
		b, _ := io.ReadAll(in)
		got = string(b)
		io.WriteString(c, clitest.Frame(1, "out")+clitest.Frame(2, "err"))
	}))
	d.Handle("GET /exec/e1/json", clitest.JSON(200, `{"ID":"e1","ExitCode":42,"Running":false}`))
	r := clitest.RunInput(t, d, "typed", "exec", "-i", "-e", "A=b", "-u", "root", "-w", "/tmp", "web", "cat", "-n")
	if r.Code != 42 || r.Out != "out" || r.Err != "err" || !strings.HasSuffix(got, "typed") {
		t.Errorf("got %+v, stdin %q", r, got)
	}
	var body struct {
		User, WorkingDir                        string
		Env, Cmd                                []string
		AttachStdin, AttachStdout, AttachStderr bool
	}
	if err := json.Unmarshal([]byte(d.Find(t, "POST", "/containers/web/exec").Body), &body); err != nil {
		t.Fatal(err)
	}
	if body.User != "root" || body.WorkingDir != "/tmp" || !slices.Equal(body.Env, []string{"A=b"}) ||
		!slices.Equal(body.Cmd, []string{"cat", "-n"}) || !body.AttachStdin || !body.AttachStdout || !body.AttachStderr {
		t.Errorf("body %+v", body)
	}
	if r := clitest.Run(t, d, "exec", "nosuch", "true"); r.Code != 1 {
		t.Errorf("no container: %+v", r)
	}
}

func TestWaitPrintsCodes(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("POST /containers/a/wait", clitest.JSON(200, `{"StatusCode":5}`))
	d.Handle("POST /containers/b/wait", clitest.Fail(404, "No such container: b"))
	r := clitest.Run(t, d, "wait", "a", "b")
	if r.Code != 1 || r.Out != "5\n" || r.Err != "minictl: Error response from daemon: No such container: b\n" {
		t.Errorf("got %+v", r)
	}
}

func TestAttach(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("GET /containers/{id}/json", clitest.JSON(200, `{"Id":"`+id+`","Config":{"OpenStdin":true},"State":{"Running":true}}`))
	d.Handle("GET /containers/dead/json", clitest.JSON(200, `{"Id":"`+id+`","Config":{},"State":{"Running":false}}`))
	d.Handle("POST /containers/{id}/wait", clitest.JSON(200, `{"StatusCode":4}`))
	d.Handle("POST /containers/{id}/attach", clitest.Hijack(func(c net.Conn, in io.Reader) {
		b, _ := io.ReadAll(in)
		io.WriteString(c, clitest.Frame(1, "got "+string(b)))
	}))
	if r := clitest.RunInput(t, d, "typed", "attach", "web"); r.Code != 4 || r.Out != "got typed" {
		t.Errorf("got %+v", r)
	}
	// A container that ended between the look and the wait must not be waited for.
	if q := d.Find(t, "POST", "/containers/"+id+"/wait").Query; q.Get("condition") != "not-running" {
		t.Errorf("wait: %v", q)
	}
	if q := d.Find(t, "POST", "/containers/"+id+"/attach").Query; q.Get("stdin") != "1" || q.Get("stdout") != "1" || q.Get("stderr") != "1" {
		t.Errorf("attach: %v", q)
	}
	if r := clitest.RunInput(t, d, "typed", "attach", "--no-stdin", "web"); r.Code != 4 || r.Out != "got " {
		t.Errorf("--no-stdin: %+v", r)
	}
	if r := clitest.Run(t, d, "attach", "dead"); r.Code != 1 || !strings.Contains(r.Err, "stopped container") {
		t.Errorf("dead: %+v", r)
	}
}

func TestCIDFile(t *testing.T) {
	b := newBox(t, "0", "")
	b.startOK()
	file := filepath.Join(t.TempDir(), "cid")
	if r := clitest.Run(t, b.d, "run", "-d", "--cidfile", file, "busybox"); r.Code != 0 {
		t.Errorf("got %+v", r)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != id {
		t.Errorf("file %q, %v", got, err)
	}
	if r := clitest.Run(t, b.d, "run", "-d", "--cidfile", file, "busybox"); r.Code != 125 || !strings.Contains(r.Err, "delete "+file) {
		t.Errorf("file in the way: %+v", r)
	}
	d := clitest.Start(t)
	d.Handle("POST /containers/create", clitest.Fail(400, "no"))
	other := file + "2"
	if r := clitest.Run(t, d, "run", "-d", "--cidfile", other, "busybox"); r.Code != 125 {
		t.Errorf("got %+v", r)
	}
	if _, err := os.Stat(other); err == nil {
		t.Error("a refused container left its ID file")
	}
}

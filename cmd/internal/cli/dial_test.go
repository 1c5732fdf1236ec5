package cli_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/cli/cli/config"

	"github.com/minictl/minictl/cmd/internal/cli"
	"github.com/minictl/minictl/cmd/internal/cli/clitest"
	"github.com/minictl/minictl/testing/certs"
)

// asMinictl makes this test program the command line.
const asMinictl = "MINICTL_TEST_CLI"

func TestMain(m *testing.M) {
	if os.Getenv(asMinictl) != "" {
		os.Exit(cli.Main(context.Background(), os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
	}
	os.Exit(m.Run())
}

// plain runs a command line that says itself, or does not say, where the daemon is. Docker's configuration is in dir.
func plain(t *testing.T, dir string, args ...string) clitest.Result {
	t.Helper()
	config.SetDir(dir)
	var out, errs bytes.Buffer
	code := cli.Main(context.Background(), args, cli.Streams{In: io.NopCloser(strings.NewReader("")), Out: &out, Err: &errs})
	return clitest.Result{Out: out.String(), Err: errs.String(), Code: code}
}

// noWhere takes what the caller's own environment says about daemons away.
func noWhere(t *testing.T) {
	t.Helper()
	for _, e := range []string{"MINICTL_HOST", "MINICTL_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION"} {
		t.Setenv(e, "")
	}
}

// hello answers ps -q with one container, whose name is name.
func hello(t *testing.T, name string) *clitest.Daemon {
	t.Helper()
	d := clitest.Start(t)
	d.Handle("GET /containers/json", clitest.JSON(200, `[{"Id":"`+id+`","Names":["/`+name+`"]}]`))
	return d
}

func TestContexts(t *testing.T) {
	noWhere(t)
	dir := t.TempDir()
	a, b := hello(t, "on-a"), hello(t, "on-b")
	t.Setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
	ps := []string{"ps", "--format", "{{.Names}}"}
	steps := []struct {
		args string
		want string // of standard output, or of the error
		code int
	}{
		{"context show", "default\n", 0},
		{"context create aa --description first --docker host=" + a.Host, "aa\n", 0},
		{"context create aa --docker host=" + a.Host, `context "aa": already exists`, 1},
		{"context create bb --docker host=" + b.Host, "bb\n", 0},
		{"context create b2 --from bb", "b2\n", 0},
		{"context create xx --docker host=nonsense", `want unix:///PATH`, 1},
		{"context create xx --docker hots=a", `unrecognized config key: hots`, 1},
		{"context create xx --docker ca=nosuch,host=tcp://h:1", `nosuch`, 1},
		{"--context aa ps --format {{.Names}}", "on-a\n", 0},
		{"ps --context b2 --format {{.Names}}", "on-b\n", 0},
		{"-c nosuch ps", `context "nosuch": context not found`, 1},
		{"-c aa -H " + b.Host + " ps", "cannot specify both --host and --context", 1},
		{"context use nosuch", "not found", 1},
		{"context use aa", "aa\n", 0},
		{"context show", "aa\n", 0},
		{"ps --format {{.Names}}", "on-a\n", 0},
		{"-H " + b.Host + " ps --format {{.Names}}", "on-b\n", 0},
		{"context ls -q", "aa\nb2\nbb\ndefault\n", 0},
		{"context ls --format {{.Name}}={{.Current}}={{.Description}}", "aa=true=first\nb2=false=\nbb=false=\n", 0},
		{"context inspect -f {{.Endpoints.docker.Host}} b2", b.Host + "\n", 0},
		{"context inspect -f {{.Name}}", "aa\n", 0},
		{"context export b2 " + dir + "/b2.tar", "", 0},
		{"context export b2 " + dir + "/b2.tar", "file exists", 1},
		{"context export nosuch", "not found", 1},
		{"context import b2 " + dir + "/b2.tar", "already exists", 1},
		{"context import b3 " + dir + "/config.json", `import context "b3"`, 1},
		{"context import b3 " + dir + "/b2.tar", "b3\n", 0},
		{"context update b3 --description third", "b3\n", 0},
		{"context ls --format {{.Name}}={{.Description}}={{.DockerEndpoint}}", "aa=first=" + a.Host + "\nb2==" + b.Host + "\nb3=third=" + b.Host + "\n", 0},
		{"context update b3 --docker host=" + a.Host, "b3\n", 0},
		{"-c b3 ps --format {{.Names}}", "on-a\n", 0},
		{"context update b3 --docker host=nonsense", "want unix:///PATH", 1},
		{"context update nosuch --description x", "not found", 1},
		{"context rm b3", "b3\n", 0},
		{"context rm aa", "is in use", 1},
		{"context rm default", "cannot be removed", 1},
		{"context rm -f aa b2", "aa\nb2\n", 0},
		{"context show", "default\n", 0},
		{"context ls -q", "bb\ndefault\n", 0},
	}
	for _, s := range steps {
		r := plain(t, dir, strings.Fields(s.args)...)
		got := r.Out
		if s.code != 0 {
			got = r.Err
		}
		if r.Code != s.code || !strings.HasPrefix(got, s.want) && (s.code == 0 || !strings.Contains(got, s.want)) {
			t.Fatalf("%s: %+v, want code %d, %q", s.args, r, s.code, s.want)
		}
	}
	t.Setenv("MINICTL_CONTEXT", "bb")
	if r := plain(t, dir, ps...); r.Out != "on-b\n" {
		t.Errorf("MINICTL_CONTEXT: %+v", r)
	}
	t.Setenv("MINICTL_HOST", a.Host)
	if r := plain(t, dir, ps...); r.Out != "on-a\n" {
		t.Errorf("MINICTL_HOST goes first: %+v", r)
	}
}

// A context is docker's: the stock client makes one, ours uses it, and the other way round; what the one uses by default
// is no matter of the other's.
func TestContextsAreDockers(t *testing.T) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%v: run make test-deps", err)
		}
		t.Skip("no docker client")
	}
	noWhere(t)
	dir, d := t.TempDir(), hello(t, "x")
	stockRun := func(args ...string) string {
		cmd := exec.Command(docker, append([]string{"--config", dir}, args...)...)
		cmd.Env = append(os.Environ(), "DOCKER_HOST=", "DOCKER_CONTEXT=")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("docker %v: %v", args, err)
		}
		return string(out)
	}
	stockRun("context", "create", "theirs", "--description", "made by docker", "--docker", "host="+d.Host)
	stockRun("context", "use", "theirs")
	if r := plain(t, dir, "--context", "theirs", "ps", "--format", "{{.Names}}"); r.Out != "x\n" {
		t.Errorf("%+v", r)
	}
	if r := plain(t, dir, "context", "ls", "--format", "{{.Name}} {{.Current}} {{.Description}}"); !strings.Contains(r.Out, "theirs false made by docker\n") {
		t.Errorf("%+v", r)
	}
	plain(t, dir, "context", "create", "ours", "--docker", "host="+d.Host)
	plain(t, dir, "context", "use", "ours")
	if got := stockRun("--context", "ours", "ps", "-q"); got != id[:12]+"\n" {
		t.Errorf("docker through our context: %q", got)
	}
	if got := stockRun("context", "inspect", "-f", "{{.Name}}"); got != "theirs\n" {
		t.Errorf("docker's own context is now %q", got)
	}
}

// programs is a folder with a program minictl, which is this test.
func programs(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	script(t, bin, "minictl", asMinictl+`=1 exec '`+self+`' "$@"`)
	return bin
}

func script(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestSSH(t *testing.T) {
	noWhere(t)
	d := hello(t, "far")
	d.Handle("POST /containers/far/exec", clitest.JSON(201, `{"Id":"e1"}`))
	d.Handle("GET /containers/far/json", clitest.JSON(200, `{"Id":"far","Config":{}}`))
	d.Handle("GET /exec/e1/json", clitest.JSON(200, `{"ExitCode":0}`))
	d.Handle("POST /exec/e1/start", clitest.Hijack(func(conn net.Conn, in io.Reader) {
		b, _ := io.ReadAll(in)                     // up to the client's half-close
		_, input, _ := strings.Cut(string(b), "}") // the request's body comes first
		io.WriteString(conn, clitest.Frame(1, strings.ToUpper(strings.TrimSpace(input))))
	}))
	bin := programs(t)
	// An ssh that is its own other host; it writes down how it was called.
	log := filepath.Join(bin, "log")
	script(t, bin, "ssh", `echo "$*" > '`+log+`'; for last; do :; done; MINICTL_HOST=`+d.Host+` exec sh -c "$last"`)
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	calledWith := func(want string) {
		t.Helper()
		got, _ := os.ReadFile(log)
		if strings.TrimSpace(string(got)) != want {
			t.Errorf("ssh %s\nwant %s", got, want)
		}
	}
	if r := plain(t, t.TempDir(), "-H", "ssh://me@host1:2222", "ps", "--format", "{{.Names}}"); r.Out != "far\n" {
		t.Errorf("%+v", r)
	}
	calledWith("-l me -p 2222 -o ConnectTimeout=30 -T -- host1 minictl system dial-stdio")
	if r := plain(t, t.TempDir(), "-H", "ssh://host1"+strings.TrimPrefix(d.Host, "unix://"), "ps", "-q"); r.Out != id[:12]+"\n" {
		t.Errorf("%+v", r)
	}
	calledWith("-o ConnectTimeout=30 -T -- host1 minictl '--host=" + d.Host + "' system dial-stdio")
	// A hijacked stream: both directions, and the end of the input.
	config.SetDir(t.TempDir())
	var out, errs bytes.Buffer
	code := cli.Main(context.Background(), []string{"-H", "ssh://host1", "exec", "-i", "far", "cat"},
		cli.Streams{In: io.NopCloser(strings.NewReader("through the stream")), Out: &out, Err: &errs})
	if code != 0 || out.String() != "THROUGH THE STREAM" {
		t.Errorf("code %d, out %q, err %q", code, out.String(), errs.String())
	}
	script(t, bin, "minictl", "echo 'sh: 1: minictl: not found' >&2; exit 127\n")
	r := plain(t, t.TempDir(), "-H", "ssh://host1", "ps")
	if r.Code != 1 || !strings.HasPrefix(r.Err, "minictl: cannot reach the minictl daemon at ssh://host1: sh: 1: minictl: not found: minictl has to be installed there\n") {
		t.Errorf("%+v", r)
	}
	script(t, bin, "minictl", "echo 'minictl: no' >&2; echo 'try again' >&2; echo 'try again' >&2; exit 1\n")
	if r := plain(t, t.TempDir(), "-H", "ssh://host1", "ps"); r.Code != 1 || r.Err != "minictl: cannot reach the minictl daemon at ssh://host1: no; try again\n" {
		t.Errorf("%+v", r)
	}
	for _, bad := range []string{"ssh://host1?x=y", "ssh://me:secret@host1", "ssh://"} {
		if r := plain(t, t.TempDir(), "-H", bad, "ps"); r.Code != 1 || !strings.Contains(r.Err, "want unix:///PATH") {
			t.Errorf("%s: %+v", bad, r)
		}
	}
}

// tlsFiles makes a CA and, signed by it, a certificate for 127.0.0.1.
func tlsFiles(t *testing.T, dir string) {
	t.Helper()
	if err := certs.Write(dir, net.IPv4(127, 0, 0, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestTLS(t *testing.T) {
	noWhere(t)
	mine := t.TempDir()
	tlsFiles(t, mine)
	pair, err := tls.LoadX509KeyPair(filepath.Join(mine, "cert.pem"), filepath.Join(mine, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	caPEM, err := os.ReadFile(filepath.Join(mine, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(caPEM)
	d := hello(t, "secured")
	srv := httptest.NewUnstartedServer(forward(t, d))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	host := "tcp://" + srv.Listener.Addr().String()
	file := func(name string) string { return filepath.Join(mine, name) }
	files := []string{"--tlscacert", file("ca.pem"), "--tlscert", file("cert.pem"), "--tlskey", file("key.pem")}
	other := t.TempDir()
	tlsFiles(t, other)
	for _, c := range []struct {
		name string
		dir  string
		env  map[string]string
		args []string
		want string // of the names, or what the error holds
		code int
	}{
		{name: "flags", args: append([]string{"--tlsverify"}, files...), want: "secured\n"},
		{name: "files in docker's folder", dir: mine, args: []string{"--tlsverify"}, want: "secured\n"},
		{name: "DOCKER_CERT_PATH", env: map[string]string{"DOCKER_CERT_PATH": mine, "DOCKER_TLS_VERIFY": "1"}, want: "secured\n"},
		{name: "unverified", args: []string{"--tls", "--tlscert", file("cert.pem"), "--tlskey", file("key.pem")}, want: "secured\n"},
		{name: "no certificate", args: []string{"--tls"}, want: "certificate required", code: 1},
		{name: "another CA", args: []string{"--tlsverify", "--tlscacert", filepath.Join(other, "ca.pem"), "--tlscert", file("cert.pem"), "--tlskey", file("key.pem")},
			want: "certificate signed by unknown authority", code: 1},
		{name: "no CA", args: []string{"--tlsverify"}, want: "name one with --tlscacert", code: 1},
		{name: "plain", want: "HTTP request to an HTTPS server", code: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			dir := c.dir
			if dir == "" {
				dir = t.TempDir()
			}
			r := plain(t, dir, append(append([]string{"-H", host}, c.args...), "ps", "--format", "{{.Names}}")...)
			got := r.Out
			if c.code != 0 {
				got = r.Err
			}
			if r.Code != c.code || !strings.Contains(got, c.want) {
				t.Errorf("%+v, want code %d, %q", r, c.code, c.want)
			}
		})
	}
	dir := t.TempDir()
	if r := plain(t, dir, "context", "create", "far", "--docker", "host="+host+",ca="+file("ca.pem")+",cert="+file("cert.pem")+",key="+file("key.pem")); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	if r := plain(t, dir, "-c", "far", "ps", "--format", "{{.Names}}"); r.Out != "secured\n" {
		t.Errorf("%+v", r)
	}
	// The environment's wish for TLS is not for this machine's socket; the user's own word is refused there.
	t.Setenv("DOCKER_TLS_VERIFY", "1")
	if r := plain(t, dir, "-H", d.Host, "ps", "-q"); r.Out != id[:12]+"\n" {
		t.Errorf("%+v", r)
	}
	if r := plain(t, dir, "-H", d.Host, "--tlsverify", "ps"); r.Code != 1 || !strings.Contains(r.Err, "TLS is for tcp:// hosts only") {
		t.Errorf("%+v", r)
	}
}

// forward leads requests on to a scripted daemon.
func forward(t *testing.T, d *clitest.Daemon) http.Handler {
	t.Helper()
	path := strings.TrimPrefix(d.Host, "unix://")
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	t.Cleanup(client.CloseIdleConnections)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := r.Clone(r.Context())
		out.RequestURI, out.URL = "", &url.URL{Scheme: "http", Host: "d", Path: r.URL.Path, RawQuery: r.URL.RawQuery}
		resp, err := client.Do(out)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		for k, v := range resp.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(resp.StatusCode)
		io.Copy(w, resp.Body)
	})
}

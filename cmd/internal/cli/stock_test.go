package cli_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minictl/minictl/cmd/internal/cli/clitest"
)

// Rewrites testdata/requests.golden with what a stock docker client sends for the same command lines:
//
//	go test ./cmd/internal/cli -run Stock -docker /usr/bin/docker
var stock = flag.String("docker", "", "stock docker client to take the goldens from")

const golden = "testdata/requests.golden"

// The command lines in testdata/requests.golden make our client send exactly what docker's sends: same routes, same
// queries, same bodies (absent and zero being the same).
func TestRequestsAreStockDockers(t *testing.T) {
	path, err := filepath.Abs(golden)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{
		"env": "FROMFILE=1\nTERM\n#c\n", "labels": "l1=x\nl2\n", "seccomp.json": "{ \"defaultAction\": \"SCMP_ACT_ALLOW\" }\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	t.Setenv("TERM", "vt100")
	var fresh strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
		line, want, _ := strings.Cut(block, "\n")
		args := strings.Fields(strings.TrimPrefix(line, "$ "))
		if *stock != "" {
			want = requests(t, func(host string) {
				cmd := exec.Command(*stock, append([]string{"-H", host}, args...)...)
				cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+dir)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("docker %v: %v: %s", args, err, out)
				}
			}, dir)
			fresh.WriteString(line + "\n" + want + "\n\n")
		}
		var result clitest.Result
		got := requests(t, func(host string) { result = clitest.Run(t, &clitest.Daemon{Host: host}, args...) }, dir)
		if got != want {
			t.Errorf("%s: %+v\n got %s\nwant %s", line, result, got, want)
		}
	}
	if *stock != "" {
		if err := os.WriteFile(path, []byte(fresh.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// requests runs a client against a daemon that agrees to everything and gives what it was told to do.
func requests(t *testing.T, run func(host string), dir string) string {
	t.Helper()
	d := clitest.Start(t)
	d.Handle("POST /containers/create", clitest.JSON(201, `{"Id":"`+id+`"}`))
	d.Handle("POST /networks/create", clitest.JSON(201, `{"Id":"`+id+`"}`))
	d.Handle("POST /networks/{id}/{what}", clitest.Empty(200))
	d.Handle("GET /containers/{id}/json", clitest.JSON(200, `{"Id":"`+id+`","Config":{},"State":{"Running":true}}`))
	d.Handle("POST /containers/{id}/exec", clitest.JSON(201, `{"Id":"e1"}`))
	d.Handle("POST /exec/e1/start", clitest.Empty(200))
	d.Handle("POST /containers/{id}/{what}", clitest.Empty(204))
	d.Handle("POST /containers/{id}/wait", clitest.JSON(200, `{"StatusCode":0}`))
	d.Handle("DELETE /containers/{id}", clitest.Empty(204))
	d.Handle("DELETE /images/{id}", clitest.JSON(200, `[]`))
	d.Handle("GET /networks/{id}", clitest.JSON(200, `{}`))
	d.Handle("DELETE /networks/{id}", clitest.Empty(204))
	d.Handle("POST /images/{id}/tag", clitest.Empty(201))
	d.Handle("GET /containers/json", clitest.JSON(200, `[]`))
	d.Handle("GET /networks", clitest.JSON(200, `[]`))
	d.Handle("GET /images/json", clitest.JSON(200, `[]`))
	d.Handle("GET /volumes", clitest.JSON(200, `{"Volumes":[],"Warnings":[]}`))
	d.Handle("POST /volumes/create", clitest.JSON(201, `{"Name":"data"}`))
	d.Handle("POST /volumes/prune", clitest.JSON(200, `{"VolumesDeleted":[],"SpaceReclaimed":0}`))
	d.Handle("DELETE /volumes/{id}", clitest.Empty(204))
	listenMore(d)
	run(d.Host)
	var out []string
	for _, r := range d.Log() {
		// docker looks at some objects twice; what it looks at is no promise, except for the listings' queries.
		if r.Method == "GET" && len(r.Query) == 0 {
			continue
		}
		for k, v := range r.Query {
			if len(v) == 1 && v[0] == "" {
				delete(r.Query, k) // as good as absent
			}
		}
		line := strings.TrimSuffix(r.Method+" "+r.Path+"?"+r.Query.Encode(), "?")
		switch {
		case strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") && r.Body != "":
			line += " " + strings.ReplaceAll(normal(t, r.Body), dir, "DIR")
		case r.Body != "":
			line += fmt.Sprintf(" (%d bytes)", len(r.Body))
		}
		if strings.HasSuffix(r.Path, "/exec") { // what counts is in the request that starts it
			line = strings.Replace(line, `"Detach":true,`, "", 1)
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// listenMore agrees to the rest.
func listenMore(d *clitest.Daemon) {
	for pattern, h := range map[string]http.HandlerFunc{
		"POST /containers/{id}/update": clitest.JSON(200, `{"Warnings":[]}`),
		"GET /containers/{id}/top":     clitest.JSON(200, `{"Titles":["PID"],"Processes":[["1"]]}`),
		"GET /containers/{id}/logs":    clitest.Empty(200),
		"GET /containers/{id}/export":  clitest.Empty(200),
		"POST /commit":                 clitest.JSON(201, `{"Id":"sha256:1"}`),
		"POST /containers/prune":       clitest.JSON(200, `{}`),
		"POST /images/prune":           clitest.JSON(200, `{}`),
		"POST /networks/prune":         clitest.JSON(200, `{}`),
		"GET /events":                  clitest.Empty(200),
		"GET /images/{id}/json":        clitest.JSON(200, `{}`),
		"GET /images/get":              clitest.Empty(200),
		"POST /images/create":          clitest.Empty(200),
		"POST /images/load":            clitest.Empty(200),
		"POST /images/{name...}":       clitest.Empty(200),
		"DELETE /containers/{id...}":   clitest.Empty(204),
	} {
		d.Handle(pattern, h)
	}
}

// normal is JSON with sorted keys and without zero values, which the daemon cannot tell from absent ones.
func normal(t *testing.T, body string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("body %q: %v", body, err)
	}
	b, err := json.Marshal(dropZeros(v))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func dropZeros(v any) any {
	m, ok := v.(map[string]any)
	if !ok {
		return v
	}
	for k, e := range m {
		switch k {
		case "Volumes", "ExposedPorts", "Labels", "PortBindings", "EndpointsConfig":
			// Their keys are data: an empty value says something.
		default:
			m[k] = dropZeros(e)
		}
		switch e := m[k].(type) {
		case map[string]any:
			if len(e) == 0 {
				delete(m, k)
			}
		case []any:
			if len(e) == 0 {
				delete(m, k)
			}
		case nil:
			delete(m, k)
		case bool, string, float64:
			// -1 is docker's word for "no swappiness given".
			if e == false || e == "" || e == 0.0 || k == "MemorySwappiness" && e == -1.0 {
				delete(m, k)
			}
		}
	}
	return m
}

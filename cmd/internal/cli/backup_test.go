package cli_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minictl/minictl/cmd/internal/cli/clitest"
)

func TestClusterBackup(t *testing.T) {
	const plain = `{"format":"minictl cluster backup","version":1}`
	dir := t.TempDir()
	file, phrase := filepath.Join(dir, "cluster.age"), filepath.Join(dir, "phrase")
	if err := os.WriteFile(phrase, []byte("from a file\nsecond line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := clitest.Start(t)
	d.Handle("GET /cluster/backup", clitest.JSON(200, plain))
	r := clitest.RunInput(t, d, "from standard input\n", "cluster", "backup", file)
	if r.Code != 0 || r.Out != "" || !strings.HasPrefix(r.Err, "Wrote the cluster to "+file) || !strings.Contains(r.Err, "containers, local networks, volumes and images") {
		t.Fatalf("got %+v", r)
	}
	st, err := os.Stat(file)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", st, err)
	}
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}

	got := ""
	d.Handle("POST /cluster/restore", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = string(b)
		io.WriteString(w, `{"NodeID":"n1","NodeName":"host1","Epoch":"2.b","Made":"2026-11-25T12:00:00Z","Missing":["host2","host3"]}`)
	})
	r = clitest.RunInput(t, d, "from standard input\n", "cluster", "restore", "--advertise-addr", "eth0", file)
	if r.Code != 0 || got != plain || !strings.Contains(r.Out, "This host is node host1 (n1) of the cluster as it was ") ||
		!strings.Contains(r.Out, "Missing: host2, host3.") || !strings.Contains(r.Out, "minictl cluster rejoin") {
		t.Errorf("got %+v; the daemon got %q", r, got)
	}
	q := d.Find(t, "POST", "/cluster/restore")
	if q.Query.Get("advertise-addr") != "eth0" || q.Query.Has("data-path-addr") {
		t.Errorf("query %v", q.Query)
	}
	got = ""
	for name, c := range map[string]struct {
		in, says string
		args     []string
	}{
		"no passphrase":    {"", "passphrase is empty", []string{file}},
		"no file":          {"x\n", "no such file", []string{filepath.Join(dir, "none")}},
		"no phrase's file": {"x\n", "no such file", []string{"--passphrase-file", filepath.Join(dir, "none"), file}},
		"the phrase":       {"x\n", "not what minictl cluster backup writes", []string{phrase}},
	} {
		r := clitest.RunInput(t, d, c.in, append([]string{"cluster", "restore"}, c.args...)...)
		if r.Code != 1 || !strings.Contains(r.Err, c.says) || strings.Count(r.Err, "\n") != 1 || got != "" {
			t.Errorf("%s: %+v; the daemon got %q", name, r, got)
		}
	}
	d = clitest.Start(t)
	d.Handle("GET /cluster/backup", clitest.Fail(409, "back up cluster: this host is a cluster of its own"))
	if r := clitest.RunInput(t, d, "x\n", "cluster", "backup", "--passphrase-file", phrase, file); r.Code != 1 || !strings.Contains(r.Err, "of its own") {
		t.Errorf("refused: %+v", r)
	}
	if again, err := os.ReadFile(file); err != nil || string(again) != string(first) {
		t.Errorf("the earlier backup is gone: %v", err)
	}
}

func TestClusterRotateCA(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("POST /cluster/ca", clitest.Empty(200))
	answers := []string{`{"UnderWay":true,"Waiting":["host2"]}`, `{"UnderWay":true,"Waiting":["host2"]}`, `{"UnderWay":true,"Waiting":[]}`, `{"UnderWay":false,"Waiting":[]}`}
	d.Handle("GET /cluster/ca", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, answers[0])
		answers = answers[1:]
	})
	r := clitest.Run(t, d, "cluster", "ca", "rotate")
	if r.Code != 0 || len(answers) != 0 || strings.Count(r.Err, "Waiting for host2;") != 1 || !strings.Contains(r.Out, "has a new certificate authority") {
		t.Errorf("got %+v, %d answers left", r, len(answers))
	}
	if r := clitest.Run(t, d, "cluster", "ca", "rotate", "-d"); r.Code != 0 || !strings.Contains(r.Out, "goes on by itself") {
		t.Errorf("detached: %+v", r)
	}
	if q := d.Find(t, "POST", "/cluster/ca").Query; q.Has("finish") {
		t.Errorf("query %v", q)
	}
	if r := clitest.Run(t, d, "cluster", "ca", "rotate", "--force"); r.Code != 0 {
		t.Errorf("forced: %+v", r)
	}
	forced := false
	for _, q := range d.Log() {
		forced = forced || q.Query.Get("finish") == "1"
	}
	if !forced {
		t.Error("--force was not passed on")
	}
}

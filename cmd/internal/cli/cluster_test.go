package cli_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/minictl/minictl/cmd/internal/cli/clitest"
)

func token() string {
	return fmt.Sprintf(`{"Token":"MCTL1-abc","Expires":%q,"JoinCommand":"minictl cluster join --token MCTL1-abc 192.168.66.11"}`,
		time.Now().Add(24*time.Hour).Format(time.RFC3339Nano))
}

func TestClusterInit(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("POST /cluster/init", clitest.JSON(200, `{"NodeID":"n1","NodeName":"host1","Token":`+token()+
		`,"JoinCommand":"minictl cluster join --token MCTL1-abc 192.168.66.11"}`))
	d.Handle("GET /cluster/status", clitest.JSON(200, `{"Nodes":[{"ID":"n1","Addr":"192.168.66.11:7946"}]}`))
	r := clitest.Run(t, d, "cluster", "init", "--advertise-addr", "eth0", "--data-path-port", "4790")
	want := `Cluster initialized: node host1 (n1) advertises 192.168.66.11:7946.

To add a host, run this there within 24 hours:

    minictl cluster join --token MCTL1-abc 192.168.66.11
`
	if r.Code != 0 || r.Out != want {
		t.Errorf("code %d, err %q, got\n%s", r.Code, r.Err, r.Out)
	}
	if b := d.Find(t, "POST", "/cluster/init").Body; b != `{"AdvertiseAddr":"eth0","DataPathPort":4790}` {
		t.Errorf("body %s", b)
	}
}

func TestClusterJoin(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("POST /cluster/join", clitest.JSON(200, `{"NodeID":"n2","NodeName":"host2","ClusterID":"c1","Nodes":2}`))
	r := clitest.Run(t, d, "cluster", "join", "--token", "MCTL1-abc", "192.168.66.11")
	if r.Code != 0 || r.Out != "This host joined the cluster as node host2 (n2): 2 nodes.\n" {
		t.Errorf("got %+v", r)
	}
	if b := d.Find(t, "POST", "/cluster/join").Body; b != `{"Token":"MCTL1-abc","Remote":"192.168.66.11"}` {
		t.Errorf("body %s", b)
	}
	if r := clitest.Run(t, d, "cluster", "join", "192.168.66.11"); r.Code != 1 || !strings.Contains(r.Err, "--token is missing") {
		t.Errorf("without a token: %+v", r)
	}
}

func TestClusterRefusal(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("POST /cluster/join", clitest.Fail(409, "this host already is in a cluster: minictl cluster leave"))
	r := clitest.Run(t, d, "cluster", "join", "--token", "x", "h")
	if r.Code != 1 || r.Err != "minictl: Error response from daemon: this host already is in a cluster: minictl cluster leave\n" {
		t.Errorf("got %+v", r)
	}
}

func TestClusterTokenAndLeave(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("/cluster/token", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, token()) })
	d.Handle("POST /cluster/leave", clitest.Empty(200))
	if r := clitest.Run(t, d, "cluster", "token", "-q"); r.Out != "MCTL1-abc\n" {
		t.Errorf("got %+v", r)
	}
	r := clitest.Run(t, d, "cluster", "token", "--rotate")
	if !strings.Contains(r.Out, "refused from now on") || !strings.Contains(r.Out, "\n    minictl cluster join --token MCTL1-abc 192.168.66.11\n") {
		t.Errorf("got %+v", r)
	}
	if q := d.Find(t, "POST", "/cluster/token").Query; q.Get("rotate") != "1" {
		t.Errorf("query %v", q)
	}
	if r := clitest.Run(t, d, "cluster", "leave", "--force"); r.Code != 0 || d.Find(t, "POST", "/cluster/leave").Query.Get("force") != "1" ||
		r.Out != "This host left the cluster.\n" {
		t.Errorf("got %+v", r)
	}
	d.Handle("GET /cluster/status", clitest.JSON(200, `{"Store":"zk://h:2181/minictl"}`))
	if r := clitest.Run(t, d, "cluster", "leave"); !strings.Contains(r.Out, "\nA daemon started with --cluster-store zk://h:2181/minictl comes into it again.\n") {
		t.Errorf("with an external store: %+v", r)
	}
}

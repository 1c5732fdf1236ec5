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

func TestClusterInitPools(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("POST /cluster/init", clitest.JSON(200, `{"NodeID":"n1","NodeName":"host1","Token":`+token()+`}`))
	r := clitest.Run(t, d, "cluster", "init", "--default-addr-pool", "10.20.0.0/16,10.30.0.0/16", "--default-addr-pool-mask-length", "26")
	if b := d.Find(t, "POST", "/cluster/init").Body; r.Code != 0 || b != `{"AddrPools":["10.20.0.0/16","10.30.0.0/16"],"AddrPoolBits":26}` {
		t.Errorf("%+v, body %s", r, b)
	}
	if r := clitest.Run(t, d, "cluster", "init", "--default-addr-pool", "10.20.0.0"); r.Code == 0 || !strings.Contains(r.Err, "10.20.0.0") {
		t.Errorf("no range: %+v", r)
	}
}

func TestNodeUpdate(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("GET /nodes/host2", clitest.JSON(200, `{"ID":"n2","Version":{"Index":7},"Spec":{"Labels":{"a":"b","c":"d"},"Role":"worker","Availability":"active"}}`))
	d.Handle("POST /nodes/n2/update", clitest.Empty(200))
	r := clitest.Run(t, d, "node", "update", "--label-add", "rack=7", "--label-rm", "a", "host2")
	call := d.Find(t, "POST", "/nodes/n2/update")
	if want := `{"Labels":{"c":"d","rack":"7"},"Role":"worker","Availability":"active"}`; r.Code != 0 || r.Out != "host2\n" || strings.TrimSpace(call.Body) != want || call.Query.Get("version") != "7" {
		t.Errorf("%+v, body %s, query %v", r, call.Body, call.Query)
	}
	for want, args := range map[string][]string{
		"key x doesn't exist in node's labels": {"--label-rm", "x", "host2"},
		"nothing to change":                    {"host2"},
	} {
		if r := clitest.Run(t, d, append([]string{"node", "update"}, args...)...); r.Code != 1 || !strings.Contains(r.Err, want) {
			t.Errorf("%v: %+v", args, r)
		}
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
	const rm = `if they still list it, run "minictl node rm h1" on one of them`
	for _, c := range []struct {
		others string
		force  bool
		hint   bool
	}{
		{`"Leader":"n1","Nodes":[{"ID":"n1","Name":"h1","Status":"Ready"}]`, true, false}, // alone
		{`"Leader":"n2","Nodes":[{"ID":"n2","Name":"h2","Status":"Ready"},{"ID":"n1","Name":"h1","Status":"Ready"}]`, true, false},
		{`"Nodes":[{"ID":"n2","Name":"h2","Status":"Ready"},{"ID":"n1","Name":"h1","Status":"Ready"}]`, true, true}, // nobody leads
		{`"Leader":"n1","Nodes":[{"ID":"n2","Name":"h2","Status":"Down"},{"ID":"n1","Name":"h1","Status":"Ready"}]`, true, true},
		{`"Leader":"n1","Nodes":[{"ID":"n2","Name":"h2","Status":"Down"},{"ID":"n1","Name":"h1","Status":"Ready"}]`, false, false}, // it worked
	} {
		d := clitest.Start(t)
		d.Handle("POST /cluster/leave", clitest.Empty(200))
		d.Handle("GET /cluster/status", clitest.JSON(200, `{"Self":"n1",`+c.others+`}`))
		args := []string{"cluster", "leave"}
		if c.force {
			args = append(args, "--force")
		}
		if r := clitest.Run(t, d, args...); r.Code != 0 || strings.Contains(r.Out, rm) != c.hint {
			t.Errorf("%+v: %+v", c, r)
		}
	}
	d.Handle("GET /cluster/status", clitest.JSON(200, `{"Store":"zk://h:2181/minictl"}`))
	if r := clitest.Run(t, d, "cluster", "leave"); !strings.Contains(r.Out, "\nA daemon started with --cluster-store zk://h:2181/minictl comes into it again.\n") {
		t.Errorf("with an external store: %+v", r)
	}
}

func TestClusterRecover(t *testing.T) {
	const plan = `{"Epoch":"1.a","Summary":["Not heard for 12s: host1 (10.0.0.1), which decides for this cluster.","From now on host2 decides alone."]}`
	question := "Not heard for 12s: host1 (10.0.0.1), which decides for this cluster.\nFrom now on host2 decides alone.\nAre you sure you want to continue? [y/N] "
	for _, c := range []struct {
		in   string
		args []string
		code int
		out  string
		err  string
		asks []string
	}{
		{"n\n", nil, 1, question, "minictl: nothing was changed\n", []string{`{"DryRun":true}`}},
		{"", nil, 1, question, "minictl: nothing was changed\n", []string{`{"DryRun":true}`}},
		{"y\n", nil, 0, question + "This host decides for the cluster now (epoch 2.b).\n", "", []string{`{"DryRun":true}`, `{}`}},
		{"", []string{"-f"}, 0, "This host decides for the cluster now (epoch 2.b).\n", "", []string{`{}`}},
	} {
		d := clitest.Start(t)
		var asked []string
		d.Handle("POST /cluster/recover", func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			asked = append(asked, string(b))
			if strings.Contains(string(b), "DryRun") {
				io.WriteString(w, plan)
				return
			}
			io.WriteString(w, `{"NodeID":"n2","Epoch":"2.b","Summary":[]}`)
		})
		r := clitest.RunInput(t, d, c.in, append([]string{"cluster", "recover"}, c.args...)...)
		if r.Code != c.code || r.Out != c.out || r.Err != c.err || fmt.Sprint(asked) != fmt.Sprint(c.asks) {
			t.Errorf("%q %v: %+v, asked %v", c.in, c.args, r, asked)
		}
	}
	d := clitest.Start(t)
	d.Handle("POST /cluster/recover", clitest.Fail(409, "recover cluster: host1 decides for the cluster and answers"))
	if r := clitest.RunInput(t, d, "y\n", "cluster", "recover"); r.Code != 1 || r.Out != "" || !strings.Contains(r.Err, "host1 decides") {
		t.Errorf("refused after the question: %+v", r)
	}
}

func TestClusterFind(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("POST /cluster/find", clitest.Empty(200))
	if r := clitest.Run(t, d, "cluster", "find", "host2", "192.0.2.2"); r.Code != 0 || r.Out != "Found host2.\n" {
		t.Errorf("%+v", r)
	}
	if b := d.Find(t, "POST", "/cluster/find").Body; b != `{"Node":"host2","Addr":"192.0.2.2"}` {
		t.Errorf("body %s", b)
	}
}

func TestClusterRejoin(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("POST /cluster/rejoin", clitest.Empty(200))
	if r := clitest.RunInput(t, d, "n\n", "cluster", "rejoin"); r.Code != 1 || strings.Contains(r.Out, "joined") || r.Err != "minictl: nothing was changed\n" {
		t.Errorf("declined: %+v", r)
	}
	if r := clitest.Run(t, d, "cluster", "rejoin", "-f", "host2"); r.Code != 0 || !strings.Contains(r.Out, "joined the other side") {
		t.Errorf("got %+v", r)
	}
	if b := d.Find(t, "POST", "/cluster/rejoin").Body; b != `{"Remote":"host2"}` {
		t.Errorf("body %s", b)
	}
}

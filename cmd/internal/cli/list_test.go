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

// listings is a daemon with one of everything.
func listings(t *testing.T) *clitest.Daemon {
	d := clitest.Start(t)
	created := time.Now().Add(-3 * time.Hour).Unix()
	d.Handle("GET /containers/json", clitest.JSON(200, fmt.Sprintf(`[{"Id":"`+id+`","Names":["/bbox1"],"Image":"busybox",
		"Command":"sh","Created":%d,"State":"running","Status":"Up 3 hours","Labels":{"a":"b"},
		"Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"}],
		"NetworkSettings":{"Networks":{"ov_net1":{}}}}]`, created)))
	d.Handle("GET /networks", clitest.JSON(200, `[
		{"Id":"4c21b88438fb0000","Name":"ov_net1","Driver":"overlay","Scope":"global","EnableIPv4":true,"Created":"2026-01-02T03:04:05Z"},
		{"Id":"a72ce58f3bd20000","Name":"bridge","Driver":"bridge","Scope":"local","EnableIPv4":true},
		{"Id":"bc794f4afe7a0000","Name":"host","Driver":"host","Scope":"local"},
		{"Id":"3e0372add56d0000","Name":"none","Driver":"null","Scope":"local"}]`))
	d.Handle("GET /images/json", clitest.JSON(200, fmt.Sprintf(`[{"Id":"sha256:0123456789abcdef0123","RepoTags":["busybox:latest"],
		"RepoDigests":[],"Created":%d,"Size":4261550,"Containers":-1}]`, created)))
	d.Handle("GET /volumes", clitest.JSON(200, `{"Volumes":[
		{"Name":"data10","Driver":"local","Mountpoint":"/v/data10/_data","Scope":"local","Labels":{"b":"2","a":"1"}},
		{"Name":"data2","Driver":"local","Mountpoint":"/v/data2/_data","Scope":"local"}],"Warnings":[]}`))
	d.Handle("GET /cluster/status", clitest.JSON(200, `{"ClusterID":"c1","Epoch":"1.x","State":"cluster","Self":"n1","Leader":"n1",
		"Summary":["2 hosts; host1 alone decides.","If host1 dies now, no network can be made until it is back."],
		"Nodes":[{"ID":"n2","Name":"host2","Addr":"192.168.66.12:7946","DataPathAddr":"192.168.66.12","Role":"learner","Status":"Down","Endpoints":0},
		{"ID":"n1","Name":"host1","Addr":"192.168.66.11:7946","DataPathAddr":"192.168.66.11","Role":"voter","Status":"Ready","Leader":true,"Endpoints":2,"Version":"0.1"}]}`))
	return d
}

func TestListings(t *testing.T) {
	d := listings(t)
	for _, c := range []struct{ args, want string }{
		{"ps", `CONTAINER ID   IMAGE     COMMAND   CREATED       STATUS       PORTS                  NAMES
0123456789ab   busybox   "sh"      3 hours ago   Up 3 hours   0.0.0.0:8080->80/tcp   bbox1
`},
		{"ps -q", "0123456789ab\n"},
		{"ps -q --no-trunc", id + "\n"},
		{"container ls --format {{.Names}}={{.Networks}}", "bbox1=ov_net1\n"},
		{"network ls", `NETWORK ID     NAME      DRIVER    SCOPE
a72ce58f3bd2   bridge    bridge    local
bc794f4afe7a   host      host      local
3e0372add56d   none      null      local
4c21b88438fb   ov_net1   overlay   global
`},
		{"network ls -q", "a72ce58f3bd2\nbc794f4afe7a\n3e0372add56d\n4c21b88438fb\n"},
		{"network ls --no-trunc -q", "a72ce58f3bd20000\nbc794f4afe7a0000\n3e0372add56d0000\n4c21b88438fb0000\n"},
		{"network ls --format table\t{{.Name}}\t{{.Internal}}", ""},
		{"volume ls", `DRIVER    VOLUME NAME
local     data2
local     data10
`},
		{"volume ls -q", "data2\ndata10\n"},
		{"volume ls --format {{.Name}}={{.Labels}}", "data2=\ndata10=a=1,b=2\n"},
		{"images", `REPOSITORY   TAG       IMAGE ID       CREATED       SIZE
busybox      latest    0123456789ab   3 hours ago   4.26MB
`},
		{"images -q", "0123456789ab\n"},
		{"image ls --format {{.Repository}}:{{.Tag}}", "busybox:latest\n"},
		{"node ls", `ID        HOSTNAME   STATUS    AVAILABILITY   ROLE             ADDRESS              VERSION
n1 *      host1      Ready     Active         voter (leader)   192.168.66.11:7946   0.1
n2        host2      Down      Active         learner          192.168.66.12:7946   
`},
		{"node ls -q", "n1\nn2\n"},
		{"node ls -q --filter role=learner", "n2\n"},
		{"node ls -q --filter status=ready --filter name=host", "n1\n"},
		{"node ls --format {{.Hostname}}:{{.ManagerStatus}}", "host1:Leader\nhost2:\n"},
		{"cluster status", `2 hosts; host1 alone decides.
If host1 dies now, no network can be made until it is back.

NODE      ID        STATUS    ROLE             ADDRESS              DATA PATH       ENDPOINTS   VERSION
host2     n2        Down      learner          192.168.66.12:7946   192.168.66.12   0           
host1 *   n1        Ready     voter (leader)   192.168.66.11:7946   192.168.66.11   2           0.1
`},
		{"cluster status --format {{.ClusterID}}", "c1\n"},
	} {
		if c.want == "" {
			continue
		}
		r := clitest.Run(t, d, strings.Fields(c.args)...)
		if r.Code != 0 || r.Out != c.want || r.Err != "" {
			t.Errorf("%s: code %d, err %q, got\n%s\nwant\n%s", c.args, r.Code, r.Err, r.Out, c.want)
		}
	}
	r := clitest.Run(t, d, "network", "ls", "--format", `table {{.Name}}\t{{.Internal}}`)
	if want := "NAME      INTERNAL\nbridge    false\n"; !strings.HasPrefix(r.Out, want) {
		t.Errorf("own table: %q", r.Out)
	}
	for _, args := range []string{"ps", "network ls", "images", "node ls"} {
		r := clitest.Run(t, d, append(strings.Fields(args), "--format", "json")...)
		if r.Code != 0 || !strings.HasPrefix(r.Out, `{"`) || !strings.HasSuffix(r.Out, "}\n") {
			t.Errorf("%s --format json: %+v", args, r)
		}
	}
}

func TestListQueries(t *testing.T) {
	d := listings(t)
	clitest.Run(t, d, "ps", "-a", "-s", "-n", "3", "--filter", "label=a=b", "--filter", "name=x")
	q := d.Find(t, "GET", "/containers/json").Query
	if q.Get("all") != "1" || q.Get("size") != "1" || q.Get("limit") != "3" ||
		q.Get("filters") != `{"label":{"a=b":true},"name":{"x":true}}` {
		t.Errorf("ps: %v", q)
	}
	clitest.Run(t, d, "ps", "-l", "--format", "{{.Size}}")
	if q := d.Find(t, "GET", "/containers/json").Query; q.Get("limit") != "1" || q.Get("size") != "1" {
		t.Errorf("ps -l: %v", q)
	}
	if r := clitest.Run(t, d, "ps", "--format", "{{.Nope}}"); r.Code != 1 || !strings.Contains(r.Err, "template") {
		t.Errorf("bad template: %+v", r)
	}
	for filter, want := range map[string]string{
		"role=boss": "Invalid role filter: 'boss': want voter, learner or witness", "status=foo": "Invalid status filter: 'foo': want ready or down",
	} {
		if r := clitest.Run(t, d, "node", "ls", "--filter", filter); r.Code != 1 || r.Out != "" || r.Err != "minictl: "+want+"\n" {
			t.Errorf("%s: %+v", filter, r)
		}
	}
	if r := clitest.Run(t, d, "node", "ls", "--filter", "label=x"); r.Code != 1 || !strings.Contains(r.Err, "want id, name, role or status") {
		t.Errorf("bad filter: %+v", r)
	}
}

func TestNetworkCommands(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("POST /networks/create", clitest.JSON(201, `{"Id":"4c21","Warning":"option x is unknown"}`))
	r := clitest.Run(t, d, "network", "create", "-d", "overlay", "--subnet", "10.22.1.0/24", "--ip-range", "10.22.1.130/25",
		"--gateway", "10.22.1.1", "--aux-address", "r=10.22.1.5", "-o", "com.docker.network.driver.mtu=1400", "--label", "a=b",
		"--internal", "--attachable", "ov_net3")
	if r.Code != 0 || r.Out != "4c21\n" || r.Err != "WARNING: option x is unknown\n" {
		t.Errorf("got %+v", r)
	}
	want := `{"Name":"ov_net3","Driver":"overlay","Scope":"","IPAM":{"Driver":"default","Options":{},"Config":[` +
		`{"Subnet":"10.22.1.0/24","IPRange":"10.22.1.128/25","Gateway":"10.22.1.1","AuxiliaryAddresses":{"r":"10.22.1.5"}}]},` +
		`"Internal":true,"Attachable":true,"Ingress":false,"ConfigOnly":false,"ConfigFrom":null,` +
		`"Options":{"com.docker.network.driver.mtu":"1400"},"Labels":{"a":"b"}}`
	if got := strings.TrimSpace(d.Find(t, "POST", "/networks/create").Body); got != want {
		t.Errorf("body\n got %s\nwant %s", got, want)
	}
	for _, c := range []struct{ args, want string }{
		{"--gateway 10.0.0.1", "every ip-range or gateway must have a corresponding subnet"},
		{"--subnet 10.0.0.0/24 --gateway 10.0.1.1", "no matching subnet for gateway 10.0.1.1"},
		{"--subnet 10.0.0.0/24 --subnet 10.0.0.0/16", "multiple overlapping subnet configuration is not supported"},
		{"--subnet 10.0.0.0/24 --aux-address a=10.1.0.1", "no matching subnet for aux-address 10.1.0.1"},
		{"--subnet 10.0.0/24", "invalid subnet 10.0.0/24"},
		{"--subnet 10.0.0.0/24 --subnet 10.1.0.0/24 --gateway 10.0.0.1 --gateway 10.0.0.2", "cannot configure multiple gateways"},
	} {
		r := clitest.Run(t, d, append(append([]string{"network", "create"}, strings.Fields(c.args)...), "n")...)
		if r.Code != 1 || !strings.Contains(r.Err, c.want) {
			t.Errorf("%s: %+v", c.args, r)
		}
	}

	d.Handle("DELETE /nodes/host3", clitest.Empty(200))
	if r := clitest.Run(t, d, "node", "rm", "-f", "host3"); r.Code != 0 || r.Out != "host3\n" {
		t.Errorf("node rm: %+v", r)
	}
	if got := d.Find(t, "DELETE", "/nodes/host3").Query; got.Get("force") != "1" {
		t.Errorf("node rm --force asks with %v", got)
	}
	if r := clitest.Run(t, d, "node", "rm", "nosuch"); r.Code != 1 {
		t.Errorf("node rm: %+v", r)
	}

	d.Handle("POST /networks/ov_net1/connect", clitest.Empty(200))
	d.Handle("POST /networks/ov_net1/disconnect", clitest.Empty(200))
	if r := clitest.Run(t, d, "network", "connect", "--alias", "db", "--ip", "10.0.0.9", "ov_net1", "bbox1"); r.Code != 0 {
		t.Errorf("connect: %+v", r)
	}
	body := d.Find(t, "POST", "/networks/ov_net1/connect").Body
	for _, part := range []string{`"Container":"bbox1"`, `"IPv4Address":"10.0.0.9"`, `"Aliases":["db"]`} {
		if !strings.Contains(body, part) {
			t.Errorf("connect: %s is not in %s", part, body)
		}
	}
	if r := clitest.Run(t, d, "network", "disconnect", "-f", "ov_net1", "bbox1"); r.Code != 0 {
		t.Errorf("disconnect: %+v", r)
	}
	d.Handle("DELETE /networks/ov_net1", clitest.Empty(204))
	if r := clitest.Run(t, d, "network", "rm", "-f", "ov_net1", "nosuch"); r.Code != 0 || r.Out != "ov_net1\n" || r.Err != "" {
		t.Errorf("rm -f: %+v", r)
	}
	if r := clitest.Run(t, d, "network", "rm", "nosuch"); r.Code != 1 {
		t.Errorf("rm: %+v", r)
	}
	d.Handle("POST /networks/prune", clitest.JSON(200, `{"NetworksDeleted":["a"]}`))
	if r := clitest.RunInput(t, d, "n\n", "network", "prune"); r.Code != 0 || strings.Contains(r.Out, "Deleted") {
		t.Errorf("prune, refused: %+v", r)
	}
	if r := clitest.RunInput(t, d, "y\n", "network", "prune"); !strings.HasSuffix(r.Out, "Deleted Networks:\na\n") {
		t.Errorf("prune: %+v", r)
	}
}

func TestInspect(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("GET /containers/bbox1/json", clitest.JSON(200, `{"Id":"c1","Name":"/bbox1","State":{"Status":"running"},"Ours":{"X":1}}`))
	d.Handle("GET /images/busybox/json", clitest.JSON(200, `{"Id":"sha256:1"}`))
	d.Handle("GET /networks/ov_net1", clitest.JSON(200, `{"Id":"n1","Name":"ov_net1","Scope":"global"}`))
	d.Handle("GET /cluster/status", clitest.JSON(200, `{"Self":"node1"}`))
	d.Handle("GET /nodes/node1", clitest.JSON(200, `{"ID":"node1"}`))
	for _, c := range []struct {
		args, out string
		code      int
	}{
		{"inspect bbox1", "[\n    {\n        \"Id\": \"c1\",\n        \"Name\": \"/bbox1\",\n        \"State\": {\n            \"Status\": \"running\"\n        },\n        \"Ours\": {\n            \"X\": 1\n        }\n    }\n]\n", 0},
		{"inspect -f {{.State.Status}} bbox1", "running\n", 0},
		{"inspect -f {{.Ours.X}} bbox1", "1\n", 0}, // a field our types do not know
		{"inspect -f json ov_net1 busybox", `[{"Id":"n1","Name":"ov_net1","Scope":"global"},{"Id":"sha256:1"}]` + "\n", 0},
		{"inspect --type network -f {{.Scope}} ov_net1", "global\n", 0},
		{"inspect --type container ov_net1", "[]\n", 1},
		{"inspect nosuch", "[]\n", 1},
		{"inspect -f {{.Id}} nosuch bbox1", "", 1},
		{"network inspect -f {{.Name}} ov_net1", "ov_net1\n", 0},
		{"container inspect -f {{.Name}} bbox1", "/bbox1\n", 0},
		{"image inspect -f {{.Id}} busybox", "", 0},
		{"node inspect -f {{.ID}} self", "node1\n", 0},
		{"inspect -f {{ bbox1", "", 64},
	} {
		r := clitest.Run(t, d, strings.Fields(c.args)...)
		if r.Code != c.code || c.out != "" && r.Out != c.out {
			t.Errorf("%s: got %+v, want code %d and\n%s", c.args, r, c.code, c.out)
		}
	}
	if r := clitest.Run(t, d, "inspect", "nosuch"); r.Err != "minictl: error: no such object: nosuch\n" {
		t.Errorf("error %q", r.Err)
	}
}

func TestLogs(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("GET /containers/web/json", clitest.JSON(200, `{"Id":"`+id+`","Config":{"Tty":false}}`))
	d.Handle("GET /containers/{id}/logs", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, clitest.Frame(1, "a\n")+clitest.Frame(2, "b\n"))
	})
	r := clitest.Run(t, d, "logs", "-f", "-t", "--tail", "5", "--since", "2026-01-02T03:04:05Z", "--details", "web")
	if r.Code != 0 || r.Out != "a\n" || r.Err != "b\n" {
		t.Errorf("got %+v", r)
	}
	q := d.Find(t, "GET", "/containers/"+id+"/logs").Query
	for k, v := range map[string]string{"follow": "1", "timestamps": "1", "tail": "5", "since": "1767323045.000000000",
		"details": "1", "stdout": "1", "stderr": "1"} {
		if q.Get(k) != v {
			t.Errorf("%s=%q, want %q", k, q.Get(k), v)
		}
	}
}

func TestPort(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("GET /containers/web/json", clitest.JSON(200, `{"NetworkSettings":{"Ports":{
		"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}],"9/tcp":[{"HostIp":"0.0.0.0","HostPort":"9"}],"53/udp":null}}}`))
	for _, c := range []struct{ args, out string }{
		{"port web", "9/tcp -> 0.0.0.0:9\n80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n"},
		{"port web 80", "0.0.0.0:8080\n[::]:8080\n"},
	} {
		if r := clitest.Run(t, d, strings.Fields(c.args)...); r.Code != 0 || r.Out != c.out {
			t.Errorf("%s: %+v", c.args, r)
		}
	}
	if r := clitest.Run(t, d, "port", "web", "53/udp"); r.Code != 1 || r.Err != "minictl: no public port '53/udp' published for web\n" {
		t.Errorf("got %+v", r)
	}
}

func TestLifecycleQueries(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("POST /containers/web/{what}", clitest.Empty(204))
	d.Handle("DELETE /containers/web", clitest.Empty(204))
	for _, c := range []struct{ args, method, path, query string }{
		{"stop web", "POST", "stop", ""},
		{"stop -t 3 -s INT web", "POST", "stop", "signal=INT&t=3"},
		{"restart --time 0 web", "POST", "restart", "t=0"},
		{"kill -s HUP web", "POST", "kill", "signal=HUP"},
		{"rename web web2", "POST", "rename", "name=web2"},
		{"rm -fv web", "DELETE", "", "force=1&v=1"},
		{"container rm web", "DELETE", "", ""},
	} {
		r := clitest.Run(t, d, strings.Fields(c.args)...)
		got := d.Find(t, c.method, strings.TrimSuffix("/containers/web/"+c.path, "/"))
		if r.Code != 0 || got.Query.Encode() != c.query {
			t.Errorf("%s: %+v, query %q, want %q", c.args, r, got.Query.Encode(), c.query)
		}
	}
	if r := clitest.Run(t, d, "rm", "-f", "nosuch"); r.Code != 0 || r.Err != "" {
		t.Errorf("rm -f of nothing: %+v", r)
	}
}

// TestSystemPruneGoesOn: what cannot be removed is told at the end, and keeps nothing of the rest.
func TestSystemPruneGoesOn(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("POST /containers/prune", clitest.JSON(200, `{"ContainersDeleted":["c1"],"SpaceReclaimed":1000}`))
	d.Handle("POST /networks/prune", clitest.Fail(503, "remove network ov: host2 has not been heard"))
	d.Handle("POST /volumes/prune", clitest.JSON(200, `{"VolumesDeleted":["v1"],"SpaceReclaimed":200}`))
	d.Handle("POST /images/prune", clitest.JSON(200, `{"ImagesDeleted":[{"Deleted":"sha256:1"}],"SpaceReclaimed":30}`))
	r := clitest.Run(t, d, "system", "prune", "-af", "--volumes")
	if r.Code != 1 || !strings.Contains(r.Err, "remove network ov: host2 has not been heard") {
		t.Errorf("exit %d: %s", r.Code, r.Err)
	}
	want := "Deleted Containers:\nc1\n\nDeleted Volumes:\nv1\n\nDeleted Images:\ndeleted: sha256:1\n\nTotal reclaimed space: 1.23kB\n"
	if r.Out != want {
		t.Errorf("%s\nwant\n%s", r.Out, want)
	}
}

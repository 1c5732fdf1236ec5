package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// cli is a client on a host: minictl itself or the stock docker CLI.
type cli struct {
	name string
	must func(h *lab.Host, args ...string) string
	try  func(h *lab.Host, args ...string) (string, string, int)
}

// clients are the two command lines that everything docker has is tried with.
func clients() []cli {
	return []cli{
		{"minictl", (*lab.Host).MustMinictl, (*lab.Host).Minictl},
		{"docker", (*lab.Host).MustDocker, (*lab.Host).Docker},
	}
}

// recentDocker is the docker CLI's major version whose flags and words the tests of newer features go by.
const recentDocker = 25

// recentClients are clients, without a docker CLI that is too old for the feature: Debian 12's is of 2022.
func recentClients(t *testing.T) []cli {
	t.Helper()
	out, err := exec.Command("docker", "--version").Output()
	if err != nil {
		t.Fatalf("no docker CLI: run make deps: %v", err)
	}
	var major int
	if _, err := fmt.Sscanf(string(out), "Docker version %d.", &major); err != nil {
		t.Fatalf("docker --version: %q: %v", out, err)
	}
	if major < recentDocker {
		t.Logf("%s is too old for this feature: only minictl is tried", strings.TrimSpace(string(out)))
		return clients()[:1]
	}
	return clients()
}

// TestTutorial walks the tutorial's steps 0 to 6, first with minictl, then with docker's own CLI at the same socket.
func TestTutorial(t *testing.T) {
	t.Parallel()
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t)
			w := &walk{t: t, l: l, c: c, h1: start(t, l, "host1"), h2: start(t, l, "host2"), laptop: l.Client("laptop")}
			w.before = []lab.Snapshot{w.h1.Snapshot(), w.h2.Snapshot()}
			w.cluster()
			w.network()
			w.container()
			w.publishedPort()
			w.acrossHosts()
			w.built()
			w.isolation()
			w.traceless()
		})
	}
}

type walk struct {
	t              *testing.T
	l              *lab.Lab
	c              cli
	h1, h2, laptop *lab.Host
	before         []lab.Snapshot
	id             string // of ov_net1
}

// cluster is step 0.
func (w *walk) cluster() {
	t := w.t
	// A host alone is a cluster of one: overlay networks work at once.
	w.c.must(w.h1, "network", "create", "-d", "overlay", "alone")
	w.c.must(w.h1, "run", "--rm", "--network", "alone", "busybox", "true")
	if out := w.h1.MustRun("ss", "-Hlntu", "not", "src", "127.0.0.0/8"); strings.TrimSpace(out) != "" {
		t.Errorf("a fresh daemon listens on the network:\n%s", out)
	}
	w.c.must(w.h1, "network", "rm", "alone")
	join(t, w.h1, w.h2)
	for _, h := range []*lab.Host{w.h1, w.h2} {
		out := w.c.must(h, "node", "ls")
		wantMatch(t, "node ls", out, `(?m)^\w{25}.*host1 +Ready`)
		wantMatch(t, "node ls", out, `(?m)^\w{25}.*host2 +Ready`)
		if w.c.name == "minictl" {
			wantMatch(t, "node ls", out, `192\.168\.66\.11`)
			wantMatch(t, "node ls", out, `192\.168\.66\.12`)
		}
		ports := w.h1.MustRun("ss", "-Hlntu", "not", "src", "127.0.0.0/8")
		for _, line := range lines(ports) {
			if !strings.Contains(line, ":7946") && !strings.Contains(line, ":4789") {
				t.Errorf("listens on more than 7946 and 4789: %s", line)
			}
		}
	}
	page := fetch(t, w.h1, "http://127.0.0.1:7947/")
	wantMatch(t, "the web page", page, `host2`)
}

// inspected is what the tutorial reads of a network.
type inspected struct {
	Name, ID, Created, Scope, Driver string
	Internal, Attachable, Ingress    bool
	ConfigOnly                       bool
	IPAM                             struct {
		Driver string
		Config []struct{ Subnet, Gateway string }
	}
	Containers map[string]struct{ Name, EndpointID, MacAddress, IPv4Address string }
	Options    map[string]string
	Labels     map[string]string
	Peers      []struct{ Name, IP string }
}

// network is step 1.
func (w *walk) network() {
	t := w.t
	w.id = strings.TrimSpace(w.c.must(w.h1, "network", "create", "-d", "overlay", "ov_net1"))
	local := map[string]bool{}
	for _, h := range []*lab.Host{w.h1, w.h2} {
		out := w.c.must(h, "network", "ls", "--no-trunc")
		wantMatch(t, "network ls on "+h.Name(), out, `(?m)^`+w.id+` +ov_net1 +overlay +global *$`)
		for _, want := range []string{`bridge +bridge +local`, `host +host +local`, `none +null +local`} {
			wantMatch(t, "network ls on "+h.Name(), out, want)
		}
		for _, l := range lines(out)[1:] {
			if f := strings.Fields(l); f[3] == "local" {
				if local[f[0]] {
					t.Errorf("%s: local network %s has another host's ID", h.Name(), f[1])
				}
				local[f[0]] = true
			}
		}
		n := inspect[inspected](t, w.c.must(h, "network", "inspect", "ov_net1"))
		if n.Name != "ov_net1" || n.ID != w.id || n.Scope != "global" || n.Driver != "overlay" || n.IPAM.Driver != "default" ||
			len(n.IPAM.Config) != 1 || n.IPAM.Config[0].Subnet != "10.0.0.0/24" || n.IPAM.Config[0].Gateway != "10.0.0.1" || n.Created == "" {
			t.Errorf("%s: network inspect: %+v", h.Name(), n)
		}
	}
	raw := w.c.must(w.h2, "network", "inspect", "ov_net1")
	for _, key := range []string{"EnableIPv6", "Internal", "Attachable", "Ingress", "ConfigFrom", "ConfigOnly", "Containers", "Options", "Labels"} {
		wantMatch(t, "network inspect", raw, `"`+key+`":`)
	}
}

// container is step 2.
func (w *walk) container() {
	t := w.t
	id := strings.TrimSpace(w.c.must(w.h1, "run", "-itd", "--name", "bbox1", "--network", "ov_net1", "busybox"))
	want := []string{"default via 172.18.0.1 dev eth1", "10.0.0.0/24 dev eth0 scope link  src 10.0.0.2", "172.18.0.0/16 dev eth1 scope link  src 172.18.0.2"}
	if got := lines(w.c.must(w.h1, "exec", "bbox1", "ip", "r")); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("ip r in bbox1:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	link := w.c.must(w.h1, "exec", "bbox1", "ip", "link", "show", "eth0")
	wantMatch(t, "eth0", link, `link/ether 02:42:0a:00:00:02`)
	wantMatch(t, "eth0", link, `mtu 1450`)
	wantMatch(t, "network ls", w.c.must(w.h1, "network", "ls"), `mini_gwbridge +bridge +local`)
	gw := inspect[inspected](t, w.c.must(w.h1, "network", "inspect", "mini_gwbridge"))
	ep := gw.Containers[id]
	if len(ep.Name) != len("gateway_")+12 || !strings.HasPrefix(ep.Name, "gateway_") || ep.IPv4Address != "172.18.0.2/16" || ep.MacAddress != "02:42:ac:12:00:02" {
		t.Errorf("the gateway bridge's endpoint: %+v", ep)
	}
	if gw.IPAM.Config[0].Subnet != "172.18.0.0/16" || gw.Options["com.docker.network.bridge.enable_icc"] != "false" ||
		gw.Options["com.docker.network.bridge.enable_ip_masquerade"] != "true" {
		t.Errorf("the gateway bridge: %+v", gw)
	}
	// The outside: the laptop, which knows no way back to 172.18.0.0/16.
	out := w.c.must(w.h1, "exec", "bbox1", "ping", "-c", "1", "-W", "2", w.laptop.Addr().String())
	wantMatch(t, "ping the outside", out, ` 0% packet loss`)
	n := inspect[inspected](t, w.c.must(w.h2, "network", "inspect", "ov_net1"))
	if n.Containers[id].Name != "bbox1" || n.Containers[id].IPv4Address != "10.0.0.2/24" {
		t.Errorf("host2 does not show bbox1: %+v", n.Containers)
	}
}

// publishedPort is step 3.
func (w *walk) publishedPort() {
	t := w.t
	w.c.must(w.h1, "run", "-p", "80:80", "-d", "--network", "ov_net1", "--name", "web1", "httpd", "busybox", "httpd", "-f", "-vv", "-h", "/var/www")
	awaitListener(t, w.l, w.h1, "web1", 80)
	for _, from := range []struct {
		h   *lab.Host
		url string
	}{{w.laptop, "http://192.168.66.11/"}, {w.h1, "http://192.168.66.11/"}, {w.h1, "http://127.0.0.1/"}} {
		wantMatch(t, fmt.Sprintf("%s fetches %s", from.h.Name(), from.url), fetch(t, from.h, from.url), `It works!`)
	}
	wantMatch(t, "the client's true address in httpd's log", w.logs("web1"), `(?m)^\[?(::ffff:)?`+strings.ReplaceAll(w.laptop.Addr().String(), ".", `\.`))
	wantMatch(t, "ps", w.c.must(w.h1, "ps"), `0\.0\.0\.0:80->80/tcp`)
	w.c.must(w.h1, "rm", "-f", "web1")
}

func (w *walk) logs(name string) string {
	out, errOut, _ := w.c.try(w.h1, "logs", name)
	return out + errOut
}

// acrossHosts is step 4.
func (w *walk) acrossHosts() {
	t := w.t
	w.c.must(w.h2, "run", "-itd", "--name", "bbox2", "--network", "ov_net1", "busybox")
	wantMatch(t, "bbox2's address", w.c.must(w.h2, "exec", "bbox2", "ip", "r"), `10\.0\.0\.0/24 dev eth0 scope link  src 10\.0\.0\.3`)
	out := w.c.must(w.h2, "exec", "bbox2", "ping", "-c", "2", "bbox1")
	wantMatch(t, "ping bbox1", out, `PING bbox1 \(10\.0\.0\.2\)`)
	wantMatch(t, "ping bbox1 from the first packet", out, `seq=0 ttl=64`)
	wantMatch(t, "ping bbox1", out, `2 packets received, 0% packet loss`)
	wantMatch(t, "and back", w.c.must(w.h1, "exec", "bbox1", "ping", "-c", "1", "bbox2"), ` 0% packet loss`)
}

// built is step 5.
func (w *walk) built() {
	t := w.t
	ns := "1-" + w.id[:10]
	for h, other := range map[*lab.Host]string{w.h1: "02:42:0a:00:00:03 dst 192.168.66.12", w.h2: "02:42:0a:00:00:02 dst 192.168.66.11"} {
		wantMatch(t, "ip netns", h.MustRun("ip", "netns"), `(?m)^`+ns)
		in := func(args ...string) string { return h.MustRun(append([]string{"ip", "netns", "exec", ns}, args...)...) }
		vx := in("ip", "-d", "link", "show", "vxlan0")
		for _, want := range []string{"vxlan id 256", "dstport 4789", "proxy", "l2miss", "l3miss", "nolearning", "link-netnsid 0", "master br0", "local " + h.Addr().String(), "mtu 1450"} {
			wantMatch(t, "vxlan0 on "+h.Name(), vx, want)
		}
		wantMatch(t, "br0", in("ip", "-4", "addr", "show", "br0"), `10\.0\.0\.1/24`)
		wantMatch(t, "br0's ports", in("ip", "link", "show", "master", "br0"), `veth`)
		wantMatch(t, "FDB on "+h.Name(), in("bridge", "fdb", "show", "dev", "vxlan0"), other+`.* self permanent`)
		wantMatch(t, "neighbours on "+h.Name(), in("ip", "neigh", "show", "dev", "vxlan0"), `10\.0\.0\.[23] lladdr 02:42:0a:00:00:0[23] PERMANENT`)
	}
}

// isolation is step 6.
func (w *walk) isolation() {
	t := w.t
	w.c.must(w.h1, "network", "create", "-d", "overlay", "ov_net2")
	w.c.must(w.h1, "network", "create", "-d", "overlay", "--subnet", "10.22.1.0/24", "ov_net3")
	id2 := strings.TrimSpace(w.c.must(w.h1, "network", "inspect", "-f", "{{.Id}}", "ov_net2"))
	w.c.must(w.h1, "run", "-itd", "--name", "bbox3", "--network", "ov_net2", "busybox")
	wantMatch(t, "bbox3's address", w.c.must(w.h1, "exec", "bbox3", "ip", "r"), `10\.0\.1\.0/24 dev eth0 scope link  src 10\.0\.1\.2`)
	wantMatch(t, "ov_net2's VNI", w.h1.MustRun("ip", "netns", "exec", "1-"+id2[:10], "ip", "-d", "link", "show", "vxlan0"), `vxlan id 257`)
	w.c.must(w.h1, "run", "-itd", "--name", "bbox4", "--network", "ov_net3", "busybox")
	wantMatch(t, "bbox4's address", w.c.must(w.h1, "exec", "bbox4", "ip", "r"), `10\.22\.1\.0/24 dev eth0 scope link  src 10\.22\.1\.2`)
	// Neither over the overlay nor through the gateway bridge, where both stand on the same host.
	for _, to := range []string{"10.0.0.2", "172.18.0.2"} {
		out, _, code := w.c.try(w.h1, "exec", "bbox3", "ping", "-c", "1", "-W", "1", to)
		if code == 0 {
			t.Errorf("bbox3 reaches %s:\n%s", to, out)
		}
	}
	out, errOut, code := w.c.try(w.h1, "exec", "bbox3", "ping", "-c", "1", "-W", "1", "bbox1")
	if code == 0 || !strings.Contains(out+errOut, "bad address 'bbox1'") {
		t.Errorf("bbox3 knows bbox1:\n%s%s", out, errOut)
	}
	// Same overlay, same host: by the overlay yes, by the gateway bridge no.
	w.c.must(w.h1, "run", "-itd", "--name", "bbox5", "--network", "ov_net1", "busybox")
	w.c.must(w.h1, "exec", "bbox5", "ping", "-c", "1", "-W", "2", "bbox1")
	if out, _, code := w.c.try(w.h1, "exec", "bbox5", "ping", "-c", "1", "-W", "1", "172.18.0.2"); code == 0 {
		t.Errorf("bbox5 reaches bbox1 through the gateway bridge:\n%s", out)
	}
}

// traceless removes everything and wants the kernel's listing of before.
func (w *walk) traceless() {
	w.c.must(w.h1, "rm", "-f", "bbox1", "bbox3", "bbox4", "bbox5")
	w.c.must(w.h2, "rm", "-f", "bbox2")
	w.c.must(w.h2, "network", "rm", "ov_net1", "ov_net2", "ov_net3")
	w.h2.MustMinictl("cluster", "leave")
	w.h1.MustMinictl("cluster", "leave")
	for i, h := range []*lab.Host{w.h1, w.h2} {
		if diff := lab.Diff(w.before[i], h.Snapshot()); diff != "" {
			w.t.Errorf("%s: left behind:\n%s", h.Name(), diff)
		}
	}
}

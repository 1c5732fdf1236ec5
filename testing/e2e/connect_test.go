package e2e

import (
	"encoding/json"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// used runs something on networks, once: the gateway bridge's record stays, and a bridge that has had a port looks
// different for ever.
func used(l *lab.Lab, h *lab.Host, networks ...string) {
	for _, n := range networks {
		h.MustMinictl("run", "--rm", "--network", n, "busybox", "true")
	}
	settle(l, h)
}

// settle waits until the bridges without ports show it: the kernel says so a moment later, from a work queue.
func settle(l *lab.Lab, h *lab.Host) {
	l.Eventually(soon, func() error {
		ports := h.MustRun("ip", "-o", "link", "show", "type", "veth")
		for _, line := range lines(h.MustRun("ip", "-o", "link", "show", "type", "bridge")) {
			name := strings.TrimSuffix(strings.Fields(line)[1], ":")
			if strings.Contains(line, "state UP") && !strings.Contains(ports, "master "+name+" ") {
				return errf("%s is still up", name)
			}
		}
		return nil
	})
}

// interfaces are a container's, by name, with their IPv4 addresses.
func interfaces(t *testing.T, h *lab.Host, name string) map[string]string {
	t.Helper()
	out := map[string]string{}
	found := regexp.MustCompile(`(?m)^\d+: (\w+)[@:].*(?:\n {4}.*)*?\n {4}inet ([0-9./]+)`)
	for _, m := range found.FindAllStringSubmatch(h.MustMinictl("exec", name, "ip", "-4", "addr"), -1) {
		out[m[1]] = m[2]
	}
	delete(out, "lo")
	return out
}

// wantInterfaces compares them: "eth0 10.0.0.2/24, eth1 172.18.0.2/16".
func wantInterfaces(t *testing.T, h *lab.Host, name, want string) {
	t.Helper()
	var got []string
	for ifc, addr := range interfaces(t, h, name) {
		got = append(got, ifc+" "+addr)
	}
	slices.Sort(got)
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("%s has %s, want %s", name, s, want)
	}
}

// resolve asks a container's resolver for the IPv4 addresses of a name.
func resolve(h *lab.Host, container, name string) string {
	out, _, _ := h.Minictl("exec", container, "nslookup", "-type=a", name)
	var got []string
	_, answer, _ := strings.Cut(out, "\n\n")
	for _, m := range regexp.MustCompile(`(?m)^Address(?: \d+)?: ([0-9.]+)`).FindAllStringSubmatch(answer, -1) {
		got = append(got, m[1])
	}
	slices.Sort(got)
	return strings.Join(got, " ")
}

func wantResolve(t *testing.T, h *lab.Host, container, name, want string) {
	t.Helper()
	if got := resolve(h, container, name); got != want {
		t.Errorf("%s on %s resolves %s to %q, want %q", container, h.Name(), name, got, want)
	}
}

func defaultRoute(t *testing.T, h *lab.Host, name string) string {
	t.Helper()
	for _, l := range lines(h.MustMinictl("exec", name, "ip", "route")) {
		if rest, ok := strings.CutPrefix(l, "default via "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

func wantDefault(t *testing.T, h *lab.Host, name, want string) {
	t.Helper()
	if got := defaultRoute(t, h, name); got != want {
		t.Errorf("default route of %s: %q, want %q", name, got, want)
	}
}

// TestConnect attaches and detaches running containers: interfaces, routes, published ports, /etc/hosts, names on both
// hosts, events; over a restart of the daemon as well; nothing is left behind.
func TestConnect(t *testing.T) {
	t.Parallel()
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t)
			h1, h2 := pair(t, l)
			laptop := l.Client("laptop")
			c.must(h1, "network", "create", "-d", "overlay", "ov_net1")
			c.must(h1, "network", "create", "-d", "overlay", "ov_net2")
			c.must(h1, "network", "create", "--subnet", "172.30.0.0/16", "br_net")
			used(l, h1, "ov_net1", "br_net")
			before := []lab.Snapshot{h1.Snapshot(), h2.Snapshot()}

			c.must(h1, "run", "-d", "--name", "web1", "-p", "8080:80", "--network", "ov_net1", "httpd")
			c.must(h2, "run", "-d", "--name", "bbox2", "--network", "ov_net2", "busybox", "sleep", "600")
			c.must(h1, "run", "-d", "--name", "bbox1", "--network", "ov_net2", "busybox", "sleep", "600")
			wantInterfaces(t, h1, "web1", "eth0 10.0.0.2/24, eth1 172.18.0.2/16")
			wantResolve(t, h2, "bbox2", "web1", "")
			h1.MustMinictl("exec", "web1", "sh", "-c", "echo 192.0.2.7 mine >> /etc/hosts")

			// One more overlay: the next ethN, known everywhere at once, the default route as it was.
			c.must(h1, "network", "connect", "--alias", "www", "ov_net2", "web1")
			wantInterfaces(t, h1, "web1", "eth0 10.0.0.2/24, eth1 172.18.0.2/16, eth2 10.0.1.4/24")
			for _, who := range []struct {
				h    *lab.Host
				name string
			}{{h2, "bbox2"}, {h1, "bbox1"}} {
				wantResolve(t, who.h, who.name, "web1", "10.0.1.4")
				wantResolve(t, who.h, who.name, "www", "10.0.1.4")
			}
			wantMatch(t, "the first packet", h2.MustMinictl("exec", "bbox2", "ping", "-c", "1", "-W", "1", "www"), ` 0% packet loss`)
			wantMatch(t, "and the other way", h1.MustMinictl("exec", "web1", "ping", "-c", "1", "-W", "1", "bbox2"), ` 0% packet loss`)
			wantDefault(t, h1, "web1", "172.18.0.1 dev eth1")
			hosts := h1.MustMinictl("exec", "web1", "cat", "/etc/hosts")
			wantMatch(t, "/etc/hosts", hosts, `(?m)^10\.0\.1\.4\t`)
			wantMatch(t, "/etc/hosts", hosts, `(?m)^192\.0\.2\.7 mine$`)
			wantMatch(t, "inspect", c.must(h1, "inspect", "-f", "{{.NetworkSettings.Networks.ov_net2.IPAddress}}", "web1"), `^10\.0\.1\.4`)

			// A bridge gives the default route and takes the ports: the gateway bridge's endpoint vanishes.
			page := func(what string) {
				t.Helper()
				wantMatch(t, what, fetch(t, laptop, "http://192.168.66.11:8080/"), "It works!")
				wantMatch(t, "docker port, "+what, c.must(h1, "port", "web1"), `80/tcp -> 0\.0\.0\.0:8080`)
			}
			page("before")
			c.must(h1, "network", "connect", "br_net", "web1")
			wantInterfaces(t, h1, "web1", "eth0 10.0.0.2/24, eth2 10.0.1.4/24, eth3 172.30.0.2/16")
			wantDefault(t, h1, "web1", "172.30.0.1 dev eth3")
			page("on the bridge")
			_, errOut, code := c.try(h1, "network", "connect", "br_net", "web1")
			if code != 1 {
				t.Errorf("connect twice: code %d", code)
			}
			wantMatch(t, "connect twice", errOut, `endpoint with name web1 already exists in network br_net`)

			// All of it is there after the daemon's restart.
			h1.KillDaemon()
			h1.Daemon()
			wantInterfaces(t, h1, "web1", "eth0 10.0.0.2/24, eth2 10.0.1.4/24, eth3 172.30.0.2/16")
			wantDefault(t, h1, "web1", "172.30.0.1 dev eth3")
			page("after the restart")
			l.Eventually(soon, func() error { // until it has heard of host2 again it can tell it nothing at once
				if out := h1.MustMinictl("node", "ls", "--filter", "name=host2", "--format", "{{.Status}}"); strings.TrimSpace(out) != "Ready" {
					return errf("host2 is %s after the restart", out)
				}
				if got := resolve(h2, "bbox2", "www"); got != "10.0.1.4" {
					return errf("www is %q after the restart", got)
				}
				return nil
			})

			// And back: the gateway bridge's endpoint appears again.
			c.must(h1, "network", "disconnect", "br_net", "web1")
			wantInterfaces(t, h1, "web1", "eth0 10.0.0.2/24, eth1 172.18.0.2/16, eth2 10.0.1.4/24")
			wantDefault(t, h1, "web1", "172.18.0.1 dev eth1")
			page("back on the gateway bridge")
			c.must(h1, "network", "disconnect", "ov_net2", "web1")
			wantResolve(t, h2, "bbox2", "web1", "")
			wantResolve(t, h1, "bbox1", "www", "")
			if hosts := h1.MustMinictl("exec", "web1", "cat", "/etc/hosts"); strings.Contains(hosts, "10.0.1.4") || !strings.Contains(hosts, "mine") {
				t.Errorf("/etc/hosts after disconnect:\n%s", hosts)
			}
			_, errOut, code = c.try(h1, "network", "disconnect", "ov_net2", "web1")
			if code != 1 {
				t.Errorf("disconnect twice: code %d", code)
			}
			wantMatch(t, "disconnect twice", errOut, `is not connected to the network ov_net2`)
			c.must(h1, "network", "disconnect", "ov_net1", "web1")
			if got := interfaces(t, h1, "web1"); len(got) > 0 {
				t.Errorf("left on no network: %v", got)
			}
			id := strings.TrimSpace(c.must(h1, "inspect", "-f", "{{.Id}}", "web1"))
			events := c.must(h1, "events", "--since", "1h", "--until", now(), "--filter", "type=network", "--filter", "event=connect", "--filter", "event=disconnect", "--format", "{{json .}}")
			wantEvents(t, events, id, "disconnect br_net", "disconnect ov_net2", "disconnect ov_net1")

			c.must(h1, "rm", "-f", "web1", "bbox1")
			c.must(h2, "rm", "-f", "bbox2")
			for i, h := range []*lab.Host{h1, h2} {
				settle(l, h)
				if diff := lab.Diff(before[i], h.Snapshot()); diff != "" {
					t.Errorf("%s: left behind:\n%s", h.Name(), diff)
				}
			}
		})
	}
}

// wantEvents wants these, with the container's ID, among the network events.
func wantEvents(t *testing.T, out, id string, want ...string) {
	t.Helper()
	var got []string
	for _, line := range lines(out) {
		var m struct {
			Action string
			Actor  struct{ Attributes map[string]string }
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Errorf("event %q: %v", line, err)
		}
		if m.Actor.Attributes["container"] == id {
			got = append(got, m.Action+" "+m.Actor.Attributes["name"])
		}
	}
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("no event %q among %q", w, got)
		}
	}
}

// TestConnectStopped changes the wish of a container that does not run; the start fulfils it.
func TestConnectStopped(t *testing.T) {
	t.Parallel()
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t)
			h := start(t, l, "host1")
			c.must(h, "network", "create", "-d", "overlay", "ov_net1")
			c.must(h, "network", "create", "--subnet", "172.30.0.0/16", "br_net")
			c.must(h, "create", "--name", "bbox1", "busybox", "sleep", "600")
			c.must(h, "network", "connect", "--alias", "db", "ov_net1", "bbox1")
			c.must(h, "network", "connect", "--ip", "172.30.9.9", "br_net", "bbox1")
			c.must(h, "network", "disconnect", "bridge", "bbox1")
			h.KillDaemon()
			h.Daemon()
			c.must(h, "start", "bbox1")
			wantInterfaces(t, h, "bbox1", "eth0 10.0.0.2/24, eth1 172.30.9.9/16")
			wantDefault(t, h, "bbox1", "172.30.0.1 dev eth1")
			wantResolve(t, h, "bbox1", "db", "10.0.0.2")
			// From the default bridge, which has no resolver, to a network that has one, and back.
			c.must(h, "run", "-d", "--name", "plain", "busybox", "sleep", "600")
			c.must(h, "network", "connect", "ov_net1", "plain")
			wantResolve(t, h, "plain", "db", "10.0.0.2")
			wantMatch(t, "resolv.conf", h.MustMinictl("exec", "plain", "cat", "/etc/resolv.conf"), `nameserver 127\.0\.0\.11`)
			h.KillDaemon()
			h.Daemon()
			wantResolve(t, h, "plain", "db", "10.0.0.2")
			c.must(h, "network", "disconnect", "ov_net1", "plain")
			if conf := h.MustMinictl("exec", "plain", "cat", "/etc/resolv.conf"); strings.Contains(conf, "127.0.0.11") {
				t.Errorf("resolv.conf on the default bridge alone:\n%s", conf)
			}
			for _, bad := range []struct {
				name, pattern string
				args          []string
			}{
				{"host", `cannot connect container to host network`, []string{"network", "connect", "host", "bbox1"}},
				{"none", `private \(none\) mode`, []string{"network", "connect", "none", "bbox1"}},
				{"nothing", `network nope not found`, []string{"network", "connect", "nope", "bbox1"}},
				{"nobody", `No such container: nope`, []string{"network", "connect", "br_net", "nope"}},
				{"nobody, forced", `No such container: nope`, []string{"network", "disconnect", "-f", "ov_net1", "nope"}},
				{"taken", `Address already in use: 172\.30\.9\.9.*bbox1 on host1`, []string{"network", "connect", "--ip", "172.30.9.9", "br_net", "plain"}},
				{"outside", `no configured subnet contains`, []string{"network", "connect", "--ip", "10.9.9.9", "br_net", "plain"}},
				{"alias on the bridge", `only supported for user-defined networks`, []string{"network", "connect", "--alias", "x", "bridge", "bbox1"}},
				{"link-local", `invalid link-local IP address 10\.7\.7\.7`, []string{"network", "connect", "--link-local-ip", "10.7.7.7", "br_net", "plain"}},
				{"no IPv6", `no configured subnet contains IP address fd00::7`, []string{"network", "connect", "--ip6", "fd00::7", "br_net", "plain"}},
				{"ifname", `ifname "a/b"`, []string{"network", "connect", "--driver-opt", "com.docker.network.endpoint.ifname=a/b", "br_net", "plain"}},
				{"sysctl", `IFNAME`, []string{"network", "connect", "--driver-opt", "com.docker.network.endpoint.sysctls=kernel.pid_max=5", "br_net", "plain"}},
				{"no such sysctl", `no such setting`, []string{"network", "connect", "--driver-opt", "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.nope=5", "br_net", "plain"}},
			} {
				settle(l, h)
				before := h.Snapshot()
				_, errOut, code := c.try(h, bad.args...)
				if code != 1 {
					t.Errorf("%s: code %d", bad.name, code)
				}
				wantMatch(t, bad.name, errOut, bad.pattern)
				settle(l, h)
				if diff := lab.Diff(before, h.Snapshot()); diff != "" {
					t.Errorf("%s: left behind:\n%s", bad.name, diff)
				}
			}
			for _, mode := range []string{"host", "none", "container:plain"} {
				c.must(h, "run", "-d", "--name", "other", "--network", mode, "busybox", "sleep", "600")
				if _, errOut, code := c.try(h, "network", "connect", "br_net", "other"); code != 1 || !strings.Contains(errOut, "cannot be connected to") {
					t.Errorf("connect on %s: %d %s", mode, code, errOut)
				}
				c.must(h, "rm", "-f", "other")
			}
		})
	}
}

// TestFailedConnect makes the steps of a live connect fail in turn: the container is as it was.
func TestFailedConnect(t *testing.T) {
	t.Parallel()
	l := breakable(t)
	h := start(t, l, "host1")
	h.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	h.MustMinictl("network", "create", "--subnet", "172.30.0.0/16", "br_net")
	h.MustMinictl("run", "-d", "--name", "web1", "-p", "8080:80", "--network", "ov_net1", "httpd")
	used(l, h, "br_net")
	before := h.Snapshot()
	for _, step := range []string{"address", "join", "lead", "tell"} {
		t.Run(step, func(t *testing.T) {
			arm(t, h, step)
			fails(t, h, 1, `failpoint `+step, "network", "connect", "--ip", "172.30.7.7", "br_net", "web1")
			disarm(t, h)
			settle(l, h)
			if diff := lab.Diff(before, h.Snapshot()); diff != "" {
				t.Errorf("left behind:\n%s", diff)
			}
			wantInterfaces(t, h, "web1", "eth0 10.0.0.2/24, eth1 172.18.0.2/16")
			wantDefault(t, h, "web1", "172.18.0.1 dev eth1")
			wantMatch(t, "the page", fetch(t, h, "http://192.168.66.11:8080/"), "It works!")
			if got := strings.TrimSpace(h.MustMinictl("inspect", "-f", "{{len .NetworkSettings.Networks}}", "web1")); got != "1" {
				t.Errorf("on %s networks", got)
			}
			// The address is free.
			h.MustMinictl("run", "--rm", "--network", "br_net", "--ip", "172.30.7.7", "busybox", "true")
			settle(l, h)
		})
	}
}

// address is a container's on a network, as inspect shows it.
func address(t *testing.T, h *lab.Host, name, network string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddr(strings.TrimSpace(h.MustMinictl("inspect", "-f", `{{(index .NetworkSettings.Networks "`+network+`").IPAddress}}`, name)))
	if err != nil {
		t.Errorf("address of %s: %v", name, err)
	}
	return a
}

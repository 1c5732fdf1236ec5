package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"

	"github.com/minictl/minictl/testing/lab"
)

// flannelShape is what flannel's plugin hands to its delegates: a bridge whose addresses are of this host's part of the
// pods' network, with a route to all of it, and portmap behind.
const flannelShape = `{
  "name": "cbr0", "cniVersion": "%s",
  "plugins": [
    {"type": "bridge", "bridge": "cni0", "mtu": 1450, "isGateway": true, "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
     "ipam": {"type": "host-local", "dataDir": "/run/cni-leases", "ranges": [[{"subnet": "10.244.1.0/24"}]], "routes": [{"dst": "10.244.0.0/16"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}
  ]
}`

// confFile writes a CNI configuration on a host.
func confFile(t *testing.T, h *lab.Host, name, text string) string {
	t.Helper()
	path := "/etc/cni/net.d/" + name
	if err := os.MkdirAll(filepath.Dir(h.Path(path)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.Path(path), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// leases are the addresses that host-local has given and not got back.
func leases(t *testing.T, h *lab.Host) []string {
	t.Helper()
	all, err := filepath.Glob(h.Path("/run/cni-leases/cbr0/10.*"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range all {
		out = append(out, filepath.Base(f))
	}
	return out
}

// quietBridge runs a network's first container: what that brings for all, the plugins leave, for others may use it. The
// kernel would give the bridge an IPv6 address at a time of its own.
func quietBridge(t *testing.T, l *lab.Lab, h *lab.Host, network string) {
	t.Helper()
	h.MustRun("ip", "link", "add", "cni0", "type", "bridge")
	h.MustRun("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/cni0/disable_ipv6")
	h.MustMinictl("run", "--rm", "--network", network, "-p", "8080:80", "busybox", "true")
	settle(l, h)
}

// TestCNI runs containers on a network that CNI plugins make, in the versions of the specification that flannel and others
// use: they reach each other by name, a machine beside the host reaches a published port, all that stays over restarts of
// container and daemon, and nothing is left in the kernel and of the plugins' leases.
func TestCNI(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"0.3.1", "1.0.0"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			h := start(t, l, "host1")
			laptop := l.Client("laptop")
			conf := confFile(t, h, "10-flannel.conflist", fmt.Sprintf(flannelShape, version))
			h.MustDocker("network", "create", "-d", "cni", "-o", "conf="+conf, "net1")
			quietBridge(t, l, h, "net1")
			before := h.Snapshot()
			idle := func(when string) {
				t.Helper()
				l.Eventually(soon, func() error {
					if diff := lab.Diff(before, h.Snapshot()); diff != "" {
						return errf("%s left behind:\n%s", when, diff)
					}
					return nil
				})
				if got := leases(t, h); len(got) > 0 {
					t.Errorf("%s has left the leases %v", when, got)
				}
			}
			confFile(t, h, "10-flannel.conflist", "gone")

			h.MustMinictl("run", "-d", "--name", "web1", "--network", "net1", "-p", "8080:80", "httpd")
			h.MustDocker("run", "-d", "--name", "box1", "--network", "net1", "--network-alias", "alias1", "busybox", "sleep", "600")
			awaitListener(t, l, h, "web1", 80)
			web := inspect[container.InspectResponse](t, h.MustDocker("inspect", "web1")).NetworkSettings.Networks["net1"]
			if web == nil || !strings.HasPrefix(web.IPAddress.String(), "10.244.1.") || web.IPPrefixLen != 24 || web.Gateway.String() != "10.244.1.1" || len(web.MacAddress) != 6 {
				t.Fatalf("inspect: %+v", web)
			}
			wantMatch(t, "network inspect", h.MustDocker("network", "inspect", "net1"), `"Name": "web1",\s*"EndpointID": "[0-9a-f]{64}",\s*"MacAddress": "`+web.MacAddress.String()+`",\s*"IPv4Address": "`+web.IPAddress.String()+`/24"`)
			wantMatch(t, "the configuration is kept", h.MustMinictl("network", "inspect", "-f", "{{.Options.config}} {{.IPAM.Driver}} {{.Scope}}", "net1"), `"hairpinMode":true.* cni local`)
			wantMatch(t, "ps", h.MustDocker("ps", "--format", "{{.Names}} {{.Ports}}"), `(?m)^web1 0\.0\.0\.0:8080->80/tcp$`)
			works := func(when string) {
				t.Helper()
				wantMatch(t, when+": by name", h.MustMinictl("exec", "box1", "ping", "-c", "1", "web1"), " 0% packet loss")
				wantMatch(t, when+": by alias", h.MustMinictl("exec", "web1", "ping", "-c", "1", "alias1"), " 0% packet loss")
				wantMatch(t, when+": from outside", fetch(t, laptop, "http://"+h.Addr().String()+":8080/"), "It works!")
				wantMatch(t, when+": from the host", fetch(t, h, "http://127.0.0.1:8080/"), "It works!")
				wantMatch(t, when+": to the outside", h.MustMinictl("exec", "box1", "ping", "-c", "1", laptop.Addr().String()), " 0% packet loss")
			}
			works("at first")
			h.KillDaemon()
			h.Daemon()
			works("after a restart of the daemon")
			h.MustMinictl("restart", "-t", "0", "web1")
			awaitListener(t, l, h, "web1", 80)
			works("after a restart of a container")
			if got := leases(t, h); len(got) != 2 {
				t.Errorf("two containers have the addresses %v", got)
			}
			h.MustDocker("rm", "-f", "web1", "box1")
			idle("rm -f")
			h.MustDocker("network", "rm", "net1")
			idle("network rm")
		})
	}
}

// TestCNIBeside puts containers on a CNI network and others at once: whoever leads outside does so, alive and after a restart,
// a port goes on being published, and what a configuration cannot fulfil is refused by name.
func TestCNIBeside(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	laptop := l.Client("laptop")
	conf := confFile(t, h, "10-flannel.conflist", fmt.Sprintf(flannelShape, "0.3.1"))
	h.MustMinictl("network", "create", "-d", "cni", "-o", "conf="+conf, "net1")
	h.MustMinictl("network", "create", "--subnet", "172.30.0.0/16", "br1")
	h.MustMinictl("network", "create", "-d", "overlay", "--subnet", "10.0.9.0/24", "ov1")
	quietBridge(t, l, h, "net1")
	used(l, h, "br1", "ov1")
	before := h.Snapshot()
	served := func(when string) {
		t.Helper()
		awaitListener(t, l, h, "web1", 80)
		wantMatch(t, when, fetch(t, laptop, "http://"+h.Addr().String()+":8080/"), "It works!")
		wantMatch(t, when+", on loopback", fetch(t, h, "http://127.0.0.1:8081/"), "It works!")
	}
	h.MustMinictl("run", "-d", "--name", "web1", "--network", "net1", "-p", "8080:80", "-p", "127.0.0.1:8081:80", "httpd")
	served("on one network")
	wantDefault(t, h, "web1", "10.244.1.1 dev eth0")
	h.MustDocker("network", "connect", "br1", "web1")
	served("connected to a bridge")
	wantDefault(t, h, "web1", "10.244.1.1 dev eth0")
	wantMatch(t, "both", h.MustMinictl("inspect", "-f", "{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{$v.IPAddress}} {{end}}", "web1"), `br1 172\.30\.0\.\d+ net1 10\.244\.1\.\d+ `)
	h.MustMinictl("restart", "-t", "0", "web1")
	served("started on both")
	wantDefault(t, h, "web1", "172.30.0.1 dev eth1")
	h.KillDaemon()
	h.Daemon()
	served("after a restart of the daemon")
	wantDefault(t, h, "web1", "172.30.0.1 dev eth1")
	fails(t, h, 1, "network net1: CNI plugins publish ports when a container joins", "network", "disconnect", "br1", "web1")
	served("when the bridge could not be left")

	h.MustMinictl("run", "-d", "--name", "box1", "--network", "br1", "busybox", "sleep", "600")
	h.MustDocker("network", "connect", "--alias", "alias1", "net1", "box1")
	wantDefault(t, h, "box1", "172.30.0.1 dev eth0")
	wantMatch(t, "by alias", h.MustMinictl("exec", "web1", "ping", "-c", "1", "alias1"), " 0% packet loss")
	h.MustMinictl("network", "disconnect", "br1", "box1")
	wantDefault(t, h, "box1", "10.244.1.1 dev eth1")
	h.MustMinictl("network", "disconnect", "net1", "box1")
	wantInterfaces(t, h, "box1", "")
	h.MustMinictl("run", "-d", "--name", "box2", "--network", "net1", "--network", "ov1", "busybox", "sleep", "600")
	wantDefault(t, h, "box2", "10.244.1.1 dev eth0")

	fails(t, h, 125, `network net1 takes no chosen address: no plugin of its CNI configuration cbr0 says "capabilities": {"ips": true}`, "run", "--rm", "--network", "net1", "--ip", "10.244.1.77", "busybox", "true")
	fails(t, h, 125, `network net1 takes no chosen MAC address: .*"mac"`, "run", "--rm", "--network", "net1", "--mac-address", "02:00:00:00:00:07", "busybox", "true")
	for flag, args := range map[string][]string{
		"--subnet": {"--subnet", "10.5.0.0/24"}, "--internal": {"--internal"}, "--ipv6": {"--ipv6"}, "--ipv4=false": {"--ipv4=false"}, "--ipam-opt": {"--ipam-opt", "a=b"},
	} {
		fails(t, h, 1, "does not support "+flag+" for networks of the driver cni", append(append([]string{"network", "create", "-d", "cni", "-o", "conf=" + conf}, args...), "net2")...)
	}
	fails(t, h, 1, "option conf: this host has no file /nosuch", "network", "create", "-d", "cni", "-o", "conf=/nosuch", "net2")
	fails(t, h, 1, `its CNI plugin "bridge" is in none of /nosuch`, "network", "create", "-d", "cni", "-o", "conf="+conf, "-o", "bin-path=/nosuch", "net2")
	fails(t, h, 1, "does not support --scope", "network", "create", "-d", "cni", "--scope", "global", "-o", "conf="+conf, "net2")

	h.MustMinictl("rm", "-f", "web1", "box1", "box2")
	if got := leases(t, h); len(got) > 0 {
		t.Errorf("left behind: leases %v", got)
	}
	l.Eventually(soon, func() error {
		if diff := lab.Diff(before, h.Snapshot()); diff != "" {
			return errf("left behind:\n%s", diff)
		}
		return nil
	})
}

// TestCNIKilled kills the daemon in the middle of what users do with containers on a CNI network, at each step in turn, and
// while a plugin is at work. The next daemon finds what was begun: nothing is left of it in the kernel, of the plugins'
// leases and of the driver's records, once the user has removed what is there.
func TestCNIKilled(t *testing.T) {
	t.Parallel()
	l := breakable(t)
	h := start(t, l, "host1")
	conf := confFile(t, h, "10-flannel.conflist", fmt.Sprintf(flannelShape, "1.0.0"))
	h.MustMinictl("network", "create", "-d", "cni", "-o", "conf="+conf, "net1")
	h.MustMinictl("network", "create", "br1")
	quietBridge(t, l, h, "net1")
	used(l, h, "br1")
	before, was := h.Snapshot(), traces(h)
	m := &matrix{l: l, host: h, at: h, done: map[string]bool{}, same: func() error {
		records, err := filepath.Glob(filepath.Join(h.Dir(), "data/cni/endpoints/*"))
		results, rerr := filepath.Glob(filepath.Join(h.Dir(), "data/cni/cache/results/*"))
		records, err = append(records, results...), errors.Join(err, rerr)
		extra := slices.DeleteFunc(traces(h), func(path string) bool { return slices.Contains(was, path) })
		if got := leases(t, h); err != nil || len(got)+len(records)+len(extra) > 0 {
			return errf("left behind: leases %v, records %v, %v; %v", got, records, extra, err)
		}
		if diff := lab.Diff(before, h.Snapshot()); diff != "" {
			return errf("left behind:\n%s", diff)
		}
		return nil
	}}
	m.settle = func(t *testing.T) {
		t.Helper()
		for _, c := range lines(h.MustMinictl("ps", "-a", "--format", "{{.Names}} {{.State}}")) {
			name, state, _ := strings.Cut(c, " ")
			wantMatch(t, "what is left", state, `^(created|running|exited)$`)
			networks := h.MustMinictl("inspect", "-f", "{{json .NetworkSettings.Networks}}", name)
			if state == "running" && strings.Contains(networks, "10.244.1.") {
				wantMatch(t, "what runs", h.MustMinictl("exec", name, "ping", "-c", "1", "10.244.1.1"), " 0% packet loss")
			}
			h.MustMinictl("rm", "-f", name)
		}
	}
	run := []string{"run", "-d", "--name", "victim", "-p", "8080:80", "--network", "net1", "busybox", "sleep", "600"}
	onBridge := []string{"run", "-d", "--name", "victim", "--network", "br1", "busybox", "sleep", "600"}
	connect := []string{"network", "connect", "net1", "victim"}
	for _, d := range []deed{
		{name: "run", do: run},
		{name: "rm", prepare: [][]string{run}, do: []string{"rm", "-f", "victim"}},
		{name: "connect", prepare: [][]string{onBridge}, do: connect},
		{name: "disconnect", prepare: [][]string{onBridge, connect}, do: []string{"network", "disconnect", "net1", "victim"}},
	} {
		m.run(t, d)
	}
	m.wantAll(t, "netdriver/cni")

	t.Run("plugin at work", func(t *testing.T) {
		script := "#!/bin/sh\ncase $CNI_COMMAND in\nVERSION) echo '{\"cniVersion\": \"1.0.0\", \"supportedVersions\": [\"1.0.0\"]}' ;;\n" +
			"ADD) echo $$ > /run/cni-add; sleep 6000 ;;\nDEL) touch /run/cni-del ;;\nesac\n"
		h.MustRun("mkdir", "-p", "/run/cni-bin")
		if err := os.WriteFile(h.Path("/run/cni-bin/slow"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		slow := confFile(t, h, "20-slow.conf", `{"name": "slow", "cniVersion": "1.0.0", "type": "slow"}`)
		h.MustMinictl("network", "create", "-d", "cni", "-o", "conf="+slow, "-o", "bin-path=/run/cni-bin", "net2")
		added := make(chan struct{})
		go func() {
			defer close(added)
			_, _, _ = h.Minictl("run", "-d", "--name", "victim", "--network", "net2", "busybox", "sleep", "600")
		}()
		var pid string
		l.Eventually(soon, func() error {
			b, err := os.ReadFile(h.Path("/run/cni-add"))
			pid = strings.TrimSpace(string(b))
			if pid == "" {
				return errf("ADD has not begun: %v", err)
			}
			return nil
		})
		h.MustMinictl("run", "--rm", "--network", "br1", "busybox", "true") // nobody else waits for the plugin
		fails(t, h, 1, "network net2 has active endpoints", "network", "rm", "net2")
		h.KillDaemon()
		<-added
		h.RestartDaemon()
		if _, err := os.Stat(h.Path("/run/cni-del")); err != nil {
			t.Errorf("DEL was not called: %v", err)
		}
		l.Eventually(soon, func() error {
			if b, err := os.ReadFile(h.Path("/proc/" + pid + "/stat")); err == nil && !strings.Contains(string(b), ") Z ") {
				return errf("the plugin still works: %s", b)
			}
			return nil
		})
		h.MustMinictl("rm", "-f", "victim")
		h.MustMinictl("network", "rm", "net2")
	})
}

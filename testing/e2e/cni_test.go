package e2e

import (
	"fmt"
	"os"
	"path/filepath"
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
			// What the first endpoint brings for all, the plugins leave: others may use it. The kernel would give the bridge an
			// IPv6 address at a time of its own.
			h.MustRun("ip", "link", "add", "cni0", "type", "bridge")
			h.MustRun("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/cni0/disable_ipv6")
			h.MustMinictl("run", "--rm", "--network", "net1", "-p", "8080:80", "busybox", "true")
			l.Eventually(soon, func() error { // the kernel tells a moment later that a bridge has no ports
				if state := h.MustRun("ip", "link", "show", "cni0"); !strings.Contains(state, "NO-CARRIER") {
					return errf("%s", state)
				}
				return nil
			})
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
			wantMatch(t, "ps", h.MustDocker("ps", "--format", "{{.Names}} {{.Ports}}"), `web1 0\.0\.0\.0:8080->80/tcp`)
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

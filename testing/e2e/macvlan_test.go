package e2e

import (
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// TestMacvlan puts containers on the host's own wire: a machine there reaches them by their addresses, they reach each
// other by name, and nothing of them stays.
func TestMacvlan(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	laptop := l.Client("laptop")
	before := h.Snapshot()
	h.MustDocker("network", "create", "-d", "macvlan", "--subnet", "192.168.66.0/24", "--gateway", "192.168.66.1", "--ip-range", "192.168.66.128/28", "-o", "parent=eth0", "lan")
	h.MustMinictl("run", "-d", "--name", "web1", "--network", "lan", "-p", "8080:80", "httpd")
	h.MustMinictl("run", "-d", "--name", "box1", "--network", "lan", "--ip", "192.168.66.99", "busybox", "sleep", "600")
	wantInterfaces(t, h, "web1", "eth0 192.168.66.128/24")
	wantDefault(t, h, "box1", "192.168.66.1 dev eth0")
	awaitListener(t, l, h, "web1", 80)
	wantMatch(t, "from the wire", fetch(t, laptop, "http://192.168.66.128/"), "It works!")
	wantMatch(t, "by name", h.MustMinictl("exec", "box1", "wget", "-q", "-O", "-", "http://web1/"), "It works!")
	wantMatch(t, "the wire's router", h.MustMinictl("exec", "box1", "ping", "-c", "1", "192.168.66.1"), ` 0% packet loss`)
	h.KillDaemon()
	h.Daemon()
	wantMatch(t, "over a restart of the daemon", fetch(t, laptop, "http://192.168.66.128/"), "It works!")
	h.MustMinictl("restart", "-t", "0", "web1")
	awaitListener(t, l, h, "web1", 80)
	wantMatch(t, "over its own", fetch(t, laptop, "http://192.168.66.128/"), "It works!")
	h.MustMinictl("network", "disconnect", "lan", "box1")
	wantInterfaces(t, h, "box1", "")
	fails(t, h, 1, `option parent: this host has no interface "nosuch0"`, "network", "create", "-d", "macvlan", "-o", "parent=nosuch0", "lan2")
	fails(t, h, 1, `minictl has no ipvlan driver`, "network", "create", "-d", "ipvlan", "-o", "parent=eth0", "lan2")
	h.MustRun("ip", "link", "add", "cable0", "type", "veth", "peer", "name", "cable1")
	h.MustMinictl("network", "create", "-d", "macvlan", "--subnet", "192.0.2.0/24", "-o", "parent=cable0", "-o", "macvlan_mode=passthru", "whole")
	h.MustMinictl("run", "-d", "--name", "only", "--network", "whole", "busybox", "sleep", "600")
	mac := strings.TrimSpace(h.MustRun("cat", "/sys/class/net/cable0/address"))
	wantMatch(t, "a passthru endpoint's MAC", h.MustDocker("inspect", "-f", "{{.NetworkSettings.Networks.whole.MacAddress}}", "only"), "^"+mac+`\s`)
	wantMatch(t, "as it is inside", h.MustMinictl("exec", "only", "cat", "/sys/class/net/eth0/address"), "^"+mac+`\s`)
	h.MustMinictl("rm", "-f", "only")
	fails(t, h, 125, `its endpoint has the MAC of the interface below, `+mac, "run", "--rm", "--network", "name=whole,mac-address=02:42:00:00:00:05", "busybox", "true")
	h.MustMinictl("network", "rm", "whole")
	h.MustRun("ip", "link", "del", "cable0")
	h.MustMinictl("rm", "-f", "web1", "box1")
	h.MustMinictl("network", "rm", "lan")
	if diff := lab.Diff(before, h.Snapshot()); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
}

package e2e

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/minictl/minictl/testing/lab"
)

// TestSeveralNetworks gives one run several networks: the order, who gives the default route, the old flags for the first
// of them, the options of endpoints.
func TestSeveralNetworks(t *testing.T) {
	t.Parallel()
	for _, c := range recentClients(t) {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t)
			h := start(t, l, "host1")
			c.must(h, "network", "create", "-d", "overlay", "ov_net1")
			c.must(h, "network", "create", "--subnet", "172.30.0.0/16", "br_b")
			c.must(h, "network", "create", "--subnet", "172.31.0.0/16", "br_a")
			c.must(h, "network", "create", "--subnet", "192.168.99.0/24", "--internal", "br_in")
			for _, v := range []struct {
				name, interfaces, route string
				args                    []string
			}{
				{"by name", "eth0 172.30.0.2/16, eth1 172.31.0.2/16", "172.31.0.1 dev eth1", []string{"--network", "br_b", "--network", "br_a"}},
				{"by priority", "eth0 172.30.0.2/16, eth1 172.31.0.2/16", "172.30.0.1 dev eth0", []string{"--network", "name=br_b,gw-priority=1", "--network", "br_a"}},
				{"by low priority", "eth0 172.31.0.2/16, eth1 172.30.0.2/16", "172.30.0.1 dev eth1", []string{"--network", "name=br_a,gw-priority=-1", "--network", "br_b"}},
				{"internal and overlay", "eth0 192.168.99.2/24, eth1 10.0.0.2/24, eth2 172.18.0.2/16", "172.18.0.1 dev eth2", []string{"--network", "br_in", "--network", "ov_net1"}},
				{"internal alone", "eth0 192.168.99.2/24", "", []string{"--network", "br_in"}},
				{"the first's flags", "eth0 10.0.0.77/24, eth1 172.30.5.5/16", "172.30.0.1 dev eth1", []string{"--network", "ov_net1", "--network", "name=br_b,ip=172.30.5.5", "--ip", "10.0.0.77", "--network-alias", "al"}},
				{"named interfaces", "eth0 172.31.0.2/16, wan0 172.30.0.2/16", "172.31.0.1 dev eth0", []string{"--network", "name=br_b,driver-opt=com.docker.network.endpoint.ifname=wan0", "--network", "br_a"}},
			} {
				c.must(h, append(append([]string{"run", "-d", "--name", "box"}, v.args...), "busybox", "sleep", "600")...)
				wantInterfaces(t, h, "box", v.interfaces)
				wantDefault(t, h, "box", v.route)
				c.must(h, "rm", "-f", "box")
			}
			c.must(h, "run", "-d", "--name", "box", "--network", "name=ov_net1,mac-address=02:aa:bb:cc:dd:01,\"driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.forwarding=0\"", "busybox", "sleep", "600")
			wantMatch(t, "mac", h.MustMinictl("exec", "box", "ip", "link", "show", "eth0"), `link/ether 02:aa:bb:cc:dd:01`)
			wantMatch(t, "sysctl", h.MustMinictl("exec", "box", "cat", "/proc/sys/net/ipv4/conf/eth0/log_martians"), `^1`)
			wantMatch(t, "sysctl", h.MustMinictl("exec", "box", "cat", "/proc/sys/net/ipv4/conf/eth0/forwarding"), `^0`)
			_, errOut, code := c.try(h, "run", "--rm", "--network", "name=br_a,driver-opt=com.docker.network.endpoint.ifname=x0", "--network", "name=br_b,driver-opt=com.docker.network.endpoint.ifname=x0", "busybox", "true")
			if code != 125 {
				t.Errorf("one interface name twice: code %d", code)
			}
			wantMatch(t, "one interface name twice", errOut, `x0 of network br_b is in use on network br_a`)
			if c.name == "minictl" { // docker's client sends its networks by name
				c.must(h, "run", "-d", "--name", "ordered", "--network", "br_in", "--network", "ov_net1", "--network", "br_b", "--network", "br_a", "busybox", "sleep", "600")
				for range 2 {
					wantInterfaces(t, h, "ordered", "eth0 192.168.99.2/24, eth1 10.0.0.3/24, eth2 172.30.0.2/16, eth3 172.31.0.2/16")
					c.must(h, "restart", "-t", "0", "ordered")
				}
				fails(t, h, 125, `cannot specify both --ip and per-network`, "run", "--rm", "--network", "name=br_a,ip=172.31.0.9", "--ip", "172.31.0.8", "busybox", "true")
			}
		})
	}
}

// TestLinks gives one container names of its own for another: on both hosts, before the shared ones, following the other
// container.
func TestLinks(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	h1.MustMinictl("run", "-d", "--name", "web1", "--network", "ov_net1", "httpd")
	h1.MustMinictl("run", "-d", "--name", "db", "--network", "ov_net1", "busybox", "sleep", "600")
	h2.MustMinictl("run", "-d", "--name", "linked", "--network", "ov_net1", "--link", "web1:db", "--link", "later", "busybox", "sleep", "600")
	h2.MustDocker("run", "-d", "--name", "linked2", "--network", "ov_net1", "--link", "web1:front", "busybox", "sleep", "600")
	h2.MustMinictl("run", "-d", "--name", "free", "--network", "ov_net1", "busybox", "sleep", "600")
	wantResolve(t, h2, "linked", "db", "10.0.0.2")
	wantResolve(t, h2, "linked", "web1", "10.0.0.2")
	wantResolve(t, h2, "linked2", "front", "10.0.0.2")
	wantResolve(t, h2, "free", "db", "10.0.0.3")
	wantResolve(t, h2, "free", "front", "")
	h1.MustMinictl("rename", "web1", "web2")
	wantResolve(t, h2, "linked", "db", "10.0.0.3") // nobody is called web1: the shared name
	h1.MustMinictl("rename", "web2", "web1")
	h2.KillDaemon()
	h2.Daemon()
	l.Eventually(soon, func() error { // host1's records come again
		if got := resolve(h2, "linked", "db"); got != "10.0.0.2" {
			return errf("linked resolves db to %q", got)
		}
		return nil
	})
	fails(t, h2, 125, `--link on the default bridge`, "run", "--rm", "--link", "web1:x", "busybox", "true")
}

// TestStaticAddress keeps what a user asked for as long as there is the container, in the whole cluster, over restarts;
// who wants it too is told who has it.
func TestStaticAddress(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	h1.MustMinictl("network", "create", "--subnet", "172.30.0.0/16", "br_net")
	taken := func(h *lab.Host, network, ip, holder string) {
		t.Helper()
		fails(t, h, 1, `Address already in use: `+strings.ReplaceAll(ip, ".", `\.`)+` on network `+network+` is held by container `+holder, "create", "--name", "thief", "--network", network, "--ip", ip, "busybox", "true")
		if out := h.MustMinictl("ps", "-aq", "--filter", "name=thief"); out != "" {
			t.Errorf("a refused create left %s", out)
		}
	}
	// Created, never started: nobody else gets it, neither by name nor by chance.
	h1.MustMinictl("create", "--name", "web1", "--network", "ov_net1", "--ip", "10.0.0.2", "busybox", "sleep", "600")
	h1.MustDocker("create", "--name", "loc1", "--network", "br_net", "--ip", "172.30.0.2", "busybox", "sleep", "600")
	taken(h1, "ov_net1", "10.0.0.2", "web1 on host1")
	taken(h2, "ov_net1", "10.0.0.2", "web1 on host1")
	taken(h1, "br_net", "172.30.0.2", "loc1 on host1")
	h2.MustMinictl("run", "-d", "--name", "dyn", "--network", "ov_net1", "busybox", "sleep", "600")
	if got := address(t, h2, "dyn", "ov_net1").String(); got != "10.0.0.3" {
		t.Errorf("dyn has %s", got)
	}
	h1.MustMinictl("run", "-d", "--name", "locdyn", "--network", "br_net", "busybox", "sleep", "600")
	wantInterfaces(t, h1, "locdyn", "eth0 172.30.0.3/16")
	for range 2 {
		h1.MustMinictl("start", "web1", "loc1")
		wantInterfaces(t, h1, "web1", "eth0 10.0.0.2/24, eth1 172.18.0.2/16")
		wantInterfaces(t, h1, "loc1", "eth0 172.30.0.2/16")
		l.Eventually(soon, func() error { // host1's daemon may have been started a moment ago: the hosts find each other again
			if got := resolve(h2, "dyn", "web1"); got != "10.0.0.2" {
				return errf("dyn resolves web1 to %q", got)
			}
			return nil
		})
		taken(h2, "ov_net1", "10.0.0.2", "web1 on host1")
		h1.MustMinictl("rename", "web1", "www")
		taken(h2, "ov_net1", "10.0.0.2", "www on host1")
		h1.MustMinictl("rename", "www", "web1")
		h1.MustMinictl("stop", "-t", "0", "web1", "loc1")
		h1.KillDaemon()
		h1.Daemon()
		taken(h1, "ov_net1", "10.0.0.2", "web1 on host1")
		taken(h1, "br_net", "172.30.0.2", "loc1 on host1")
	}
	// A dynamic address is free with the stop, a static one with the removal and with the disconnect.
	h2.MustMinictl("stop", "-t", "0", "dyn")
	h2.MustMinictl("run", "--rm", "--network", "ov_net1", "--ip", "10.0.0.3", "busybox", "true")
	h1.MustMinictl("rm", "web1", "loc1")
	h2.MustMinictl("run", "--rm", "--network", "ov_net1", "--ip", "10.0.0.2", "busybox", "true")
	h1.MustMinictl("create", "--name", "loc2", "--network", "br_net", "--ip", "172.30.0.2", "busybox", "sleep", "600")
	h1.MustMinictl("network", "disconnect", "br_net", "loc2")
	h1.MustMinictl("run", "--rm", "--network", "br_net", "--ip", "172.30.0.2", "busybox", "true")
	// A container that does not run keeps no network.
	h1.MustMinictl("create", "--name", "web3", "--network", "ov_net1", "--ip", "10.0.0.9", "busybox", "true")
	h2.MustMinictl("rm", "dyn")
	h2.MustMinictl("network", "rm", "ov_net1")
	fails(t, h1, 1, `network ov_net1 not found`, "start", "web3")
	h1.MustMinictl("rm", "web3")

	// Where the others come from: the range, without what is somebody's already. And the MAC address is for the asking.
	for i, c := range clients() {
		driver := []string{"bridge", "overlay"}[i]
		c.must(h1, "network", "create", "-d", driver, "--subnet", "10.50.0.0/24", "--ip-range", "10.50.0.128/25",
			"--aux-address", "printer=10.50.0.129", "--aux-address", "router=10.50.0.128", "--gateway", "10.50.0.130", "ranged")
		out := c.must(h1, "run", "--rm", "--network", "name=ranged,mac-address=02:42:00:00:00:05", "busybox", "sh", "-c", "cat /sys/class/net/eth0/address; ip -o -4 addr show eth0")
		wantMatch(t, c.name+" --ip-range, --aux-address", out, `^02:42:00:00:00:05\n.* 10\.50\.0\.131/24 `)
		wantMatch(t, c.name+" inspect", c.must(h1, "network", "inspect", "-f", "{{json .IPAM.Config}}", "ranged"),
			`"IPRange":"10.50.0.128/25","Gateway":"10.50.0.130","AuxiliaryAddresses":{"printer":"10.50.0.129","router":"10.50.0.128"}`)
		c.must(h1, "network", "rm", "ranged")
		out = c.must(h1, "run", "--rm", "--mac-address", "02:42:00:00:00:06", "busybox", "cat", "/sys/class/net/eth0/address")
		wantMatch(t, c.name+" --mac-address", out, `^02:42:00:00:00:06\n`)
		fails(t, h1, 1, `does not support --scope swarm for networks of the driver bridge`, "network", "create", "--scope", "swarm", "x")
	}
}

// TestLeftovers starts a daemon on what one that died half way left: a disconnect not carried out, a record that nothing
// stands behind.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net2")
	h1.MustMinictl("run", "-d", "--name", "web1", "--network", "ov_net1", "--network", "ov_net2", "httpd")
	h2.MustMinictl("run", "-d", "--name", "bbox2", "--network", "ov_net2", "busybox", "sleep", "600")
	wantResolve(t, h2, "bbox2", "web1", "10.0.1.2")
	h1.KillDaemon()
	unwish(t, h1.Path("/var/lib/minictl/state.db"), "ov_net2")
	addRecord(t, h1.Path("/var/lib/minictl/cluster/records.json"), "ov_net2", "ghost", "10.0.1.66")
	h1.Daemon()
	wantInterfaces(t, h1, "web1", "eth0 10.0.0.2/24, eth2 172.18.0.2/16")
	l.Eventually(soon, func() error {
		if a, b := resolve(h2, "bbox2", "web1"), resolve(h2, "bbox2", "ghost"); a+b != "" {
			return errf("web1 is %q, ghost is %q", a, b)
		}
		return nil
	})
	h2.MustMinictl("run", "--rm", "--network", "ov_net2", "--ip", "10.0.1.2", "busybox", "true") // free again
}

// unwish takes a network out of every container's wish, as a disconnect does before anything else.
func unwish(t *testing.T, path, network string) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("containers"))
		return b.ForEach(func(k, v []byte) error {
			var r map[string]map[string]any
			if err := json.Unmarshal(v, &r); err != nil {
				return err
			}
			delete(r["spec"]["networks"].(map[string]any), network)
			var order []any
			for _, key := range r["spec"]["networkOrder"].([]any) {
				if key != network {
					order = append(order, key)
				}
			}
			r["spec"]["networkOrder"] = order
			v, err := json.Marshal(r)
			if err != nil {
				return err
			}
			return b.Put(k, v)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// addRecord puts one more endpoint among those that a host's earlier daemon has published.
func addRecord(t *testing.T, path, network, name, addr string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var records []map[string]any
	if err := json.Unmarshal(text, &records); err != nil || len(records) == 0 {
		t.Fatalf("records: %v: %s", err, text)
	}
	ghost := map[string]any{}
	for _, r := range records {
		if ip := field(r, "address"); strings.HasPrefix(ip, "10.0.1.") {
			for k, v := range r {
				ghost[k] = v
			}
		}
	}
	for k := range ghost {
		switch strings.ToLower(k) {
		case "id":
			ghost[k] = strings.Repeat("f", 64)
		case "name":
			ghost[k] = name
		case "names":
			ghost[k] = []string{name}
		case "address":
			ghost[k] = addr
		}
	}
	if len(ghost) == 0 {
		t.Fatalf("no record on %s in %s", network, text)
	}
	text, err = json.Marshal(append(records, ghost))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func field(r map[string]any, name string) string {
	for k, v := range r {
		if s, ok := v.(string); ok && strings.EqualFold(k, name) {
			return s
		}
	}
	return ""
}

// TestNodeRemove drops a host that is gone for good, with its names and addresses, and not one that is alive.
func TestNodeRemove(t *testing.T) {
	t.Parallel()
	for _, c := range recentClients(t) {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t)
			h1, h2 := pair(t, l)
			h3 := start(t, l, "host3")
			h3.MustMinictl(append(joinArgs(t, h1), "192.168.66.11")...)
			h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
			for h, name := range map[*lab.Host]string{h1: "bbox1", h2: "bbox2"} {
				h.MustMinictl("run", "-d", "--name", name, "--network", "ov_net1", "busybox", "sleep", "600")
			}
			h3.MustMinictl("run", "-d", "--name", "gone1", "--network", "ov_net1", "busybox", "sleep", "600")
			h3.MustMinictl("run", "-d", "--name", "gone2", "--network", "ov_net1", "busybox", "sleep", "600")
			for _, bad := range []struct {
				pattern string
				args    []string
			}{
				{`host3: it is alive: run .minictl cluster leave. on it, or.*--force`, []string{"node", "rm", "host3"}},
				{`node nope not found`, []string{"node", "rm", "nope"}},
				{`gone1 is on host host3, which is alive`, []string{"network", "disconnect", "-f", "ov_net1", "gone1"}},
				{`No such container: gone1`, []string{"network", "disconnect", "ov_net1", "gone1"}},
			} {
				_, errOut, code := c.try(h1, bad.args...)
				if code != 1 {
					t.Errorf("%v: code %d", bad.args, code)
				}
				wantMatch(t, strings.Join(bad.args, " "), errOut, bad.pattern)
			}
			h3.Halt()
			l.Eventually(4*soon, func() error {
				if out := h1.MustMinictl("node", "ls", "--filter", "name=host3", "--format", "{{.Status}}"); strings.TrimSpace(out) != "Down" {
					return errf("host3 is %s", out)
				}
				return nil
			})
			// A container on a dead host can be let go alone, by force; then the host with all it had.
			c.must(h1, "network", "disconnect", "-f", "ov_net1", "gone1")
			c.must(h2, "run", "--rm", "--network", "ov_net1", "--ip", "10.0.0.4", "busybox", "true")
			_, errOut, code := c.try(h2, "run", "--rm", "--network", "ov_net1", "--ip", "10.0.0.5", "busybox", "true")
			if code != 125 {
				t.Errorf("an address of a host that may come back: code %d", code)
			}
			wantMatch(t, "an address of a host that may come back", errOut, `10\.0\.0\.5 .*gone2 on host3`)
			wantMatch(t, "node rm", c.must(h2, "node", "rm", "host3"), `^host3`)
			c.must(h2, "run", "--rm", "--network", "ov_net1", "--ip", "10.0.0.5", "busybox", "true")
			h1.KillDaemon()
			h1.Daemon()
			for _, h := range []*lab.Host{h1, h2} {
				if got := lines(c.must(h, "node", "ls", "-q")); len(got) != 2 {
					t.Errorf("%s lists %v", h.Name(), got)
				}
			}
		})
	}
}

// TestRoutesOfEveryHost chooses no subnet that some host routes elsewhere, also one that has changed a moment ago.
func TestRoutesOfEveryHost(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1 := start(t, l, "host1")
	h2 := l.Host("host2")
	h2.MustRun("ip", "route", "add", "10.0.0.0/24", "via", "192.168.66.1", "dev", "eth0", "onlink")
	h2.Daemon()
	loadImages(t, h2)
	join(t, h1, h2)
	subnet := func(name string) string {
		h1.MustMinictl("network", "create", "-d", "overlay", name)
		return strings.TrimSpace(h1.MustMinictl("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", name))
	}
	if got := subnet("n1"); got != "10.0.1.0/24" {
		t.Errorf("n1 has %s", got)
	}
	h2.MustRun("ip", "route", "add", "10.0.2.0/24", "via", "192.168.66.1", "dev", "eth0", "onlink")
	l.Eventually(soon, func() error {
		got := subnet("n2")
		h1.MustMinictl("network", "rm", "n2")
		if got != "10.0.3.0/24" {
			return errf("n2 has %s", got)
		}
		return nil
	})
	// Local networks keep off them too; each host's gateway bridge may stand where the others' stand.
	h2.MustRun("ip", "route", "add", "172.19.0.0/16", "via", "192.168.66.1", "dev", "eth0", "onlink")
	l.Eventually(soon, func() error {
		h1.MustMinictl("network", "create", "br_net")
		got := strings.TrimSpace(h1.MustMinictl("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "br_net"))
		h1.MustMinictl("network", "rm", "br_net")
		if got == "172.19.0.0/16" || !strings.HasPrefix(got, "172.") {
			return errf("br_net has %s", got)
		}
		return nil
	})
	for _, h := range []*lab.Host{h1, h2} {
		used(l, h, "n1")
		wantMatch(t, "the gateway bridge of "+h.Name(), h.MustMinictl("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "mini_gwbridge"), `^172\.`)
	}
}

package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// TestBridgeOptions is what docker's options of bridges do: who reaches whom, by which address, under which name.
func TestBridgeOptions(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	laptop := l.Client("laptop")
	before := h.Snapshot()
	const mode, routed, unprotected = "com.docker.network.bridge.gateway_mode_ipv4=", "172.30.0.2", "172.31.0.2"
	h.MustMinictl("network", "create", "--subnet", "172.30.0.0/16", "-o", mode+"routed", "-o", "com.docker.network.container_iface_prefix=wan", "-o", "com.docker.network.bridge.name=br-routed", "br_r")
	h.MustDocker("network", "create", "--subnet", "172.31.0.0/16", "-o", mode+"nat-unprotected", "-o", "com.docker.network.bridge.host_binding_ipv4=127.0.0.1", "br_u")
	h.MustMinictl("network", "create", "--subnet", "192.168.99.0/24", "--internal", "-o", mode+"isolated", "-o", "com.docker.network.bridge.enable_icc=false", "br_i")
	h.MustMinictl("network", "create", "--subnet", "192.168.98.0/24", "-o", "com.docker.network.bridge.trusted_host_interfaces=eth0", "-o", "com.docker.network.host_ipv4=192.168.66.77", "-o", "com.docker.network.driver.mtu=1400", "br_t")
	h.MustRun("ip", "addr", "add", "192.168.66.77/24", "dev", "eth0")
	for _, subnet := range []string{"172.30.0.0/16", "172.31.0.0/16", "192.168.98.0/24", "192.168.99.0/24"} {
		laptop.MustRun("ip", "route", "add", subnet, "via", h.Addr().String())
	}
	h.MustMinictl("run", "-d", "--name", "ro", "--network", "br_r", "-p", "8080:80", "httpd")
	h.MustMinictl("run", "-d", "--name", "un", "--network", "br_u", "-p", "8081:80", "httpd")
	h.MustMinictl("run", "-d", "--name", "i1", "--network", "br_i", "-p", "8082:80", "httpd")
	h.MustMinictl("run", "-d", "--name", "i2", "--network", "br_i", "busybox", "sleep", "600")
	h.MustMinictl("run", "-d", "--name", "tr", "--network", "br_t", "-p", "8083:80", "httpd")
	h.MustMinictl("run", "-d", "--name", "plain", "--network", "br_t", "httpd")
	for _, name := range []string{"ro", "un", "i1", "tr", "plain"} {
		awaitListener(t, l, h, name, 80)
	}
	wantInterfaces(t, h, "ro", "wan0 172.30.0.2/16")
	wantMatch(t, "MTU", h.MustMinictl("exec", "tr", "cat", "/sys/class/net/eth0/mtu"), `^1400`)
	for _, c := range []struct {
		what    string
		from    *lab.Host
		to      string
		reached bool
	}{
		{"routed, by its own address", laptop, routed + ":80", true},
		{"routed, by the host's", laptop, "192.168.66.11:8080", false},
		{"unprotected, by its own address", laptop, unprotected + ":80", true},
		{"bound to 127.0.0.1 by default, from outside", laptop, "192.168.66.11:8081", false},
		{"bound to 127.0.0.1 by default, from the host", h, "127.0.0.1:8081", true},
		{"isolated, from outside", laptop, "192.168.99.2:80", false},
		{"isolated, from the host", h, "192.168.99.2:80", false},
		{"a published port by a trusted interface", laptop, "192.168.98.2:80", true},
		{"an unpublished one by it", laptop, "192.168.98.3:80", false},
		{"the published one by the host's address", laptop, "192.168.66.11:8083", true},
	} {
		conn, err := dial(c.from, c.to)
		if err == nil {
			conn.Close()
		}
		if (err == nil) != c.reached {
			t.Errorf("%s: reached %v (%v)", c.what, err == nil, err)
		}
	}
	seen := laptop.Start(self(t), attack, "accept", ":7000")
	awaitWatcher(l, seen)
	for container, as := range map[string]string{"ro": routed, "un": "192.168.66.11", "tr": "192.168.66.77"} {
		l.Eventually(soon, func() error {
			h.Minictl("exec", container, "nc", "-w", "5", laptop.Addr().String(), "7000")
			if !strings.Contains(seen.Output(), "from "+as+"\n") {
				return errf("%s never came as %s: %s", container, as, seen.Output())
			}
			return nil
		})
	}
	wantMatch(t, "a routed port", h.MustMinictl("ps", "--filter", "name=^ro$", "--format", "{{.Ports}}"), `(?m)^80/tcp$`)
	if _, _, code := h.Minictl("exec", "i2", "wget", "-q", "-T", "2", "-O", "-", "http://192.168.99.2/"); code == 0 {
		t.Error("ICC is off, yet i2 reaches i1")
	}
	for _, c := range []struct{ pattern, option string }{
		{`gateway mode 'isolated' can only be used for an internal network`, mode + "isolated"},
		{`"bridged" is not nat, nat-unprotected, routed or isolated`, mode + "bridged"},
		{`"x/" is not the beginning of an interface name`, "com.docker.network.container_iface_prefix=x/"},
	} {
		fails(t, h, 1, c.pattern, "network", "create", "-o", c.option, "refused")
	}
	fails(t, h, 1, `option encrypted: minictl does not encrypt`, "network", "create", "-d", "overlay", "-o", "encrypted", "refused")
	_, errOut, code := h.Minictl("network", "create", "-o", "com.docker.network.bridge.typo=1", "odd")
	if code != 0 || !strings.Contains(errOut, "does not know, and keeps without effect: com.docker.network.bridge.typo") {
		t.Errorf("an unknown option: code %d, %s", code, errOut)
	}
	h.MustMinictl("rm", "-f", "ro", "un", "i1", "i2", "tr", "plain")
	h.MustMinictl("network", "rm", "br_r", "br_u", "br_i", "br_t", "odd")
	h.MustRun("ip", "addr", "del", "192.168.66.77/24", "dev", "eth0")
	if diff := lab.Diff(before, h.Snapshot()); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
}

// TestPortForms is what of -p the other tests leave out: SCTP, ten thousand at once, a port that a process has.
func TestPortForms(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	laptop := l.Client("laptop")
	before := h.Snapshot()
	h.MustMinictl("run", "-d", "--name", "many", "-p", "20000-29999:20000-29999", "-p", "40000-40009:25000-25009", "-p", "3868:3868/sctp", "-p", "9000-9002:9000-9002/udp", "busybox", "httpd", "-f", "-p", "25000")
	table := h.MustRun("nft", "list", "table", "inet", "minictl")
	for _, want := range []string{`tcp \. 20000-29999 : 172\.17\.0\.2`, `udp \. 9000-9002 : 172\.17\.0\.2`, `sctp \. 3868 : 172\.17\.0\.2 \. 3868`, `tcp \. 40009 : 172\.17\.0\.2 \. 25009`} {
		wantMatch(t, "the table", table, want)
	}
	if n := strings.Count(table, "172.17.0.2"); n != 3+10 { // ports that keep their numbers are one, the others one each
		t.Errorf("%d elements for the container", n)
	}
	awaitListener(t, l, h, "many", 25000)
	for _, from := range []*lab.Host{laptop, h} {
		for _, port := range []string{"25000", "40000"} {
			c, err := dial(from, "192.168.66.11:"+port)
			if err != nil {
				t.Errorf("%s, port %s: %v", from.Name(), port, err)
				continue
			}
			c.Close()
		}
	}
	wantMatch(t, "sctp is shown", h.MustMinictl("port", "many", "3868/sctp"), `0\.0\.0\.0:3868`)
	fails(t, h, 125, `29999 failed: port is already allocated: many holds it`, "run", "--rm", "-p", "29999:80", "busybox", "true")
	h.KillDaemon()
	h.Daemon()
	fails(t, h, 125, `20000 failed: port is already allocated: many holds it`, "run", "--rm", "-p", "20000:80", "busybox", "true")
	p := h.Start(self(t), attack, "accept", "192.168.66.11:7000")
	awaitWatcher(l, p)
	fails(t, h, 125, `7000 failed: port is already allocated: \S+ \(pid \d+\) holds it`, "run", "--rm", "-p", "7000:80", "busybox", "true")
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	h.MustMinictl("rm", "-f", "many")
	h.MustMinictl("run", "--rm", "-p", "7000:80", "-p", "20000:80", "busybox", "true")
	if diff := lab.Diff(before, h.Snapshot()); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
}

// self is this test program's file.
func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// awaitWatcher waits until an attack's other end is ready.
func awaitWatcher(l *lab.Lab, p *lab.Process) {
	l.Eventually(soon, func() error {
		if !strings.Contains(p.Output(), "watching") {
			return errf("no watcher yet: %s", p.Output())
		}
		return nil
	})
}

package e2e

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/minictl/minictl/testing/certs"
	"github.com/minictl/minictl/testing/lab"
)

// TestDaemonTLS serves the API to another host, to clients with a certificate only.
func TestDaemonTLS(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, laptop := l.Host("host1"), l.Host("laptop")
	mine, others := t.TempDir(), t.TempDir()
	for _, dir := range []string{mine, others} {
		if err := certs.Write(dir, net.ParseIP(h1.Addr().String())); err != nil {
			t.Fatal(err)
		}
	}
	files := func(dir string) []string {
		return []string{"--tlsverify", "--tlscacert", filepath.Join(dir, "ca.pem"), "--tlscert", filepath.Join(dir, "cert.pem"), "--tlskey", filepath.Join(dir, "key.pem")}
	}
	// What would give the host away does not start.
	fails(t, h1, 1, `whoever reaches it is root on this host: add --tlsverify`, "daemon", "-H", "tcp://0.0.0.0:2375")
	h1.Daemon(append([]string{"-H", "unix://" + lab.Socket, "-H", "tcp://0.0.0.0:2376"}, files(mine)...)...)
	loadImages(t, h1)
	h1.MustMinictl("run", "-d", "--name", "bbox1", "busybox", "sleep", "600")
	remote := []string{"-H", "tcp://" + h1.Addr().String() + ":2376"}
	bin, err := lab.Binary()
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{bin, "docker"} {
		run := func(args ...string) string {
			return laptop.MustRun(slices.Concat([]string{program, "--config", t.TempDir()}, remote, files(mine), args)...)
		}
		if got := run("ps", "--format", "{{.Names}}"); got != "bbox1\n" {
			t.Errorf("%s: ps over TLS: %q", program, got)
		}
		// A stream that takes the connection over.
		if got := run("exec", "bbox1", "echo", "heard"); got != "heard\n" {
			t.Errorf("%s: exec over TLS: %q", program, got)
		}
	}
	fails(t, laptop, 1, `certificate signed by unknown authority`, slices.Concat(remote, files(others), []string{"ps"})...)
	stranger := slices.Concat(files(mine)[:3], files(others)[3:], []string{"ps"}) // trusts the daemon, which does not trust it
	fails(t, laptop, 1, `remote error: tls: .*certificate`, slices.Concat(remote, stranger)...)
	fails(t, laptop, 1, `HTTPS server`, append(remote, "ps")...)
}

// TestDaemonConfiguration is the configuration file, what SIGHUP changes, and what systemd is told.
func TestDaemonConfiguration(t *testing.T) {
	l := lab.New(t)
	h := l.Host("host1")
	dir, err := os.MkdirTemp("", "cfg") // t.TempDir's names can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file, other := filepath.Join(dir, "daemon.json"), "/run/second.sock"
	configure := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure(`{"bop": "10.0.0.1/24"}`)
	fails(t, h, 1, `don't match any configuration option: bop`, "daemon", "--validate", "--config-file", file)
	fails(t, h, 1, `--debug in front of daemon`, "--debug", "daemon")
	hosts := `"hosts": ["unix://` + lab.Socket + `", "unix://` + other + `"]`
	configure(`{` + hosts + `, "web": "off", "log-driver": "local", "log-opts": {"max-file": "3"}}`)
	if _, errOut, code := h.Minictl("daemon", "--validate", "--config-file", file); code != 0 || errOut != "configuration OK\n" {
		t.Errorf("validate: %d, %q", code, errOut)
	}
	fails(t, h, 1, `specified both as a flag and in the configuration file: web: `, "daemon", "--config-file", file, "--web", "off")

	said, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "n"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { said.Close() })
	hear := func(want string) {
		t.Helper()
		buf := make([]byte, 1000)
		if err := said.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		n, err := said.Read(buf)
		if err != nil || !strings.HasPrefix(string(buf[:n]), want) {
			t.Fatalf("systemd heard %q, %v, want %q", buf[:n], err, want)
		}
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "n"))
	p := h.Daemon("--config-file", file)
	hear("READY=1")
	if got := h.MustMinictl("-H", "unix://"+other, "info", "-f", "{{.Debug}}"); got != "false\n" {
		t.Errorf("debug: %q", got)
	}
	reload := func() {
		t.Helper()
		if err := p.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		hear("RELOADING=1\nMONOTONIC_USEC=")
		hear("READY=1")
	}
	configure(`{` + hosts + `, "web": "off", "debug": true, "labels": ["rack=7"], "log-driver": "local", "log-opts": {"max-file": "3"}}`)
	reload()
	if got := h.MustMinictl("info", "-f", "{{.Debug}} {{.Labels}}"); got != "true [rack=7]\n" {
		t.Errorf("after reload: %q", got)
	}
	loadImages(t, h)
	for _, c := range clients() {
		if got := c.must(h, "info", "-f", "{{.LoggingDriver}}"); got != "local\n" {
			t.Errorf("%s: info: logging driver %q", c.name, got)
		}
		const logOf = "{{.HostConfig.LogConfig.Type}} {{json .HostConfig.LogConfig.Config}}"
		c.must(h, "run", "--name", "told", "--log-opt", "max-size=1m", "busybox", "echo", "x")
		c.must(h, "run", "--name", "other", "--log-driver", "json-file", "busybox", "true")
		if got := c.field(h, "told", logOf) + " " + c.field(h, "other", logOf) + " " + c.must(h, "logs", "told"); got != `local {"max-file":"3","max-size":"1m"} json-file {} x`+"\n" {
			t.Errorf("%s: containers' logs: %s", c.name, got)
		}
		c.must(h, "rm", "told", "other")
	}
	configure(`{` + hosts + `, "node-name": "x", "debug": false}`)
	reload()
	if got := h.MustMinictl("info", "-f", "{{.Debug}}"); got != "true\n" {
		t.Errorf("half a configuration was applied: debug %q", got)
	}
	wantMatch(t, "daemon's log", p.Output(), `\[log-driver log-opts node-name web\] cannot change while the daemon runs`)
	h.StopDaemon()
	hear("STOPPING=1")
}

// TestDefaultBridge has dockerd's settings of the default bridge, of networks and of resolvers in daemon.json: they hold for
// those that do not say, as late as no container is on the bridge.
func TestDefaultBridge(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h, laptop := start(t, l, "host1"), l.Client("laptop")
	six := sixth(h, 11)
	sixth(laptop, 99)
	restart := func(settings string) {
		t.Helper()
		h.KillDaemon()
		const file = "/run/daemon.json"
		if err := os.WriteFile(h.Path(file), []byte(settings), 0o600); err != nil {
			t.Fatal(err)
		}
		h.Daemon("--config-file", file)
	}
	config := func() string {
		return h.MustDocker("network", "inspect", "-f", "{{.EnableIPv6}}{{range .IPAM.Config}} {{.Subnet}} {{.IPRange}} {{.Gateway}}{{end}}", "bridge")
	}
	const before = "false 172.17.0.0/16  172.17.0.1\n"
	if got := config(); got != before {
		t.Fatalf("the default bridge: %q", got)
	}
	h.MustMinictl("run", "-d", "--name", "old", "busybox", "sleep", "600")
	const settings = `{"bip": "10.77.0.9/24", "fixed-cidr": "10.77.0.64/26", "ipv6": true, "fixed-cidr-v6": "fd00:d::/64", "ip6tables": true, "mtu": 1400, "ip": "192.168.66.11",
		"dns": ["192.168.66.1"], "dns-search": ["example"], "dns-opts": ["timeout:3"], "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1300"}}}`
	restart(settings)
	if got := config(); got != before {
		t.Errorf("the default bridge under a container: %q", got)
	}
	h.MustMinictl("rm", "-f", "old")
	restart(settings)
	if got, want := config(), "true 10.77.0.0/24 10.77.0.64/26 10.77.0.9 fd00:d::/64  fd00:d::1\n"; got != want {
		t.Errorf("the default bridge: %q, want %q", got, want)
	}
	h.MustMinictl("run", "-d", "--name", "web", "-p", "8080:80", "-p", "[::]:8081:80", "httpd")
	awaitListener(t, l, h, "web", 80)
	addrs := h.MustMinictl("exec", "web", "ip", "addr", "show", "eth0")
	for _, want := range []string{`mtu 1400`, `inet 10\.77\.0\.64/24`, `inet6 fd00:d::2/64`} {
		wantMatch(t, "a container", addrs, want)
	}
	wantDefault(t, h, "web", "10.77.0.9 dev eth0")
	wantMatch(t, "outside by IPv6", h.MustMinictl("exec", "web", "ping", "-6", "-c", "1", "-W", "10", "fd00:66::99"), ` 0% packet loss`)
	wantMatch(t, "by IPv6", fetch(t, laptop, "http://["+six+"]:8081/"), "It works!")
	wantMatch(t, "by the address of --ip", fetch(t, laptop, "http://192.168.66.11:8080/"), "It works!")
	if c, err := dial(h, "127.0.0.1:8080"); err == nil {
		c.Close()
		t.Error("a port answers beside --ip")
	}
	wantMatch(t, "resolv.conf", h.MustMinictl("exec", "web", "cat", "/etc/resolv.conf"), `(?s)nameserver 192\.168\.66\.1\nsearch example\noptions timeout:3\n`)
	h.MustMinictl("network", "create", "plain")
	h.MustMinictl("network", "create", "-o", "com.docker.network.driver.mtu=1200", "own")
	for network, mtu := range map[string]string{"plain": "1300", "own": "1200"} {
		wantMatch(t, network, h.MustMinictl("run", "--rm", "--network", network, "busybox", "ip", "link", "show", "eth0"), `mtu `+mtu+` `)
	}
	wantMatch(t, "resolv.conf with the resolver", h.MustMinictl("run", "--rm", "--network", "own", "busybox", "cat", "/etc/resolv.conf"), `(?s)search example\n.*# ExtServers: \[192\.168\.66\.1\]`)
	h.MustMinictl("rm", "-f", "web")
	restart(`{"ipv6": true, "userland-proxy": false}`)
	wantMatch(t, "IPv6 by itself", config(), `^true 172\.17\.0\.0/16  172\.17\.0\.1 fd[0-9a-f:]+::/64 `)
	h.MustMinictl("network", "create", "--ipv4=true", "four")
	h.MustMinictl("run", "-d", "--name", "web", "--network", "four", "-p", "8080:80", "httpd")
	awaitListener(t, l, h, "web", 80)
	if _, err := dial(h, "[::1]:8080"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("without the proxy: %v", err)
	}
	if out := h.MustMinictl("port", "web"); out != "80/tcp -> 0.0.0.0:8080\n" {
		t.Errorf("without the proxy: %q", out)
	}
	restart(`{}`)
	if got := config(); got != before {
		t.Errorf("without settings: %q", got)
	}
}

// TestDaemonCleanup leaves the host as it was before the first daemon, containers or not; images stay until purged.
func TestDaemonCleanup(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := l.Host("host1")
	const forward = "/proc/sys/net/ipv4/ip_forward"
	h.MustRun("sh", "-c", "echo 0 > "+forward)
	before := h.Snapshot()
	clean := func(when string) {
		t.Helper()
		l.Eventually(soon, func() error {
			if diff := lab.Diff(before, h.Snapshot()); diff != "" {
				return errf("%s: left behind:\n%s", when, diff)
			}
			return nil
		})
		if got := h.MustRun("cat", forward); got != "0\n" {
			t.Errorf("%s: ip_forward is %q", when, got)
		}
	}
	h.Daemon()
	loadImages(t, h)
	h.MustMinictl("cluster", "init", "--advertise-addr", "eth0")
	h.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	h.MustMinictl("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "scratch")
	h.MustMinictl("run", "-d", "--name", "web1", "--network", "ov_net1", "-p", "8080:80", "-v", "scratch:/s", "httpd")
	h.MustMinictl("run", "-d", "--name", "bbox1", "--shm-size", "1m", "busybox", "sleep", "600")
	if got := h.MustRun("cat", forward); got != "1\n" {
		t.Errorf("ip_forward is %q with containers", got)
	}
	fails(t, h, 1, `another minictl daemon`, "daemon", "--cleanup")
	h.KillDaemon()
	fails(t, h, 1, `2 containers still run \([0-9a-f]{12}, [0-9a-f]{12}\): stop them first, or end them with --force`, "daemon", "--cleanup")
	wantMatch(t, "cleanup", h.MustMinictl("daemon", "--cleanup", "--force"), `(?s)Ended containers: .*Removed: /run/minictl\n$`)
	clean("with containers")
	h.MustMinictl("daemon", "--cleanup") // once more changes nothing
	clean("twice")

	// The next daemon finds what a reboot would have left it.
	h.Daemon()
	wantMatch(t, "ps -a", h.MustMinictl("ps", "-a", "--format", "{{.Names}} {{.Status}}"), `bbox1 Exited \(255\)`)
	h.MustMinictl("start", "web1")
	h.MustMinictl("stop", "-t", "0", "web1")
	h.StopDaemon()
	wantMatch(t, "purge", h.MustMinictl("daemon", "--cleanup", "--purge"), `Removed: /var/lib/minictl\n$`)
	clean("purged")
	if got := h.MustRun("ls", "-A", "/var/lib/minictl"); got != "" {
		t.Errorf("purge left %s", got)
	}

	// Another engine that came later found forwarding on, and goes on needing it.
	h.MustRun("ip", "link", "add", "other0", "type", "bridge")
	h.Daemon()
	loadImages(t, h)
	h.MustMinictl("run", "--rm", "busybox", "true")
	h.StopDaemon()
	wantMatch(t, "beside another engine", h.MustMinictl("daemon", "--cleanup", "--purge"), `Kept: forwarding between links as it is, for others may need it: other0\n`)
	if got := h.MustRun("cat", forward); got != "1\n" {
		t.Errorf("beside another engine: ip_forward is %q", got)
	}
}

package e2e

import (
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
	configure(`{"bip": "10.0.0.1/24"}`)
	fails(t, h, 1, `don't match any configuration option: bip`, "daemon", "--validate", "--config-file", file)
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

package e2e

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/minictl/minictl/testing/lab"
)

// TestPortsAgain is what becomes of published ports over stops, starts, renames, moves and restarts of the daemon.
func TestPortsAgain(t *testing.T) {
	t.Parallel()
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t)
			h := start(t, l, "host1")
			laptop := l.Client("laptop")
			c.must(h, "network", "create", "-d", "overlay", "ov_net1")
			c.must(h, "network", "create", "--subnet", "172.30.0.0/16", "br_net")
			c.must(h, "run", "-d", "--name", "web", "--network", "ov_net1", "-p", "8080:80", "-p", "9000-9002:80-82", "-p", "7000-7010:80", "-P", "--expose", "5000-5001", "httpd")
			port := func(of string) string {
				t.Helper()
				m := regexp.MustCompile(`0\.0\.0\.0:(\d+)`).FindStringSubmatch(c.must(h, "port", "web", of))
				if m == nil {
					t.Fatalf("no port of %s in %s", of, c.must(h, "port", "web"))
				}
				return m[1]
			}
			given := c.must(h, "port", "web", "80")
			for _, want := range []string{":8080", ":9000", ":7000"} {
				wantMatch(t, "given ports", given, want)
			}
			random := port("5000")
			if random == port("5001") {
				t.Errorf("5000 and 5001 both at %s", random)
			}
			awaitListener(t, l, h, "web", 80)
			wantMatch(t, "the page", fetch(t, laptop, "http://192.168.66.11:7000/"), "It works!")

			// The first free one of a range; the range's end.
			c.must(h, "run", "-d", "--name", "next", "-p", "7000-7001:80", "busybox", "sleep", "600")
			wantMatch(t, "the first free of a range", c.must(h, "port", "next"), `80/tcp -> 0\.0\.0\.0:7001`)
			_, errOut, code := c.try(h, "run", "--rm", "-p", "7000-7001:80", "busybox", "true")
			if code != 125 {
				t.Errorf("no port left: code %d", code)
			}
			wantMatch(t, "no port left", errOut, `7000-7001 are allocated`)

			// A move keeps all of them, chosen ones too; the daemon's restart as well.
			c.must(h, "network", "connect", "br_net", "web")
			h.KillDaemon()
			h.Daemon()
			if got := port("5000"); got != random {
				t.Errorf("5000 is at %s, was at %s", got, random)
			}
			if got := c.must(h, "port", "web", "80"); got != given {
				t.Errorf("after the move:\n%s\nwas:\n%s", got, given)
			}
			wantMatch(t, "the page after the move", fetch(t, laptop, "http://192.168.66.11:7000/"), "It works!")

			// Docker's rule for the next start: the same numbers where they were given, others where not.
			c.must(h, "restart", "-t", "0", "web")
			if got := c.must(h, "port", "web", "80"); got != given {
				t.Errorf("after the restart:\n%s\nwas:\n%s", got, given)
			}
			if got := port("5000"); got == random {
				t.Errorf("5000 is at %s again", got)
			}
			// The old name's claims are the new name's, and free with its end.
			c.must(h, "rename", "web", "renamed")
			_, errOut, _ = c.try(h, "run", "--rm", "-p", "8080:80", "busybox", "true")
			wantMatch(t, "a taken port", errOut, `8080 failed: port is already allocated: renamed holds it`)
			c.must(h, "stop", "-t", "0", "renamed")
			c.must(h, "run", "--rm", "-p", "8080:80", "-p", "9000-9002:80-82", "-p", "7000:80", "busybox", "true")
			c.must(h, "start", "renamed")
			c.must(h, "rm", "-f", "renamed")
			c.must(h, "run", "--rm", "-p", "8080:80", "busybox", "true")
		})
	}
}

// TestUDPStreams wants a UDP stream that goes on to reach the container that has the port now, not the one that had it
// when the kernel saw its first packet.
func TestUDPStreams(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	laptop := l.Client("laptop")
	h.MustMinictl("network", "create", "--subnet", "172.30.0.0/16", "br_net")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	serve := func(name, network string) {
		h.MustMinictl("run", "-d", "--name", name, "--network", network, "-p", "5300:53/udp", "-v", self+":/echo:ro", "busybox", "sleep", "600")
		h.MustMinictl("exec", "-d", name, "/echo", udpEcho)
	}
	conn, err := laptop.Dial(deadline(), "udp", "192.168.66.11:5300")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answered := func(what string) {
		t.Helper()
		l.Eventually(10*time.Second, func() error { // less than the kernel remembers a stream
			_ = conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
			if _, err := conn.Write([]byte(what)); err != nil {
				return err
			}
			buf := make([]byte, 100)
			n, err := conn.Read(buf)
			if err != nil {
				return err
			}
			if !strings.HasPrefix(string(buf[:n]), what+" from ") {
				return errf("%s: the echo says %q", what, buf[:n])
			}
			return nil
		})
	}
	serve("first", "bridge")
	answered("first")
	h.MustMinictl("rm", "-f", "first")
	_, _ = conn.Write([]byte("to nobody")) // the kernel notes a stream to the host itself
	serve("second", "br_net")
	answered("second")
	// And after a move to another network, which gives it another address.
	h.MustMinictl("network", "connect", "bridge", "second")
	answered("moved to the first by name")
	h.MustMinictl("network", "disconnect", "bridge", "second")
	answered("moved back")
}

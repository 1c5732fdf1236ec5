package e2e

import (
	"net"
	"regexp"
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
	six := sixth(h, 11)
	sixth(laptop, 99)
	h.MustMinictl("network", "create", "--subnet", "172.30.0.0/16", "--subnet", "fd00:30::/64", "br_net")
	h.MustMinictl("network", "create", "--subnet", "172.31.0.0/16", "--subnet", "fd00:31::/64", "br_a")
	serve := func(name, network string) {
		h.MustMinictl("run", "-d", "--name", name, "--network", network, "-p", "5300:53/udp", "-v", self(t)+":/echo:ro", "busybox", "sleep", "600")
		h.MustMinictl("exec", "-d", name, "/echo", udpEcho)
	}
	var streams []net.Conn
	for _, to := range []string{"192.168.66.11:5300", "[" + six + "]:5300"} {
		conn, err := laptop.Dial(deadline(), "udp", to)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		streams = append(streams, conn)
	}
	answered := func(what string) {
		t.Helper()
		for _, conn := range streams {
			l.Eventually(10*time.Second, func() error { return echoed(conn, what) }) // less than the kernel remembers a stream
		}
	}
	serve("first", "br_a")
	answered("first")
	h.MustMinictl("rm", "-f", "first")
	for _, conn := range streams {
		_, _ = conn.Write([]byte("to nobody")) // the kernel notes a stream to the host itself
	}
	serve("second", "br_net")
	answered("second")
	// And after a move to another network, which gives it other addresses.
	h.MustMinictl("network", "connect", "br_a", "second")
	answered("moved to the first by name")
	h.MustMinictl("network", "disconnect", "br_a", "second")
	answered("moved back")
	// To a network without IPv6, where the daemon itself leads there, and back to the rules.
	h.MustMinictl("network", "connect", "bridge", "second")
	h.MustMinictl("network", "disconnect", "br_net", "second")
	answered("without IPv6")
	h.MustMinictl("network", "connect", "br_net", "second")
	h.MustMinictl("network", "disconnect", "bridge", "second")
	answered("with IPv6 again")
}

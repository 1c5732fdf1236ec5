package e2e

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/minictl/minictl/testing/lab"
)

// sixth gives a host of the lab an IPv6 address on the underlay as well.
func sixth(h *lab.Host, last int) string {
	addr := fmt.Sprintf("fd00:66::%d", last)
	h.MustRun("ip", "addr", "add", addr+"/64", "dev", "eth0", "nodad")
	return addr
}

// TestIPv6 is a cluster whose hosts know each other by IPv6 addresses alone, and networks of both families on it: control
// plane, tunnels, names, published ports and the way outside.
func TestIPv6(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := l.Host("host1"), l.Host("host2")
	a1, a2 := sixth(h1, 11), sixth(h2, 12)
	laptop := l.Client("laptop")
	sixth(laptop, 99)
	for _, h := range []*lab.Host{h1, h2} {
		h.Daemon()
		loadImages(t, h)
	}
	line := joinLine(t, h1.MustMinictl("cluster", "init", "--advertise-addr", a1))
	h2.MustMinictl(append(line, "--advertise-addr", a2)...)
	before := []lab.Snapshot{h1.Snapshot(), h2.Snapshot()}
	wantMatch(t, "the hosts' addresses", h1.MustMinictl("node", "ls", "--format", "{{.Address}}"), `(?s)fd00:66::11.*fd00:66::12`)

	h1.MustMinictl("network", "create", "-d", "overlay", "--ipv6", "dual")
	h2.MustDocker("network", "create", "-d", "overlay", "--ipv4=false", "--ipv6", "--subnet", "fd00:6::/64", "--gateway", "fd00:6::99", "six")
	wantMatch(t, "families", h2.MustDocker("network", "inspect", "-f", "{{.EnableIPv4}} {{.EnableIPv6}}", "dual"), "true true")
	wantMatch(t, "families", h1.MustMinictl("network", "inspect", "-f", "{{.EnableIPv4}} {{.EnableIPv6}}", "six"), "false true")
	h1.MustMinictl("run", "-d", "--name", "web", "--network", "dual", "-p", "8080:80", "httpd")
	h2.MustDocker("run", "-d", "--name", "box", "--network", "dual", "busybox", "sleep", "600")
	h1.MustDocker("run", "-d", "--name", "only1", "--network", "six", "--ip6", "fd00:6::77", "busybox", "sleep", "600")
	h2.MustMinictl("run", "-d", "--name", "only2", "--network", "six", "busybox", "sleep", "600")

	for _, c := range []struct {
		h        *lab.Host
		from, to string
	}{{h2, "box", "web"}, {h1, "web", "box"}, {h1, "only1", "only2"}, {h2, "only2", "only1"}} {
		wantMatch(t, c.from+" pings "+c.to, c.h.MustMinictl("exec", c.from, "ping", "-6", "-c", "1", "-W", "10", c.to), ` 0% packet loss`)
	}
	wantMatch(t, "IPv4 on the same network", h2.MustMinictl("exec", "box", "ping", "-4", "-c", "1", "-W", "10", "web"), ` 0% packet loss`)
	six := strings.TrimSpace(h1.MustMinictl("inspect", "-f", "{{.NetworkSettings.Networks.dual.GlobalIPv6Address}}", "web"))
	wantMatch(t, "a unique local address", six, `^fd[0-9a-f:]+::2$`)
	wantMatch(t, "AAAA", h2.MustMinictl("exec", "box", "nslookup", "-type=aaaa", "web"), `Address: +`+six)
	wantMatch(t, "PTR", h2.MustMinictl("exec", "box", "nslookup", six), `name = web\.dual`)
	wantMatch(t, "hosts", h1.MustMinictl("exec", "web", "cat", "/etc/hosts"), `(?m)^`+six+`\s`)
	wantMatch(t, "the asked address", h1.MustMinictl("inspect", "-f", "{{.NetworkSettings.Networks.six.GlobalIPv6Address}}", "only1"), `^fd00:6::77\s`)
	wantMatch(t, "tunnel", h1.MustRun("sh", "-c", "for n in $(ip netns list | cut -d' ' -f1); do ip netns exec $n ip -d link show type vxlan; done"), `mtu 1430 .*local fd00:66::11|local fd00:66::11`)

	awaitListener(t, l, h1, "web", 80)
	for _, url := range []string{"http://[" + a1 + "]:8080/", "http://192.168.66.11:8080/"} {
		wantMatch(t, "laptop "+url, fetch(t, laptop, url), "It works!")
		wantMatch(t, "host "+url, fetch(t, h1, url), "It works!")
	}
	for _, localhost := range []string{"127.0.0.1", "[::1]"} {
		wantMatch(t, localhost, fetch(t, h1, "http://"+localhost+":8080/"), "It works!")
	}
	wantMatch(t, "port", h1.MustDocker("port", "web"), `(?m)^80/tcp -> \[::\]:8080$`)
	wantMatch(t, "outside", h2.MustMinictl("exec", "box", "ping", "-6", "-c", "1", "-W", "10", "fd00:66::99"), ` 0% packet loss`)

	h1.MustMinictl("network", "create", "--ipv6", "br6")
	h1.MustMinictl("network", "create", "--ipv6", "--ipv4=false", "br6only")
	h1.MustMinictl("run", "-d", "--name", "b1", "--network", "br6", "-p", "[::]:8081:80", "httpd")
	h1.MustDocker("run", "-d", "--name", "b2", "--network", "br6", "busybox", "sleep", "600")
	wantMatch(t, "a bridge", h1.MustMinictl("exec", "b2", "ping", "-6", "-c", "1", "-W", "10", "b1"), ` 0% packet loss`)
	wantMatch(t, "outside by a bridge", h1.MustMinictl("exec", "b2", "ping", "-6", "-c", "1", "-W", "10", "fd00:66::99"), ` 0% packet loss`)
	awaitListener(t, l, h1, "b1", 80)
	wantMatch(t, "a port of IPv6 alone", fetch(t, laptop, "http://["+a1+"]:8081/"), "It works!")
	if c, err := dial(laptop, "192.168.66.11:8081"); err == nil {
		c.Close()
		t.Error("a port published on [::] answers on IPv4")
	}

	// A container of IPv6 alone has no port on an address of IPv4; one of IPv4 alone is reached by IPv6 as well, and on
	// ::1 by the host alone.
	h1.MustMinictl("run", "-d", "--name", "s1", "--network", "br6only", "-p", "0.0.0.0:8082:80", "-p", "8083:80", "httpd")
	if out := h1.MustDocker("port", "s1"); out != "80/tcp -> [::]:8083\n" {
		t.Errorf("ports of a container of IPv6 alone: %q", out)
	}
	h1.MustMinictl("run", "-d", "--name", "four", "-p", "8084:80", "-p", "[::1]:8085:80", "-p", "[::1]:5301:53/udp", "-p", "5302:53/udp", "-v", self(t)+":/echo:ro", "httpd")
	h1.MustMinictl("exec", "-d", "four", "/echo", udpEcho)
	for _, name := range []string{"s1", "four"} {
		awaitListener(t, l, h1, name, 80)
	}
	wantMatch(t, "a container of IPv6 alone", fetch(t, laptop, "http://["+a1+"]:8083/"), "It works!")
	wantMatch(t, "the port of one of IPv4 alone", h1.MustDocker("port", "four", "80/tcp"), `(?m)^0\.0\.0\.0:8084\n\[::1\]:8085\n\[::\]:8084$`)
	for range 2 {
		wantMatch(t, "IPv4 alone, by IPv6", fetch(t, laptop, "http://["+a1+"]:8084/"), "It works!")
		wantMatch(t, "IPv4 alone, by IPv4", fetch(t, laptop, "http://192.168.66.11:8084/"), "It works!")
		wantMatch(t, "on ::1", fetch(t, h1, "http://[::1]:8085/"), "It works!")
		answered(t, l, h1, "[::1]:5301")
		answered(t, l, h1, "[::1]:5302")
		answered(t, l, laptop, "["+a1+"]:5302")
		for _, to := range []string{"[" + a1 + "]:8085", "192.168.66.11:8085"} {
			if c, err := dial(laptop, to); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("a port of ::1 at %s, from the wire: %v, %v", to, c, err)
			}
		}
		h1.KillDaemon()
		h1.Daemon()
	}

	h2.KillDaemon()
	h2.RestartDaemon()
	l.Eventually(soon, func() error { // the other hosts' names come back with their gossip
		out, errOut, code := h2.Minictl("exec", "only2", "ping", "-6", "-c", "1", "-W", "10", "only1")
		if code != 0 {
			return errf("after a crash: %s%s", out, errOut)
		}
		return nil
	})

	h1.MustMinictl("rm", "-f", "web", "only1", "b1", "b2", "s1", "four")
	h2.MustMinictl("rm", "-f", "box", "only2")
	h1.MustMinictl("network", "rm", "dual", "six", "br6", "br6only")
	for i, h := range []*lab.Host{h1, h2} {
		h.MustRun("sysctl", "-qw", "net.ipv6.conf.all.forwarding=0") // as before; a router has addresses of its own
		if diff := lab.Diff(before[i], h.Snapshot()); diff != "" {
			t.Errorf("%s: left behind:\n%s", h.Name(), diff)
		}
	}
}

// answered wants a datagram to be echoed.
func answered(t *testing.T, l *lab.Lab, from *lab.Host, to string) {
	t.Helper()
	conn, err := from.Dial(deadline(), "udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l.Eventually(soon, func() error { return echoed(conn, "hello") })
}

// echoed sends a datagram over a stream, and wants it back.
func echoed(conn net.Conn, what string) error {
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
}

package e2e

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/minictl/minictl/testing/lab"
)

// TestNames is what the resolver answers in a container: every name of an endpoint, on every host.
func TestNames(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	l.Name("outside.example", netip.MustParseAddr("192.168.66.1"))
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	h1.MustMinictl("network", "create", "br1")
	id := strings.TrimSpace(h1.MustMinictl("run", "-d", "--name", "bbox1", "--hostname", "boxhost", "--network-alias", "alias1", "--network-alias", "dup", "--network", "ov_net1", "busybox", "sleep", "600"))
	h1.MustMinictl("run", "-d", "--name", "b1", "--network", "br1", "busybox", "sleep", "600")
	h1.MustMinictl("run", "-d", "--name", "b2", "--network-alias", "dup", "--network", "br1", "busybox", "sleep", "600")
	h2.MustMinictl("run", "-d", "--name", "bbox2", "--network", "ov_net1", "busybox", "sleep", "600")
	ask := func(h *lab.Host, from string, args ...string) string {
		out, errOut, _ := h.Minictl(append([]string{"exec", from, "nslookup"}, args...)...)
		return out + errOut
	}
	for _, h := range []struct {
		h    *lab.Host
		from string
	}{{h1, "bbox1"}, {h2, "bbox2"}} {
		for _, name := range []string{"bbox1", "BBox1", "alias1", "boxhost", id[:12], "bbox1.ov_net1"} {
			wantMatch(t, h.from+" asks "+name, ask(h.h, h.from, "-type=a", name), `Address: +10\.0\.0\.2`)
		}
		wantMatch(t, "PTR", ask(h.h, h.from, "10.0.0.2"), `name = bbox1\.ov_net1`)
		if out := ask(h.h, h.from, "-type=aaaa", "bbox1"); strings.Contains(out, "NXDOMAIN") || strings.Contains(out, "SERVFAIL") {
			t.Errorf("the other family is not an empty NOERROR: %s", out)
		}
		wantMatch(t, "forwarded", ask(h.h, h.from, "-type=a", "outside.example"), `Address: +192\.168\.66\.1`)
		wantMatch(t, "an unknown name", ask(h.h, h.from, "-type=a", "nosuch.example"), `NXDOMAIN`)
		wantMatch(t, "resolv.conf", h.h.MustMinictl("exec", h.from, "cat", "/etc/resolv.conf"), `(?m)^nameserver 127\.0\.0\.11$`)
		wantMatch(t, "hosts", h.h.MustMinictl("exec", h.from, "cat", "/etc/hosts"), `(?m)^10\.0\.0\.[23]\s`)
	}
	wantMatch(t, "a user-defined bridge", h1.MustMinictl("exec", "b1", "ping", "-c", "1", "b2"), ` 0% packet loss`)
	wantMatch(t, "another network's name", ask(h1, "b1", "-type=a", "bbox1"), `NXDOMAIN`)
	h1.MustMinictl("run", "-d", "--name", "both", "--network", "br1", "--network", "ov_net1", "busybox", "sleep", "600")
	wantResolve(t, h1, "both", "dup", "10.0.0.2") // the cluster's networks first, as with docker
	wantResolve(t, h1, "b1", "dup", address(t, h1, "b2", "br1").String())
	h1.MustMinictl("rm", "-f", "bbox1")
	wantMatch(t, "gone everywhere when rm has returned", ask(h2, "bbox2", "-type=a", "bbox1"), `NXDOMAIN`)
}

// TestPorts is -p in its forms.
func TestPorts(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	laptop := l.Client("laptop")
	before := h.Snapshot()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"bridge", "ov"} {
		if network == "ov" {
			h.MustMinictl("network", "create", "-d", "overlay", "ov")
		}
		t.Run(network, func(t *testing.T) {
			h.MustMinictl("run", "-d", "--name", "web", "--network", network, "-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "192.168.66.11:8082:80",
				"-p", "80", "-p", "9000-9001:80-81", "-p", "5300:53/udp", "-v", self+":/echo:ro", "httpd")
			awaitListener(t, l, h, "web", 80)
			for _, url := range []string{"http://192.168.66.11:8080/", "http://192.168.66.11:8082/", "http://192.168.66.11:9000/"} {
				wantMatch(t, "laptop "+url, fetch(t, laptop, url), "It works!")
				wantMatch(t, "host "+url, fetch(t, h, url), "It works!")
			}
			for _, url := range []string{"http://127.0.0.1:8080/", "http://127.0.0.1:8081/"} {
				wantMatch(t, "host "+url, fetch(t, h, url), "It works!")
			}
			if c, err := dial(laptop, "192.168.66.11:8081"); err == nil {
				c.Close()
				t.Error("a port bound to 127.0.0.1 is reachable from the wire")
			}
			if c, err := dial(h, "127.0.0.1:8082"); err == nil {
				c.Close()
				t.Error("a port bound to 192.168.66.11 answers on 127.0.0.1")
			}
			ports := h.MustMinictl("port", "web")
			wantMatch(t, "port", ports, `(?m)^80/tcp -> 0\.0\.0\.0:8080$`)
			wantMatch(t, "port", ports, `(?m)^80/tcp -> 127\.0\.0\.1:8081$`)
			wantMatch(t, "port", ports, `(?m)^81/tcp -> 0\.0\.0\.0:9001$`)
			wantMatch(t, "port", ports, `(?m)^53/udp -> 0\.0\.0\.0:5300$`)
			random := strings.TrimSpace(h.MustMinictl("inspect", "-f", `{{range (index .NetworkSettings.Ports "80/tcp")}}{{.HostPort}} {{end}}`, "web"))
			for _, p := range strings.Fields(random) {
				if p != "8081" {
					wantMatch(t, "port "+p, fetch(t, laptop, "http://192.168.66.11:"+p+"/"), "It works!")
				}
			}
			udp(t, l, h, laptop, "web")
			h.MustMinictl("rm", "-f", "web")
		})
	}
	h.MustMinictl("network", "rm", "ov")
	if diff := lab.Diff(before, h.Snapshot()); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
}

func dial(h *lab.Host, addr string) (net.Conn, error) {
	c, err := h.Dial(deadline(), "tcp", addr)
	return c, err
}

// udp sends datagrams to the published port and wants an echo that saw the laptop's true address.
func udp(t *testing.T, l *lab.Lab, h, laptop *lab.Host, name string) {
	t.Helper()
	h.MustMinictl("exec", "-d", name, "/echo", udpEcho)
	l.Eventually(soon, func() error {
		c, err := laptop.Dial(deadline(), "udp", "192.168.66.11:5300")
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := c.Write([]byte("ping")); err != nil {
			return err
		}
		buf := make([]byte, 100)
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		if want := "ping from " + c.LocalAddr().String(); string(buf[:n]) != want {
			t.Errorf("the echo says %q, want %q", buf[:n], want)
		}
		return nil
	})
}

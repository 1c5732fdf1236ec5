package portmap

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/netdrivertest"
	"github.com/minictl/minictl/netdriver/nl"
)

func request(proto, hostIP string, first, last uint16) Request {
	r := Request{Proto: proto, First: first, Last: last, ContainerPort: 80}
	if hostIP != "" {
		r.HostIP = netip.MustParseAddr(hostIP)
	}
	return r
}

func show1(list []netdriver.PortMapping) string {
	var out []string
	for _, m := range list {
		out = append(out, fmt.Sprintf("%s/%s", show(m.HostIP, m.HostPort), m.Proto))
	}
	return strings.Join(out, " ")
}

func TestReserve(t *testing.T) {
	for _, c := range []struct {
		what  string
		first []Request // held by web1
		then  []Request // asked by web2
		want  string
		text  string
	}{
		{"a free port", nil, []Request{request("tcp", "", 8080, 8080)}, "0.0.0.0:8080/tcp", ""},
		{"the same port, other protocol", []Request{request("tcp", "", 53, 53)}, []Request{request("udp", "", 53, 53)}, "0.0.0.0:53/udp", ""},
		{"the same port", []Request{request("tcp", "", 8080, 8080)}, []Request{request("tcp", "", 8080, 8080)}, "",
			"Bind for 0.0.0.0:8080 failed: port is already allocated: web1 holds it"},
		{"one address after all", []Request{request("tcp", "0.0.0.0", 8080, 8080)}, []Request{request("tcp", "127.0.0.1", 8080, 8080)}, "",
			"Bind for 127.0.0.1:8080 failed: port is already allocated: web1 holds it"},
		{"all after one address", []Request{request("udp", "127.0.0.1", 8080, 8080)}, []Request{request("udp", "", 8080, 8080)}, "",
			"Bind for 0.0.0.0:8080 failed: port is already allocated: web1 holds it"},
		{"two addresses", []Request{request("tcp", "127.0.0.1", 8080, 8080)}, []Request{request("tcp", "127.0.0.2", 8080, 8080)}, "127.0.0.2:8080/tcp", ""},
		{"both families by name", []Request{request("tcp", "0.0.0.0", 8080, 8080)}, []Request{request("tcp", "::", 8080, 8080)}, "[::]:8080/tcp", ""},
		{"the first of a range", nil, []Request{request("tcp", "", 9000, 9002)}, "0.0.0.0:9000/tcp", ""},
		{"the first free of a range", []Request{request("tcp", "", 9000, 9000), request("tcp", "127.0.0.1", 9001, 9001)},
			[]Request{request("tcp", "", 9000, 9002)}, "0.0.0.0:9002/tcp", ""},
		{"a range used up", []Request{request("tcp", "", 9000, 9000), request("tcp", "", 9001, 9001)},
			[]Request{request("tcp", "", 9000, 9001)}, "", "all tcp ports of 9000-9001 are allocated"},
		{"several of one range", nil, []Request{request("tcp", "", 9000, 9001), request("tcp", "", 9000, 9001)},
			"0.0.0.0:9000/tcp 0.0.0.0:9001/tcp", ""},
		{"any port", nil, []Request{request("tcp", "", 0, 0), request("tcp", "", 0, 0), request("udp", "", 0, 0)},
			"0.0.0.0:40000/tcp 0.0.0.0:40002/tcp 0.0.0.0:40000/udp", ""},
		{"all or nothing", []Request{request("tcp", "", 8081, 8081)}, []Request{request("tcp", "", 8080, 8080), request("tcp", "", 8081, 8081)}, "",
			"web1 holds it"},
		{"an address elsewhere", nil, []Request{request("tcp", "192.0.2.77", 8080, 8080)}, "",
			"Bind for 192.0.2.77:8080 failed: this host does not have that address"},
		{"no such protocol", nil, []Request{request("icmp", "", 8080, 8080)}, "", `unknown protocol "icmp"`},
		{"a range the wrong way round", nil, []Request{request("tcp", "", 9001, 9000)}, "", "invalid host port range 9001-9000"},
		{"a range from zero", nil, []Request{request("tcp", "", 0, 9000)}, "", "invalid host port range 0-9000"},
		{"SCTP", nil, []Request{request("sctp", "", 36412, 36412)}, "0.0.0.0:36412/sctp", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			netdrivertest.NewNS(t)
			setSysctl(t, "net/ipv4/ip_local_port_range", "40000\t40003")
			setSysctl(t, "net/ipv4/ip_local_reserved_ports", "40001")
			a := New()
			defer a.Release("web1")
			defer a.Release("web2")
			if _, err := a.Reserve(context.Background(), "web1", c.first); err != nil {
				t.Fatal(err)
			}
			held := len(a.held)
			got, err := a.Reserve(context.Background(), "web2", c.then)
			if c.text != "" {
				if err == nil || !strings.Contains(err.Error(), c.text) {
					t.Errorf("%v, want %q", err, c.text)
				}
				if len(a.held) != held {
					t.Errorf("a refused request holds ports: %v", a.held)
				}
				return
			}
			if err != nil || show1(got) != c.want {
				t.Errorf("%s, %v; want %s", show1(got), err, c.want)
			}
		})
	}
}

func setSysctl(t *testing.T, key, value string) {
	t.Helper()
	if err := nl.SetSysctl(key, value); err != nil {
		t.Fatal(err)
	}
}

// The port is bound for all the world to see, and free again once released.
func TestForeignProcesses(t *testing.T) {
	netdrivertest.NewNS(t)
	a := New()
	if _, err := a.Reserve(context.Background(), "web1", []Request{request("tcp", "", 8080, 8080), request("udp", "", 8080, 8080)}); err != nil {
		t.Fatal(err)
	}
	// Go's Listen sets SO_REUSEADDR, as most servers do.
	try := func() (free []string) {
		for _, c := range []struct{ network, addr string }{
			{"tcp4", "0.0.0.0:8080"}, {"tcp4", "127.0.0.1:8080"}, {"tcp6", "[::]:8080"}, {"tcp", ":8080"},
		} {
			if ln, err := net.Listen(c.network, c.addr); err == nil {
				free = append(free, c.network+" "+c.addr)
				ln.Close()
			}
		}
		for _, c := range []struct{ network, addr string }{{"udp4", "0.0.0.0:8080"}, {"udp6", "[::]:8080"}} {
			if pc, err := net.ListenPacket(c.network, c.addr); err == nil {
				free = append(free, c.network+" "+c.addr)
				pc.Close()
			}
		}
		return free
	}
	if free := try(); len(free) > 0 {
		t.Errorf("a foreign process got %q", free)
	}
	a.Release("web1")
	if free := try(); len(free) != 6 {
		t.Errorf("released, but only these are free: %q", free)
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, err = a.Reserve(context.Background(), "web1", []Request{request("tcp", "", 8080, 8080)})
	if !errdefs.IsAlreadyExists(err) || !strings.Contains(err.Error(), fmt.Sprintf("portmap.test (pid %d) holds it", os.Getpid())) {
		t.Errorf("against a foreign process: %v", err)
	}
}

// parseSocket reads what the kernel writes, and survives what it does not.
func FuzzSocket(f *testing.F) {
	f.Add("   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0 100 0 0 10 0")
	f.Add("   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 99 1 0")
	f.Add("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode")
	f.Fuzz(func(t *testing.T, line string) {
		if s, ok := parseSocket(line); ok && s.inode == "" {
			t.Errorf("%q gives %+v", line, s)
		}
	})
	s, ok := parseSocket("0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 0 0 12345 1")
	if !ok || s.ip.String() != "127.0.0.1" || s.port != 8080 || !s.listens || s.inode != "12345" {
		f.Errorf("parsed %+v, %v", s, ok)
	}
}

// A connection in TIME_WAIT on the port does not refuse it.
func TestTimeWait(t *testing.T) {
	netdrivertest.NewNS(t)
	ln, err := net.Listen("tcp4", "127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("tcp4", "127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server.Close() // who closes first waits
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Fatal("data out of nowhere")
	}
	client.Close()
	ln.Close()
	if out := netdrivertest.MustRun(t, "", "ss -Htan state time-wait"); !strings.Contains(out, ":8080") {
		t.Fatalf("no connection is in TIME_WAIT:\n%s", out)
	}
	a := New()
	defer a.Release("web1")
	if _, err := a.Reserve(context.Background(), "web1", []Request{request("tcp", "", 8080, 8080)}); err != nil {
		t.Error(err)
	}
}

// The sockets answer nobody: a client is not connected to something that never speaks.
func TestSocketsAreDeaf(t *testing.T) {
	netdrivertest.NewNS(t)
	a := New()
	defer a.Release("web1")
	if _, err := a.Reserve(context.Background(), "web1", []Request{request("tcp", "", 8080, 8080)}); err != nil {
		t.Fatal(err)
	}
	d := net.Dialer{Timeout: 200e6}
	if c, err := d.Dial("tcp4", "127.0.0.1:8080"); err == nil {
		c.Close()
		t.Error("IPv4 connects")
	}
	setSysctl(t, "net/ipv6/conf/lo/disable_ipv6", "0")
	// IPv6 refuses at once, so that clients of "localhost" go on to IPv4.
	_, err := d.Dial("tcp6", "[::1]:8080")
	if err == nil || !strings.Contains(err.Error(), unix.ECONNREFUSED.Error()) {
		t.Errorf("IPv6: %v", err)
	}
}

func TestRestore(t *testing.T) {
	netdrivertest.NewNS(t)
	foreign, err := net.Listen("tcp4", "0.0.0.0:8081")
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	a := New()
	defer a.Release("web1")
	ports := []netdriver.PortMapping{{Proto: "tcp", HostPort: 8080, ContainerPort: 80}, {Proto: "tcp", HostPort: 8081, ContainerPort: 80}}
	for i := range 2 { // the second time there is nothing to do
		if err := a.Restore("web1", ports); (err == nil) != (i == 1) || err != nil && !strings.Contains(err.Error(), "8081") {
			t.Errorf("restore: %v", err)
		}
	}
	for _, p := range []uint16{8080, 8081} {
		if _, err := a.Reserve(context.Background(), "web2", []Request{request("tcp", "", p, p)}); err == nil || !strings.Contains(err.Error(), "web1 holds it") {
			t.Errorf("port %d: %v", p, err)
		}
	}
}

func TestRename(t *testing.T) {
	netdrivertest.NewNS(t)
	ctx := context.Background()
	a := New()
	for _, r := range []Request{request("tcp", "", 8080, 8080), request("udp", "127.0.0.1", 8080, 8080)} {
		if _, err := a.Reserve(ctx, "old", []Request{r}); err != nil {
			t.Fatal(err)
		}
	}
	a.Rename("old", "new")
	a.Release("old")
	if _, err := a.Reserve(ctx, "other", []Request{request("tcp", "", 8080, 8080)}); err == nil || !strings.Contains(err.Error(), "new holds it") {
		t.Errorf("after the rename: %v", err)
	}
	a.Release("new")
	if _, err := a.Reserve(ctx, "other", []Request{request("tcp", "", 8080, 8080), request("udp", "", 8080, 8080)}); err != nil {
		t.Errorf("after the release: %v", err)
	}
	a.Release("other")
}

// A port of the local range that was restored counts as the one given last, so that it does not come again at once.
func TestRestoredPortComesLast(t *testing.T) {
	netdrivertest.NewNS(t)
	setSysctl(t, "net/ipv4/ip_local_port_range", "40000	40009")
	a := New()
	if err := a.Restore("web", []netdriver.PortMapping{{Proto: "tcp", HostPort: 40003}, {Proto: "tcp", HostPort: 8080}}); err != nil {
		t.Fatal(err)
	}
	a.Release("web")
	got, err := a.Reserve(context.Background(), "next", []Request{request("tcp", "", 0, 0)})
	if err != nil || got[0].HostPort != 40004 {
		t.Errorf("next port: %+v, %v", got, err)
	}
	a.Release("next")
}

// Many at once get different ports, and cancelled ones none.
func TestConcurrent(t *testing.T) {
	netdrivertest.NewNS(t)
	a := New()
	here := fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	var ports []uint16
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			var got []netdriver.PortMapping
			err := nl.Enter(here, func() (err error) { // threads of other goroutines are elsewhere
				got, err = a.Reserve(ctx, fmt.Sprint(i), []Request{request("tcp", "", 30000, 30099)})
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
				return
			}
			ports = append(ports, got[0].HostPort)
		})
	}
	wg.Wait()
	slices.Sort(ports)
	if n := len(slices.Compact(ports)); n != 50 {
		t.Errorf("%d different ports for 50", n)
	}
	cancel()
	if _, err := a.Reserve(ctx, "late", []Request{request("tcp", "", 1, 2)}); err == nil {
		t.Error("a cancelled request got a port")
	}
	for i := range 50 {
		a.Release(fmt.Sprint(i))
	}
	if len(a.held) != 0 {
		t.Errorf("left: %v", a.held)
	}
}

func FuzzSysctls(f *testing.F) {
	f.Add("32768\t60999\n", "8080,9148-9150\n", uint16(9149))
	f.Fuzz(func(t *testing.T, ports, reserved string, p uint16) {
		first, last := parseRange([]byte(ports))
		if first == 0 || first > last {
			t.Fatalf("%q: %d-%d", ports, first, last)
		}
		parseReserved([]byte(reserved))(p)
		n := 0
		for q := range cycle(first, last, first+(last-first)/2, nil) {
			if n++; q < first || q > last {
				t.Fatalf("%d is not in %d-%d", q, first, last)
			}
		}
		if n != int(last)-int(first)+1 {
			t.Fatalf("%d of %d-%d", n, first, last)
		}
	})
}

func TestReserved(t *testing.T) {
	is := parseReserved([]byte("8080,9148-9150\n"))
	for p, want := range map[uint16]bool{8080: true, 9147: false, 9148: true, 9149: true, 9150: true, 9151: false, 0: false} {
		if is(p) != want {
			t.Errorf("%d: %v", p, is(p))
		}
	}
	if parseReserved([]byte("\n"))(0) {
		t.Error("an empty list reserves")
	}
}

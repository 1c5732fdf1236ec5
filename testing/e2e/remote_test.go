package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/minictl/minictl/testing/lab"
	"github.com/minictl/minictl/testing/plugin"
)

// pluginRole makes this test program a plugin, on a host of the lab.
const pluginRole = "plugin"

// pluginMain serves on a socket, with options in JSON.
func pluginMain(args []string) error {
	var o plugin.Options
	if err := json.Unmarshal([]byte(args[1]), &o); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return plugin.Serve(ctx, args[0], plugin.New(o))
}

// third is a plugin that runs on a host.
type third struct {
	plugin.Control
	t    *testing.T
	l    *lab.Lab
	h    *lab.Host
	name string
	p    *lab.Process
}

// startPlugin starts one, and waits until it answers.
func startPlugin(t *testing.T, l *lab.Lab, h *lab.Host, name string, o plugin.Options) *third {
	t.Helper()
	p := &third{t: t, l: l, h: h, name: name}
	p.start(o)
	return p
}

func (p *third) start(o plugin.Options) {
	p.t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		p.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	socket := "/run/docker/plugins/" + p.name + ".sock"
	p.p = p.h.Start(self, pluginRole, socket, string(text))
	p.Control = plugin.Control{Socket: p.h.Path(socket)}
	p.l.Eventually(soon, func() error {
		_, err := p.Books(context.Background())
		return err
	})
}

// set changes how it is.
func (p *third) set(o plugin.Options) {
	p.t.Helper()
	if err := p.Set(context.Background(), o); err != nil {
		p.t.Fatal(err)
	}
}

// heard are the calls since the last time, with what differs from run to run taken out.
func (p *third) heard() string {
	p.t.Helper()
	calls, err := p.Calls(context.Background())
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.Join(calls, "\n")
}

func (p *third) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.p.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *third) books() plugin.Books {
	p.t.Helper()
	b, err := p.Books(context.Background())
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

// wantEmpty checks that the plugin has been told of every end.
func (p *third) wantEmpty() {
	p.t.Helper()
	if b := p.books(); !b.Empty() {
		p.t.Errorf("plugin %s still has %+v", p.name, b)
	}
}

// sandboxKey differs from run to run.
var sandboxKey = regexp.MustCompile(`/run/minictl/netns/[0-9a-f]{12}`)

// TestRemoteDriver runs containers on a network that another program makes, by libnetwork's protocol: they reach each
// other by name, the plugin hears docker's calls in docker's order, and nothing stays on either side.
func TestRemoteDriver(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("testdata/remote_calls.golden")
	if err != nil && os.Getenv("GOLDEN") != "update" {
		t.Fatal(err)
	}
	for _, client := range []string{"minictl", "docker"} {
		t.Run(client, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			h := start(t, l, "host1")
			must := h.MustMinictl
			if client == "docker" {
				must = h.MustDocker
			}
			// One of ours that has the gateway bridge made: it stays.
			p := startPlugin(t, l, h, "third", plugin.Options{})
			must("network", "create", "-d", "third", "--subnet", "10.7.0.0/24", "net0")
			must("run", "--rm", "--network", "net0", "busybox", "true")
			must("network", "rm", "net0")
			p.heard()
			before := h.Snapshot()
			must("network", "create", "-d", "third", "--subnet", "10.9.0.0/24", "--aux-address", "r=10.9.0.2", "-o", "color=blue", "net1")
			must("run", "-d", "--name", "box1", "--network", "net1", "busybox", "sleep", "600")
			must("run", "-d", "--name", "box2", "--network", "name=net1,driver-opt=size=big,mac-address=02:00:00:00:00:09", "busybox", "sleep", "600")
			wantMatch(t, "by name", must("exec", "box2", "ping", "-c", "1", "box1"), ` 0% packet loss`)
			wantMatch(t, "the outside", must("exec", "box2", "ping", "-c", "1", lab.Gateway), ` 0% packet loss`)
			wantInterfaces(t, h, "box1", "eth0 10.9.0.3/24, eth1 172.18.0.2/16")
			wantMatch(t, "the MAC address asked for", must("exec", "box2", "cat", "/sys/class/net/eth0/address"), `02:00:00:00:00:09`)
			wantMatch(t, "network ls", must("network", "ls", "--filter", "type=custom"), `net1 +third +local`)
			wantMatch(t, "network inspect", must("network", "inspect", "net1"), `"Driver": "third"`)
			wantMatch(t, "info", must("info"), `Network: bridge cni host macvlan null overlay third`)
			must("network", "disconnect", "net1", "box1")
			wantInterfaces(t, h, "box1", "")
			must("network", "connect", "--ip", "10.9.0.77", "net1", "box1")
			wantInterfaces(t, h, "box1", "eth0 10.9.0.77/24, eth1 172.18.0.2/16")
			wantMatch(t, "by name again", must("exec", "box2", "ping", "-c", "1", "box1"), ` 0% packet loss`)
			must("rm", "-f", "box1")
			must("rm", "-f", "box2")
			must("network", "rm", "net1")
			calls := sandboxKey.ReplaceAllString(p.heard(), "SANDBOX") + "\n"
			if os.Getenv("GOLDEN") == "update" && client == "minictl" {
				if err := os.WriteFile("testdata/remote_calls.golden", []byte(calls), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if calls != string(want) {
				t.Errorf("the plugin heard\n%s\nwant\n%s", calls, want)
			}
			p.wantEmpty()
			if diff := lab.Diff(before, h.Snapshot()); diff != "" {
				t.Errorf("left behind:\n%s", diff)
			}
		})
	}
}

// TestRemoteGateway has a plugin decide where an endpoint leads, how it is called and which routes it has.
func TestRemoteGateway(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	p := startPlugin(t, l, h, "third", plugin.Options{
		Gateway: true, Prefix: "third", Routes: []plugin.Route{{Destination: "198.51.100.0/24", NextHop: "10.9.0.9"}, {Destination: "203.0.113.0/24", RouteType: 1}},
	})
	before := h.Snapshot()
	h.MustMinictl("network", "create", "-d", "third", "--subnet", "10.9.0.0/24", "net1")
	h.MustMinictl("network", "create", "--subnet", "10.8.0.0/24", "aside")
	p.heard()
	h.MustMinictl("run", "-d", "--name", "box1", "--network", "net1", "-p", "8080:80", "busybox", "sleep", "600")
	wantInterfaces(t, h, "box1", "third0 10.9.0.2/24")
	wantDefault(t, h, "box1", "10.9.0.1 dev third0")
	routes := h.MustMinictl("exec", "box1", "ip", "route")
	wantMatch(t, "routes", routes, `198\.51\.100\.0/24 via 10\.9\.0\.9 dev third0`)
	wantMatch(t, "routes", routes, `203\.0\.113\.0/24 dev third0`)
	wantMatch(t, "network inspect", h.MustDocker("network", "inspect", "-v", "net1"), `"end": "veth"`)
	wantMatch(t, "calls", p.heard(), `ProgramExternalConnectivity .*"Proto":6,"IP":"","Port":80,"HostIP":"","HostPort":8080`)
	wantMatch(t, "port", h.MustMinictl("port", "box1"), `80/tcp -> 0.0.0.0:8080`)
	// Another network takes the way out over, and gives it back.
	h.MustMinictl("network", "connect", "--gw-priority", "1", "aside", "box1")
	wantDefault(t, h, "box1", "10.8.0.1 dev eth0")
	wantMatch(t, "calls", p.heard(), `RevokeExternalConnectivity`)
	fails(t, h, 125, `port is already allocated`, "run", "--rm", "-p", "8080:80", "busybox", "true") // now it is the host's
	h.MustMinictl("network", "disconnect", "aside", "box1")
	wantDefault(t, h, "box1", "10.9.0.1 dev third0")
	wantMatch(t, "calls", p.heard(), `ProgramExternalConnectivity`)
	// What the plugin decided is known over a restart of the daemon, and it is not asked again.
	h.KillDaemon()
	h.Daemon()
	wantDefault(t, h, "box1", "10.9.0.1 dev third0")
	if calls := p.heard(); calls != "" {
		t.Errorf("after a restart of the daemon the plugin heard %s", calls)
	}
	h.MustMinictl("rm", "-f", "box1")
	wantMatch(t, "calls", p.heard(), `(?s)Revoke.*Leave.*DeleteEndpoint`)
	// A plugin may want no way out at all, or find it by itself.
	p.set(plugin.Options{NoService: true})
	h.MustMinictl("run", "-d", "--name", "box2", "--network", "net1", "busybox", "sleep", "600")
	wantInterfaces(t, h, "box2", "eth0 10.9.0.2/24")
	wantDefault(t, h, "box2", "")
	p.set(plugin.Options{Routes: []plugin.Route{{Destination: "0.0.0.0/0", NextHop: "10.9.0.9"}}})
	h.MustMinictl("run", "-d", "--name", "box3", "--network", "net1", "busybox", "sleep", "600")
	wantDefault(t, h, "box3", "10.9.0.9 dev eth0")
	h.MustMinictl("restart", "-t", "0", "box3")
	wantDefault(t, h, "box3", "10.9.0.9 dev eth0")
	// Or give no interface.
	p.set(plugin.Options{Answer: map[string]json.RawMessage{"NetworkDriver.Join": json.RawMessage("{}")}})
	h.MustMinictl("run", "-d", "--name", "box4", "--network", "net1", "--network", "aside", "busybox", "sleep", "600")
	wantInterfaces(t, h, "box4", "eth1 10.8.0.2/24")
	p.heard()
	h.KillDaemon()
	h.Daemon()
	if calls := p.heard(); calls != "" {
		t.Errorf("after a restart of the daemon the plugin heard %s", calls)
	}
	h.MustMinictl("rm", "-f", "box4")
	p.set(plugin.Options{})
	h.MustMinictl("rm", "-f", "box2", "box3")
	h.MustMinictl("network", "rm", "net1", "aside")
	p.wantEmpty()
	if diff := lab.Diff(before, h.Snapshot()); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
}

// TestRemoteIPAM has another program manage addresses, for its own driver and for ours.
func TestRemoteIPAM(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("testdata/remote_ipam.golden")
	if err != nil && os.Getenv("GOLDEN") != "update" {
		t.Fatal(err)
	}
	l := lab.New(t)
	h := start(t, l, "host1")
	p := startPlugin(t, l, h, "third", plugin.Options{WantMAC: true})
	h.MustMinictl("network", "create", "-d", "third", "--subnet", "10.7.0.0/24", "net0")
	h.MustMinictl("run", "--rm", "--network", "net0", "busybox", "true") // the gateway bridge stays
	h.MustMinictl("network", "rm", "net0")
	p.heard()
	before := h.Snapshot()
	h.MustMinictl("network", "create", "-d", "third", "--ipam-driver", "third", "--ipam-opt", "tenant=a", "net1")
	h.MustDocker("network", "create", "-d", "bridge", "--ipam-driver", "third", "--subnet", "10.5.0.0/24", "--ip-range", "10.5.0.128/25", "--gateway", "10.5.0.254", "--aux-address", "r=10.5.0.130", "net2")
	h.MustMinictl("run", "-d", "--name", "box1", "--network", "net1", "--mac-address", "02:00:00:00:00:07", "busybox", "sleep", "600")
	h.MustDocker("run", "-d", "--name", "box2", "--network", "net2", "--mac-address", "02:00:00:00:00:08", "busybox", "sleep", "600")
	h.MustMinictl("run", "-d", "--name", "box3", "--network", "net2", "--ip", "10.5.0.200", "--mac-address", "02:00:00:00:00:09", "busybox", "sleep", "600")
	wantInterfaces(t, h, "box1", "eth0 10.77.0.2/24, eth1 172.18.0.2/16")
	wantInterfaces(t, h, "box2", "eth0 10.5.0.129/24")
	wantInterfaces(t, h, "box3", "eth0 10.5.0.200/24")
	wantDefault(t, h, "box2", "10.5.0.254 dev eth0")
	wantMatch(t, "by name", h.MustMinictl("exec", "box2", "ping", "-c", "1", "box3"), ` 0% packet loss`)
	wantMatch(t, "network inspect", h.MustMinictl("network", "inspect", "net1"), `(?s)"IPAM": \{\s+"Driver": "third",\s+"Options": \{\s+"tenant": "a"\s+\},\s+"Config": \[\s+\{\s+"Subnet": "10.77.0.0/24"`)
	fails(t, h, 125, `plugin third refuses IpamDriver.RequestAddress: 10.5.0.200 is taken`, "run", "--rm", "--name", "box4", "--mac-address", "02:00:00:00:00:0a", "--network", "net2", "--ip", "10.5.0.200", "busybox", "true")
	fails(t, h, 1, `plugin third refuses IpamDriver.RequestPool: pool 10.5.0.0/24 is taken`, "network", "create", "--ipam-driver", "third", "--subnet", "10.5.0.0/24", "net3")
	fails(t, h, 1, `plugin "nosuch" not found`, "network", "create", "--ipam-driver", "nosuch", "net3")
	h.MustMinictl("rm", "-f", "box1", "box2", "box3")
	h.MustMinictl("network", "rm", "net1")
	h.MustMinictl("network", "rm", "net2")
	calls := sandboxKey.ReplaceAllString(p.heard(), "SANDBOX") + "\n"
	if os.Getenv("GOLDEN") == "update" {
		if err := os.WriteFile("testdata/remote_ipam.golden", []byte(calls), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if calls != string(want) {
		t.Errorf("the plugin heard\n%s\nwant\n%s", calls, want)
	}
	p.wantEmpty()
	if diff := lab.Diff(before, h.Snapshot()); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
	// IPv6, last: the host keeps what it switches on.
	h.MustMinictl("network", "create", "-d", "third", "--ipam-driver", "third", "--ipv6", "--internal", "net6")
	h.MustMinictl("run", "-d", "--name", "box5", "--network", "net6", "busybox", "sleep", "600")
	wantMatch(t, "addresses", h.MustMinictl("exec", "box5", "ip", "addr", "show", "dev", "eth0"), `(?s)inet 10.77.0.2/24.*inet6 fd77::2/64`)
	wantMatch(t, "calls", p.heard(), `"Address":"10.77.0.2/24","AddressIPv6":"fd77::2/64"`)
	h.MustMinictl("rm", "-f", "box5")
	h.MustMinictl("network", "rm", "net6")
	p.wantEmpty()
}

// TestRemoteFailures lets a plugin refuse, talk nonsense, hang and die, at each step: the user reads whose fault it is, and
// nothing stays half made on either side.
func TestRemoteFailures(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	fails(t, h, 1, `could not find plugin nosuch in v1 plugin registry.*plugin "nosuch" not found: there is no socket /run/docker/plugins/nosuch.sock`, "network", "create", "-d", "nosuch", "net1")
	fails(t, h, 1, `plugin "../../etc/passwd" not found`, "network", "create", "-d", "../../etc/passwd", "net1")
	p := startPlugin(t, l, h, "third", plugin.Options{Implements: []string{"VolumeDriver"}})
	fails(t, h, 1, `plugin third does not implement NetworkDriver, only VolumeDriver`, "network", "create", "-d", "third", "net1")
	p.signal(syscall.SIGTERM)
	<-p.p.Done()
	p.start(plugin.Options{Scope: "regional"})
	fails(t, h, 1, `plugin third: invalid capability: expecting 'local' or 'global', got "regional"`, "network", "create", "-d", "third", "net1")
	p.signal(syscall.SIGTERM)
	<-p.p.Done()
	p.start(plugin.Options{AskGateway: true}) // one that asks for no gateway address gets none
	h.MustMinictl("network", "create", "-d", "third", "--internal", "--subnet", "10.6.0.0/24", "net6")
	wantMatch(t, "calls", p.heard(), `(?s)GwAllocCheck .*CreateNetwork .*"IPv4Data":\[\{"AddressSpace":"LocalDefault","Pool":"10.6.0.0/24"\}\]`)
	h.MustMinictl("network", "rm", "net6")
	p.signal(syscall.SIGTERM)
	<-p.p.Done()
	p.start(plugin.Options{WantReplay: true})
	fails(t, h, 1, `RequiresRequestReplay.*as third does`, "network", "create", "--ipam-driver", "third", "net1")
	p.signal(syscall.SIGTERM)
	<-p.p.Done()
	p.start(plugin.Options{Fail: map[string]string{"NetworkDriver.CreateNetwork": "the moon is\nnot full"}})
	before := h.Snapshot()
	create := []string{"network", "create", "-d", "third", "--ipam-driver", "third", "--internal", "net1"}
	fails(t, h, 1, `create network net1: plugin third refuses NetworkDriver.CreateNetwork: the moon is not full`, create...)
	p.wantEmpty()
	for method, answer := range map[string]string{
		"NetworkDriver.CreateNetwork": `[]`, "IpamDriver.RequestPool": `{"PoolID":"x","Pool":"fd00::/64"}`, "IpamDriver.RequestAddress": `{"Address":"10.77.0.300/24"}`,
		"IpamDriver.GetDefaultAddressSpaces": `{"LocalDefaultAddressSpace":7}`,
	} {
		p.set(plugin.Options{Answer: map[string]json.RawMessage{method: json.RawMessage(answer)}})
		fails(t, h, 1, `plugin third answers `+method, create...)
	}
	p.wantEmpty()
	p.set(plugin.Options{})
	h.MustMinictl(create...)
	run := []string{"run", "--rm", "--network", "net1", "busybox", "true"}
	for _, method := range []string{"IpamDriver.RequestAddress", "NetworkDriver.CreateEndpoint", "NetworkDriver.Join"} {
		p.set(plugin.Options{Fail: map[string]string{method: "no more today"}})
		fails(t, h, 125, `plugin third refuses `+method+`: no more today`, run...)
		wantNoEndpoints(t, p)
	}
	for _, method := range []string{"NetworkDriver.CreateEndpoint", "NetworkDriver.Join"} {
		p.set(plugin.Options{Missing: []string{method}})
		fails(t, h, 125, method+`: not implemented by the plugin`, run...)
		wantNoEndpoints(t, p)
	}
	for _, a := range []struct{ method, answer, sentence string }{
		{"NetworkDriver.CreateEndpoint", `{"Interface":{"Address":"10.77.0.99/24"}}`, `it modified the interface's address: it was given 10.77.0.2/24 and answered "10.77.0.99/24"`},
		{"NetworkDriver.Join", `{"InterfaceName":{"SrcName":"nosuch0","DstPrefix":"eth"}}`, `it names the interface nosuch0, which this host does not have`},
		{"NetworkDriver.Join", `{"InterfaceName":{"SrcName":"a/b"}}`, `it names an interface "a/b", which none can be called`},
		{"NetworkDriver.Join", `{"Gateway":"here"}`, `its gateway "here" is no address of its family`},
		{"NetworkDriver.Join", `{"StaticRoutes":[{"Destination":"10.0.0.0/8","RouteType":2}]}`, `of the type 2`},
	} {
		p.set(plugin.Options{Answer: map[string]json.RawMessage{a.method: json.RawMessage(a.answer)}})
		fails(t, h, 125, regexp.QuoteMeta(a.sentence), run...)
		// With an answer out of its hands the plugin has its books of what it really did to complain of; it has forgotten.
		wantNoEndpoints(t, p)
	}
	p.set(plugin.Options{})
	h.MustMinictl(run...)
	h.MustMinictl("network", "rm", "net1")
	p.wantEmpty()
	if diff := lab.Diff(before, h.Snapshot()); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
}

// wantNoEndpoints checks that a plugin has a network, and nothing on it but the gateway's address.
func wantNoEndpoints(t *testing.T, p *third) {
	t.Helper()
	if b := p.books(); len(b.Endpoints)+len(b.Joined) > 0 || len(b.Addresses) > 1 || len(b.Networks) != 1 {
		t.Errorf("plugin %s has %+v", p.name, b)
	}
}

// TestRemoteGone lets the plugin hang and die under running containers: they go on, everything can be removed, what the
// plugin still has is named, and it is told when it answers again.
func TestRemoteGone(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	p := startPlugin(t, l, h, "third", plugin.Options{})
	before := h.Snapshot()
	h.MustMinictl("network", "create", "-d", "third", "--ipam-driver", "third", "--internal", "net1")
	for _, name := range []string{"box1", "box2", "box3"} {
		h.MustMinictl("run", "-d", "--name", name, "--network", "net1", "busybox", "sleep", "600")
	}
	ping := func(from, to string) {
		t.Helper()
		wantMatch(t, from+" reaches "+to, h.MustMinictl("exec", from, "ping", "-c", "1", to), ` 0% packet loss`)
	}
	p.set(plugin.Options{Hang: []string{"IpamDriver.RequestAddress"}})
	fails(t, h, 125, `plugin third did not answer IpamDriver.RequestAddress within 30s: see whether it hangs, then try again`, "run", "--rm", "--name", "box4", "--network", "net1", "busybox", "true")
	ping("box1", "box2")
	p.set(plugin.Options{})
	p.signal(syscall.SIGSTOP)
	h.MustMinictl("run", "--rm", "busybox", "true") // other networks wait for nothing
	h.MustMinictl("rm", "-f", "box3")
	h.MustMinictl("network", "disconnect", "net1", "box2")
	wantInterfaces(t, h, "box2", "")
	warnings := h.MustMinictl("info", "--format", "{{.Warnings}}")
	wantMatch(t, "what it still has", warnings, `plugin third could not be told that this has ended, and is told when it answers: endpoint [0-9a-f]{12} \(box3\) of network net1`)
	wantMatch(t, "what it still has", warnings, `\(box2\) of network net1`)
	wantMatch(t, "what it still has", warnings, `address 10.77.0.4 of network net1`)
	h.KillDaemon() // it remembers
	h.Daemon()
	wantMatch(t, "what it still has", h.MustMinictl("info", "--format", "{{.Warnings}}"), `\(box3\) of network net1`)
	p.signal(syscall.SIGCONT)
	l.Eventually(soon, func() error {
		if w := h.MustMinictl("info", "--format", "{{.Warnings}}"); strings.Contains(w, "plugin") {
			return errf("still %s", w)
		}
		return nil
	})
	if b := p.books(); len(b.Endpoints) != 1 || len(b.Joined) != 1 || len(b.Addresses) != 2 {
		t.Errorf("it has %+v", b)
	}
	h.MustMinictl("network", "connect", "net1", "box2")
	ping("box1", "box2")

	// It dies, and the daemon is started without it.
	p.signal(syscall.SIGKILL)
	<-p.p.Done()
	h.KillDaemon()
	h.MustRun("rm", "/run/docker/plugins/third.sock")
	h.Daemon()
	ping("box1", "box2")
	wantMatch(t, "who waits", h.MustMinictl("info", "--format", "{{.Warnings}}"), `network net1 waits for its plugin: plugin "third" not found`)
	fails(t, h, 125, `plugin "third" not found`, "run", "--rm", "--network", "net1", "busybox", "true")
	fails(t, h, 1, `remove network net1: plugin "third" not found|network net1 has active endpoints`, "network", "rm", "net1")
	h.MustMinictl("rm", "-f", "box1", "box2")
	fails(t, h, 1, `remove network net1: plugin "third" not found`, "network", "rm", "net1")
	// Another one takes its place, which knows of nothing: it complains, and all is forgotten.
	p.start(plugin.Options{})
	l.Eventually(soon, func() error {
		if w := h.MustMinictl("info", "--format", "{{.Warnings}}"); strings.Contains(w, "plugin") {
			return errf("still %s", w)
		}
		return nil
	})
	fails(t, h, 125, `plugin third refuses IpamDriver.RequestAddress: pool "here/10.77.0.0/24" is unknown`, "run", "--rm", "--name", "box5", "--network", "net1", "busybox", "true")
	h.MustMinictl("network", "rm", "net1")
	h.MustMinictl("network", "create", "-d", "third", "--ipam-driver", "third", "--internal", "net1")
	h.MustMinictl("run", "--rm", "--network", "net1", "busybox", "true")
	h.MustMinictl("network", "rm", "net1")
	p.wantEmpty()
	for _, link := range lines(h.MustRun("sh", "-c", "ls /sys/class/net")) { // what the dead one made is nobody's now
		if strings.HasPrefix(link, "pn") || strings.HasPrefix(link, "pp") {
			h.MustRun("ip", "link", "del", link)
		}
	}
	if diff := lab.Diff(before, h.Snapshot()); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
}

// TestRemoteCluster runs a network of all hosts that a plugin on each makes: the cluster decides about names and addresses,
// the plugins about packets, for which they are told of the hosts.
func TestRemoteCluster(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	o := plugin.Options{Scope: "global", Reach: "global"}
	p1, p2 := startPlugin(t, l, h1, "third", o), startPlugin(t, l, h2, "third", o)
	before1, before2 := h1.Snapshot(), h2.Snapshot()
	h1.MustMinictl("network", "create", "-d", "third", "--internal", "-o", "color=blue", "net1")
	wantMatch(t, "network ls", h2.MustMinictl("network", "ls"), `net1 +third +global`)
	h1.MustMinictl("run", "-d", "--name", "box1", "--network", "net1", "busybox", "sleep", "600")
	h2.MustMinictl("run", "-d", "--name", "box2", "--network", "net1", "busybox", "sleep", "600")
	wantInterfaces(t, h1, "box1", "eth0 10.0.0.2/24")
	wantInterfaces(t, h2, "box2", "eth0 10.0.0.3/24")
	wantMatch(t, "calls", p1.heard(), `(?s)AllocateNetwork .*"color":"blue".*CreateNetwork .*"com.docker.network.generic":\{"allocated":"yes","color":"blue"\}.*"AddressSpace":"GlobalDefault"`)
	wantMatch(t, "calls", p2.heard(), `CreateNetwork .*"allocated":"yes"`)
	both := []string{h1.Addr().String(), h2.Addr().String()}
	for _, p := range []*third{p1, p2} {
		l.Eventually(soon, func() error {
			if got := p.books().Nodes; !slices.Equal(got, both) {
				return errf("the plugin knows the nodes %v, want %v", got, both)
			}
			return nil
		})
	}
	l.Eventually(soon, func() error {
		out, _, code := h2.Minictl("exec", "box2", "ping", "-c", "1", "-W", "1", "box1")
		if code != 0 {
			return errf("across hosts: %s", out)
		}
		return nil
	})
	h2.MustMinictl("stop", "-t", "0", "box2")
	if b := p2.books(); !slices.Equal(b.Networks, nil) {
		t.Errorf("without containers host2's plugin has %+v", b)
	}
	h2.MustMinictl("rm", "box2")
	h1.MustMinictl("rm", "-f", "box1")
	h2.MustMinictl("network", "rm", "net1")
	for _, p := range []*third{p1, p2} {
		b := p.books()
		b.Allocated = nil
		if !b.Empty() {
			t.Errorf("host %s: the plugin still has %+v", p.h.Name(), b)
		}
	}
	wantMatch(t, "calls", p2.heard(), `FreeNetwork`)
	for h, before := range map[*lab.Host]lab.Snapshot{h1: before1, h2: before2} {
		if diff := lab.Diff(before, h.Snapshot()); diff != "" {
			t.Errorf("left behind on %s:\n%s", h.Name(), diff)
		}
	}
	h2.StopDaemon()
	l.Eventually(patient, func() error {
		if got := p1.books().Nodes; !slices.Equal(got, both[:1]) {
			return errf("the plugin knows the nodes %v, want %v", got, both[:1])
		}
		return nil
	})
}

package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/ipam"
	"github.com/minictl/minictl/netdriver/netdrivertest"
	third "github.com/minictl/minictl/testing/plugin"
)

// serve answers on dir/NAME.sock until the test ends.
func serve(t *testing.T, dir, name string, h http.Handler) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(dir, name+".sock"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
}

func config(dir string) Config {
	return Config{Log: netdrivertest.Quiet(), Sockets: dir, Specs: []string{filepath.Join(dir, "etc"), filepath.Join(dir, "lib")}, Sandboxes: filepath.Join(dir, "sandboxes")}
}

func testNetwork() netdriver.Network {
	return netdriver.Network{
		ID: netdriver.NetworkID(strings.Repeat("a72ce58f3bd2", 6)[:64]), Name: "net1", Driver: "third", Options: map[string]string{"color": "blue"},
		Subnets: []netdriver.Subnet{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Gateway: netip.MustParseAddr("192.0.2.1")}},
	}
}

func testEndpoint(last byte, iface string) netdriver.Endpoint {
	a := netip.AddrFrom4([4]byte{192, 0, 2, last})
	return netdriver.Endpoint{
		ID: netdriver.EndpointID(strings.Repeat(string("0123456789abcdef"[last&15])+"c", 32)), Interface: iface,
		Address: netip.PrefixFrom(a, 24), MAC: ipam.MAC(a), Gateway: netip.MustParseAddr("192.0.2.1"),
	}
}

// TestConformance runs the suite of all drivers over a plugin that complains of whatever does not fit its books.
func TestConformance(t *testing.T) {
	netdrivertest.Suite(t, func(t *testing.T, dir string) netdrivertest.Subject {
		n, ends := testNetwork(), [2]netdriver.Endpoint{testEndpoint(2, "eth0"), testEndpoint(3, "eth1")}
		p := third.New(third.Options{Gateway: true, Namespace: fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())})
		serve(t, dir, "third", p)
		control := third.Control{Socket: filepath.Join(dir, "third.sock")}
		return netdrivertest.Subject{
			Golden: "remote", Network: n, Endpoints: ends,
			New: func(t *testing.T) netdriver.Driver {
				t.Helper()
				d := New(config(dir)).Driver("third")
				b, err := control.Books(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				var known []netdriver.EndpointID
				for _, id := range b.Endpoints {
					known = append(known, netdriver.EndpointID(id))
				}
				if len(b.Networks) > 0 { // as the engine does, which keeps records of both
					d.Adopt(n.ID, known...)
				}
				return d
			},
		}
	})
}

// TestLeaveUntold leaves while the plugin hangs: the interface goes back to the host at once, and the plugin is told by the
// next Leave.
func TestLeaveUntold(t *testing.T) {
	netdrivertest.NewNS(t)
	dir := netdrivertest.Dir(t)
	o := third.Options{Namespace: fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())}
	serve(t, dir, "third", third.New(o))
	control := third.Control{Socket: filepath.Join(dir, "third.sock")}
	set := func(hang ...string) {
		t.Helper()
		o.Hang = hang
		if err := control.Set(context.Background(), o); err != nil {
			t.Fatal(err)
		}
	}
	cfg := config(dir)
	s := netdrivertest.NewSandbox(t, cfg.Sandboxes, "box")
	n, e := testNetwork(), testEndpoint(2, "eth0")
	d := New(cfg).Driver("third")
	if _, err := d.Join(t.Context(), n, e, s); err != nil {
		t.Fatal(err)
	}
	set("NetworkDriver.Leave", "NetworkDriver.RevokeExternalConnectivity")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := d.Leave(ctx, n, e); !errdefs.IsUnavailable(err) {
		t.Errorf("while the plugin hangs: %v", err)
	}
	if out := netdrivertest.Listing(t, s.Path); strings.Contains(out, "eth0") {
		t.Errorf("the interface is still in the sandbox:\n%s", out)
	}
	if out := netdrivertest.Listing(t, ""); !strings.Contains(out, "link pc2c2c2c2c") {
		t.Errorf("the interface is not back on the host:\n%s", out)
	}
	if err := d.Remove(t.Context(), n); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("removed before its endpoint: %v", err)
	}
	set()
	if err := errors.Join(d.Leave(t.Context(), n, e), d.Remove(t.Context(), n)); err != nil {
		t.Error(err)
	}
	if b, err := control.Books(context.Background()); err != nil || !b.Empty() {
		t.Errorf("the plugin still has %+v, %v", b, err)
	}
}

// scripted answers methods with what a test says.
type scripted map[string]func(w http.ResponseWriter, r *http.Request)

// ServeHTTP answers {} where the test says nothing.
func (s scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := strings.TrimPrefix(r.URL.Path, "/")
	switch answer, ok := s[method]; {
	case ok:
		answer(w, r)
	case method == "Plugin.Activate":
		fmt.Fprint(w, `{"Implements":["NetworkDriver"]}`)
	case method == "NetworkDriver.GetCapabilities":
		fmt.Fprint(w, `{"Scope":"local"}`)
	default:
		fmt.Fprint(w, `{}`)
	}
}

func text(s string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s) }
}

// TestAnswers gives each kind of bad answer, and wants a sentence that names plugin, method and fault.
func TestAnswers(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	cut := func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_ = c.Close()
		}
	}
	status := func(code int, s string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code); fmt.Fprint(w, s) }
	}
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		want   string
		class  func(error) bool
	}{
		"complaint":       {text(`{"Err":"no\nmore \u001b[31mroom"}`), "plugin third refuses NetworkDriver.CreateNetwork: no more  [31mroom", refused},
		"address manager": {text(`{"Error":"no more room"}`), "plugin third refuses NetworkDriver.CreateNetwork: no more room", refused},
		"status":          {status(500, `{"Err":"on fire"}`), "plugin third refuses NetworkDriver.CreateNetwork: on fire", refused},
		"bare status":     {status(500, "on fire"), "plugin third refuses NetworkDriver.CreateNetwork: status 500: on fire", refused},
		"unknown method":  {http.NotFound, "plugin third: NetworkDriver.CreateNetwork: not implemented by the plugin", refused},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1/", http.StatusFound)
		}, "status 302", refused},
		"no JSON":  {text("hello"), "plugin third answers NetworkDriver.CreateNetwork with what is no JSON object", nil},
		"too long": {text(`{"a":"` + strings.Repeat("x", maxAnswer) + `"}`), "plugin third answers NetworkDriver.CreateNetwork with more than 1048576 bytes", nil},
		"hangs":    {hang, "plugin third did not answer NetworkDriver.CreateNetwork within", errdefs.IsUnavailable},
		"ends":     {cut, "plugin third cannot be reached for NetworkDriver.CreateNetwork", errdefs.IsUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			serve(t, dir, "third", scripted{"NetworkDriver.CreateNetwork": c.answer})
			cfg := config(dir)
			cfg.Patience = 900 * time.Millisecond
			err := New(cfg).Driver("third").Ensure(context.Background(), testNetwork())
			if err == nil || !strings.Contains(err.Error(), c.want) || c.class != nil && !c.class(err) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestRetry has a plugin that is started while it is called for.
func TestRetry(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "third.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil { // what a killed program leaves
		t.Fatal(err)
	}
	cfg, refused := config(dir), make(chan struct{})
	told := sync.OnceFunc(func() { close(refused) })
	cfg.Log = slog.New(slog.NewTextHandler(writer(func(line []byte) {
		if strings.Contains(string(line), "it is tried again") {
			told()
		}
	}), nil))
	done := make(chan error, 1)
	go func() { done <- New(cfg).Driver("third").Ensure(context.Background(), testNetwork()) }()
	select {
	case <-refused:
	case <-time.After(time.Minute):
		t.Fatal("it is not tried again")
	}
	fresh := t.TempDir()
	serve(t, fresh, "third", scripted{})
	if err := os.Rename(filepath.Join(fresh, "third.sock"), socket); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("it is still tried")
	}
}

// writer is a function that is written to.
type writer func([]byte)

// Write calls it.
func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

// TestLocate looks for plugins where docker does.
func TestLocate(t *testing.T) {
	dir := t.TempDir()
	c := config(dir)
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	serve(t, dir, "a", scripted{})
	write("b.sock", "no socket")
	write("etc/b.spec", " unix:///run/b.sock\n")
	write("lib/b.spec", "unix:///run/never.sock")
	write("lib/c/c.spec", "tcp://192.0.2.1:99")
	write("etc/d.json", `{"Name":"d","Addr":"https://plugin.example:99","TLSConfig":{"InsecureSkipVerify":false}}`)
	write("etc/e.spec", "/run/e.sock")
	write("etc/f.json", "unix:///run/f.sock")
	write("etc/g.spec", "unix://"+strings.Repeat("g", maxSpec))
	write("x.spec", "unix:///run/x.sock")
	for name, want := range map[string]string{
		"a": "unix://" + dir + "/a.sock", "b": "unix:///run/b.sock", "c": "tcp://192.0.2.1:99", "d": "tcp://plugin.example:99",
		"e": "!it must be unix:///PATH", "f": "!no JSON", "g": "!has more than", "h": `!plugin "h" not found: there is no socket`, "../x": "!not found", "": "!not found", ".a": "!not found",
	} {
		at, err := locate(c, name)
		got := at.String()
		if err != nil {
			got = "!" + err.Error()
		}
		if strings.HasPrefix(want, "!") && !(err != nil && strings.Contains(got, want[1:])) || !strings.HasPrefix(want, "!") && got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
	if err := New(c).Present("h"); !errdefs.IsNotFound(err) {
		t.Errorf("a plugin that is not there: %v", err)
	}
}

// TestNodes tells a plugin of members, once each, and all again to one that has been started anew.
func TestNodes(t *testing.T) {
	dir := t.TempDir()
	o := third.Options{Scope: ScopeGlobal}
	ctx, stop := context.WithCancel(t.Context())
	socket := filepath.Join(dir, "third.sock")
	start := func() chan error {
		done := make(chan error, 1)
		go func() { done <- third.Serve(ctx, socket, third.New(o)) }()
		return done
	}
	control := third.Control{Socket: socket}
	heard := func() string {
		t.Helper()
		calls, err := control.Calls(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		calls = slices.DeleteFunc(calls, func(c string) bool { return !strings.Contains(c, ".Discover") })
		return strings.Join(calls, "\n")
	}
	awaitSocket := func() {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; {
			if _, err := control.Books(context.Background()); err == nil {
				return
			} else if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	done := start()
	awaitSocket()
	d := New(config(dir)).Driver("third")
	one, two := Node{netip.MustParseAddr("192.0.2.1"), true}, Node{netip.MustParseAddr("192.0.2.2"), false}
	set := func(nodes ...Node) {
		t.Helper()
		if err := d.SetNodes(context.Background(), nodes); err != nil {
			t.Error(err)
		}
	}
	const new1, new2 = `NetworkDriver.DiscoverNew {"DiscoveryType":1,"DiscoveryData":{"Address":"192.0.2.1","self":true}}`, `NetworkDriver.DiscoverNew {"DiscoveryType":1,"DiscoveryData":{"Address":"192.0.2.2","self":false}}`
	const gone2 = `NetworkDriver.DiscoverDelete {"DiscoveryType":1,"DiscoveryData":{"Address":"192.0.2.2","self":false}}`
	for _, s := range []struct {
		nodes []Node
		want  string
	}{{[]Node{one, two}, new1 + "\n" + new2}, {[]Node{one, two}, ""}, {[]Node{one}, gone2}} {
		set(s.nodes...)
		if got := heard(); got != s.want {
			t.Errorf("%v: heard %s, want %s", s.nodes, got, s.want)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	ctx, stop = context.WithCancel(t.Context())
	defer stop()
	start()
	awaitSocket()
	set(one)
	if got := heard(); got != new1 {
		t.Errorf("started anew it heard %s, want %s", got, new1)
	}
}

// FuzzAnswers reads answers of every kind, whatever they are, and never takes over what cannot be.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"Interface":{"Address":"192.0.2.2/24","AddressIPv6":"fd00::2/64","MacAddress":"02:42:c0:00:02:02"}}`))
	f.Add([]byte(`{"InterfaceName":{"SrcName":"veth0","DstPrefix":"eth"},"Gateway":"192.0.2.1","GatewayIPv6":"fd00::1","StaticRoutes":[{"Destination":"10.0.0.0/8","RouteType":0,"NextHop":"192.0.2.9"},{"Destination":"::/0","RouteType":1}]}`))
	f.Add([]byte(`{"Err":"no"}`))
	f.Add([]byte(`{"PoolID":"p","Pool":"10.0.0.0/8","Data":{"com.docker.network.gateway":"10.0.0.1/8"}}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		var out struct {
			Interface endpointInterface
			joined
			PoolID, Pool string
			Data         map[string]string
		}
		if err := decode("p", "m", 200, answer, &out); err != nil {
			if strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("the error is more than a line: %q", err)
			}
			return
		}
		var d decided
		if d.takeInterface(endpointInterface{}, out.Interface) == nil {
			if d.address.IsValid() && !d.address.Addr().Is4() || d.address6.IsValid() && !d.address6.Addr().Is6() || len(d.mac) != 0 && len(d.mac) != 6 {
				t.Errorf("%+v", d)
			}
		}
		if d.takeJoin(out.joined) == nil {
			for _, name := range []string{d.link, d.name, d.prefix} {
				if len(name) > maxLink || strings.ContainsAny(name, "/ \n") {
					t.Errorf("an interface is called %q", name)
				}
			}
			for _, r := range d.routes {
				if !r.To.IsValid() || r.To != r.To.Masked() || r.Via.IsValid() && r.Via.Is4() != r.To.Addr().Is4() {
					t.Errorf("route %v", r)
				}
			}
		}
		for _, v6 := range []bool{false, true} {
			if p, err := parsePool(out.PoolID, out.Pool, out.Data[keyGateway], v6); err == nil {
				if p.Prefix != p.Prefix.Masked() || p.Prefix.Addr().Is6() != v6 || p.Gateway.IsValid() && !p.Prefix.Contains(p.Gateway) {
					t.Errorf("pool %+v", p)
				}
			}
		}
	})
}

// FuzzSpec reads files that say where a plugin listens.
func FuzzSpec(f *testing.F) {
	f.Add([]byte("unix:///run/p.sock"), false)
	f.Add([]byte(`{"Addr":"https://p:1","TLSConfig":{"CAFile":"/nosuch"}}`), true)
	f.Fuzz(func(t *testing.T, file []byte, isJSON bool) {
		at, err := parseSpec(file, isJSON)
		if err == nil && (at.network == "unix" && !filepath.IsAbs(at.addr) || at.network != "unix" && at.network != "tcp" || at.addr == "") {
			t.Errorf("%q gives %+v", file, at)
		}
	})
}

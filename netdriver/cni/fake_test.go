package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/netdrivertest"
	"github.com/minictl/minictl/netdriver/nl"
)

// TestMain makes this program a plugin where it is run as one.
func TestMain(m *testing.M) {
	if os.Getenv("CNI_COMMAND") != "" {
		os.Exit(fake())
	}
	os.Exit(m.Run())
}

// call is what the fake plugin was called with, a line of its log.
type call struct {
	Command string
	Env     []string
	Conf    map[string]any
}

// fake is a plugin that does as its configuration says. It speaks 1.1.0, makes a dummy of an interface, and writes a line
// into "log" for each call.
func fake() int {
	stdin, err := io.ReadAll(os.Stdin)
	var conf map[string]any
	if err := errors.Join(err, json.Unmarshal(stdin, &conf)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	command := os.Getenv("CNI_COMMAND")
	if command == "VERSION" {
		fmt.Fprintln(os.Stdout, `{"cniVersion": "1.1.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]}`)
		return 0
	}
	text := func(key string) string { s, _ := conf[key].(string); return s }
	line, err := json.Marshal(call{command, os.Environ(), conf})
	if err == nil {
		err = appendTo(text("log"), string(line))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if said, ok := conf["say"+command].(string); ok { // words of its own, and a failure
		fmt.Fprint(os.Stdout, said)
		fmt.Fprint(os.Stderr, "noise\n")
		return 1
	}
	if text("hang") == command {
		child := exec.Command("sleep", "3600") // with our output
		child.Stdout = os.Stdout
		if err := child.Start(); err != nil {
			return 1
		}
		if err := appendTo(text("log")+".pids", strconv.Itoa(child.Process.Pid)+"\n"+strconv.Itoa(os.Getpid())); err != nil {
			return 1
		}
		_ = child.Wait()
	}
	if command != "ADD" {
		return 0
	}
	if _, err := os.Stat(text("needs")); text("needs") != "" && err != nil {
		fmt.Fprintf(os.Stdout, `{"cniVersion": "1.1.0", "code": 101, "msg": %q}`, err)
		return 1
	}
	link := exec.Command("ip", "link", "add", os.Getenv("CNI_IFNAME"), "type", "bridge")
	if err := nl.Enter(os.Getenv("CNI_NETNS"), link.Run); err != nil {
		fmt.Fprintf(os.Stdout, `{"cniVersion": "1.1.0", "code": 100, "msg": %q}`, err)
		return 1
	}
	result := text("result")
	if result == "" {
		result = `{"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.2/24"}]}`
	}
	fmt.Fprintln(os.Stdout, result)
	return 0
}

func appendTo(file, line string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, line)
	return errors.Join(err, f.Close())
}

// fakeNetwork is one whose only plugin is the fake one, with more in its configuration.
func (h *host) fakeNetwork(t *testing.T, version, more string) netdriver.Network {
	t.Helper()
	options, err := h.Resolve(context.Background(), "net1", h.fakeOptions(t, version, more))
	if err != nil {
		t.Fatal(err)
	}
	return testNetwork(options)
}

func (h *host) fakeOptions(t *testing.T, version, more string) map[string]string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(h.dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "fake")); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(`{"name": "fakes", "cniVersion": %q, "plugins": [{"type": "fake", "log": %q %s}]}`, version, h.log(), more)
	path := filepath.Join(h.dir, "fake.conflist")
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	return map[string]string{OptionConf: path, OptionBinPath: bin}
}

func (h *host) log() string { return filepath.Join(h.dir, "calls") }

// calls are the fake plugin's since the last time.
func (h *host) calls(t *testing.T) []call {
	t.Helper()
	b, err := os.ReadFile(h.log())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var out []call
	for line := range strings.Lines(string(b)) {
		var c call
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	if err := os.RemoveAll(h.log()); err != nil {
		t.Fatal(err)
	}
	return out
}

func commands(calls []call) string {
	var out []string
	for _, c := range calls {
		out = append(out, c.Command)
	}
	return strings.Join(out, " ")
}

// TestEnvironment wants plugins to see the six variables of the specification and PATH, and nothing of the daemon's.
func TestEnvironment(t *testing.T) {
	h := newHost(t)
	t.Setenv("HTTPS_PROXY", "http://user:secret@proxy")
	t.Setenv("CNI_NETNS_OVERRIDE", "1")
	n, s := h.fakeNetwork(t, "1.0.0", ""), h.sandbox(t, "box")
	h.join(t, n, testEndpoint(2, "eth0"), s)
	calls := h.calls(t)
	if commands(calls) != "ADD" {
		t.Fatalf("called %s", commands(calls))
	}
	got := calls[0].Env
	slices.Sort(got)
	want := []string{"CNI_ARGS=", "CNI_COMMAND=ADD", "CNI_CONTAINERID=box", "CNI_IFNAME=eth0", "CNI_NETNS=" + s.Path, "CNI_PATH=" + n.Options[OptionBinPath], "PATH=" + os.Getenv("PATH")}
	if !slices.Equal(got, want) {
		t.Errorf("environment\n%q, want\n%q", got, want)
	}
}

// TestCapabilities wants what a configuration asks for to reach the plugin in the words of CNI's conventions, and what it
// does not ask for to be refused where the user asked for it.
func TestCapabilities(t *testing.T) {
	e := testEndpoint(2, "eth0")
	h := newHost(t)
	for _, c := range []struct{ name, flag, want string }{
		{"portMappings", "-p", "publishes no ports"}, {"ips", "--ip", "takes no chosen address"}, {"mac", "--mac-address", "takes no chosen MAC address"},
	} {
		wish := e
		switch c.name {
		case "portMappings":
			wish.Ports = []netdriver.PortMapping{{Proto: "tcp", HostPort: 8080, ContainerPort: 80}}
		case "ips":
			wish.Address = prefixOf("10.9.0.2/32")
		case "mac":
			wish.MAC = []byte{2, 0, 0, 0, 0, 9}
		}
		n, s := h.fakeNetwork(t, "1.0.0", ""), h.sandbox(t, c.name)
		_, err := h.Join(context.Background(), n, wish, s)
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "network net1 "+c.want) || !strings.Contains(err.Error(), "leave out "+c.flag) {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := commands(h.calls(t)); got != "" || h.known(t) != 0 {
			t.Errorf("%s: called %s, %d records", c.name, got, h.known(t))
		}
	}
	n, s := h.fakeNetwork(t, "1.0.0", `, "capabilities": {"portMappings": true, "ips": true, "aliases": true, "dns": true}`), h.sandbox(t, "box")
	e.Ports = []netdriver.PortMapping{{Proto: "udp", HostIP: prefixOf("192.0.2.1/32").Addr(), HostPort: 5353, ContainerPort: 53}}
	e.Address = prefixOf("10.9.0.2/32")
	e.Aliases = []string{"web1", "alias1"}
	e.DNS.Search = []string{"corp.example"}
	h.join(t, n, e, s)
	got, err := json.Marshal(h.calls(t)[0].Conf["runtimeConfig"])
	want := `{"aliases":["web1","alias1"],"dns":{"searches":["corp.example"]},"ips":["10.9.0.2"],"portMappings":[{"containerPort":53,"hostIP":"192.0.2.1","hostPort":5353,"protocol":"udp"}]}`
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s, want\n%s", err, got, want)
	}
	more := e
	more.Ports = nil
	if _, err := h.Join(context.Background(), n, more, s); !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("ports are taken away from a running container: %v", err)
	}
}

// TestWordsOfPlugins wants a plugin's failure told in its own words, with its name, its code and the network, and whatever
// it had made taken back.
func TestWordsOfPlugins(t *testing.T) {
	for _, c := range []struct {
		name, more, want string
		class            func(error) bool
	}{
		{"code", `, "sayADD": "{\"cniVersion\":\"1.0.0\",\"code\":107,\"msg\":\"no cable\",\"details\":\"port 3\"}"`, "network net1: CNI plugin fake: ADD: no cable; port 3 (code 107)", errdefs.IsInternal},
		{"later", `, "sayADD": "{\"code\":11,\"msg\":\"try again\"}"`, "network net1: CNI plugin fake: ADD: try again (code 11)", errdefs.IsUnavailable},
		{"configuration", `, "sayADD": "{\"code\":7,\"msg\":\"mtu?\"}"`, "network net1: CNI plugin fake: ADD: mtu? (code 7)", errdefs.IsInvalidArgument},
		{"no JSON", `, "sayADD": "panic: x"`, "network net1: CNI plugin fake: ADD: panic: x\nnoise (exit status 1)", func(error) bool { return true }},
		{"bad result", `, "result": "{\"ips\": 7}"`, "network net1: CNI: ", func(error) bool { return true }},
		{"another address", `, "capabilities": {"ips": true}, "result": "{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"10.9.0.3/24\"}]}"`,
			"network net1: its CNI plugins were asked for the address 10.9.0.2 and gave 10.9.0.3", errdefs.IsInvalidArgument},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			n, s := h.fakeNetwork(t, "1.0.0", c.more), h.sandbox(t, "box")
			e := testEndpoint(2, "eth0")
			if strings.Contains(c.more, "capabilities") {
				e.Address = prefixOf("10.9.0.2/32")
			}
			_, err := h.Join(context.Background(), n, e, s)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || !c.class(err) {
				t.Errorf("%q, want %q", err, c.want)
			}
			if got := commands(h.calls(t)); got != "ADD DEL" || h.known(t) != 0 {
				t.Errorf("called %s, %d records", got, h.known(t))
			}
		})
	}
}

// TestHang wants a plugin that does not end killed with all it has started, and DEL called.
func TestHang(t *testing.T) {
	h := newHost(t)
	h.addLimit = 5 * time.Second
	n, s := h.fakeNetwork(t, "1.0.0", `, "hang": "ADD"`), h.sandbox(t, "box")
	_, err := h.Join(context.Background(), n, testEndpoint(2, "eth0"), s)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "network net1: CNI plugin fake: ADD: it did not end within 5s and was killed") {
		t.Errorf("%v", err)
	}
	if got := commands(h.calls(t)); !strings.HasSuffix(got, "DEL") || h.known(t) != 0 {
		t.Errorf("called %s, %d records", got, h.known(t))
	}
	b, err := os.ReadFile(h.log() + ".pids")
	if err != nil {
		return // killed before it had begun: a busy machine
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, text := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); alive(pid); <-tick.C {
			if time.Now().After(deadline) {
				t.Fatalf("process %d is still there", pid)
			}
		}
	}
}

func prefixOf(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// alive tells whether a process runs; a zombie that nobody has waited for does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && syscall.Kill(pid, 0) == nil && !strings.Contains(string(b), ") Z ")
}

// TestCallerGone takes back what a caller that does not wait any more has begun.
func TestCallerGone(t *testing.T) {
	h := newHost(t)
	n, s := h.fakeNetwork(t, "1.0.0", `, "hang": "ADD"`), h.sandbox(t, "box")
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			if _, err := os.Stat(h.log() + ".pids"); err == nil {
				cancel()
				return
			}
			<-tick.C
		}
	}()
	if _, err := h.Join(ctx, n, testEndpoint(2, "eth0"), s); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if got := commands(h.calls(t)); got != "ADD DEL" || h.known(t) != 0 {
		t.Errorf("called %s, %d records", got, h.known(t))
	}
}

// TestDelFails keeps in mind what could not be taken back: it is tried again with the network's removal, and before the
// same container joins again.
func TestDelFails(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	n, s := h.fakeNetwork(t, "1.0.0", `, "sayDEL": "{\"code\":11,\"msg\":\"busy\"}"`), h.sandbox(t, "box")
	h.join(t, n, testEndpoint(2, "eth0"), s)
	want := "network net1: CNI plugin fake: DEL: busy (code 11)"
	if err := h.Leave(ctx, n, testEndpoint(2, "eth0")); err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	if err := h.Remove(ctx, n); err == nil || !strings.HasPrefix(err.Error(), want+"; delete "+h.recordPath(testEndpoint(2, "").ID)) {
		t.Errorf("%v", err)
	}
	if err := unix.Unmount(s.Path, unix.MNT_DETACH); err != nil { // the container's next sandbox has the same path
		t.Fatal(err)
	}
	h.sandbox(t, "box")
	if _, err := h.Join(ctx, n, testEndpoint(3, "eth0"), s); err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	if got := commands(h.calls(t)); got != "ADD DEL DEL DEL DEL DEL DEL" || h.known(t) != 1 {
		t.Errorf("called %s, %d records", got, h.known(t))
	}
	// A plugin that has been mended: the record's own options are what DEL is called with.
	r, err := h.recall(testEndpoint(2, "").ID)
	if err != nil {
		t.Fatal(err)
	}
	r.Options[OptionConfig] = strings.Replace(r.Options[OptionConfig], "sayDEL", "said", 1)
	if err := h.keep(r); err != nil {
		t.Fatal(err)
	}
	h.join(t, h.fakeNetwork(t, "1.0.0", ""), testEndpoint(3, "eth0"), s)
	if got := commands(h.calls(t)); got != "DEL ADD" || h.known(t) != 1 {
		t.Errorf("called %s, %d records", got, h.known(t))
	}
}

// TestCutShort takes back what the plugin bridge had made when it was killed: all but the rules. Its DEL fails at them at
// first.
func TestCutShort(t *testing.T) {
	h := newHost(t)
	n, s := h.network(t, flannelShape), h.sandbox(t, "box")
	h.join(t, n, testEndpoint(2, "eth0"), s)
	netdrivertest.MustRun(t, "", "nft flush ruleset")
	h.leave(t, n, testEndpoint(2, "eth0"))
	if got := h.given(t); len(got) != 0 || h.known(t) != 0 {
		t.Errorf("addresses %v, %d records", got, h.known(t))
	}
}

// TestCrash begins anew where a daemon has died at every step of an ADD.
func TestCrash(t *testing.T) {
	h := newHost(t)
	needs := fmt.Sprintf(`, "needs": %q`, h.recordPath(testEndpoint(2, "").ID)) // what is known before a plugin runs
	n, s := h.fakeNetwork(t, "1.0.0", needs), h.sandbox(t, "box")
	r := &record{Endpoint: testEndpoint(2, "").ID, Network: n.ID, Name: n.Name, Container: "box", Interface: "eth0", Sandbox: s.Path, Options: n.Options}
	if err := h.keep(r); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.recordDir(), ".new-1"), []byte("{"), 0o600); err != nil { // half of another
		t.Fatal(err)
	}
	h.Driver = newDriver(h.dir)
	ids, err := h.Endpoints(n)
	if err != nil || !slices.Equal(ids, []netdriver.EndpointID{r.Endpoint}) {
		t.Errorf("%v, %v", ids, err)
	}
	h.join(t, n, testEndpoint(2, "eth0"), s) // DEL comes first: the plugin may have got anywhere
	if got := commands(h.calls(t)); got != "DEL ADD" {
		t.Errorf("called %s", got)
	}
	h.Driver = newDriver(h.dir)
	h.join(t, n, testEndpoint(2, "eth0"), s)
	if got := commands(h.calls(t)); got != "" {
		t.Errorf("an endpoint that is whole: called %s", got)
	}
	if err := h.Prune(context.Background(), []netdriver.NetworkID{n.ID}); err != nil || h.known(t) != 1 {
		t.Errorf("%v, %d records", err, h.known(t))
	}
	if err := h.Prune(context.Background(), nil); err != nil || h.known(t) != 0 {
		t.Errorf("%v, %d records", err, h.known(t))
	}
	if left, err := os.ReadDir(h.recordDir()); err != nil || len(left) > 0 {
		t.Errorf("%v, left behind %v", err, left)
	}
	if got := commands(h.calls(t)); got != "DEL" {
		t.Errorf("of a network that is gone: called %s", got)
	}
}

// TestVersions calls what each version of the specification has, and no more.
func TestVersions(t *testing.T) {
	for _, c := range []struct{ version, want string }{
		{"0.3.1", "ADD DEL"}, {"0.4.0", "ADD CHECK DEL"}, {"1.0.0", "ADD CHECK DEL"}, {"1.1.0", "STATUS ADD CHECK GC DEL"},
	} {
		t.Run(c.version, func(t *testing.T) {
			h := newHost(t)
			ctx := context.Background()
			n, s := h.fakeNetwork(t, c.version, ""), h.sandbox(t, "box")
			e := testEndpoint(2, "eth0")
			h.join(t, n, e, s)
			err := errors.Join(h.Verify(ctx, n, e.ID), h.Collect(ctx, n), h.Leave(ctx, n, e), h.Verify(ctx, n, e.ID), h.Remove(ctx, n))
			calls := h.calls(t)
			if got := commands(calls); err != nil || got != c.want {
				t.Errorf("%v; called %s, want %s", err, got, c.want)
			}
			for _, call := range calls {
				valid, err := json.Marshal(call.Conf["cni.dev/valid-attachments"])
				if want := `[{"containerID":"box","ifname":"eth0"}]`; call.Command == "GC" && (err != nil || string(valid) != want) {
					t.Errorf("%v; GC with %s", err, valid)
				}
				if call.Command == "DEL" && c.version != "0.3.1" && call.Conf["prevResult"] == nil {
					t.Error("DEL without the result of ADD")
				}
			}
		})
	}
	h := newHost(t)
	_, err := h.Resolve(context.Background(), "net1", h.fakeOptions(t, "1.1.0", `, "saySTATUS": "{\"code\":50,\"msg\":\"no subnet yet\"}"`))
	if want := "network net1: CNI plugin fake: STATUS: no subnet yet (code 50)"; !errdefs.IsUnavailable(err) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestDrift tells of a sandbox that is not as the plugins made it, and adds the endpoint again where there is nothing left.
func TestDrift(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	n, s := h.network(t, strings.Replace(flannelShape, `, "routes": [{"dst": "10.244.0.0/16"}]`, "", 1)), h.sandbox(t, "box")
	n.Options[OptionConfig] = strings.Replace(n.Options[OptionConfig], "0.3.1", "1.0.0", 1)
	e := testEndpoint(2, "eth0")
	first := h.join(t, n, e, s)
	if err := h.Verify(ctx, n, e.ID); err != nil {
		t.Error(err)
	}
	netdrivertest.MustRun(t, s.Path, "ip addr del "+first.Address.String()+" dev eth0")
	if err := h.Verify(ctx, n, e.ID); err == nil || !strings.HasPrefix(err.Error(), "network net1: CNI plugin bridge: CHECK: ") {
		t.Errorf("%v", err)
	}
	netdrivertest.MustRun(t, s.Path, "ip link del eth0")
	if again := h.join(t, n, e, s); again.Address == first.Address || len(h.given(t)) != 1 {
		t.Errorf("%v, then %v; given %v", first.Address, again.Address, h.given(t))
	}
}

// TestConfigurationKept makes a network of several files, which may then go.
func TestConfigurationKept(t *testing.T) {
	h := newHost(t)
	options := h.fakeOptions(t, "1.1.0", "")
	dir := filepath.Join(h.dir, "fakes")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "20.conf"), fmt.Appendf(nil, `{"type": "fake", "log": %q, "number": 9007199254740993}`, h.log()), 0o644); err != nil {
		t.Fatal(err)
	}
	kept, err := h.Resolve(context.Background(), "net1", options)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(dir), os.Remove(options[OptionConf])); err != nil {
		t.Fatal(err)
	}
	c, err := parse(kept)
	if err != nil || len(c.list.Plugins) != 2 || !strings.Contains(kept[OptionConfig], "9007199254740993") {
		t.Errorf("%v: %s", err, kept[OptionConfig])
	}
	if got := commands(h.calls(t)); got != "STATUS STATUS" {
		t.Errorf("called %s", got)
	}
}

// TestExhausted tells in host-local's own words that there are no addresses left.
func TestExhausted(t *testing.T) {
	h := newHost(t)
	n := h.network(t, `{"name": "small", "cniVersion": "1.0.0", "type": "ptp", "ipam": {"type": "host-local", "dataDir": "LEASES", "subnet": "10.1.0.0/30"}}`)
	a, b := h.sandbox(t, "a"), h.sandbox(t, "b")
	h.join(t, n, testEndpoint(2, "eth0"), a)
	before := netdrivertest.Listing(t, "")
	_, err := h.Join(context.Background(), n, testEndpoint(3, "eth0"), b)
	if err == nil || !strings.Contains(err.Error(), "network net1: CNI plugin ptp: ADD: ") || !strings.Contains(err.Error(), "no IP addresses available in range set: 10.1.0.1-10.1.0.2") {
		t.Errorf("%v", err)
	}
	if netdrivertest.Listing(t, "") != before || len(h.given(t)) != 1 || h.known(t) != 1 {
		t.Errorf("%v given, %d records, and\n%s", h.given(t), h.known(t), netdrivertest.Listing(t, ""))
	}
}

// TestLead moves the default route away from an endpoint and back to it, as when its container joins a network that comes
// before, and leaves that again.
func TestLead(t *testing.T) {
	h := newHost(t)
	n, s := h.network(t, flannelShape), h.sandbox(t, "box")
	e := testEndpoint(2, "eth0")
	made := h.join(t, n, e, s)
	route := func() string { return netdrivertest.MustRun(t, s.Path, "ip route show default") }
	was := route()
	if !strings.HasPrefix(was, "default via 10.244.1.1 dev eth0") {
		t.Errorf("at first %q", was)
	}
	if h.join(t, n, e, s); route() != "" {
		t.Errorf("without a gateway %q", route())
	}
	e.Gateway = made.Gateway
	if h.join(t, n, e, s); !strings.HasPrefix(route(), "default via 10.244.1.1 dev eth0") {
		t.Errorf("with one %q", route())
	}
}

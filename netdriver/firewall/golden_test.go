package firewall

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"github.com/minictl/minictl/netdriver/netdrivertest"
)

var update = flag.Bool("update", false, "write the golden files anew")

var elements = regexp.MustCompile(`(?s)elements = \{(.*?)\}`)

// listing is the kernel's own view of the tables in the calling thread's namespace. Sets are hashes, so their elements
// come in any order and are sorted here.
func listing(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("nft", "--stateless", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
	return elements.ReplaceAllStringFunc(string(out), func(s string) string {
		list := strings.Split(elements.FindStringSubmatch(s)[1], ",")
		for i := range list {
			list[i] = strings.TrimSpace(list[i])
		}
		slices.Sort(list)
		return "elements = { " + strings.Join(list, ", ") + " }"
	})
}

var frame = regexp.MustCompile(`(?m)^(table .*|\})$`)

// blocks are the chains and sets of a listing, sorted: the kernel lists them in the order they were made.
func blocks(listing string) []string {
	list := strings.Split(frame.ReplaceAllString(listing, "\n"), "\n\n")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".nft")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(blocks(got), blocks(string(want))) {
		t.Errorf("%s differs from the kernel's listing; go test -update writes it anew:\n%s", path, got)
	}
}

func fullWish() (bridges []Bridge, ports map[string][]Port, members []netip.Addr) {
	a := bridgeA
	a.Subnets, a.Gateways, a.Shared = prefixes("172.18.0.0/16", "fd00:1::/64"), addrs("172.18.0.1", "fd00:1::1"), true
	rt := Bridge{Interface: "rt0", Subnets: prefixes("172.21.0.0/16", "fd00:2::/64"), Gateways: addrs("172.21.0.1"), Masquerade: true,
		ICC: true, Mode4: Routed, Mode6: Unprotected, Trusted: []string{"lan0"}, Sources: addrs("192.0.2.77", "2001:db8::77")}
	return []Bridge{a, bridgeGW, bridgeInt, rt},
		map[string][]Port{
			"web": {
				port("tcp", "", 80, "172.18.0.2:8080", "br-a"),
				port("tcp", "127.0.0.1", 81, "172.18.0.2:8081", "br-a"),
				port("tcp", "::", 80, "[fd00:1::2]:8080", "br-a"),
				port("tcp", "2001:db8::1", 81, "[fd00:1::2]:8081", "br-a"),
				port("sctp", "", 36412, "172.18.0.2:36412", "br-a"),
				port("udp", "", 5000, "172.18.0.2:5000", "br-a"), port("udp", "", 5002, "172.18.0.2:5002", "br-a"), port("udp", "", 5001, "172.18.0.2:5001", "br-a"),
				port("udp", "192.0.2.1", 5000, "172.18.0.2:5000", "br-a"), port("udp", "192.0.2.1", 5001, "172.18.0.2:5001", "br-a"),
				port("tcp", "", 0, "172.21.0.2:80", "rt0"), port("tcp", "", 0, "172.21.0.2:81", "rt0"), port("tcp", "", 0, "172.21.0.3:80", "rt0"),
				port("tcp", "", 7000, "[fd00:2::2]:80", "rt0"),
			},
			"dns": {port("udp", "0.0.0.0", 53, "172.19.0.2:53", "gw0"), port("tcp", "0.0.0.0", 53, "172.19.0.2:53", "gw0")},
		},
		[]netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::2")}
}

func TestListing(t *testing.T) {
	netdrivertest.NewNS(t)
	ctx := context.Background()
	f := newFirewall(t)
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	bridges, ports, members := fullWish()
	ok(f.SetMembers(ctx, 4789, members))
	golden(t, "guard", listing(t))
	for _, b := range bridges {
		ok(f.SetBridge(ctx, b))
	}
	golden(t, "bridges", listing(t))
	for owner, p := range ports {
		ok(f.SetPorts(ctx, owner, p))
	}
	golden(t, "full", listing(t))
	// The same wish again, and after somebody took the table away, gives the same table.
	ok(f.Sync(ctx))
	golden(t, "full", listing(t))
	netdrivertest.MustRun(t, "", "nft flush ruleset")
	ok(f.Sync(ctx))
	golden(t, "full", listing(t))
	netdrivertest.MustRun(t, "", "nft flush ruleset")
	ok(f.SetBridge(ctx, bridges[0]))
	golden(t, "full", listing(t))
	for owner := range ports {
		ok(f.SetPorts(ctx, owner, nil))
	}
	golden(t, "bridges", listing(t))
	for _, b := range bridges {
		ok(f.RemoveBridge(ctx, b.Interface))
	}
	golden(t, "guard", listing(t))
	ok(f.SetMembers(ctx, 0, nil))
	if got := listing(t); got != "" {
		t.Errorf("left behind:\n%s", got)
	}
}

// Whatever happened before, the table says the wish and nothing else; another's table is never touched.
func TestAnyHistoryGivesTheSameTable(t *testing.T) {
	netdrivertest.NewNS(t)
	ctx := context.Background()
	const foreign = "table inet other {\n\tset bridges {\n\t\ttype ipv4_addr\n\t}\n\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n\t}\n}\n"
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(foreign)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	bridges, ports, members := fullWish()
	owners := []string{"dns", "web"}
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("25") // each check is a dozen transactions; ask for more by the flag
	}
	rapid.Check(t, func(rt *rapid.T) {
		f := New(netdrivertest.Quiet())
		defer f.Close()
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			var err error
			switch b := rapid.SampledFrom(bridges).Draw(rt, "bridge"); rapid.IntRange(0, 6).Draw(rt, "step") {
			case 0, 1:
				b.ICC = rapid.Bool().Draw(rt, "icc")
				err = f.SetBridge(ctx, b)
			case 2:
				err = f.RemoveBridge(ctx, b.Interface)
			case 3, 4:
				o := rapid.SampledFrom(owners).Draw(rt, "owner")
				n := rapid.IntRange(0, len(ports[o])).Draw(rt, "ports")
				err = f.SetPorts(ctx, o, ports[o][:n])
			case 5:
				err = f.SetMembers(ctx, uint16(rapid.SampledFrom([]int{0, 4789}).Draw(rt, "port")), members)
			case 6:
				netdrivertest.MustRun(t, "", "nft flush ruleset")
				cmd := exec.Command("nft", "-f", "-")
				cmd.Stdin = strings.NewReader(foreign)
				err = cmd.Run()
			}
			if err != nil {
				rt.Fatal(err)
			}
		}
		if err := f.Sync(ctx); err != nil {
			rt.Fatal(err)
		}
		got := listing(t)
		if err := f.kernel.commit(plan(f.wish), true); err != nil {
			rt.Fatal(err)
		}
		if want := listing(t); !slices.Equal(blocks(got), blocks(want)) {
			rt.Fatalf("after its history:\n%s\nwritten afresh:\n%s", got, want)
		}
		if !strings.Contains(got, foreign) {
			rt.Fatalf("the foreign table changed:\n%s", got)
		}
	})
}

// A table of another make under our name is replaced.
func TestReplacesAnOlderTable(t *testing.T) {
	netdrivertest.NewNS(t)
	for _, c := range []string{
		"nft add table inet minictl",
		"nft add set inet minictl bridges {type\u00a0ipv4_addr;}",
		"nft add chain inet minictl old",
		"nft add rule inet minictl old drop",
		"nft add chain inet minictl forward {type\u00a0filter\u00a0hook\u00a0input\u00a0priority\u00a05;}",
		"nft add rule inet minictl forward jump old",
	} {
		words := strings.Fields(strings.ReplaceAll(c, "\u00a0", "\x00"))
		for i := range words {
			words[i] = strings.ReplaceAll(words[i], "\x00", " ")
		}
		if out, err := netdrivertest.Run("", words...); err != nil {
			t.Fatalf("%s: %v\n%s", c, err, out)
		}
	}
	f := newFirewall(t)
	bridges, ports, members := fullWish()
	f.Hold()
	for _, b := range bridges {
		if err := f.SetBridge(context.Background(), b); err != nil {
			t.Fatal(err)
		}
	}
	for o, p := range ports {
		if err := f.SetPorts(context.Background(), o, p); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.SetMembers(context.Background(), 4789, members); err != nil {
		t.Fatal(err)
	}
	if got := listing(t); !strings.Contains(got, "chain old") {
		t.Errorf("Hold wrote:\n%s", got)
	}
	if err := f.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	golden(t, "full", listing(t))
}

// A second process adopts the table of the first without replacing it.
func TestChangesInPlace(t *testing.T) {
	netdrivertest.NewNS(t)
	bridges, ports, _ := fullWish()
	handles := regexp.MustCompile(`chain \w+ \{ # handle \d+`)
	var first []string
	for i := range 2 {
		var log bytes.Buffer
		f := New(slog.New(slog.NewTextHandler(&log, nil)))
		f.Hold()
		for _, b := range bridges {
			if err := f.SetBridge(context.Background(), b); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Sync(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := f.SetPorts(context.Background(), fmt.Sprint("owner", i), ports["web"]); err != nil {
			t.Fatal(err)
		}
		f.Close()
		now := handles.FindAllString(netdrivertest.MustRun(t, "", "nft -a list table inet minictl"), -1)
		if first == nil {
			first = now
		}
		if !slices.Equal(first, now) || len(now) == 0 {
			t.Errorf("chains were replaced: %q, before %q", now, first)
		}
		if log.Len() > 0 {
			t.Errorf("logged: %s", &log)
		}
	}
}

func TestRefusals(t *testing.T) {
	netdrivertest.NewNS(t)
	ctx := context.Background()
	f := newFirewall(t)
	if err := f.SetBridge(ctx, bridgeA); err != nil {
		t.Fatal(err)
	}
	if err := f.SetPorts(ctx, "web1", []Port{port("tcp", "", 80, "172.18.0.2:80", "br-a")}); err != nil {
		t.Fatal(err)
	}
	before := listing(t)
	for _, c := range []struct {
		what string
		err  error
		is   func(error) bool
		text string
	}{
		{"another owner's port", f.SetPorts(ctx, "web2", []Port{port("tcp", "0.0.0.0", 80, "172.18.0.3:80", "br-a")}),
			errdefs.IsAlreadyExists, "held by web1"},
		{"the same port twice", f.SetPorts(ctx, "web2", []Port{port("tcp", "", 81, "172.18.0.3:80", "br-a"), port("tcp", "", 81, "172.18.0.3:81", "br-a")}),
			errdefs.IsAlreadyExists, "tcp port 81"},
		{"an unknown protocol", f.SetPorts(ctx, "web2", []Port{port("icmp", "", 81, "172.18.0.3:80", "br-a")}),
			errdefs.IsInvalidArgument, "icmp port 81"},
		{"no target", f.SetPorts(ctx, "web2", []Port{{Proto: "tcp", HostPort: 1}}), errdefs.IsInvalidArgument, "tcp port 1"},
		{"a name too long for the kernel", f.SetBridge(ctx, Bridge{Interface: "sixteen-bytes-xx"}),
			errdefs.IsInvalidArgument, "sixteen"},
	} {
		if c.err == nil || !c.is(c.err) || !strings.Contains(c.err.Error(), c.text) {
			t.Errorf("%s: %v", c.what, c.err)
		}
	}
	if after := listing(t); after != before {
		t.Errorf("a refused wish changed the table:\n%s", after)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := f.Sync(cancelled); err == nil {
		t.Error("a cancelled Sync wrote")
	}
}

// Ports rest while their bridge is away, and ports that NAT cannot serve are left out, so that one of them does not make
// the kernel refuse the table.
func TestPortsThatRest(t *testing.T) {
	netdrivertest.NewNS(t)
	ctx := context.Background()
	f := newFirewall(t)
	if err := f.SetPorts(ctx, "web", []Port{
		port("tcp", "", 80, "172.18.0.2:80", "br-a"), port("tcp", "::", 80, "172.18.0.2:80", "br-a"),
	}); err == nil {
		t.Fatal("every address twice was accepted")
	}
	if err := f.SetPorts(ctx, "web", []Port{
		port("tcp", "", 80, "172.18.0.2:80", "br-a"), port("tcp", "2001:db8::1", 81, "172.18.0.2:80", "br-a"),
	}); err != nil {
		t.Fatal(err)
	}
	if got := listing(t); got != "" {
		t.Errorf("ports without a bridge:\n%s", got)
	}
	if err := f.SetBridge(ctx, bridgeA); err != nil {
		t.Fatal(err)
	}
	got := listing(t)
	if !strings.Contains(got, "tcp . 80 : 172.18.0.2 . 80") || strings.Contains(got, "81") {
		t.Errorf("ports with their bridge:\n%s", got)
	}
}

func TestManyPorts(t *testing.T) {
	netdrivertest.NewNS(t)
	ctx := context.Background()
	f := newFirewall(t)
	if err := f.SetBridge(ctx, bridgeA); err != nil {
		t.Fatal(err)
	}
	var many []Port
	for i := range 10000 {
		many = append(many, port("tcp", "", uint16(1000+i), "172.18.0.2:80", "br-a"))
	}
	start := time.Now()
	if err := f.SetPorts(ctx, "many", many); err != nil {
		t.Fatal(err)
	}
	t.Log("10,000 ports in", time.Since(start))
	if n := strings.Count(listing(t), "172.18.0.2 . 80"); n != len(many) {
		t.Errorf("%d ports in the table", n)
	}
	for i := range many {
		many[i].Target = netip.AddrPortFrom(many[i].Target.Addr(), many[i].HostPort)
	}
	if err := f.SetPorts(ctx, "many", many); err != nil {
		t.Fatal(err)
	}
	if got := listing(t); !strings.Contains(got, "elements = { tcp . 1000-10999 : 172.18.0.2 }") {
		t.Errorf("ports that keep their numbers are not one element:\n%.2000s", got)
	}
}

func BenchmarkSetPorts(b *testing.B) {
	netdrivertest.NewNS(b)
	ctx := context.Background()
	f := New(netdrivertest.Quiet())
	defer f.Close()
	bridges, ports, members := fullWish()
	for _, br := range bridges {
		if err := f.SetBridge(ctx, br); err != nil {
			b.Fatal(err)
		}
	}
	_ = f.SetMembers(ctx, 4789, members)
	_ = f.SetPorts(ctx, "web", ports["web"])
	for i := 0; b.Loop(); i++ {
		if err := f.SetPorts(ctx, "dns", ports["dns"][1:1+i%2]); err != nil {
			b.Fatal(err)
		}
	}
}

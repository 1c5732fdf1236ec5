package overlay

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/netdrivertest"
	"github.com/minictl/minictl/netdriver/nl"
)

// node is a host with an overlay driver.
type node struct {
	netdrivertest.Host
	driver *Driver
}

// nodes makes two hosts with a driver and a data path each.
func nodes(t testing.TB) (a, b *node) {
	t.Helper()
	var list []*node
	for _, h := range netdrivertest.Hosts(t, 2) {
		n := &node{Host: h}
		n.restart(t)
		list = append(list, n)
	}
	return list[0], list[1]
}

// restart gives the host a new driver, as a new daemon would have.
func (n *node) restart(t testing.TB) {
	t.Helper()
	n.driver = New(Config{Log: netdrivertest.Quiet(), NetnsDir: filepath.Join(n.Dir, "netns")})
	n.setDataPath(t, 4789, 1500)
}

// setDataPath states the host's end of the tunnels.
func (n *node) setDataPath(t testing.TB, port uint16, mtu int) {
	t.Helper()
	n.Do(t, func() error {
		return n.driver.SetDataPath(context.Background(), netdriver.DataPath{Addr: n.Addr, Port: port, MTU: mtu})
	})
}

// sandbox makes a sandbox on the host.
func (n *node) sandbox(t testing.TB, id string) netdriver.Sandbox {
	t.Helper()
	return netdrivertest.NewSandbox(t, filepath.Join(n.Dir, "sandboxes"), id)
}

// join joins endpoint .last of w on the host and gives its sandbox's path.
func (n *node) join(t testing.TB, w netdriver.Network, last byte, id string) string {
	t.Helper()
	s := n.sandbox(t, id)
	n.Do(t, func() error {
		_, err := n.driver.Join(context.Background(), w, testEndpoint(last, "eth0"), s)
		return err
	})
	return s.Path
}

// peers states that the other host has these endpoints of w.
func (n *node) peers(t testing.TB, w netdriver.Network, other *node, last ...byte) {
	t.Helper()
	var list []netdriver.Peer
	for _, l := range last {
		list = append(list, peer(testEndpoint(l, "eth0"), other.Addr))
	}
	n.Do(t, func() error { return n.driver.SetPeers(context.Background(), w.ID, list) })
}

// rows is the part of the overlay namespace's listing that names vxlan0's rows.
func (n *node) rows(t testing.TB, w netdriver.Network) string {
	t.Helper()
	var rows []string
	for line := range strings.Lines(netdrivertest.Listing(t, n.driver.file(w.ID))) {
		if !strings.HasPrefix(line, "link") && strings.Contains(line, "dev vxlan0") {
			rows = append(rows, line)
		}
	}
	return strings.Join(rows, "")
}

// addr is 10.0.0.last.
func addr(last byte) netip.Addr { return testEndpoint(last, "").Address.Addr() }

// reach wants one ping to be answered, or not to be.
func reach(t testing.TB, from string, to byte, want bool) {
	t.Helper()
	if got := netdrivertest.Ping(from, addr(to)); got != want {
		t.Errorf("%s reaches %s: %v, want %v", filepath.Base(from), addr(to), got, want)
	}
}

func TestFirstPacketAcrossHosts(t *testing.T) {
	a, b := nodes(t)
	w := testNetwork(0)
	// The peers are stated before on one host and after the join on the other: both orders occur.
	a.peers(t, w, b, 3)
	one := a.join(t, w, 2, "one")
	two := b.join(t, w, 3, "two")
	b.peers(t, w, a, 2)
	reach(t, one, 3, true)
	reach(t, two, 2, true)
	reach(t, one, 1, true) // the gateway
	out, err := netdrivertest.Run(one, "busybox", "ping", "-c", "1", "-W", "1", "-s", "1422", addr(3).String())
	if err != nil {
		t.Errorf("a packet of 1450 bytes is lost: %s", out)
	}
}

func TestIsolation(t *testing.T) {
	a, b := nodes(t)
	w, other := testNetwork(0), testNetwork(1) // the same subnet and the same MACs
	a.peers(t, w, b, 3)
	b.peers(t, w, a, 2)
	a.peers(t, other, b, 5)
	b.peers(t, other, a, 4)
	a.join(t, w, 2, "one")
	three := b.join(t, w, 3, "three")
	four := a.join(t, other, 4, "four")
	b.join(t, other, 5, "five")
	var wg sync.WaitGroup
	for _, c := range []struct {
		from string
		to   byte
		want bool
	}{
		{three, 2, true}, {four, 5, true},
		{four, 2, false}, {three, 5, false}, // the same host, another network
		{four, 3, false}, // another host and network
	} {
		wg.Go(func() { reach(t, c.from, c.to, c.want) }) // at once: each refusal takes its second
	}
	wg.Wait()
}

func TestAddressMoves(t *testing.T) {
	a, b := nodes(t)
	w := testNetwork(0)
	one := a.join(t, w, 2, "one")
	b.join(t, w, 3, "there")
	a.peers(t, w, b, 3)
	b.peers(t, w, a, 2)
	reach(t, one, 3, true)
	// It moves here while the word of the other host is still the old one.
	b.Do(t, func() error { return b.driver.Leave(context.Background(), w, testEndpoint(3, "eth0")) })
	a.join(t, w, 3, "here")
	if got := a.rows(t, w); strings.Contains(got, addr(3).String()) {
		t.Errorf("vxlan0 still answers for the local address:\n%s", got)
	}
	reach(t, one, 3, true)
	// And back; the peers that were stated meanwhile apply again.
	b.join(t, w, 3, "there again")
	a.Do(t, func() error { return a.driver.Leave(context.Background(), w, testEndpoint(3, "eth0")) })
	reach(t, one, 3, true)
}

func TestPeersGo(t *testing.T) {
	a, b := nodes(t)
	w := testNetwork(0)
	a.join(t, w, 2, "one")
	a.peers(t, w, b, 3, 4)
	a.peers(t, w, b, 4)
	want := "fdb 02:42:0a:00:00:04 dev vxlan0 dst 192.168.66.12 permanent\n" +
		"neigh 10.0.0.4 dev vxlan0 lladdr 02:42:0a:00:00:04 permanent\n"
	if got := a.rows(t, w); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	a.peers(t, w, b)
	if got := a.rows(t, w); got != "" {
		t.Errorf("stale rows:\n%s", got)
	}
}

// TestLearnedRow is the way Docker loses rows: the kernel has learned the MAC, and an exclusive create fails.
func TestLearnedRow(t *testing.T) {
	a, b := nodes(t)
	w := testNetwork(0)
	a.join(t, w, 2, "one")
	ns := a.driver.file(w.ID)
	netdrivertest.MustRun(t, ns, "bridge fdb add 02:42:0a:00:00:03 dev vxlan0 dst 192.168.66.99 self dynamic")
	netdrivertest.MustRun(t, ns, "bridge fdb append 02:42:0a:00:00:03 dev vxlan0 dst 192.168.66.98 self")
	netdrivertest.MustRun(t, ns, "ip neigh add 10.0.0.3 lladdr 02:42:00:00:00:99 dev vxlan0 nud permanent")
	a.peers(t, w, b, 3)
	want := "fdb 02:42:0a:00:00:03 dev vxlan0 dst 192.168.66.12 permanent\n" +
		"neigh 10.0.0.3 dev vxlan0 lladdr 02:42:0a:00:00:03 permanent\n"
	if got := a.rows(t, w); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	b.peers(t, w, a, 2)
	reach(t, b.join(t, w, 3, "two"), 2, true)
}

func TestDataPathChanges(t *testing.T) {
	a, b := nodes(t)
	w := testNetwork(0)
	one, two := a.join(t, w, 2, "one"), b.join(t, w, 3, "two")
	a.peers(t, w, b, 3)
	b.peers(t, w, a, 2)
	for _, n := range []*node{a, b} {
		n.setDataPath(t, 4790, 1400)
	}
	reach(t, one, 3, true)
	reach(t, two, 2, true)
	if got := netdrivertest.Listing(t, one); !strings.Contains(got, "link eth0 veth mtu 1350") {
		t.Errorf("the container's MTU:\n%s", got)
	}
	if got := netdrivertest.Listing(t, a.driver.file(w.ID)); !strings.Contains(got, "dstport 4790") {
		t.Errorf("the tunnel:\n%s", got)
	}
	a.Do(t, func() error { return a.driver.SetDataPath(context.Background(), netdriver.DataPath{}) })
	if got := netdrivertest.Listing(t, a.driver.file(w.ID)); strings.Contains(got, "vxlan0") || !strings.Contains(got, "br0 bridge mtu 1450") {
		t.Errorf("without a data path:\n%s", got)
	}
	a.setDataPath(t, 4790, 1400)
	reach(t, two, 2, true)
}

// TestRestartKeepsTraffic calls the driver in the order a careless daemon might: what works must go on working before
// data path and peers are stated.
func TestRestartKeepsTraffic(t *testing.T) {
	a, b := nodes(t)
	w := testNetwork(0)
	one := a.join(t, w, 2, "one")
	b.join(t, w, 3, "two")
	a.peers(t, w, b, 3)
	b.peers(t, w, a, 2)
	before := netdrivertest.Listing(t, a.driver.file(w.ID))
	a.driver = New(Config{Log: netdrivertest.Quiet(), NetnsDir: filepath.Join(a.Dir, "netns")})
	check := func(step string) {
		t.Helper()
		if got := netdrivertest.Listing(t, a.driver.file(w.ID)); got != before {
			t.Errorf("after %s:\n%s", step, got)
		}
	}
	ctx := context.Background()
	a.Do(t, func() error { return a.driver.Ensure(ctx, w) })
	check("Ensure")
	a.Do(t, func() error {
		_, err := a.driver.Join(ctx, w, testEndpoint(2, "eth0"), netdriver.Sandbox{ID: "one", Path: one})
		return err
	})
	check("Join")
	a.setDataPath(t, 4789, 1500)
	check("SetDataPath")
	a.peers(t, w, b, 3)
	check("SetPeers")
	reach(t, one, 3, true)
}

// TestHalfMade finds what a crash may leave at any point of the set-up.
func TestHalfMade(t *testing.T) {
	a, b := nodes(t)
	w := testNetwork(0)
	ns := a.driver.file(w.ID)
	for _, breakage := range []string{
		"ip link del br0", "ip link del vxlan0", "ip link set vxlan0 nomaster", "ip link set br0 down", "ip addr flush dev br0",
		"ip addr add 10.9.9.9/24 dev br0", "ip link set br0 mtu 1000", "ip link set vxlan0 down name vx-100-4c21b",
		"ip link set vxlan0 type vxlan ageing 1", "bridge link set dev vxlan0 learning off",
	} {
		one := a.join(t, w, 2, "one")
		a.peers(t, w, b, 3)
		want := netdrivertest.Listing(t, ns)
		netdrivertest.MustRun(t, ns, breakage)
		a.restart(t)
		a.peers(t, w, b, 3)
		a.Do(t, func() error {
			_, err := a.driver.Join(context.Background(), w, testEndpoint(2, "eth0"), netdriver.Sandbox{ID: "one", Path: one})
			return err
		})
		if got := netdrivertest.Listing(t, ns); got != want {
			t.Errorf("%s is not repaired:\n%s\nwant:\n%s", breakage, got, want)
		}
	}
	a.Do(t, func() error { return a.driver.Remove(context.Background(), w) })
	// A namespace file without a namespace.
	if err := os.WriteFile(ns, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	reach(t, a.join(t, w, 2, "one"), 1, true)
}

// TestWishThatCannotBe: a network that cannot be is refused, and is not tried again with whatever comes later: what this host
// had of it stays as it is.
func TestWishThatCannotBe(t *testing.T) {
	a, b := nodes(t)
	w := testNetwork(0)
	one := a.join(t, w, 2, "one")
	a.peers(t, w, b, 3)
	bad := w
	bad.Subnets = nil
	a.Do(t, func() error {
		if _, err := a.driver.Join(context.Background(), bad, testEndpoint(2, "eth0"), netdriver.Sandbox{ID: "one", Path: one}); err == nil {
			t.Error("a network without subnets is joined")
		}
		if err := a.driver.Ensure(context.Background(), bad); err == nil {
			t.Error("a network without subnets is set up")
		}
		path, _ := a.driver.dataPath()
		path.MTU--
		return a.driver.SetDataPath(context.Background(), path)
	})
}

func TestTunnelOfAnother(t *testing.T) {
	a, b := nodes(t)
	w := testNetwork(0)
	a.Do(t, func() error { return a.driver.Ensure(context.Background(), w) })
	// A second daemon that uses the first one's folder must not take its tunnel.
	b.driver = New(Config{Log: netdrivertest.Quiet(), NetnsDir: filepath.Join(a.Dir, "netns")})
	b.setDataPath(t, 4789, 1500)
	var err error
	b.Do(t, func() error { err = b.driver.Ensure(context.Background(), w); return nil })
	if !errdefs.IsConflict(err) {
		t.Errorf("the other daemon's namespace: %v", err)
	}
	// A VNI that another device of the host has.
	netdrivertest.MustRun(t, a.Path, "ip link add other type vxlan id 257 dstport 4789 local "+a.Addr.String())
	a.Do(t, func() error {
		_, err = a.driver.Join(context.Background(), testNetwork(1), testEndpoint(2, "eth0"), a.sandbox(t, "s"))
		return nil
	})
	if !errdefs.IsAlreadyExists(err) || !strings.Contains(err.Error(), "VNI 257") {
		t.Errorf("a VNI that is taken: %v", err)
	}
	if ids, err := a.driver.Present(); err != nil || len(ids) != 1 {
		t.Errorf("the failed join leaves %v, %v", ids, err)
	}
}

func TestPrune(t *testing.T) {
	a, _ := nodes(t)
	ctx := context.Background()
	for i := range 2 {
		a.Do(t, func() error { return a.driver.Ensure(ctx, testNetwork(i)) })
	}
	foreign := netdrivertest.NewSandbox(t, filepath.Join(a.Dir, "netns"), "mine")
	a.restart(t)
	a.Do(t, func() error { return a.driver.Prune(ctx, []netdriver.NetworkID{testNetwork(1).ID}) })
	if ids, err := a.driver.Present(); err != nil || len(ids) != 1 || ids[0] != "5c21b88438" {
		t.Errorf("present: %v, %v", ids, err)
	}
	netdrivertest.Listing(t, foreign.Path)
	// The VNI is free again at once.
	n := testNetwork(2)
	n.VNI = testNetwork(0).VNI
	a.Do(t, func() error { return a.driver.Ensure(ctx, n) })
}

// TestPlainIPNetns looks at the namespace with iproute2's own commands, as the tutorial does, also after `ip netns
// add` has come between.
func TestPlainIPNetns(t *testing.T) {
	a, _ := nodes(t)
	a.Do(t, func() error { return a.driver.Ensure(context.Background(), testNetwork(0)) })
	dir := filepath.Join(a.Dir, "netns")
	script := "set -e; mount -t tmpfs none /run; mkdir /run/netns; mount --rbind " + dir + " /run/netns; " +
		"ip netns list; ip netns exec 1-4c21b88438 ip -d link show vxlan0"
	out, err := netdrivertest.Run(a.Path, "unshare", "-m", "sh", "-c", script)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"1-4c21b88438", "vxlan id 256", "dstport 4789", "proxy", "l2miss", "l3miss", "nolearning", "link-netnsid 0",
		"local 192.168.66.11", "mtu 1450", "master br0"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
}

func BenchmarkJoin(b *testing.B) {
	a, other := nodes(b)
	ctx := context.Background()
	n, e, s := testNetwork(0), testEndpoint(2, "eth0"), a.sandbox(b, "s")
	a.peers(b, n, other, 3, 4, 5)
	a.Do(b, func() error {
		if err := a.driver.Ensure(ctx, n); err != nil {
			return err
		}
		for b.Loop() {
			if _, err := a.driver.Join(ctx, n, e, s); err != nil {
				return err
			}
			b.StopTimer()
			if err := a.driver.Leave(ctx, n, e); err != nil {
				return err
			}
			b.StartTimer()
		}
		return nil
	})
}

// TestNewHolderOfAnAddress gives an address to an endpoint with another MAC: a container that remembers the old one
// has to reach the new one at once, whichever host it is on.
func TestNewHolderOfAnAddress(t *testing.T) {
	a, b := nodes(t)
	w, ctx := testNetwork(0), context.Background()
	one := a.join(t, w, 2, "one")
	a.join(t, w, 3, "first")
	b.peers(t, w, a, 2)
	reach(t, one, 3, true)
	e := testEndpoint(3, "eth0")
	holder := func(n *node, last byte, id string) netdriver.Peer {
		e.MAC = []byte{2, 0x42, 0, 0, 0, last}
		s := n.sandbox(t, id)
		n.Do(t, func() error { _, err := n.driver.Join(ctx, w, e, s); return err })
		return peer(e, n.Addr)
	}
	leave := func(n *node) { n.Do(t, func() error { return n.driver.Leave(ctx, w, e) }) }
	leave(a)
	holder(a, 1, "second")
	reach(t, one, 3, true)
	leave(a)
	for i, id := range []string{"third", "fourth"} {
		p := holder(b, byte(10+i), id)
		a.Do(t, func() error { return a.driver.SetPeers(ctx, w.ID, []netdriver.Peer{p}) })
		reach(t, one, 3, true)
		leave(b)
	}
	a.peers(t, w, b)
	b.join(t, w, 3, "usual")
	a.peers(t, w, b, 3)
	reach(t, one, 3, true)
}

// TestAtOnce works on two networks from many goroutines, with peers and data path changing meanwhile.
func TestAtOnce(t *testing.T) {
	a, b := nodes(t)
	ctx := context.Background()
	// Not h.Do: that may end the test, which only the test's own goroutine may.
	inside := func(fn func() error) {
		if err := nl.Enter(a.Path, fn); err != nil {
			t.Error(err)
		}
	}
	var wg sync.WaitGroup
	for i := range byte(6) {
		s := a.sandbox(t, "s"+string('0'+rune(i)))
		n, e := testNetwork(int(i%2)), testEndpoint(10+i, "eth0")
		wg.Go(func() {
			for range 3 {
				inside(func() error { _, err := a.driver.Join(ctx, n, e, s); return err })
				inside(func() error { return a.driver.SetPeers(ctx, n.ID, []netdriver.Peer{peer(testEndpoint(9, ""), b.Addr)}) })
				inside(func() error { return a.driver.Leave(ctx, n, e) })
			}
		})
	}
	wg.Go(func() {
		for port := range uint16(3) {
			inside(func() error {
				return a.driver.SetDataPath(ctx, netdriver.DataPath{Addr: a.Addr, Port: 4789 + port, MTU: 1500})
			})
		}
	})
	wg.Wait()
	for i := range 2 {
		a.Do(t, func() error { return a.driver.Remove(ctx, testNetwork(i)) })
	}
	if ids, err := a.driver.Present(); err != nil || len(ids) != 0 {
		t.Errorf("present: %v, %v", ids, err)
	}
	if got := netdrivertest.Listing(t, a.Path); strings.Contains(got, "vx-") || strings.Contains(got, "veth0") {
		t.Errorf("left on the host:\n%s", got)
	}
}

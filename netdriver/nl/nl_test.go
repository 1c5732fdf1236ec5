package nl_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/netdriver/netdrivertest"
	"github.com/minictl/minictl/netdriver/nl"
)

// inode tells which namespace the calling thread is in.
func inode(t *testing.T) uint64 {
	var st unix.Stat_t
	if err := unix.Stat(nl.Self, &st); err != nil {
		t.Error(err)
	}
	return st.Ino
}

// TestThreadsStayHome enters a namespace many times, also when it fails inside, and looks at every thread it meets.
func TestThreadsStayHome(t *testing.T) {
	netdrivertest.NeedRoot(t)
	s := netdrivertest.NewSandbox(t, netdrivertest.Dir(t), "box")
	home := inode(t)
	wrong := errors.New("wrong")
	for range 50 {
		if err := nl.Enter(s.Path, func() error { return wrong }); !errors.Is(err, wrong) {
			t.Fatal(err)
		}
		where := make(chan uint64)
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			where <- inode(t)
		}()
		if got := <-where; got != home {
			t.Fatalf("a thread is stranded in namespace %d, home is %d", got, home)
		}
	}
}

func TestConnStaysInItsNamespace(t *testing.T) {
	netdrivertest.NewNS(t)
	s := netdrivertest.NewSandbox(t, netdrivertest.Dir(t), "box")
	c, err := nl.At(s.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.AddBridge("inside", nil, 1500); err != nil {
		t.Fatal(err)
	}
	if _, err := netdrivertest.Here(t).Link("inside"); !errdefs.IsNotFound(err) {
		t.Errorf("the bridge is here: %v", err)
	}
	netdrivertest.MustRun(t, s.Path, "ip link show inside")
	if _, err := nl.At(s.Path + "x"); !errdefs.IsNotFound(err) {
		t.Errorf("no namespace: %v", err)
	}
}

func TestLinks(t *testing.T) {
	netdrivertest.NewNS(t)
	s := netdrivertest.NewSandbox(t, netdrivertest.Dir(t), "box")
	c := netdrivertest.Here(t)
	empty := netdrivertest.Listing(t, "")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.AddVeth(nl.Veth{Name: "left", MTU: 1400, PeerName: "right", PeerNS: s.Path}))
	left, err := c.Link("left")
	must(err)
	if left.Kind != "veth" || left.MTU != 1400 || left.Up || left.Oper || left.PeerNS < 0 {
		t.Errorf("%+v", left)
	}
	if id, err := c.NSID(s.Path); err != nil || id != left.PeerNS {
		t.Errorf("namespace %d, want %d: %v", id, left.PeerNS, err)
	}
	err = c.AddVeth(nl.Veth{Name: "other", PeerName: "right", PeerNS: s.Path})
	if _, gone := c.Link("other"); !errdefs.IsAlreadyExists(err) || !errdefs.IsNotFound(gone) {
		t.Errorf("the peer's name is taken: %v; %v", err, gone)
	}
	must(c.SetAlias(left.Index, "a remark"))
	must(c.SetName(left.Index, "links"))
	must(c.SetMTU(left.Index, 1300))
	if l, err := c.LinkAt(left.Index); err != nil || l.Name != "links" || l.Alias != "a remark" || l.MTU != 1300 {
		t.Errorf("%+v, %v", l, err)
	}
	netdrivertest.MustRun(t, "", "ip link property add dev links altname another")
	if _, err := c.Link("another"); !errdefs.IsNotFound(err) {
		t.Errorf("an alternative name passes for the name: %v", err)
	}
	for range 2 {
		must(c.Delete(left.Index))
	}
	if err := c.SetUp(left.Index); !errdefs.IsNotFound(err) {
		t.Errorf("set up what is gone: %v", err)
	}
	if got := netdrivertest.Listing(t, ""); got != empty {
		t.Errorf("left behind:\n%s", got)
	}
}

func TestAddressesAndRoutes(t *testing.T) {
	netdrivertest.NewNS(t)
	c := netdrivertest.Here(t)
	netdrivertest.MustRun(t, "", "ip link add left type veth peer name right")
	netdrivertest.MustRun(t, "", "ip link set left up")
	netdrivertest.MustRun(t, "", "ip link set right up")
	l, err := c.Link("left")
	if err != nil {
		t.Fatal(err)
	}
	p := func(texts ...string) (list []netip.Prefix) {
		for _, s := range texts {
			list = append(list, netip.MustParsePrefix(s))
		}
		return list
	}
	// From each list to each other; secondary addresses of one subnet go with their primary unless all is well.
	for _, want := range [][]netip.Prefix{p("10.0.0.1/24"), p("10.0.0.1/24", "10.0.0.2/24"), p("10.0.0.2/24"), p("10.0.0.9/24", "10.1.0.1/16"), nil} {
		for range 2 {
			if err := c.SetAddresses(l.Index, want); err != nil {
				t.Fatal(err)
			}
			got, err := c.Addresses(l.Index)
			if err != nil || len(got) != len(want) {
				t.Errorf("got %v, want %v: %v", got, want, err)
			}
		}
	}
	if err := c.SetAddresses(l.Index, p("10.0.0.1/24")); err != nil {
		t.Fatal(err)
	}
	all, gw := netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.0.0.254")
	for range 2 {
		if err := errors.Join(c.SetRoute(l.Index, all, gw), c.SetRoute(l.Index, p("10.7.0.0/16")[0], netip.Addr{})); err != nil {
			t.Fatal(err)
		}
	}
	if dev, via, err := c.DefaultRoute(false); err != nil || dev != l.Index || via != gw {
		t.Errorf("default route %d %v, %v", dev, via, err)
	}
	if out := netdrivertest.MustRun(t, "", "ip route"); !strings.Contains(out, "10.7.0.0/16 dev left scope link") {
		t.Errorf("routes:\n%s", out)
	}
	for range 2 {
		if err := c.DeleteRoute(l.Index, all); err != nil {
			t.Fatal(err)
		}
	}
	if dev, _, err := c.DefaultRoute(false); err != nil || dev != 0 {
		t.Errorf("default route through %d, %v", dev, err)
	}
}

func TestSysctl(t *testing.T) {
	netdrivertest.NewNS(t)
	const key = "net/ipv4/conf/lo/forwarding"
	for _, v := range []string{"1", "0", "0"} {
		if err := nl.SetSysctl(key, v); err != nil || strings.TrimSpace(netdrivertest.MustRun(t, "", "cat /proc/sys/"+key)) != v {
			t.Errorf("%s is not %s: %v", key, v, err)
		}
	}
	if err := nl.SetSysctl("net/ipv4/conf/nosuch/forwarding", "1"); !errdefs.IsNotFound(err) {
		t.Errorf("no such key: %v", err)
	}
	const number = "net/ipv4/tcp_fin_timeout"
	for _, c := range []struct {
		raise int
		want  string
	}{{70, "70"}, {60, "70"}} {
		if err := nl.RaiseSysctl(number, c.raise); err != nil || strings.TrimSpace(netdrivertest.MustRun(t, "", "cat /proc/sys/"+number)) != c.want {
			t.Errorf("raise to %d: %v", c.raise, err)
		}
	}
}

func TestWatchRoutes(t *testing.T) {
	netdrivertest.NewNS(t)
	here := fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
	netdrivertest.MustRun(t, "", "ip link add left type veth peer name right")
	netdrivertest.MustRun(t, "", "ip link set right up")
	netdrivertest.MustRun(t, "", "ip link set left up")
	ctx, cancel := context.WithCancel(t.Context())
	told, ended := make(chan struct{}, 16), make(chan error, 1)
	go func() {
		ended <- nl.Enter(here, func() error { return nl.WatchRoutes(ctx, func() { told <- struct{}{} }) })
	}()
	// Whether the watch has begun cannot be seen: change until it tells.
	var one bool
	for i := 0; !one && i < 250; i++ {
		netdrivertest.MustRun(t, "", fmt.Sprintf("ip route add 192.0.2.%d/32 dev left", i))
		select {
		case <-told:
			one = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	if !one {
		select {
		case <-told:
		case <-time.After(time.Minute):
			t.Error("nothing was told")
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

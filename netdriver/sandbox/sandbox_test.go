package sandbox_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/netdrivertest"
	"github.com/minictl/minictl/netdriver/nl"
	"github.com/minictl/minictl/netdriver/sandbox"
)

// inode tells one namespace from another.
func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestCreate(t *testing.T) {
	netdrivertest.NeedRoot(t)
	ctx := context.Background()
	dir := filepath.Join(netdrivertest.Dir(t), "a", "b")
	path := filepath.Join(dir, "box")
	home := inode(t, nl.Self)
	s, err := sandbox.Create(ctx, path)
	if err != nil || s != (netdriver.Sandbox{ID: "box", Path: path}) {
		t.Fatalf("%+v, %v", s, err)
	}
	const fresh = "link lo mtu 65536 up lower_up\n  addr 127.0.0.1/8 scope host\n  addr ::1/128 scope host\n"
	if got := netdrivertest.Listing(t, path); got != fresh {
		t.Errorf("a fresh sandbox:\n%s", got)
	}
	first := inode(t, path)
	if _, err := sandbox.Create(ctx, path); err != nil || inode(t, path) != first {
		t.Errorf("a live sandbox is made anew: %v", err)
	}
	if first == home || inode(t, nl.Self) != home {
		t.Error("the caller's thread has moved")
	}
	if ids, err := sandbox.List(dir); err != nil || !slices.Equal(ids, []string{"box"}) {
		t.Errorf("List: %v, %v", ids, err)
	}
	for range 2 {
		if err := sandbox.Remove(path); err != nil {
			t.Error(err)
		}
	}
	if ids, err := sandbox.List(dir); err != nil || len(ids) != 0 || sandbox.Exists(path) {
		t.Errorf("after Remove: %v, %v", ids, err)
	}
	if ids, err := sandbox.List(filepath.Join(dir, "none")); err != nil || ids != nil {
		t.Errorf("no folder: %v, %v", ids, err)
	}
}

// TestLeftOvers meets what a crash leaves: a file without a mount, and mounts on top of each other.
func TestLeftOvers(t *testing.T) {
	netdrivertest.NeedRoot(t)
	path := filepath.Join(netdrivertest.Dir(t), "box")
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	if sandbox.Exists(path) {
		t.Error("a dead file passes for a sandbox")
	}
	if _, err := sandbox.Create(context.Background(), path); err != nil || !sandbox.Exists(path) {
		t.Fatal(err)
	}
	for range 2 {
		if err := unix.Mount(path, path, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := sandbox.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestCreateAtOnce(t *testing.T) {
	netdrivertest.NeedRoot(t)
	path := filepath.Join(netdrivertest.Dir(t), "box")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := sandbox.Create(context.Background(), path); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if sandbox.Exists(path) {
		t.Error("it was mounted more than once")
	}
}

func TestDo(t *testing.T) {
	netdrivertest.NeedRoot(t)
	s := netdrivertest.NewSandbox(t, netdrivertest.Dir(t), "box")
	want, got := inode(t, s.Path), uint64(0)
	if err := sandbox.Do(s.Path, func() error { got = inode(t, nl.Self); return nil }); err != nil || got != want {
		t.Errorf("inside is %d, want %d: %v", got, want, err)
	}
	if err := sandbox.Do(s.Path+"x", func() error { return nil }); !errdefs.IsNotFound(err) {
		t.Errorf("no sandbox: %v", err)
	}
	if err := sandbox.Do("/dev/null", func() error { return nil }); err == nil {
		t.Error("/dev/null passes for a namespace")
	}
}

// TestSharedFolder is the trap that ShareDir is for: `ip netns add` must not hide a second reference to a namespace.
func TestSharedFolder(t *testing.T) {
	netdrivertest.NeedRoot(t)
	dir := filepath.Join(netdrivertest.Dir(t), "netns")
	for range 2 {
		if err := sandbox.ShareDir(dir); err != nil {
			t.Fatal(err)
		}
	}
	s, err := sandbox.Create(context.Background(), filepath.Join(dir, "box"))
	if err != nil {
		t.Fatal(err)
	}
	// What `ip netns add` does: it makes the folder a mount point of its own only if it cannot share it as it is.
	if err := unix.Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		t.Errorf("`ip netns add` would mount the folder over itself: %v", err)
	}
	if err := sandbox.Remove(s.Path); err != nil {
		t.Error(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), s.Path) {
		t.Errorf("a mount of it is left: %v", err)
	}
}

// TestIPv6 plugs an endpoint with an IPv6 address in: the only one whose interface speaks it, and at once.
func TestIPv6(t *testing.T) {
	netdrivertest.NewNS(t)
	s := netdrivertest.NewSandbox(t, netdrivertest.Dir(t), "box")
	c := netdrivertest.Here(t)
	if err := c.AddBridge("br", nil, 1500); err != nil {
		t.Fatal(err)
	}
	br, err := c.Link("br")
	if err == nil {
		err = c.SetUp(br.Index)
	}
	if err != nil {
		t.Fatal(err)
	}
	e := netdriver.Endpoint{
		ID: "e6", Interface: "eth0", Address: netip.MustParsePrefix("192.0.2.2/24"), Gateway: netip.MustParseAddr("192.0.2.1"),
		Address6: netip.MustParsePrefix("2001:db8::2/64"), Gateway6: netip.MustParseAddr("2001:db8::1"),
		LinkLocal: []netip.Addr{netip.MustParseAddr("169.254.7.7"), netip.MustParseAddr("fe80::7")},
	}
	for range 2 {
		if err := sandbox.Attach(context.Background(), c, sandbox.Plug{Endpoint: e, Sandbox: s, Bridge: br.Index, MTU: 1500}); err != nil {
			t.Fatal(err)
		}
	}
	// The kernel's own link-local address may still be tentative: its work queue confirms it.
	out := netdrivertest.MustRun(t, s.Path, "ip -6 addr show dev eth0 scope global")
	if !strings.Contains(out, "2001:db8::2/64 scope global nodad") || strings.Contains(out, "tentative") {
		t.Errorf("addresses:\n%s", out)
	}
	for command, want := range map[string]string{
		"ip -6 route":              "default via 2001:db8::1 dev eth0",
		"ip -4 route":              "default via 192.0.2.1 dev eth0",
		"ip -4 addr show dev eth0": "inet 169.254.7.7/16 ",
		"ip -6 addr show dev eth0": "inet6 fe80::7/64 scope link nodad",
		"ip -6 addr show dev lo":   "inet6 ::1/128",
	} {
		if out := netdrivertest.MustRun(t, s.Path, command); !strings.Contains(out, want) {
			t.Errorf("%s lacks %q:\n%s", command, want, out)
		}
	}
	e.Gateway6 = netip.Addr{}
	if err := sandbox.Attach(context.Background(), c, sandbox.Plug{Endpoint: e, Sandbox: s, Bridge: br.Index, MTU: 1500}); err != nil {
		t.Fatal(err)
	}
	if out := netdrivertest.MustRun(t, s.Path, "ip -6 route"); strings.Contains(out, "default") {
		t.Errorf("the default route of a gateway that is gone:\n%s", out)
	}
	if out := netdrivertest.MustRun(t, s.Path, "ip -4 route"); !strings.Contains(out, "default") {
		t.Errorf("the other family's default route went too:\n%s", out)
	}
}

// TestLikeIDs plugs endpoints in whose IDs start alike.
func TestLikeIDs(t *testing.T) {
	netdrivertest.NewNS(t)
	dir := netdrivertest.Dir(t)
	c := netdrivertest.Here(t)
	if err := c.AddBridge("br", nil, 1500); err != nil {
		t.Fatal(err)
	}
	br, err := c.Link("br")
	if err == nil {
		err = c.SetUp(br.Index)
	}
	if err != nil {
		t.Fatal(err)
	}
	plug := func(id, box string) error {
		return sandbox.Attach(context.Background(), c, sandbox.Plug{
			Endpoint: netdriver.Endpoint{ID: netdriver.EndpointID(id), Interface: "eth0"},
			Sandbox:  netdrivertest.NewSandbox(t, dir, box), Bridge: br.Index, MTU: 1500,
		})
	}
	ids := []string{"0000000aaaaaaa", "0000000bbbbbbb"}
	for i, id := range ids {
		if err := plug(id, id); err != nil {
			t.Fatal(i, err)
		}
	}
	list, err := sandbox.Attached(c, br.Index)
	if err != nil || len(list) != 2 || list[0].Port.Name != "veth0000000" || list[1].Port.Name != "vethbbbbbbb" {
		t.Errorf("ports: %+v, %v", list, err)
	}
	if err := plug("0000000", "third"); !errdefs.IsAlreadyExists(err) {
		t.Errorf("no name is left: %v", err)
	}
	if err := sandbox.Detach(c, netdriver.EndpointID(ids[0])); err != nil {
		t.Fatal(err)
	}
	if list, err := sandbox.Attached(c, br.Index); err != nil || len(list) != 1 || string(list[0].ID) != ids[1] {
		t.Errorf("after Detach: %+v, %v", list, err)
	}
}

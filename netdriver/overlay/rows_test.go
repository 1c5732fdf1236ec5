package overlay

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/netdrivertest"
	"github.com/minictl/minictl/netdriver/nl"
)

// The cast of the tables.
var (
	self  = netip.MustParseAddr("192.168.66.11")
	host2 = netip.MustParseAddr("192.168.66.12")
	host3 = netip.MustParseAddr("192.168.66.13")
)

// row is a permanent row with the MAC 02:42:0a:00:00:last.
func row(a netip.Addr, last byte) nl.Row {
	return nl.Row{Address: a, MAC: nl.HardwareAddr{2, 0x42, 10, 0, 0, last}, Permanent: true}
}

func TestDerive(t *testing.T) {
	p3 := peer(testEndpoint(3, ""), host2)
	odd := func(change func(*netdriver.Peer)) netdriver.Peer {
		p := p3
		change(&p)
		return p
	}
	one := rows{fdb: []nl.Row{row(host2, 3)}, neighbours: []nl.Row{row(addr(3), 3)}}
	for name, c := range map[string]struct {
		wish wish
		want rows
	}{
		"nobody":           {wish{self: self}, rows{}},
		"a peer":           {wish{peers: []netdriver.Peer{p3}, self: self}, one},
		"twice the same":   {wish{peers: []netdriver.Peer{p3, p3}, self: self}, one},
		"mapped addresses": {wish{peers: []netdriver.Peer{odd(func(p *netdriver.Peer) { p.Address = netip.AddrFrom16(p.Address.As16()) })}, self: self}, one},
		"local wins":       {wish{peers: []netdriver.Peer{p3}, local: []netip.Addr{addr(3)}, self: self}, rows{}},
		"ourselves":        {wish{peers: []netdriver.Peer{p3}, self: host2}, rows{}},
		"no host":          {wish{peers: []netdriver.Peer{odd(func(p *netdriver.Peer) { p.VTEP = netip.Addr{} })}, self: self}, rows{}},
		"other family":     {wish{peers: []netdriver.Peer{odd(func(p *netdriver.Peer) { p.VTEP = netip.MustParseAddr("2001:db8::1") })}, self: self}, rows{}},
		"no MAC":           {wish{peers: []netdriver.Peer{odd(func(p *netdriver.Peer) { p.MAC = nil })}, self: self}, rows{}},
		"multicast MAC":    {wish{peers: []netdriver.Peer{odd(func(p *netdriver.Peer) { p.MAC = net.HardwareAddr{1, 0, 0x5e, 0, 0, 1} })}, self: self}, rows{}},
		"two hosts claim one address": {
			wish{peers: []netdriver.Peer{odd(func(p *netdriver.Peer) { p.VTEP = host3 }), p3}, self: self}, one,
		},
		"two addresses share a MAC": {
			wish{peers: []netdriver.Peer{odd(func(p *netdriver.Peer) { p.Address = addr(4) }), p3}, self: self},
			rows{fdb: one.fdb, neighbours: []nl.Row{row(addr(3), 3), row(addr(4), 3)}},
		},
	} {
		if got := derive(c.wish); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestDiff(t *testing.T) {
	learned := row(host2, 3)
	learned.Permanent = false
	for name, c := range map[string]struct {
		want, have, set, del []nl.Row
	}{
		"nothing to do":           {want: []nl.Row{row(host2, 3)}, have: []nl.Row{row(host2, 3)}},
		"missing":                 {want: []nl.Row{row(host2, 3)}, set: []nl.Row{row(host2, 3)}},
		"stale":                   {have: []nl.Row{row(host2, 3)}, del: []nl.Row{row(host2, 3)}},
		"moved: replaced only":    {want: []nl.Row{row(host3, 3)}, have: []nl.Row{row(host2, 3)}, set: []nl.Row{row(host3, 3)}},
		"learned: replaced":       {want: []nl.Row{row(host2, 3)}, have: []nl.Row{learned}, set: []nl.Row{row(host2, 3)}},
		"right and one too many":  {want: []nl.Row{row(host2, 3)}, have: []nl.Row{row(host2, 3), row(host3, 3)}, del: []nl.Row{row(host3, 3)}},
		"several and none right":  {want: []nl.Row{row(self, 3)}, have: []nl.Row{row(host2, 3), row(host3, 3)}, set: []nl.Row{row(self, 3)}, del: []nl.Row{row(host2, 3), row(host3, 3)}},
		"another key's row stays": {want: []nl.Row{row(host2, 3), row(host2, 4)}, have: []nl.Row{row(host2, 4)}, set: []nl.Row{row(host2, 3)}},
	} {
		p := diff(rows{fdb: c.want}, rows{fdb: c.have})
		if fmt.Sprint(p.setFDB, p.deleteFDB) != fmt.Sprint(c.set, c.del) {
			t.Errorf("%s: set %v, delete %v", name, p.setFDB, p.deleteFDB)
		}
	}
}

// table is the kernel's forwarding table as the plan sees it: a replace takes the first row of a MAC, or adds one.
type table []nl.Row

func (k *table) set(r nl.Row) {
	if i := slices.IndexFunc(*k, func(o nl.Row) bool { return o.MAC == r.MAC }); i >= 0 {
		(*k)[i] = r
		return
	}
	*k = append(*k, r)
}

func (k *table) del(r nl.Row) {
	*k = slices.DeleteFunc(*k, func(o nl.Row) bool { return o.MAC == r.MAC && o.Address == r.Address })
}

// TestPlanLeadsToTheWish applies plans to a model of the kernel's table, from any state of it.
func TestPlanLeadsToTheWish(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		any := rapid.Custom(func(t *rapid.T) nl.Row {
			r := row(rapid.SampledFrom([]netip.Addr{self, host2, host3}).Draw(t, "host"), rapid.ByteRange(1, 5).Draw(t, "mac"))
			r.Permanent = rapid.Bool().Draw(t, "permanent")
			return r
		})
		same := func(r nl.Row) string { return r.MAC.String() + r.Address.String() }
		kernel := table(rapid.SliceOfDistinct(any, same).Draw(t, "have"))
		wanted := make(map[nl.HardwareAddr]nl.Row)
		for _, r := range rapid.SliceOf(any).Draw(t, "want") {
			r.Permanent = true
			wanted[r.MAC] = r
		}
		p := diff(rows{fdb: slices.Collect(maps.Values(wanted))}, rows{fdb: kernel})
		for _, r := range p.deleteFDB {
			kernel.del(r)
		}
		for _, r := range p.setFDB {
			kernel.set(r)
		}
		if len(kernel) != len(wanted) {
			t.Fatalf("got %v, want %v", kernel, wanted)
		}
		for _, r := range kernel {
			if wanted[r.MAC] != r {
				t.Fatalf("got %v, want %v", kernel, wanted)
			}
		}
	})
}

func TestMTU(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, c := range []struct {
		asked, outer int
		local        netip.Addr
		want         int
	}{
		{0, 0, netip.Addr{}, 1450}, {9000, 0, netip.Addr{}, 9000}, {0, 1500, v4, 1450}, {0, 1500, v6, 1430}, {0, 9000, v4, 8950},
		{1400, 1500, v4, 1400}, {1500, 1500, v4, 1450}, {9000, 9000, v4, 8950}, {0, 0, v4, 1450},
	} {
		if got := fit(c.asked, netdriver.DataPath{Addr: c.local, MTU: c.outer}); got != c.want {
			t.Errorf("asked %d on %v with %d: %d, want %d", c.asked, c.local, c.outer, got, c.want)
		}
	}
}

func TestCheck(t *testing.T) {
	change := func(f func(*netdriver.Network)) netdriver.Network { n := testNetwork(0); f(&n); return n }
	for want, n := range map[string]netdriver.Network{
		"VNI 0":        change(func(n *netdriver.Network) { n.VNI = 0 }),
		"VNI 16777216": change(func(n *netdriver.Network) { n.VNI = 1 << 24 }),
		"no subnet":    change(func(n *netdriver.Network) { n.Subnets = nil }),
		OptionMTU + `: "lots"`: change(func(n *netdriver.Network) {
			n.Options = map[string]string{OptionMTU: "lots"}
		}),
		OptionVNI + `: "0" is not a VXLAN identifier`:        change(func(n *netdriver.Network) { n.Options = map[string]string{OptionVNI: "0"} }),
		OptionVNI + `: "16777216" is not a VXLAN identifier`: change(func(n *netdriver.Network) { n.Options = map[string]string{OptionVNI: "16777216"} }),
		OptionVNI + `: "x" is not a VXLAN identifier`:        change(func(n *netdriver.Network) { n.Options = map[string]string{OptionVNI: "x"} }),
		OptionVNI + `: 7 is asked for, VNI 8 was given`: change(func(n *netdriver.Network) {
			n.VNI, n.Options = 8, map[string]string{OptionVNI: "7"}
		}),
	} {
		if err := New(Config{Log: netdrivertest.Quiet()}).Check(n); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if err := New(Config{Log: netdrivertest.Quiet()}).Check(testNetwork(0)); err != nil {
		t.Error(err)
	}
	for want, options := range map[string]map[string]string{
		"name one only":    {OptionVNI: "7,8"},
		"does not encrypt": {optionEncrypted: ""},
	} {
		n := change(func(n *netdriver.Network) { n.Options = options })
		if err := New(Config{Log: netdrivertest.Quiet()}).Check(n); !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", options, err)
		}
	}
}

func FuzzNetworkOf(f *testing.F) {
	f.Add("1-4c21b88438")
	f.Add("1-4c21b8843g")
	f.Fuzz(func(t *testing.T, name string) {
		id, ok := networkOf(name)
		if ok && New(Config{Log: netdrivertest.Quiet(), NetnsDir: "/"}).file(netdriver.NetworkID(id)) != "/"+name {
			t.Errorf("%q is read as %q", name, id)
		}
	})
}

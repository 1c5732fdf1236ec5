package firewall

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minictl/minictl/netdriver/netdrivertest"
	"github.com/minictl/minictl/netdriver/nl"
)

// TestRepair has others take the table away, or change anything in it: each is seen and made up for, and what is whole is
// left alone.
func TestRepair(t *testing.T) {
	l := newLab(t)
	if err := l.fw.SetPorts(t.Context(), "c1", []Port{{Proto: "tcp", HostPort: 8080, Target: netip.MustParseAddrPort("172.18.0.2:80"), Bridge: "br-a"}}); err != nil {
		t.Fatal(err)
	}
	if err := l.fw.SetMembers(t.Context(), 4789, addrs("192.0.2.9", "192.0.2.10")); err != nil {
		t.Fatal(err)
	}
	whole := listing(t)
	reload := func(change func(string) string) func() string { // as nftables.service does, from a file
		return func() string {
			path := filepath.Join(t.TempDir(), "saved.nft")
			l.ok(os.WriteFile(path, []byte("flush ruleset\n"+change(l.run("nft list ruleset"))), 0o600))
			return "-f " + path
		}
	}
	do := func(text string) func() string { return func() string { return text } }
	for _, c := range []struct {
		do   func() string
		want string
	}{
		{do("flush ruleset"), "the table was gone"},
		{do("delete table inet minictl"), "the table was gone"},
		{do("flush chain inet minictl forward"), "chain forward had 0 rules"},
		{do("flush set inet minictl members4"), "set members4 lacked an element"},
		{do("delete element inet minictl members4 { 192.0.2.10 }"), "set members4 lacked an element"},
		{do("add rule inet minictl forward accept"), "chain forward had"},
		{do("flush chain inet minictl guard_tunnel ; delete chain inet minictl guard_tunnel"), "chain guard_tunnel was gone"},
		{func() string {
			return "replace rule inet minictl guard_tunnel handle " + l.handle("guard_tunnel", "@members4") + " accept"
		}, "chain guard_tunnel had another rule"},
		{do("add element inet minictl members4 { 192.0.2.66 }"), "set members4 had an element too many"},
		{do("delete element inet minictl ports4 { tcp . 8080 } ; add element inet minictl ports4 { tcp . 8080 : 172.18.0.3 . 80 }"), "map ports4 led elsewhere"},
		{do("delete element inet minictl ports4 { tcp . 8080 } ; add element inet minictl ports4 { tcp . 8080 : 172.18.0.2 . 81 }"), "map ports4 led elsewhere"},
		{do("delete element inet minictl masquerade4 { 172.18.0.0/16 } ; add element inet minictl masquerade4 { 172.18.0.0/17 }"), "set masquerade4 lacked an element"},
		{do("chain inet minictl guard_host { policy drop ; }"), "chain guard_host was at another hook, or of another policy"},
		{do("add chain inet minictl extra { type filter hook input priority 0 ; policy drop ; }"), "chain extra was too many"},
		{do("add set inet minictl extra { type ipv4_addr ; }"), "set extra was too many"},
		{reload(func(s string) string {
			return strings.Replace(s, "set bridges {\n\t\ttype ifname\n", "set bridges {\n\t\ttype ifname\n\t\tflags timeout\n", 1)
		}), "set bridges was of another kind"},
	} {
		if wrong, err := l.fw.Repair(t.Context()); wrong != "" || err != nil {
			t.Fatalf("before %s: %q, %v", c.want, wrong, err)
		}
		text := c.do()
		l.run("nft " + text)
		if wrong, err := l.fw.Repair(t.Context()); !strings.HasPrefix(wrong, c.want) || err != nil {
			t.Errorf("%s: %q, %v", text, wrong, err)
		}
		if now := listing(t); !slices.Equal(blocks(now), blocks(whole)) {
			t.Errorf("after %s:\n%s", text, now)
		}
	}
}

// handle is the number of the first rule of a chain that has the text.
func (l *lab) handle(chain, text string) string {
	l.t.Helper()
	for line := range strings.Lines(l.run("nft -a list chain inet minictl " + chain)) {
		if _, handle, ok := strings.Cut(strings.TrimSpace(line), "# handle "); ok && strings.Contains(line, text) {
			return handle
		}
	}
	l.t.Fatalf("no rule of %s has %s", chain, text)
	return ""
}

// TestAdopts has a second daemon state what the first one wrote: nothing is written again, so nothing has a new number. What
// it states otherwise is written.
func TestAdopts(t *testing.T) {
	netdrivertest.NewNS(t)
	bridges, ports, members := fullWish()
	state := func(f *Firewall, members []netip.Addr) string {
		t.Helper()
		f.Hold()
		err := f.SetMembers(t.Context(), 4789, members)
		for _, b := range bridges {
			err = errors.Join(err, f.SetBridge(t.Context(), b))
		}
		for owner, p := range ports {
			err = errors.Join(err, f.SetPorts(t.Context(), owner, p))
		}
		if err = errors.Join(err, f.Sync(t.Context())); err != nil {
			t.Fatal(err)
		}
		if wrong, err := f.Repair(t.Context()); wrong != "" || err != nil {
			t.Errorf("found %q, %v", wrong, err)
		}
		return netdrivertest.MustRun(t, "", "nft -a list ruleset")
	}
	first := state(newFirewall(t), members)
	next := newFirewall(t)
	if second := state(next, members); second != first {
		t.Errorf("written again:\n%s", second)
	}
	if third := state(newFirewall(t), members[:1]); third == first {
		t.Error("a wish that differs is not written")
	}
	// The one that has written nothing repairs all the same.
	if wrong, err := next.Repair(t.Context()); wrong != "set members4 lacked an element" || err != nil {
		t.Errorf("found %q, %v", wrong, err)
	}
}

// BenchmarkRepair is what a look costs that finds a thousand ports as they should be.
func BenchmarkRepair(b *testing.B) {
	netdrivertest.NewNS(b)
	f := New(netdrivertest.Quiet())
	defer f.Close()
	if err := f.SetBridge(b.Context(), bridgeA); err != nil {
		b.Fatal(err)
	}
	var ports []Port
	for i := range 1000 {
		ports = append(ports, port("tcp", "", uint16(10000+i*2), "172.18.0.2:80", "br-a")) // not a range
	}
	if err := f.SetPorts(b.Context(), "web", ports); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if wrong, err := f.Repair(b.Context()); wrong != "" || err != nil {
			b.Fatal(wrong, err)
		}
	}
}

// TestWatch hears of others' changes.
func TestWatch(t *testing.T) {
	l := newLab(t)
	ctx, stop := context.WithCancel(t.Context())
	heard, ended := make(chan struct{}, 100), make(chan error, 1)
	ready := make(chan struct{})
	go func() {
		err := nl.Enter(l.host, func() error {
			close(ready)
			return Watch(ctx, func() { heard <- struct{}{} })
		})
		ended <- err
	}()
	<-ready
	for tries, got := 0, false; !got; tries++ { // it may not listen yet
		l.run("nft add table ip theirs")
		l.run("nft flush ruleset")
		select {
		case <-heard:
			got = true
		case <-time.After(time.Second):
			if tries > 60 {
				t.Fatal("heard nothing")
			}
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestBlocks names a foreign chain that drops our bridges' packets, until the command it tells has been typed.
func TestBlocks(t *testing.T) {
	l := newLab(t)
	l.ok(l.fw.RemoveBridge(t.Context(), bridgeGW.Interface)) // an internal one needs no way outside
	blocks := func(want string) []Block {
		t.Helper()
		b, err := l.fw.Blocks(t.Context())
		var names []string
		for _, x := range b {
			names = append(names, x.Chain+" "+x.Bridge)
		}
		if got := strings.Join(names, ", "); err != nil || got != want {
			t.Fatalf("%q, %v, want %q", got, err, want)
		}
		return b
	}
	blocks("")
	l.run("nft add table ip filter")
	l.run("nft add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")
	for _, user := range []bool{false, true} {
		chain := "FORWARD"
		if user {
			l.run("nft flush chain ip filter FORWARD")
			l.run("nft add chain ip filter DOCKER-USER")
			chain = dockerUser
		}
		b := blocks("FORWARD br-a")
		if want := "iptables -I " + chain + " -i br-a -j ACCEPT && iptables -I " + chain + " -o br-a -j ACCEPT"; !strings.HasSuffix(b[0].String(), want) {
			t.Errorf("%s", b[0])
		}
		l.run("nft insert rule ip filter " + chain + " iifname br-a counter accept")
		blocks("FORWARD br-a") // the way back is shut
		l.run("nft insert rule ip filter " + chain + " oifname br-* counter accept")
		blocks("")
	}
}

package firewall

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/minictl/minictl/netdriver/nl"
)

// TestRepair has others take the table, a chain's rules and a set's elements away: each is seen and made up for, and what
// is whole is left alone.
func TestRepair(t *testing.T) {
	l := newLab(t)
	if err := l.fw.SetPorts(t.Context(), "c1", []Port{{Proto: "tcp", HostPort: 8080, Target: netip.MustParseAddrPort("172.18.0.2:80"), Bridge: "br-a"}}); err != nil {
		t.Fatal(err)
	}
	if err := l.fw.SetMembers(t.Context(), 4789, addrs("192.0.2.9", "192.0.2.10")); err != nil {
		t.Fatal(err)
	}
	whole := l.run("nft list ruleset")
	for _, c := range []struct{ do, want string }{
		{"flush ruleset", "the table was gone"},
		{"delete table inet minictl", "the table was gone"},
		{"flush chain inet minictl forward", "chain forward had 0 rules"},
		{"flush set inet minictl members4", "set members4 lacked an element"},
		{"delete element inet minictl members4 { 192.0.2.10 }", "set members4 lacked an element"},
		{"add rule inet minictl forward accept", "chain forward had"},
	} {
		if wrong, err := l.fw.Repair(t.Context()); wrong != "" || err != nil {
			t.Fatalf("before %s: %q, %v", c.do, wrong, err)
		}
		l.run("nft " + c.do)
		if wrong, err := l.fw.Repair(t.Context()); !strings.HasPrefix(wrong, c.want) || err != nil {
			t.Errorf("%s: %q, %v", c.do, wrong, err)
		}
		if now := l.run("nft list ruleset"); now != whole {
			t.Errorf("after %s:\n%s", c.do, now)
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

package firewall

import (
	"context"
	"testing"

	"github.com/minictl/minictl/netdriver/netdrivertest"
)

// firewalld is the table that firewalld 1.x writes with its nftables backend, as far as it judges what we do: the wire is in
// the zone public, everything else is in no zone and so in public by default, which forwards to its own interfaces.
const firewalld = `table inet firewalld {
	chain mangle_PREROUTING { type filter hook prerouting priority mangle + 10; policy accept; }
	chain nat_PREROUTING { type nat hook prerouting priority dstnat + 10; policy accept; }
	chain nat_POSTROUTING { type nat hook postrouting priority srcnat + 10; policy accept; }
	chain nat_OUTPUT { type nat hook output priority -90; policy accept; }
	chain filter_INPUT {
		type filter hook input priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		ct state invalid drop
		tcp dport 22 ct state new accept
		reject with icmpx admin-prohibited
	}
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		ct state invalid drop
		oifname "pclient" accept
		reject with icmpx admin-prohibited
	}
	chain filter_OUTPUT { type filter hook output priority filter + 10; policy accept; }
}
`

// TestBesideFirewalld has firewalld start, reload (it deletes its table and writes it again) and stop on the same host, and
// an administrator flush what iptables wrote: published ports and the way outside work throughout, what firewalld closes
// stays closed, and nothing of ours has to be repaired.
func TestBesideFirewalld(t *testing.T) {
	l := newLab(t)
	l.serve("c1", "tcp", ":80")
	l.serve("client", "tcp", ":80")
	l.serve("host", "tcp", "0.0.0.0:7001")
	l.ok(l.fw.SetPorts(context.Background(), "c1", []Port{port("tcp", "", 8080, "172.18.0.2:80", "br-a")}))
	works := func(what, service string) {
		t.Helper()
		for _, c := range []struct{ from, to, want string }{
			{"client", "192.0.2.1:8080", "c1 saw 192.0.2.9"}, {"c1", "192.0.2.9:80", "client saw 192.0.2.1"}, {"client", "172.18.0.2:80", "timeout"},
			{"c1", "192.0.2.1:8080", "c1 saw 172.18.0.1"}, {"client", "192.0.2.1:7001", service},
		} {
			t.Run(what+": "+c.from+" to "+c.to, func(t *testing.T) {
				l.expect(t, c.want, func() string { return l.ask(c.from, "tcp", c.to) })
			})
		}
		if wrong, err := l.fw.Repair(t.Context()); wrong != "" || err != nil {
			t.Errorf("%s: repaired %q, %v", what, wrong, err)
		}
	}
	nft := func(text string) {
		t.Helper()
		if out, err := netdrivertest.Run("", "nft", text); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	works("alone", "host saw 192.0.2.9")
	const shut = "no route to host" // what icmpx admin-prohibited comes to
	nft(firewalld)
	works("beside firewalld", shut)
	nft("delete table inet firewalld\n" + firewalld)
	works("after its reload", shut)
	nft("add table ip filter\nadd chain ip filter FORWARD { type filter hook forward priority 0; policy accept; }\nflush table ip filter\ndelete table ip filter")
	works("after iptables -F", shut)
	nft("delete table inet firewalld")
	works("after its end", "host saw 192.0.2.9")
}

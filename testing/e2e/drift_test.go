package e2e

import (
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// TestDrift has another program on a host change what minictl made in the kernel: rules flushed, links deleted, rows of an
// overlay replaced. All of it comes back, is counted, and shown.
func TestDrift(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := start(t, l, "host1", "--metrics-addr", "127.0.0.1:9323"), start(t, l, "host2")
	join(t, h1, h2)
	laptop := l.Client("laptop")
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	h1.MustMinictl("run", "-d", "--name", "web1", "-p", "8080:80", "--network", "ov_net1", "httpd")
	h1.MustMinictl("run", "-d", "--name", "web2", "-p", "8081:80", "httpd")
	h2.MustMinictl("run", "-d", "--name", "far", "--network", "ov_net1", "busybox", "sleep", "6000")
	awaitListener(t, l, h1, "web1", 80)
	awaitListener(t, l, h1, "web2", 80)
	wantMatch(t, "figures", fetch(t, h1, "http://127.0.0.1:9323/metrics"), `(?s)minictl_drift_repaired_total\{kind="nft"\} 0\n.*minictl_members\{state="alive"\} 2\n.*minictl_leader_known 1\n.*minictl_endpoints 3\n`)
	ns := "1-" + strings.TrimSpace(h1.MustMinictl("network", "inspect", "-f", "{{.Id}}", "ov_net1"))[:10]
	works := func() error {
		for _, port := range []string{"8080", "8081"} {
			if _, errOut, code := laptop.Run(deadline(), "curl", "-sS", "-m", "2", "http://192.168.66.11:"+port+"/"); code != 0 {
				return errf("port %s: %s", port, errOut)
			}
		}
		for _, from := range []struct {
			h        *lab.Host
			name, to string
		}{{h1, "web1", "far"}, {h2, "far", "web1"}, {h1, "web2", "192.168.66.12"}} {
			if _, errOut, code := from.h.Minictl("exec", from.name, "ping", "-c", "1", "-W", "1", from.to); code != 0 {
				return errf("%s does not reach %s: %s", from.name, from.to, errOut)
			}
		}
		return nil
	}
	l.Eventually(patient, works)
	whole := h1.Snapshot()
	links := func(h *lab.Host, prefix string) string {
		for _, line := range lines(h.MustRun("ip", "-o", "link", "show", "type", "veth")) {
			if f := strings.Fields(line); strings.Contains(line, "master "+prefix) {
				name, _, _ := strings.Cut(strings.TrimSuffix(f[1], ":"), "@")
				return name
			}
		}
		t.Fatalf("no link on %s", prefix)
		return ""
	}
	for _, c := range []struct {
		name, kind string
		do         [][]string
	}{
		{"rules flushed", "nft", [][]string{{"nft", "flush", "ruleset"}}},
		{"a bridge deleted", "link", [][]string{{"ip", "link", "del", "mini0"}}},
		{"a container's link deleted", "link", [][]string{{"ip", "link", "del", links(h1, "mini_gwbridge")}}},
		{"a tunnel deleted", "link", [][]string{{"ip", "-n", ns, "link", "del", "vxlan0"}, {"nft", "flush", "ruleset"}}},
		{"a row deleted", "neighbour", [][]string{{"ip", "-n", ns, "neigh", "flush", "dev", "vxlan0", "nud", "permanent"}, {"nft", "flush", "ruleset"}}},
		{"a row led elsewhere", "fdb", [][]string{{"bridge", "-n", ns, "fdb", "replace", "02:42:0a:00:00:03", "dev", "vxlan0", "dst", "192.168.66.99", "self", "permanent"}, {"nft", "flush", "ruleset"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := fetch(t, h1, "http://127.0.0.1:9323/metrics")
			for _, args := range c.do {
				h1.MustRun(args...)
			}
			l.Eventually(patient, func() error {
				if count(before, c.kind) == count(fetch(t, h1, "http://127.0.0.1:9323/metrics"), c.kind) {
					return errf("no drift of kind %s is counted", c.kind)
				}
				return works()
			})
		})
	}
	_, errOut, _ := h1.Minictl("info")
	const repaired = `omething else on this host has changed .* nft \d+, link \d+, fdb \d+, neighbour \d+; last at \d{4}-\S+: \S`
	wantMatch(t, "info", errOut, `(?m)^WARNING: s`+repaired)
	wantMatch(t, "cluster status", h1.MustMinictl("cluster", "status"), `(?m)^S`+repaired)
	if out := h2.MustMinictl("cluster", "status"); strings.Contains(out, "omething else") {
		t.Errorf("nobody has changed anything on host2: %s", out)
	}
	l.Eventually(patient, func() error {
		now := h1.Snapshot()
		if diff := lab.Diff(section(whole, "nft"), section(now, "nft")); diff != "" {
			return errf("not as before:\n%s", diff)
		}
		return nil
	})
	// Docker's way of setting up a host: what it does not know is dropped. No table of ours can change that, but say so.
	h1.MustRun("nft", "add", "table", "ip", "filter")
	h1.MustRun("nft", "add", "chain", "ip", "filter", "FORWARD", "{ type filter hook forward priority 0; policy drop; }")
	h1.MustRun("nft", "add", "chain", "ip", "filter", "DOCKER-USER")
	h1.MustRun("nft", "add", "rule", "ip", "filter", "FORWARD", "jump", "DOCKER-USER")
	l.Eventually(patient, func() error {
		_, errOut, _ := h1.Minictl("info")
		for _, bridge := range []string{"mini0", "mini_gwbridge"} {
			if !strings.Contains(errOut, "iptables -I DOCKER-USER -i "+bridge+" -j ACCEPT && iptables -I DOCKER-USER -o "+bridge+" -j ACCEPT") {
				return errf("info does not tell what to do: %s", errOut)
			}
		}
		return nil
	})
	if works() == nil {
		t.Error("a policy of drop drops nothing: this test shows nothing")
	}
	for _, bridge := range []string{"mini0", "mini_gwbridge"} { // what iptables would write
		for _, direction := range []string{"iifname", "oifname"} {
			h1.MustRun("nft", "insert", "rule", "ip", "filter", "DOCKER-USER", direction, bridge, "accept")
		}
	}
	l.Eventually(patient, works)
	l.Eventually(patient, func() error {
		if _, errOut, _ := h1.Minictl("info"); strings.Contains(errOut, "DOCKER-USER") {
			return errf("info still warns: %s", errOut)
		}
		return nil
	})
}

func section(s lab.Snapshot, title string) lab.Snapshot {
	for _, sec := range s {
		if sec.Title == title {
			return lab.Snapshot{sec}
		}
	}
	return nil
}

// count finds a kind's line of drift.
func count(metrics, kind string) string {
	for line := range strings.Lines(metrics) {
		if value, ok := strings.CutPrefix(line, `minictl_drift_repaired_total{kind="`+kind+`"} `); ok {
			return value
		}
	}
	return ""
}

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/minictl/minictl/testing/lab"
)

// TestAddressReused has an address go from a container on one host to one on another and back, twenty times, at once and
// while a third host sends to it all the time. From the moment that run returns, who has the address now answers, and nothing
// goes to the host that had it.
func TestAddressReused(t *testing.T) {
	t.Parallel()
	const addr = "10.0.0.77"
	l := lab.New(t)
	h1, h2 := pair(t, l)
	h3 := start(t, l, "host3")
	h3.MustMinictl(append(joinArgs(t, h1), h1.Addr().String())...)
	oneCluster(t, l, h1, h2, h3)
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	run := func(h *lab.Host, name string, more ...string) {
		t.Helper()
		h.MustMinictl(append([]string{"run", "-d", "--name", name, "--network", "ov_net1", "-v", self(t) + ":/traffic:ro"}, more...)...)
	}
	for _, h := range []*lab.Host{h1, h2} {
		run(h, "stays-"+h.Name(), "busybox", "sleep", "6000") // the network stays here when the address leaves
		h.MustRun("nft", "add table inet watch; add chain inet watch in { type filter hook prerouting priority raw; }; add rule inet watch in udp dport 4789 ip saddr "+h3.Addr().String()+" counter")
	}
	run(h3, "looker", "busybox", "sleep", "6000")
	dir := t.TempDir()
	run(h3, "pinger", "-v", dir+":/out", "busybox", "/traffic", traffic, "ping", addr, "/out/answers")
	arrived := func(h *lab.Host) string { // packets of host3's tunnel
		_, rest, _ := strings.Cut(h.MustRun("nft", "list", "table", "inet", "watch"), "counter packets ")
		packets, _, _ := strings.Cut(rest, " ")
		return packets
	}
	// answers are those to what was sent since, by who gave them.
	answers := func(since time.Time) map[string]int {
		b, err := os.ReadFile(filepath.Join(dir, "answers"))
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int{}
		for _, line := range lines(string(b)) {
			sent, who, ok := strings.Cut(line, " ")
			if ns, err := strconv.ParseInt(sent, 10, 64); ok && err == nil && ns > since.UnixNano() {
				got[who]++
			}
		}
		return got
	}
	for round := range 20 {
		now, before := h1, h2
		if round%2 == 1 {
			now, before = h2, h1
		}
		if round > 0 {
			before.MustMinictl("rm", "-f", "holder")
		}
		who := fmt.Sprintf("%s-%d", now.Name(), round)
		run(now, "holder", "--ip", addr, "busybox", "/traffic", traffic, "who", who)
		since := time.Now()
		// One packet, sent once: it does not wait for rows that come a moment later. Not the pinger's: its kernel asks for an
		// address that nobody had once a second, and lets go of what has waited longest.
		if out, errOut, code := h3.Minictl("exec", "looker", "ping", "-c", "1", "-W", "30", addr); code != 0 {
			t.Errorf("round %d: %s%s", round, out, errOut)
		}
		settled := ""
		l.Eventually(patient, func() error {
			if n := answers(since)[who]; n < 20 {
				return errf("%s has answered %d times", who, n)
			}
			if settled == "" {
				settled = arrived(before)
			}
			if n := answers(since)[who]; n < 100 {
				return errf("%s has answered %d times", who, n)
			}
			return nil
		})
		if got := answers(since); len(got) != 1 {
			t.Errorf("round %d: after run had returned, these have answered: %v", round, got)
		}
		if got := arrived(before); got != settled {
			t.Errorf("round %d: %s has had %s packets for %s, and %s before", round, before.Name(), got, addr, settled)
		}
	}
	h3.MustMinictl("rm", "-f", "pinger")
}

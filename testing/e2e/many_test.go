package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// TestManyAtOnce starts containers on two hosts at the same time: no address twice, every name everywhere, and nothing
// left when they are removed at the same time.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	before := []lab.Snapshot{h1.Snapshot(), h2.Snapshot()}
	const each = 8
	hosts := map[string]*lab.Host{"a": h1, "b": h2}
	forAll := func(do func(h *lab.Host, name string)) {
		var wg sync.WaitGroup
		for prefix, h := range hosts {
			for i := range each {
				wg.Go(func() { do(h, fmt.Sprintf("%s%d", prefix, i)) })
			}
		}
		wg.Wait()
	}
	forAll(func(h *lab.Host, name string) {
		if _, errOut, code := h.Minictl("run", "-d", "--name", name, "--network", "ov_net1", "busybox", "sleep", "600"); code != 0 {
			t.Errorf("run %s: %s", name, errOut)
		}
	})
	addresses := map[string]string{}
	for _, h := range hosts {
		n := inspect[inspected](t, h.MustMinictl("network", "inspect", "ov_net1"))
		if len(n.Containers) != 2*each {
			t.Errorf("%s lists %d containers", h.Name(), len(n.Containers))
		}
		for _, c := range n.Containers {
			if other, ok := addresses[c.IPv4Address]; ok && other != c.Name {
				t.Errorf("%s is %s's and %s's", c.IPv4Address, other, c.Name)
			}
			addresses[c.IPv4Address] = c.Name
		}
	}
	// In order, unless a host was kept waiting and took of its reserve, which stands at the subnet's other end.
	inOrder := true
	for a, name := range addresses {
		if netip.MustParsePrefix(a).Addr().Compare(netip.MustParseAddr("10.0.0.128")) > 0 {
			inOrder = false
			t.Logf("%s has %s, out of its host's reserve", name, a)
		}
	}
	for i := range 2 * each {
		if a := fmt.Sprintf("10.0.0.%d/24", i+2); inOrder && addresses[a] == "" {
			t.Errorf("%s was left out", a)
		}
	}
	forAll(func(h *lab.Host, name string) {
		var to strings.Builder
		for i := range each {
			fmt.Fprintf(&to, "ping -c 1 -W 2 a%d >/dev/null && ping -c 1 -W 2 b%d >/dev/null && ", i, i)
		}
		if out, errOut, code := h.Minictl("exec", name, "sh", "-c", to.String()+"true"); code != 0 {
			t.Errorf("%s does not reach all: %s%s", name, out, errOut)
		}
	})
	forAll(func(h *lab.Host, name string) {
		if _, errOut, code := h.Minictl("rm", "-f", name); code != 0 {
			t.Errorf("rm %s: %s", name, errOut)
		}
	})
	for i, h := range []*lab.Host{h1, h2} {
		if diff := lab.Diff(before[i], h.Snapshot()); diff != "" {
			t.Errorf("%s: left behind:\n%s", h.Name(), diff)
		}
	}
}

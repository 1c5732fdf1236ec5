package e2e

import (
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// TestWitness has two hosts and a witness: either host dies, and the other goes on deciding. The witness runs nothing and
// says so, and leaves no trace in the kernel.
func TestWitness(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	w := l.Host("third")
	before := w.Snapshot()
	says(t, l, h1, "minictl witness, on any third machine")
	token := strings.TrimSpace(h1.MustMinictl("cluster", "token", "-q"))
	w.Witness("--join", "192.168.66.12", "--token", token)
	l.Eventually(2*soon, func() error {
		roles := map[string]string{}
		for _, n := range statusOf(t, h1).Nodes {
			roles[n.Name] = n.Role
		}
		if roles["host1"] != "voter" || roles["host2"] != "voter" || roles["third"] != "witness" {
			return errf("roles %v", roles)
		}
		return nil
	})
	says(t, l, h2, "2 hosts and the witness third; host1, host2, third decide together on networks and addresses: 2 of them must be up.")
	wantMatch(t, "node ls", w.MustMinictl("node", "ls"), `third +Ready +Drain +witness`)
	for _, args := range [][]string{{"ps"}, {"network", "ls"}, {"images"}} {
		fails(t, w, 1, `this host is a witness: it votes in its cluster and runs no containers: ask host1 or host2`, args...)
	}
	fails(t, w, 125, `this host is a witness`, "run", "--rm", "busybox", "true")
	fails(t, w, 1, `a witness joins a cluster and cannot be the first of one`, "cluster", "init")
	_, warnings, _ := w.Minictl("info")
	wantMatch(t, "info", warnings, `this host is a witness`)

	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	h2.MustMinictl("run", "-d", "--name", "bbox2", "--network", "ov_net1", "busybox", "sleep", "600")
	whole(t, l, 8, 1, h1, h2)
	for who := range networkOf(t, h1).Reserves {
		if who == "third" {
			t.Error("the witness has addresses in reserve")
		}
	}
	// Whoever is cut off may have been the leader, so the next one may have to be found first.
	creates := func(h *lab.Host, name string) {
		t.Helper()
		l.Eventually(2*soon, func() error {
			if out, errOut, code := h.Minictl("network", "create", "-d", "overlay", name); code != 0 {
				return errf("%s%s", out, errOut)
			}
			return nil
		})
	}
	h1.Halt()
	creates(h2, "ov_net2")
	h2.MustMinictl("run", "-d", "--name", "bbox3", "--network", "ov_net2", "busybox", "sleep", "600")
	h1.Boot()
	h1.RestartDaemon()
	oneCluster(t, l, h1, h2, w)
	w.KillDaemon()
	creates(h1, "ov_net3")
	says(t, l, h1, "The witness third is down.")
	w.Witness() // without --join: it knows where it belongs
	oneCluster(t, l, h1, h2, w)
	l.Isolate(h2)
	takeOver(l, clients()[0], h2)
	l.HealAll()
	oneCluster(t, l, h1, h2, w)
	l.Eventually(2*soon, func() error { // while somebody is waited for, addresses are given from the middle
		h2.MustMinictl("run", "-d", "--name", "after", "--network", "ov_net1", "busybox", "sleep", "600")
		a := addressOf(h2, "after")
		h2.MustMinictl("rm", "-f", "after")
		if len(a) > len("10.0.0.9") {
			return errf("somebody has not settled: %s", a)
		}
		return nil
	})
	w.MustMinictl("cluster", "leave")
	w.StopDaemon()
	if diff := lab.Diff(before, w.Snapshot()); diff != "" {
		t.Errorf("the witness leaves a trace:\n%s", diff)
	}
	says(t, l, h1, "minictl witness, on any third machine")
}

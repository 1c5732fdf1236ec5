package e2e

import (
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// TestSwarmCommands is docker's own words for the cluster, from init to leave: pools, labels, tokens, and what a cluster
// without services refuses.
func TestSwarmCommands(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := l.Host("host1"), l.Host("host2")
	for _, h := range []*lab.Host{h1, h2} {
		h.Daemon()
	}
	refused := func(h *lab.Host, pattern string, args ...string) {
		t.Helper()
		_, errOut, code := h.Docker(args...)
		if code == 0 {
			t.Errorf("%v: no error", args)
		}
		wantMatch(t, strings.Join(args, " "), errOut, pattern)
	}
	refused(h1, `This node is not a swarm manager`, "swarm", "join-token", "worker")
	refused(h1, `overlap`, "swarm", "init", "--default-addr-pool", "10.20.0.0/16", "--default-addr-pool", "10.20.1.0/24")
	refused(h1, `invalid subnet size 8 for pool 10\.20\.0\.0/16`, "swarm", "init", "--default-addr-pool", "10.20.0.0/16", "--default-addr-pool-mask-length", "8")
	refused(h1, `--autolock is not supported`, "swarm", "init", "--autolock")
	refused(h1, `--availability`, "swarm", "init", "--availability", "drain")
	h1.MustDocker("swarm", "init", "--advertise-addr", "eth0", "--default-addr-pool", "10.20.0.0/16", "--default-addr-pool-mask-length", "26")
	refused(h1, `leave`, "swarm", "init")
	token := strings.TrimSpace(h1.MustDocker("swarm", "join-token", "-q", "worker"))
	h2.MustDocker("swarm", "join", "--token", token, h1.Addr().String()+":2377")

	// Both hosts cut their networks from the pools that the first chose.
	for i, h := range []*lab.Host{h1, h2} {
		name := "net" + itoa(i)
		h.MustDocker("network", "create", "-d", "overlay", name)
		wantMatch(t, name, h.MustDocker("network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}}{{end}}", name), `^10\.20\.0\.`+itoa(64*i)+`/26\n$`)
	}
	wantMatch(t, "info", h2.MustDocker("info", "--format", "{{.Swarm.Cluster.DefaultAddrPool}} {{.Swarm.Cluster.SubnetSize}} {{.Swarm.Nodes}}"), `^\[10\.20\.0\.0/16\] 26 2\n$`)

	id2 := strings.TrimSpace(h2.MustDocker("info", "--format", "{{.Swarm.NodeID}}"))
	h1.MustDocker("node", "update", "--label-add", "rack=7", "--label-add", "disk=ssd", "host2")
	h2.MustDocker("node", "update", "--label-rm", "disk", "self")
	h1.MustMinictl("node", "update", "--label-add", "zone=a", "host2")
	for _, h := range []*lab.Host{h1, h2} {
		l.Eventually(soon, func() error {
			got := strings.TrimSpace(h.MustDocker("node", "inspect", "-f", "{{.Spec.Labels}}", "host2"))
			if got != "map[rack:7 zone:a]" {
				return errf("labels on %s: %s", h.Name(), got)
			}
			return nil
		})
	}
	for _, c := range []struct{ want, filter string }{
		{id2, "node.label=rack=7"}, {id2, "node.label=zone"}, {"", "node.label=rack=8"}, {id2, "name=host2"}, {id2, "id=" + id2[:8]}, {"", "membership=pending"},
	} {
		if got := strings.TrimSpace(h1.MustDocker("node", "ls", "-q", "--filter", c.filter)); got != c.want {
			t.Errorf("node ls --filter %s: %q, want %q", c.filter, got, c.want)
		}
	}
	wantMatch(t, "node ls", h1.MustDocker("node", "ls"), `(?m)^`+id2+` +host2 +Ready +Active`)
	wantMatch(t, "node ps", h1.MustDocker("node", "ps", "self"), `^ID +NAME +IMAGE`)
	refused(h1, `availability "drain" has no meaning without services`, "node", "update", "--availability", "drain", "host2")
	refused(h1, `the cluster itself chooses who decides`, "node", "promote", "host2")
	refused(h1, `the cluster itself chooses who decides`, "node", "demote", "host1")
	refused(h1, `(?i)invalid role filter`, "node", "ls", "--filter", "role=king")
	refused(h1, `settings is not supported`, "swarm", "update", "--task-history-limit", "3")
	refused(h1, `locking the cluster is not supported`, "swarm", "unlock-key")
	refused(h1, `swarm is not locked`, "swarm", "unlock")
	refused(h1, `No CA information available`, "swarm", "ca")
	refused(h1, `services are not supported`, "service", "ls")
	refused(h1, `alive`, "node", "rm", "host2")

	h1.MustDocker("swarm", "join-token", "--rotate", "worker")
	if again := strings.TrimSpace(h1.MustDocker("swarm", "join-token", "-q", "worker")); again == token {
		t.Error("join-token --rotate gave the same token")
	}
	for _, h := range []*lab.Host{h1, h2} {
		h.MustDocker("network", "ls")
	}
	h2.MustDocker("swarm", "leave")
	wantMatch(t, "after leave", h2.MustDocker("info", "--format", "{{.Swarm.LocalNodeState}}"), `^inactive\n$`)
	h2.MustDocker("network", "create", "-d", "overlay", "mine")
	wantMatch(t, "the pools were the cluster's", h2.MustDocker("network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}}{{end}}", "mine"), `^10\.0\.0\.0/24\n$`)
}

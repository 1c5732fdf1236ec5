package e2e

import (
	"slices"
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
	h1.MustDocker("swarm", "init", "--advertise-addr", "eth0", "--default-addr-pool", "10.20.0.0/16", "--default-addr-pool", "fd00:20::/48", "--default-addr-pool-mask-length", "26")
	refused(h1, `leave`, "swarm", "init")
	token := strings.TrimSpace(h1.MustDocker("swarm", "join-token", "-q", "worker"))
	h2.MustDocker("swarm", "join", "--token", token, h1.Addr().String()+":2377")

	// Both hosts cut their networks from the pools that the first chose.
	for i, h := range []*lab.Host{h1, h2} {
		name := "net" + itoa(i)
		h.MustDocker("network", "create", "-d", "overlay", "--ipv6", name)
		wantMatch(t, name, h.MustDocker("network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", name), `^10\.20\.0\.`+itoa(64*i)+`/26 fd00:20:`+[]string{":", "0:1::"}[i]+`/64 \n$`)
		wantMatch(t, "by scope", h.MustDocker("network", "ls", "-q", "--no-trunc", "-f", "scope=swarm"), strings.TrimSpace(h.MustDocker("network", "inspect", "-f", "{{.Id}}", name)))
	}
	wantMatch(t, "info", h2.MustDocker("info", "--format", "{{.Swarm.Cluster.DefaultAddrPool}} {{.Swarm.Cluster.SubnetSize}} {{.Swarm.Nodes}}"), `^\[10\.20\.0\.0/16 fd00:20::/48\] 26 2\n$`)

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
	ca := h1.MustDocker("swarm", "ca")
	wantMatch(t, "swarm ca", ca, `^-----BEGIN CERTIFICATE-----\n`)
	if other := h2.MustDocker("swarm", "ca"); other != ca {
		t.Errorf("the hosts of one cluster trust two:\n%s%s", ca, other)
	}
	wantMatch(t, "certificates", h1.MustDocker("node", "ls", "--format", "{{.Hostname}} {{.TLSStatus}}"), `^host1 Ready\nhost2 Ready\n$`)
	wantMatch(t, "certificates", h1.MustDocker("node", "inspect", "--pretty", "host2"), `TLS Info:\n TrustRoot:\n-----BEGIN CERTIFICATE`)
	refused(h1, `--cert-expiry is not supported`, "swarm", "ca", "--rotate", "--cert-expiry", "48h")
	h1.MustDocker("swarm", "ca", "--rotate", "--quiet")
	for _, h := range []*lab.Host{h1, h2} {
		if h.MustDocker("swarm", "ca") == ca {
			t.Errorf("%s trusts the old authority after its rotation", h.Name())
		}
	}
	refused(h1, `--autolock is not supported`, "swarm", "update", "--autolock")
	refused(h1, `services are not supported`, "service", "ls")
	refused(h1, `alive`, "node", "rm", "host2")

	h1.MustDocker("swarm", "join-token", "--rotate", "worker")
	if again := strings.TrimSpace(h1.MustDocker("swarm", "join-token", "-q", "worker")); again == token {
		t.Error("join-token --rotate gave the same token")
	}
	for _, h := range []*lab.Host{h1, h2} {
		h.MustDocker("network", "ls")
	}
	h1.MustDocker("network", "create", "-d", "overlay", "later") // an event that is not the nodes'
	l.Eventually(soon, func() error {
		args := []string{"events", "--since", "0", "--until", "0s", "--filter", "type=node", "--format", "{{.Scope}} {{.Action}} {{.Actor.Attributes.name}}"}
		for _, h := range []*lab.Host{h1, h2} {
			// What came with the join: host2 knows host1 from then on. A change of role may be among the updates.
			got := lines(h.MustDocker(args...))
			for _, want := range []string{"swarm create host1", "swarm create host2", "swarm update host2"} {
				if !slices.Contains(got, want) {
					return errf("%s: %q is not in %q", h.Name(), want, got)
				}
			}
		}
		return nil
	})
	if got := lines(h1.MustDocker("events", "--since", "0", "--until", "0s", "--filter", "node="+id2, "--filter", "event=create", "--format", "{{.Actor.ID}}")); !slices.Equal(got, []string{id2}) {
		t.Errorf("host2's creation: %q", got)
	}
	h2.MustDocker("swarm", "leave")
	l.Eventually(soon, func() error {
		if got := lines(h1.MustDocker("events", "--since", "0", "--until", "0s", "--filter", "node="+id2, "--filter", "event=remove", "--format", "{{.Type}}")); !slices.Equal(got, []string{"node"}) {
			return errf("host2's leave: %q", got)
		}
		return nil
	})
	wantMatch(t, "after leave", h2.MustDocker("info", "--format", "{{.Swarm.LocalNodeState}}"), `^inactive\n$`)
	h2.MustDocker("network", "create", "-d", "overlay", "mine")
	wantMatch(t, "the pools were the cluster's", h2.MustDocker("network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}}{{end}}", "mine"), `^10\.0\.0\.0/24\n$`)
}

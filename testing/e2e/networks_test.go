package e2e

import (
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// TestNetworkCommands is what network ls, inspect, rm and prune choose and show, and what network create refuses by name.
func TestNetworkCommands(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	for _, c := range clients() {
		c.must(h, "network", "create", "--label", "tier=web", "--label", "keep", "a1")
		c.must(h, "network", "create", "--label", "tier=db", "--internal", "--attachable", "a2")
		c.must(h, "network", "create", "-d", "overlay", "--attachable", "--ipv6", "--label", "tier=web", "a3")
		c.must(h, "run", "-d", "--name", "box", "--network", "a1", "--sysctl", "net.ipv4.ip_unprivileged_port_start=7", "busybox", "sleep", "600")
		wantMatch(t, c.name+" --sysctl", h.MustMinictl("exec", "box", "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"), `^7\n`)
		id := strings.TrimSpace(c.must(h, "network", "inspect", "-f", "{{.Id}}", "a2"))
		for filters, want := range map[string]string{
			"driver=overlay": "a3", "label=tier": "a1 a2 a3", "label=tier=web": "a1 a3", "label=tier=web label=keep": "a1", "id=" + id[:9]: "a2", "name=^a2$": "a2",
			"name=a": "a1 a2 a3", "scope=global": "a3", "scope=swarm": "a3", "type=builtin": "bridge host none", "type=custom label=keep": "a1",
			"dangling=true label=tier": "a2 a3", "dangling=false": "a1", "driver=null driver=host": "host none", "name=nosuch": "",
		} {
			args := []string{"network", "ls", "--format", "{{.Name}}"}
			for f := range strings.FieldsSeq(filters) {
				args = append(args, "-f", f)
			}
			if got := strings.Join(strings.Fields(c.must(h, args...)), " "); got != want {
				t.Errorf("%s: %s: %q, want %q", c.name, filters, got, want)
			}
		}
		for _, bad := range []string{"type=odd", "dangling=perhaps", "nosuch=1"} {
			refused(t, c, h, 1, `invalid filter`, "network", "ls", "-f", bad)
		}
		if got := c.must(h, "network", "ls", "-f", "name=a2", "--no-trunc", "--format", "{{.ID}} {{.Driver}} {{.Scope}} {{.Internal}} {{.Labels}} {{.Label \"tier\"}}"); got != id+" bridge local true tier=db db\n" {
			t.Errorf("%s: formatted: %q", c.name, got)
		}
		wantMatch(t, c.name+" IPv6", c.must(h, "network", "ls", "-f", "name=a3", "--format", "{{.IPv6}}"), `^true\n$`)

		wantMatch(t, c.name+" inspect", c.must(h, "network", "inspect", "-v", "-f", "{{.Name}} {{.Attachable}} {{len .Containers}} {{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}", "a1"), `^a1 false 1 box 172\.\d+\.0\.2/16\n$`)
		out, errOut, code := c.try(h, "network", "inspect", "-f", "{{.Name}}", "a1", "nosuch", "a2")
		if code != 1 || out != "a1\na2\n" || !strings.Contains(errOut, "network nosuch not found") {
			t.Errorf("%s: inspect of one that is not there: %d %q %q", c.name, code, out, errOut)
		}

		refused(t, c, h, 1, `network a1 has active endpoints \(name:"box" id:"[0-9a-f]{12}"\)`, "network", "rm", "a1")
		for _, name := range []string{"bridge", "host", "none"} {
			refused(t, c, h, 1, name+` is a pre-defined network and cannot be removed`, "network", "rm", name)
		}
		out, errOut, code = c.try(h, "network", "rm", "nosuch", "a2")
		if code != 1 || out != "a2\n" || !strings.Contains(errOut, "network nosuch not found") {
			t.Errorf("%s: rm of one that is not there: %d %q %q", c.name, code, out, errOut)
		}
		c.must(h, "network", "create", "--label", "tier=db", "a2")
		for _, c2 := range []struct{ filters, want string }{
			{"until=1h", ""}, {"label=tier=none", ""}, {"label!=tier", ""}, {"label=tier=db", "a2"}, {"", "a3"},
		} {
			args := []string{"network", "prune", "-f"}
			for f := range strings.FieldsSeq(c2.filters) {
				args = append(args, "--filter", f)
			}
			got := strings.Join(strings.Fields(strings.TrimPrefix(c.must(h, args...), "Deleted Networks:\n")), " ")
			if got != c2.want {
				t.Errorf("%s: prune %s: %q, want %q", c.name, c2.filters, got, c2.want)
			}
		}
		for want, args := range map[string][]string{
			"does not support --config-only":               {"--config-only"},
			"--config-only and --config-from":              {"--config-from", "a1"},
			"does not support --ingress":                   {"-d", "overlay", "--ingress"},
			"minictl has no ipvlan driver":                 {"-d", "ipvlan", "-o", "parent=eth0"},
			"option encrypted: minictl does not encrypt":   {"-d", "overlay", "--opt", "encrypted"},
			"is not a VXLAN identifier":                    {"-d", "overlay", "-o", "com.docker.network.driver.overlay.vxlanid_list=0"},
			"all subnets of a network share one":           {"-d", "overlay", "-o", "com.docker.network.driver.overlay.vxlanid_list=8,9"},
			"network with name a1 already exists":          {},
			"operation is not permitted on predefined":     {"bridge"},
			`only one instance of "host" network`:          {"-d", "host"},
			"nosuch":                                       {"-d", "nosuch"},
			"Pool overlaps with other one on this address": {"--subnet", "172.17.3.0/24"},
		} {
			name := "a1"
			if len(args) == 1 && args[0] == "bridge" {
				name, args = "bridge", nil
			} else if len(args) > 0 {
				name = "never"
			}
			refused(t, c, h, 1, want, append(append([]string{"network", "create"}, args...), name)...)
		}
		c.must(h, "network", "create", "-d", "overlay", "-o", "com.docker.network.driver.overlay.vxlanid_list=4242", "a3")
		wantMatch(t, c.name+" VNI", h.MustMinictl("network", "inspect", "a3"), `"VNI": 4242`)
		c.must(h, "rm", "-f", "box")
		c.must(h, "network", "rm", "a1", "a3")
	}
}

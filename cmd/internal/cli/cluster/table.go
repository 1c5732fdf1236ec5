package cluster

import (
	"fmt"
	"io"

	"github.com/docker/cli/cli/command/formatter/tabwriter"

	"github.com/minictl/minictl/cmd/internal/api"
)

// table has one line a node; the star marks this host.
func table(out io.Writer, st api.ClusterStatus) error {
	w := tabwriter.NewWriter(out, 10, 1, 3, ' ', 0)
	fmt.Fprintln(w, "NODE\tID\tSTATUS\tROLE\tADDRESS\tDATA PATH\tENDPOINTS\tVERSION")
	for _, n := range st.Nodes {
		name := n.Name
		if n.ID == st.Self {
			name += " *"
		}
		role := n.Role
		if n.Leader {
			role += " (leader)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", name, n.ID, n.Status, role,
			dash(n.Addr), dash(n.DataPathAddr), n.Endpoints, n.Version)
	}
	return w.Flush()
}

// dash shows that a value is missing on purpose: a host alone has no address for others.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

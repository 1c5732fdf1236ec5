package engine

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/minictl/minictl/cmd/internal/api"
)

// TestSummarizeStore says in words that the store decides, and what its absence means.
func TestSummarizeStore(t *testing.T) {
	const name = "etcd://192.0.2.1:2379/minictl"
	away := errors.New("the cluster store " + name + " does not answer: connection refused")
	for _, c := range []struct {
		state string
		nodes int
		away  error
		down  []string
		want  []string
	}{
		{"cluster", 1, nil, nil, []string{"One host; " + name + " decides", "If it goes away, containers go on"}},
		{"cluster", 2, nil, []string{"Down: b."}, []string{"2 hosts; " + name + " decides", "Down: b."}},
		{"cluster", 2, away, nil, []string{"nobody decides on networks and addresses now: " + away.Error() + ".", "networks cannot be made or removed until it is back"}},
		{"single", 1, away, nil, []string{"not in the cluster of " + name + " yet; it goes on trying", "Now: " + away.Error()}},
		{"single", 1, nil, nil, []string{"not in the cluster", "Containers on local networks work"}},
	} {
		got := strings.Join(summarizeStore(&api.ClusterStatus{Store: name, State: c.state, Nodes: make([]api.ClusterNodeStatus, c.nodes)}, c.away, c.down), "\n")
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%q is not in %q", want, got)
			}
		}
	}
}

func TestStoreAdvertise(t *testing.T) {
	for _, c := range []struct{ advertise, want string }{
		{"lo", "127.0.0.1:7946"},
		{"lo:7000", "127.0.0.1:7000"},
		{"127.0.0.1", "127.0.0.1:7946"},
		{"127.0.0.1:7000", "127.0.0.1:7000"},
		{"lo:2376", "127.0.0.1:7946"}, // as the tutorial types it: dockerd's port
		{"", "127.0.0.1:7946"},        // what leads to the store
		{"lo:x", `"x" is not a port`},
		{"nope", "--cluster-advertise nope is neither an address nor an interface"},
	} {
		o, err := StoreAdvertise(c.advertise, "127.0.0.1:2379")
		if err != nil {
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q: %v, want %s", c.advertise, err, c.want)
			}
			continue
		}
		if want, err := netip.ParseAddrPort(c.want); err != nil || o.Advertise != want || o.MTU == 0 {
			t.Errorf("%q: %+v, want %s", c.advertise, o, c.want)
		}
	}
}

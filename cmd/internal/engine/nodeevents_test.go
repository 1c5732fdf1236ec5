package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/swarm"
)

func TestNodeEvents(t *testing.T) {
	node := func(text string) swarm.Node { // ID, state, role, version
		f := strings.Fields(text)
		n := swarm.Node{ID: f[0], Description: swarm.NodeDescription{Hostname: "host-" + f[0]}, Status: swarm.NodeStatus{State: swarm.NodeState(f[1])}}
		n.Spec.Role, n.Version.Index = swarm.NodeRole(f[2]), uint64(len(f[3]))
		return n
	}
	nodes := func(texts string) map[string]swarm.Node {
		out := map[string]swarm.Node{}
		for text := range strings.SplitSeq(texts, ",") {
			if text != "" {
				n := node(text)
				out[n.ID] = n
			}
		}
		return out
	}
	for _, c := range []struct{ before, now, want string }{
		{"", "", ""},
		{"", "a ready manager v", "create host-a"},
		{"a ready manager v", "a ready manager v,b ready worker v", "create host-b"},
		{"a ready manager v,b ready worker v", "a ready manager v,b down worker v", "update host-b state.new=down state.old=ready"},
		{"a ready worker v", "a down manager v", "update host-a role.new=manager role.old=worker state.new=down state.old=ready"},
		{"a ready manager v", "a ready manager vv", "update host-a"},
		{"a ready manager v,b down worker v", "a ready manager v", "remove host-b"},
		{"a ready manager v,b down worker v", "c ready manager v", "remove host-a; remove host-b; create host-c"},
		{"a ready manager v,b ready worker v", "", ""}, // this host has left
	} {
		var got []string
		for _, m := range nodeEvents(nodes(c.before), nodes(c.now)) {
			text := fmt.Sprint(m.Action, " ", m.Actor.Attributes["name"])
			delete(m.Actor.Attributes, "name")
			for _, k := range slices.Sorted(maps.Keys(m.Actor.Attributes)) {
				text += " " + k + "=" + m.Actor.Attributes[k]
			}
			if m.Type != "node" || m.Scope != "swarm" || m.Actor.ID == "" {
				t.Errorf("%+v", m)
			}
			got = append(got, text)
		}
		if got := strings.Join(got, "; "); got != c.want {
			t.Errorf("%s -> %s: %s, want %s", c.before, c.now, got, c.want)
		}
	}
}

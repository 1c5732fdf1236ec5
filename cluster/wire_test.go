package cluster

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/minictl/minictl/cluster/raft"
	"github.com/minictl/minictl/cluster/records"
	"github.com/minictl/minictl/cluster/transport"
)

func TestVotersFor(t *testing.T) {
	t.Parallel()
	got := []int{}
	for n := 1; n <= 7; n++ {
		got = append(got, votersFor(n))
	}
	if want := []int{1, 1, 3, 3, 5, 5, 5}; !slices.Equal(got, want) {
		t.Errorf("voters for 1 to 7 nodes: %v, want %v", got, want)
	}
}

// TestPlanVoters writes a cluster as words: upper case votes, a trailing - is dead. The first one leads.
func TestPlanVoters(t *testing.T) {
	t.Parallel()
	for nodes, want := range map[string]string{
		"A":               "",
		"A b":             "",   // the two-host cluster: one vote
		"A b-":            "",   //
		"A b c":           "+b", // three hosts, three votes
		"A B c":           "+c", // on the way there
		"A b- c":          "+c", // as good as it can be: two, the dead is no candidate
		"A B C d":         "",   // four hosts, three votes
		"A B C- d":        "+d", // replace the dead first
		"A B C- D":        "-C", // then drop it
		"A B C-":          "",   // nobody to replace it
		"A B":             "-B", // a host has left: one vote again, the leader's
		"A B-":            "-B", //
		"A B C D e":       "+e", //
		"A B C D E f":     "",   //
		"A B C D- E- f g": "+f", //
		"A B C D- E- F g": "-D", //
		"A b- c-":         "",   // nobody else is there
	} {
		var peers []raft.Peer
		dead := map[string]bool{}
		for _, w := range strings.Fields(nodes) {
			id := strings.TrimSuffix(w, "-")
			dead[strings.ToLower(id)] = strings.HasSuffix(w, "-")
			peers = append(peers, raft.Peer{ID: strings.ToLower(id), Voter: id == strings.ToUpper(id)})
		}
		promote, demote := planVoters("a", peers, func(id string) bool { return !dead[id] })
		got := ""
		switch {
		case len(promote) > 0 && demote != "":
			got = "both"
		case len(promote) > 0:
			got = "+" + promote[0]
		case demote != "":
			got = "-" + strings.ToUpper(demote)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", nodes, got, want)
		}
	}
}

// TestPlanPeers writes members as words, a trailing - is dead, and then raft's peers.
func TestPlanPeers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ members, peers, want string }{
		{"a", "a", ""},
		{"a b c", "a b c", ""},
		{"a b c", "a c", "+b"}, // a Leave that ended half way
		{"a b- c", "a c", ""},  // not before it is there
		{"a b- c", "a b c", ""},
		{"a c", "a b c", "-b"}, // added again while it left
		{"b", "a b", ""},       // not itself
		{"a b", "a c", "-c"},
	} {
		nodes, dead := map[NodeID]Node{}, map[string]bool{}
		for _, w := range strings.Fields(c.members) {
			id := strings.TrimSuffix(w, "-")
			nodes[NodeID(id)], dead[id] = Node{ID: NodeID(id)}, id != w
		}
		var peers []raft.Peer
		for _, id := range strings.Fields(c.peers) {
			peers = append(peers, raft.Peer{ID: id})
		}
		got := ""
		switch add, drop := planPeers("a", nodes, peers, func(id string) bool { return !dead[id] }); {
		case add != "" && drop != "":
			got = "both"
		case add != "":
			got = "+" + add
		case drop != "":
			got = "-" + drop
		}
		if got != c.want {
			t.Errorf("members %q, peers %q: %q, want %q", c.members, c.peers, got, c.want)
		}
	}
}

func TestNodeCheck(t *testing.T) {
	t.Parallel()
	good := Node{ID: "x", Name: "host-1.example_2", Addr: netip.MustParseAddrPort("10.0.0.1:7946"), DataPath: netip.MustParseAddr("10.0.0.1")}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Node){
		"no ID":         func(n *Node) { n.ID = "" },
		"no name":       func(n *Node) { n.Name = "" },
		"slash":         func(n *Node) { n.Name = "a/b" },
		"long":          func(n *Node) { n.Name = strings.Repeat("a", 64) },
		"unspecified":   func(n *Node) { n.Addr = netip.MustParseAddrPort("0.0.0.0:7946") },
		"no port":       func(n *Node) { n.Addr = netip.MustParseAddrPort("10.0.0.1:0") },
		"no data path":  func(n *Node) { n.DataPath = netip.Addr{} },
		"any data path": func(n *Node) { n.DataPath = netip.IPv6Unspecified() },
	} {
		n := good
		change(&n)
		if n.check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzDecodeNode(f *testing.F) {
	b, _ := json.Marshal(Node{ID: "x", Name: "a", Addr: netip.MustParseAddrPort("10.0.0.1:7946"), DataPath: netip.MustParseAddr("10.0.0.1")})
	f.Add(b)
	f.Add([]byte(`{"id":"x","addr":"::1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := decodeNode(b); err == nil && (n.ID == "" || !n.Addr.IsValid() || !n.DataPath.IsValid()) {
			t.Fatalf("%q: %+v", b, n)
		}
	})
}

func FuzzDecodeVersions(f *testing.F) {
	b, _ := json.Marshal(versions{From: "a", Versions: map[string]records.Version{"a": {Incarnation: 1, Counter: 2}}})
	f.Add(b)
	f.Add([]byte(`{"from":"a","versions":{"":{"i":1}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := decodeVersions(b)
		if err != nil {
			return
		}
		if slices.Contains(records.New("self", 1, nil).Missing(v.Versions), "") {
			t.Fatalf("%q: somebody without a name is missing", b)
		}
	})
}

func FuzzAdmitReply(f *testing.F) {
	b, _ := json.Marshal(admitReply{Cluster: "c", Epoch: "1.a", Keys: [][]byte{{1}}, Member: "m"})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var r admitReply
		if json.Unmarshal(b, &r) != nil || r.check() != nil {
			return
		}
		for _, n := range r.Nodes {
			if n.check() != nil {
				t.Fatalf("%q: %+v", b, n)
			}
		}
	})
}

func FuzzAdmitRequest(f *testing.F) {
	f.Add([]byte(`{"secret":"x","request":"AA==","node":{"name":"a"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r admitRequest
		if json.Unmarshal(b, &r) == nil {
			_ = r.Node.check()
		}
	})
}

func FuzzRejoinRequest(f *testing.F) {
	b, _ := json.Marshal(rejoinRequest{Fence: transport.Fence{Cluster: "c", Epoch: "1.a", Past: []string{"0.x"}}})
	f.Add(b)
	own := state{Cluster: "c", Epoch: "2.b", Past: []string{"1.a"}}.fence()
	f.Fuzz(func(t *testing.T, b []byte) {
		var r rejoinRequest
		if json.Unmarshal(b, &r) != nil {
			return
		}
		if how := own.Compare(r.Fence); how == transport.Same && r.Fence.Epoch != own.Epoch || how == transport.Behind && r.Fence.Epoch != "1.a" {
			t.Fatalf("%q: %d", b, how)
		}
		if past := addEpochs(own.Past, r.Fence.Past...); len(past) > maxPast {
			t.Fatalf("%q: %d epochs", b, len(past))
		}
	})
}

func FuzzDecodeState(f *testing.F) {
	b, _ := json.Marshal(freshState())
	f.Add(b)
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if st, err := decodeState(b); err == nil && st.Version != stateVersion {
			t.Fatalf("%q: version %d", b, st.Version)
		}
	})
}

package engine

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/cluster/transport"
)

// hostsOf reads a cluster out of words: upper case votes, a trailing - is down, a + before it only votes.
func hostsOf(words string) []cluster.Member {
	var out []cluster.Member
	for i, w := range strings.Fields(words) {
		name, witness := strings.CutPrefix(strings.TrimSuffix(w, "-"), "+")
		out = append(out, cluster.Member{
			Node: cluster.Node{
				ID: cluster.NodeID(strings.ToLower(name)), Name: strings.ToLower(name), Witness: witness,
				Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), cluster.ControlPort),
			},
			Voter: name == strings.ToUpper(name), Alive: !strings.HasSuffix(w, "-"),
		})
	}
	return out
}

// TestSummarize says in words who decides, what a death means, who lags, and what to type.
func TestSummarize(t *testing.T) {
	now := time.Now()
	const away = "containers go on and reach each other, and each host starts new ones with the addresses it has in reserve"
	for _, c := range []struct {
		hosts, self string
		st          cluster.Standing
		lags        map[cluster.NodeID]uint64
		want        []string
		not         string
	}{
		{"A", "a", cluster.Standing{Decides: true}, nil, []string{"One host, a. minictl cluster token"}, "dies"},
		{"A b", "a", cluster.Standing{Decides: true}, map[cluster.NodeID]uint64{"a": 0, "b": 0},
			[]string{"2 hosts; a decides on networks", "If this host dies, " + away, "minictl cluster recover is run on another.", "All hosts that are up have all"}, "Down"},
		{"A b", "b", cluster.Standing{Decides: true}, map[cluster.NodeID]uint64{"a": 0, "b": 12},
			[]string{"If a dies, " + away, "minictl cluster recover is run here", "If this host dies, the others go on as they are", "b is 12 entries behind."}, "All hosts"},
		{"A b-", "a", cluster.Standing{Decides: true}, nil, []string{"2 hosts; a decides", "If this host dies", "Down: b."}, "Nobody"},
		{"A- b", "b", cluster.Standing{Heard: now.Add(-12 * time.Second)}, nil,
			[]string{"Nobody decides now: a (10.0.0.1), which decides for this cluster, has not been heard for 12s.",
				"addresses in reserve: ov_net1 (8)", "If it is gone for good: minictl cluster recover, here.", "Down: a."}, "dies"},
		{"A b", "b", cluster.Standing{}, nil, // gossip has not noticed yet
			[]string{"a (10.0.0.1), which decides for this cluster, has not been heard since this daemon started"}, ""},
		{"A B C", "b", cluster.Standing{Decides: true}, nil,
			[]string{"a, b, c decide together", "2 of them must be up", "Any 1 of them may die", "If this host dies now, the others choose a leader"}, ""},
		{"A b", "a", cluster.Standing{Decides: true}, nil, []string{"minictl witness, on any third machine, lets either host die"}, ""},
		{"A B +W", "b", cluster.Standing{Decides: true}, nil,
			[]string{"2 hosts and the witness w; a, b, w decide together on networks and addresses: 2 of them must be up.", "Any 1 of them may die"}, "third machine"},
		{"A B +W-", "b", cluster.Standing{Decides: true}, nil, []string{"The witness w is down.", "none of these may die now"}, "Down:"},
		{"A- B +W", "b", cluster.Standing{Decides: true}, nil, []string{"Down: a."}, "The witness w is down"},
		{"A +w", "a", cluster.Standing{Decides: true}, nil, []string{"1 host and the witness w; a decides"}, ""},
		{"A B- C d", "d", cluster.Standing{Decides: true}, nil, []string{"Only 2 of them are up: none of these may die now."}, "go on as they are"},
		{"A B C d", "d", cluster.Standing{Decides: true}, nil, []string{"If this host dies now, the others go on as they are."}, "choose"},
		{"A- B- C", "c", cluster.Standing{Heard: now.Add(-time.Minute)}, nil,
			[]string{"a (10.0.0.1), b (10.0.0.2), which decide for this cluster, have not been heard for 1m0s", "When they are back", "If they are gone for good"}, ""},
		{"a- B", "b", cluster.Standing{Decides: true, Missing: []cluster.NodeID{"a"}}, nil,
			[]string{"Not back since the takeover: a.", "minictl node rm --force"}, ""},
		{"a- B", "b", cluster.Standing{Decides: true, Estranged: []cluster.Estranged{{ID: "a", Epoch: "2.x", How: transport.Split}}}, nil,
			[]string{"Taken over twice: here, and on a (epoch 2.x).", "minictl cluster rejoin"}, ""},
		{"a- B", "b", cluster.Standing{Decides: true, Estranged: []cluster.Estranged{{ID: "a", Epoch: "1.x", How: transport.Behind}}}, nil,
			[]string{"a is up and from before the takeover: it joins again by itself."}, "twice"},
	} {
		v := statusView{clustered: true, members: hostsOf(c.hosts), standing: c.st, lags: c.lags, reserves: "ov_net1 (8)", name: func(id string) string { return id }, now: now}
		for _, m := range v.members {
			if m.Name == c.self {
				v.self = m.Node
			}
		}
		got := strings.Join(v.summarize(), "\n")
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s on %s: %q is not in\n%s", c.hosts, c.self, want, got)
			}
		}
		if c.not != "" && strings.Contains(got, c.not) {
			t.Errorf("%s on %s: %q is in\n%s", c.hosts, c.self, c.not, got)
		}
	}
	alone := statusView{self: cluster.Node{Name: "a"}}
	if got := strings.Join(alone.summarize(), "\n"); !strings.Contains(got, "minictl cluster init opens it") {
		t.Error(got)
	}
}

// TestUndecided names who is missing and what to type, and keeps other errors as they are.
func TestUndecided(t *testing.T) {
	hosts, _ := islands(t, 2)
	h := hosts[1]
	h.fake.members = hostsOf("A- b")
	h.fake.missing = true
	err := h.undecided("create network n", errdefs.ErrUnavailable)
	if want := `create network n: a (10.0.0.1), which decides for this cluster, has not been heard since this daemon started; bring it back, or, if it is gone for good, run "minictl cluster recover" here`; !errdefs.IsUnavailable(err) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if err := h.undecided("create network n", errdefs.ErrConflict); !errdefs.IsConflict(err) {
		t.Error(err)
	}
}

// TestRecoveryWords tell what a takeover means before there is one.
func TestRecoveryWords(t *testing.T) {
	now := time.Now()
	m := hostsOf("A- b c-")
	got := strings.Join(recoveryWords("b", cluster.Recovery{Missing: m[:1], Others: m[2:], Heard: now.Add(-5 * time.Second), Lag: 3}, now), "\n")
	for _, want := range []string{
		"A (10.0.0.1), which decides for this cluster, has not been heard for 5s.", "From now on b decides alone", "not told it is lost",
		"The last 3 entries", "a, c: addresses and reserves stay theirs until minictl node rm --force",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

func TestStatusSaysWhatKeepsAHostOut(t *testing.T) {
	v := statusView{clustered: true, self: cluster.Node{ID: "a", Name: "a"}, members: []cluster.Member{{Node: cluster.Node{ID: "a", Name: "a"}, Voter: true, Alive: true}},
		standing: cluster.Standing{Decides: true}, name: func(id string) string { return id },
		refused: "node a is up, and this host has its key", stopped: errors.New("apply entry 7: upgrade minictl on this host")}
	got := strings.Join(v.summarize(), "\n")
	for _, want := range []string{"The others do not let this host take part: node a is up", "follows the others' decisions no further: apply entry 7"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
}

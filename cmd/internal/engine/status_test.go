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
			[]string{"2 hosts; a decides on networks", "If this host dies, " + away, "minictl cluster recover is run on another.", "All hosts have all that was decided."}, "Down"},
		{"A b", "b", cluster.Standing{Decides: true}, map[cluster.NodeID]uint64{"a": 0, "b": 12},
			[]string{"If a dies, " + away, "minictl cluster recover is run here", "If this host dies, the others go on as they are", "b is 12 entries behind."}, "All hosts"},
		{"A b", "a", cluster.Standing{Decides: true}, map[cluster.NodeID]uint64{"a": 0, "b": 1}, []string{"b is 1 entry behind."}, "All hosts"},
		{"A b c", "a", cluster.Standing{Decides: true}, map[cluster.NodeID]uint64{"a": 0, "b": 0}, nil, "All hosts"}, // c did not say
		{"A b c-", "a", cluster.Standing{Decides: true}, map[cluster.NodeID]uint64{"a": 0, "b": 0}, nil, "All hosts"},
		{"A b", "b", cluster.Standing{Since: now}, map[cluster.NodeID]uint64{"a": 0, "b": 0}, nil, "All hosts"},
		{"A b-", "a", cluster.Standing{Decides: true}, nil,
			[]string{"2 hosts; a decides", "If this host dies", "Down: b. Its containers' names are hidden until it returns.", "No other host can be heard."}, "Nobody"},
		{"A b- c- d-", "a", cluster.Standing{Decides: true, Shown: []cluster.NodeID{"c"}}, nil,
			[]string{"Down: b, d. Their containers' names are hidden until they return.", "Down: c. Its containers' names stay for up to a minute, and are hidden then until it returns."}, ""},
		{"A- b", "b", cluster.Standing{Led: "a", Since: now.Add(-12 * time.Second)}, nil,
			[]string{"Nobody decides now: a (10.0.0.1), which decides for this cluster, has not been heard for 12s.",
				"addresses in reserve: ov_net1 (8)", "If it is gone for good: minictl cluster recover, here.", "Down: a."}, "dies"},
		{"A b", "b", cluster.Standing{Since: now}, nil, // gossip has not noticed yet
			[]string{"Nobody decides at this moment: a (10.0.0.1), which decides for this cluster, has not been heard for 1s.\nWhether it is down"}, "recover"},
		{"A b", "b", cluster.Standing{Led: "a", Since: now.Add(-time.Minute)}, nil,
			[]string{"Nobody decides for this host: a (10.0.0.1), which led, has not been heard for 1m0s, and a is up: if it stays so, look at the link between this host and a."}, "recover"},
		{"A B C d", "b", cluster.Standing{Led: "a", Since: now.Add(-time.Second)}, nil,
			[]string{"Nobody decides at this moment: a (10.0.0.1), which led, has not been heard for 1s.\nIf it stays silent, those that are up choose another"}, "recover"},
		{"A- B C d", "d", cluster.Standing{Led: "a", Since: now.Add(-5 * time.Second)}, nil,
			[]string{"Nobody decides at this moment: a (10.0.0.1), which led, has not been heard for 5s.\nIf it stays silent, those that are up choose another"}, "recover"},
		{"A- B C", "b", cluster.Standing{Since: now.Add(-3 * time.Second)}, nil,
			[]string{"Nobody decides at this moment: nobody has been heard to lead for 3s.\nThose that are up choose who does"}, "recover"},
		{"A B C", "a", cluster.Standing{Led: "a", Since: now}, nil, []string{"nobody has been heard to lead for 1s"}, "recover"},
		{"A B C d", "c", cluster.Standing{Led: "a", Since: now.Add(-40 * time.Second)}, nil,
			[]string{"Nobody decides for this host: a (10.0.0.1), which led, has not been heard for 40s, and a, b are up: if it stays so, look at the link between this host and a.",
				"addresses in reserve"}, "recover"},
		{"A- B C d", "d", cluster.Standing{Led: "a", Since: now.Add(-40 * time.Second)}, nil, []string{"b, c are up: if it stays so, look at the link between this host and b, c."}, "recover"},
		{"A B C", "b", cluster.Standing{Decides: true}, nil,
			[]string{"a, b, c decide together", "2 of them must be up", "Any one of them may die", "If this host dies now, the others choose a leader"}, ""},
		{"a b", "a", cluster.Standing{Since: now}, nil, []string{"who decides is not known here yet", "Nobody decides for this host yet."}, "recover"},
		{"A b", "a", cluster.Standing{Decides: true}, nil, []string{"minictl witness, on any third machine, lets either host die"}, ""},
		{"A B +W", "b", cluster.Standing{Decides: true}, nil,
			[]string{"2 hosts and the witness w; a, b, w decide together on networks and addresses: 2 of them must be up.", "Any one of them may die"}, "third machine"},
		{"A B C D E", "b", cluster.Standing{Decides: true}, nil, []string{"Any 2 of them may die"}, "Only"},
		{"A B c", "a", cluster.Standing{Decides: true}, nil, []string{"If either of them dies, " + away, "until it is back"}, "Only 2"},
		{"A B c", "a", cluster.Standing{Decides: true}, nil, nil, "Any"},
		{"A- B C-", "b", cluster.Standing{Decides: true}, nil, []string{"Of these, only b is heard here until now."}, "none of these may die"},
		{"A B +W-", "b", cluster.Standing{Decides: true}, nil, []string{"The witness w is down.", "none of these may die now"}, "Down:"},
		{"A- B +W", "b", cluster.Standing{Decides: true}, nil, []string{"Down: a."}, "The witness w is down"},
		{"A +w", "a", cluster.Standing{Decides: true}, nil, []string{"1 host and the witness w; a decides"}, "third machine"},
		{"A +w", "w", cluster.Standing{Decides: true}, nil, []string{"1 host and the witness w; a decides"}, "dies"},
		{"A B- C d", "d", cluster.Standing{Decides: true}, nil, []string{"Only 2 of them are up: none of these may die now."}, "go on as they are"},
		{"A B C d", "d", cluster.Standing{Decides: true}, nil, []string{"If this host dies now, the others go on as they are."}, "choose"},
		{"A- B- C", "c", cluster.Standing{Since: now.Add(-time.Minute)}, nil,
			[]string{"a (10.0.0.1), b (10.0.0.2), which decide for this cluster, have not been heard for 1m0s", "When they are back", "If they are gone for good"}, ""},
		{"a- B", "b", cluster.Standing{Decides: true, Missing: []cluster.NodeID{"a"}}, nil,
			[]string{"Not back yet: a. Until it is, or minictl node rm removes it, its addresses stay its own"}, "takeover"},
		{"a- B c-", "b", cluster.Standing{Decides: true, Missing: []cluster.NodeID{"c", "a"}}, nil,
			[]string{"Not back yet: a, c. Until they are, or minictl node rm removes them, their addresses stay theirs"}, "--force"},
		{"a- B", "b", cluster.Standing{Decides: true, Estranged: []cluster.Estranged{{ID: "a", Epoch: "2.x", How: transport.Split}}}, nil,
			[]string{"This cluster has gone on apart: here, and on a (epoch 2.x).", "minictl cluster rejoin"}, "No other host can be heard"},
		{"a- B", "b", cluster.Standing{Decides: true, Estranged: []cluster.Estranged{{ID: "a", Epoch: "1.x", How: transport.Behind}}}, nil,
			[]string{"This cluster has gone on without a, which is up: it joins again by itself."}, "apart"},
		{"A- b", "b", cluster.Standing{Since: now.Add(-time.Minute), Estranged: []cluster.Estranged{{ID: "a", Epoch: "2.x", How: transport.Ahead}}}, nil,
			[]string{"Nobody decides for this host yet.", "This cluster has gone on without this host, on a: this host joins again by itself."}, "recover"},
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
	alone.self.Witness = true
	if got := strings.Join(alone.summarize(), "\n"); got != "a is a witness of no cluster: minictl cluster token, on a host of one, prints what to type here." {
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
	if want := `create network n: a (10.0.0.1), which decides for this cluster, has not been heard for 1s; bring it back, or, if it is gone for good, run "minictl cluster recover" here`; !errdefs.IsUnavailable(err) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	for hosts, want := range map[string]string{
		"A b":    "create network n: a (10.0.0.1), which decides for this cluster, has not been heard for 1s; try again in a few seconds",
		"A- B C": "create network n: nobody has been heard to lead for 1s; those that are up choose who does: try again in a few seconds",
	} {
		h.fake.members = hostsOf(hosts)
		if err := h.undecided("create network n", errdefs.ErrUnavailable); !errdefs.IsUnavailable(err) || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	h.fake.refused = "this host is not a member of this cluster: run `minictl cluster leave --force` here and join it again"
	want := "create network n: the others do not let this host take part: this host is not a member of this cluster: run `minictl cluster leave --force` here and join it again"
	if err := h.undecided("create network n", errdefs.ErrUnavailable); !errdefs.IsUnavailable(err) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if err := h.undecided("create network n", errdefs.ErrConflict); !errdefs.IsConflict(err) {
		t.Error(err)
	}
}

// TestRecoveryWords tell what a takeover means before there is one.
func TestRecoveryWords(t *testing.T) {
	now := time.Now()
	m := hostsOf("c- b A- d E")
	for _, c := range []struct {
		r       cluster.Recovery
		members []cluster.Member
		want    []string
	}{
		{cluster.Recovery{Missing: m[2:3], Others: m[:1], Lag: 3}, m, []string{
			"Not heard for 5s: a (10.0.0.3), which decides for this cluster.", "Up, and heard here: d (10.0.0.4), e (10.0.0.5). They follow by themselves",
			"From now on b decides alone", "not told it is lost", "The last 3 entries", "Until minictl node rm, the addresses and reserves of a, c stay theirs.",
		}},
		{cluster.Recovery{Missing: m[2:3], Lag: 1}, m[1:3], []string{
			"No other host is heard here.", "The last entry that it has heard of may not have been decided; it will count.", "the addresses and reserves of a stay its own.",
		}},
	} {
		got := strings.Join(recoveryWords(m[1].Node, c.r, c.members, now.Add(-5*time.Second), now), "\n")
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%q is not in\n%s", want, got)
			}
		}
	}
}

func TestStatusSaysWhatKeepsAHostOut(t *testing.T) {
	v := statusView{clustered: true, self: cluster.Node{ID: "a", Name: "a"}, members: hostsOf("A B- C-"), now: time.Now(),
		standing: cluster.Standing{Missing: []cluster.NodeID{"b"}}, name: func(id string) string { return id },
		refused: "this host is not a member of this cluster, or no longer: run `minictl cluster leave --force` here and join it again", stopped: errors.New("apply entry 7: upgrade minictl on this host")}
	got := strings.Join(v.summarize(), "\n")
	for _, want := range []string{"The others do not let this host take part: this host is not a member of this cluster, or no longer: run `minictl cluster leave --force` here and join it again.", "follows the others' decisions no further: apply entry 7"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	for _, not := range []string{"Nobody decides", "recover", "No other host", "cluster find", "Not back", "Down:"} {
		if strings.Contains(got, not) {
			t.Errorf("%q in:\n%s", not, got)
		}
	}
}

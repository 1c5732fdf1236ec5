package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/cmd/internal/api"
)

// ClusterStatus says how the cluster stands, in figures and in words.
func (e *Engine) ClusterStatus(ctx context.Context) (api.ClusterStatus, error) {
	v := statusView{
		clustered: e.cl.Clustered(), self: e.cl.Self(), members: e.cl.Members(), standing: e.cl.Standing(), lags: e.cl.Lags(ctx),
		name: e.nodeName, now: time.Now(), refused: e.cl.Refused(), stopped: e.cl.Stopped(),
	}
	s := api.ClusterStatus{ClusterID: e.cl.ID(), Epoch: e.cl.Epoch(), State: "single", Self: string(v.self.ID), Nodes: []api.ClusterNodeStatus{}}
	if v.clustered {
		s.State, s.LastContact = "cluster", v.standing.Heard
	}
	if id, ok := e.cl.Leader(); ok {
		s.Leader = string(id)
	}
	if v.clustered && !v.standing.Decides {
		v.reserves = e.reserveLeft(ctx)
	}
	for _, m := range v.members {
		s.Nodes = append(s.Nodes, nodeStatus(m, v.lags))
	}
	s.Summary = v.summarize()
	e.showStore(&s)
	s.Summary = append(s.Summary, e.clashWords()...)
	if words := e.drift.words(); words != "" {
		s.Summary = append(s.Summary, strings.ToUpper(words[:1])+words[1:]+".")
	}
	return s, nil
}

func nodeStatus(m cluster.Member, lags map[cluster.NodeID]uint64) api.ClusterNodeStatus {
	n := api.ClusterNodeStatus{
		ID: string(m.ID), Name: m.Name, Role: "learner", Status: "Down", Leader: m.Leader, Endpoints: m.Endpoints, Version: m.Version,
	}
	if m.Addr.IsValid() {
		n.Addr = m.Addr.String()
	}
	if m.DataPath.IsValid() {
		n.DataPathAddr = m.DataPath.String()
	}
	if m.Voter {
		n.Role = "voter"
	}
	if m.Witness {
		n.Role = "witness"
		if !m.Voter {
			n.Role = "witness, no vote"
		}
	}
	if m.Alive {
		n.Status = "Ready"
	}
	if behind, known := lags[m.ID]; known {
		n.Behind = &behind
	}
	return n
}

// statusView is all that the words of a cluster's status are made of.
type statusView struct {
	clustered bool
	self      cluster.Node
	members   []cluster.Member
	standing  cluster.Standing
	lags      map[cluster.NodeID]uint64
	reserves  string // what this host may still give, by network; told while nobody decides
	name      func(node string) string
	now       time.Time
	stopped   error  // why this host's replica follows no further
	refused   string // what another member said to this host, if none lets it take part
}

// summarize says who decides, what happens when this host or another dies, who lags, and what to type.
func (v *statusView) summarize() []string {
	if !v.clustered {
		return []string{aloneWords(v.self)}
	}
	if v.refused != "" { // what this host knows of the others says nothing about it any more
		return append([]string{upper(refusedWords(v.refused)) + ". Containers here go on."}, v.stoppedWords()...)
	}
	voters := slices.DeleteFunc(slices.Clone(v.members), func(m cluster.Member) bool { return !m.Voter })
	out := []string{v.whoDecides(voters)}
	switch {
	case !v.standing.Decides:
		out = append(out, v.undecidedWords()...)
	case v.hosts() > 1:
		out = append(out, v.ifOneDies(voters)...)
	}
	out = append(out, v.lagWords()...)
	down := slices.DeleteFunc(slices.Clone(v.members), func(m cluster.Member) bool { return m.Alive || m.Witness })
	out = append(out, downWords(down, v.standing.Shown)...)
	for _, m := range v.members {
		if m.Witness && !m.Alive {
			out = append(out, fmt.Sprintf("The witness %s is down.", m.Name))
		}
	}
	if v.hosts() == 2 && len(v.members) == 2 && len(voters) == 1 && v.standing.Decides {
		out = append(out, "minictl witness, on any third machine, lets either host die and the other go on deciding.")
	}
	if away := v.standing.Missing; len(away) > 0 {
		var who []string
		for _, id := range away {
			who = append(who, v.name(string(id)))
		}
		slices.Sort(who)
		out = append(out, fmt.Sprintf("Not back yet: %s. Until %s, or minictl node rm removes %s, %s, and new ones are given from the middle of each network.",
			strings.Join(who, ", "), plural(who, "it is", "they are"), plural(who, "it", "them"),
			plural(who, "its addresses stay its own", "their addresses stay theirs")))
	}
	others := slices.DeleteFunc(slices.Clone(v.members), func(m cluster.Member) bool { return m.ID == v.self.ID })
	heard := slices.ContainsFunc(others, func(m cluster.Member) bool { return m.Alive }) || len(v.standing.Estranged) > 0
	if len(others) > 0 && !heard {
		out = append(out, "No other host can be heard. Should all have got other addresses at once, tell this one where another is: minictl cluster find NODE ADDRESS.")
	}
	out = append(out, v.stoppedWords()...)
	return append(out, estrangedWords(v.standing.Estranged, v.name)...)
}

func (v *statusView) stoppedWords() []string {
	if v.stopped == nil {
		return nil
	}
	return []string{fmt.Sprintf("This host follows the others' decisions no further: %v. Its containers go on.", v.stopped)}
}

// aloneWords are a host's that is in no cluster with others.
func aloneWords(self cluster.Node) string {
	if self.Witness {
		return fmt.Sprintf("%s is a witness of no cluster: minictl cluster token, on a host of one, prints what to type here.", self.Name)
	}
	return fmt.Sprintf("%s is a cluster of its own: overlay networks work, no other host can join yet. minictl cluster init opens it.", self.Name)
}

// downWords tell what has become of the names of those that are not heard. Where the daemon alone is away they stay for a
// while; a host that has just fallen silent looks the same for a moment.
func downWords(down []cluster.Member, shown []cluster.NodeID) []string {
	there := func(m cluster.Member) bool { return slices.Contains(shown, m.ID) }
	hidden := slices.DeleteFunc(slices.Clone(down), there)
	stay := slices.DeleteFunc(slices.Clone(down), func(m cluster.Member) bool { return !there(m) })
	var out []string
	if len(hidden) > 0 {
		out = append(out, fmt.Sprintf("Down: %s. %s containers' names are hidden until %s.", strings.Join(memberNames(hidden), ", "),
			plural(hidden, "Its", "Their"), plural(hidden, "it returns", "they return")))
	}
	if len(stay) > 0 {
		out = append(out, fmt.Sprintf("Down: %s. %s containers' names stay for up to a minute, and are hidden then until %s.", strings.Join(memberNames(stay), ", "),
			plural(stay, "Its", "Their"), plural(stay, "it returns", "they return")))
	}
	return out
}

func (v *statusView) whoDecides(voters []cluster.Member) string {
	switch who := strings.Join(memberNames(voters), ", "); {
	case len(v.members) == 1 && !v.self.Witness:
		return fmt.Sprintf("One host, %s. minictl cluster token prints what the next one has to type.", v.self.Name)
	case len(voters) == 1:
		return fmt.Sprintf("%s; %s decides on networks and addresses.", v.howMany(), who)
	case len(voters) == 0:
		return fmt.Sprintf("%s; who decides is not known here yet.", v.howMany())
	default:
		return fmt.Sprintf("%s; %s decide together on networks and addresses: %d of them must be up.", v.howMany(), who, len(voters)/2+1)
	}
}

// hosts are those that run containers.
func (v *statusView) hosts() (n int) {
	for _, m := range v.members {
		if !m.Witness {
			n++
		}
	}
	return n
}

// howMany counts those that run containers, and names those that only vote.
func (v *statusView) howMany() string {
	var witnesses []cluster.Member
	for _, m := range v.members {
		if m.Witness {
			witnesses = append(witnesses, m)
		}
	}
	hosts := v.hosts()
	s := fmt.Sprintf("%d hosts", hosts)
	if hosts == 1 {
		s = "1 host"
	}
	if len(witnesses) > 0 {
		s += fmt.Sprintf(" and the %s %s", plural(witnesses, "witness", "witnesses"), strings.Join(memberNames(witnesses), ", "))
	}
	return s
}

// afterDeath is what works while nobody decides.
const afterDeath = "containers go on and reach each other, and each host starts new ones with the addresses it has in reserve; " +
	"networks cannot be made or removed until %s back or " + recoverHint + " is run"

func (v *statusView) ifOneDies(voters []cluster.Member) []string {
	up := 0
	mine := false
	for _, m := range voters {
		if m.Alive {
			up++
		}
		mine = mine || m.ID == v.self.ID
	}
	majority := len(voters)/2 + 1
	switch {
	case len(voters) == 0:
		return nil
	case len(voters) == 1 && mine:
		return []string{"If this host dies, " + fmt.Sprintf(afterDeath, "it is") + " on another."}
	case len(voters) == 1:
		return []string{fmt.Sprintf("If %s dies, %s here. If this host dies, the others go on as they are.", voters[0].Name, fmt.Sprintf(afterDeath, "it is"))}
	}
	var out []string
	switch spare := len(voters) - majority; spare {
	case 0: // two, until a third one votes
		out = append(out, fmt.Sprintf("If either of them dies, %s.", fmt.Sprintf(afterDeath, "it is")))
	case 1:
		out = append(out, fmt.Sprintf("Any one of them may die; with more gone, %s.", fmt.Sprintf(afterDeath, "they are")))
	default:
		out = append(out, fmt.Sprintf("Any %d of them may die; with more gone, %s.", spare, fmt.Sprintf(afterDeath, "they are")))
	}
	switch {
	case up < majority: // a daemon that has just started
		out = append(out, fmt.Sprintf("Of these, %s heard here until now.", heardNames(voters)))
	case len(voters) == majority: // all that there is to say has been said
	case up == majority:
		out = append(out, fmt.Sprintf("Only %d of them are up: none of these may die now.", up))
	case mine:
		out = append(out, "If this host dies now, the others choose a leader within seconds.")
	default:
		out = append(out, "If this host dies now, the others go on as they are.")
	}
	return out
}

// heardNames are those of a list that are up: "only a is", "only a, b are", "none is".
func heardNames(list []cluster.Member) string {
	up := slices.DeleteFunc(slices.Clone(list), func(m cluster.Member) bool { return !m.Alive })
	if len(up) == 0 {
		return "none is"
	}
	return fmt.Sprintf("only %s %s", strings.Join(memberNames(up), ", "), plural(up, "is", "are"))
}

// undecidedWords say what is the matter, what works all the same, and what to do.
func (v *statusView) undecidedWords() []string {
	s := findStall(v.members, v.self.ID, v.standing, v.now, v.name)
	if s.soon || v.reserves == "" || v.self.Witness {
		return s.says
	}
	return slices.Insert(s.says, 1, fmt.Sprintf("Containers go on, and new ones can be started here with the addresses in reserve: %s. Networks cannot be made or removed.", v.reserves))
}

// lagWords say who is behind; that nobody is, only when all are heard and somebody knows what was decided.
func (v *statusView) lagWords() []string {
	var out []string
	known := v.standing.Decides && len(v.members) > 1
	for _, m := range v.members {
		behind, told := v.lags[m.ID]
		known = known && m.Alive && told
		switch {
		case behind == 1:
			out = append(out, fmt.Sprintf("%s is 1 entry behind.", m.Name))
		case behind > 1:
			out = append(out, fmt.Sprintf("%s is %d entries behind.", m.Name, behind))
		}
	}
	if len(out) == 0 && known {
		out = append(out, "All hosts have all that was decided.")
	}
	return out
}

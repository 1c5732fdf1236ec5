package engine

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/cluster/transport"
)

// recoverHint is what to type when those who decide are gone for good.
const recoverHint = "minictl cluster recover"

// How long a silent leader is given to answer, by those who have another way, and by those who have none. It may only be
// busy; one that is dead is given up sooner than patience ends.
const (
	impatient = 300 * time.Millisecond
	patient   = 3 * time.Second
)

// electing is how long those who can agree on a leader are given for it. Whoever hears none after that is cut off from the
// one they have.
const electing = 10 * time.Second

// undecided tells a user who is missing, and what to do, when nobody could decide on what was wished.
func (e *Engine) undecided(what string, err error) error {
	if !errdefs.IsUnavailable(err) {
		return fmt.Errorf("%s: %w", what, err)
	}
	st := e.cl.Standing()
	if st.Decides {
		return fmt.Errorf("%s: %w", what, err)
	}
	if refused := e.cl.Refused(); refused != "" {
		return unavailable("%s: %s", what, refusedWords(refused))
	}
	s := findStall(e.cl.Members(), e.cl.Self().ID, st, time.Now(), e.nodeName)
	if s.why == "" {
		return fmt.Errorf("%s: %w", what, err)
	}
	return unavailable("%s: %s; %s", what, s.why, s.hint)
}

// refusedWords are why the others do not let this host take part; see cluster.Refused.
func refusedWords(sentence string) string {
	return "the others do not let this host take part: " + sentence
}

// stall is why nobody decides for this host. All is empty where nothing is known of it.
type stall struct {
	why  string   // as part of a sentence
	hint string   // what to do, as part of a sentence
	says []string // both, in sentences
	soon bool     // it may be over in a moment
}

// findStall tells hosts that are gone, those without which nobody decides, from an election, which is over in seconds, and
// from this host's being cut off from whoever leads the others. As long as a majority of those that vote is up nobody needs to
// be given up.
func findStall(members []cluster.Member, self cluster.NodeID, st cluster.Standing, now time.Time, name func(string) string) stall {
	voters := slices.DeleteFunc(slices.Clone(members), func(m cluster.Member) bool { return !m.Voter })
	others := slices.DeleteFunc(slices.Clone(voters), func(m cluster.Member) bool { return m.ID == self })
	down := slices.DeleteFunc(slices.Clone(others), func(m cluster.Member) bool { return m.Alive })
	up := slices.DeleteFunc(slices.Clone(others), func(m cluster.Member) bool { return !m.Alive })
	i := slices.IndexFunc(st.Estranged, func(x cluster.Estranged) bool { return x.How == transport.Ahead })
	switch {
	case i >= 0: // the words about who is estranged say it in sentences
		why := name(string(st.Estranged[i].ID)) + " has gone on without this host, which joins again by itself"
		return stall{why: why, hint: "try again in a few seconds", says: []string{"Nobody decides for this host yet."}, soon: true}
	case len(voters) == 0: // its replica is empty yet
		return stall{says: []string{"Nobody decides for this host yet."}, soon: true}
	case len(others) == 0:
		return stall{says: []string{"Nobody decides now."}, soon: true}
	case 2*len(down) >= len(voters):
		return goneStall(down, st.Since, now)
	case now.Sub(st.Since) <= electing:
		return electionStall(voters, others, st, now)
	}
	return linkStall(others, up, st, now)
}

// goneStall: too few of those that decide are up.
func goneStall(down []cluster.Member, since, now time.Time) stall {
	is := plural(down, "it is", "they are")
	why := silentWords(down, plural(down, "decides", "decide")+" for this cluster", since, now)
	return stall{
		why:  why,
		hint: fmt.Sprintf("bring %s back, or, if %s gone for good, run \"%s\" here", plural(down, "it", "them"), is, recoverHint),
		says: []string{
			"Nobody decides now: " + why + ".",
			fmt.Sprintf("When %s back, all goes on by itself. If %s gone for good: %s, here.", is, is, recoverHint),
		},
	}
}

// electionStall: enough are up, and will agree on somebody; or the only one that decides has been silent for a moment.
func electionStall(voters, others []cluster.Member, st cluster.Standing, now time.Time) stall {
	s := stall{why: leaderWords(others, st, now), hint: "those that are up choose another: try again in a few seconds", soon: true}
	then := "If it stays silent, those that are up choose another one within seconds."
	switch {
	case len(voters) == 1:
		s.why, s.hint = silentWords(others, "decides for this cluster", st.Since, now), "try again in a few seconds"
		then = "Whether it is down shows within seconds."
	case len(led(others, st)) == 0:
		s.hint = "those that are up choose who does: try again in a few seconds"
		then = "Those that are up choose who does within seconds."
	}
	s.says = []string{"Nobody decides at this moment: " + s.why + ".", then}
	return s
}

// linkStall: enough are up, and whoever leads them is not heard here; unless they are up since a moment ago.
func linkStall(others, up []cluster.Member, st cluster.Standing, now time.Time) stall {
	to := led(up, st)
	if len(to) == 0 {
		to = up
	}
	hint := fmt.Sprintf("%s %s up: if it stays so, look at the link between this host and %s", strings.Join(memberNames(up), ", "), plural(up, "is", "are"),
		strings.Join(memberNames(to), ", "))
	why := leaderWords(others, st, now)
	return stall{why: why, hint: hint, says: []string{fmt.Sprintf("Nobody decides for this host: %s, and %s.", why, hint)}}
}

// led is who led last, if that is one of a list.
func led(list []cluster.Member, st cluster.Standing) []cluster.Member {
	return slices.DeleteFunc(slices.Clone(list), func(m cluster.Member) bool { return m.ID != st.Led })
}

// leaderWords name who led, if that is known and another host.
func leaderWords(others []cluster.Member, st cluster.Standing, now time.Time) string {
	if l := led(others, st); len(l) > 0 {
		return silentWords(l, "led", st.Since, now)
	}
	return "nobody has been heard to lead for " + lengthOf(st.Since, now)
}

// silentWords name hosts that do something and say nothing: "host1 (192.168.66.11), which decides for this cluster, has not
// been heard for 12s".
func silentWords(missing []cluster.Member, does string, since, now time.Time) string {
	return fmt.Sprintf("%s, which %s, %s not been heard for %s", addressedNames(missing), does, plural(missing, "has", "have"), lengthOf(since, now))
}

// addressedNames are names with addresses, for who has to go and look.
func addressedNames(members []cluster.Member) string {
	var names []string
	for _, m := range members {
		names = append(names, fmt.Sprintf("%s (%s)", m.Name, m.Addr.Addr()))
	}
	return strings.Join(names, ", ")
}

func lengthOf(since, now time.Time) string {
	return max(now.Sub(since), time.Second).Round(time.Second).String()
}

func plural[T any](list []T, one, many string) string {
	if len(list) == 1 {
		return one
	}
	return many
}

package engine

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster"
)

// recoverHint is what to type when those who decide are gone for good.
const recoverHint = "minictl cluster recover"

// How long a silent leader is given to answer, by those who have another way, and by those who have none. It may only be
// busy; one that is dead is given up sooner than patience ends.
const (
	impatient = 300 * time.Millisecond
	patient   = 3 * time.Second
)

// undecided tells a user who is missing, and what to do, when nobody could decide on what was wished.
func (e *Engine) undecided(what string, err error) error {
	if !errdefs.IsUnavailable(err) {
		return fmt.Errorf("%s: %w", what, err)
	}
	st := e.cl.Standing()
	missing := missingVoters(e.cl.Members(), e.cl.Self().ID)
	if st.Decides || len(missing) == 0 {
		return fmt.Errorf("%s: %w", what, err)
	}
	return unavailable("%s: %s; bring %s back, or, if %s gone for good, run \"%s\" here", what, silentWords(missing, st.Heard, time.Now()),
		plural(missing, "it", "them"), plural(missing, "it is", "they are"), recoverHint)
}

// missingVoters are the hosts without which nobody decides: those that are known to be down, or else all others, of which
// nobody knows it yet.
func missingVoters(members []cluster.Member, self cluster.NodeID) []cluster.Member {
	others := slices.DeleteFunc(slices.Clone(members), func(m cluster.Member) bool { return !m.Voter || m.ID == self })
	down := slices.DeleteFunc(slices.Clone(others), func(m cluster.Member) bool { return m.Alive })
	if len(down) > 0 {
		return down
	}
	return others
}

// silentWords name hosts that decide and say nothing: "host1 (192.168.66.11), which decides for this cluster, has not been
// heard for 12s".
func silentWords(missing []cluster.Member, heard, now time.Time) string {
	var names []string
	for _, m := range missing {
		names = append(names, fmt.Sprintf("%s (%s)", m.Name, m.Addr.Addr()))
	}
	since := "since this daemon started"
	if !heard.IsZero() {
		since = "for " + max(now.Sub(heard), time.Second).Round(time.Second).String()
	}
	return fmt.Sprintf("%s, which %s for this cluster, %s not been heard %s", strings.Join(names, ", "),
		plural(missing, "decides", "decide"), plural(missing, "has", "have"), since)
}

func plural[T any](list []T, one, many string) string {
	if len(list) == 1 {
		return one
	}
	return many
}

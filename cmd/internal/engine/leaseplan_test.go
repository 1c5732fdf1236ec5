package engine

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/minictl/minictl/netdriver/ipam"
)

// TestPlanLeases: what is written, deleted, struck off and noted, by what is known.
func TestPlanLeases(t *testing.T) {
	type table map[string]lease
	web := lease{Node: "me", Endpoint: "e1", Container: "web"}
	kept := lease{Node: "me", Container: "web", Static: true}
	theirs := lease{Node: "other", Endpoint: "e9", Container: "db"}
	spare, theirSpare := lease{Node: "me"}, lease{Node: "other"}
	at := func(used lease, node string) lease { used.Node = node; return used }
	for _, c := range []struct {
		what               string
		held, uses, spares table
		size               int
		busy               string
		steps, clashes     string
	}{
		{"all is well", table{"2": web, "3": theirs, "14": spare, "13": theirSpare}, table{"2": web}, table{"14": {}}, 1, "", "", ""},
		{"a crash's left-over", table{"2": web}, nil, nil, 0, "", "delete 2", ""},
		{"a start under way", table{"2": web}, nil, nil, 0, "web", "", ""},
		{"kept for a container that stopped", table{"2": kept}, table{"2": kept}, nil, 0, "", "", ""},
		{"an endpoint that is gone of a kept address", table{"2": {Node: "me", Container: "web", Endpoint: "e0", Static: true}}, table{"2": kept}, nil, 0, "", "put 2 web", ""},
		{"used while nobody decided", table{"14": spare}, table{"14": web}, table{"14": web}, 1, "", "put 14 web settle; put 13 - note", ""},
		{"its key is written already", table{"14": web}, table{"14": web}, table{"14": web}, 0, "", "list 14 settle", ""},
		{"from a life before a takeover", nil, table{"2": web}, nil, 0, "", "put 2 web", ""},
		{"given to another since", table{"2": theirs}, table{"2": web}, nil, 0, "", "", "2 web db"},
		{"set aside for another since", table{"2": theirSpare}, table{"2": web}, nil, 0, "", "", "2 web "},
		{"an ordinary address given back while nobody decided", table{"2": web, "14": spare}, nil, table{"2": {}, "14": {}}, 1, "", "delete 2 strike", ""},
		{"that one fills up", table{"2": web}, nil, table{"2": {}}, 1, "", "put 2 - note", ""},
		{"a crash while it was used", table{"14": spare}, nil, table{"14": web}, 1, "", "put 14 - note", ""},
		{"set aside by who made the network", table{"14": spare, "13": spare}, nil, nil, 2, "", "put 13 - note; put 14 - note", ""},
		{"a new host", table{"14": theirSpare, "13": theirs}, nil, nil, 2, "", "put 12 - note; put 11 - note", ""},
		{"more hosts, smaller reserves", table{"14": spare, "13": spare}, nil, table{"14": {}, "13": {}}, 1, "", "delete 13 strike", ""},
		{"the cluster took it away", nil, nil, table{"14": {}}, 0, "", "list 14 strike", ""},
		{"the cluster gave it to another", table{"14": theirs}, nil, table{"14": {}}, 0, "", "list 14 strike", ""},
		{"this host has another name now", table{"2": at(web, "before")}, nil, nil, 0, "", "", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			f := leaseFacts{
				self: "me", pools: ipam.Pools(lan(t, "10.0.0.0/28")), size: func(ipam.Pool) int { return c.size },
				held: map[netip.Addr]lease{}, uses: map[netip.Addr]lease{}, spares: map[netip.Addr]lease{},
				busy: func(container string) bool { return c.busy != "" && container == c.busy },
			}
			for into, from := range map[*map[netip.Addr]lease]table{&f.held: c.held, &f.uses: c.uses, &f.spares: c.spares} {
				for last, l := range from {
					(*into)[netip.MustParseAddr("10.0.0."+last)] = l
				}
			}
			steps, clashes := planLeases(f)
			if got := describeSteps(steps); got != c.steps {
				t.Errorf("steps %q, want %q", got, c.steps)
			}
			var words []string
			for _, x := range clashes {
				words = append(words, fmt.Sprintf("%d %s %s", x.addr.As4()[3], x.mine.Container, x.other.Container))
			}
			if got := strings.Join(words, "; "); got != c.clashes {
				t.Errorf("clashes %q, want %q", got, c.clashes)
			}
		})
	}
}

func describeSteps(steps []leaseStep) string {
	var out []string
	for _, s := range steps {
		last := s.addr.As4()[3]
		words := []string{fmt.Sprintf("delete %d", last)}
		switch {
		case s.only:
			words = []string{fmt.Sprintf("list %d", last)}
		case s.put != nil && s.put.Container == "":
			words = []string{fmt.Sprintf("put %d -", last)}
		case s.put != nil:
			words = []string{fmt.Sprintf("put %d %s", last, s.put.Container)}
		}
		for word, is := range map[string]bool{"strike": s.strike, "note": s.note, "settle": s.settle} {
			if is {
				words = append(words, word)
			}
		}
		slices.Sort(words[1:])
		out = append(out, strings.Join(words, " "))
	}
	return strings.Join(out, "; ")
}

package cluster

import (
	"strings"
	"testing"

	"github.com/minictl/minictl/cluster/store"
)

// TestNewerFieldsSurvive: what a newer release has written into records that anybody may change outlives a change by this
// one, and does not keep this one from reading what it knows.
func TestNewerFieldsSurvive(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	id := b.Self().ID
	put(t, a, nodeSpecKey(id), `{"labels":{"rack":"1"},"taints":["x"]}`)
	put(t, a, keyTakeover, `{"epoch":"0.x","node":"gone","at":"2026-11-24T12:00:00Z","missing":["`+string(id)+`"],"witness":"w"}`)
	specs, err := NodeSpecs(t.Context(), a.Store())
	if err != nil || specs[id].Labels["rack"] != "1" {
		t.Fatalf("%v, %v", specs, err)
	}
	if err := PutNodeSpec(t.Context(), b.Store(), id, NodeSpec{Labels: map[string]string{"rack": "2"}, Rev: specs[id].Rev}); err != nil {
		t.Fatal(err)
	}
	theirs := a.snapshotState().fence()
	theirs.Epoch = "0.y"
	if err := a.absorb(t.Context(), id, theirs); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string][]string{
		nodeSpecKey(id): {`"rack":"2"`, `"taints":["x"]`},
		keyTakeover:     {`"witness":"w"`, `"missing":[]`},
	} {
		p, _, err := store.Get(t.Context(), a.Store(), key, true)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(string(p.Value), w) {
				t.Errorf("%s: no %s in %s", key, w, p.Value)
			}
		}
	}
	// A node record of a newer release is a member's all the same.
	p, _, err := store.Get(t.Context(), a.Store(), nodeKey(id), true)
	if err != nil {
		t.Fatal(err)
	}
	put(t, a, nodeKey(id), strings.Replace(string(p.Value), "{", `{"zone":"north",`, 1))
	converse(t, a, b)
}

package engine

import (
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store/memstore"
	"github.com/minictl/minictl/cmd/internal/api"
)

// Docker takes what a name or an ID is filtered by for a regular expression.
func TestNamesAreFilteredByPatterns(t *testing.T) {
	e := newHost(t, memstore.New(), "a")
	for _, name := range []string{"web1", "web2", "myweb"} {
		newBox(t, e, name).spec.Created = time.Unix(1, 0)
		e.networks["id-of-"+name] = &Network{ID: "id-of-" + name, Name: name, Scope: scopeLocal, Driver: "bridge"}
	}
	for pattern, want := range map[string][]string{
		"^web": {"web1", "web2"}, "^/web": {"web1", "web2"}, "web": {"myweb", "web1", "web2"}, "^/?web[2-9]$": {"web2"}, "2": {"web2"}, "(": nil, "^web$": nil,
	} {
		f := api.Filters{"name": {pattern: true}}
		list, err := e.ContainerList(t.Context(), api.ListOptions{All: true, Filters: f})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range list {
			got = append(got, c.Names[0][1:])
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("containers named %q: %q, want %q", pattern, got, want)
		}
		if pattern == "^/web" {
			continue // networks have no slash
		}
		nets, err := e.NetworkList(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		got = nil
		for _, n := range nets {
			got = append(got, n.Name)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("networks named %q: %q, want %q", pattern, got, want)
		}
	}
}

// What cannot be read is refused: taken for a filter that lets nothing through, or all, it would mislead.
func TestFiltersThatCannotBeRead(t *testing.T) {
	e := newHost(t, memstore.New(), "a")
	if _, err := e.NetworkPrune(t.Context(), api.Filters{"until": {"yesterday": true}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("prune until yesterday: %v", err)
	}
	if _, err := e.NetworkList(t.Context(), api.Filters{"dangling": {"perhaps": true}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("list perhaps dangling: %v", err)
	}
}

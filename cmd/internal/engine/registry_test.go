package engine

import (
	"testing"
	"time"

	mobycontainer "github.com/moby/moby/api/types/container"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/runtime/image"
)

func TestHistory(t *testing.T) {
	at := time.Unix(1700000000, 0)
	img := image.Image{ID: "sha256:aa", RepoTags: []string{"a:1"}, Config: ocispec.Image{History: []ocispec.History{
		{CreatedBy: "ADD x", Created: &at}, {CreatedBy: "ENV y", EmptyLayer: true}, {CreatedBy: "RUN z", Comment: "c"},
	}}}
	got := history(img, []image.Layer{{Size: 10}, {Size: 20}, {Size: 5}})
	type row struct {
		id, by string
		size   int64
	}
	want := []row{{"sha256:aa", "", 5}, {"<missing>", "RUN z", 20}, {"<missing>", "ENV y", 0}, {"<missing>", "ADD x", 10}}
	for i, w := range want {
		if g := got[i]; g.ID != w.id || g.CreatedBy != w.by || g.Size != w.size {
			t.Errorf("row %d: %+v, want %+v", i, g, w)
		}
	}
	if len(got) != len(want) || got[0].Tags[0] != "a:1" || got[3].Created != at.Unix() {
		t.Errorf("got %+v", got)
	}
	if h := history(image.Image{}, nil); h == nil || len(h) != 0 {
		t.Errorf("no history: %v", h)
	}
}

func TestPruneFilter(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name string
		f    api.Filters
		want bool
	}{
		{"none", nil, true},
		{"label", api.Filters{"label": {"a=1": true}}, true},
		{"other label", api.Filters{"label": {"a=2": true}}, false},
		{"not this label", api.Filters{"label!": {"a": true}}, false},
		{"not another label", api.Filters{"label!": {"b": true}}, true},
		{"not both of these labels", api.Filters{"label!": {"a": true, "b": true}}, true},
		{"older than a minute", api.Filters{"until": {"1m": true}}, true},
		{"older than a day", api.Filters{"until": {"24h": true}}, false},
		{"until a time", api.Filters{"until": {"1000000000": true}}, false},
	} {
		p, err := newPruneFilter(c.f)
		if err != nil || p.takes(map[string]string{"a": "1"}, now.Add(-time.Hour)) != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, f := range []api.Filters{{"nope": {"x": true}}, {"until": {"soon": true}}, {"until": {"1h": true, "2h": true}}, {"dangling": {"1": true}}} {
		if _, err := newPruneFilter(f); err == nil {
			t.Errorf("%v: taken", f)
		}
	}
}

func TestCommitConfig(t *testing.T) {
	own := &mobycontainer.Config{Env: []string{"A=1"}, Cmd: []string{"run"}, User: "u", Labels: map[string]string{"l": "1"}, Hostname: "h"}
	c, err := commitConfig(own, nil, []string{"ENV A=2", "LABEL m=1"})
	if err != nil || c.Env[0] != "A=2" || c.Cmd[0] != "run" || c.User != "u" || c.Labels["m"] != "1" || own.Env[0] != "A=1" || own.Labels["m"] != "" {
		t.Errorf("changes: %+v, %v; the container's own is now %+v", c, err, own)
	}
	c, err = commitConfig(own, &mobycontainer.Config{Cmd: []string{"other"}, WorkingDir: "/w"}, nil)
	if err != nil || c.Cmd[0] != "other" || c.WorkingDir != "/w" || c.User != "u" || c.Env[0] != "A=1" {
		t.Errorf("given: %+v, %v", c, err)
	}
	own.OnBuild, own.Shell = []string{"RUN onBuild"}, []string{"/bin/bash"}
	for _, given := range []*mobycontainer.Config{nil, {}} {
		if c, err := commitConfig(own, given, nil); err != nil || len(c.OnBuild) != 1 || len(c.Shell) != 1 {
			t.Errorf("onBuild and shell: %+v, %v", c, err)
		}
	}
	if _, err := commitConfig(own, nil, []string{"RUN x"}); err == nil {
		t.Error("RUN is no change")
	}
}

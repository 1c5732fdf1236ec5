package filters

import (
	"testing"

	"github.com/containerd/errdefs"
)

func TestWhatFits(t *testing.T) {
	of := func(values ...string) Set {
		m := map[string]bool{}
		for _, v := range values {
			m[v] = true
		}
		return Set{"key": m}
	}
	labels := map[string]string{"tier": "front", "empty": ""}
	for what, fits := range map[string][2]bool{
		"nothing asked":       {Set{}.Is("key", "a") && of().Is("key", "a") && of().Named("key") && of().Labels("key", nil), true},
		"one of two":          {of("a", "b").Is("key", "b"), true},
		"none of two":         {of("a", "b").Is("key", "ab"), false},
		"beginning":           {of("x", "ab").Begins("key", "cab", "abc"), true},
		"no beginning":        {of("b").Begins("key", "abc"), false},
		"part of a name":      {of("b").Named("key", "abc"), true},
		"expression":          {of("^b.$").Named("key", "abc", "bc"), true},
		"no expression":       {of("(").Named("key", "abc"), false},
		"part, no expression": {of("(").Named("key", "a(c"), true},
		"label":               {of("tier", "tier=front").Labels("key", labels), true},
		"one label of two":    {of("tier", "other").Labels("key", labels), false},
		"another value":       {of("tier=back").Labels("key", labels), false},
		"empty value":         {of("empty=").Labels("key", labels), true},
		"prune none of these": {Set{"label!": of("tier")["key"]}.Prunes(labels), false},
		"prune, not all":      {Set{"label!": of("tier", "other")["key"]}.Prunes(labels), true},
		"prune these":         {Set{"label": of("tier")["key"]}.Prunes(labels), true},
		"prune others":        {Set{"label": of("other")["key"]}.Prunes(labels), false},
	} {
		if fits[0] != fits[1] {
			t.Errorf("%s: %v", what, fits[0])
		}
	}
}

func TestBool(t *testing.T) {
	for v, want := range map[string]bool{"1": true, "true": true, "0": false, "false": false} {
		if got, err := (Set{"key": {v: true}}).Truth("key", !want); err != nil || got != want {
			t.Errorf("%s: %v, %v", v, got, err)
		}
	}
	if got, err := (Set{}).Truth("key", true); err != nil || !got {
		t.Errorf("not asked for: %v, %v", got, err)
	}
	for _, f := range []Set{{"key": {"yes": true}}, {"key": {"1": true, "0": true}}} {
		if _, err := f.Bool("key"); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", f, err)
		}
	}
	if err := (Set{"key": nil}).Only("a", "b"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an unknown key: %v", err)
	}
}

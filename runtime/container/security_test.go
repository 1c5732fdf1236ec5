package container

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestNewSecurity(t *testing.T) {
	for _, c := range []struct {
		opts string // with spaces between
		want Security
		bad  string
	}{
		{"", Security{}, ""},
		{"no-new-privileges", Security{NoNewPrivileges: true}, ""},
		{"no-new-privileges=true", Security{NoNewPrivileges: true}, ""},
		{"no-new-privileges:true", Security{NoNewPrivileges: true}, ""},
		{"no-new-privileges=false", Security{}, ""},
		{"no-new-privileges=yes", Security{}, "invalid --security-opt 2"},
		{"seccomp=unconfined apparmor:mine writable-cgroups=true label=disable", Security{Seccomp: Unconfined, AppArmor: "mine", WritableCgroups: true}, ""},
		{"seccomp=builtin", Security{}, ""},
		{`seccomp={"a":"b=c"}`, Security{Seccomp: `{"a":"b=c"}`}, ""},
		{"nonsense", Security{}, "invalid --security-opt 1"},
		{"nonsense=1", Security{}, "invalid --security-opt 2"},
	} {
		got, err := NewSecurity(strings.Fields(c.opts))
		if c.bad != "" {
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.bad) {
				t.Errorf("%s: %v, want %s", c.opts, err, c.bad)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v", c.opts, got, err)
		}
	}
}

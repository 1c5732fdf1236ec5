package container

import (
	"testing"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
)

func TestValues(t *testing.T) {
	for want, c := range map[string]struct {
		c mobycontainer.Config
		h mobycontainer.HostConfig
	}{
		"": {mobycontainer.Config{StopSignal: "SIGUSR1"}, mobycontainer.HostConfig{
			UTSMode: "host", Tmpfs: map[string]string{"/x": ""}, ExtraHosts: []string{"db:10.0.0.1", "db6:fd00::1", "db6:[fd00::1]", "me:host-gateway"},
		}},
		"invalid signal: NOPE": {c: mobycontainer.Config{StopSignal: "NOPE"}},
		"invalid UTS mode: x":  {h: mobycontainer.HostConfig{UTSMode: "x"}},
		"invalid mount path: 'rel' mount path must be absolute":        {h: mobycontainer.HostConfig{Tmpfs: map[string]string{"rel": ""}}},
		`bad format for add-host: "x"`:                                 {h: mobycontainer.HostConfig{ExtraHosts: []string{"x"}}},
		`bad format for add-host: ":10.0.0.1"`:                         {h: mobycontainer.HostConfig{ExtraHosts: []string{":10.0.0.1"}}},
		`bad format for add-host: "a\n10.0.0.2 bank.example:10.0.0.1"`: {h: mobycontainer.HostConfig{ExtraHosts: []string{"a\n10.0.0.2 bank.example:10.0.0.1"}}},
		`invalid IP address in add-host: "b\n"`:                        {h: mobycontainer.HostConfig{ExtraHosts: []string{"a:b\n"}}},
	} {
		err := validateValues(&c.c, &c.h)
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want+": invalid argument" || !errdefs.IsInvalidArgument(err)) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

package container

import (
	"maps"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
)

func TestNewLog(t *testing.T) {
	for _, c := range []struct {
		driver string
		opts   map[string]string
		want   Log
		bad    string
	}{
		{"json-file", nil, Log{}, ""},
		{"none", nil, Log{None: true}, ""},
		{"local", nil, Log{MaxSize: 20e6, MaxFiles: 5, Compress: true}, ""},
		{"local", map[string]string{"max-size": "1m", "max-file": "2"}, Log{MaxSize: 1e6, MaxFiles: 2, Compress: true}, ""},
		{"json-file", map[string]string{"max-size": "10k", "max-file": "3"}, Log{MaxSize: 1e4, MaxFiles: 3}, ""},
		{"json-file", map[string]string{"max-size": "10k", "max-file": "3", "compress": "true"}, Log{MaxSize: 1e4, MaxFiles: 3, Compress: true}, ""},
		{"local", map[string]string{"compress": "false", "max-file": "1"}, Log{MaxSize: 20e6, MaxFiles: 1}, ""},
		{"local", map[string]string{"max-file": "1"}, Log{}, "compression cannot be enabled when max file count is 1"},
		{"json-file", map[string]string{"compress": "true"}, Log{}, "compress cannot be true when max-file is less than 2 or max-size is not set"},
		{"json-file", map[string]string{"compress": "x"}, Log{}, "compress=x"},
		{"json-file", map[string]string{"max-size": "-1"}, Log{}, ""},
		{"json-file", map[string]string{"max-size": "much"}, Log{}, "max-size must be a positive number"},
		{"json-file", map[string]string{"max-file": "x"}, Log{}, "max-file cannot be less than 1"},
		{"json-file", map[string]string{"mode": "non-blocking"}, Log{Buffer: 1e6}, ""},
		{"local", map[string]string{"mode": "non-blocking", "max-buffer-size": "4m"}, Log{MaxSize: 20e6, MaxFiles: 5, Compress: true, Buffer: 4 << 20}, ""},
		{"json-file", map[string]string{"mode": "non-blocking", "max-buffer-size": "x"}, Log{}, "max-buffer-size: invalid size: 'x'"},
		{"json-file", map[string]string{"labels": "a,none", "env": "E"}, Log{Attrs: map[string]string{"a": "1", "E": "x=y"}}, ""},
		{"json-file", map[string]string{"labels-regex": "^a", "env-regex": "^F"}, Log{Attrs: map[string]string{"a": "1", "ab": "2", "F": ""}}, ""},
		{"json-file", map[string]string{"tag": "{{.Name}}/{{.ID}}/{{.ImageName}}/{{.ImageID}}/{{.Command}}"}, Log{Attrs: map[string]string{"tag": "web/" + strings.Repeat("c", 12) + "/busybox/0123456789ab/sh -c"}}, ""},
		{"json-file", map[string]string{"tag": "{{"}, Log{}, "invalid log opt tag"},
		{"json-file", map[string]string{"tag": `{{pad .Name 1 2}}`}, Log{Attrs: map[string]string{"tag": " web  "}}, ""},
		{"json-file", map[string]string{"tag": `{{pad .Name 1 999999999999}}`}, Log{}, "want 0 to 1024"},
		{"json-file", map[string]string{"tag": `{{printf "%2000d" 1}}`}, Log{}, "longer than 1024"},
		{"json-file", map[string]string{"env-regex": "("}, Log{}, "invalid log opt env-regex"},
	} {
		s := &Spec{
			ID: strings.Repeat("c", 64), Name: "web", Image: "busybox", ImageID: "sha256:0123456789abcdef",
			Config:     &mobycontainer.Config{Env: []string{"E=x=y", "F"}, Cmd: []string{"sh", "-c"}, Labels: map[string]string{"a": "1", "ab": "2", "b": "3"}},
			HostConfig: &mobycontainer.HostConfig{LogConfig: mobycontainer.LogConfig{Type: c.driver, Config: c.opts}},
		}
		got, err := NewLog(s)
		if c.bad != "" {
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.bad) {
				t.Errorf("%s %v: %v, want %s", c.driver, c.opts, err, c.bad)
			}
			continue
		}
		if err != nil || got.None != c.want.None || got.MaxSize != c.want.MaxSize || got.MaxFiles != c.want.MaxFiles || got.Buffer != c.want.Buffer || got.Compress != c.want.Compress || !maps.Equal(got.Attrs, c.want.Attrs) {
			t.Errorf("%s %v: %+v, %v", c.driver, c.opts, got, err)
		}
	}
}

func TestValidateLog(t *testing.T) {
	for _, c := range []struct {
		driver, opt string
		is          func(error) bool
	}{
		{"", "tag=x", nil}, {"json-file", "compress=false", nil}, {"local", "mode=blocking", nil}, {"none", "", nil},
		{"local", "tag=x", errdefs.IsInvalidArgument}, {"none", "max-size=1m", errdefs.IsInvalidArgument}, {"json-file", "nope=1", errdefs.IsInvalidArgument},
		{"json-file", "mode=x", errdefs.IsInvalidArgument}, {"json-file", "max-buffer-size=1m", errdefs.IsInvalidArgument}, {"local", "mode=non-blocking", nil}, {"syslog", "syslog-address=x", errdefs.IsNotImplemented},
	} {
		l := mobycontainer.LogConfig{Type: c.driver, Config: map[string]string{}}
		if k, v, ok := strings.Cut(c.opt, "="); ok {
			l.Config[k] = v
		}
		err := Validate(&mobycontainer.Config{}, &mobycontainer.HostConfig{LogConfig: l})
		if (c.is == nil) != (err == nil) || err != nil && !c.is(err) {
			t.Errorf("%s %s: %v", c.driver, c.opt, err)
		}
	}
}

func TestDefaultLog(t *testing.T) {
	for _, c := range []struct{ own, def, want mobycontainer.LogConfig }{
		{logConfig(""), logConfig(""), logConfig("json-file")},
		{logConfig(""), logConfig("local", "max-file", "2"), logConfig("local", "max-file", "2")},
		{logConfig("", "max-file", "9"), logConfig("local", "max-file", "2", "max-size", "1m"), logConfig("local", "max-file", "9", "max-size", "1m")},
		{logConfig("json-file"), logConfig("local", "max-file", "2"), logConfig("json-file")},
		{logConfig("none"), logConfig("json-file", "tag", "x"), logConfig("none")},
		{logConfig("json-file", "max-file", "3"), logConfig("", "tag", "x"), logConfig("json-file", "max-file", "3", "tag", "x")},
	} {
		got := c.own
		DefaultLog(&got, c.def)
		if got.Type != c.want.Type || got.Config == nil || !maps.Equal(got.Config, c.want.Config) {
			t.Errorf("%v with the default %v: %v, want %v", c.own, c.def, got, c.want)
		}
	}
}

// logConfig is a driver and pairs of options.
func logConfig(driver string, pairs ...string) mobycontainer.LogConfig {
	c := mobycontainer.LogConfig{Type: driver}
	for i := 0; i < len(pairs); i += 2 {
		if c.Config == nil {
			c.Config = map[string]string{}
		}
		c.Config[pairs[i]] = pairs[i+1]
	}
	return c
}

func FuzzLogOptions(f *testing.F) {
	f.Add("local", "10k", "3", "{{.Name}}", "^a")
	f.Fuzz(func(t *testing.T, driver, size, files, tag, pattern string) {
		s := &Spec{
			ID: strings.Repeat("c", 64), Config: &mobycontainer.Config{Cmd: []string{"sh"}, Env: []string{"A=1"}},
			HostConfig: &mobycontainer.HostConfig{LogConfig: mobycontainer.LogConfig{Type: driver, Config: map[string]string{
				"max-size": size, "max-file": files, "tag": tag, "env-regex": pattern,
			}}},
		}
		if validateLog(&s.HostConfig.LogConfig) != nil {
			return
		}
		if l, err := NewLog(s); err == nil && (l.MaxSize < 0 || l.MaxFiles < 0 || len(l.Attrs["tag"]) > maxTag) {
			t.Errorf("%q: %+v", s.HostConfig.LogConfig, l)
		}
	})
}

func FuzzSecurityOptions(f *testing.F) {
	f.Add("no-new-privileges=true")
	f.Fuzz(func(t *testing.T, o string) {
		s, err := NewSecurity([]string{o})
		if err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %+v, %v", o, s, err)
		}
	})
}

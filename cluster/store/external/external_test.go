package external

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestParse(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		address string
		options map[string]string
		want    string // the address again, or what the error says
	}{
		{"consul://192.168.1.20:8500", nil, "consul://192.168.1.20:8500/minictl"},
		{"etcd://h1,h2:4001/a/b/", nil, "etcd://h1:2379,h2:4001/a/b"},
		{"zk://[2001:db8::1],[::1]:99", nil, "zk://[2001:db8::1]:2181,[::1]:99/minictl"},
		{"etcd://me:s%40c@h", nil, "etcd://h:2379/minictl"},
		{"etcd://h", map[string]string{"kv.path": "/x"}, "etcd://h:2379/x"},
		{"etcd://h/x", map[string]string{"kv.path": "x"}, "etcd://h:2379/x"},
		{"etcd://h/x", map[string]string{"kv.path": "y"}, "leave one out"},
		{"redis://h", nil, "want etcd://"},
		{"192.168.1.20:8500", nil, "want etcd://"},
		{"etcd://", nil, `"" is not HOST:PORT`},
		{"etcd://h,", nil, `"" is not HOST:PORT`},
		{"etcd://h:http", nil, `"h:http" is not HOST:PORT`},
		{"etcd://h:0", nil, "is not HOST:PORT"},
		{"etcd://h//x", nil, "etcd://h:2379/x"},
		{"etcd://h/a//x", nil, "between slashes"},
		{"etcd://h/../x", nil, "between slashes"},
		{"etcd://:pw@h", nil, "USER:PASSWORD"},
		{"etcd://h", map[string]string{"discovery.ttl": "1m"}, "discovery.ttl is not supported"},
		{"etcd://h", map[string]string{"kv.certfile": "c"}, "go together"},
		{"etcd://h", map[string]string{"kv.cacertfile": filepath.Join(dir, "none")}, "no such file"},
		{"etcd://h", map[string]string{"kv.cacertfile": empty}, "no certificate in"},
		{"etcd://h", map[string]string{"kv.certfile": empty, "kv.keyfile": empty}, "kv.certfile, kv.keyfile"},
	} {
		s, err := Parse(c.address, c.options)
		got := s.String()
		if err != nil {
			got = err.Error()
		}
		if err == nil && got != c.want || err != nil && !strings.Contains(got, c.want) {
			t.Errorf("%s %v: %s, want %s", c.address, c.options, got, c.want)
		}
	}
}

// TestPasswordStays: nobody who reads the log or the process list of another host sees it.
func TestPasswordStays(t *testing.T) {
	s, err := Parse("zk://me:s%40c@h", nil)
	if err != nil || s.User != "me" || s.Password != "s@c" || strings.Contains(s.String(), "s@c") {
		t.Errorf("%q, %q, %s, %v", s.User, s.Password, s, err)
	}
	if _, err := Parse("redis://me:secret@h", nil); !errdefs.IsInvalidArgument(err) || strings.Contains(err.Error(), "secret") {
		t.Errorf("the error shows it: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"consul://192.168.1.20:8500", "etcd://u:p@h1,[::1]:1/a/b", "zk://%/.."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, address string) {
		s, err := Parse(address, nil)
		if err != nil {
			return
		}
		again, err := Parse(s.String(), nil)
		if err != nil || again.String() != s.String() {
			t.Errorf("%q gives %s, which gives %s, %v", address, s, again, err)
		}
		if r, err := s.Dial(); err != nil {
			t.Errorf("%s: %v", s, err)
		} else {
			_ = r.Close()
		}
	})
}

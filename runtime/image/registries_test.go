package image

import (
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"
)

func TestInsecureRegistries(t *testing.T) {
	r := Registries{Insecure: []string{"reg.example:5000", "plain.example", "10.0.0.0/8", "fd00::/8"}}
	lookup := func(name string) []netip.Addr {
		if name == "inside.example" {
			return []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.1.2.3")}
		}
		return nil
	}
	for host, want := range map[string]bool{
		"reg.example:5000": true, "reg.example": false, "reg.example:5001": false, "plain.example": true, "plain.example:80": false,
		"10.9.8.7:5000": true, "11.9.8.7:5000": false, "[fd00::1]:5000": true, "[2001:db8::1]:5000": false, "inside.example:1": true, "outside.example:1": false,
	} {
		if got := r.IsInsecure(host, lookup); got != want {
			t.Errorf("%s: %v, want %v", host, got, want)
		}
	}
	asked := func(string) []netip.Addr { t.Error("looked a name up for nothing"); return nil }
	if (Registries{Insecure: []string{"a.example"}}).IsInsecure("b.example", asked) {
		t.Error("another name")
	}
}

func TestCheckRegistries(t *testing.T) {
	good := Registries{Insecure: []string{"h", "h:5000", "10.0.0.0/8", "[fd00::1]:5000"}, Mirrors: []string{"https://m.example", "http://m.example:5000/path/"}}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for _, bad := range []Registries{
		{Insecure: []string{"http://h"}}, {Insecure: []string{""}}, {Insecure: []string{"h/x"}}, {Insecure: []string{"-h"}},
		{Mirrors: []string{"m.example"}}, {Mirrors: []string{"ftp://m.example"}}, {Mirrors: []string{"https://"}}, {Mirrors: []string{"https://m.example?x=1"}},
		{Mirrors: []string{"https://u:p@m.example"}}, {Mirrors: []string{"https://m.example#x"}},
	} {
		if err := bad.Check(); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

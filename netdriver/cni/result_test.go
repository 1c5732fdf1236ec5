package cni

import (
	"encoding/json"
	"testing"

	"github.com/minictl/minictl/netdriver"
)

// TestDecode reads results of every version of the specification.
func TestDecode(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing", `{"cniVersion": "1.0.0"}`, `invalid Prefix invalid Prefix "" ""`},
		{"0.2.0", `{"cniVersion": "0.2.0", "ip4": {"ip": "10.1.0.2/24", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]}}`, `10.1.0.2/24 invalid Prefix "10.1.0.1" ""`},
		{
			"the host's interfaces are not meant", `{"cniVersion": "1.0.0", "interfaces": [{"name": "cni0"}, {"name": "eth1", "sandbox": "/ns"}, {"name": "eth0", "sandbox": "/ns"}],
			  "ips": [{"interface": 0, "address": "10.1.0.1/24"}, {"interface": 1, "address": "10.2.0.2/24"}, {"interface": 2, "address": "10.1.0.2/24"}]}`,
			`10.1.0.2/24 invalid Prefix "" ""`,
		},
		{"the first of several", `{"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.2/24"}, {"address": "10.1.0.3/24"}]}`, `10.1.0.2/24 invalid Prefix "" ""`},
		{
			"both families", `{"cniVersion": "0.4.0", "ips": [{"version": "6", "address": "fd00::2/64", "gateway": "fd00::1"}, {"version": "4", "address": "10.1.0.2/24", "gateway": "10.1.0.1"}],
			  "routes": [{"dst": "::/0"}, {"dst": "10.0.0.0/8", "gw": "10.1.0.9"}, {"dst": "0.0.0.0/0", "gw": "10.1.0.254"}]}`,
			`10.1.0.2/24 fd00::2/64 "10.1.0.254" "fd00::1"`,
		},
		{"a gateway is no route", `{"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}]}`, `10.1.0.2/24 invalid Prefix "" ""`},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := decode([]byte(c.text), "eth0")
			if err != nil {
				t.Fatal(err)
			}
			if got := words(t, d); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func words(t *testing.T, d netdriver.Decided) string {
	t.Helper()
	gateways := ""
	for _, a := range []any{d.Gateway, d.Gateway6} {
		b, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		gateways += " " + string(b)
	}
	return d.Address.String() + " " + d.Address6.String() + gateways
}

// FuzzDecode reads what a plugin may say: nothing of it ends the daemon, and what is taken for an address is one.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"cniVersion": "1.0.0", "interfaces": [null], "ips": [null, {"interface": 0, "address": "10.1.0.2/24"}], "routes": [null]}`))
	f.Add([]byte(`{"cniVersion": "0.2.0", "ip6": {"ip": "fd00::2/64"}}`))
	f.Add([]byte(`{"ips": [{"interface": -1, "address": "::ffff:10.0.0.1/120"}], "dns": {"nameservers": ["x"]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := decode(text, "eth0")
		if err != nil {
			return
		}
		if d.Address.IsValid() && !d.Address.Addr().Is4() || d.Address6.IsValid() && !d.Address6.Addr().Is6() {
			t.Errorf("%q gives %+v", text, d)
		}
	})
}

// FuzzParse reads configurations, and what has been read once again: an accepted one stays what it is.
func FuzzParse(f *testing.F) {
	f.Add([]byte(flannelShape))
	f.Add([]byte(macvlanConf))
	f.Add([]byte(`{"name": "x", "type": "ptp", "capabilities": {"ips": true}}`))
	f.Add([]byte(`{"name": "x", "plugins": [{"type": "a"}, null]}`))
	f.Add([]byte(`{"name": "x", "cniVersions": ["0.1.0", "1.1.0", "9.0.0"], "plugins": []}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := parseList(text)
		if err != nil {
			return
		}
		again, err := parseList(text)
		if err != nil || list.Name == "" || again.Name != list.Name || len(again.Plugins) != len(list.Plugins) {
			t.Errorf("%q: %+v, then %+v, %v", text, list, again, err)
		}
		whole, err := inline(text, list, nil)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if len(list.Plugins) > 0 && !list.LoadOnlyInlinedPlugins {
			if once, err := parseList(whole); err != nil || len(once.Plugins) != len(list.Plugins) || once.CNIVersion != list.CNIVersion {
				t.Errorf("%q inlined is %q: %v", text, whole, err)
			}
		}
	})
}

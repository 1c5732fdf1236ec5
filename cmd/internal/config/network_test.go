package config

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestDefaultBridge makes the wish for the default bridge out of dockerd's flags, by file and by flag alike.
func TestDefaultBridge(t *testing.T) {
	for _, c := range []struct{ file, args, want string }{
		{`{}`, "", `{}`},
		{`{"ipv6": true, "ip6tables": true}`, "--ipv6 --ip6tables", `{"EnableIPv6":true}`},
		{`{"ipv6": true, "fixed-cidr-v6": "fd00:d::/64"}`, "--ipv6 --fixed-cidr-v6 fd00:d::/64", `{"EnableIPv6":true,"IPAM":{"Config":[{"Subnet":"fd00:d::/64"}]}}`},
		{`{"bip": "10.9.0.5/24", "fixed-cidr": "10.9.0.128/25", "ipv6": true, "bip6": "fd00:d::1/64", "mtu": 1400, "icc": false, "ip-masq": false, "ip": "127.0.0.1"}`,
			"--bip 10.9.0.5/24 --fixed-cidr 10.9.0.128/25 --ipv6 --bip6 fd00:d::1/64 --mtu 1400 --icc=false --ip-masq=false --ip 127.0.0.1",
			`{"EnableIPv6":true,"IPAM":{"Config":[{"Gateway":"10.9.0.5","IPRange":"10.9.0.128/25","Subnet":"10.9.0.0/24"},{"Gateway":"fd00:d::1","Subnet":"fd00:d::/64"}]},` +
				`"Options":{"com.docker.network.bridge.enable_icc":"false","com.docker.network.bridge.enable_ip_masquerade":"false","com.docker.network.bridge.host_binding_ipv4":"127.0.0.1","com.docker.network.driver.mtu":"1400"}}`},
		{`{"fixed-cidr": "10.9.0.0/24"}`, "--fixed-cidr 10.9.0.0/24", `{"IPAM":{"Config":[{"Subnet":"10.9.0.0/24"}]}}`},
	} {
		for file, args := range map[string]string{c.file: "", "{}": c.args} {
			got, err := load(t, file, strings.Fields(args)...)
			if err != nil {
				t.Errorf("%s %s: %v", file, args, err)
				continue
			}
			if text := said1(t, got.Networks.Bridge); text != c.want {
				t.Errorf("%s %s:\n%s, want\n%s", file, args, text, c.want)
			}
		}
	}
	for file, args := range map[string]string{
		`{"dns": ["192.0.2.1", "2001:db8::1"], "dns-search": ["example"], "dns-opts": ["timeout:3"], "userland-proxy": false, "default-network-opts": {"bridge": {"k": "v=w"}}}`: "",
		"{}": "--dns 192.0.2.1 --dns 2001:db8::1 --dns-search example --dns-opt timeout:3 --userland-proxy=false --default-network-opt bridge=k=v=w",
	} {
		c, err := load(t, file, strings.Fields(args)...)
		n := c.Networks
		if err != nil || len(n.Servers) != 2 || n.DNSSearch[0] != "example" || n.DNSOptions[0] != "timeout:3" || n.Proxy || n.Options["bridge"]["k"] != "v=w" {
			t.Errorf("%+v, %v", n, err)
		}
	}
}

// said1 is a request without what it leaves open.
func said1(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var fields any
	if err := json.Unmarshal(b, &fields); err != nil {
		t.Fatal(err)
	}
	b, err = json.Marshal(prune(fields))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func prune(v any) any {
	m, ok := v.(map[string]any)
	if !ok {
		if l, ok := v.([]any); ok {
			for i := range l {
				l[i] = prune(l[i])
			}
		}
		return v
	}
	for k, x := range m {
		if x = prune(x); x == nil || x == "" || x == false {
			delete(m, k)
		} else if inner, ok := x.(map[string]any); ok && len(inner) == 0 {
			delete(m, k)
		}
	}
	return m
}

package config

import (
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// load reads a command line and, unless it is empty, a file's text.
func load(t *testing.T, file string, args ...string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "daemon.json")
	if file != "" {
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append([]string{"--config-file", path}, args...)
	}
	c := Config{Version: "1"}
	fs := pflag.NewFlagSet("daemon", pflag.ContinueOnError)
	c.Flags(fs)
	fs.Bool("cleanup", false, "")
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	if file == "" {
		c.File = path // not there, and not asked for
	}
	return c, c.Load(fs)
}

func TestFileAndFlags(t *testing.T) {
	c, err := load(t, `{"hosts": ["unix:///a.sock", "unix:///b.sock"], "debug": true, "node-name": "n1", "exec-root": "/e"}`,
		"--data-root", "/d")
	if err != nil || !c.Debug || c.NodeName != "n1" || c.DataRoot != "/d" || c.ExecRoot != "/e" ||
		strings.Join(c.Hosts, " ") != "unix:///a.sock unix:///b.sock" {
		t.Errorf("%+v, %v", c, err)
	}
	for _, empty := range []string{"{}", " ", ""} {
		if c, err := load(t, empty); err != nil || strings.Join(c.Hosts, " ") != "unix:///run/minictl/minictl.sock" || c.NodeName == "" {
			t.Errorf("%q: %+v, %v", empty, c, err)
		}
	}
	for _, c := range []struct{ file, args string }{
		{`{"log-driver": "local", "log-opts": {"max-size": "1m", "max-file": "3"}}`, ""},
		{"{}", "--log-driver local --log-opt max-size=1m --log-opt max-file=3"},
	} {
		c, err := load(t, c.file, strings.Fields(c.args)...)
		if err != nil || c.Log.Type != "local" || !maps.Equal(c.Log.Config, map[string]string{"max-size": "1m", "max-file": "3"}) {
			t.Errorf("logs: %+v, %v", c.Log, err)
		}
	}
	for _, c := range []struct{ file, args string }{
		{`{"default-address-pools": [{"base": "10.10.0.9/16", "size": 24}, {"base": "fd00:9::/48", "size": 64}]}`, ""},
		{"{}", "--default-address-pool base=10.10.0.0/16,size=24 --default-address-pool base=fd00:9::/48,size=64"},
	} {
		c, err := load(t, c.file, strings.Fields(c.args)...)
		if got := (pools{&c.AddressPools}).String(); err != nil || got != "base=10.10.0.0/16,size=24 base=fd00:9::/48,size=64" {
			t.Errorf("pools: %s, %v", got, err)
		}
	}
	for bad, want := range map[string]string{
		`[{"base": "10.10.0.0/16", "size": 15}]`: "must be from 16 to 29", `[{"base": "10.10.0.0", "size": 24}]`: "want base=10.10.0.0/16,size=24",
		`[{"base": "10.10.0.0/16", "size": 24}, {"base": "10.10.9.0/24", "size": 25}]`: "overlap", `"10.10.0.0/16"`: "want a list of objects",
		`[{"base": "fd00::/8", "size": 126}]`: "must be from 8 to 125",
	} {
		if _, err := load(t, `{"default-address-pools": `+bad+`}`); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", bad, err, want)
		}
	}
	t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	if c, err := load(t, "{}"); err != nil || strings.Join(c.Hosts, " ") != "fd://" {
		t.Errorf("started by a socket unit: %v, %v", c.Hosts, err)
	}
	c, fs := Config{}, pflag.NewFlagSet("daemon", pflag.ContinueOnError)
	c.Flags(fs)
	if err := fs.Parse([]string{"--config-file", "/nonexistent/x.json"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Load(fs); err == nil || !strings.Contains(err.Error(), "/nonexistent/x.json") {
		t.Errorf("a file that was asked for is not there: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct{ name, file, args, want string }{
		{"both", `{"debug": false}`, "--debug", "specified both as a flag and in the configuration file: debug: (from flag: true, from file: false)"},
		{"both, hosts", `{"hosts": ["unix:///a"]}`, "-H unix:///b", "specified both as a flag and in the configuration file: hosts: "},
		{"unknown", `{"bop": "10.0.0.1/24", "data-rot": "/x"}`, "", "don't match any configuration option: bop, data-rot"},
		{"singular", `{"host": ["unix:///a"]}`, "", "don't match any configuration option: host"},
		{"a command", `{"cleanup": true}`, "", "don't match any configuration option: cleanup"},
		{"another file", `{"config-file": "/x"}`, "", "don't match any configuration option: config-file"},
		{"kind", `{"debug": "true"}`, "", `debug: want true or false, not "true"`},
		{"null", `{"node-name": null}`, "", "node-name: want a string, not null"},
		{"list", `{"hosts": "unix:///a"}`, "", `hosts: want a list of strings, not "unix:///a"`},
		{"syntax", `{"debug": true`, "", "invalid JSON"},
		{"trailing", `{} {}`, "", "there is more after the object's end"},
		{"no object", `[]`, "", "invalid JSON"},
		{"value", `{"log-format": "xml"}`, "", `--log-format "xml": want text or json`},
		{"label", `{"labels": ["rack"]}`, "", `--label "rack": want KEY=VALUE`},
		{"log driver", `{"log-driver": "syslog"}`, "", `--log-driver and --log-opt: no log driver named "syslog": want json-file, local or none`},
		{"log option", `{"log-opts": {"nope": "1"}}`, "", "unknown log opt 'nope' for json-file log driver"},
		{"log size", "", "--log-opt max-size=much", "max-size must be a positive number"},
		{"log options of none", "", "--log-driver none --log-opt max-size=1m", "unknown log opt 'max-size' for none log driver"},
		{"both, log options", `{"log-opts": {"max-size": "1m"}}`, "--log-opt max-file=3", "specified both as a flag and in the configuration file: log-opts: "},
		{"no object of strings", `{"log-opts": {"max-file": 3}}`, "", `log-opts: want an object of strings, not {"max-file": 3}`},
		{"log options in the singular", `{"log-opt": {"max-file": "3"}}`, "", "don't match any configuration option: log-opt"},
		{"labels", "", "--label a=1 --label a=2", `--label: a is both "1" and "2"`},
		{"BuildKit", "", "--buildkit h1:1", `--buildkit "h1:1": want unix:///path or tcp://host:port`},
		{"BuildKit's TLS", "", "--buildkit unix:///b.sock --buildkit-tlscacert /dev/null", "go with --buildkit tcp://host:port"},
		{"BuildKit's authority", "", "--buildkit tcp://h1:1 --buildkit-tlscert /dev/null --buildkit-tlskey /dev/null", "go with --buildkit-tlscacert"},
		{"BuildKit's key", "", "--buildkit tcp://h1:1 --buildkit-tlscacert /dev/null --buildkit-tlscert /dev/null", "go together"},
		{"BuildKit's files", "", "--buildkit tcp://h1:1 --buildkit-tlscacert /nonexistent", "no such file"},
		{"bridge's address", `{"bip": "10.0.0.0/24"}`, "", `--bip "10.0.0.0/24": want the bridge's own address, such as 10.0.0.1/24, not a network's`},
		{"bridge's family", "", "--bip fd00::1/64", `--bip "fd00::1/64": want an IPv4 address and a prefix length`},
		{"range elsewhere", "", "--bip 10.0.0.1/24 --fixed-cidr 10.0.1.0/25", "--fixed-cidr 10.0.1.0/25 is not within --bip 10.0.0.1/24"},
		{"range too wide", "", "--bip 10.0.0.1/24 --fixed-cidr 10.0.0.0/23", "is not within --bip"},
		{"IPv6 not asked for", `{"fixed-cidr-v6": "fd00::/64"}`, "", "--bip6 and --fixed-cidr-v6 go with --ipv6"},
		{"no rules", `{"iptables": false}`, "", "--iptables=false: minictl's networks cannot be without"},
		{"no rules for IPv6", `{"ip6tables": false}`, "", "--ip6tables=false"},
		{"no forwarding", "", "--ip-forward=false", "--ip-forward=false"},
		{"host address", "", "--ip lan", `--ip "lan": want an IP address`},
		{"server", `{"dns": ["one.one"]}`, "", `--dns "one.one": want an IP address`},
		{"network options", `{"default-network-opts": {"bridge": {"mtu": 5}}}`, "", "want an object such as"},
		{"number", `{"mtu": "1400"}`, "", `mtu: want a number, not "1400"`},
		{"relative", `{"data-root": "x"}`, "", "is not an absolute path"},
		{"bridge", "", "--gateway-bridge a-name-that-is-too-long", "a network interface's name has"},
		{"scheme", "", "-H http://x", "want unix:///PATH, tcp://ADDRESS:PORT or fd://"},
		{"relative socket", "", "-H unix://x.sock", "want an absolute path"},
		{"no address", "", "-H tcp://", "want tcp://ADDRESS:PORT"},
		{"plain to all", "", "-H tcp://0.0.0.0:2375", "whoever reaches it is root on this host: add --tlsverify with"},
		{"plain to all, no address", "", "-H tcp://:2375", "whoever reaches it is root"},
		{"plain by name", "", "-H tcp://host1:2375", "whoever reaches it is root"},
		{"plain, 6", "", "-H tcp://[::]:2375", "whoever reaches it is root"},
		{"unverified", "", "-H tcp://0.0.0.0:2376 --tls", "add --tlsverify, or say --tlsverify=false"},
		{"unverified by file", `{"tls": true, "hosts": ["tcp://0.0.0.0"]}`, "", "add --tlsverify, or say"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := load(t, c.file, strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestHosts(t *testing.T) {
	for _, c := range []struct{ file, args, want string }{
		{"", "-H tcp://127.0.0.1", "tcp://127.0.0.1:2375"},
		{"", "-H tcp://127.9.9.9:1 -H tcp://[::1]:2 -H tcp://localhost:3", "tcp://127.9.9.9:1 tcp://[::1]:2 tcp://localhost:3"},
		{"", "-H tcp://10.0.0.1 --tlsverify", "tcp://10.0.0.1:2376"},
		{"", "-H tcp://[fd00::1] --tlsverify", "tcp://[fd00::1]:2376"},
		{"", "-H tcp://0.0.0.0:1 --tls=false", "tcp://0.0.0.0:1"},
		{`{"tls": false}`, "-H tcp://0.0.0.0:1", "tcp://0.0.0.0:1"},
		{"", "-H tcp://0.0.0.0 --tlsverify=false", "tcp://0.0.0.0:2376"},
		{`{"tlsverify": true, "hosts": ["tcp://:2376", "unix:///x"]}`, "", "tcp://:2376 unix:///x"},
		{"", "-H fd:// -H fd://api", "fd:// fd://api"},
	} {
		cfg, err := load(t, c.file, strings.Fields(c.args)...)
		if err != nil {
			t.Errorf("%s %s: %v", c.file, c.args, err)
			continue
		}
		hosts, err := cfg.Listeners()
		var got []string
		for _, h := range hosts {
			got = append(got, h.String())
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s %s: %v, %v", c.file, c.args, got, err)
		}
	}
}

// A file that asks for what cannot be had is refused, and never read as something else; nothing panics.
func FuzzFile(f *testing.F) {
	for _, s := range []string{`{"hosts":["unix:///a"],"debug":true}`, `{"tls":false}`, `{"a":{"b":[1]}}`, "[]", "null", `{"debug":1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var c Config
		fs := pflag.NewFlagSet("daemon", pflag.ContinueOnError)
		c.Flags(fs)
		if apply(text, fs) != nil {
			return
		}
		c.TLS.given(fs)
		if c.complete() != nil {
			return
		}
		hosts, err := c.Listeners()
		if err != nil || len(hosts) == 0 {
			t.Fatalf("accepted, but serves on %v, %v", hosts, err)
		}
		for _, h := range hosts {
			if h.Proto == "tcp" && c.TLS.Protects(h.Addr) != nil {
				t.Fatalf("accepted: %s", h)
			}
		}
	})
}

// Fixed knows every setting but those that can change: a new field must be put somewhere.
func TestFixedNamesWhatCannotChange(t *testing.T) {
	a, err := load(t, `{}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ file, want string }{
		{`{"debug": true, "labels": ["a=b"]}`, ""},
		{`{"hosts": ["unix:///a"]}`, "hosts"},
		{`{"group": "g"}`, "group"},
		{`{"tlsverify": true}`, "tls settings"},
		{`{"tlscacert": "/x"}`, "tls settings"},
		{`{"data-root": "/x"}`, "data-root"},
		{`{"exec-root": "/run/minictl2", "hosts": ["unix:///run/minictl/minictl.sock"]}`, "exec-root"},
		{`{"pidfile": "/x"}`, "pidfile"},
		{`{"log-format": "json"}`, "log-format"},
		{`{"node-name": "x"}`, "node-name"},
		{`{"gateway-bridge": "x"}`, "gateway-bridge"},
		{`{"containerd": "/x"}`, "containerd"},
		{`{"web": "off"}`, "web"},
		{`{"log-driver": "local"}`, "log-driver"},
		{`{"log-opts": {"max-size": "1m"}}`, "log-opts"},
		{`{"buildkit": "tcp://h1:1"}`, "buildkit"},
		{`{"buildkit": "tcp://h1:1", "buildkit-tlscacert": "/dev/null"}`, "buildkit"},
		{`{"cluster-store": "etcd://h1"}`, "cluster-store"},
		{`{"insecure-registries": ["r:5000"]}`, "insecure-registries"},
		{`{"registry-mirrors": ["https://m"]}`, "registry-mirrors"},
		{`{"cluster-store": "etcd://h1", "cluster-advertise": "eth0"}`, "cluster-advertise cluster-store"},
	} {
		b, err := load(t, c.file)
		if got := strings.Join(a.Fixed(b), " "); err != nil || got != c.want {
			t.Errorf("%s: %q, %v", c.file, got, err)
		}
	}
}

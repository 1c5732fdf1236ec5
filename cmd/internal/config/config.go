// Package config is the daemon's settings: flags and a file in, one checked struct out.
package config

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/cli/opts"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"

	"github.com/minictl/minictl/cluster/store/external"
	"github.com/minictl/minictl/cmd/internal/version"
	"github.com/minictl/minictl/netdriver/ipam"
	"github.com/minictl/minictl/runtime/container"
	"github.com/minictl/minictl/runtime/image"
)

// Version is this release's.
const Version = version.Version

// maxLinkName is the longest name a network interface can have (IFNAMSIZ less the closing zero).
const maxLinkName = 15

// Folder is where the daemon's configuration and certificates are looked for.
const Folder = "/etc/minictl"

// Config is what a daemon is told. Flags are named as dockerd's where dockerd has one.
type Config struct {
	File          string   // the configuration file
	Hosts         []string // where the API is served
	Group         string   // who may use the unix sockets besides root
	TLS           TLS      // for tcp:// hosts
	DataRoot      string   // what survives a reboot
	ExecRoot      string   // what does not
	Pidfile       string
	Debug         bool
	LogFormat     string   // text or json
	Labels        []string // key=value, about this host
	NodeName      string
	GatewayBridge string
	AddressPools  []ipam.Block // where this host's own networks get their subnets; none of a family: docker's
	Networks      Networks
	Containerd    string // address of an existing containerd; empty: the embedded one
	Metrics       string // address of /metrics; empty: none
	Web           string // address of the read-only web page; off: none
	Registries    image.Registries
	Log           mobycontainer.LogConfig // how the output of containers is kept that say nothing about it
	BuildKit      image.BuildKit          // address of the BuildKit that builds; empty: the usual socket, if it is there

	HostDNS string // address and port of the resolver for the host itself; empty: none

	ClusterStore     string // address of the external store that decides; empty: the cluster's hosts do
	ClusterStoreOpts map[string]string
	ClusterAdvertise string        // this host's address or interface for a cluster with an external store
	Store            external.Spec // ClusterStore and its options, read by complete

	Version string
}

// Flags binds the settings to flags.
func (c *Config) Flags(f *pflag.FlagSet) {
	f.StringVar(&c.File, "config-file", filepath.Join(Folder, "daemon.json"), "configuration file: JSON, its keys are these flags' names (lists in the plural: hosts, labels, log-opts)")
	f.StringArrayVarP(&c.Hosts, "host", "H", nil, "where to serve the API: unix://, tcp:// or fd:// (default unix:///run/minictl/minictl.sock)")
	f.StringVarP(&c.Group, "group", "G", "minictl", "group that may use the unix sockets")
	c.TLS.flags(f)
	f.StringVar(&c.DataRoot, "data-root", "/var/lib/minictl", "folder for images, containers and state")
	f.StringVar(&c.ExecRoot, "exec-root", "/run/minictl", "folder for what a reboot empties")
	f.StringVarP(&c.Pidfile, "pidfile", "p", "", "write the daemon's process ID there")
	f.BoolVarP(&c.Debug, "debug", "D", false, "log every step")
	f.StringVar(&c.LogFormat, "log-format", "text", "text or json")
	f.StringVar(&c.Log.Type, "log-driver", container.LogJSON, "how containers' output is kept unless they say: json-file, local or none")
	c.Log.Config = map[string]string{}
	f.Var(opts.NewMapOpts(c.Log.Config, nil), "log-opt", "KEY=VALUE, options of --log-driver for containers that do not say, such as max-size=10m")
	f.StringArrayVar(&c.Labels, "label", nil, "KEY=VALUE about this host, shown by info")
	f.StringVar(&c.NodeName, "node-name", "", "this host's name in its cluster (default: the host name)")
	f.StringVar(&c.GatewayBridge, "gateway-bridge", "mini_gwbridge", "name of the bridge that leads overlay containers outside")
	f.Var(pools{&c.AddressPools}, "default-address-pool", "base=PREFIX,size=BITS, where this host's own networks get their subnets (again for more, or for IPv6)")
	c.Networks.flags(f)
	f.StringVar(&c.Containerd, "containerd", "", "address of an existing containerd (default: one runs inside the daemon)")
	f.StringVar(&c.ClusterStore, "cluster-store", "", "an external store that decides for the cluster: etcd://, consul:// or zk://HOST[:PORT][,...][/PATH]")
	c.ClusterStoreOpts = map[string]string{}
	f.Var(opts.NewMapOpts(c.ClusterStoreOpts, nil), "cluster-store-opt", "kv.cacertfile, kv.certfile, kv.keyfile=FILE (TLS) or kv.path=PATH")
	f.StringVar(&c.ClusterAdvertise, "cluster-advertise", "", "with --cluster-store: address or interface that other hosts reach this one by, [:PORT] if not 7946")
	f.StringVar(&c.HostDNS, "host-dns", "", "address, such as 127.0.0.153, where programs of this host may ask for containers' names; see minictl dns (default: nowhere)")
	f.StringVar(&c.Metrics, "metrics-addr", "", "address to serve figures for Prometheus on, as HOST:PORT/metrics (default: none)")
	f.StringVar(&c.Web, "web", "127.0.0.1:7947", "address of the read-only web page, off for none")
	f.StringVar(&c.BuildKit.Addr, "buildkit", "", "address of the BuildKit that builds images, unix:// or tcp:// (default unix:///run/buildkit/buildkitd.sock if it exists)")
	f.StringVar(&c.BuildKit.CA, "buildkit-tlscacert", "", "reach that BuildKit by TLS, with a certificate of this authority")
	f.StringVar(&c.BuildKit.Cert, "buildkit-tlscert", "", "the daemon's own certificate for it")
	f.StringVar(&c.BuildKit.Key, "buildkit-tlskey", "", "and its key")
	f.StringVar(&c.BuildKit.ServerName, "buildkit-tlsservername", "", "name in that BuildKit's certificate, if not its address")
	f.StringArrayVar(&c.Registries.Insecure, "insecure-registry", nil, "registry (host[:port] or CIDR) to reach without checking its certificate, or by plain HTTP")
	f.StringArrayVar(&c.Registries.Mirrors, "registry-mirror", nil, "URL to ask for docker.io's images first")
}

// Load makes the settings of flags that have been parsed into c and of the file, and checks them.
func (c *Config) Load(f *pflag.FlagSet) error {
	if err := c.readFile(f); err != nil {
		return err
	}
	c.TLS.given(f)
	return c.complete()
}

// complete fills in what was left open and refuses what can't work.
func (c *Config) complete() error {
	if c.HostDNS != "" {
		at, err := hostDNS(c.HostDNS)
		if err != nil {
			return err
		}
		c.HostDNS = at
	}
	if c.NodeName == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find this host's name: %w: give it with --node-name", err)
		}
		c.NodeName, _, _ = strings.Cut(name, ".")
	}
	switch {
	case len(c.Hosts) > 0:
	case os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()): // a socket unit started us
		c.Hosts = []string{"fd://"}
	default:
		c.Hosts = []string{"unix://" + filepath.Join(c.ExecRoot, "minictl.sock")}
	}
	for _, dir := range []struct{ flag, path string }{{"--data-root", c.DataRoot}, {"--exec-root", c.ExecRoot}} {
		if !filepath.IsAbs(dir.path) {
			return fmt.Errorf("%s %q is not an absolute path", dir.flag, dir.path)
		}
	}
	if err := c.BuildKit.Check(); err != nil {
		return err
	}
	if _, _, err := net.SplitHostPort(c.Metrics); c.Metrics != "" && err != nil {
		return fmt.Errorf("--metrics-addr %q: want HOST:PORT, such as 127.0.0.1:9323", c.Metrics)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return fmt.Errorf("--log-format %q: want text or json", c.LogFormat)
	}
	if err := container.CheckLog(c.Log); err != nil {
		return fmt.Errorf("--log-driver and --log-opt: %w", err)
	}
	if err := c.Networks.complete(); err != nil {
		return err
	}
	if err := c.completeStore(); err != nil {
		return err
	}
	if err := c.Registries.Check(); err != nil {
		return err
	}
	if n := len(c.GatewayBridge); n == 0 || n > maxLinkName || strings.ContainsAny(c.GatewayBridge, "/ \t\n") {
		return fmt.Errorf("--gateway-bridge %q: a network interface's name has 1 to %d characters, no slash, no space", c.GatewayBridge, maxLinkName)
	}
	values := map[string]string{}
	for _, l := range c.Labels {
		key, value, ok := strings.Cut(l, "=")
		if !ok || key == "" {
			return fmt.Errorf("--label %q: want KEY=VALUE", l)
		}
		if old, ok := values[key]; ok && old != value {
			return fmt.Errorf("--label: %s is both %q and %q", key, old, value)
		}
		values[key] = value
	}
	return c.checkHosts()
}

// Fixed names the settings in which next differs from c and which a running daemon does not change.
func (c Config) Fixed(next Config) []string {
	var out []string
	for name, same := range map[string]bool{
		"hosts": slices.Equal(c.Hosts, next.Hosts), "group": c.Group == next.Group, "tls settings": c.TLS == next.TLS,
		"data-root": c.DataRoot == next.DataRoot, "exec-root": c.ExecRoot == next.ExecRoot, "pidfile": c.Pidfile == next.Pidfile,
		"log-format": c.LogFormat == next.LogFormat, "node-name": c.NodeName == next.NodeName,
		"gateway-bridge": c.GatewayBridge == next.GatewayBridge, "default-address-pools": slices.Equal(c.AddressPools, next.AddressPools),
		"network settings": reflect.DeepEqual(c.Networks, next.Networks),
		"containerd":       c.Containerd == next.Containerd, "web": c.Web == next.Web, "metrics-addr": c.Metrics == next.Metrics, "buildkit": c.BuildKit == next.BuildKit,
		"log-driver": c.Log.Type == next.Log.Type, "log-opts": maps.Equal(c.Log.Config, next.Log.Config),
		"cluster-store": c.ClusterStore == next.ClusterStore, "cluster-store-opts": maps.Equal(c.ClusterStoreOpts, next.ClusterStoreOpts),
		"insecure-registries": slices.Equal(c.Registries.Insecure, next.Registries.Insecure),
		"registry-mirrors":    slices.Equal(c.Registries.Mirrors, next.Registries.Mirrors),
		"cluster-advertise":   c.ClusterAdvertise == next.ClusterAdvertise,
	} {
		if !same {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// completeStore reads --cluster-store, and refuses what would have no effect without it.
func (c *Config) completeStore() (err error) {
	if c.ClusterStore == "" {
		if c.ClusterAdvertise != "" || len(c.ClusterStoreOpts) > 0 {
			return fmt.Errorf("--cluster-advertise and --cluster-store-opt go with --cluster-store; without it there is `minictl cluster init --advertise-addr`")
		}
		return nil
	}
	c.Store, err = external.Parse(c.ClusterStore, c.ClusterStoreOpts)
	return err
}

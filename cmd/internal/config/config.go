// Package config is the daemon's settings: flags in, one checked struct out.
package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/minictl/minictl/runtime/image"
)

// Version is this release's.
const Version = "0.1.0"

// maxLinkName is the longest name a network interface can have (IFNAMSIZ less the closing zero).
const maxLinkName = 15

// Config is what a daemon is told. Flags are named as dockerd's where dockerd has one.
type Config struct {
	Hosts         []string // where the API is served
	DataRoot      string   // what survives a reboot
	ExecRoot      string   // what does not
	Pidfile       string
	Debug         bool
	LogFormat     string // text or json
	NodeName      string
	GatewayBridge string
	Containerd    string // address of an existing containerd; empty: the embedded one
	Web           string // address of the read-only web page; off: none
	Registries    image.Registries
	Version       string
}

// Flags binds the settings to flags.
func (c *Config) Flags(f *pflag.FlagSet) {
	f.StringArrayVarP(&c.Hosts, "host", "H", nil, "where to serve the API (default unix:///run/minictl/minictl.sock)")
	f.StringVar(&c.DataRoot, "data-root", "/var/lib/minictl", "folder for images, containers and state")
	f.StringVar(&c.ExecRoot, "exec-root", "/run/minictl", "folder for what a reboot empties")
	f.StringVarP(&c.Pidfile, "pidfile", "p", "", "write the daemon's process ID there")
	f.BoolVarP(&c.Debug, "debug", "D", false, "log every step")
	f.StringVar(&c.LogFormat, "log-format", "text", "text or json")
	f.StringVar(&c.NodeName, "node-name", "", "this host's name in its cluster (default: the host name)")
	f.StringVar(&c.GatewayBridge, "gateway-bridge", "mini_gwbridge", "name of the bridge that leads overlay containers outside")
	f.StringVar(&c.Containerd, "containerd", "", "address of an existing containerd (default: one runs inside the daemon)")
	f.StringVar(&c.Web, "web", "127.0.0.1:7947", "address of the read-only web page, off for none")
	f.StringSliceVar(&c.Registries.Insecure, "insecure-registry", nil, "registry (host[:port] or CIDR) to reach without checking its certificate, or by plain HTTP")
	f.StringSliceVar(&c.Registries.Mirrors, "registry-mirror", nil, "URL to ask for docker.io's images first")
}

// Complete fills in what was left open and refuses what can't work.
func (c *Config) Complete() error {
	if c.NodeName == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find this host's name: %w: give it with --node-name", err)
		}
		c.NodeName, _, _ = strings.Cut(name, ".")
	}
	if len(c.Hosts) == 0 {
		c.Hosts = []string{"unix://" + filepath.Join(c.ExecRoot, "minictl.sock")}
	}
	for _, dir := range []struct{ flag, path string }{{"--data-root", c.DataRoot}, {"--exec-root", c.ExecRoot}} {
		if !filepath.IsAbs(dir.path) {
			return fmt.Errorf("%s %q is not an absolute path", dir.flag, dir.path)
		}
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return fmt.Errorf("--log-format %q: want text or json", c.LogFormat)
	}
	if err := c.Registries.Check(); err != nil {
		return err
	}
	if n := len(c.GatewayBridge); n == 0 || n > maxLinkName || strings.ContainsAny(c.GatewayBridge, "/ \t\n") {
		return fmt.Errorf("--gateway-bridge %q: a network interface's name has 1 to %d characters, no slash, no space", c.GatewayBridge, maxLinkName)
	}
	return nil
}

package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/minictl/minictl/netdriver"
)

// The options of CNI networks.
const (
	OptionConf    = "conf"     // path of a .conflist or .conf, read once, when the network is made
	OptionBinPath = "bin-path" // folders of plugins, with colons between; DefaultBinPath
	OptionConfig  = "config"   // what conf said then: kept by minictl, not to be given
)

// DefaultBinPath is where the specification's authors, and Debian, put plugins.
const DefaultBinPath = "/opt/cni/bin:/usr/lib/cni"

// maxConf bounds a configuration, in bytes.
const maxConf = 1 << 20

// Options are the names of all options the driver knows.
func (d *Driver) Options() []string { return []string{OptionConf, OptionBinPath, OptionConfig} }

// conf is a network's parsed options.
type conf struct {
	list *libcni.NetworkConfigList
	bin  []string
}

// parse reads what Resolve has kept; ErrInvalidArgument names the option.
func parse(options map[string]string) (conf, error) {
	c := conf{bin: filepath.SplitList(options[OptionBinPath])}
	if len(c.bin) == 0 {
		c.bin = filepath.SplitList(DefaultBinPath)
	}
	for _, dir := range c.bin {
		if !filepath.IsAbs(dir) {
			return c, invalid(OptionBinPath, "%q is no absolute path", dir)
		}
	}
	if options[OptionConfig] == "" {
		return c, invalid(OptionConf, "a CNI network needs a configuration, give -o %s=/etc/cni/net.d/FILE.conflist", OptionConf)
	}
	var err error
	c.list, err = parseList([]byte(options[OptionConfig]))
	if err != nil {
		return c, invalid(OptionConf, "%v", err)
	}
	return c, nil
}

// invalid is what is wrong with an option.
func invalid(option, format string, a ...any) error {
	return fmt.Errorf("option %s: %s: %w", option, fmt.Sprintf(format, a...), errdefs.ErrInvalidArgument)
}

// parseList reads a list of plugins, or the configuration of a single one, which becomes a list of one.
func parseList(text []byte) (*libcni.NetworkConfigList, error) {
	var head struct {
		Type    string          `json:"type"`
		Plugins json.RawMessage `json:"plugins"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, fmt.Errorf("it is no CNI configuration: %w", err)
	}
	var list *libcni.NetworkConfigList
	var err error
	if head.Type != "" && head.Plugins == nil {
		var one *libcni.PluginConfig
		if one, err = libcni.NetworkPluginConfFromBytes(text); err == nil {
			list, err = libcni.ConfListFromConf(one) //nolint:staticcheck // .conf files are what many hosts have
		}
		if err == nil {
			list.LoadOnlyInlinedPlugins = true
		}
	} else {
		list, err = libcni.NetworkConfFromBytes(text)
	}
	if err != nil {
		return nil, err
	}
	if err := utils.ValidateNetworkName(list.Name); err != nil {
		return nil, fmt.Errorf("its name %q is not made of letters, digits, dot, dash and underscore", list.Name)
	}
	if v := list.CNIVersion; v != "" && !slices.Contains(version.All.SupportedVersions(), v) {
		return nil, fmt.Errorf("its cniVersion %q is none of %s", v, strings.Join(version.All.SupportedVersions(), ", "))
	}
	return list, nil
}

// Resolve reads the configuration that the options name, and gives the options with what it says now: the network stays
// what it was made as when somebody edits the file. Every plugin has to be there and to speak the configuration's version
// (ErrInvalidArgument), and to be ready if that version lets it say so (ErrUnavailable).
func (d *Driver) Resolve(ctx context.Context, network string, options map[string]string) (map[string]string, error) {
	if options[OptionConfig] != "" {
		return nil, invalid(OptionConfig, "minictl keeps here what the file of %s says; give -o %s=FILE alone", OptionConf, OptionConf)
	}
	out := map[string]string{}
	for k, v := range options {
		out[k] = v
	}
	if path := options[OptionConf]; path != "" {
		text, err := readConf(path)
		if err != nil {
			return nil, invalid(OptionConf, "%v", err)
		}
		out[OptionConfig] = string(text)
	}
	c, err := parse(out)
	if err != nil {
		return nil, err
	}
	if len(c.list.Plugins) == 0 {
		return nil, invalid(OptionConf, "%s names no plugins", options[OptionConf])
	}
	if err := d.validate(ctx, network, c); err != nil {
		return nil, err
	}
	return out, nil
}

// readConf reads a configuration, with the plugins that it may have in a folder of its name beside it (CNI 1.1, "Network
// configuration format"): what it gives is whole without any file.
func readConf(path string) ([]byte, error) {
	text, err := readBounded(path)
	if err != nil {
		return nil, err
	}
	list, err := parseList(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var more []*libcni.PluginConfig
	if !list.LoadOnlyInlinedPlugins {
		if more, err = libcni.NetworkPluginConfsFromFiles(filepath.Dir(path), list.Name); err != nil {
			return nil, err
		}
	}
	if len(more) > 0 {
		return inline(text, list, more)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// inline puts plugins at the end of a list's own.
func inline(text []byte, list *libcni.NetworkConfigList, more []*libcni.PluginConfig) ([]byte, error) {
	whole := map[string]json.RawMessage{}
	if err := json.Unmarshal(text, &whole); err != nil {
		return nil, err
	}
	var plugins []json.RawMessage
	for _, p := range append(slices.Clone(list.Plugins), more...) {
		plugins = append(plugins, p.Bytes)
	}
	b, err := json.Marshal(plugins)
	if err != nil {
		return nil, err
	}
	whole["plugins"], whole["loadOnlyInlinedPlugins"] = b, json.RawMessage("true")
	return json.Marshal(whole)
}

// readBounded reads a file of the host's.
func readBounded(path string) ([]byte, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%q is no absolute path of this host", path)
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("this host has no file %s", path)
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConf+1))
	if err == nil && len(text) > maxConf {
		err = fmt.Errorf("%s has more than %d bytes", path, maxConf)
	}
	return text, err
}

// validate asks every plugin which versions it speaks, and whether it is ready.
func (d *Driver) validate(ctx context.Context, network string, c conf) error {
	ctx, done := bound(ctx, askTime)
	defer done()
	speaks := c.list.CNIVersion
	if speaks == "" {
		speaks = "0.1.0" // the specification's word for a configuration without
	}
	client := d.client(c)
	for _, p := range c.list.Plugins {
		for _, name := range []string{p.Network.Type, p.Network.IPAM.Type} {
			if name == "" {
				continue
			}
			if _, err := d.exec.FindInPath(name, c.bin); err != nil {
				return invalid(OptionConf, "network %s: its CNI plugin %q is in none of %s: install it, or give its folder with -o %s=DIR", network, name, strings.Join(c.bin, ", "), OptionBinPath)
			}
		}
		info, err := client.GetVersionInfo(ctx, p.Network.Type)
		if err != nil {
			return told(network, err)
		}
		if !slices.Contains(info.SupportedVersions(), speaks) {
			return invalid(OptionConf, "network %s: its cniVersion is %s, and the CNI plugin %q speaks %s", network, speaks, p.Network.Type, strings.Join(info.SupportedVersions(), ", "))
		}
	}
	if err := client.GetStatusNetworkList(ctx, c.list); err != nil { // nothing before 1.1.0
		return told(network, err)
	}
	return nil
}

// capable tells whether a plugin of the network takes what a runtime says under that name (CNI, CONVENTIONS.md).
func (c conf) capable(capability string) bool {
	return slices.ContainsFunc(c.list.Plugins, func(p *libcni.PluginConfig) bool { return p.Network.Capabilities[capability] })
}

// wishes are what an endpoint asks of the plugins, by the names of the capabilities (CNI, CONVENTIONS.md).
type wishes struct {
	Ports   []portMapping `json:"portMappings,omitempty"`
	IPs     []string      `json:"ips,omitempty"`
	MAC     string        `json:"mac,omitempty"`
	Aliases []string      `json:"aliases,omitempty"`
	DNS     *dnsWish      `json:"dns,omitempty"`
}

type portMapping struct {
	HostPort      uint16 `json:"hostPort"`
	ContainerPort uint16 `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

type dnsWish struct {
	Servers  []string `json:"servers,omitempty"`
	Searches []string `json:"searches,omitempty"`
	Options  []string `json:"options,omitempty"`
}

// capabilities are the wishes as libcni takes them.
func (w wishes) capabilities() map[string]any {
	b, err := json.Marshal(w)
	out := map[string]any{}
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		panic(err) // strings and numbers
	}
	return out
}

// wishes refuses what the user asked for and no plugin takes: it would be left out in silence.
func (c conf) wishes(n netdriver.Network, e netdriver.Endpoint) (wishes, error) {
	w := wishes{Ports: portMappings(e.Ports)}
	for _, p := range e.Addresses() {
		w.IPs = append(w.IPs, p.Addr().String())
	}
	if len(e.MAC) > 0 {
		w.MAC = e.MAC.String()
	}
	for _, asked := range []struct {
		asked                          bool
		what, flag, capability, takers string
	}{
		{len(w.Ports) > 0, "publishes no ports", "-p", "portMappings", "portmap"},
		{len(w.IPs) > 0, "takes no chosen address", "--ip", "ips", "those whose IPAM is host-local or static"},
		{w.MAC != "", "takes no chosen MAC address", "--mac-address", "mac", "bridge, macvlan or tuning"},
	} {
		if asked.asked && !c.capable(asked.capability) {
			return w, fmt.Errorf("network %s %s: no plugin of its CNI configuration %s says \"capabilities\": {%q: true}, as %s may; make the network anew with one that does, or leave out %s: %w",
				n.Name, asked.what, c.list.Name, asked.capability, asked.takers, asked.flag, errdefs.ErrInvalidArgument)
		}
	}
	if len(e.LinkLocal) > 0 {
		return w, fmt.Errorf("network %s: minictl does not support --link-local-ip on CNI networks: %w", n.Name, errdefs.ErrNotImplemented)
	}
	if c.capable("aliases") {
		w.Aliases = e.Aliases
	}
	if c.capable("dns") && len(e.DNS.Servers)+len(e.DNS.Search)+len(e.DNS.Options) > 0 {
		w.DNS = &dnsWish{Searches: e.DNS.Search, Options: e.DNS.Options}
		for _, a := range e.DNS.Servers {
			w.DNS.Servers = append(w.DNS.Servers, a.String())
		}
	}
	return w, nil
}

func portMappings(ports []netdriver.PortMapping) []portMapping {
	var out []portMapping
	for _, p := range ports {
		m := portMapping{HostPort: p.HostPort, ContainerPort: p.ContainerPort, Protocol: p.Proto}
		if p.HostIP.IsValid() {
			m.HostIP = p.HostIP.String()
		}
		out = append(out, m)
	}
	return out
}

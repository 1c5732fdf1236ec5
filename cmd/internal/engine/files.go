package engine

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/minictl/minictl/dnsd"
	"github.com/minictl/minictl/runtime/container"
)

// hostResolvConf is where this host's own resolvers stand.
const hostResolvConf = "/etc/resolv.conf"

// etcFiles are the three files that docker binds into each container. Who is on another's network has the other's: its
// address, its names, its resolver.
func (e *Engine) etcFiles(s *container.Spec) ([]specs.Mount, error) {
	owner, err := e.networkOwner(s)
	if err != nil {
		return nil, err
	}
	var out []specs.Mount
	for _, f := range []string{"resolv.conf", "hostname", "hosts"} {
		out = append(out, specs.Mount{Type: "bind", Source: filepath.Join(e.dir(owner.ID), f), Destination: "/etc/" + f, Options: []string{"rbind", "rprivate"}})
	}
	return out, nil
}

// networkOwner is the container whose network s is on: mostly s itself.
func (e *Engine) networkOwner(s *container.Spec) (*container.Spec, error) {
	for seen := map[string]bool{}; s.HostConfig.NetworkMode.IsContainer(); {
		if seen[s.ID] {
			return nil, invalid("container %s is on its own network by way of others", s.ID)
		}
		seen[s.ID] = true
		other, err := e.find(s.HostConfig.NetworkMode.ConnectedContainer())
		if err != nil {
			return nil, err
		}
		spec := other.specCopy()
		s = &spec
	}
	return s, nil
}

// writeFile replaces a file's content in place: the container has it bound, and a rename would leave it the old one.
func writeFile(path string, content []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return nil
	}
	return os.WriteFile(path, content, 0o644)
}

// writeEtc writes the three files for a container with these endpoints.
func (e *Engine) writeEtc(spec *container.Spec, endpoints []container.Endpoint) error {
	dir := e.dir(spec.ID)
	hosts, err := e.hostsFile(spec, endpoints)
	if err != nil {
		return err
	}
	resolv, err := e.resolvFile(spec, endpoints)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"hostname": []byte(spec.Hostname() + "\n"), "hosts": hosts} {
		if err := writeFile(filepath.Join(dir, name), content); err != nil {
			return fmt.Errorf("write container's %s: %w", name, err)
		}
	}
	if old, err := os.ReadFile(filepath.Join(dir, resolvName)); err == nil && edited(dir, old) {
		return nil
	}
	return writeResolv(dir, resolv)
}

// The container's resolv.conf, and beside it the digest of what we last wrote: one that a user has edited is the user's
// from then on, as the file itself says.
const (
	resolvName   = "resolv.conf"
	resolvDigest = "resolv.conf.sha256"
)

// edited tells whether a resolv.conf is not what we wrote.
func edited(dir string, content []byte) bool {
	sum, err := os.ReadFile(filepath.Join(dir, resolvDigest))
	return err == nil && string(sum) != digestOf(content)
}

func digestOf(content []byte) string { return fmt.Sprintf("%x", sha256.Sum256(content)) }

// writeResolv writes resolv.conf and its digest.
func writeResolv(dir string, content []byte) error {
	for name, b := range map[string][]byte{resolvName: content, resolvDigest: []byte(digestOf(content))} {
		if err := writeFile(filepath.Join(dir, name), b); err != nil {
			return fmt.Errorf("write container's %s: %w", name, err)
		}
	}
	return nil
}

func (e *Engine) hostsFile(spec *container.Spec, endpoints []container.Endpoint) ([]byte, error) {
	var w bytes.Buffer
	if spec.HostConfig.NetworkMode.IsHost() && len(spec.HostConfig.ExtraHosts) == 0 {
		b, err := os.ReadFile("/etc/hosts")
		if err == nil {
			return b, nil
		}
	}
	w.WriteString("127.0.0.1\tlocalhost\n")
	if !withoutIPv6(spec) {
		w.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	}
	for _, h := range spec.HostConfig.ExtraHosts {
		name, ip, ok := strings.Cut(h, ":")
		if !ok {
			return nil, invalid("bad format for add-host: %q", h)
		}
		if ip == hostGatewayName {
			gw, err := e.hostGateway(endpoints)
			if err != nil {
				return nil, err
			}
			w.WriteString(extraHost(gw, name))
			continue
		} else if _, err := netip.ParseAddr(ip); err != nil {
			return nil, invalid("invalid IP address in add-host: %q", ip)
		}
		fmt.Fprintf(&w, "%s\t%s\n", ip, name)
	}
	for _, ep := range endpoints {
		w.WriteString(hostsLines(spec, ep))
	}
	return w.Bytes(), nil
}

// withoutIPv6 tells whether the container has switched IPv6 off, loopback included.
func withoutIPv6(spec *container.Spec) bool {
	for _, of := range []string{"all", "lo"} {
		if spec.HostConfig.Sysctls["net.ipv6.conf."+of+".disable_ipv6"] == "1" {
			return true
		}
	}
	return false
}

// hostGatewayName stands for the host's own address in --add-host.
const hostGatewayName = "host-gateway"

// extraHost is a line of /etc/hosts.
func extraHost(ip netip.Addr, name string) string { return fmt.Sprintf("%s\t%s\n", ip, name) }

// hostsLines are what an endpoint adds to /etc/hosts; nothing for one on the gateway bridge.
func hostsLines(spec *container.Spec, ep container.Endpoint) string {
	if ep.Key == "" {
		return ""
	}
	names := spec.Hostname()
	if d := spec.Config.Domainname; d != "" {
		names = spec.Hostname() + "." + d + " " + names
	}
	var lines string
	for _, p := range ep.Addresses() {
		lines += fmt.Sprintf("%s\t%s\n", p.Addr(), names)
	}
	return lines
}

// editLines takes lines out of a file and adds others at its end.
func editLines(old []byte, drop map[string]bool, add []string) []byte {
	var w bytes.Buffer
	for line := range bytes.Lines(old) {
		if !drop[string(line)] {
			w.Write(line)
		}
	}
	if b := w.Bytes(); len(b) > 0 && b[len(b)-1] != '\n' {
		w.WriteByte('\n')
	}
	for _, line := range add {
		w.WriteString(line)
	}
	return w.Bytes()
}

// gatewayAddress is what host-gateway means: the host as the default bridge's containers see it.
func (e *Engine) gatewayAddress() (netip.Addr, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, n := range e.networks {
		if n.Name == "bridge" {
			return n.Subnets[0].Gateway, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("find the default bridge's gateway: no bridge network")
}

// resolvFile points the container at the embedded resolver where there is one, else at the host's own servers.
func (e *Engine) resolvFile(spec *container.Spec, endpoints []container.Endpoint) ([]byte, error) {
	host, err := os.ReadFile(hostResolvConf)
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("read %s: %w", hostResolvConf, err)
	}
	set := e.resolverOf(spec, endpoints)
	if spec.HostConfig.NetworkMode.IsHost() && len(set.Servers)+len(set.Search)+len(set.Options) == 0 {
		return host, nil
	}
	set.Embedded, set.Host = usesResolver(spec), host
	return dnsd.ResolvConf(set), nil
}

// usesResolver tells whether a container gets the embedded resolver: on user-defined networks only, as with docker.
func usesResolver(spec *container.Spec) bool {
	for _, key := range spec.NetworkOrder {
		if key != "bridge" {
			return true
		}
	}
	return false
}

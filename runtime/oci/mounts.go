package oci

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/minictl/minictl/runtime/container"
)

// Bind mounts a folder or file of the host, which a volume's is too.
func Bind(m container.Mount, source string) specs.Mount {
	propagation := m.Propagation
	if propagation == "" {
		propagation = "rprivate"
	}
	o := []string{"rbind", propagation}
	if m.ReadOnly {
		o = append(o, "ro")
	}
	return specs.Mount{Type: "bind", Source: source, Destination: m.Target, Options: o}
}

// SortMounts puts outer folders before what is mounted inside them, and leaves the order alone otherwise.
func SortMounts(mounts []specs.Mount) {
	depth := func(m specs.Mount) int { return strings.Count(strings.TrimRight(path.Clean(m.Destination), "/"), "/") }
	slices.SortStableFunc(mounts, func(a, b specs.Mount) int { return depth(a) - depth(b) })
}

// Tmpfs are the --tmpfs and --mount type=tmpfs wishes.
func Tmpfs(h *mobycontainer.HostConfig) []specs.Mount {
	var out []specs.Mount
	for target, opts := range h.Tmpfs {
		o := []string{"noexec", "nosuid", "nodev"}
		if opts != "" {
			o = append(o, strings.Split(opts, ",")...)
		}
		out = append(out, specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: target, Options: o})
	}
	slices.SortFunc(out, func(a, b specs.Mount) int { return strings.Compare(a.Destination, b.Destination) })
	for _, m := range h.Mounts {
		if m.Type != mount.TypeTmpfs {
			continue
		}
		o := []string{"noexec", "nosuid", "nodev"}
		if t := m.TmpfsOptions; t != nil {
			if t.SizeBytes > 0 {
				o = append(o, "size="+strconv.FormatInt(t.SizeBytes, 10))
			}
			if t.Mode != 0 {
				o = append(o, fmt.Sprintf("mode=%o", t.Mode))
			}
		}
		out = append(out, specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: m.Target, Options: o})
	}
	return out
}

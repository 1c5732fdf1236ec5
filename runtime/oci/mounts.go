package oci

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/minictl/minictl/runtime/container"
)

// Bind mounts a folder or file of the host, which a volume's is too. Read-only reaches as deep as asked for, or as the
// kernel can.
func Bind(m container.Mount, source string, host Host) (specs.Mount, error) {
	propagation := m.Propagation
	if propagation == "" {
		propagation = "rprivate"
	}
	bind := "rbind"
	if m.NonRecursive {
		bind = "bind"
	}
	o := []string{bind, propagation}
	if m.ReadOnly {
		o = append(o, "ro")
	}
	out := specs.Mount{Type: "bind", Source: source, Destination: m.Target, Options: o}
	if !m.ReadOnly || m.NonRecursive || m.ReadOnlyBelow == container.ReadOnlyNever {
		return out, nil
	}
	if host.RecursiveReadOnly {
		out.Options = append(o, "rro")
	} else if m.ReadOnlyBelow == container.ReadOnlyForced {
		return out, fmt.Errorf("mount %s: this kernel cannot make a mount recursively read-only: leave out bind-recursive=readonly: %w", m.Target, errdefs.ErrNotImplemented)
	}
	return out, nil
}

// rootPropagation is what the container's root must be for its mounts' propagation to have any effect (docker's rule):
// runc would cut them off from the host's.
func rootPropagation(mounts []specs.Mount) string {
	out := ""
	for _, m := range mounts {
		for _, o := range m.Options {
			switch o {
			case "shared", "rshared":
				return "shared"
			case "slave", "rslave":
				out = "rslave"
			}
		}
	}
	return out
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
		if m.ReadOnly {
			o = append(o, "ro")
		}
		if t := m.TmpfsOptions; t != nil {
			if t.SizeBytes > 0 {
				o = append(o, "size="+strconv.FormatInt(t.SizeBytes, 10))
			}
			if t.Mode != 0 {
				o = append(o, fmt.Sprintf("mode=%o", t.Mode))
			}
			for _, flag := range t.Options {
				o = append(o, flag...)
			}
		}
		out = append(out, specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: m.Target, Options: o})
	}
	return out
}

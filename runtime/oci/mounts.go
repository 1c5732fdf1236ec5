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
)

// Bind is one host folder or file inside the container.
type Bind struct {
	Source, Target string
	ReadOnly       bool
	Propagation    string // rprivate and its kin
	Options        string // as the user wrote them
	// Create asks for a missing source to be made as a folder: docker's rule for -v, not for --mount.
	Create bool
}

// Mount is the bind as the runtime wants it.
func (b Bind) Mount() specs.Mount {
	o := []string{"rbind", b.Propagation}
	if b.ReadOnly {
		o = append(o, "ro")
	}
	return specs.Mount{Type: "bind", Source: b.Source, Destination: b.Target, Options: o}
}

// Binds are the -v and --mount type=bind wishes.
func Binds(h *mobycontainer.HostConfig) ([]Bind, error) {
	var out []Bind
	for _, v := range h.Binds {
		b, err := parseBind(v)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	for _, m := range h.Mounts {
		if m.Type != mount.TypeBind {
			continue
		}
		b := Bind{Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly, Propagation: "rprivate"}
		if o := m.BindOptions; o != nil {
			b.Create = o.CreateMountpoint
			if o.Propagation != "" {
				b.Propagation = string(o.Propagation)
			}
		}
		out = append(out, b)
	}
	seen := map[string]bool{}
	for _, b := range out {
		if err := checkBind(b, seen); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func checkBind(b Bind, seen map[string]bool) error {
	switch {
	case !path.IsAbs(b.Source):
		return fmt.Errorf("invalid mount config for type \"bind\": invalid mount path: '%s' mount path must be absolute: %w", b.Source, errdefs.ErrInvalidArgument)
	case !path.IsAbs(b.Target):
		return fmt.Errorf("invalid volume specification: '%s': mount path must be absolute: %w", b.Target, errdefs.ErrInvalidArgument)
	case path.Clean(b.Target) == "/":
		return fmt.Errorf("invalid volume specification: destination can't be '/': %w", errdefs.ErrInvalidArgument)
	case seen[path.Clean(b.Target)]:
		return fmt.Errorf("duplicate mount point: %s: %w", b.Target, errdefs.ErrInvalidArgument)
	}
	seen[path.Clean(b.Target)] = true
	return nil
}

func parseBind(v string) (Bind, error) {
	f := strings.Split(v, ":")
	if len(f) < 2 || len(f) > 3 || f[0] == "" || f[1] == "" {
		return Bind{}, fmt.Errorf("invalid volume specification: '%s': want SOURCE:TARGET[:OPTIONS]: %w", v, errdefs.ErrInvalidArgument)
	}
	b := Bind{Source: f[0], Target: f[1], Propagation: "rprivate", Create: true}
	if len(f) == 2 {
		return b, nil
	}
	b.Options = f[2]
	for o := range strings.SplitSeq(f[2], ",") {
		switch o {
		case "ro", "readonly":
			b.ReadOnly = true
		case "rw", "z", "Z", "cached", "consistent", "delegated", "nocopy":
		case "rprivate", "private", "rshared", "shared", "rslave", "slave":
			b.Propagation = o
		default:
			return Bind{}, fmt.Errorf("invalid volume specification: '%s': invalid mode: %s: %w", v, o, errdefs.ErrInvalidArgument)
		}
	}
	return b, nil
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

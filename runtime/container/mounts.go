package container

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// Mount is one bind or volume of a container, as create resolved it from the flags, the image and other containers.
type Mount struct {
	Type     mount.Type `json:"type"`             // bind or volume
	Name     string     `json:"name,omitempty"`   // of the volume
	Source   string     `json:"source,omitempty"` // of the bind: a path on the host
	Target   string     `json:"target"`           // cleaned, absolute
	ReadOnly bool       `json:"readOnly,omitempty"`
	// Propagation is a bind's: rprivate and its kin.
	Propagation string `json:"propagation,omitempty"`
	Mode        string `json:"mode,omitempty"` // -v's options as inspect shows them
	// NonRecursive binds what is at the source alone, and not what is mounted below it.
	NonRecursive bool `json:"nonRecursive,omitempty"`
	// ReadOnlyBelow says whether what is mounted below the source of a read-only mount is read-only as well.
	ReadOnlyBelow ReadOnlyBelow `json:"readOnlyBelow,omitempty"`
	// Create asks for a missing source to be made as a folder: docker's rule for -v, not for --mount.
	Create bool `json:"create,omitempty"`
	NoCopy bool `json:"noCopy,omitempty"` // the image's content is not for an empty volume
	// Anonymous says that nobody named the volume: it goes with the last container that is removed together with its
	// volumes.
	Anonymous bool `json:"anonymous,omitempty"`

	// Labels and Options are for the volume if it is made for this container.
	Labels  map[string]string `json:"labels,omitempty"`
	Options map[string]string `json:"options,omitempty"`
}

// Mounts are the binds and volumes that -v and --mount ask for. A volume without a name is still without one.
func Mounts(h *container.HostConfig) ([]Mount, error) {
	var out []Mount
	for _, v := range h.Binds {
		m, err := parseVolume(v)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	for _, m := range h.Mounts {
		if m.Type == mount.TypeBind || m.Type == mount.TypeVolume {
			out = append(out, fromMount(m))
		}
	}
	seen := tmpfsTargets(h)
	for i := range out {
		if err := out[i].check(seen); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// tmpfsTargets are where the container gets a tmpfs.
func tmpfsTargets(h *container.HostConfig) map[string]bool {
	out := map[string]bool{}
	for t := range h.Tmpfs {
		out[path.Clean(t)] = true
	}
	for _, m := range h.Mounts {
		if m.Type == mount.TypeTmpfs {
			out[path.Clean(m.Target)] = true
		}
	}
	return out
}

// check cleans the target, and refuses what cannot be mounted.
func (m *Mount) check(seen map[string]bool) error {
	switch {
	case m.Type == mount.TypeBind && !path.IsAbs(m.Source):
		return fmt.Errorf("invalid mount config for type \"bind\": invalid mount path: '%s' mount path must be absolute: %w", m.Source, errdefs.ErrInvalidArgument)
	case !path.IsAbs(m.Target):
		return fmt.Errorf("invalid mount config for type %q: invalid mount path: '%s' mount path must be absolute: %w", m.Type, m.Target, errdefs.ErrInvalidArgument)
	case path.Clean(m.Target) == "/":
		return fmt.Errorf("invalid volume specification: destination can't be '/': %w", errdefs.ErrInvalidArgument)
	case seen[path.Clean(m.Target)]:
		return fmt.Errorf("Duplicate mount point: %s: %w", path.Clean(m.Target), errdefs.ErrInvalidArgument)
	}
	m.Target = path.Clean(m.Target)
	seen[m.Target] = true
	return nil
}

// fromMount reads --mount's form.
func fromMount(w mount.Mount) Mount {
	m := Mount{Type: w.Type, Target: w.Target, ReadOnly: w.ReadOnly}
	if w.Type == mount.TypeBind {
		m.Source, m.Propagation = w.Source, "rprivate"
		if o := w.BindOptions; o != nil {
			m.Create = o.CreateMountpoint
			if o.Propagation != "" {
				m.Propagation = string(o.Propagation)
			}
			m.NonRecursive = o.NonRecursive
			switch {
			case o.ReadOnlyNonRecursive:
				m.ReadOnlyBelow = ReadOnlyNever
			case o.ReadOnlyForceRecursive:
				m.ReadOnlyBelow = ReadOnlyForced
			}
		}
		return m
	}
	m.Name, m.Mode, m.Anonymous = w.Source, volumeMode, w.Source == ""
	if o := w.VolumeOptions; o != nil {
		m.NoCopy, m.Labels = o.NoCopy, o.Labels
		if o.DriverConfig != nil {
			m.Options = o.DriverConfig.Options
		}
	}
	return m
}

// FlattenReadOnly leaves writable what is mounted below the sources of read-only binds that do not say.
func FlattenReadOnly(mounts []Mount) {
	for i := range mounts {
		if m := &mounts[i]; m.Type == mount.TypeBind && m.ReadOnly && m.ReadOnlyBelow == "" {
			m.ReadOnlyBelow = ReadOnlyNever
		}
	}
}

// volumeMode is what docker shows as the mode of a volume for which none was given.
const volumeMode = "z"

// parseVolume reads -v's form, NAME-OR-PATH:TARGET[:OPTIONS]; only a path begins with a slash.
func parseVolume(v string) (Mount, error) {
	f := strings.Split(v, ":")
	if len(f) < 2 || len(f) > 3 || f[0] == "" || f[1] == "" {
		return Mount{}, fmt.Errorf("invalid volume specification: '%s': want SOURCE:TARGET[:OPTIONS]: %w", v, errdefs.ErrInvalidArgument)
	}
	m := Mount{Type: mount.TypeBind, Source: f[0], Target: f[1], Propagation: "rprivate", Create: true}
	if !path.IsAbs(f[0]) {
		m = Mount{Type: mount.TypeVolume, Name: f[0], Target: f[1], Mode: volumeMode}
	}
	if len(f) == 2 {
		return m, nil
	}
	m.Mode = f[2]
	for o := range strings.SplitSeq(f[2], ",") {
		switch o {
		case "ro", "readonly":
			m.ReadOnly = true
		case "rw", "z", "Z", "cached", "consistent", "delegated":
		case "nocopy":
			if m.Type == mount.TypeBind {
				return Mount{}, fmt.Errorf("invalid mount config for type \"bind\": field VolumeOptions must not be specified: %w", errdefs.ErrInvalidArgument)
			}
			m.NoCopy = true
		case "rprivate", "private", "rshared", "shared", "rslave", "slave":
			if m.Type == mount.TypeVolume {
				return Mount{}, fmt.Errorf("invalid mount config for type \"volume\": field BindOptions must not be specified: %w", errdefs.ErrInvalidArgument)
			}
			m.Propagation = o
		default:
			return Mount{}, fmt.Errorf("invalid volume specification: '%s': invalid mode: %s: %w", v, o, errdefs.ErrInvalidArgument)
		}
	}
	return m, nil
}

// VolumesFrom reads one --volumes-from, CONTAINER[:ro|rw].
func VolumesFrom(v string) (ref string, readOnly bool, err error) {
	ref, mode, given := strings.Cut(v, ":")
	if ref == "" {
		return "", false, fmt.Errorf("invalid volumes-from specification: '%s': want CONTAINER[:ro|rw]: %w", v, errdefs.ErrInvalidArgument)
	}
	for o := range strings.SplitSeq(mode, ",") {
		switch o {
		case "ro":
			readOnly = true
		case "rw", "z", "Z":
		default:
			if given {
				return "", false, fmt.Errorf("invalid mode for volumes-from: %s: %w", mode, errdefs.ErrInvalidArgument)
			}
		}
	}
	return ref, readOnly, nil
}

// Inherit are another container's mounts as --volumes-from takes them: what was read-only there stays so, and nothing is
// copied into a volume again.
func Inherit(from []Mount, readOnly bool) []Mount {
	out := slices.Clone(from)
	for i := range out {
		out[i].ReadOnly = out[i].ReadOnly || readOnly
		out[i].NoCopy = true
	}
	return out
}

// Overlay puts mounts over others: of two with one target the later counts.
func Overlay(under, over []Mount) []Mount {
	out := slices.Clone(under)
	for _, m := range over {
		out = slices.DeleteFunc(out, func(u Mount) bool { return u.Target == m.Target })
		out = append(out, m)
	}
	return out
}

// Anonymous are the volumes that -v TARGET and the image ask for and that nothing else is mounted at, sorted.
func Anonymous(c *container.Config, h *container.HostConfig, have []Mount) ([]Mount, error) {
	taken := tmpfsTargets(h)
	for _, m := range have {
		taken[m.Target] = true
	}
	var out []Mount
	for _, t := range slices.Sorted(maps.Keys(c.Volumes)) {
		if path.IsAbs(t) && taken[path.Clean(t)] {
			continue // docker's rule: the image often asks for what the user has mounted
		}
		m := Mount{Type: mount.TypeVolume, Target: t, Anonymous: true}
		if err := m.check(taken); err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

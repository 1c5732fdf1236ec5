package container

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// ReadOnlyBelow is how far a read-only mount reaches: docker's bind-recursive. Empty means as far as the kernel can.
type ReadOnlyBelow string

// The other two answers.
const (
	ReadOnlyNever  ReadOnlyBelow = "non-recursive" // what is mounted below stays writable
	ReadOnlyForced ReadOnlyBelow = "forced"        // an error where the kernel can't
)

// validateMounts refuses mounts that contradict themselves, in docker's words.
func validateMounts(h *container.HostConfig) error {
	for target, options := range h.Tmpfs {
		if !path.IsAbs(target) {
			return fmt.Errorf("invalid mount path: '%s' mount path must be absolute: %w", target, errdefs.ErrInvalidArgument)
		}
		if path.Clean(target) == "/" {
			return fmt.Errorf("invalid tmpfs mount: destination can't be '/': %w", errdefs.ErrInvalidArgument)
		}
		if err := checkTmpfsOptions(options); err != nil {
			return err
		}
	}
	for i := range h.Mounts {
		m := &h.Mounts[i]
		if err := checkMount(m); err != nil {
			return fmt.Errorf("invalid mount config for type %q: %w: %w", m.Type, err, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

func checkMount(m *mount.Mount) error {
	if m.Target == "" {
		return missingField("Target")
	}
	if path.IsAbs(m.Target) && path.Clean(m.Target) == "/" {
		return errors.New("invalid specification: destination can't be '/'")
	}
	for _, f := range []struct {
		given bool
		name  string
		of    mount.Type
	}{
		{m.BindOptions != nil, "BindOptions", mount.TypeBind},
		{m.VolumeOptions != nil, "VolumeOptions", mount.TypeVolume},
		{m.TmpfsOptions != nil, "TmpfsOptions", mount.TypeTmpfs},
		{m.ImageOptions != nil, "ImageOptions", mount.TypeImage},
		{m.ClusterOptions != nil, "ClusterOptions", mount.TypeCluster},
	} {
		if f.given && m.Type != f.of {
			return extraField(f.name)
		}
	}
	switch m.Type {
	case mount.TypeBind:
		return checkBind(m)
	case mount.TypeVolume:
		if m.ReadOnly && m.Source == "" {
			return errors.New("must not set ReadOnly mode when using anonymous volumes")
		}
	case mount.TypeTmpfs:
		return checkTmpfs(m)
	}
	return nil
}

func missingField(name string) error { return fmt.Errorf("field %s must not be empty", name) }

func extraField(name string) error { return fmt.Errorf("field %s must not be specified", name) }

func checkBind(m *mount.Mount) error {
	if m.Source == "" {
		return missingField("Source")
	}
	o := m.BindOptions
	switch {
	case o == nil:
	case o.Propagation != "" && !slices.Contains(mount.Propagations, o.Propagation):
		return fmt.Errorf("invalid propagation mode: %s", o.Propagation)
	case !m.ReadOnly && o.ReadOnlyNonRecursive:
		return errors.New("mount options conflict: !ReadOnly && BindOptions.ReadOnlyNonRecursive")
	case !m.ReadOnly && o.ReadOnlyForceRecursive:
		return errors.New("mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive")
	case o.ReadOnlyNonRecursive && o.ReadOnlyForceRecursive:
		return errors.New("mount options conflict: ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive")
	}
	return nil
}

// checkTmpfs lets the options through that docker does: exec and noexec.
func checkTmpfs(m *mount.Mount) error {
	if m.Source != "" {
		return extraField("Source")
	}
	if m.TmpfsOptions == nil {
		return nil
	}
	for _, o := range m.TmpfsOptions.Options {
		if len(o) != 1 || o[0] != "exec" && o[0] != "noexec" {
			return fmt.Errorf("invalid option %q: want exec or noexec", strings.Join(o, "="))
		}
	}
	return nil
}

// checkTmpfsOptions refuses what no tmpfs knows (mount(8), tmpfs(5)): the kernel's own refusal, at the start, names nothing.
func checkTmpfsOptions(options string) error {
	if options == "" {
		return nil
	}
	flags := []string{
		"defaults", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync", "mand", "nomand",
		"atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime",
		"private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable",
	}
	data := []string{"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"}
	for o := range strings.SplitSeq(options, ",") {
		key, value, hasValue := strings.Cut(o, "=")
		if hasValue && value != "" && slices.Contains(data, key) || !hasValue && slices.Contains(flags, key) {
			continue
		}
		return fmt.Errorf("invalid tmpfs option %q: %w", o, errdefs.ErrInvalidArgument)
	}
	return nil
}

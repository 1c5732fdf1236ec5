package ctrd

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// Running names the containers that a Runtime of cfg, gone by now, has left running: those with a shim, or with a
// bundle and processes.
func Running(cfg Config) []string {
	r := leftBy(cfg)
	var out []string
	for _, id := range r.known() {
		if len(r.shimsOf(id)) > 0 || len(cgroupProcesses(r.cgroupOf(id))) > 0 {
			out = append(out, id)
		}
	}
	return out
}

// CleanUp ends all processes that a Runtime of cfg, gone by now, has left, and removes their cgroups. It needs no
// containerd: images and what else is below cfg.Root stay, what is mounted below cfg.State is the caller's to unmount.
func CleanUp(ctx context.Context, cfg Config) error {
	r := leftBy(cfg)
	var errs []error
	for _, id := range r.known() {
		errs = append(errs, r.purge(ctx, id))
	}
	for _, d := range dirs(filepath.Join("/", r.cfg.CgroupParent)) {
		_ = os.Remove(d) // another daemon's containers may be in it
	}
	return errors.Join(errs...)
}

// leftBy is a Runtime that only looks.
func leftBy(cfg Config) *Runtime {
	if cfg.CgroupParent == "" {
		cfg.CgroupParent = defaultCgroupParent
	}
	return &Runtime{cfg: cfg}
}

func (r *Runtime) cgroupOf(id string) string { return filepath.Join("/", r.cfg.CgroupParent, id) }

// known are the containers that have a bundle or a shim.
func (r *Runtime) known() []string {
	bundles, _ := filepath.Glob(r.bundle("*")) // the pattern is well formed
	var ids []string
	for _, b := range bundles {
		ids = append(ids, filepath.Base(b))
	}
	ids = slices.AppendSeq(ids, maps.Values(r.shims()))
	slices.Sort(ids)
	return slices.Compact(ids)
}

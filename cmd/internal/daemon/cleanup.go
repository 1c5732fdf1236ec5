package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/cmd/internal/config"
	"github.com/minictl/minictl/netdriver/bridge"
	"github.com/minictl/minictl/netdriver/firewall"
	"github.com/minictl/minictl/netdriver/macvlan"
	"github.com/minictl/minictl/netdriver/nl"
	"github.com/minictl/minictl/netdriver/overlay"
	"github.com/minictl/minictl/netdriver/sandbox"
	"github.com/minictl/minictl/runtime/ctrd"
)

// cleaning is `minictl daemon --cleanup`: the host as a reboot would leave it, or as if minictl had never been there.
type cleaning struct{ wanted, force, purge bool }

func (c *cleaning) flags(f *pflag.FlagSet) {
	f.BoolVar(&c.wanted, "cleanup", false, "remove what a stopped daemon left in the kernel: links, rules, namespaces, mounts, cgroups, sysctls; images and volumes stay")
	f.BoolVar(&c.force, "force", false, "with --cleanup: end containers that still run")
	f.BoolVar(&c.purge, "purge", false, "with --cleanup: remove --data-root, too, with all images, containers and volumes")
}

// run removes everything it can, says what it did, and gives all that failed. It may be called again.
func (c *cleaning) run(ctx context.Context, cfg config.Config, log *slog.Logger, out io.Writer) error {
	folders := []string{cfg.ExecRoot}
	if c.purge {
		folders = append(folders, cfg.DataRoot)
	}
	folders = slices.DeleteFunc(folders, func(dir string) bool {
		_, err := os.Stat(dir)
		return errors.Is(err, fs.ErrNotExist)
	})
	if len(folders) == 0 {
		fmt.Fprintf(out, "Nothing to remove: there is no %s\n", cfg.ExecRoot)
		return nil
	}
	lock, err := acquire(cfg) // a daemon that runs owns all this
	if err != nil {
		return err
	}
	defer func() { _ = lock.release() }() // on files that may be gone
	// Without an exec root there was no daemon of these folders since boot: what is in the kernel is another's.
	if slices.Contains(folders, cfg.ExecRoot) {
		if err := c.cleanKernel(ctx, cfg, log, out); err != nil {
			return err
		}
	}
	for _, dir := range folders {
		if err := removeFolder(dir); err != nil {
			return err
		}
		fmt.Fprintln(out, "Removed:", dir)
	}
	return nil
}

// cleanKernel ends containers, if it may, and removes what the kernel has of the daemon.
func (c *cleaning) cleanKernel(ctx context.Context, cfg config.Config, log *slog.Logger, out io.Writer) error {
	rt := ctrd.Config{Root: filepath.Join(cfg.DataRoot, "containerd"), State: filepath.Join(cfg.ExecRoot, "containerd"), CgroupParent: cgroupParent}
	running := ctrd.Running(rt)
	if len(running) > 0 && !c.force {
		return fmt.Errorf("%s: stop them first, or end them with --force", stillRun(running))
	}
	if err := errors.Join(
		ctrd.CleanUp(ctx, rt),
		removeNetwork(ctx, cfg, log),
		unmountBelow(cfg.ExecRoot), unmountBelow(cfg.DataRoot),
	); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	others, err := bridges()
	if err != nil {
		return err
	}
	if err := restoreSysctls(cfg.ExecRoot, len(others) == 0); err != nil {
		return err
	}
	if len(running) > 0 {
		fmt.Fprintf(out, "Ended containers: %s\n", short(running))
	}
	fmt.Fprintln(out, "Removed: links, firewall rules, namespaces, mounts, cgroups, sysctls")
	if len(others) > 0 {
		fmt.Fprintf(out, "Kept: forwarding between links as it is, for others may need it: %s\n", strings.Join(others, ", "))
	}
	return nil
}

// removeNetwork asks each part to remove what it knows as its own.
func removeNetwork(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	var errs []error
	dir := filepath.Join(cfg.ExecRoot, "netns")
	names, err := sandbox.List(dir)
	errs = append(errs, err)
	for _, n := range names {
		errs = append(errs, sandbox.Remove(filepath.Join(dir, n)))
	}
	fw := firewall.New(log)
	errs = append(errs,
		overlay.New(overlay.Config{Log: log, NetnsDir: netnsDir}).Prune(ctx, nil),
		bridge.New(bridge.Config{Log: log, Firewall: fw}).Prune(ctx, nil),
		macvlan.New(macvlan.Config{Log: log, Sandboxes: dir}).Prune(ctx, nil),
		fw.Sync(ctx), // an empty wish is no table
		fw.Close(),
	)
	return errors.Join(errs...)
}

// bridges are those on the host. After removeNetwork they are others'.
func bridges() ([]string, error) {
	c, err := nl.Here()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	links, err := c.Links()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, l := range links {
		if l.Kind == "bridge" {
			out = append(out, l.Name)
		}
	}
	return out, nil
}

// mountsBelow are the mount points below a folder, the innermost first.
func mountsBelow(dir string) ([]string, error) {
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return nil, fmt.Errorf("list mounts below %s: %w", dir, err)
	}
	var out []string
	for _, i := range infos {
		if i.Mountpoint != filepath.Clean(dir) {
			out = append(out, i.Mountpoint)
		}
	}
	slices.SortStableFunc(out, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return out, nil
}

func unmountBelow(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range mounts {
		if err := unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, &os.PathError{Op: "unmount", Path: m, Err: err})
		}
	}
	return errors.Join(errs...)
}

// removeFolder removes a folder, or what is in it where it is a mount point. It looks for mounts once more: what is
// mounted inside, perhaps a folder of the user's, must not be emptied.
func removeFolder(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("remove %s: still mounted: %s: unmount it and try again", dir, strings.Join(mounts, ", "))
	}
	on, err := mountinfo.Mounted(dir)
	if err != nil {
		return err
	}
	if !on {
		return os.RemoveAll(dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

func stillRun(ids []string) string {
	if len(ids) == 1 {
		return "1 container still runs (" + short(ids) + ")"
	}
	return fmt.Sprintf("%d containers still run (%s)", len(ids), short(ids))
}

// short gives the IDs as docker shows them, and not too many.
func short(ids []string) string {
	const shown, digits = 5, 12
	var out []string
	for _, id := range ids[:min(len(ids), shown)] {
		out = append(out, id[:min(len(id), digits)])
	}
	if len(ids) > shown {
		out = append(out, "…")
	}
	return strings.Join(out, ", ")
}

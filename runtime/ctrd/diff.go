package ctrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	continuity "github.com/containerd/continuity/fs"
)

// ChangeKind is what became of a file since the image, as docker's letters say it.
type ChangeKind byte

// The kinds of changes.
const (
	Changed ChangeKind = 'C'
	Added   ChangeKind = 'A'
	Deleted ChangeKind = 'D'
)

// Change is one file that differs from the image's.
type Change struct {
	Path string // absolute, in the container
	Kind ChangeKind
}

// Changes lists what a container changed in its image's files, sorted by path. A folder stands in the list when it was
// changed itself or when something in it was. What hide says true of, having been added, is left out.
func (r *Runtime) Changes(ctx context.Context, id string, hide func(path string) bool) ([]Change, error) {
	ctx, done, err := r.client.WithLease(r.ctx(ctx))
	if err != nil {
		return nil, fmt.Errorf("compare with the image: %w", err)
	}
	defer done(context.WithoutCancel(ctx))
	found := map[string]ChangeKind{}
	err = r.compare(ctx, id, func(p string, k ChangeKind) {
		if k != Added || !hide(p) {
			found[p] = k
		}
	})
	if err != nil {
		return nil, fmt.Errorf("compare with the image: %w", err)
	}
	return withFolders(found), nil
}

// withFolders adds the folders on the way to each change.
func withFolders(found map[string]ChangeKind) []Change {
	for _, p := range slices.Collect(maps.Keys(found)) {
		for d := path.Dir(p); d != "/"; d = path.Dir(d) {
			if _, ok := found[d]; !ok {
				found[d] = Changed
			}
		}
	}
	out := make([]Change, 0, len(found))
	for _, p := range slices.Sorted(maps.Keys(found)) {
		out = append(out, Change{p, found[p]})
	}
	return out
}

// compare looks into overlayfs's upper folder alone, where everything that changed is; other snapshotters have none, and
// both trees are walked.
func (r *Runtime) compare(ctx context.Context, id string, tell func(string, ChangeKind)) error {
	sn := r.client.SnapshotService(r.snapshotter)
	info, err := sn.Stat(ctx, id)
	if err != nil {
		return err
	}
	mounts, err := sn.Mounts(ctx, id)
	if err != nil {
		return err
	}
	view := id + "-diff-" + r.serial.next()
	below, err := sn.View(ctx, view, info.Parent)
	if err != nil {
		return err
	}
	defer func() { _ = sn.Remove(context.WithoutCancel(ctx), view) }()
	return mount.WithReadonlyTempMount(ctx, below, func(lower string) error {
		if upper := upperDir(mounts); upper != "" {
			return upperChanges(ctx, lower, upper, tell)
		}
		return mount.WithReadonlyTempMount(ctx, mounts, func(upper string) error {
			return continuity.Changes(ctx, lower, upper, func(k continuity.ChangeKind, p string, _ os.FileInfo, err error) error {
				switch k {
				case continuity.ChangeKindAdd:
					tell(p, Added)
				case continuity.ChangeKindModify:
					tell(p, Changed)
				case continuity.ChangeKindDelete:
					tell(p, Deleted)
				}
				return err
			})
		})
	})
}

func upperDir(mounts []mount.Mount) string {
	for _, m := range mounts {
		for _, o := range m.Options {
			if dir, ok := strings.CutPrefix(o, "upperdir="); ok && m.Type == "overlay" {
				return dir
			}
		}
	}
	return ""
}

// upperChanges reads overlayfs's upper folder: a device 0:0 stands for what was deleted, the opaque mark for a folder
// that was deleted and made again. The container may change it meanwhile; os.Root keeps its links from leading outside.
func upperChanges(ctx context.Context, lower, upper string, tell func(string, ChangeKind)) error {
	up, err := os.OpenRoot(upper)
	if err != nil {
		return err
	}
	defer up.Close()
	low, err := os.OpenRoot(lower)
	if err != nil {
		return err
	}
	defer low.Close()
	return fs.WalkDir(up.FS(), ".", func(p string, _ fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || p == "." && err == nil {
			return ctx.Err() // gone meanwhile
		}
		if err != nil {
			return err
		}
		now, err := up.Lstat(p)
		if err != nil {
			return nil
		}
		before, missing := low.Lstat(p)
		switch {
		case whiteout(now):
			if missing == nil {
				tell("/"+p, Deleted)
			}
		case missing != nil:
			tell("/"+p, Added)
		case !now.IsDir() || !before.IsDir() || attributes(now) != attributes(before):
			tell("/"+p, Changed)
		}
		if now.IsDir() && missing == nil && before.IsDir() && opaque(path.Join(upper, p)) {
			replaced(up, low, p, tell)
		}
		return ctx.Err()
	})
}

func whiteout(i fs.FileInfo) bool {
	st, ok := i.Sys().(*syscall.Stat_t)
	return ok && i.Mode()&fs.ModeCharDevice != 0 && st.Rdev == 0
}

// attributes are what of a folder is its own, not its entries'.
func attributes(i fs.FileInfo) [3]uint32 {
	st, ok := i.Sys().(*syscall.Stat_t)
	if !ok {
		return [3]uint32{}
	}
	return [3]uint32{st.Mode, st.Uid, st.Gid}
}

// opaque reads overlayfs's mark. A path that has meanwhile become a link gives a wrong answer at most.
func opaque(dir string) bool {
	buf := make([]byte, 1)
	n, err := syscall.Getxattr(dir, "trusted.overlay.opaque", buf)
	return err == nil && n == 1 && buf[0] == 'y'
}

// replaced tells what of a folder that was made anew is not there any more.
func replaced(up, low *os.Root, dir string, tell func(string, ChangeKind)) {
	entries, err := fs.ReadDir(low.FS(), dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		p := path.Join(dir, e.Name())
		if _, err := up.Lstat(p); errors.Is(err, fs.ErrNotExist) {
			tell("/"+p, Deleted)
		}
	}
}

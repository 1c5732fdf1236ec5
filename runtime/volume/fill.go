package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Fill copies the folder that a container's root has at target into an empty volume: content, owners, modes, times,
// extended attributes, and the folder's own. A volume that holds anything, and a root without that folder, change
// nothing. Links are copied, never followed, but for those on the way to target, which lead where they lead inside the
// container. The volume must be mounted.
//
// A plain volume gets its content all at once at the end, so that a daemon that dies meanwhile leaves it empty.
func (l *Local) Fill(ctx context.Context, v *Volume, root, target string) error {
	if empty, err := l.Empty(v.Name); err != nil || !empty {
		return err
	}
	src, err := openBelow(root, target)
	if err != nil || src == nil {
		return err
	}
	defer src.Close()
	dst, err := os.Open(l.Path(v.Name))
	if err != nil {
		return fmt.Errorf("fill volume %s: %w", v.Name, err)
	}
	defer dst.Close()
	if len(v.Options) > 0 { // another file system: nothing can be moved there
		err = copyTree(ctx, src, dst)
	} else {
		err = l.fillPlain(ctx, v.Name, src, dst)
	}
	if err != nil {
		return fmt.Errorf("fill volume %s from %s: %w", v.Name, target, err)
	}
	return nil
}

func (l *Local) fillPlain(ctx context.Context, name string, src, dst *os.File) (err error) {
	stage := filepath.Join(l.dir, name, fillDir)
	if err := errors.Join(os.RemoveAll(stage), os.Mkdir(stage, 0o700)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(stage)) }()
	from, err := os.Open(stage)
	if err != nil {
		return err
	}
	defer from.Close()
	if err := copyTree(ctx, src, from); err != nil {
		return err
	}
	names, err := os.ReadDir(stage)
	if err != nil {
		return err
	}
	for _, n := range names {
		// A container that runs with the volume may have made one of the same name meanwhile: that one stays.
		err := unix.Renameat2(fd(from), n.Name(), fd(dst), n.Name(), unix.RENAME_NOREPLACE)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("move %s: %w", n.Name(), err)
		}
	}
	return copyAttributes(src, dst)
}

func fd(f *os.File) int { return int(f.Fd()) }

// openBelow opens the folder at target as a process whose root is root would: a link to /etc leads to the root's own
// etc, and no number of dots leads out (openat2's RESOLVE_IN_ROOT). It gives nil if there is none.
func openBelow(root, target string) (*os.File, error) {
	at, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	n, err := unix.Openat2(fd(at), target, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, nil
	case errors.Is(err, unix.ENOTDIR):
		return nil, fmt.Errorf("cannot mount volume over existing file, file exists %s: %w", target, errdefs.ErrInvalidArgument)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", target, err)
	}
	return os.NewFile(uintptr(n), target), nil
}

// inode names a file with several links.
type inode struct{ dev, ino uint64 }

// copier copies one tree. Every step names one entry of an open folder and follows no link, so that a container that
// changes the target meanwhile cannot lead it elsewhere.
type copier struct {
	ctx   context.Context
	root  *os.File         // of the copy
	links map[inode]string // files with several links: where in the copy
}

// copyTree copies the content and the attributes of the folder src to the folder dst.
func copyTree(ctx context.Context, src, dst *os.File) error {
	c := &copier{ctx: ctx, root: dst, links: map[inode]string{}}
	if err := c.folder(src, dst, "."); err != nil {
		return err
	}
	return copyAttributes(src, dst)
}

// folder copies what is in src; rel is where dst is below the copy's root.
func (c *copier) folder(src, dst *os.File, rel string) error {
	names, err := src.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("read %s: %w", rel, err)
	}
	for _, n := range names {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.entry(src, dst, n, path.Join(rel, n)); err != nil {
			return fmt.Errorf("copy %s: %w", path.Join(rel, n), err)
		}
	}
	return nil
}

func (c *copier) entry(src, dst *os.File, name, rel string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(fd(src), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		id := inode{uint64(st.Dev), st.Ino}
		if first, ok := c.links[id]; ok {
			return c.link(first, dst, name)
		}
		c.links[id] = rel
	}
	switch kind {
	case unix.S_IFDIR:
		return c.subfolder(src, dst, name, rel)
	case unix.S_IFREG:
		return c.file(src, dst, name)
	case unix.S_IFLNK:
		return symlink(src, dst, name, &st)
	}
	if err := unix.Mknodat(fd(dst), name, kind|0o600, int(st.Rdev)); err != nil {
		return err
	}
	return special(dst, name, &st)
}

func (c *copier) subfolder(src, dst *os.File, name, rel string) error {
	if err := unix.Mkdirat(fd(dst), name, 0o700); err != nil {
		return err
	}
	from, err := openAt(src, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := openAt(dst, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer to.Close()
	if err := c.folder(from, to, rel); err != nil {
		return err
	}
	return copyAttributes(from, to)
}

func (c *copier) file(src, dst *os.File, name string) error {
	from, err := openAt(src, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := openAt(dst, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, copyAttributes(from, to), to.Close())
}

// link makes one more name of a file that is copied already, found again without following links.
func (c *copier) link(first string, dst *os.File, name string) error {
	n, err := unix.Openat2(fd(c.root), path.Dir(first), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return err
	}
	defer unix.Close(n)
	return unix.Linkat(n, path.Base(first), fd(dst), name, 0)
}

// openAt opens one entry of a folder, never through a link.
func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	n, err := unix.Openat(fd(dir), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(n), name), nil
}

func symlink(src, dst *os.File, name string, st *unix.Stat_t) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd(src), name, buf)
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(string(buf[:n]), fd(dst), name); err != nil {
		return err
	}
	return errors.Join(
		unix.Fchownat(fd(dst), name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW),
		unix.UtimesNanoAt(fd(dst), name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW),
	)
}

// special gives a device, pipe or socket its owner, mode and time, by a handle that is the node itself.
func special(dst *os.File, name string, st *unix.Stat_t) error {
	node, err := openAt(dst, name, unix.O_PATH)
	if err != nil {
		return err
	}
	defer node.Close()
	self := fmt.Sprintf("/proc/self/fd/%d", fd(node))
	return errors.Join(
		unix.Chown(self, int(st.Uid), int(st.Gid)),
		unix.Chmod(self, st.Mode&0o7777),
		unix.UtimesNanoAt(unix.AT_FDCWD, self, []unix.Timespec{st.Atim, st.Mtim}, 0),
	)
}

// copyAttributes gives dst the owner, mode, extended attributes and times of src. The order matters: a change of owner
// clears set-uid bits and capabilities, and each change moves the time.
func copyAttributes(src, dst *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd(src), &st); err != nil {
		return err
	}
	if err := unix.Fchown(fd(dst), int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd(dst), st.Mode&0o7777); err != nil {
		return err
	}
	if err := copyXattrs(src, dst); err != nil {
		return err
	}
	// By the file's own handle: a name in between could be another file by now.
	return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd(dst)), []unix.Timespec{st.Atim, st.Mtim}, 0)
}

// copyXattrs leaves out what the target's file system does not take.
func copyXattrs(src, dst *os.File) error {
	size, err := unix.Flistxattr(fd(src), nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && size == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list extended attributes: %w", err)
	}
	list := make([]byte, size)
	if size, err = unix.Flistxattr(fd(src), list); err != nil {
		return fmt.Errorf("list extended attributes: %w", err)
	}
	value := make([]byte, 64<<10) // the kernel's limit for one (XATTR_SIZE_MAX)
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:size]), "\x00"), "\x00") {
		n, err := unix.Fgetxattr(fd(src), name, value)
		if err == nil {
			err = unix.Fsetxattr(fd(dst), name, value[:n], 0)
		}
		if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("copy extended attribute %s: %w", name, err)
		}
	}
	return nil
}

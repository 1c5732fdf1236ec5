package tree

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/runtime/plain"
	"github.com/minictl/minictl/runtime/room"
)

// Owner is a user and group by number.
type Owner struct{ UID, GID int }

// UnpackOptions say how an archive is laid down.
type UnpackOptions struct {
	// KeepKind refuses to put a file in a folder's place and the other way round; without it the old one goes.
	KeepKind bool
	// Owner gets everything, instead of the numbers in the archive.
	Owner *Owner
	// NoChown leaves everything to whoever unpacks.
	NoChown bool
}

// ErrNotDirectory is the refusal to unpack into what is not a folder; it is docker's text.
var ErrNotDirectory = errdefs.ErrInvalidArgument.WithMessage("extraction point is not a directory")

// Unpack lays a tar, plain or compressed (see package plain), down in the folder p. What stands at an entry's place is
// replaced, a folder kept and filled. What would fill the disk is stopped (see package room). An entry whose name leads out of p is refused; links that are there already are
// followed as the container's processes would, within the root.
func (r *Root) Unpack(ctx context.Context, in io.Reader, p string, o UnpackOptions) error {
	fd, err := r.open(p, unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOTDIR) {
		return ErrNotDirectory
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	flat, err := plain.Open(ctx, in)
	if errdefs.IsNotImplemented(err) {
		return err
	}
	if err != nil {
		return bad(err)
	}
	defer flat.Close()
	return room.Keep(ctx, room.Of(fd), func(ctx context.Context) error { return r.unpack(ctx, flat, p, o) })
}

func (r *Root) unpack(ctx context.Context, in io.Reader, p string, o UnpackOptions) error {
	u := &unpacker{root: r, top: p, o: o}
	tr := tar.NewReader(in)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return u.finish()
		}
		if err != nil {
			return bad(err)
		}
		if err := u.entry(h, interruptible{ctx, tr}); err != nil {
			return err
		}
	}
}

// bad marks an archive that cannot be read.
func bad(err error) error { return fmt.Errorf("read archive: %w: %w", err, errdefs.ErrInvalidArgument) }

type unpacker struct {
	root    *Root
	top     string
	o       UnpackOptions
	folders []*tar.Header // their times are set last: filling a folder changes them
}

// inside cleans an entry's or a hard link's name; it fails for one that leads out of the archive.
func inside(name string) (string, error) {
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", fmt.Errorf("archive: entry %q leads out of the archive: %w", name, errdefs.ErrInvalidArgument)
	}
	return clean, nil
}

// place is an entry's folder, open, and its name in there. The folder is somewhere below the root for certain, and the
// name is one part, so nothing done with the two can lead outside.
type place struct {
	dir  int
	base string
}

func (u *unpacker) entry(h *tar.Header, body io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := inside(h.Name)
	if err != nil {
		return err
	}
	if name == "." { // the folder itself: only what is in it is asked for
		return nil
	}
	dir, err := u.root.folder(u.top, path.Dir(name))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	pl := place{dir, path.Base(name)}
	there, err := u.clear(pl, h)
	if err != nil || there == done {
		return err
	}
	if there == mountPoint {
		return at(h.Name, u.overwrite(pl, h, body))
	}
	if err := u.create(pl, h, body); err != nil {
		return at(h.Name, err)
	}
	if h.Typeflag == tar.TypeDir {
		u.folders = append(u.folders, h)
	}
	return nil
}

// What clear found.
type found int

const (
	free       found = iota // nothing is in the way (any more)
	done                    // nothing is left to do
	mountPoint              // a file that something is mounted on
)

// clear makes room for an entry.
func (u *unpacker) clear(pl place, h *tar.Header) (found, error) {
	fd, err := unix.Openat(pl.dir, pl.base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return free, nil
	}
	if err != nil {
		return free, at(h.Name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return free, at(h.Name, err)
	}
	isDir, wantDir := st.Mode&unix.S_IFMT == unix.S_IFDIR, h.Typeflag == tar.TypeDir
	switch {
	case isDir && wantDir:
		u.folders = append(u.folders, h)
		return done, at(h.Name, u.attributes(pl, h))
	case u.o.KeepKind && isDir:
		return free, fmt.Errorf("cannot overwrite directory %q with non-directory %q: %w", path.Join("/", u.top, h.Name), u.top, errdefs.ErrInvalidArgument)
	case u.o.KeepKind && wantDir:
		return free, fmt.Errorf("cannot overwrite non-directory %q with directory %q: %w", path.Join("/", u.top, h.Name), u.top, errdefs.ErrInvalidArgument)
	}
	// Unlinking a mount point of another mount namespace works, and takes the mount away: /etc/hosts would lose its content
	// for good. A file is written to instead.
	if mountID(fd) != mountID(pl.dir) {
		if h.Typeflag == tar.TypeReg && st.Mode&unix.S_IFMT == unix.S_IFREG {
			return mountPoint, nil
		}
		return free, at(h.Name, unix.EBUSY)
	}
	return free, at(h.Name, removeAll(pl))
}

// removeAll removes a file or a folder with all in it, but nothing that is mounted there.
func removeAll(pl place) error {
	err := unix.Unlinkat(pl.dir, pl.base, 0)
	if err == nil || errors.Is(err, unix.ENOENT) || !errors.Is(err, unix.EISDIR) {
		return err
	}
	fd, err := unix.Openat(pl.dir, pl.base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), pl.base)
	defer dir.Close()
	if mountID(fd) != mountID(pl.dir) {
		return unix.EBUSY
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := removeAll(place{fd, n}); err != nil {
			return err
		}
	}
	return unix.Unlinkat(pl.dir, pl.base, unix.AT_REMOVEDIR)
}

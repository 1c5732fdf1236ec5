package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// create makes an entry at its place, which is free.
func (u *unpacker) create(pl place, h *tar.Header, body io.Reader) error {
	mode := uint32(h.Mode & 0o7777)
	device := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	var err error
	switch h.Typeflag {
	case tar.TypeDir:
		err = unix.Mkdirat(pl.dir, pl.base, 0o700)
	case tar.TypeReg:
		return u.file(pl, h, body)
	case tar.TypeSymlink:
		err = unix.Symlinkat(h.Linkname, pl.dir, pl.base)
	case tar.TypeLink:
		return u.link(pl, h)
	case tar.TypeFifo:
		err = unix.Mknodat(pl.dir, pl.base, unix.S_IFIFO|mode, 0)
	case tar.TypeChar:
		err = unix.Mknodat(pl.dir, pl.base, unix.S_IFCHR|mode, int(device))
	case tar.TypeBlock:
		err = unix.Mknodat(pl.dir, pl.base, unix.S_IFBLK|mode, int(device))
	default:
		return fmt.Errorf("archive: entries of type %q are unknown: %w", h.Typeflag, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return err
	}
	return u.attributes(pl, h)
}

// file writes a new file: it must not be there, so whatever somebody puts in its place meanwhile is not written to.
func (u *unpacker) file(pl place, h *tar.Header, body io.Reader) error {
	fd, err := unix.Openat(pl.dir, pl.base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), h.Name)
	err = fill(f, h, body)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = unix.Unlinkat(pl.dir, pl.base, 0) // half a file is worse than none, and may be as large as the disk
		return err
	}
	return u.attributes(pl, h)
}

// fill tells a broken archive from a disk that is full.
func fill(f *os.File, h *tar.Header, body io.Reader) error {
	n, err := io.Copy(f, body)
	if errors.Is(err, io.ErrUnexpectedEOF) || err == nil && n != h.Size {
		return bad(io.ErrUnexpectedEOF)
	}
	return err
}

// overwrite gives a file that something is mounted on new content; owner and mode are the mount's.
func (u *unpacker) overwrite(pl place, h *tar.Header, body io.Reader) error {
	fd, err := unix.Openat(pl.dir, pl.base, unix.O_WRONLY|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), h.Name)
	err = fill(f, h, body)
	return errors.Join(err, f.Close())
}

// link makes one more name for a file that is in the folder already; its name counts from there, as tar has it.
func (u *unpacker) link(pl place, h *tar.Header) error {
	name, err := inside(h.Linkname)
	if err != nil {
		return err
	}
	dir, err := u.root.open(u.top+"/"+path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return unix.Linkat(dir, path.Base(name), pl.dir, pl.base, 0) // 0: a link as last part is not followed
}

// attributes sets owner, mode, capabilities and time, in this order: a change of owner takes set-user-ID bits and
// capabilities away.
func (u *unpacker) attributes(pl place, h *tar.Header) error {
	fd, err := unix.Openat(pl.dir, pl.base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	uid, gid := h.Uid, h.Gid
	if u.o.Owner != nil {
		uid, gid = u.o.Owner.UID, u.o.Owner.GID
	}
	if !u.o.NoChown {
		if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
			return err
		}
	}
	if h.Typeflag == tar.TypeSymlink {
		return unix.UtimesNanoAt(pl.dir, pl.base, times(h), unix.AT_SYMLINK_NOFOLLOW)
	}
	if err := unix.Chmod(self(fd), uint32(h.Mode&0o7777)); err != nil {
		return err
	}
	if v := h.PAXRecords[xattrKey]; v != "" && h.Typeflag == tar.TypeReg && !u.o.NoChown {
		if err := unix.Setxattr(self(fd), capability, []byte(v), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, self(fd), times(h), 0)
}

// times are the entry's; one that says nothing gets the zero of Unix, as with docker. A time the kernel cannot hold
// becomes the nearest one that every file system takes.
func times(h *tar.Header) []unix.Timespec {
	const last = 1<<33 - 1 // ext4's end, in the year 2446 or so
	sec := min(max(h.ModTime.Unix(), 0), last)
	ts := unix.Timespec{Sec: sec, Nsec: int64(h.ModTime.Nanosecond())}
	return []unix.Timespec{ts, ts}
}

// finish sets the folders' times, the innermost last made first. One that is gone needs none.
func (u *unpacker) finish() error {
	for i := len(u.folders) - 1; i >= 0; i-- {
		h := u.folders[i]
		fd, err := u.root.open(u.top+"/"+h.Name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)
		if err != nil {
			continue
		}
		err = unix.UtimesNanoAt(unix.AT_FDCWD, self(fd), times(h), 0)
		_ = unix.Close(fd)
		if err != nil {
			return at(h.Name, err)
		}
	}
	return nil
}

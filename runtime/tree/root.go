// Package tree packs and unpacks the files below one directory, a container's root say, and never leaves it: every path
// is resolved by the kernel with openat2's RESOLVE_IN_ROOT, so that neither links, "..", /proc's magic links nor a
// process that renames folders meanwhile lead outside.
//
// Paths are slash-separated and count from the root, with or without a leading slash. An absolute link inside means the
// root too, as it does for the container's own processes.
package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Root is a directory that no path leads out of.
type Root struct {
	dir *os.File
	fd  int
}

// Open opens a directory of the caller's own as a root; a link as its last part is followed.
func Open(dir string) (*Root, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return From(os.NewFile(uintptr(fd), dir)), nil
}

// From makes a root of an open directory, which it owns from then on.
func From(dir *os.File) *Root { return &Root{dir: dir, fd: int(dir.Fd())} }

// Close gives the directory back.
func (r *Root) Close() error { return r.dir.Close() }

// tries bounds how often a look-up is repeated that the kernel gave up on, because a rename elsewhere on the machine
// made it unsure whether ".." would lead outside (openat2(2), EAGAIN).
const tries = 1000

// open resolves p below the root.
func (r *Root) open(p string, flags int) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for range tries {
		fd, err := unix.Openat2(r.fd, "/"+p, &how)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return -1, &fs.PathError{Op: "open", Path: "/" + strings.TrimLeft(p, "/"), Err: err}
		}
		return fd, nil
	}
	return -1, &fs.PathError{Op: "open", Path: p, Err: unix.EAGAIN}
}

// Stat is what is known of a path without reading it.
type Stat struct {
	Name  string // the path's last part, "." and "/" included
	Size  int64  // in bytes
	Mode  fs.FileMode
	Mtime time.Time
	// LinkTarget is where a link leads in the end, as a path from the root; empty for anything else. It need not exist.
	LinkTarget string
}

// Stat describes p. A link as its last part is described itself, unless a slash follows it.
func (r *Root) Stat(p string) (Stat, error) {
	fd, err := r.open(p, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return Stat{}, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Stat{}, &fs.PathError{Op: "stat", Path: p, Err: err}
	}
	s := Stat{Name: path.Base("/" + p), Size: st.Size, Mode: fileMode(st.Mode), Mtime: time.Unix(st.Mtim.Unix())}
	if s.Mode&fs.ModeSymlink != 0 {
		s.LinkTarget = r.follow(p)
	}
	return s, nil
}

// maxLinks is the kernel's own bound on links in one look-up (path_resolution(7)).
const maxLinks = 40

// follow finds where p leads, part by part. The answer is for showing and for asking again: opening it is the kernel's.
func (r *Root) follow(p string) string {
	done, rest := "/", strings.Split(p, "/")
	for links := 0; len(rest) > 0 && links < maxLinks; {
		part := rest[0]
		rest = rest[1:]
		next := path.Join(done, part) // ".." above the root is the root
		target, err := r.readlink(next)
		if err != nil || part == "" || part == "." || part == ".." {
			done = next
			continue
		}
		links++
		if path.IsAbs(target) {
			done = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return done
}

func (r *Root) readlink(p string) (string, error) {
	fd, err := r.open(p, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return readlinkFD(fd)
}

// readlinkFD reads a link that is open itself (readlinkat(2), empty path).
func readlinkFD(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// fileMode turns the kernel's mode into Go's, which is what docker's clients read.
func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	for _, b := range []struct {
		kernel uint32
		ours   fs.FileMode
	}{{unix.S_ISUID, fs.ModeSetuid}, {unix.S_ISGID, fs.ModeSetgid}, {unix.S_ISVTX, fs.ModeSticky}} {
		if m&b.kernel != 0 {
			mode |= b.ours
		}
	}
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	}
	return mode
}

// self is the path by which an open file can be opened anew: it leads to that very file, whatever its name means now.
func self(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// reopen opens for reading what was opened as a mere path. Nonblocking, so that a pipe without a writer is no trap.
func reopen(fd int) (*os.File, error) {
	n, err := unix.Open(self(fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(n), self(fd)), nil
}

// mountID tells one mount from another (statx(2)); 0 where the kernel does not say.
func mountID(fd int) uint64 {
	var st unix.Statx_t
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st) != nil || st.Mask&unix.STATX_MNT_ID == 0 {
		return 0
	}
	return st.Mnt_id
}

// at names a path in an error.
func at(p string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", p, err)
}

// Mountpoint opens p for something to be mounted on, as a mere path. What is missing is made: folders, and at the end a
// folder or an empty file.
func (r *Root) Mountpoint(p string, folder bool) (*os.File, error) {
	fd, err := r.open(p, unix.O_PATH)
	if errors.Is(err, unix.ENOENT) {
		fd, err = r.make(p, folder)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), p), nil
}

func (r *Root) make(p string, folder bool) (int, error) {
	p = path.Clean("/" + p)
	dir, err := r.folder("/", path.Dir(p)[1:])
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	if folder {
		err = unix.Mkdirat(dir, path.Base(p), 0o755)
	} else {
		err = unix.Mknodat(dir, path.Base(p), unix.S_IFREG|0o644, 0)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, at(p, err)
	}
	return unix.Openat(dir, path.Base(p), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// folder opens the folder dir below top; missing ones below top are made.
func (r *Root) folder(top, dir string) (int, error) {
	fd, err := r.open(top+"/"+dir, unix.O_PATH|unix.O_DIRECTORY)
	if !errors.Is(err, unix.ENOENT) || dir == "." || dir == "" {
		return fd, err
	}
	above, err := r.folder(top, path.Dir(dir))
	if err != nil {
		return -1, err
	}
	defer unix.Close(above)
	if err := unix.Mkdirat(above, path.Base(dir), 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, at(dir, err)
	}
	fd, err = unix.Openat(above, path.Base(dir), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	return fd, at(dir, err)
}

// Clean gives a path as docker's clients mean it: absolute, without "..", which counts by the text and not by links, but
// with the slash or the "/." at its end that tells a folder's content from the folder.
func Clean(p string) string {
	clean := path.Clean("/" + p)
	switch {
	case p == "." || strings.HasSuffix(p, "/."):
		return strings.TrimSuffix(clean, "/") + "/."
	case strings.HasSuffix(p, "/") && clean != "/":
		return clean + "/"
	}
	return clean
}

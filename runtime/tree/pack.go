package tree

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// capability is the one extended attribute that archives carry, as docker's do: without it a file such as ping loses its
// rights. The prefix is GNU tar's.
const (
	capability = "security.capability"
	xattrKey   = "SCHILY.xattr." + capability
)

// PackOptions say how an archive is made.
type PackOptions struct {
	// Name stands in the archive for the packed path; its entries follow below it. Empty leaves the name out altogether,
	// and the folder itself: the archive of a whole root file system.
	Name string
	// OneMount leaves out what is below other mounts.
	OneMount bool
}

// Pack writes p and all below it to w as a tar. A link is packed, never followed, unless p ends in a slash. Sockets are
// left out, since nothing could be made of them. What changes meanwhile is packed as it is when its turn comes; what
// goes away is left out.
func (r *Root) Pack(ctx context.Context, w io.Writer, p string, o PackOptions) error {
	fd, err := r.open(p, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	pk := &packer{ctx: ctx, tw: tar.NewWriter(w), seen: map[inode]string{}}
	if o.OneMount {
		pk.mount = mountID(fd)
	}
	if err := pk.entry(fd, o.Name); err != nil {
		return err
	}
	return pk.tw.Close()
}

// inode is a file's identity on this machine.
type inode struct{ dev, ino uint64 }

type packer struct {
	ctx   context.Context
	tw    *tar.Writer
	seen  map[inode]string // files with several names, by the first one
	mount uint64           // the one mount to stay on; 0: any
}

// entry packs what fd, a mere path, is open on.
func (p *packer) entry(fd int, name string) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return at(name, err)
	}
	h, err := p.header(fd, &st, name)
	if h == nil || err != nil {
		return at(name, err)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if name != "" {
			if err := p.tw.WriteHeader(h); err != nil {
				return at(name, err)
			}
		}
		return p.folder(fd, name)
	case tar.TypeReg:
		return at(name, p.file(fd, h))
	}
	return at(name, p.tw.WriteHeader(h))
}

// header describes a file; nil leaves it out.
func (p *packer) header(fd int, st *unix.Stat_t, name string) (*tar.Header, error) {
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
		if !strings.HasSuffix(name, "/") {
			h.Name += "/"
		}
		return h, nil
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		var err error
		h.Linkname, err = readlinkFD(fd)
		return h, err
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
		p.xattr(fd, h)
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	default:
		return nil, nil
	}
	if st.Nlink > 1 {
		id := inode{st.Dev, st.Ino}
		if first, ok := p.seen[id]; ok {
			h.Typeflag, h.Linkname, h.Size, h.PAXRecords = tar.TypeLink, first, 0, nil
			return h, nil
		}
		p.seen[id] = name
	}
	return h, nil
}

// xattr adds the file's capabilities, if it has any and the file system knows of such.
func (p *packer) xattr(fd int, h *tar.Header) {
	buf := make([]byte, 256) // the kernel's own form takes 24 bytes at most
	if n, err := unix.Getxattr(self(fd), capability, buf); err == nil && n > 0 {
		h.PAXRecords = map[string]string{xattrKey: string(buf[:n])}
	}
}

// file packs exactly as many bytes as its header says: a log that grows is cut, one that shrinks is filled with zeros,
// as GNU tar does.
func (p *packer) file(fd int, h *tar.Header) error {
	f, err := reopen(fd)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.tw.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(p.tw, io.LimitReader(interruptible{p.ctx, f}, h.Size))
	if err != nil {
		return err
	}
	_, err = io.CopyN(p.tw, zeros{}, h.Size-n)
	return err
}

// interruptible ends a long copy with its context.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (i interruptible) Read(b []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.r.Read(b)
}

type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// folder packs what is in a folder, in the order of names, so that two archives of the same tree are equal.
func (p *packer) folder(fd int, name string) error {
	if p.mount != 0 && mountID(fd) != p.mount {
		return nil // another mount: its mount point stands in the archive, empty
	}
	dir, err := reopen(fd)
	if err != nil {
		return at(name, err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return at(name, err)
	}
	slices.Sort(names)
	for _, n := range names {
		if err := p.child(dir, n, join(name, n)); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) child(dir *os.File, base, name string) error {
	fd, err := unix.Openat(int(dir.Fd()), base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil // gone meanwhile
	}
	if err != nil {
		return at(name, err)
	}
	defer unix.Close(fd)
	return p.entry(fd, name)
}

// join keeps what path.Join would clean away: "./x" and "/x" tell a client what it asked for.
func join(dir, base string) string {
	if dir == "" || strings.HasSuffix(dir, "/") {
		return dir + base
	}
	return dir + "/" + base
}

// ArchiveName is the name that docker gives a path in its archive: the last part as it was asked for, so that a link's
// own name is kept where it was followed. p is clean, see Clean.
func ArchiveName(p string) string { return path.Base(p) }

package logs

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// gzSuffix ends the names of rotated files that are compressed.
const gzSuffix = ".gz"

// fileID is a log file's identity, which it keeps when it is renamed and when it is compressed. An inode's number alone
// may come again as soon as the file is gone.
type fileID struct {
	inode uint64
	born  int64 // ns since 1970; 0 where the file system does not know
}

func identify(f *os.File) (fileID, error) {
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return fileID{}, &os.PathError{Op: "statx", Path: f.Name(), Err: err}
	}
	id := fileID{inode: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.born = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return id, nil
}

func (id fileID) String() string { return fmt.Sprintf("%d/%d", id.inode, id.born) }

// compress replaces a rotated file by its compressed form. When that fails the file stays as it is.
func compress(path string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	id, err := identify(in)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(path+gzSuffix+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(out.Name())
		}
	}()
	zip := gzip.NewWriter(out)
	zip.Comment = id.String()
	_, err = io.Copy(zip, in)
	if err := errors.Join(err, zip.Close(), out.Close()); err != nil {
		return err
	}
	if err := os.Rename(out.Name(), path+gzSuffix); err != nil {
		return err
	}
	return os.Remove(path)
}

// tidy removes what a crash during compress can leave: half a compressed file, or both forms of one.
func tidy(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		plain, isGz := strings.CutSuffix(name, gzSuffix)
		switch {
		case !strings.HasPrefix(name, fileName+"."):
			continue
		case strings.HasSuffix(name, gzSuffix+".tmp"):
			plain = name
		case !isGz:
			continue
		}
		if err := os.Remove(filepath.Join(dir, plain)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// openLog opens one file of a log, in the form that it has now.
func openLog(path string) (*cursor, error) {
	f, err := os.Open(path)
	packed := false
	if errors.Is(err, os.ErrNotExist) {
		packed = true
		f, err = os.Open(path + gzSuffix)
	}
	if err != nil {
		return nil, err
	}
	c := &cursor{f: f, packed: packed}
	if c.info, err = f.Stat(); err == nil {
		c.size = c.info.Size()
		c.id, err = c.identify()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return c, nil
}

func (c *cursor) identify() (id fileID, err error) {
	if !c.packed {
		return identify(c.f)
	}
	zip, err := gzip.NewReader(io.NewSectionReader(c.f, 0, c.info.Size()))
	if err != nil {
		return id, fmt.Errorf("read %s: %w", c.f.Name(), err)
	}
	if _, err := fmt.Sscanf(zip.Comment, "%d/%d", &id.inode, &id.born); err != nil {
		return id, fmt.Errorf("read %s: it does not say of which file it was made: %w", c.f.Name(), err)
	}
	return id, nil
}

// unpack makes a compressed file readable at any offset: in a temporary file without a name.
func (c *cursor) unpack() error {
	if !c.packed {
		return nil
	}
	zip, err := gzip.NewReader(io.NewSectionReader(c.f, 0, c.info.Size()))
	if err != nil {
		return fmt.Errorf("read %s: %w", c.f.Name(), err)
	}
	plain, err := os.CreateTemp("", "minictl-log")
	if err != nil {
		return fmt.Errorf("unpack %s: %w", c.f.Name(), err)
	}
	size, err := io.Copy(plain, zip)
	if err := errors.Join(err, os.Remove(plain.Name())); err != nil {
		plain.Close()
		return fmt.Errorf("unpack %s: %w", c.f.Name(), err)
	}
	c.f.Close()
	c.f, c.size, c.packed = plain, size, false
	return nil
}
